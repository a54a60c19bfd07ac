//! Calls that are held back over a reload: what is in force when their body is whole decides about all of them.

use std::path::Path;

use agentca_tests::lab::{Enforcer, Lab, ROUTES};
use agentca_tests::mcp::{self, Server};
use agentca_tests::tls::Tls;
use agentca_tests::{log, wait};
use serde_json::Value;

/// Sends the head of a request whose body is still to come; back when the enforcer waits for it.
fn hold(enforcer: &Enforcer, agent: &Path, path: &str, fields: &[String], length: usize) -> Tls {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let mut held = enforcer.connect(agent).unwrap();
    held.send(format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\
         Expect: 100-continue\r\n\r\n"
    ))
    .unwrap();
    assert_eq!(held.head().unwrap().status, 100, "its body is waited for");
    held
}

/// The decision about a call, and how many records there are of it.
fn decision(enforcer: &Enforcer, name: &str) -> (Value, usize) {
    let records = log::records(&enforcer.log());
    let of_it = |record: &&Value| record["call"]["name"] == name;
    let decision = records.iter().rfind(of_it).unwrap().clone();
    let outcomes = records
        .iter()
        .filter(|record| record["decision_index"] == decision["seq"]);
    let count = 1 + outcomes.count();
    (decision, count)
}

#[test]
fn a_call_that_is_held_back_is_judged_by_rules_that_came_meanwhile() {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--business"]);
    let definitions = server.definitions();
    mcp::write_catalogue(&lab, "bank", &definitions, &|_| Some(("read", "L1")), &[]);
    let upstream = mcp::upstream("bank", &server, "watch = \"100ms\"");
    mcp::configure(&lab, &["bank"], &upstream);
    let enforcer = lab.start_enforcer("edge-1");
    let agent = lab.agent_with("support-01", &["--scope", "mcp:bank:*"]);
    let tools = ["echo", "account_balance", "run_report", "payments_refund"];
    wait::until("the enforcer has seen the tools", || {
        (mcp::listed(&enforcer, &agent, "bank").len() == 6).then_some(())
    });
    let mut held = tools.map(|tool| {
        let body = mcp::tool_call(7, tool, r#"{"account":"7"}"#);
        let fields = mcp::headers("tools/call", Some(tool));
        (
            hold(&enforcer, &agent, "/mcp/bank", &fields, body.len()),
            body,
        )
    });

    // One wants more trust now, one another scope, one is there no more, and one wants its record first.
    let now = |tool: &str| match tool {
        "echo" => Some(("read", "L4")),
        "run_report" => None,
        "payments_refund" => Some(("financial", "L1")),
        _ => Some(("read", "L1")),
    };
    mcp::write_catalogue(&lab, "bank", &definitions, &now, &[]);
    let file = lab.path("bank.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let name = "name = \"account_balance\"\n";
    let text = text.replace(name, &format!("{name}scope = \"bank:balances\"\n"));
    std::fs::write(&file, text).unwrap();
    enforcer.program.signal("HUP");
    wait::until("the reload is in force", || {
        let shown = mcp::listed(&enforcer, &agent, "bank");
        (!shown.iter().any(|tool| tool == "echo")).then_some(())
    });

    let rules = ["trust", "scope", "tool-changed", ""];
    for ((held, body), (tool, rule)) in held.iter_mut().zip(tools.into_iter().zip(rules)) {
        held.send(&*body).unwrap();
        let answer = held.answer().unwrap();
        let said = String::from_utf8_lossy(&answer.body);
        if rule.is_empty() {
            assert!(!said.contains("denied"), "{tool}: {said}");
            continue;
        }
        assert!(said.contains(&format!("`{rule}`")), "{tool}: {said}");
        assert!(server.calls_of(tool).is_empty(), "{tool}");
        let (denied, records) = decision(&enforcer, &format!("mcp:bank:{tool}"));
        assert_eq!((&denied["rule"], records), (&rule.into(), 1), "{denied}");
    }
    assert_eq!(server.calls_of("payments_refund").len(), 1);
    let (allowed, records) = decision(&enforcer, "mcp:bank:payments_refund");
    assert_eq!(allowed["call"]["risk"], "financial", "{allowed}");
    assert_eq!(records, 2, "decision and outcome");
}

#[test]
fn a_request_of_a_route_that_is_held_back_is_judged_by_rules_that_came_meanwhile() {
    let lab = Lab::with_authority();
    let enforcer = lab.enforcer("edge-1");
    let agent = lab.agent("support-01");
    let mut held = hold(&enforcer, &agent, "/v1/echo", &[], 5);
    let (before, own) = ROUTES.split_once("path = \"/v1/echo\"").unwrap();
    let own = own.replacen("min_trust = \"L1\"", "min_trust = \"L3\"", 1);
    let routes = format!("{before}path = \"/v1/echo\"{own}");
    lab.write_configuration("edge-1", "", &routes);
    enforcer.program.signal("HUP");
    wait::until("the reload is in force", || {
        let mut tls = enforcer.connect(&agent).unwrap();
        (tls.get("/v1/echo").unwrap().status == 403).then_some(())
    });
    let before = lab.upstream().count("/v1/echo");
    held.send("hello").unwrap();
    let answer = held.answer().unwrap();
    assert_eq!(answer.status, 403, "{answer:?}");
    let said = String::from_utf8_lossy(&answer.body);
    assert!(said.contains("\"trust\""), "{said}");
    assert_eq!(lab.upstream().count("/v1/echo"), before);
    let records = log::of_kind(&enforcer.log(), "decision");
    let denied = records.last().unwrap();
    assert_eq!(
        (&denied["decision"], &denied["rule"]),
        (&"deny".into(), &"trust".into())
    );
    // It was never allowed, and so it has no outcome.
    assert_eq!(denied["call"]["method"], "POST", "{denied}");
}
