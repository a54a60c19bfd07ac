//! The authority's own certificates, renewed while the clock runs on for months.

use std::collections::BTreeSet;
use std::path::Path;

use agentca_tests::clock::Clock;
use agentca_tests::lab::{Enforcer, Lab, ROUTES};
use agentca_tests::program::Said;
use agentca_tests::{log, wait};
use serde_json::Value;

/// A domain whose programs all go by one clock. People and enforcers are certified for 90 days, so that
/// the steps can be long.
fn lab_by_clock() -> (Lab, Clock) {
    let mut lab = Lab::new();
    let mut toml = std::fs::read_to_string(lab.path("pki/agentca.toml")).unwrap();
    toml.push_str("[lifetimes]\nperson = \"90d\"\nenforcer = \"90d\"\n");
    std::fs::write(lab.path("pki/agentca.toml"), toml).unwrap();
    let clock = Clock::right(&lab.path(""));
    for (name, value) in clock.environment() {
        lab.set(name, &value);
    }
    lab.start_authority();
    renew_admin(&lab);
    lab.add_enforcer("edge-1");
    lab.write_configuration("edge-1", "", ROUTES);
    lab.root();
    (lab, clock)
}

fn renew_admin(lab: &Lab) {
    let store = lab.path("config/agentca");
    let folder = std::fs::read_to_string(store.join("default")).unwrap();
    let folder = store.join(folder.trim_end());
    // The authority may have to renew its own certificate first.
    wait::until("the admin's certificate is renewed", || {
        let said = lab.try_agentca(&["renew", &folder.display().to_string()]);
        (said.code == Some(0)).then_some(())
    });
}

/// Lets the enforcer serve one call of a new agent, has its log witnessed, and ends it.
fn serve_once(lab: &Lab, agent: &str) {
    let before = confirmations(&lab.path("edge-1-data/log"));
    let mut enforcer = lab.launch_enforcer("edge-1");
    lab.agent(agent);
    wait::until("the enforcer serves", || {
        enforcer.program.must_be_running();
        (call(lab, &enforcer, agent) == "200").then_some(())
    });
    let log = enforcer.log();
    assert!(enforcer.program.terminate().success());
    assert!(confirmations(&log) > before, "the log was witnessed");
}

fn call(lab: &Lab, enforcer: &Enforcer, agent: &str) -> String {
    let address = enforcer.address();
    let mut curl = lab.command("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--resolve"])
        .arg(format!("localhost:{}:{}", address.port(), address.ip()))
        .arg("--cacert")
        .arg(enforcer.root())
        .args(["--cert", &format!("{agent}/agent.crt")])
        .args(["--key", &format!("{agent}/agent.key")])
        .arg(format!(
            "https://localhost:{}/v1/accounts/7",
            address.port()
        ));
    Said::from(curl).stdout
}

fn confirmations(log: &Path) -> usize {
    match log.is_dir() {
        true => log::of_kind(log, "witness-confirmed").len(),
        false => 0,
    }
}

/// What `agentca log verify` says, by the lab's clock.
fn verify(lab: &Lab, log: &Path) -> Value {
    let (log, root) = (log.display().to_string(), lab.root().display().to_string());
    let said = lab.agentca(&["log", "verify", &log, "--root", &root, "--json"]);
    serde_json::from_str(&said.stdout).unwrap()
}

#[test]
fn logs_verify_long_after_their_first_signers_ended() {
    let (mut lab, clock) = lab_by_clock();
    let (ours, edge) = (lab.path("pki/log"), lab.path("edge-1-data/log"));
    serve_once(&lab, "first");
    assert_eq!(log::of_kind(&ours, "signer-announced").len(), 0);
    // Two thirds of 90 days: the log's and the witness's, while the authority runs.
    clock.step("+61d");
    signers_announced(&mut lab, 2);
    renew_admin(&lab);
    lab.agentca(&["renew", "edge-1"]);
    serve_once(&lab, "second");
    // Beyond the end of the first certificates: nothing is new, and everything counts.
    clock.step("+95d");
    serve_once(&lab, "third");
    // Its log's, its responses' and the witness's.
    assert_eq!(announced(&edge).len(), 3);
    must_count(&lab, &edge, "+95d");
    // At two thirds of the second, found at the start.
    assert!(lab.take_authority().terminate().success());
    clock.step("+122d");
    lab.start_authority();
    signers_announced(&mut lab, 4);
    renew_admin(&lab);
    lab.agentca(&["renew", "edge-1"]);
    serve_once(&lab, "fourth");
    assert_eq!(announced(&edge).len(), 6);
    must_count(&lab, &edge, "+122d");
    assert!(lab.take_authority().terminate().success());
    let said = verify(&lab, &ours);
    assert_eq!(said["counted"], said["size"], "{said}");
}

/// Moves the clock on, in steps that no certificate of a person or enforcer would survive twice.
fn go_on(lab: &Lab, clock: &Clock, days: &[u32]) {
    for day in days {
        clock.step(&format!("+{day}d"));
        renew_admin(lab);
        lab.agentca(&["renew", "edge-1"]);
    }
}

