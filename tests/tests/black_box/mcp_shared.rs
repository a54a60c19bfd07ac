//! Sessions at `/mcp`: one for each server that shares it, begun when it is needed, and nobody else's.

use std::path::PathBuf;

use agentca_tests::lab::{Enforcer, Lab};
use agentca_tests::mcp::{self, SESSIONS, Server, Session};
use agentca_tests::{log, wait};
use serde_json::Value;

struct Place {
    lab: Lab,
    bank: Server,
    vault: Server,
    enforcer: Enforcer,
    one: PathBuf,
    two: PathBuf,
}

fn place() -> Place {
    let lab = Lab::with_authority();
    let [bank, vault] = ["bank", "vault"].map(|name| Server::start(&lab, name, &["--business"]));
    let mut tables = String::new();
    for (name, server) in [("bank", &bank), ("vault", &vault)] {
        mcp::write_catalogue(&lab, name, &server.definitions(), &mcp::bank_risk, &[]);
        tables += &mcp::upstream(name, server, "shared = true");
    }
    mcp::configure(&lab, &["bank", "vault"], &tables);
    let enforcer = lab.start_enforcer("edge-1");
    let scopes = "mcp:bank:*,mcp:vault:*";
    let [one, two] = ["agent-1", "agent-2"].map(|name| lab.agent_with(name, &["--scope", scopes]));
    wait::until("the enforcer has seen the tools", || {
        (mcp::listed_at(&enforcer, &one, "/mcp").len() == 12).then_some(())
    });
    Place {
        lab,
        bank,
        vault,
        enforcer,
        one,
        two,
    }
}

impl Place {
    fn session<'a>(&'a self, agent: &'a std::path::Path) -> Session<'a> {
        Session::open_at(&self.enforcer, agent, "/mcp".to_owned(), SESSIONS)
    }

    fn record(&self, number: u64) -> Value {
        log::records(&self.enforcer.log())[usize::try_from(number).unwrap()].clone()
    }
}

/// The messages of a method that reached a server for agents.
fn of_agents(server: &Server, method: &str) -> Vec<mcp::Call> {
    let mut calls = server.calls();
    calls.retain(|call| call.header("agent-id").is_some() && call.message()["method"] == method);
    calls
}

/// A call of a tool of the bank that takes longer than any test.
const SLOW: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"bank__slow_progress",
    "arguments":{"steps":100000,"interval_ms":10},"_meta":{"progressToken":5}}}"#;
const CANCELLED: &str = "notifications/cancelled";

fn cancel(id: u64) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"{CANCELLED}","params":{{"requestId":{id},"reason":"enough"}}}}"#
    )
}

#[test]
fn a_session_at_the_shared_endpoint_is_one_at_each_server() {
    let place = place();
    let session = place.session(&place.one);
    let shown = session.listed();
    assert_eq!(shown.len(), 12, "{shown:?}");
    assert!(shown[..6].iter().all(|name| name.starts_with("bank__")));
    assert!(shown[6..].iter().all(|name| name.starts_with("vault__")));
    assert!(of_agents(&place.bank, "initialize").is_empty());
    let mut ids = Vec::new();
    for (name, server) in [("bank", &place.bank), ("vault", &place.vault)] {
        for text in [r#"{"text":"a"}"#, r#"{"text":"b"}"#] {
            let result = session.call(&format!("{name}__echo"), text);
            assert_eq!(mcp::text(&result), text, "{result}");
        }
        // Begun once, and the calls are in what was begun.
        assert_eq!(of_agents(server, "initialize").len(), 1, "{name}");
        assert_eq!(of_agents(server, "notifications/initialized").len(), 1);
        let calls = server.calls_of("echo");
        let id = calls[0].header("mcp-session-id").map(str::to_owned);
        assert!(id.is_some() && calls.len() == 2, "{calls:?}");
        assert_eq!(calls[1].header("mcp-session-id"), id.as_deref());
        assert_eq!(calls[0].header("mcp-protocol-version"), Some(SESSIONS));
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
    let names = |name: &str| {
        let records = log::of_kind(&place.enforcer.log(), "decision");
        let of_it = records
            .iter()
            .filter(|record| record["call"]["name"] == name);
        of_it.count()
    };
    assert_eq!((names("mcp:bank:echo"), names("mcp:vault:echo")), (2, 2));
}

#[test]
fn a_cancellation_reaches_the_server_where_the_call_runs() {
    let place = place();
    let session = place.session(&place.one);
    session.call("bank__echo", "{}");
    session.call("vault__echo", "{}");
    let mut stream = session.open_stream(SLOW);
    mcp::read_until(&mut stream, "step 1");
    let [twin, other] = [&place.one, &place.two].map(|agent| place.session(agent));
    // Whose id it is not: another session's of the same agent, another agent's; what never was.
    for (session, id) in [(&twin, 7), (&other, 7), (&session, 99)] {
        let got = session.post(&cancel(id));
        assert_eq!(got.status, 202, "{got:?}");
        got.must_be_signed();
    }
    mcp::read_until(&mut stream, "notifications/progress");
    let got = session.post(&cancel(7));
    assert_eq!(got.status, 202, "{got:?}");
    got.must_be_signed();
    stream.must_be_over();
    let reached = of_agents(&place.bank, CANCELLED);
    assert_eq!(reached.len(), 1, "{reached:?}");
    assert_eq!(reached[0].body(), cancel(7));
    let call = &place.bank.calls_of("slow_progress")[0];
    let session_of = |call: &mcp::Call| call.header("mcp-session-id").map(str::to_owned);
    assert_eq!(session_of(&reached[0]), session_of(call));
    assert!(of_agents(&place.vault, CANCELLED).is_empty());
    let record = place.record(got.record());
    assert_eq!(record["call"]["name"], "mcp:bank:notifications:cancelled");
    assert_eq!(record["decision"], "allow", "{record}");
}

#[test]
fn a_session_at_the_shared_endpoint_is_its_agents_while_it_may() {
    let place = place();
    let session = place.session(&place.one);
    session.call("bank__echo", "{}");
    let call = r#"{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"bank__echo","arguments":{}}}"#;
    let of_tools = || of_agents(&place.bank, "tools/call").len();
    assert_eq!(of_tools(), 1);
    for message in [
        call,
        &cancel(4),
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#,
    ] {
        let got = session.told_by(&place.two).post(message);
        assert_eq!(got.status, 404, "{got:?}");
        got.must_be_signed();
        let record = place.record(got.record());
        assert_eq!(record["decision"], "deny", "{record}");
        assert_eq!(record["rule"], "session", "{record}");
    }
    assert_eq!(of_tools(), 1);

    let mut stream = session.open_stream(SLOW);
    mcp::read_until(&mut stream, "step 1");
    let before = of_tools();
    place.lab.revoke("agent-1", "key-compromise");
    stream.must_be_cut();
    let mut late = place.enforcer.connect(&place.one).unwrap();
    let id = session.id.as_deref().unwrap();
    let length = call.len();
    // At the handshake; what is sent meanwhile is read by nobody.
    let _closed = late.send(format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nMcp-Session-Id: {id}\r\nContent-Length: {length}\r\n\r\n{call}"
    ));
    assert!(late.is_closed_without_a_word());
    assert_eq!(of_tools(), before);
}
