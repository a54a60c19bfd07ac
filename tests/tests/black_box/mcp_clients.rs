//! Agents that speak MCP: the official SDKs over both bridges, in both kinds of revision, and the official suite.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use agentca_tests::lab::{Enforcer, Lab};
use agentca_tests::mcp::{self, Bridge, Sdk, Server};
use agentca_tests::{log, wait};
use serde_json::Value;

/// The bank behind an enforcer, and an agent that may do everything there except pay back.
pub(crate) struct Bank {
    pub(crate) lab: Lab,
    pub(crate) server: Server,
    pub(crate) enforcer: Enforcer,
    pub(crate) agent: PathBuf,
}

const METHODS: [&str; 3] = ["resources/read", "prompts/get", "subscriptions/listen"];
pub(crate) const SCOPES: &str = "mcp:bank:account_balance,mcp:bank:slow_progress,mcp:bank:echo,mcp:bank:resources:*,\
    mcp:bank:prompts:*,mcp:bank:subscriptions:*";

pub(crate) fn bank(settings: &str) -> Bank {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--business"]);
    mcp::write_catalogue(
        &lab,
        "bank",
        &server.definitions(),
        &mcp::bank_risk,
        &METHODS,
    );
    let upstream = mcp::upstream("bank", &server, settings);
    mcp::configure(&lab, &["bank"], &upstream);
    let enforcer = lab.start_enforcer("edge-1");
    let agent = lab.agent_with("support-01", &["--scope", SCOPES]);
    let shown = wait_until_listed(&enforcer, &agent);
    assert_eq!(shown, ["account_balance", "echo", "slow_progress"]);
    Bank {
        lab,
        server,
        enforcer,
        agent,
    }
}

/// The enforcer shows tools once it has seen them itself.
fn wait_until_listed(enforcer: &Enforcer, agent: &Path) -> Vec<String> {
    wait::until("the enforcer has seen the tools", || {
        let shown = mcp::listed(enforcer, agent, "bank");
        (!shown.is_empty()).then_some(shown)
    })
}

fn check(bank: &Bank, said: &agentca_tests::program::Said, sdk: Sdk, version: Option<&str>) {
    let saw: Value =
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    if let Some(version) = version {
        assert_eq!(saw["version"], version, "{said}");
    }
    let shown = ["account_balance", "echo", "slow_progress"];
    assert_eq!(saw["tools"], serde_json::json!(shown), "{said}");
    assert_eq!(
        saw["balance"]["text"], "the balance of 7 is 12.50",
        "{said}"
    );
    mcp::must_have_followed(&saw["progress"], sdk);
    assert_eq!(saw["slow"]["text"], "done at last", "{said}");
    assert_eq!(saw["denied"]["isError"], true, "{said}");
    let why = saw["denied"]["text"].as_str().unwrap();
    assert!(why.contains("scope"), "the rule is named: {why}");
    assert_eq!(saw["resource"], "two per cent", "{said}");
    assert_eq!(saw["prompt"], "Complain about the fee.", "{said}");
    assert!(bank.server.calls_of("payments_refund").is_empty());
}

/// Python gives progress as fractions.
fn whole(said: agentca_tests::program::Said) -> agentca_tests::program::Said {
    let stdout = said.stdout.replace(".0,", ",").replace(".0]", "]");
    agentca_tests::program::Said { stdout, ..said }
}

#[test]
fn the_official_sdks_work_over_the_http_bridge() {
    let bank = bank("");
    let bridge = Bridge::start(&bank.lab, &bank.enforcer, "bank", &bank.agent);
    for (mode, version) in [(mcp::STATELESS, Some(mcp::STATELESS)), ("legacy", None)] {
        let words = [mode, "http", bridge.url()];
        let said = mcp::python_client(&bank.lab, &words).must_succeed();
        check(&bank, &whole(said), Sdk::Python, version);
        let said = mcp::typescript_client(&bank.lab, &words).must_succeed();
        check(&bank, &said, Sdk::TypeScript, version);
    }
}

#[test]
fn the_official_sdks_work_over_the_stdio_bridge() {
    let bank = bank("");
    let bridge = mcp::stdio_bridge(&bank.enforcer, "bank", &bank.agent);
    let bridge: Vec<&str> = bridge.iter().map(String::as_str).collect();
    for (mode, version) in [(mcp::STATELESS, Some(mcp::STATELESS)), ("legacy", None)] {
        let words = [&[mode, "stdio"], bridge.as_slice()].concat();
        let said = mcp::python_client(&bank.lab, &words).must_succeed();
        check(&bank, &whole(said), Sdk::Python, version);
        let said = mcp::typescript_client(&bank.lab, &words).must_succeed();
        check(&bank, &said, Sdk::TypeScript, version);
    }
}

