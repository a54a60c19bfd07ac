//! Histories that go back: a restored authority, a rolled-back enforcer, and an authority that was merely away.

use std::path::Path;
use std::process::Command;

use agentca_tests::lab::{Lab, ROUTES};
use agentca_tests::program::Said;
use agentca_tests::wait;

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let mut cp = Command::new("cp");
    cp.arg("-r").arg(from).arg(to);
    Said::from(cp).must_succeed();
}

#[test]
fn an_authority_that_was_away_is_followed_again() {
    let mut lab = Lab::with_authority();
    let (one, two) = (lab.agent("agent-1"), lab.agent("agent-2"));
    lab.add_enforcer("edge-1");
    lab.write_configuration("edge-1", "stale_after = \"10s\"", ROUTES);
    let enforcer = lab.start_enforcer("edge-1");
    let mut kept = enforcer.connect(&one).unwrap();
    assert_eq!(kept.get("/v1/accounts/7").unwrap().status, 200);
    assert!(lab.take_authority().terminate().success());
    assert_eq!(
        kept.get("/v1/accounts/7").unwrap().status,
        200,
        "not stale yet"
    );
    wait::until("it is stale", || {
        (kept.get("/v1/accounts/7").ok()?.rule() == "stale").then_some(())
    });
    lab.start_authority();
    wait::until("it serves again", || {
        (kept.get("/v1/accounts/7").ok()?.status == 200).then_some(())
    });
    let said = lab.revoke("agent-2", "superseded");
    assert!(said.stdout.contains("1 of 1"), "{said}");
    assert!(
        enforcer
            .connect(&two)
            .unwrap()
            .get("/v1/accounts/7")
            .is_err()
    );
}

#[test]
fn an_authority_restored_from_an_older_copy_stops_and_says_why() {
    let mut lab = Lab::with_authority();
    let (good, stolen) = (lab.agent("support-01"), lab.agent("stolen-01"));
    lab.add_enforcer("edge-1");
    lab.write_configuration("edge-1", "stale_after = \"3s\"", ROUTES);
    let enforcer = lab.start_enforcer("edge-1");
    assert!(lab.take_authority().terminate().success());
    copy(&lab.path("pki"), &lab.path("backup"));
    lab.start_authority();
    wait::until("the enforcer follows again", || {
        let said = lab.agentca(&["enforcer", "list", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        (list[0]["connected"] == true).then_some(())
    });
    let said = lab.revoke("stolen-01", "key-compromise");
    assert!(said.stdout.contains("1 of 1"), "{said}");
    assert!(lab.take_authority().terminate().success());

    copy(&lab.path("backup"), &lab.path("pki"));
    std::fs::remove_file(lab.path("authority.txt")).unwrap();
    let mut restored = lab.launch_authority();
    let status = restored.wait();
    assert!(
        !status.success(),
        "a restored copy must not go on: {}",
        restored.printed()
    );
    let said = restored.printed().to_lowercase();
    assert!(
        ["older", "rolled back", "restored", "later checkpoint"]
            .iter()
            .any(|word| said.contains(word)),
        "says why: {said}"
    );
    // The revoked agent does not come back, whatever the copy says.
    let answer = enforcer
        .connect(&stolen)
        .and_then(|mut tls| tls.get("/v1/accounts/7"));
    assert!(answer.is_err(), "{answer:?}");
    let mut kept = enforcer.connect(&good).unwrap();
    wait::until("without an authority it is stale", || {
        (kept.get("/v1/accounts/7").ok()?.rule() == "stale").then_some(())
    });
}

#[test]
fn an_enforcer_whose_log_went_back_refuses_until_it_begins_a_new_one() {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    let enforcer = lab.enforcer("edge-1");
    assert!(enforcer.program.terminate().success());
    copy(&lab.path("edge-1-data"), &lab.path("backup"));
    let enforcer = lab.start_enforcer("edge-1");
    assert_eq!(
        enforcer
            .connect(&agent)
            .unwrap()
            .get("/v1/accounts/7")
            .unwrap()
            .status,
        200
    );
    assert!(enforcer.program.terminate().success());

    copy(&lab.path("backup"), &lab.path("edge-1-data"));
    let mut rolled_back = lab.launch_enforcer("edge-1");
    wait::until("it says why it does not serve", || {
        let said = rolled_back.program.printed().to_lowercase();
        ["went back", "rolled back", "older", "behind"]
            .iter()
            .any(|word| said.contains(word))
            .then_some(())
    });
    let answer = rolled_back
        .connect(&agent)
        .and_then(|mut tls| tls.get("/v1/accounts/7"));
    assert!(answer.is_err(), "{answer:?}");
    if rolled_back.program.ended().is_none() {
        rolled_back.program.kill();
    }

    // A lost log goes on under a new generation of its origin, never with old numbers again.
    std::fs::remove_dir_all(lab.path("edge-1-data")).unwrap();
    std::fs::remove_dir_all(lab.path("edge-1")).unwrap();
    let ip = lab.ip().to_string();
    lab.agentca(&[
        "enforcer",
        "add",
        "edge-1",
        "--env",
        "prod",
        "--dns",
        "localhost",
        "--ip",
        &ip,
        "--out",
        "edge-1",
        "--new-log",
    ]);
    let enforcer = lab.start_enforcer("edge-1");
    let answer = enforcer
        .connect(&agent)
        .unwrap()
        .get("/v1/accounts/7")
        .unwrap();
    assert_eq!(answer.status, 200);
    let audit = answer.header("agent-audit").unwrap().to_owned();
    assert!(
        audit.contains("log=\"example.org/prod/enforcer/edge-1/2\""),
        "{audit}"
    );
}

#[test]
fn a_whole_new_disk_is_not_accepted_under_old_numbers() {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    let enforcer = lab.enforcer("edge-1");
    assert_eq!(
        enforcer
            .connect(&agent)
            .unwrap()
            .get("/v1/accounts/7")
            .unwrap()
            .status,
        200
    );
    assert!(enforcer.program.terminate().success());
    std::fs::remove_dir_all(lab.path("edge-1-data")).unwrap();
    let emptied = lab.launch_enforcer("edge-1");
    wait::until("it says why it does not serve", || {
        let said = emptied.program.printed().to_lowercase();
        ["went back", "rolled back", "older", "behind"]
            .iter()
            .any(|word| said.contains(word))
            .then_some(())
    });
    let answer = emptied
        .connect(&agent)
        .and_then(|mut tls| tls.get("/v1/accounts/7"));
    assert!(answer.is_err(), "{answer:?}");
}
