//! What is read once and strictly: whatever has two readings is refused, recorded, and never forwarded.

use std::path::PathBuf;

use agentca_tests::lab::{Enforcer, Lab};
use agentca_tests::mcp::{self, META, Server, Session};
use agentca_tests::{log, wait};
use serde_json::Value;

struct Place {
    server: Server,
    enforcer: Enforcer,
    agent: PathBuf,
    _lab: Lab,
}

fn place() -> Place {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--business"]);
    mcp::write_catalogue(&lab, "bank", &server.definitions(), &mcp::bank_risk, &[]);
    let upstream = mcp::upstream("bank", &server, "");
    mcp::configure(&lab, &["bank"], &upstream);
    let enforcer = lab.start_enforcer("edge-1");
    let agent = lab.agent_with("support-01", &["--scope", "mcp:bank:*"]);
    wait::until("the enforcer has seen the tools", || {
        (!mcp::listed(&enforcer, &agent, "bank").is_empty()).then_some(())
    });
    Place {
        server,
        enforcer,
        agent,
        _lab: lab,
    }
}

impl Place {
    /// Sends it, and stops unless it is refused with `status` and one of `codes`, recorded, and kept from the upstream.
    #[track_caller]
    fn must_refuse(&self, what: &str, headers: &[String], body: &[u8], status: u16, codes: &[i64]) {
        let before = self.reached();
        let got = mcp::post(&self.enforcer, &self.agent, "bank", headers, body);
        assert_eq!(got.status, status, "{what}: {got:?}");
        let answer: Value = got.json();
        assert_eq!(answer["jsonrpc"], "2.0", "{what}: {answer}");
        let code = answer["error"]["code"].as_i64().unwrap();
        assert!(codes.contains(&code), "{what}: {answer}");
        assert!(
            answer.get("id").is_none_or(|id| !id.is_null()),
            "{what}: {answer}"
        );
        got.must_be_signed();
        let records = log::records(&self.enforcer.log());
        let record = &records[usize::try_from(got.record()).unwrap()];
        assert_eq!(record["decision"], "deny", "{what}: {record}");
        let rule = if status == 413 {
            "too-large"
        } else {
            "malformed"
        };
        assert_eq!(record["rule"], rule, "{what}: {record}");
        assert_eq!(self.reached(), before, "{what} reached the upstream");
    }

    /// Everything that reached the upstream but for the enforcer's own listing.
    fn reached(&self) -> usize {
        let calls = self.server.calls();
        let ours = |method: &str| {
            matches!(
                method,
                "tools/list" | "server/discover" | "initialize" | "notifications/initialized"
            )
        };
        let others = calls.iter().filter(|call| {
            let message = call.message();
            !message["method"].as_str().is_some_and(ours)
        });
        others.count()
    }
}

fn echo_headers() -> Vec<String> {
    mcp::headers("tools/call", Some("echo"))
}

/// The specification leaves open which of the two a text is that has no or two readings.
const UNREADABLE: &[i64] = &[-32700, -32600];
const NO_REQUEST: &[i64] = &[-32600];
const WRONG_PARAMS: &[i64] = &[-32602];
const MISMATCH: &[i64] = &[-32020];