/// Fetches the CRL of a shard to a file; none while there is none.
fn fetch_crl(lab: &Lab, shard: u32) -> Option<()> {
    let mut curl = lab.command("curl");
    curl.args(["-sf", &format!("http://{}/crl/{shard}.crl", lab.http())])
        .args(["-o", &format!("{shard}.crl")]);
    (Said::from(curl).code == Some(0)).then_some(())
}

/// openssl on an agent's chain with the CRL of that shard.
fn openssl_verify(lab: &Lab, agent: &str, shard: u32) -> Said {
    let mut convert = lab.command("openssl");
    let (der, pem) = (format!("{shard}.crl"), format!("{shard}.pem"));
    convert.args(["crl", "-inform", "DER", "-in", &der, "-out", &pem]);
    Said::from(convert).must_succeed();
    let mut verify = lab.command("openssl");
    let chain = format!("{agent}/agent.crt");
    verify
        .args([
            "verify",
            "-x509_strict",
            "-crl_check",
            "-CAfile",
            "root.crt",
        ])
        .args(["-untrusted", &chain, "-CRLfile", &pem, &chain]);
    Said::from(verify)
}

/// Waits until the authority's log has announced so many certificates.
fn signers_announced(lab: &mut Lab, count: usize) {
    let log = lab.path("pki/log");
    wait::until("the signers are renewed", || {
        lab.authority().must_be_running();
        (log::of_kind(&log, "signer-announced").len() == count).then_some(())
    });
}

/// The certificates that a log announced after its first record.
fn announced(log: &Path) -> BTreeSet<String> {
    let records = log::of_kind(log, "signer-announced");
    let leaf = |record: &Value| record["chain"][0].as_str().unwrap().to_owned();
    records.iter().map(leaf).collect()
}

/// The newest cosignature counts, and so does every record.
#[track_caller]
fn must_count(lab: &Lab, log: &Path, day: &str) {
    let said = verify(lab, log);
    assert_eq!(said["counted"], said["size"], "{said}");
    let newest = log::of_kind(log, "witness-confirmed").pop().unwrap();
    assert_eq!(said["cosigned"]["size"], newest["size"], "{day}: {said}");
}

#[test]
fn the_issuing_ca_is_followed_by_another_before_it_ends() {
    let (mut lab, clock) = lab_by_clock();
    let wait_for = |lab: &mut Lab, says: &str| {
        wait::until(says, || {
            lab.authority().must_be_running();
            lab.authority().printed().contains(says).then_some(())
        });
    };
    go_on(&lab, &clock, &[80, 160, 240]);
    assert!(fetch_crl(&lab, 1024).is_none());
    // At two thirds it is made and announced, and its list is published.
    go_on(&lab, &clock, &[245]);
    wait_for(&mut lab, "the next issuing CA was made");
    wait::until("its list is published", || fetch_crl(&lab, 1024));
    lab.agent_with("old", &["--ttl", "720h"]);
    assert!(fetch_crl(&lab, 0).is_some());
    openssl_verify(&lab, "old", 0).must_succeed();
    // From three quarters on it certifies; a list is signed by the issuer of those it is for.
    go_on(&lab, &clock, &[274]);
    wait_for(&mut lab, "the next issuing CA certifies now");
    lab.agent_with("new", &["--ttl", "720h"]);
    for (agent, shard) in [("old", 0), ("new", 1024)] {
        assert!(fetch_crl(&lab, shard).is_some());
        openssl_verify(&lab, agent, shard).must_succeed();
    }
    openssl_verify(&lab, "old", 1024).must_end_with(2);
    // Where no feed reaches, each list by its own address.
    lab.add_enforcer("edge-2");
    let list = |shard: u32| format!("\"http://{}/crl/{shard}.crl\"", lab.http());
    let settings = format!("revocation = \"crl\"\ncrl = [{}, {}]", list(0), list(1024));
    lab.write_configuration("edge-2", &settings, ROUTES);
    for name in ["edge-1", "edge-2"] {
        let mut enforcer = lab.launch_enforcer(name);
        for agent in ["old", "new"] {
            wait::until("the enforcer serves both", || {
                enforcer.program.must_be_running();
                (call(&lab, &enforcer, agent) == "200").then_some(())
            });
        }
        assert!(enforcer.program.terminate().success());
    }
    // The first ends with nothing left of it; a start finds the second alone.
    lab.agentca(&["renew", "edge-1"]);
    go_on(&lab, &clock, &[330, 366]);
    assert!(lab.take_authority().terminate().success());
    std::fs::remove_file(lab.path("pki/keys/issuing.key")).unwrap();
    lab.start_authority();
    serve_once(&lab, "last");
    assert!(fetch_crl(&lab, 0).is_none() && fetch_crl(&lab, 1024).is_some());
    let edge = lab.path("edge-1-data/log");
    must_count(&lab, &edge, "+366d");
    assert!(lab.take_authority().terminate().success());
    let said = verify(&lab, &lab.path("pki/log"));
    assert_eq!(said["counted"], said["size"], "{said}");
}
