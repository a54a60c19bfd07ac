//! Requests that two readers could read in two ways. Each is refused, signed and recorded, and none reaches the upstream.

use std::path::Path;

use agentca_tests::clients::python;
use agentca_tests::lab::{Enforcer, Lab};
use agentca_tests::log;

const HOST: &str = "Host: localhost\r\n";

/// Sends raw bytes on a connection of their own; the status of the answer, none when it just closed.
fn ask(enforcer: &Enforcer, agent: &Path, raw: &str) -> Option<u16> {
    let mut tls = enforcer.connect(agent).unwrap();
    tls.send(raw).ok()?;
    let answer = match tls.answer() {
        Ok(answer) => answer,
        Err(error) => {
            assert_ne!(
                error.kind(),
                std::io::ErrorKind::WouldBlock,
                "left hanging: {raw:?}"
            );
            return None;
        }
    };
    for field in ["signature", "signature-input", "agent-audit"] {
        assert!(
            answer.header(field).is_some(),
            "unsigned answer {answer:?} to {raw:?}"
        );
    }
    // Where a body may follow, nothing after the answer is taken for a request.
    if raw.starts_with("POST") {
        assert_eq!(
            answer.header("connection"),
            Some("close"),
            "{raw:?}: {answer:?}"
        );
        assert!(tls.is_closed_without_a_word(), "{raw:?}");
    }
    Some(answer.status)
}

