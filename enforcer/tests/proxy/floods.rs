//! HTTP/2 floods, by hand-made frames: the connection ends, is recorded, and nobody else notices.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::client::connect;
use crate::fixture::Fixture;
use crate::pki::{Credential, Wish};

/// Far below every timeout that could end a connection otherwise.
const SOON: Duration = Duration::from_secs(30);

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM_AND_HEADERS: u8 = 5;
/// Of HPACK's static table: `accept-encoding: gzip, deflate`.
const FIELD: u8 = 0x90;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 11];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// HPACK without its table: `GET https://localhost<path>`.
fn head(path: &str) -> Vec<u8> {
    // Of the static table: GET, https.
    let mut block = vec![0x82, 0x87];
    for (name, value) in [(1, "localhost"), (4, path)] {
        block.extend([name, u8::try_from(value.len()).unwrap()]);
        block.extend(value.as_bytes());
    }
    block
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL)
}

fn request(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM_AND_HEADERS, stream, &head(path))
}

/// A connection that speaks frames.
struct Raw {
    stream: TlsStream<TcpStream>,
    received: Vec<u8>,
}

impl Raw {
    async fn new(fixture: &Fixture, agent: &Credential) -> Self {
        let address = fixture.server.address();
        let stream = connect(address, &fixture.pki, Some(agent), b"h2").await;
        let mut raw = Self {
            stream: stream.unwrap(),
            received: Vec::new(),
        };
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &[]));
        assert!(raw.send(&hello).await);
        raw
    }

    /// Whether it could be sent.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Reads until it has ended.
    async fn over(&mut self) {
        while let Ok(1..) = self.stream.read_buf(&mut self.received).await {}
    }

    /// Reads to the end; the code of the GOAWAY if there was one.
    async fn end(mut self) -> Option<[u8; 4]> {
        tokio::time::timeout(SOON, self.over())
            .await
            .expect("it ends");
        goaway(&self.received)
    }
}

fn goaway(mut frames: &[u8]) -> Option<[u8; 4]> {
    while let Some((head, rest)) = frames.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (payload, rest) = rest.split_at_checked(usize::try_from(length).unwrap())?;
        if head[3] == GOAWAY {
            return payload[4..8].try_into().ok();
        }
        frames = rest;
    }
    None
}

/// What the log says of the flood.
async fn recorded(fixture: &Fixture, agent: &Credential) {
    let record = fixture.find(0, |record| record["rule"] == "flood").await;
    assert_eq!(record["decision"], "deny", "{record}");
    assert_eq!(record["agent"]["uri"], agent.id().to_string(), "{record}");
}

#[tokio::test]
async fn streams_that_are_reset_once_they_were_accepted_end_the_connection() {
    let mut fixture = Fixture::with("limits = { h2_max_resets = 12 }").await;
    let flooder = fixture.agent(&Wish::default());
    let other = fixture.agent(&Wish {
        name: "other",
        ..Wish::default()
    });
    let mut answered = fixture.http2(&other).await;
    assert_eq!(answered.get("/v1/empty").await.status, 204);
    let mut raw = Raw::new(&fixture, &flooder).await;
    let held = fixture.upstream.held.clone();
    let mut opened = 0;
    // Each is seen by the upstream before it is reset: not even the library could know.
    for stream in (1..).step_by(2) {
        let holds = held.notified();
        if !raw.send(&request(stream, "/v1/held")).await {
            break;
        }
        tokio::select! {
            () = holds => {}
            () = raw.over() => break,
            () = tokio::time::sleep(SOON) => panic!("neither seen nor refused"),
        }
        opened += 1;
        assert!(opened <= 13, "more than the budget reached the upstream");
        if !raw.send(&reset(stream)).await {
            break;
        }
        // The last ones are given time to be noticed. Not each: all of them have to come within the budget's window.
        if opened >= 12 {
            assert_eq!(answered.get("/v1/empty").await.status, 204);
        }
    }
    assert_eq!(
        opened, 13,
        "as many as may be, and the one that was too many"
    );
    raw.end().await;
    recorded(&fixture, &flooder).await;
    let ended = |record: &serde_json::Value| record["result"]["ended"] == "flood";
    fixture.find(0, ended).await;
    assert_eq!(answered.get("/v1/empty").await.status, 204);
    assert_eq!(
        fixture.http2(&flooder).await.get("/v1/empty").await.status,
        204
    );
}

