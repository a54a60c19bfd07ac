//! An enforcer where no feed can reach: CRLs from a URL or a file.

use std::path::Path;
use std::process::Command;

use agentca_tests::lab::{Enforcer, Lab, ROUTES};
use agentca_tests::program::Said;
use agentca_tests::{log, wait};

/// The shard URL that a certificate names.
fn shard(lab: &Lab, agent: &Path) -> String {
    let mut openssl = lab.command("openssl");
    openssl
        .args(["x509", "-noout", "-ext", "crlDistributionPoints", "-in"])
        .arg(agent.join("agent.crt"));
    let said = Said::from(openssl).must_succeed();
    let url = said
        .stdout
        .split("URI:")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    url.unwrap_or_else(|| panic!("no CRL in {said}")).to_owned()
}

fn fetch(url: &str, to: &Path) {
    let mut curl = Command::new("curl");
    curl.args(["-sSf", url, "-o"]).arg(to);
    Said::from(curl).must_succeed();
}

#[test]
fn a_crl_from_a_url_revokes_and_is_recorded() {
    let mut lab = Lab::with_authority();
    let (one, two) = (lab.agent("agent-1"), lab.agent("agent-2"));
    lab.add_enforcer("edge-1");
    let url = shard(&lab, &one);
    let settings = format!("revocation = \"crl\"\ncrl = [\"{url}\"]\ncrl_refresh = \"1s\"");
    lab.write_configuration("edge-1", &settings, ROUTES);
    let enforcer = lab.start_enforcer("edge-1");
    for agent in [&one, &two] {
        assert_eq!(
            enforcer
                .connect(agent)
                .unwrap()
                .get("/v1/accounts/7")
                .unwrap()
                .status,
            200
        );
    }
    let mut kept = enforcer.connect(&one).unwrap();
    assert_eq!(kept.get("/v1/accounts/7").unwrap().status, 200);
    let said = lab.revoke("agent-1", "key-compromise");
    assert!(
        said.stdout.contains("0 of 0") || said.code == Some(0),
        "nobody to wait for: {said}"
    );
    wait::until("the CRL is in force", || {
        enforcer.connect(&one).ok()?.get("/v1/accounts/7").err()
    });
    match kept.get("/v1/accounts/7") {
        Ok(answer) => assert_eq!(answer.rule(), "revoked"),
        Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock),
    }
    assert_eq!(
        enforcer
            .connect(&two)
            .unwrap()
            .get("/v1/accounts/7")
            .unwrap()
            .status,
        200
    );
    let accepted = log::of_kind(&enforcer.log(), "crl-accepted");
    assert!(
        accepted.len() >= 2,
        "each accepted number is a record: {accepted:?}"
    );
    // No authority is needed for what is running.
    assert!(lab.take_authority().terminate().success());
    assert_eq!(
        enforcer
            .connect(&two)
            .unwrap()
            .get("/v1/accounts/7")
            .unwrap()
            .status,
        200
    );
    let (log, root) = (
        enforcer.log().display().to_string(),
        lab.root().display().to_string(),
    );
    assert!(enforcer.program.terminate().success());
    let verify = ["log", "verify", &log, "--root", &root];
    let said = lab.agentca(&verify);
    assert!(
        said.stdout.contains("revocation from CRLs alone")
            && said.stdout.contains("nobody: it has no witness"),
        "it says that nobody witnessed: {said}"
    );
    let said = lab.agentca(&[&verify[..], &["--json"]].concat());
    let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(report["revocation"]["mode"], "crl", "{said}");
    assert!(
        report["revocation"]["accepted"].as_u64() >= Some(2),
        "{said}"
    );
    assert_eq!(report["witness"], serde_json::Value::Null, "{said}");
}

#[test]
fn a_crl_from_a_file_never_goes_back() {
    let lab = Lab::with_authority();
    let (one, two) = (lab.agent("agent-1"), lab.agent("agent-2"));
    lab.add_enforcer("edge-1");
    let url = shard(&lab, &one);
    let (file, old) = (lab.path("shard.crl"), lab.path("old.crl"));
    fetch(&url, &old);
    lab.revoke("agent-1", "key-compromise");
    wait::until("the revocation is published", || {
        fetch(&url, &file);
        (std::fs::read(&file).unwrap() != std::fs::read(&old).unwrap()).then_some(())
    });
    lab.write_configuration(
        "edge-1",
        "revocation = \"crl\"\ncrl = [\"shard.crl\"]\ncrl_refresh = \"1s\"",
        ROUTES,
    );
    let enforcer = lab.start_enforcer("edge-1");
    let refused = || {
        enforcer
            .connect(&one)
            .and_then(|mut tls| tls.get("/v1/accounts/7"))
            .is_err()
    };
    assert!(refused());
    assert_eq!(
        enforcer
            .connect(&two)
            .unwrap()
            .get("/v1/accounts/7")
            .unwrap()
            .status,
        200
    );
    // An older list, properly signed, in the place of the newer one: said, recorded nowhere, and not in force.
    std::fs::copy(&old, &file).unwrap();
    let refusals = |enforcer: &Enforcer| enforcer.program.printed().matches("went back").count();
    wait::until("the older list is refused", || {
        (refusals(&enforcer) > 0).then_some(())
    });
    assert!(refused(), "nothing revoked comes back");
    let numbers: Vec<_> = log::of_kind(&enforcer.log(), "crl-accepted")
        .iter()
        .map(|r| r["number"].clone())
        .collect();
    assert_eq!(numbers.len(), 1, "{numbers:?}");
    // Nor after a restart, with the older list alone.
    assert!(enforcer.program.terminate().success());
    let before = std::fs::read_to_string(lab.path("edge-1.txt"))
        .unwrap()
        .matches("went back")
        .count();
    let again = lab.launch_enforcer("edge-1");
    wait::until("it says so again", || {
        (refusals(&again) > before).then_some(())
    });
    let answer = again
        .connect(&one)
        .and_then(|mut tls| tls.get("/v1/accounts/7"));
    assert!(
        !answer.as_ref().is_ok_and(|answer| answer.status == 200),
        "{answer:?}"
    );
}

#[test]
fn certificates_of_other_shards_and_damaged_lists_open_nothing() {
    let lab = Lab::with_authority();
    let one = lab.agent("agent-1");
    lab.add_enforcer("edge-1");
    let url = shard(&lab, &one);
    let elsewhere = Lab::with_authority();
    let foreign = elsewhere.agent("agent-1");
    let file = lab.path("shard.crl");
    fetch(&shard(&elsewhere, &foreign), &file);
    lab.write_configuration(
        "edge-1",
        "revocation = \"crl\"\ncrl = [\"shard.crl\"]\ncrl_refresh = \"1s\"\nstale_after = \"2s\"",
        ROUTES,
    );
    let enforcer = lab.launch_enforcer("edge-1");
    // A list of somebody else is none: it opens all the same, once stale_after is over, to nobody.
    wait::until("it opens", || {
        std::net::TcpStream::connect(enforcer.address()).ok()
    });
    let answer = enforcer
        .connect(&one)
        .and_then(|mut tls| tls.get("/v1/accounts/7"));
    assert!(answer.is_err(), "every handshake gets an alert: {answer:?}");
    assert!(
        log::of_kind(&enforcer.log(), "decision").is_empty(),
        "and nothing is recorded"
    );
    fetch(&url, &file);
    wait::until("with the right list it serves", || {
        (enforcer
            .connect(&one)
            .ok()?
            .get("/v1/accounts/7")
            .ok()?
            .status
            == 200)
            .then_some(())
    });
}
