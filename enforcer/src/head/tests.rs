use http::Request;
use http::header::HeaderName;

use super::*;

fn authorities() -> Authorities {
    Authorities::new(&["localhost"], &["127.0.0.1".parse().unwrap()])
}

fn read(request: Request<()>, protocol: Protocol) -> Result<Head, Denial> {
    let authorities = authorities();
    let rules = HeadRules {
        protocol,
        shape: Shape::Plain,
        sni: None,
        authorities: &authorities,
        head_max: 1000,
        headers_max: 20,
    };
    Head::read(request.into_parts().0, &rules).map(|head| *head)
}

fn get(path: &str) -> http::request::Builder {
    Request::get(path).header("host", "localhost:8443")
}

#[track_caller]
fn refused(request: http::request::Builder, rule: Rule, status: u16) {
    let request = request.body(()).unwrap();
    let shown = format!("{request:?}");
    let denial = read(request, Protocol::Http1).expect_err(&shown);
    assert_eq!(
        (denial.rule, denial.status.as_u16()),
        (rule, status),
        "{shown}"
    );
}

#[test]
fn an_ordinary_head_is_read() {
    let request = get("/v1/accounts/7?x=%2F")
        .header("accept", "*/*")
        .header("agent-nonce", "n-1")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .body(())
        .unwrap();
    let head = read(request, Protocol::Http1).unwrap();
    assert_eq!(head.path.as_str(), "/v1/accounts/7?x=%2F");
    assert_eq!(head.uri.to_string(), head.path.as_str());
    let trace = head.trace.unwrap();
    assert_eq!(trace.id(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(trace.parent(), "b7ad6b7169203331");
    assert!(head.headers.contains_key("agent-nonce"));
    assert!(!head.headers.contains_key("host"));
}

#[test]
fn what_is_not_spoken_is_told_so() {
    refused(get("/").version(Version::HTTP_10), Rule::Malformed, 505);
    refused(get("/").method("CONNECT"), Rule::Malformed, 501);
    refused(
        get("/").header("upgrade", "websocket"),
        Rule::Malformed,
        501,
    );
}

#[test]
fn only_our_authorities_are_served() {
    refused(Request::get("/"), Rule::Malformed, 400);
    refused(get("/").header("host", "localhost"), Rule::Malformed, 400);
    refused(Request::get("https://localhost/"), Rule::Malformed, 400);
    refused(
        Request::get("/").header("host", "user@localhost"),
        Rule::Malformed,
        400,
    );
    refused(
        Request::get("/").header("host", "a b"),
        Rule::Malformed,
        400,
    );
    refused(
        Request::get("/").header("host", "example.org"),
        Rule::Misdirected,
        421,
    );
    let two = Request::get("https://localhost/x")
        .header("host", "127.0.0.1")
        .body(())
        .unwrap();
    assert_eq!(
        read(two, Protocol::Http2).unwrap_err().rule,
        Rule::Malformed
    );
    let one = Request::get("https://localhost/x")
        .header("host", "LOCALHOST")
        .body(())
        .unwrap();
    assert_eq!(read(one, Protocol::Http2).unwrap().uri, "/x");
    let unseen = Request::get("/x").header("host", "localhost");
    let plain = Request::get("http://localhost/x");
    for request in [unseen, plain] {
        let request = request.body(()).unwrap();
        let denial = read(request, Protocol::Http2).unwrap_err();
        assert_eq!(denial.rule, Rule::Malformed);
    }
}

#[test]
fn paths_with_two_readings_are_refused() {
    for path in [
        "/a//b",
        "/a/../b",
        "/a/%2e%2e/b",
        "/a%2fb",
        "/a;b",
        "/a%5cb",
        "/a/",
        "/a%",
    ] {
        refused(get(path), Rule::Malformed, 400);
    }
}

#[test]
fn names_that_a_gateway_could_take_for_ours_are_refused() {
    for name in ["agent.id", "agent|scopes", "x_y", "agent~id"] {
        refused(get("/").header(name, "x"), Rule::Malformed, 400);
    }
}

#[test]
fn what_is_signed_can_be_read() {
    let unreadable = http::HeaderValue::from_bytes(b"x=\xff").unwrap();
    for name in ["content-digest", "agent-nonce"] {
        refused(
            get("/").header(name, unreadable.clone()),
            Rule::Malformed,
            400,
        );
    }
}

#[test]
fn what_would_override_the_call_is_not_forwarded() {
    let request = get("/x")
        .header("x-http-method-override", "DELETE")
        .body(());
    let head = read(request.unwrap(), Protocol::Http1).unwrap();
    assert!(!head.headers.contains_key("x-http-method-override"));
}

#[test]
fn limits_of_the_head_hold() {
    refused(get("/").header("x", "y".repeat(2000)), Rule::TooLarge, 431);
    let many = (0..30).fold(get("/"), |request, i| request.header(format!("x-{i}"), "y"));
    refused(many, Rule::TooLarge, 431);
}

#[test]
fn lengths_have_one_form() {
    refused(
        get("/").header("content-length", "+1"),
        Rule::Malformed,
        400,
    );
    refused(get("/").header("content-length", ""), Rule::Malformed, 400);
    refused(
        get("/")
            .header("content-length", "1")
            .header("content-length", "1"),
        Rule::Malformed,
        400,
    );
}

#[test]
fn hop_by_hop_goes_first_then_underscores_are_refused_then_ours_removed() {
    let request = get("/")
        .header("connection", "close, x_hop, X-Other")
        .header("x_hop", "1")
        .header("x-other", "1")
        .header("te", "trailers")
        .header("proxy-authorization", "Basic x")
        .header("expect", "100-continue")
        .header("agent-id", "spiffe://example.org/prod/agent/boss")
        .header("agent-anything", "1")
        .header("agent-nonce", "n")
        .header("authorization", "Bearer x")
        .body(())
        .unwrap();
    let head = read(request, Protocol::Http1).unwrap();
    let mut names: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["agent-nonce", "authorization"]);
    refused(get("/").header("agent_id", "x"), Rule::Malformed, 400);
    refused(
        get("/")
            .header("agent-nonce", "x")
            .header("agent-nonce", "y"),
        Rule::Malformed,
        400,
    );
}

#[test]
fn what_was_asked_is_known_of_refused_heads_too() {
    let request = Request::get("/v1?q=1")
        .header("host", "elsewhere:1")
        .header("content-digest", "sha-256=:a:")
        .header("content-digest", "sha-512=:b:")
        .body(())
        .unwrap();
    let asked = Asked::of(&request.into_parts().0);
    assert_eq!(asked.target_uri, "https://elsewhere:1/v1?q=1");
    assert_eq!(
        asked.content_digest.as_deref(),
        Some("sha-256=:a:, sha-512=:b:")
    );
    assert_eq!(asked.nonce, None);
}

#[test]
fn traces_are_read_only_when_well_formed() {
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert!(read_trace(good).is_some());
    for bad in [
        "",
        "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
    ] {
        assert!(read_trace(bad).is_none(), "{bad}");
    }
}