#[test]
fn a_body_with_two_readings_is_refused() {
    let place = place();
    let good = mcp::tool_call(7, "echo", r#"{"text":"hello"}"#);
    let result = mcp::call(
        &place.enforcer,
        &place.agent,
        "bank",
        "echo",
        r#"{"text":"hello"}"#,
    );
    assert_eq!(mcp::text(&result), r#"{"text":"hello"}"#, "{result}");
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    let method = r#""method":"tools/call","#;
    let twice = |more: &str| with(method, &format!("{method}{more}"));
    let cases = [
        (
            "a method twice",
            twice(r#""method":"tools/list","#),
            UNREADABLE,
        ),
        ("an id twice", twice(r#""id":8,"#), UNREADABLE),
        ("params twice", twice(r#""params":{},"#), UNREADABLE),
        (
            "a name twice",
            with(r#""name":"echo","#, r#""name":"echo","name":"run_report","#),
            UNREADABLE,
        ),
        (
            "a name twice, escaped",
            with(
                r#""name":"echo","#,
                r#""name":"echo","n\u0061me":"run_report","#,
            ),
            UNREADABLE,
        ),
        (
            "an argument twice",
            with(r#"{"text":"hello"}"#, r#"{"text":"a","text":"b"}"#),
            UNREADABLE,
        ),
        ("trailing data", format!("{good} {{}}"), UNREADABLE),
        ("two requests", format!("{good}\n{good}"), UNREADABLE),
        (
            "half a request",
            good[..good.len() / 2].to_owned(),
            UNREADABLE,
        ),
        ("nothing", String::new(), UNREADABLE),
        ("a mark before it", format!("\u{feff}{good}"), UNREADABLE),
        (
            "another `Method`",
            twice(r#""Method":"tools/list","#),
            NO_REQUEST,
        ),
        ("an unknown key", twice(r#""extra":1,"#), NO_REQUEST),
        ("a batch", format!("[{good}]"), NO_REQUEST),
        ("an empty batch", "[]".to_owned(), NO_REQUEST),
        ("a text", r#""tools/call""#.to_owned(), NO_REQUEST),
        ("no version", with(r#""jsonrpc":"2.0","#, ""), NO_REQUEST),
        ("another version", with(r#""2.0""#, r#""1.0""#), NO_REQUEST),
        (
            "an id that is null",
            with(r#""id":7"#, r#""id":null"#),
            NO_REQUEST,
        ),
        (
            "an id that is a fraction",
            with(r#""id":7"#, r#""id":7.5"#),
            NO_REQUEST,
        ),
        (
            "an id that is an object",
            with(r#""id":7"#, r#""id":{}"#),
            NO_REQUEST,
        ),
        (
            "a result beside the method",
            twice(r#""result":{},"#),
            NO_REQUEST,
        ),
        (
            "an answer to nothing",
            r#"{"jsonrpc":"2.0","id":7,"result":{}}"#.to_owned(),
            NO_REQUEST,
        ),
        (
            "a list of params",
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":["echo"]}"#.to_owned(),
            WRONG_PARAMS,
        ),
        (
            "a list of arguments",
            with(r#"{"text":"hello"}"#, r#"["hello"]"#),
            WRONG_PARAMS,
        ),
        (
            "arguments that are a text",
            with(r#"{"text":"hello"}"#, r#""{\"text\":1}""#),
            WRONG_PARAMS,
        ),
        (
            "a name that is a number",
            with(r#""name":"echo""#, r#""name":5"#),
            WRONG_PARAMS,
        ),
        ("no name", with(r#""name":"echo","#, ""), WRONG_PARAMS),
        (
            "no `_meta`",
            with(&format!(r#""_meta":{META},"#), ""),
            WRONG_PARAMS,
        ),
    ];
    for (what, body, codes) in cases {
        place.must_refuse(what, &echo_headers(), body.as_bytes(), 400, codes);
    }
    let mut broken = good.clone().into_bytes();
    let at = good.find("hello").unwrap();
    broken[at] = 0xff;
    place.must_refuse("no UTF-8", &echo_headers(), &broken, 400, UNREADABLE);
}

#[test]
fn a_body_that_is_too_much_is_refused() {
    let place = place();
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    let deep = mcp::tool_call(7, "echo", &format!(r#"{{"text":{deep}}}"#));
    place.must_refuse(
        "too deep",
        &echo_headers(),
        deep.as_bytes(),
        400,
        UNREADABLE,
    );
    let long = "x".repeat(1 << 20);
    let long = mcp::tool_call(7, "echo", &format!(r#"{{"text":"{long}"}}"#));
    place.must_refuse(
        "too long",
        &echo_headers(),
        long.as_bytes(),
        413,
        NO_REQUEST,
    );
}

#[test]
fn a_head_that_disagrees_with_its_body_is_refused() {
    let place = place();
    let body = mcp::tool_call(7, "echo", "{}");
    let headers = |from: &str, to: &str| {
        let mut headers = echo_headers();
        let header = headers.iter_mut().find(|header| header.starts_with(from));
        *header.unwrap() = to.to_owned();
        headers.retain(|header| !header.is_empty());
        headers
    };
    let cases = [
        (
            "another name",
            headers("Mcp-Name", "Mcp-Name: account_balance"),
        ),
        ("another case", headers("Mcp-Name", "Mcp-Name: ECHO")),
        ("no name", headers("Mcp-Name", "")),
        (
            "another method",
            headers("Mcp-Method", "Mcp-Method: tools/list"),
        ),
        ("no method", headers("Mcp-Method", "")),
        (
            "another revision",
            headers("MCP-Protocol", "MCP-Protocol-Version: 2025-11-25"),
        ),
        (
            "broken base64",
            headers("Mcp-Name", "Mcp-Name: =?base64?ZWNobw?="),
        ),
        (
            "two names",
            [echo_headers(), vec!["Mcp-Name: echo".to_owned()]].concat(),
        ),
    ];
    for (what, headers) in cases {
        place.must_refuse(what, &headers, body.as_bytes(), 400, MISMATCH);
    }
    // The same name in the form for names that no header can hold is the same name.
    let encoded = headers("Mcp-Name", "Mcp-Name: =?base64?ZWNobw==?=");
    let got = mcp::post(
        &place.enforcer,
        &place.agent,
        "bank",
        &encoded,
        body.as_bytes(),
    );
    assert_eq!(
        mcp::text(&mcp::answer_in(&got.body, 7)["result"]),
        "{}",
        "{got:?}"
    );
}

#[test]
fn a_session_is_read_as_strictly() {
    let place = place();
    let session = Session::open(&place.enforcer, &place.agent, "bank");
    let before = place.reached();
    let good = r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"echo","arguments":{"text":"a"}}}"#;
    for bad in [
        good.replace(r#""name":"echo""#, r#""name":"echo","name":"run_report""#),
        good.replace(r#""id":3"#, r#""id":3,"extra":1"#),
        good.replace(r#"{"text":"a"}"#, r#"["a"]"#),
        format!("[{good}]"),
        format!("{good}{good}"),
    ] {
        let got = session.post(&bad);
        assert_eq!(got.status, 400, "{bad}: {got:?}");
        got.must_be_signed();
        let records = log::records(&place.enforcer.log());
        assert_eq!(
            records[usize::try_from(got.record()).unwrap()]["decision"],
            "deny"
        );
    }
    assert_eq!(place.reached(), before);
    assert_eq!(
        mcp::text(&session.call("echo", r#"{"text":"a"}"#)),
        r#"{"text":"a"}"#
    );
}

#[test]
fn what_is_forwarded_is_what_was_read() {
    let place = place();
    // Not a byte is another: white space, escapes and numbers stay as they were written.
    let body = mcp::tool_call(
        7,
        "echo",
        "{ \"text\" : \"\\u0061\",\n \"n\": 123456789012345678901234567890, \"f\": 1.50 }",
    );
    mcp::post(
        &place.enforcer,
        &place.agent,
        "bank",
        &echo_headers(),
        body.as_bytes(),
    );
    let calls = place.server.calls_of("echo");
    let [call] = calls.as_slice() else {
        panic!("one call, not {calls:?}");
    };
    assert_eq!(call.body(), body);
    assert_eq!(call.header("mcp-method"), Some("tools/call"));
}

#[test]
fn fields_that_nobody_held_against_the_body_go_nowhere() {
    let place = place();
    let body = mcp::tool_call(7, "echo", "{}");
    let mut headers = echo_headers();
    headers.push("Mcp-Param-Account: 666".to_owned());
    mcp::post(
        &place.enforcer,
        &place.agent,
        "bank",
        &headers,
        body.as_bytes(),
    );
    let calls = place.server.calls_of("echo");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].header("mcp-name"), Some("echo"));
    assert_eq!(calls[0].header("mcp-param-account"), None);
    headers.push("Content-Encoding: deflate".to_owned());
    let got = mcp::post(
        &place.enforcer,
        &place.agent,
        "bank",
        &headers,
        body.as_bytes(),
    );
    assert_eq!(got.status, 415, "{got:?}");
    assert_eq!(place.server.calls_of("echo").len(), 1);
}
