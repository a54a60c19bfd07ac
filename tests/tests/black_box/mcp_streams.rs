//! Streams and sessions: whose they are, what they carry, and how they end.

use std::path::{Path, PathBuf};

use agentca_tests::lab::{Enforcer, Lab};
use agentca_tests::mcp::{self, Server, Session};
use agentca_tests::program::ours;
use agentca_tests::tls::Tls;
use agentca_tests::{log, wait};
use serde_json::Value;

struct Place {
    lab: Lab,
    server: Server,
    enforcer: Enforcer,
    one: PathBuf,
    two: PathBuf,
}

fn place(options: &[&str], settings: &str) -> Place {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", options);
    let methods = ["subscriptions/listen"];
    mcp::write_catalogue(
        &lab,
        "bank",
        &server.definitions(),
        &mcp::bank_risk,
        &methods,
    );
    let upstream = mcp::upstream("bank", &server, "watch = \"100ms\"");
    mcp::configure(&lab, &["bank"], &format!("{upstream}{settings}"));
    let enforcer = lab.start_enforcer("edge-1");
    let [one, two] =
        ["agent-1", "agent-2"].map(|name| lab.agent_with(name, &["--scope", "mcp:bank:*"]));
    wait::until("the enforcer has seen the tools", || {
        (!mcp::listed(&enforcer, &one, "bank").is_empty()).then_some(())
    });
    Place {
        lab,
        server,
        enforcer,
        one,
        two,
    }
}

impl Place {
    /// POSTs a request on a connection of its own and reads the head of the answer, which must be a stream.
    fn open(&self, agent: &Path, headers: &[String], body: &str) -> Tls {
        mcp::open_stream((&self.enforcer, agent), "/mcp/bank", headers, body)
    }

