//! The MCP server that the other tests put behind the enforcer, without anybody between: were it wrong, they
//! would prove nothing.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use agentca_tests::lab::Lab;
use agentca_tests::mcp::{self, Sdk, Server};
use agentca_tests::program::{Said, ours};
use agentca_tests::wait;
use serde_json::Value;

#[test]
fn the_conformance_suite_passes_without_an_enforcer() {
    let lab = Lab::new();
    let server = Server::start_at(&lab, "suite", [127, 0, 0, 1].into(), &[]);
    for (revision, passed) in [(mcp::STATELESS, 40), (mcp::SESSIONS, 33)] {
        let found = mcp::conformance(&lab, &server.url(), revision);
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

#[test]
fn the_official_sdks_use_the_bank() {
    let lab = Lab::new();
    let server = Server::start(&lab, "bank", &["--business"]);
    let (url, program) = (
        server.url(),
        ours("agentca-mcp-fixture").display().to_string(),
    );
    for road in [
        &["http", &url][..],
        &["stdio", &program, "--stdio", "--business"],
    ] {
        for mode in [mcp::STATELESS, "legacy"] {
            let words = [&[mode], road].concat();
            for sdk in [Sdk::Python, Sdk::TypeScript] {
                let said = match sdk {
                    Sdk::Python => mcp::python_client(&lab, &words),
                    Sdk::TypeScript => mcp::typescript_client(&lab, &words),
                };
                let said = said.must_succeed();
                let saw: Value = serde_json::from_str(&said.stdout).unwrap();
                assert_eq!(saw["tools"].as_array().unwrap().len(), 6, "{said}");
                assert_eq!(
                    saw["balance"]["text"], "the balance of 7 is 12.50",
                    "{said}"
                );
                mcp::must_have_followed(&saw["progress"], sdk);
                assert_eq!(
                    saw["denied"]["isError"], false,
                    "nobody denies here: {said}"
                );
            }
        }
    }
    assert_eq!(server.calls_of("account_balance").len(), 4);
}

#[test]
fn what_it_lists_is_what_its_catalogue_pins() {
    let lab = Lab::new();
    let server = Server::start(&lab, "bank", &["--misbehave", "changed-tool"]);
    let before = server.definitions();
    let program = ours("agentca-mcp-fixture").display().to_string();
    let words = [program.as_str(), "--stdio", "--business"].map(str::to_owned);
    assert_eq!(before, mcp::definitions_of_program(&words));
    server.change();
    let after = server.definitions();
    let digests = |tools: &[Value]| tools.iter().map(mcp::digest).collect::<Vec<_>>();
    assert_ne!(digests(&before)[0], digests(&after)[0]);
    assert_eq!(digests(&before)[1..], digests(&after)[1..]);
    mcp::write_catalogue(&lab, "bank", &before, &mcp::bank_risk, &["resources/read"]);
    let pins = std::fs::read(lab.path("bank.pins.json")).unwrap();
    let pins: Value = serde_json::from_slice(&pins).unwrap();
    assert_eq!(pins["pins"].as_array().unwrap().len(), 6);
    // RFC 8785's own example of order, and a digest that Python's `rfc8785` gives too.
    let sample = serde_json::json!({ "\u{20ac}": 1, "\r": [true, "\u{7f}\n"], "1": {} });
    assert_eq!(
        mcp::digest(&sample),
        "sha256:f407e26ac8e775fbdbb6fc127a9341e3742456d2979e74ab2693ea30f710c3f2"
    );
}

#[test]
fn it_lies_when_it_is_told_to() {
    let lab = Lab::new();
    let huge = Server::start(&lab, "huge", &["--misbehave", "huge-list", "5000"]);
    assert_eq!(huge.definitions().len(), 5000);
    let stream = Server::start(&lab, "stream", &["--misbehave", "list-as-sse"]);
    assert_eq!(stream.definitions().len(), 6);
    let call =
        r#"{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
    let said = |mode: &str, seconds: &str| {
        let server = Server::start(&lab, mode, &["--misbehave", mode]);
        let mut curl = lab.command("curl");
        curl.args([
            "-sS",
            "--max-time",
            seconds,
            "--data-binary",
            call,
            &server.url(),
        ]);
        Said::from(curl)
    };
    assert_eq!(
        said("duplicate-keys", "30")
            .stdout
            .matches("\"result\"")
            .count(),
        2
    );
    assert_eq!(
        said("two-answers", "30")
            .stdout
            .matches("\"result\"")
            .count(),
        2
    );
    assert!(!said("wrong-id", "30").stdout.contains("\"id\":9"));
    let (stall, cut, endless) = (
        said("stall", "1"),
        said("close-early", "30"),
        said("never-ends", "3"),
    );
    assert_eq!(
        (stall.code, stall.stdout.as_str()),
        (Some(28), ""),
        "{stall}"
    );
    assert!(cut.stdout.starts_with("event: message\ndata: {"), "{cut}");
    assert!(
        !cut.stdout.ends_with("\n\n") && cut.code != Some(0),
        "{cut}"
    );
    assert_eq!(endless.code, Some(28), "{endless}");
    assert!(endless.stdout.matches("data: ").count() > 10, "{endless}");
}

#[test]
fn its_processes_end_badly_when_they_are_told_to() {
    let lab = Lab::new();
    let start = |options: &[&str]| {
        let mut command = lab.command(ours("agentca-mcp-fixture"));
        command.arg("--stdio").args(options);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut crashes = start(&["--misbehave", "crash-on", "echo"]);
    let call = mcp::tool_call(1, "echo", "{}");
    writeln!(crashes.stdin.as_mut().unwrap(), "{call}").unwrap();
    assert_eq!(crashes.wait().unwrap().code(), Some(3));

    let mut deaf = start(&["--misbehave", "ignores-eof"]);
    let mut stdin = deaf.stdin.take().unwrap();
    writeln!(stdin, "{}", mcp::initialize()).unwrap();
    let mut line = String::new();
    BufReader::new(deaf.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("\"result\""), "{line}");
    drop(stdin);
    let kill = |signal: &str| {
        let mut command = lab.command("sh");
        command.args(["-c", &format!("kill -{signal} {}", deaf.id())]);
        Said::from(command).must_succeed();
    };
    kill("TERM");
    let status = |id: u32| std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    // The signal was delivered (none is pending), and nothing came of it.
    wait::until("the signal is taken", || {
        let status = status(deaf.id());
        status.contains("ShdPnd:\t0000000000000000").then_some(())
    });
    assert!(deaf.try_wait().unwrap().is_none());
    deaf.kill().unwrap();
    deaf.wait().unwrap();
}
