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
    lab.agentca(&["renew", &folder.display().to_string()]);
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
