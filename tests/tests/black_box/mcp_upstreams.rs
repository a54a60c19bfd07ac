//! Servers behind the enforcer: the official sample over both transports, and some that lie.

use std::path::PathBuf;

use agentca_tests::curl::Got;
use agentca_tests::lab::{Enforcer, Lab};
use agentca_tests::mcp::{self, Server, Session};
use agentca_tests::program::ours;
use agentca_tests::{log, wait};
use serde_json::{Value, json};

/// An enforcer in front of it that allows everything, when it has seen the tools, and an agent that may use them.
fn serve(
    lab: &Lab,
    name: &str,
    upstream: &str,
    definitions: &[serde_json::Value],
    limits: &str,
) -> (Enforcer, PathBuf) {
    let all = |_: &str| Some(("read", "L1"));
    mcp::write_catalogue(lab, name, definitions, &all, &[]);
    mcp::configure(lab, &[name], &format!("{upstream}{limits}"));
    let enforcer = lab.start_enforcer("edge-1");
    let agent = lab.agent_with("support-01", &["--scope", &format!("mcp:{name}:*")]);
    (enforcer, agent)
}

fn use_everything(enforcer: &Enforcer, agent: &std::path::Path) {
    let session = Session::open(enforcer, agent, "everything");
    wait::until("the enforcer has seen the tools", || {
        let shown = session.listed();
        (shown.iter().any(|name| name == "echo")).then_some(())
    });
    let result = session.call("echo", r#"{"message":"hello"}"#);
    assert_eq!(mcp::text(&result), "Echo: hello", "{result}");
    let result = session.call("get-sum", r#"{"a":2,"b":40}"#);
    assert!(mcp::text(&result).contains("42"), "{result}");
}

#[test]
fn server_everything_works_over_http() {
    let lab = Lab::with_authority();
    let server = Server::everything(&lab);
    let upstream = mcp::upstream("everything", &server, "");
    let (enforcer, agent) = serve(&lab, "everything", &upstream, &server.definitions(), "");
    use_everything(&enforcer, &agent);
}

#[test]
fn server_everything_works_as_a_program() {
    let lab = Lab::with_authority();
    let program = mcp::everything_program();
    let upstream = mcp::program_upstream("everything", &program, "");
    let definitions = mcp::definitions_of_program(&program);
    let (enforcer, agent) = serve(&lab, "everything", &upstream, &definitions, "");
    use_everything(&enforcer, &agent);
}

#[test]
fn a_program_that_crashes_is_started_again() {
    let lab = Lab::with_authority();
    let fixture = ours("agentca-mcp-fixture").display().to_string();
    let words = |more: &[&str]| {
        let own = [fixture.as_str(), "--stdio"];
        own.iter()
            .chain(more)
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let definitions = mcp::definitions_of_program(&words(&["--business"]));
    let upstream = mcp::program_upstream(
        "bank",
        &words(&["--misbehave", "crash-on", "run_report"]),
        "",
    );
    let (enforcer, agent) = serve(&lab, "bank", &upstream, &definitions, "");
    let echo = || {
        wait::until("the program answers", || {
            let result = mcp::call(&enforcer, &agent, "bank", "echo", r#"{"text":"a"}"#);
            (mcp::text(&result) == r#"{"text":"a"}"#).then_some(())
        });
    };
    echo();
    let body = mcp::tool_call(7, "run_report", r#"{"query":"q"}"#);
    let headers = mcp::headers("tools/call", Some("run_report"));
    let crashed = mcp::post(&enforcer, &agent, "bank", &headers, body.as_bytes());
    crashed.must_be_signed();
    assert_eq!(crashed.status, 502, "{crashed:?}");
    let answer = mcp::answer_in(&crashed.body, 7);
    assert_eq!(answer["error"]["data"]["rule"], "upstream", "{crashed:?}");
    let records = log::records(&enforcer.log());
    let record = &records[usize::try_from(crashed.record()).unwrap()];
    assert_eq!(record["result"]["ended"], "upstream-failed", "{record}");
    let printed = || enforcer.program.printed();
    let started = || printed().matches("process started").count();
    let before = started();
    echo();
    assert!(started() > before, "another process: {}", printed());
}

#[test]
fn a_program_that_complains_without_end_is_heard_and_works() {
    let lab = Lab::with_authority();
    let fixture = ours("agentca-mcp-fixture").display().to_string();
    let words = [fixture.as_str(), "--stdio", "--misbehave", "chatty-stderr"].map(str::to_owned);
    let definitions = mcp::definitions_of_program(&words);
    let upstream = mcp::program_upstream("bank", &words, "");
    let (enforcer, agent) = serve(&lab, "bank", &upstream, &definitions, "");
    wait::until("the program answers", || {
        let result = mcp::call(&enforcer, &agent, "bank", "echo", r#"{"text":"a"}"#);
        (mcp::text(&result) == r#"{"text":"a"}"#).then_some(())
    });
}

#[test]
fn a_program_that_will_not_end_does_not_keep_the_enforcer() {
    let lab = Lab::with_authority();
    let fixture = ours("agentca-mcp-fixture").display().to_string();
    let words = [fixture.as_str(), "--stdio", "--misbehave", "ignores-eof"].map(str::to_owned);
    let definitions = mcp::definitions_of_program(&words);
    let upstream = mcp::program_upstream("bank", &words, "");
    let (enforcer, agent) = serve(
        &lab,
        "bank",
        &upstream,
        &definitions,
        "[limits]\ndrain_timeout = \"1s\"\n",
    );
    wait::until("the program answers", || {
        let result = mcp::call(&enforcer, &agent, "bank", "echo", "{}");
        (mcp::text(&result) == "{}").then_some(())
    });
    let children = || {
        let id = enforcer.program.id();
        std::fs::read_dir(format!("/proc/{id}/task"))
            .into_iter()
            .flatten()
            .flatten()
            .flat_map(|task| {
                let children =
                    std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
                children
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect::<Vec<String>>()
    };
    let children = children();
    assert!(!children.is_empty());
    assert!(enforcer.program.terminate().success());
    wait::until("its programs are gone", || {
        let gone = |id: &String| !PathBuf::from(format!("/proc/{id}")).exists();
        children.iter().all(gone).then_some(())
    });
}

/// A call of a bank that misbehaves and is given so much time; its record says how it ended.
#[track_caller]
fn call_of_liar(mode: &str, timeout: &str, result: &Value) -> Got {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--misbehave", mode]);
    let upstream = mcp::upstream("bank", &server, &format!("timeout = \"{timeout}\"\n"));
    let (enforcer, agent) = serve(&lab, "bank", &upstream, &server.definitions(), "");
    wait::until("the enforcer has seen the tools", || {
        (mcp::listed(&enforcer, &agent, "bank").len() == 6).then_some(())
    });
    let body = mcp::tool_call(7, "echo", r#"{"text":"a"}"#);
    let headers = mcp::headers("tools/call", Some("echo"));
    let got = mcp::post(&enforcer, &agent, "bank", &headers, body.as_bytes());
    got.must_be_signed();
    assert_eq!(server.calls_of("echo").len(), 1);
    let record = log::records(&enforcer.log())[usize::try_from(got.record()).unwrap()].clone();
    assert_eq!(record["decision"], result["decision"], "{record}");
    assert_eq!(record["rule"], result["rule"], "{record}");
    assert_eq!(record["call"]["name"], "mcp:bank:echo", "{record}");
    // Of a stream there is a decision first.
    let outcome = wait::until("the outcome is recorded", || {
        let mut records = log::records(&enforcer.log()).into_iter();
        records.find(|other| {
            let own = record["seq"] == other["seq"] || record["seq"] == other["decision_index"];
            own && !other["result"].is_null()
        })
    });
    for member in ["status", "ended", "error"] {
        assert_eq!(outcome["result"][member], result[member], "{outcome}");
    }
    got
}

/// The record of a call that its upstream failed.
fn failed(status: u16, error: &str) -> Value {
    json!({
        "decision": "allow", "rule": "scope", "status": status, "ended": "upstream-failed", "error": error,
    })
}

#[test]
fn an_answer_with_two_readings_is_none() {
    let got = call_of_liar(
        "duplicate-keys",
        "30s",
        &failed(502, "the server's message is no strict JSON"),
    );
    assert_eq!(got.status, 502, "{got:?}");
    assert!(!got.body.contains("reading"), "{got:?}");
}

#[test]
fn an_answer_to_somebody_else_is_none() {
    let got = call_of_liar(
        "wrong-id",
        "30s",
        &failed(502, "the server answers another request"),
    );
    assert_eq!(got.status, 502, "{got:?}");
    assert!(!got.body.contains("nobody asked"), "{got:?}");
}

#[test]
fn of_two_answers_the_first_counts() {
    let got = call_of_liar(
        "two-answers",
        "30s",
        &json!({"decision": "allow", "rule": "scope", "status": 200, "ended": "complete"}),
    );
    let result = mcp::answer_in(&got.body, 7)["result"].clone();
    assert_eq!(mcp::text(&result), r#"{"text":"a"}"#, "{got:?}");
    assert!(!got.body.contains("the second answer"), "{got:?}");
}

#[test]
fn an_upstream_that_stalls_is_given_up() {
    let got = call_of_liar("stall", "1s", &failed(504, "no answer in time"));
    assert_eq!(got.status, 504, "{got:?}");
}

#[test]
fn a_stream_that_is_cut_within_its_first_event_is_a_failure() {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--misbehave", "close-early"]);
    let upstream = mcp::upstream("bank", &server, "");
    let (enforcer, agent) = serve(&lab, "bank", &upstream, &server.definitions(), "");
    wait::until("the enforcer has seen the tools", || {
        (mcp::listed(&enforcer, &agent, "bank").len() == 6).then_some(())
    });
    let file = lab.path("body");
    std::fs::write(&file, mcp::tool_call(7, "echo", "{}")).unwrap();
    let data = format!("@{}", file.display());
    let headers = mcp::headers("tools/call", Some("echo"));
    let mut options = vec!["--data-binary", &data];
    for header in &headers {
        options.extend(["-H", header]);
    }
    let said = agentca_tests::curl::try_curl(&enforcer, &agent, &options, &["/mcp/bank"]);
    // Nothing of it had left: the failure is told instead.
    assert!(said.stdout.starts_with("HTTP/2 502"), "{said}");
    assert!(
        !said.stdout.contains("\"result\""),
        "half an event is none: {said}"
    );
}

#[test]
fn long_and_streamed_lists_are_filtered_too() {
    for (options, mode) in [
        (&["huge-list", "5000"][..], "huge"),
        (&["list-as-sse"], "stream"),
    ] {
        let lab = Lab::with_authority();
        let options = [&["--misbehave"], options].concat();
        let server = Server::start(&lab, mode, &options);
        let upstream = mcp::upstream("bank", &server, "");
        let (enforcer, _) = serve(&lab, "bank", &upstream, &server.definitions(), "");
        let agent = lab.agent_with("narrow-01", &["--scope", "mcp:bank:echo"]);
        wait::until("the enforcer has seen the tools", || {
            let shown = mcp::listed(&enforcer, &agent, "bank");
            (shown == ["echo"]).then_some(())
        });
    }
}

#[test]
fn shared_upstreams_are_one_server_with_prefixed_tools() {
    let lab = Lab::with_authority();
    let bank = Server::start(&lab, "bank", &["--business"]);
    let vault = Server::start(&lab, "vault", &["--business"]);
    let private = Server::start(&lab, "private", &["--business"]);
    let mut tables = String::new();
    for (name, server, settings) in [
        ("bank", &bank, "shared = true"),
        ("vault", &vault, "shared = true"),
        ("private", &private, ""),
    ] {
        mcp::write_catalogue(&lab, name, &server.definitions(), &mcp::bank_risk, &[]);
        tables += &mcp::upstream(name, server, settings);
    }
    mcp::configure(&lab, &["bank", "vault", "private"], &tables);
    let enforcer = lab.start_enforcer("edge-1");
    let scopes = "mcp:bank:echo,mcp:vault:*,mcp:private:*";
    let agent = lab.agent_with("support-01", &["--scope", scopes]);
    let shown = wait::until("the enforcer has seen the tools", || {
        let shown = mcp::listed_at(&enforcer, &agent, "/mcp");
        (shown.len() == 7).then_some(shown)
    });
    assert_eq!(shown[0], "bank__echo", "{shown:?}");
    assert!(
        shown[1..].iter().all(|name| name.starts_with("vault__")),
        "{shown:?}"
    );
    let call = |tool: &str| {
        let body = mcp::tool_call(7, tool, r#"{"text":"a"}"#);
        let headers = mcp::headers("tools/call", Some(tool));
        let got = mcp::post_at(&enforcer, &agent, "/mcp", &headers, body.as_bytes());
        got.must_be_signed();
        mcp::answer_in(&got.body, 7)["result"].clone()
    };
    assert_eq!(mcp::text(&call("vault__echo")), r#"{"text":"a"}"#);
    // The upstream is asked by its own name, in the head too.
    let calls = vault.calls_of("echo");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].header("mcp-name"), Some("echo"));
    assert!(bank.calls_of("echo").is_empty());
    // Pages of other origins are refused, wherever they knock.
    let body = mcp::tool_call(7, "vault__echo", "{}");
    for path in ["/mcp", "/mcp/vault"] {
        let mut headers = mcp::headers("tools/call", Some("vault__echo"));
        headers.push("Origin: https://evil.example".to_owned());
        let got = mcp::post_at(&enforcer, &agent, path, &headers, body.as_bytes());
        got.must_be_denied(403, "origin");
    }
    assert_eq!(vault.calls_of("echo").len(), 1);
    for (tool, rule) in [
        ("bank__run_report", "scope"),
        ("private__echo", "not-in-catalogue"),
        ("echo", "not-in-catalogue"),
    ] {
        let denied = call(tool);
        assert_eq!(denied["isError"], true, "{tool}: {denied}");
        assert!(mcp::text(&denied).contains(rule), "{tool}: {denied}");
    }
    assert!(bank.calls_of("run_report").is_empty() && private.calls_of("echo").is_empty());
}
