//! What the library would read in its own way, and what cannot be signed: from clients and from upstreams.

use agentca_auditlog::response::content_digest;
use agentca_identity::crypto::sha256;
use http::Request;
use http_body_util::Full;

use crate::answers::check_signature;
use crate::fixture::Fixture;
use crate::pki::Wish;
use crate::raw::RawUpstream;

const URI: &str = "https://localhost/raw";

#[tokio::test]
async fn what_cannot_be_signed_is_not_passed_on() {
    let fields: [&[u8]; 8] = [
        b"Content-Type: text/\xff",
        b"Content-Encoding: \xe9",
        b"Location: /caf\xc3\xa9",
        b"Content-Type: text/html\r\nContent-Type: text/plain",
        b"Content-Type: text/html\r\nContent-Type: \xff",
        b"Content-Encoding: gzip\r\nContent-Encoding: \xff",
        b"Location: /a\r\nLocation: /b",
        b"Location: /a\r\nLocation: \xff",
    ];
    let answers = fields.map(|field| {
        let head: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n";
        [head, field, b"\r\n\r\nok"].concat()
    });
    let raw = RawUpstream::start(&answers).await;
    let mut fixture = Fixture::with(&raw.configuration(&["GET"], "/raw", "")).await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    for field in fields {
        let answer = client.get("/raw").await;
        let shown = String::from_utf8_lossy(field);
        assert_eq!(answer.status, 502, "{shown}");
        assert_eq!(answer.problem()["rule"], "upstream", "{shown}");
        check_signature(&fixture, &answer, "GET", URI, None, None);
    }
}

#[tokio::test]
async fn an_answer_to_head_has_one_length() {
    let good = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    let bad = "HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n";
    let two = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n";
    let raw = RawUpstream::start(&[good, bad, two]).await;
    let mut fixture = Fixture::with(&raw.configuration(&["HEAD"], "/raw", "")).await;
    let agent = fixture.agent(&Wish::default());
    for status in [200, 502, 502] {
        let mut client = fixture.http1(&agent).await;
        client
            .send("HEAD /raw HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        let answer = client.answer("HEAD").await.unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
        if status == 200 {
            assert_eq!(answer.header("content-length"), Some("3"));
        }
    }
}

#[tokio::test]
async fn the_body_of_a_get_is_read_whatever_its_route_says() {
    let mut raw = RawUpstream::start(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]).await;
    let routes = raw.configuration(&["GET"], "/raw", "stream_request = true");
    let mut fixture = Fixture::with(&routes).await;
    let agent = fixture.agent(&Wish::default());
    for (digest, status) in [(sha256(b"other"), 400), (sha256(b"asked"), 200)] {
        let digest = content_digest::format(&digest);
        let mut client = fixture.http1(&agent).await;
        client
            .send(&format!(
                "GET /raw HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
                 Content-Digest: {digest}\r\n\r\n5\r\nasked\r\n0\r\n\r\n"
            ))
            .await;
        let answer = client.answer("GET").await.unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
        check_signature(&fixture, &answer, "GET", URI, Some(&digest), None);
    }
    fixture.end().await;
    assert!(raw.closed().await.ends_with(b"\r\n\r\nasked"));
}

#[tokio::test]
async fn only_https_is_asked_for() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http2(&agent).await;
    let request = Request::get("http://localhost/v1/accounts/7").body(Full::default());
    let answer = client.request(request.unwrap()).await.unwrap();
    assert_eq!(answer.status, 400);
    assert_eq!(answer.problem()["rule"], "malformed");
    assert!(fixture.upstream.seen().is_empty());
}