#[tokio::test]
async fn who_takes_answers_may_reset_as_many() {
    let mut fixture = Fixture::with("limits = { h2_max_resets = 2 }").await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http2(&agent).await;
    for _ in 0..6 {
        assert_eq!(client.get("/v1/empty").await.status, 204);
        let holds = fixture.upstream.held.notified();
        let mut sender = client.sender.clone();
        let request = http::Request::get("https://localhost/v1/held");
        let held = sender.send_request(request.body(http_body_util::Full::default()).unwrap());
        tokio::select! {
            _ = held => panic!("it is held"),
            () = holds => {}
        }
    }
    assert_eq!(client.get("/v1/empty").await.status, 204);
}

#[tokio::test]
async fn a_client_that_leaves_with_all_its_streams_open_is_no_flood() {
    let mut fixture = Fixture::with("limits = { h2_max_resets = 2 }").await;
    let agent = fixture.agent(&Wish::default());
    let mut raw = Raw::new(&fixture, &agent).await;
    for stream in [1, 3, 5, 7, 9] {
        let holds = fixture.upstream.held.notified();
        assert!(raw.send(&request(stream, "/v1/held")).await);
        holds.await;
    }
    let mut after = fixture.log.durable();
    drop(raw);
    for _ in 0..5 {
        let gone = |record: &serde_json::Value| record["result"]["ended"] == "client-gone";
        after = 1 + fixture.find(after, gone).await["seq"].as_u64().unwrap();
    }
    for index in 0..fixture.log.durable() {
        assert_ne!(fixture.record(index)["rule"], "flood");
    }
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let mut fixture = Fixture::start().await;
    let flooder = fixture.agent(&Wish::default());
    let mut answered = fixture.http2(&flooder).await;
    let mut raw = Raw::new(&fixture, &flooder).await;
    let mut flood = Vec::new();
    for stream in (1..20_000).step_by(2) {
        flood.extend(request(stream, "/v1/held"));
        flood.extend(reset(stream));
    }
    // The end may come while it is still being sent.
    let _sent = raw.send(&flood).await;
    assert_eq!(answered.get("/v1/empty").await.status, 204);
    raw.end().await;
    recorded(&fixture, &flooder).await;
    let seen = fixture.upstream.seen();
    let held = seen.iter().filter(|seen| seen.path == "/v1/held").count();
    assert!(held < 300, "{held} reached the upstream");
}

#[tokio::test]
async fn a_head_without_end_ends_the_connection() {
    let mut fixture = Fixture::start().await;
    let flooder = fixture.agent(&Wish::default());
    let mut answered = fixture.http2(&flooder).await;
    for piece in [vec![], vec![FIELD; 40], vec![FIELD; 16 << 10]] {
        let mut raw = Raw::new(&fixture, &flooder).await;
        assert!(raw.send(&frame(HEADERS, 1, 1, &head("/v1/empty"))).await);
        let mut sent = 0_usize;
        let continuation = frame(CONTINUATION, 0, 1, &piece);
        while sent < 100_000 && raw.send(&continuation).await {
            sent += 1;
            if sent.is_multiple_of(64) {
                assert_eq!(answered.get("/v1/empty").await.status, 204);
            }
        }
        // What is on the way when it ends is sent, too.
        assert!(sent < 100_000, "a head of {sent} frames");
        let told = raw.end().await;
        assert!(
            told.is_none_or(|code| code == ENHANCE_YOUR_CALM),
            "{told:?}"
        );
        assert_eq!(answered.get("/v1/empty").await.status, 204);
    }
    recorded(&fixture, &flooder).await;
}
