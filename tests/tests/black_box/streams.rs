//! Answers without a known end: recorded before their head, ended by revocation, never ended cleanly when broken.

use std::path::Path;

use agentca_tests::curl::{curl, try_curl};
use agentca_tests::lab::{Enforcer, Lab};
use agentca_tests::tls::Tls;
use agentca_tests::{log, wait};
use serde_json::Value;

/// Opens a stream and reads its first events.
fn open(enforcer: &Enforcer, agent: &Path) -> (Tls, usize) {
    let mut tls = enforcer.connect(agent).unwrap();
    tls.send("GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let head = tls.head().unwrap();
    assert_eq!(head.status, 200);
    let audit = head.header("agent-audit").unwrap();
    assert!(audit.contains("phase=open"), "{audit}");
    assert!(
        head.header("signature").is_some() && head.header("content-digest").is_none(),
        "{head:?}"
    );
    let index = audit
        .split(", ")
        .find_map(|part| part.strip_prefix("index="))
        .unwrap()
        .parse()
        .unwrap();
    for _ in 0..3 {
        assert!(tls.chunk().unwrap().is_some());
    }
    (tls, index)
}

/// The outcome record of a decision.
fn outcome(enforcer: &Enforcer, decision: usize) -> Value {
    wait::until("the outcome is recorded", || {
        let outcomes = log::of_kind(&enforcer.log(), "outcome");
        outcomes
            .into_iter()
            .find(|record| record["decision_index"] == decision)
    })
}

#[test]
fn revocation_ends_a_running_stream_and_no_other() {
    let lab = Lab::with_authority();
    let (one, two) = (lab.agent("agent-1"), lab.agent("agent-2"));
    let enforcer = lab.enforcer("edge-1");
    let (mut stream, index) = open(&enforcer, &one);
    let (mut other, _) = open(&enforcer, &two);
    let record = &log::records(&enforcer.log())[index];
    assert_eq!(
        record["decision"], "allow",
        "the decision is durable before the head: {record}"
    );
    lab.revoke("agent-1", "key-compromise");
    stream.must_be_cut();
    assert!(other.chunk().unwrap().is_some(), "the other goes on");
    let outcome = outcome(&enforcer, index);
    assert!(outcome["result"]["ended"] != "complete", "{outcome}");
    assert!(
        outcome["result"]["digest"].is_string() && outcome["result"]["length"].is_u64(),
        "{outcome}"
    );
    wait::until("the upstream is let go", || {
        (lab.upstream().streaming() == 1).then_some(())
    });
}

#[test]
fn a_client_that_leaves_is_recorded_and_the_upstream_let_go() {
    let lab = Lab::with_authority();
    let agent = lab.agent("agent-1");
    let enforcer = lab.enforcer("edge-1");
    let (stream, index) = open(&enforcer, &agent);
    drop(stream);
    let outcome = outcome(&enforcer, index);
    assert!(outcome["result"]["ended"] != "complete", "{outcome}");
    wait::until("the upstream is let go", || {
        (lab.upstream().streaming() == 0).then_some(())
    });
}

#[test]
fn answers_larger_than_the_buffer_are_streams() {
    let lab = Lab::with_authority();
    let agent = lab.agent("agent-1");
    let enforcer = lab.enforcer("edge-1");
    for version in ["--http1.1", "--http2"] {
        let got = curl(
            &enforcer,
            &agent,
            &[version],
            &["/v1/big/1048576", "/v1/big/3000000", "/v1/chunked/1"],
        );
        let phase = |at: usize| {
            got[at]
                .header("agent-audit")
                .unwrap()
                .contains("phase=open")
        };
        assert_eq!((phase(0), phase(1), phase(2)), (false, true, true));
        assert_eq!(got[1].body.len(), 3_000_000);
        assert_eq!(got[2].body, "hello, world");
        let index = usize::try_from(got[1].record()).unwrap();
        let outcome = outcome(&enforcer, index);
        assert_eq!(outcome["result"]["length"], 3_000_000, "{outcome}");
    }
}

#[test]
fn http2_streams_end_by_reset_when_revoked() {
    let lab = Lab::with_authority();
    let agent = lab.agent("agent-1");
    let enforcer = lab.enforcer("edge-1");
    let got = lab.path("got.txt");
    let options = ["--http2", "-N", "-o", got.to_str().unwrap()];
    let said = std::thread::scope(|scope| {
        let curl = scope.spawn(|| try_curl(&enforcer, &agent, &options, &["/v1/stream"]));
        wait::until("the stream runs", || {
            let got = std::fs::read_to_string(&got).ok()?;
            got.contains("data: 0").then_some(())
        });
        lab.revoke("agent-1", "key-compromise");
        curl.join().unwrap()
    });
    assert!(
        matches!(said.code, Some(56 | 92 | 16 | 18)),
        "not a clean end: {:?} {}",
        said.code,
        said.stderr
    );
}

#[test]
fn sigterm_drains() {
    let lab = Lab::with_authority();
    let agent = lab.agent("agent-1");
    lab.add_enforcer("edge-1");
    lab.write_configuration(
        "edge-1",
        "[limits]\ndrain_timeout = \"1s\"\n",
        agentca_tests::lab::ROUTES,
    );
    let mut enforcer = lab.start_enforcer("edge-1");
    let (mut stream, index) = open(&enforcer, &agent);
    enforcer.program.signal("TERM");
    stream.must_be_cut();
    assert!(enforcer.program.wait().success());
    assert!(outcome(&enforcer, index)["result"]["ended"] != "complete");
    let root = lab.root().display().to_string();
    let said = lab.agentca(&[
        "log",
        "verify",
        &enforcer.log().display().to_string(),
        "--root",
        &root,
    ]);
    assert!(!said.stdout.is_empty());
}