    /// A call that tells its progress every 10 ms, for longer than any test.
    fn open_progress(&self, agent: &Path) -> Tls {
        let more = r#","name":"slow_progress","arguments":{"steps":100000,"interval_ms":10}"#;
        let meta = mcp::META.replacen('{', r#"{"progressToken":5,"#, 1);
        let body = mcp::request(7, "tools/call", more).replacen(mcp::META, &meta, 1);
        self.open(
            agent,
            &mcp::headers("tools/call", Some("slow_progress")),
            &body,
        )
    }
}

#[test]
fn revocation_cuts_a_running_stream_and_no_other() {
    let place = place(&["--business"], "");
    let mut stream = place.open_progress(&place.one);
    let mut other = place.open_progress(&place.two);
    let read = mcp::read_until(&mut stream, "step 3");
    for event in read.split("\n\n").filter(|event| event.contains("data: {")) {
        let receipt = event.find(": agent-receipt");
        assert!(
            receipt.is_some_and(|at| Some(at) < event.find("data: {")),
            "no receipt before it: {event}"
        );
    }
    mcp::read_until(&mut other, "step 1");
    place.lab.revoke("agent-1", "key-compromise");
    stream.must_be_cut();
    assert!(other.chunk().unwrap().is_some(), "the other goes on");
    let outcome = wait::until("the outcome is recorded", || {
        log::of_kind(&place.enforcer.log(), "outcome")
            .into_iter()
            .find(|record| {
                record["result"]["ended"] != "complete" && record["result"]["digest"].is_string()
            })
    });
    assert!(outcome["result"]["length"].is_u64(), "{outcome}");
}

#[test]
fn a_listener_hears_that_the_list_changed() {
    let place = place(&["--misbehave", "changed-tool"], "");
    let more = r#","notifications":{"toolsListChanged":true}"#;
    let body = mcp::request(7, "subscriptions/listen", more);
    let headers = mcp::headers("subscriptions/listen", None);
    let mut stream = place.open(&place.one, &headers, &body);
    let first = mcp::read_until(&mut stream, "notifications/subscriptions/acknowledged");
    assert!(!first.contains("list_changed"), "{first}");
    place.server.change();
    let told = mcp::read_until(&mut stream, "notifications/tools/list_changed");
    assert!(
        told.contains("io.modelcontextprotocol/subscriptionId"),
        "{told}"
    );
}

#[test]
fn a_stream_that_never_ends_is_cut_with_its_agent() {
    let place = place(&["--misbehave", "never-ends"], "");
    let meta = mcp::META.replacen('{', r#"{"progressToken":1,"#, 1);
    let body = mcp::tool_call(7, "echo", "{}").replacen(mcp::META, &meta, 1);
    let headers = mcp::headers("tools/call", Some("echo"));
    let mut stream = place.open(&place.one, &headers, &body);
    mcp::read_until(&mut stream, "notifications/progress");
    place.lab.revoke("agent-1", "key-compromise");
    stream.must_be_cut();
}

#[test]
fn a_session_belongs_to_the_certificate_that_opened_it() {
    let place = place(&["--business"], "");
    let own = Session::open(&place.enforcer, &place.one, "bank");
    let id = own.id.clone().expect("a session id");
    assert!(own.listed().contains(&"echo".to_owned()));
    assert_eq!(
        mcp::text(&own.call("echo", r#"{"text":"a"}"#)),
        r#"{"text":"a"}"#
    );

    let mut stolen = Session::open(&place.enforcer, &place.two, "bank");
    stolen.id = Some(id.clone());
    let before = place.server.calls_of("echo").len();
    let call =
        r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
    let got = stolen.post(call);
    assert_eq!(got.status, 404, "{got:?}");
    got.must_be_signed();
    let records = log::records(&place.enforcer.log());
    let record = &records[usize::try_from(got.record()).unwrap()];
    assert_eq!(
        (&record["decision"], &record["rule"]),
        (&"deny".into(), &"session".into())
    );
    // A session that never was looks the same.
    stolen.id = Some("there-is-no-such-session".to_owned());
    let absent = stolen.post(call);
    assert_eq!((absent.status, &absent.body), (404, &got.body));
    // Nor may it be ended, or listened to.
    let session = format!("Mcp-Session-Id: {id}");
    for method in ["DELETE", "GET"] {
        let options = [
            "-X",
            method,
            "-H",
            &session,
            "-H",
            "Accept: text/event-stream",
            "-H",
            "MCP-Protocol-Version: 2025-11-25",
        ];
        let got = agentca_tests::curl::curl(&place.enforcer, &place.two, &options, &["/mcp/bank"])
            .remove(0);
        assert_eq!(got.status, 404, "{method}: {got:?}");
    }
    assert_eq!(place.server.calls_of("echo").len(), before);
    assert_eq!(
        mcp::text(&own.call("echo", r#"{"text":"b"}"#)),
        r#"{"text":"b"}"#,
        "the owner goes on"
    );
}

/// Calls `slow_progress` in a session, for longer than any test.
const SLOW: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"slow_progress",
    "arguments":{"steps":100000,"interval_ms":10},"_meta":{"progressToken":5}}}"#;
const CANCEL: &str = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7,"reason":"enough"}}"#;

#[test]
fn what_a_session_cancels_ends_at_its_server() {
    let place = place(&["--business"], "");
    let session = Session::open(&place.enforcer, &place.one, "bank");
    let mut stream = session.open_stream(SLOW);
    mcp::read_until(&mut stream, "step 1");
    // Ids are a session's own.
    let other = Session::open(&place.enforcer, &place.one, "bank");
    assert_eq!(other.post(CANCEL).status, 202);
    mcp::read_until(&mut stream, "notifications/progress");
    assert_eq!(session.post(CANCEL).status, 202);
    stream.must_be_over();
    let calls = place.server.calls();
    let sessions_of = |wanted: &str| -> Vec<Option<String>> {
        let calls = calls.iter().filter(|call| call.body() == wanted);
        calls
            .map(|call| call.header("mcp-session-id").map(str::to_owned))
            .collect()
    };
    let (sessions, ends) = (sessions_of(SLOW), sessions_of(CANCEL));
    assert!(sessions.len() == 1 && sessions[0].is_some(), "{calls:?}");
    assert!(ends.len() == 2 && ends[1] == sessions[0], "{calls:?}");
}

#[test]
fn what_is_cancelled_of_a_program_ends_in_it() {
    let lab = Lab::with_authority();
    let calls = lab.path("bank.calls");
    let program = [
        &*ours("agentca-mcp-fixture").display().to_string(),
        "--stdio",
        "--business",
        "--calls",
        &*calls.display().to_string(),
    ]
    .map(str::to_owned);
    let definitions = mcp::definitions_of_program(&program);
    mcp::write_catalogue(&lab, "bank", &definitions, &mcp::bank_risk, &[]);
    let upstream = mcp::program_upstream("bank", &program, "");
    mcp::configure(&lab, &["bank"], &upstream);
    let enforcer = lab.start_enforcer("edge-1");
    let agent = lab.agent_with("agent-1", &["--scope", "mcp:bank:*"]);
    wait::until("the enforcer has seen the tools", || {
        (!mcp::listed(&enforcer, &agent, "bank").is_empty()).then_some(())
    });
    // The ids that the program was given for calls, and those that it was told to cancel.
    let told = || {
        let text = std::fs::read_to_string(&calls).unwrap();
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        let lines = whole.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            serde_json::from_str(line["body"].as_str().unwrap()).unwrap()
        });
        let lines: Vec<Value> = lines.collect();
        let of = |method: &str, id: &str| -> Vec<Value> {
            let lines = lines.iter().filter(|line| line["method"] == method);
            lines
                .map(|line| line.pointer(id).unwrap().clone())
                .collect()
        };
        (
            of("tools/call", "/id"),
            of("notifications/cancelled", "/params/requestId"),
        )
    };

    let session = Session::open(&enforcer, &agent, "bank");
    let mut stream = session.open_stream(SLOW);
    mcp::read_until(&mut stream, "step 1");
    assert_eq!(session.post(CANCEL).status, 202);
    stream.must_be_over();
    let (ran, ended) = wait::until("the program is told", || {
        let told = told();
        (!told.1.is_empty()).then_some(told)
    });
    assert_eq!((ran.len(), &ended), (1, &ran));

    // Without sessions who goes away cancels.
    let more = r#","name":"slow_progress","arguments":{"steps":100000,"interval_ms":10}"#;
    let meta = mcp::META.replacen('{', r#"{"progressToken":5,"#, 1);
    let body = mcp::request(7, "tools/call", more).replacen(mcp::META, &meta, 1);
    let headers = mcp::headers("tools/call", Some("slow_progress"));
    let mut stream = mcp::open_stream((&enforcer, &agent), "/mcp/bank", &headers, &body);
    mcp::read_until(&mut stream, "step 1");
    drop(stream);
    let (ran, ended) = wait::until("the program is told", || {
        let told = told();
        (told.1.len() > 1).then_some(told)
    });
    assert_eq!((ran.len(), &ended), (2, &ran));
}
