//! Connections to upstreams: what is left of one call never leaves during another.

use agentca_auditlog::response::content_digest;
use agentca_identity::crypto::sha256;
use bytes::Bytes;
use http::Request;

use crate::client::connect;
use crate::fixture::Fixture;
use crate::pki::{Credential, Wish};
use crate::raw::RawUpstream;

const EARLY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A client that has its answer and goes on sending its request.
struct Uploading {
    body: h2::SendStream<Bytes>,
    ping: h2::PingPong,
}

impl Uploading {
    async fn begin(fixture: &Fixture, agent: &Credential) -> Self {
        let address = fixture.server.address();
        let stream = connect(address, &fixture.pki, Some(agent), b"h2").await;
        let (mut sender, mut connection) = h2::client::handshake(stream.unwrap()).await.unwrap();
        let ping = connection.ping_pong().unwrap();
        tokio::spawn(connection);
        let request = Request::post("https://localhost/raw").body(()).unwrap();
        let (response, mut body) = sender.send_request(request, false).unwrap();
        body.send_data("first".into(), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        Self { body, ping }
    }

    /// Sends more than the library holds back before it writes, and waits until the enforcer has it.
    async fn go_on(&mut self) {
        // After the answer the enforcer may have reset the stream.
        let _reset = self.body.send_data("secret".into(), false);
        for _ in 0..3 {
            let _reset = self.body.send_data(vec![b'x'; 15 << 10].into(), false);
        }
        // The first may overtake what was sent before it, the second does not.
        for _ in 0..2 {
            let _cut = self.ping.ping(h2::Ping::opaque()).await;
        }
    }
}

/// The bytes of an early answered upload, after another agent called the same upstream.
async fn uploaded(revoke: bool) -> Vec<u8> {
    let mut raw = RawUpstream::start(&[EARLY]).await;
    let routes = raw.configuration(&["POST", "GET"], "/raw", "stream_request = true");
    let mut fixture = Fixture::with(&routes).await;
    let agent = fixture.agent(&Wish::default());
    let other = fixture.agent(&Wish {
        name: "other",
        ..Wish::default()
    });
    let mut uploading = Uploading::begin(&fixture, &agent).await;
    uploading.go_on().await;
    let mut bystander = fixture.http1(&other).await;
    if revoke {
        fixture.revoke(&agent);
    }
    bystander
        .send("GET /raw HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(bystander.head().await.unwrap().0, 200);
    raw.closed().await
}

#[track_caller]
fn only_the_first_call(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert!(text.starts_with("POST /raw "), "{text}");
    assert!(!text.contains("secret"), "{text}");
    assert!(!text.contains("GET "), "{text}");
}

#[tokio::test]
async fn what_comes_after_an_early_answer_goes_nowhere() {
    only_the_first_call(&uploaded(false).await);
}

#[tokio::test]
async fn nor_does_it_once_its_agent_is_revoked() {
    only_the_first_call(&uploaded(true).await);
}

#[tokio::test]
async fn an_early_answer_vouches_for_no_digest() {
    let raw = RawUpstream::start(&[EARLY]).await;
    let routes = raw.configuration(&["POST"], "/raw", "stream_request = true");
    let mut fixture = Fixture::with(&routes).await;
    let agent = fixture.agent(&Wish::default());
    let digest = content_digest::format(&sha256(b"whole"));
    let claim = format!("Content-Digest: {digest}\r\n");
    for (claim, status) in [("", 200), (claim.as_str(), 502)] {
        let mut client = fixture.http1(&agent).await;
        client
            .send(&format!(
                "POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n{claim}\r\nwho"
            ))
            .await;
        let answer = client.answer("POST").await.unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
    }
}
