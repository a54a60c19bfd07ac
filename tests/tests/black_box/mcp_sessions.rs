//! Conversations that go on: the oldest revision, states that come back, and what ends with an agent's rights.

use std::path::{Path, PathBuf};

use agentca_tests::lab::{Enforcer, Lab};
use agentca_tests::mcp::{self, META, Server, Session};
use agentca_tests::{log, wait};
use serde_json::{Value, json};

struct Place {
    lab: Lab,
    server: Server,
    enforcer: Enforcer,
}

fn place(options: &[&str], settings: &str) -> Place {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", options);
    mcp::write_catalogue(&lab, "bank", &server.definitions(), &mcp::bank_risk, &[]);
    let upstream = mcp::upstream("bank", &server, settings);
    mcp::configure(&lab, &["bank"], &upstream);
    let enforcer = lab.start_enforcer("edge-1");
    Place {
        lab,
        server,
        enforcer,
    }
}

impl Place {
    fn agent(&self, name: &str, scopes: &str) -> PathBuf {
        let agent = self.lab.agent_with(name, &["--scope", scopes]);
        wait::until("the enforcer has seen the tools", || {
            let shown = mcp::listed(&self.enforcer, &agent, "bank");
            (!shown.is_empty()).then_some(())
        });
        agent
    }
}

#[test]
fn the_oldest_revision_works_from_end_to_end() {
    const OLDEST: &str = "2025-06-18";
    let place = place(&["--business"], "");
    let agent = place.agent("support-01", "mcp:bank:echo,mcp:bank:slow_progress");
    let session = Session::open_in(&place.enforcer, &agent, "bank", OLDEST);
    assert!(session.id.as_ref().unwrap().contains(OLDEST));
    assert_eq!(session.listed(), ["echo", "slow_progress"]);
    let result = session.call("echo", r#"{"text":"a"}"#);
    assert_eq!(mcp::text(&result), r#"{"text":"a"}"#, "{result}");
    let calls = place.server.calls_of("echo");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].header("mcp-protocol-version"), Some(OLDEST));

    let denied = session.call("payments_refund", "{}");
    assert_eq!(denied["isError"], true, "{denied}");
    assert!(mcp::text(&denied).contains("`scope`"), "{denied}");
    assert!(place.server.calls_of("payments_refund").is_empty());
    let records = log::of_kind(&place.enforcer.log(), "decision");
    let of_refund = |record: &&Value| record["call"]["name"] == "mcp:bank:payments_refund";
    let record = records.iter().find(of_refund).unwrap();
    assert_eq!(
        (&record["decision"], &record["rule"]),
        (&"deny".into(), &"scope".into())
    );

    let slow = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"slow_progress",
        "arguments":{"steps":3,"interval_ms":10},"_meta":{"progressToken":"p"}}}"#;
    let got = session.post(slow);
    assert_eq!(got.header("content-type"), Some("text/event-stream"));
    let result = mcp::answer_in(&got.body, 5)["result"].clone();
    assert_eq!(mcp::text(&result), "done at last", "{got:?}");
    let steps = got.body.matches("notifications/progress").count();
    let receipts = got.body.matches(": agent-receipt").count();
    assert!(steps == 3 && receipts > steps, "{got:?}");
}

const TOOL: &str = "test_input_required_result_request_state";

/// Calls it with more members beside its name.
fn rounds(place: &Place, agent: &Path, more: &str) -> agentca_tests::curl::Got {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"_meta":{META},"name":"{TOOL}","arguments":{{}}{more}}}}}"#
    );
    let body = body.replace(
        "clientCapabilities\":{}",
        "clientCapabilities\":{\"elicitation\":{}}",
    );
    let headers = mcp::headers("tools/call", Some(TOOL));
    mcp::post(&place.enforcer, agent, "bank", &headers, body.as_bytes())
}

#[test]
fn a_state_continues_nobody_elses_call() {
    let place = place(&[], "");
    let [one, two] = ["agent-1", "agent-2"].map(|name| place.agent(name, "mcp:bank:*"));
    let got = rounds(&place, &one, "");
    let asked = mcp::answer_in(&got.body, 7)["result"].clone();
    assert_eq!(asked["resultType"], "input_required", "{got:?}");
    let input = json!({ "confirm": { "action": "accept", "content": { "ok": true } } });
    let more = format!(
        r#","inputResponses":{input},"requestState":{}"#,
        asked["requestState"]
    );
    let before = place.server.calls_of(TOOL).len();
    let got = rounds(&place, &two, &more);
    assert_eq!(got.status, 400, "{got:?}");
    assert_eq!(mcp::answer_in(&got.body, 7)["error"]["code"], -32602);
    got.must_be_signed();
    let records = log::records(&place.enforcer.log());
    let record = &records[usize::try_from(got.record()).unwrap()];
    assert_eq!(
        (&record["decision"], &record["rule"]),
        (&"deny".into(), &"malformed".into())
    );
    assert_eq!(
        record["agent"]["uri"],
        "spiffe://example.org/prod/agent/agent-2"
    );
    assert_eq!(place.server.calls_of(TOOL).len(), before);
    let got = rounds(&place, &one, &more);
    let result = mcp::answer_in(&got.body, 7)["result"].clone();
    assert_eq!(mcp::text(&result), "state-ok", "{got:?}");
}