#[test]
fn the_upstream_learns_who_calls_and_the_log_what_was_called() {
    let bank = bank("");
    let result = mcp::call(
        &bank.enforcer,
        &bank.agent,
        "bank",
        "account_balance",
        r#"{"account":"7"}"#,
    );
    assert_eq!(mcp::text(&result), "the balance of 7 is 12.50");
    let calls = bank.server.calls_of("account_balance");
    let [call] = calls.as_slice() else {
        panic!("one call, not {calls:?}");
    };
    assert_eq!(
        call.header("agent-id"),
        Some("spiffe://example.org/prod/agent/support-01")
    );
    assert_eq!(call.header("agent-trust"), Some("L2"));
    assert_eq!(call.header("mcp-name"), Some("account_balance"));
    let denied = mcp::call(&bank.enforcer, &bank.agent, "bank", "payments_refund", "{}");
    assert_eq!(denied["isError"], true, "{denied}");
    let records = log::of_kind(&bank.enforcer.log(), "decision");
    let of = |name: &str| {
        let name = format!("mcp:bank:{name}");
        let found = records
            .iter()
            .find(|record| record["call"]["name"] == *name);
        found.unwrap_or_else(|| panic!("no record of {name} in {records:#?}"))
    };
    let allowed = of("account_balance");
    assert_eq!(
        (&allowed["decision"], &allowed["call"]["upstream"]),
        (&"allow".into(), &"bank".into())
    );
    assert_eq!(
        allowed["request"]["id"].as_str(),
        call.header("agent-request-id")
    );
    let denied = of("payments_refund");
    assert_eq!(
        (&denied["decision"], &denied["rule"]),
        (&"deny".into(), &"scope".into())
    );
}

#[test]
fn a_denial_may_be_an_error_too() {
    let bank = bank("deny_as = \"error\"");
    let body = mcp::tool_call(7, "payments_refund", "{}");
    let headers = mcp::headers("tools/call", Some("payments_refund"));
    let got = mcp::post(
        &bank.enforcer,
        &bank.agent,
        "bank",
        &headers,
        body.as_bytes(),
    );
    got.must_be_signed();
    let answer = mcp::answer_in(&got.body, 7);
    assert!(
        answer["error"]["code"].is_i64() && answer["result"].is_null(),
        "{answer}"
    );
    assert_eq!(answer["error"]["data"]["rule"], "scope", "{answer}");
    assert!(bank.server.calls_of("payments_refund").is_empty());
}

#[test]
fn the_conformance_suite_passes_through_bridge_and_enforcer() {
    let lab = Lab::with_authority();
    let local = Ipv4Addr::LOCALHOST.into();
    let server = Server::start_at(&lab, "suite", local, &[]);
    let methods = [
        "resources/read",
        "resources/subscribe",
        "resources/unsubscribe",
        "prompts/get",
        "completion/complete",
        "logging/setLevel",
        "subscriptions/listen",
    ];
    let all = |_: &str| Some(("read", "L1"));
    mcp::write_catalogue(&lab, "suite", &server.definitions(), &all, &methods);
    let upstream = mcp::upstream("suite", &server, "");
    mcp::configure(&lab, &["suite"], &upstream);
    let enforcer = lab.start_enforcer("edge-1");
    let agent = lab.agent_with("suite-01", &["--scope", "mcp:suite:*"]);
    wait::until("the enforcer has seen the tools", || {
        (mcp::listed(&enforcer, &agent, "suite").len() > 20).then_some(())
    });
    let bridge = Bridge::start(&lab, &enforcer, "suite", &agent);
    for (revision, passed) in [(mcp::STATELESS, 40), (mcp::SESSIONS, 33)] {
        let found = mcp::conformance(&lab, bridge.url(), revision);
        let surprises = found.surprises();
        assert!(surprises.is_empty(), "{surprises:#?}\n{}", found.said);
        assert_eq!(found.said.code, Some(0), "{}", found.said);
        assert!(
            found.passed() >= passed,
            "{}: {}",
            found.passed(),
            found.said
        );
    }
}
