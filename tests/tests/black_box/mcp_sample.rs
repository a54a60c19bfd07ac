//! The README's way to the first tool call: the sample server, a scan, the enforcer, the bridge, and clients as they
//! come out of their packages.

use std::path::{Path, PathBuf};

use agentca_tests::lab::{Enforcer, Lab};
use agentca_tests::mcp;
use agentca_tests::program::{Program, Said, ours};
use agentca_tests::{log, wait};
use serde_json::Value;

/// The sample MCP server, scanned, behind an enforcer, and an agent that may use all of it.
struct Desk {
    lab: Lab,
    enforcer: Enforcer,
    agent: PathBuf,
    _server: Program,
}

/// The sample as it runs, and its URL.
fn sample(lab: &Lab, release: &str) -> (Program, String) {
    let mut command = lab.command(ours("certs-example"));
    let listen = format!("{}:0", lab.ip());
    command.args(["mcp", "--listen", &listen, "--release", release]);
    let mut server = Program::start("the sample", command, lab.path("sample.txt"));
    let url = wait::until("the sample tells its URL", || {
        server.must_be_running();
        let printed = server.printed();
        let mut words = printed.split_whitespace();
        // Only of a line that is whole.
        let url = words.find(|word| word.starts_with("http://"))?;
        printed.contains('\n').then(|| url.to_owned())
    });
    (server, url)
}

fn scan(lab: &Lab, server: &str) -> Said {
    let mut command = lab.command(ours("agentca-enforcer"));
    command.args(["scan", "--mcp", server, "--upstream", "tickets"]);
    command.args(["--out", "tickets.toml"]);
    Said::from(command)
}

impl Desk {
    fn open() -> Self {
        let lab = Lab::with_authority();
        let (server, url) = sample(&lab, "1");
        scan(&lab, &url).must_succeed();
        mcp::configure(&lab, &["tickets"], &mcp::upstream_at("tickets", &url, ""));
        let enforcer = lab.start_enforcer("edge-1");
        let agent = lab.agent_with("desk-01", &["--scope", "mcp:tickets:*"]);
        wait::until("the enforcer has seen the tools", || {
            (!mcp::listed(&enforcer, &agent, "tickets").is_empty()).then_some(())
        });
        Self {
            lab,
            enforcer,
            agent,
            _server: server,
        }
    }
}

/// What a client saw that was told nothing but where to go.
fn must_have_worked(said: Said) -> Value {
    let said = said.must_succeed();
    let saw: Value =
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let shown = ["find_ticket", "read_ticket", "close_ticket"];
    assert_eq!(saw["tools"], serde_json::json!(shown), "{said}");
    assert_eq!(saw["text"], "ticket 7 is closed", "{said}");
    saw
}

#[test]
fn clients_as_they_come_work_with_the_sample_server() {
    let desk = Desk::open();
    let bridge = mcp::stdio_bridge(&desk.enforcer, "tickets", &desk.agent);
    let bridge: Vec<&str> = bridge.iter().map(String::as_str).collect();
    let call = ["close_ticket", r#"{"ticket":"7"}"#];
    let words = [&call[..], &bridge].concat();
    must_have_worked(mcp::python_first_call(&desk.lab, &words));
    for sdk in ["client", "sdk"] {
        let words = [&[sdk][..], &words].concat();
        must_have_worked(mcp::typescript_first_call(&desk.lab, &words));
    }
    // One of them at least knows nothing of 2026-07-28.
    let decisions = log::of_kind(&desk.enforcer.log(), "decision");
    let mut methods = decisions.iter().map(|decision| &decision["call"]["method"]);
    assert!(
        methods.any(|method| method == "initialize"),
        "{decisions:#?}"
    );
}

#[test]
fn a_check_says_what_is_there_and_what_is_in_the_way() {
    let desk = Desk::open();
    let check = |url: &str, agent: &Path| {
        let mut command = desk.lab.command(ours("agentca-sidecar"));
        command.args(["check", url, "--credentials"]).arg(agent);
        Said::from(command)
    };
    let place = format!("https://{}", desk.enforcer.address());
    let said = check(&format!("{place}/mcp/tickets"), &desk.agent).must_succeed();
    for line in [
        "endpoint     answers MCP 2026-07-28, 2025-11-25\n",
        "tools        3: find_ticket, read_ticket, close_ticket\n",
    ] {
        assert!(said.stdout.contains(line), "{said}");
    }
    let shared = check(&format!("{place}/mcp"), &desk.agent).must_end_with(1);
    assert!(shared.stderr.contains("`shared = true`"), "{shared}");
    let authority = format!("https://{}/mcp/tickets", desk.lab.grpc());
    let authority = check(&authority, &desk.agent).must_end_with(1);
    assert!(
        authority.stderr.contains("like the authority"),
        "{authority}"
    );
    let options = ["--env", "staging", "--scope", "mcp:tickets:*"];
    let elsewhere = desk.lab.agent_with("staging-01", &options);
    let elsewhere = check(&format!("{place}/mcp/tickets"), &elsewhere).must_end_with(1);
    let said = elsewhere.stderr.trim_end();
    assert!(
        said.starts_with("agentca-sidecar: denied by the rule `environment`")
            && said.ends_with("issue with `--env prod`, or call an enforcer of staging"),
        "{elsewhere}"
    );
}

#[test]
fn a_scan_that_fails_names_who_was_asked_and_what_to_do() {
    let lab = Lab::new();
    let (_server, url) = sample(&lab, "3");
    let nobody = format!("http://{}:1/mcp", lab.ip());
    let elsewhere = url.strip_suffix("/mcp").unwrap().to_owned();
    let program = "no-such-program --at-all".to_owned();
    for (server, code, words) in [
        (&nobody, 3, "is it running"),
        (
            &elsewhere,
            1,
            "status 404; is that an MCP server, and is the path right (often `/mcp`)",
        ),
        (&program, 1, "is it installed, and on PATH"),
    ] {
        let said = scan(&lab, server).must_end_with(code);
        let lines: Vec<&str> = said.stderr.lines().collect();
        let [asking, error] = lines.as_slice() else {
            panic!("one error, and that it asks: {said}");
        };
        assert!(asking.contains("asking"), "{said}");
        assert!(
            error.contains(server.as_str()) && error.contains(words),
            "{said}"
        );
    }
    // It says of which configuration it speaks as far as it knows.
    let said = scan(&lab, &url).must_succeed();
    let stderr = &said.stderr;
    assert!(stderr.contains("--config FILE --manual-review"), "{said}");
    assert!(
        stderr.contains("FILE is the enforcer's configuration"),
        "{said}"
    );
    assert!(
        stderr.contains("`catalogue = [\"tickets.toml\"]`"),
        "{said}"
    );
    std::fs::remove_file(lab.path("tickets.toml")).unwrap();
    std::fs::remove_file(lab.path("tickets.pins.json")).unwrap();
    std::fs::write(lab.path("enforcer.toml"), "").unwrap();
    let said = scan(&lab, &url).must_succeed();
    assert!(
        said.stderr
            .contains("--config enforcer.toml --manual-review"),
        "{said}"
    );
}