/// Stops unless the session is none of who presents it: not a message reaches the server.
#[track_caller]
fn must_be_unknown(place: &Place, session: &Session<'_>) {
    let for_agents = || {
        let calls = place.server.calls();
        let of_agents = calls
            .iter()
            .filter(|call| call.header("agent-id").is_some());
        of_agents.count()
    };
    let before = for_agents();
    let got = session.post(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}"#);
    assert_eq!(got.status, 404, "{got:?}");
    got.must_be_signed();
    assert!(!got.body.contains("echo"), "{got:?}");
    let records = log::records(&place.enforcer.log());
    let record = &records[usize::try_from(got.record()).unwrap()];
    assert_eq!(
        (&record["decision"], &record["rule"]),
        (&"deny".into(), &"session".into())
    );
    assert_eq!(for_agents(), before);
}

#[test]
fn a_session_is_not_opened_by_a_revoked_certificate() {
    let place = place(&["--business"], "");
    let [one, two] = ["agent-1", "agent-2"].map(|name| place.agent(name, "mcp:bank:*"));
    let session = Session::open(&place.enforcer, &one, "bank");
    assert!(session.id.is_some());
    let all = session.listed();
    assert!(!all.is_empty());
    must_be_unknown(&place, &session.told_by(&two));
    place.lab.revoke("agent-1", "key-compromise");
    // The revoked certificate opens no connection any more, whatever session it names; and none opens the session.
    assert!(
        place
            .enforcer
            .connect(&one)
            .unwrap()
            .get("/mcp/bank")
            .is_err()
    );
    must_be_unknown(&place, &session.told_by(&two));
    // The agent with its rights again has its session again.
    place.lab.agentca(&["reinstate", "agent-1"]);
    let options = ["--scope", "mcp:bank:*", "--force"];
    let again = place.lab.agent_with("agent-1", &options);
    assert_eq!(session.told_by(&again).listed(), all);
}

#[test]
fn a_session_ends_with_its_grant() {
    let place = place(&["--business"], "");
    let agent = place.agent("agent-1", "mcp:bank:*");
    let session = Session::open(&place.enforcer, &agent, "bank");
    let all = session.listed();
    assert!(!all.is_empty());
    let issue = |out: &str| {
        let options = ["--scope", "mcp:bank:*", "--out", out];
        place.lab.agent_with("agent-1", &options)
    };
    let renewed = issue("renewed");
    assert_eq!(
        session.told_by(&renewed).listed(),
        all,
        "the grant is the same"
    );
    let scopes = "mcp:bank:*,payments:read";
    let grant = ["agent", "grant", "agent-1", "--scope", scopes];
    place.lab.agentca(&grant);
    let changed = issue("changed");
    must_be_unknown(&place, &session.told_by(&changed));
    let begun = Session::open(&place.enforcer, &changed, "bank");
    assert!(begun.id.is_some() && begun.id != session.id);
    assert_eq!(begun.listed(), all);
}

#[test]
fn a_changed_secret_is_used_from_its_reload_on() {
    let lab = Lab::with_authority();
    std::fs::write(lab.path("secret"), "first").unwrap();
    let server = Server::start(&lab, "bank", &["--business"]);
    mcp::write_catalogue(&lab, "bank", &server.definitions(), &mcp::bank_risk, &[]);
    let credentials = "[upstream.credentials]\nrefresh = \"1h\"\nbearer_from = \"file:secret\"";
    let upstream = mcp::upstream(
        "bank",
        &server,
        &format!("watch = \"100ms\"\n{credentials}"),
    );
    mcp::configure(&lab, &["bank"], &upstream);
    let enforcer = lab.start_enforcer("edge-1");
    let agent = lab.agent_with("support-01", &["--scope", "mcp:bank:*"]);
    wait::until("the enforcer has seen the tools", || {
        (!mcp::listed(&enforcer, &agent, "bank").is_empty()).then_some(())
    });
    let shown = || {
        mcp::call(&enforcer, &agent, "bank", "echo", "{}");
        let calls = server.calls_of("echo");
        let shown = calls.last().unwrap().header("authorization");
        shown.unwrap_or_default().to_owned()
    };
    assert_eq!(shown(), "Bearer first");
    std::fs::write(lab.path("secret"), "second").unwrap();
    assert_eq!(shown(), "Bearer first", "it is not read at every call");
    enforcer.program.signal("HUP");
    wait::until("the new secret is used", || {
        (shown() == "Bearer second").then_some(())
    });
    // No call shows the old one any more.
    for _ in 0..20 {
        assert_eq!(shown(), "Bearer second");
    }
}
