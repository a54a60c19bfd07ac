//! Tools that change under an agent's feet, that nobody approved, or that cannot be looked at.

use std::path::{Path, PathBuf};

use agentca_tests::lab::{Enforcer, Lab};
use agentca_tests::mcp::{self, Server};
use agentca_tests::program::{Said, ours};
use agentca_tests::{log, wait};
use serde_json::Value;

fn serve(lab: &Lab, server: &Server) -> (Enforcer, PathBuf) {
    let upstream = mcp::upstream("bank", server, "watch = \"100ms\"");
    mcp::configure(lab, &["bank"], &upstream);
    let enforcer = lab.start_enforcer("edge-1");
    let agent = lab.agent_with("support-01", &["--scope", "mcp:bank:*"]);
    (enforcer, agent)
}

fn wait_until_listed(enforcer: &Enforcer, agent: &Path, tool: &str, listed: bool) {
    wait::until("the list is as it should be", || {
        let shown = mcp::listed(enforcer, agent, "bank");
        (shown.iter().any(|name| name == tool) == listed).then_some(())
    });
}

/// Calls a tool and stops unless it is denied by `rule`, in the answer and in the log, and kept from the upstream.
#[track_caller]
fn must_deny(enforcer: &Enforcer, server: &Server, agent: &Path, tool: &str, rule: &str) {
    let before = server.calls_of(tool).len();
    let body = mcp::tool_call(7, tool, "{}");
    let headers = mcp::headers("tools/call", Some(tool));
    let got = mcp::post(enforcer, agent, "bank", &headers, body.as_bytes());
    got.must_be_signed();
    let result = mcp::answer_in(&got.body, 7)["result"].clone();
    assert_eq!(result["isError"], true, "{got:?}");
    assert_eq!(result["resultType"], "complete", "{got:?}");
    assert!(
        mcp::text(&result).contains(rule),
        "{result} does not name {rule}"
    );
    let record: Value =
        log::records(&enforcer.log())[usize::try_from(got.record()).unwrap()].clone();
    assert_eq!(record["decision"], "deny", "{record}");
    assert_eq!(record["rule"], rule, "{record}");
    assert_eq!(
        record["call"]["name"],
        format!("mcp:bank:{tool}"),
        "{record}"
    );
    assert_eq!(
        server.calls_of(tool).len(),
        before,
        "{tool} reached the upstream"
    );
}

