//! Request bodies: passed on as they come, where a route says so, and those that come slowly or never.

use std::time::Duration;

use agentca_auditlog::receipt::Phase;
use agentca_auditlog::response::content_digest;
use agentca_identity::crypto::sha256;
use bytes::Bytes;
use h2::SendStream;
use h2::client::ResponseFuture;
use http::Request;

use crate::answers::{audit_index, check_signature};
use crate::client::{Answer, Http1, connect};
use crate::fixture::Fixture;
use crate::pki::{Credential, Wish};

const URI: &str = "https://localhost/v1/upload";

/// Sends a head that promises a body of `length` bytes.
async fn begin(client: &mut Http1, path: &str, length: usize, more: &str) {
    client
        .send(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{more}\r\n"
        ))
        .await;
}

#[track_caller]
fn denied(fixture: &Fixture, answer: &Answer, status: u16, rule: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.problem()["rule"], rule);
    let outcome = fixture.record(audit_index(answer));
    assert_eq!(outcome["rule"], rule, "{outcome}");
}

#[tokio::test]
async fn a_streamed_body_reaches_the_upstream_as_it_comes() {
    // Neither its size nor its time are limited as those of a body that is read whole.
    let limits = "limits = { request_max = 8, upstream_timeout = \"2s\" }";
    let mut fixture = Fixture::with(limits).await;
    let agent = fixture.agent(&Wish::default());
    let mut client = Http2::new(&fixture, &agent).await;
    let (response, mut body) = client.begin("/v1/upload");
    body.send_data("one".into(), false).unwrap();
    body.send_data("two".into(), false).unwrap();
    // The last piece that came is held back until the next one, or the end.
    fixture.upstream.held.notified().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    body.send_data("three".into(), true).unwrap();
    let answer = Http2::answer(response).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, &b"11"[..])
    );
    check_signature(&fixture, &answer, "POST", URI, None, None);
    let outcome = fixture.record(audit_index(&answer));
    assert_eq!(outcome["kind"], "outcome", "{outcome}");
}

#[tokio::test]
async fn the_upstream_never_has_all_of_a_body_with_a_wrong_digest() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    // A body that was read to its end leaves the connection in order.
    let mut client = fixture.http1(&agent).await;
    for (digest, status) in [(sha256(b"onetwo"), 200), (sha256(b"other"), 400)] {
        let digest = format!("Content-Digest: {}\r\n", content_digest::format(&digest));
        begin(&mut client, "/v1/upload", 6, &digest).await;
        client.send("one").await;
        client.send("two").await;
        let answer = client.answer("POST").await.unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
        if status == 400 {
            denied(&fixture, &answer, 400, "malformed");
        }
    }
    assert_eq!(fixture.upstream.seen().len(), 1, "the good one");
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let mut fixture = Fixture::with("limits = { body_timeout = \"1s\" }").await;
    let agent = fixture.agent(&Wish::default());
    for path in ["/v1/upload", "/v1/pay"] {
        let mut client = fixture.http1(&agent).await;
        begin(&mut client, path, 9, "").await;
        client.send("one").await;
        client.send("two").await;
        let answer = client.answer("POST").await.unwrap();
        denied(&fixture, &answer, 408, "malformed");
        assert_eq!(answer.header("connection"), Some("close"));
        if path == "/v1/upload" {
            let gone = fixture.upstream.gone.notified();
            tokio::time::timeout(Duration::from_secs(20), gone)
                .await
                .expect("the upstream had its beginning, and is let go");
        }
        let mut client = Http2::new(&fixture, &agent).await;
        for pieces in [0, 2] {
            let answer = client.stop_after(path, pieces).await;
            denied(&fixture, &answer, 408, "malformed");
        }
    }
    assert!(fixture.upstream.seen().is_empty());
}

#[tokio::test]
async fn bodies_are_held_only_while_there_is_room() {
    let limits = "limits = { request_max = 10, buffered_max = 20 }";
    let mut fixture = Fixture::with(limits).await;
    let agent = fixture.agent(&Wish::default());
    let mut client = Http2::new(&fixture, &agent).await;
    let (first, mut first_body) = client.begin("/v1/pay");
    first_body.send_data("12345678".into(), false).unwrap();
    let (second, mut second_body) = client.begin("/v1/pay");
    second_body.send_data("123".into(), false).unwrap();
    let answer = Http2::answer(second).await;
    denied(&fixture, &answer, 503, "too-large");
    assert_eq!(answer.header("retry-after"), Some("1"));
    first_body.send_data("9".into(), true).unwrap();
    assert_eq!(Http2::answer(first).await.status, 200);
    let (third, mut third_body) = client.begin("/v1/pay");
    third_body.send_data("1234567890".into(), true).unwrap();
    assert_eq!(Http2::answer(third).await.status, 200);
    // An answer that does not fit is passed on as it comes.
    let answer = fixture.http1(&agent).await.get("/v1/long").await;
    assert_eq!(answer.body.len(), crate::upstream::LONG);
    let uri = "https://localhost/v1/long";
    let audit = check_signature(&fixture, &answer, "GET", uri, None, None);
    assert_eq!(audit.phase, Phase::Open);
}

/// A client that sends a body by hand.
struct Http2(h2::client::SendRequest<Bytes>);

impl Http2 {
    async fn new(fixture: &Fixture, agent: &Credential) -> Self {
        let address = fixture.server.address();
        let stream = connect(address, &fixture.pki, Some(agent), b"h2").await;
        let (sender, connection) = h2::client::handshake(stream.unwrap()).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    fn begin(&mut self, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
        let request = Request::post(format!("https://localhost{path}"));
        self.0
            .send_request(request.body(()).unwrap(), false)
            .unwrap()
    }

    /// Sends so many pieces of a body and never its end.
    async fn stop_after(&mut self, path: &str, pieces: usize) -> Answer {
        let (response, mut body) = self.begin(path);
        for _ in 0..pieces {
            body.send_data("piece".into(), false).unwrap();
        }
        Self::answer(response).await
    }

    async fn answer(response: ResponseFuture) -> Answer {
        let (parts, mut body) = response.await.unwrap().into_parts();
        let mut whole = Vec::new();
        while let Some(data) = body.data().await {
            match data {
                Ok(data) => whole.extend_from_slice(&data),
                // After a whole answer: the rest of the body is not wanted (RFC 9113 section 8.1).
                Err(error) if error.reason() == Some(h2::Reason::NO_ERROR) => break,
                Err(error) => panic!("{error}"),
            }
        }
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: whole.into(),
        }
    }
}