#[test]
fn ambiguous_requests_are_refused_signed_and_go_nowhere() {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    let enforcer = lab.enforcer("edge-1");
    let post = format!("POST /v1/echo HTTP/1.1\r\n{HOST}");
    let get = format!("GET /v1/accounts/7 HTTP/1.1\r\n{HOST}");
    let smuggled = "GET /v1/accounts/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let cases = [
        (
            format!(
                "{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
            400,
        ),
        (
            format!(
                "{post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{smuggled}"
            ),
            400,
        ),
        (
            format!("{post}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd{smuggled}"),
            400,
        ),
        (
            format!("{post}Content-Length: 4, 5\r\n\r\nabcd{smuggled}"),
            400,
        ),
        (format!("{post}Content-Length: +4\r\n\r\nabcd"), 400),
        (format!("{post}Content-Length: -1\r\n\r\n"), 400),
        (format!("{post}Content-Length: 0x4\r\n\r\nabcd"), 400),
        (
            format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{smuggled}"),
            400,
        ),
        (
            format!("{post}Transfer-Encoding: identity\r\n\r\n{smuggled}"),
            400,
        ),
        (
            format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}"),
            400,
        ),
        (
            format!(
                "{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
            400,
        ),
        (
            format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"),
            400,
        ),
        (format!("{get}X-Folded: a\r\n b\r\n\r\n"), 400),
        (format!("{get}Spaced : 1\r\n\r\n"), 400),
        (format!("{get} Leading: 1\r\n\r\n"), 400),
        (format!("{get}No-Colon\r\n\r\n"), 400),
        (format!("{get}X: a\0b\r\n\r\n"), 400),
        (format!("{get}x_under: 1\r\n\r\n"), 400),
        (format!("{get}{HOST}\r\n"), 400),
        ("GET /v1/accounts/7 HTTP/1.1\r\n\r\n".to_owned(), 400),
        (
            "GET /v1/accounts/7 HTTP/1.1\r\nHost: elsewhere\r\n\r\n".to_owned(),
            421,
        ),
        (format!("GET /v1/accounts/a b HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET /v1/accounts/7#x HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("G@T /v1/accounts/7 HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET /v1/accounts/7 HTTP/2.7\r\n{HOST}\r\n"), 400),
        (format!("GET /v1/accounts/7 HTTP/1.0\r\n{HOST}\r\n"), 505),
        (format!("CONNECT localhost:443 HTTP/1.1\r\n{HOST}\r\n"), 501),
        (
            format!("{get}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
            501,
        ),
        (format!("{get}X-Large: {}\r\n\r\n", "x".repeat(20_000)), 431),
    ];
    let before = lab.upstream().seen().len();
    let mut wrong = Vec::new();
    for (raw, status) in &cases {
        let recorded = log::records(&enforcer.log()).len();
        let got = ask(&enforcer, &agent, raw);
        // A head that no reader could make sense of is closed on, without a word.
        let refused = got == Some(*status) || (got.is_none() && *status == 400);
        let short = &raw[..raw.len().min(120)];
        if !refused {
            wrong.push(format!("{got:?} instead of {status}: {short:?}"));
        }
        if got.is_some() && log::records(&enforcer.log()).len() <= recorded {
            wrong.push(format!("answered and not recorded: {short:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        lab.upstream().seen().len(),
        before,
        "nothing reached the upstream"
    );
}

#[test]
fn ambiguous_http2_requests_are_refused_and_go_nowhere() {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    let enforcer = lab.enforcer("edge-1");
    let address = enforcer.address();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let (agent, root) = (
        agent.display().to_string(),
        lab.root().display().to_string(),
    );
    python(&lab, "http2.py", &[&host, &port, &agent, &root]).must_succeed();
    let seen = lab.upstream().seen();
    assert_eq!(
        seen.len(),
        1,
        "only the plain request reached the upstream: {seen:?}"
    );
}

#[test]
fn hop_by_hop_fields_and_forged_names_do_not_pass() {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    let enforcer = lab.enforcer("edge-1");
    let mut tls = enforcer.connect(&agent).unwrap();
    tls.send(format!(
        "POST /v1/echo HTTP/1.1\r\n{HOST}Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\n\
         Proxy-Authorization: Basic eA==\r\nAgent-Id: spiffe://forged\r\nAgent-Anything: 1\r\nagent-nonce: n\r\n\
         Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nAgent-Trust: L4\r\nX-Trailer: 1\r\n\r\n"
    ))
    .unwrap();
    let answer = tls.answer().unwrap();
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, &b"hello"[..])
    );
    let seen = lab.upstream().last();
    for gone in [
        "x-hop",
        "te",
        "keep-alive",
        "proxy-authorization",
        "agent-anything",
        "x-trailer",
    ] {
        assert!(seen.all(gone).is_empty(), "{gone}: {seen:?}");
    }
    assert_eq!(
        seen.header("agent-id"),
        Some("spiffe://example.org/prod/agent/support-01")
    );
    assert_eq!(seen.header("agent-trust"), Some("L2"));
    assert_eq!(seen.body, b"hello");
}

#[test]
fn bodies_are_asked_for_only_when_the_head_was_not_denied() {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    let enforcer = lab.enforcer("edge-1");
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\n{HOST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    };
    let mut tls = enforcer.connect(&agent).unwrap();
    tls.send(head("/v1/echo")).unwrap();
    assert_eq!(tls.head().unwrap().status, 100);
    tls.send("hello").unwrap();
    assert_eq!(tls.answer().unwrap().status, 200);
    let mut tls = enforcer.connect(&agent).unwrap();
    tls.send(head("/v1/accounts/7")).unwrap();
    let answer = tls.answer().unwrap();
    assert_eq!(
        (answer.status, answer.rule().as_str()),
        (403, "scope"),
        "no 100 before a denial"
    );
    assert!(
        tls.is_closed_without_a_word(),
        "an answer before the body closes the connection"
    );
}

#[test]
fn a_digest_that_does_not_match_stops_the_call() {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    let enforcer = lab.enforcer("edge-1");
    let mut tls = enforcer.connect(&agent).unwrap();
    let wrong = format!("sha-256=:{}=:", "A".repeat(43));
    tls.send(format!(
        "POST /v1/echo HTTP/1.1\r\n{HOST}Content-Length: 5\r\nContent-Digest: {wrong}\r\n\r\nhello"
    ))
    .unwrap();
    let answer = tls.answer().unwrap();
    assert_eq!((answer.status, answer.rule().as_str()), (400, "malformed"));
    assert_eq!(lab.upstream().count("/v1/echo"), 0);
}

#[test]
fn pipelined_requests_are_answered_one_by_one() {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    let enforcer = lab.enforcer("edge-1");
    let mut tls = enforcer.connect(&agent).unwrap();
    let one = |id: u8| format!("GET /v1/accounts/{id} HTTP/1.1\r\n{HOST}\r\n");
    tls.send(format!("{}{}{}", one(1), one(2), one(3))).unwrap();
    for id in 1..=3 {
        let answer = tls.answer().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            (answer.status, body["account"].as_str()),
            (200, Some(id.to_string().as_str()))
        );
    }
}