#[test]
fn a_changed_tool_is_withheld() {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--misbehave", "changed-tool"]);
    mcp::write_catalogue(&lab, "bank", &server.definitions(), &mcp::bank_risk, &[]);
    let (enforcer, agent) = serve(&lab, &server);
    wait_until_listed(&enforcer, &agent, "account_balance", true);
    let result = mcp::call(
        &enforcer,
        &agent,
        "bank",
        "account_balance",
        r#"{"account":"7"}"#,
    );
    assert_eq!(mcp::text(&result), "the balance of 7 is 12.50", "{result}");

    server.change();
    wait_until_listed(&enforcer, &agent, "account_balance", false);
    must_deny(
        &enforcer,
        &server,
        &agent,
        "account_balance",
        "tool-changed",
    );
    let shown = mcp::listed(&enforcer, &agent, "bank");
    assert_eq!(shown.len(), 5, "the others are as they were: {shown:?}");
    let result = mcp::call(&enforcer, &agent, "bank", "echo", r#"{"text":"a"}"#);
    assert_eq!(mcp::text(&result), r#"{"text":"a"}"#, "{result}");
    // What the enforcer saw is there for whoever has to judge it.
    wait::until("the new description is there to be looked at", || {
        let balance = mcp::shown(&lab, "bank", "account_balance")?;
        assert_eq!(balance["digest"], mcp::digest(&balance["definition"]));
        let description = balance["definition"]["description"].as_str().unwrap();
        description.contains("card number").then_some(())
    });
}

#[test]
fn a_tool_that_changed_while_nobody_looked_is_withheld() {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--misbehave", "changed-tool"]);
    mcp::write_catalogue(&lab, "bank", &server.definitions(), &mcp::bank_risk, &[]);
    server.change();
    let (enforcer, agent) = serve(&lab, &server);
    wait_until_listed(&enforcer, &agent, "echo", true);
    wait_until_listed(&enforcer, &agent, "account_balance", false);
    must_deny(
        &enforcer,
        &server,
        &agent,
        "account_balance",
        "tool-changed",
    );
}

#[test]
fn a_tool_without_a_table_is_new_and_what_no_server_shows_is_not_there() {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--business"]);
    let some = |tool: &str| (tool != "get_and_delete_all").then_some(("read", "L1"));
    mcp::write_catalogue(&lab, "bank", &server.definitions(), &some, &[]);
    let (enforcer, agent) = serve(&lab, &server);
    wait_until_listed(&enforcer, &agent, "echo", true);
    wait_until_listed(&enforcer, &agent, "get_and_delete_all", false);
    must_deny(
        &enforcer,
        &server,
        &agent,
        "get_and_delete_all",
        "tool-changed",
    );
    must_deny(
        &enforcer,
        &server,
        &agent,
        "there_is_no_such_tool",
        "not-in-catalogue",
    );
}

#[test]
fn a_tool_without_a_pin_is_withheld() {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--business"]);
    mcp::write_catalogue(&lab, "bank", &server.definitions(), &mcp::bank_risk, &[]);
    let file = lab.path("bank.pins.json");
    let mut pins: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let list = pins["pins"].as_array_mut().unwrap();
    list.retain(|pin| pin["tool"] != "run_report");
    std::fs::write(&file, pins.to_string()).unwrap();
    let (enforcer, agent) = serve(&lab, &server);
    wait_until_listed(&enforcer, &agent, "echo", true);
    wait_until_listed(&enforcer, &agent, "run_report", false);
    must_deny(&enforcer, &server, &agent, "run_report", "tool-changed");
}

#[test]
fn a_pin_that_is_not_its_definition_s_stops_the_start() {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--business"]);
    mcp::write_catalogue(&lab, "bank", &server.definitions(), &mcp::bank_risk, &[]);
    let file = lab.path("bank.pins.json");
    let pins = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        pins.replacen("Pays money back.", "Pays money out.", 1),
    )
    .unwrap();
    let upstream = mcp::upstream("bank", &server, "");
    mcp::configure(&lab, &["bank"], &upstream);
    let mut enforcer = lab.launch_enforcer("edge-1");
    assert!(!enforcer.program.wait().success());
    let printed = enforcer.program.printed();
    assert!(printed.contains("payments_refund"), "{printed}");
}

#[test]
fn tools_that_cannot_be_looked_at_are_withheld() {
    let lab = Lab::with_authority();
    let good = Server::start(&lab, "good", &["--business"]);
    mcp::write_catalogue(&lab, "bank", &good.definitions(), &mcp::bank_risk, &[]);
    let server = Server::start(&lab, "bank", &["--misbehave", "list-not-json"]);
    let (enforcer, agent) = serve(&lab, &server);
    let body = mcp::request(8, "tools/list", "");
    let headers = mcp::headers("tools/list", None);
    let got = mcp::post(&enforcer, &agent, "bank", &headers, body.as_bytes());
    got.must_be_signed();
    assert!(!got.body.contains("account_balance"), "{got:?}");
    must_deny(&enforcer, &server, &agent, "echo", "tool-changed");
}

#[test]
fn a_call_that_is_held_back_is_judged_by_what_is_in_force_when_it_goes() {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--business"]);
    mcp::write_catalogue(&lab, "bank", &server.definitions(), &mcp::bank_risk, &[]);
    let (enforcer, agent) = serve(&lab, &server);
    wait_until_listed(&enforcer, &agent, "echo", true);
    let body = mcp::tool_call(7, "echo", "{}");
    let fields = mcp::headers("tools/call", Some("echo")).join("\r\n");
    let mut held = enforcer.connect(&agent).unwrap();
    held.send(format!(
        "POST /mcp/bank HTTP/1.1\r\nHost: localhost\r\n{fields}\r\nContent-Length: {}\r\n\
         Expect: 100-continue\r\n\r\n",
        body.len()
    ))
    .unwrap();
    assert_eq!(held.head().unwrap().status, 100, "its body is waited for");

    let file = lab.path("bank.pins.json");
    let mut pins: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let list = pins["pins"].as_array_mut().unwrap();
    list.retain(|pin| pin["tool"] != "echo");
    std::fs::write(&file, pins.to_string()).unwrap();
    enforcer.program.signal("HUP");
    wait_until_listed(&enforcer, &agent, "echo", false);

    held.send(body).unwrap();
    let answer = held.answer().unwrap();
    let said = String::from_utf8_lossy(&answer.body);
    assert!(said.contains("tool-changed"), "{said}");
    assert!(server.calls_of("echo").is_empty());
}

#[test]
fn what_a_person_rejected_is_recorded_as_rejected() {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--business"]);
    // One of them has no table.
    let some = |tool: &str| (tool != "get_and_delete_all").then_some(("read", "L1"));
    mcp::write_catalogue(&lab, "bank", &server.definitions(), &some, &[]);
    let (enforcer, agent) = serve(&lab, &server);
    wait_until_listed(&enforcer, &agent, "run_report", true);
    let tools = ["get_and_delete_all", "run_report"];
    for tool in tools {
        let mut command = lab.command(ours("agentca-enforcer"));
        command.args(["catalogue", "reject", &format!("bank:{tool}")]);
        command.args(["--config", "edge-1.toml", "--reason", "nobody needs it"]);
        Said::from(command).must_succeed();
    }
    wait::until("both are recorded as rejected", || {
        let withheld = log::of_kind(&enforcer.log(), "tool-withheld");
        let mut rejected: Vec<&str> = withheld
            .iter()
            .filter(|record| record["reason"] == "rejected")
            .filter_map(|record| record["tool"].as_str())
            .collect();
        rejected.sort_unstable();
        (rejected == tools).then_some(())
    });
    for tool in tools {
        must_deny(&enforcer, &server, &agent, tool, "tool-changed");
        let told = mcp::text(&mcp::call(&enforcer, &agent, "bank", tool, "{}"));
        assert!(told.contains("a person rejected it as it is now"), "{told}");
    }
}
