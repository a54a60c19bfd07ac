//! The runnable example, as a test: what it prints, what it leaves behind, and that a second run is like the first.

use std::process::Command;

use agentca_tests::program::{Program, Said, ours};
use agentca_tests::wait;

fn example(out: &std::path::Path, more: &[&str]) -> Command {
    let mut command = Command::new(ours("certs-example"));
    // Without cargo it takes the programs that lie beside it.
    command
        .env_remove("CARGO")
        .env("HOME", "/nonexistent")
        .env("XDG_CONFIG_HOME", "/nonexistent");
    command
        .args(["--out", &out.display().to_string()])
        .args(more);
    command
}

#[test]
fn the_example_tells_its_whole_story_twice() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for _ in 0..2 {
        let said = Said::from(example(&out, &[])).must_succeed();
        let row = |words: &[&str]| {
            let found = said
                .stdout
                .lines()
                .any(|line| words.iter().all(|word| line.contains(word)));
            assert!(found, "no line with {words:?} in {said}");
        };
        row(&["agent", "call", "verdict", "rule", "record"]);
        row(&["support-01", "GET /v1/accounts/7", "allow 200", "edge-1 #"]);
        row(&["support-01", "POST /v1/payments", "deny 403", "scope"]);
        row(&["support-01", "/v1/secrets", "deny 403", "not-in-catalogue"]);
        row(&["low-trust-01", "deny 403", "trust"]);
        row(&["staging-01", "deny 403", "environment"]);
        row(&["expired-01", "TLS alert", "CertificateExpired"]);
        row(&["revoked-01", "TLS alert", "CertificateRevoked"]);
        row(&["foreign-01", "TLS alert", "UnknownCA"]);
        row(&["TOOL", "RISK", "STATE", "WHY"]);
        row(&["refund_order", "financial", "added"]);
        row(&[
            "tools/list",
            "find_ticket, read_ticket, close_ticket  ",
            "edge-1 #",
        ]);
        row(&["tools/call read_ticket", "ticket 7, open", "edge-1 #"]);
        row(&["tools/call refund_order", "isError", "trust", "edge-1 #"]);
        row(&["tools/call export_customers", "isError", "tool-changed"]);
        row(&["tools/list", "find_ticket, close_ticket  ", "edge-1 #"]);
        row(&[
            "tools/call read_ticket",
            "isError",
            "tool-changed",
            "edge-1 #",
        ]);
        row(&["tickets:read_ticket  changed"]);
        row(&["!! the suggested permissions rise"]);
        row(&["approved tickets:read_ticket sha256:", "person/admin"]);
        row(&["tools/list: find_ticket, read_ticket, close_ticket"]);
        row(&[
            "revoked spiffe://example.org/prod/agent/support-01",
            "record",
        ]);
        row(&["in force at 1 of 1 enforcers"]);
        row(&["the stream ended", "ms"]);
        row(&["agentca log verify pki/log --root support-01/ca.crt"]);
        row(&["agentca log verify edge-1-data/log --root support-01/ca.crt"]);
        row(&["curl -i --cert"]);
        row(&["Everything has ended", "`--stay` leaves it running"]);
        assert!(
            out.join("config/agentca").is_dir(),
            "its credentials are in its own folder"
        );
    }
}

#[test]
fn the_example_keeps_to_its_own_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("precious"), "x").unwrap();
    let said = Said::from(example(folder.path(), &[])).must_end_with(1);
    assert!(said.stderr.contains("not the example's"), "{said}");
    assert!(folder.path().join("precious").exists());
}

#[test]
fn the_example_stays_when_asked_and_ends_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut stay = Program::start(
        "example",
        example(&out, &["--stay"]),
        folder.path().join("printed"),
    );
    wait::within(wait::PATIENCE * 3, "it stays", || {
        stay.must_be_running();
        stay.printed().contains("still running").then_some(())
    });
    let second = Said::from(example(&out, &[])).must_end_with(1);
    assert!(
        second.stderr.contains("another example is running"),
        "{second}"
    );
    let children = format!("/proc/{0}/task/{0}/children", stay.id());
    let children = std::fs::read_to_string(children).unwrap();
    let children: Vec<String> = children.split_whitespace().map(str::to_owned).collect();
    assert_eq!(
        children.len(),
        2,
        "the authority and the enforcer: {children:?}"
    );
    assert!(stay.terminate().success());
    for child in children {
        let command = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        assert!(
            !command.starts_with("agentca"),
            "{child} {command} is still there"
        );
    }
}
