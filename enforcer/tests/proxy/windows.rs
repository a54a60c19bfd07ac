//! HTTP/2 clients that leave the window of a stream shut: the stream is given up, and only it.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{Request, StatusCode};

use crate::answers::audit_index;
use crate::client::{Answer, connect};
use crate::fixture::Fixture;
use crate::pki::{Credential, Wish};
use crate::upstream::LONG;

const IMPATIENT: &str = "limits = { idle_timeout = \"1s\" }";

/// Far beyond the limit in force, far below every other that could end a stream.
const SOON: Duration = Duration::from_secs(10);

/// A client that opens no window by itself.
struct Client(SendRequest<Bytes>);

/// An answer whose body is still to come.
struct Open {
    status: StatusCode,
    index: u64,
    body: RecvStream,
}

impl Client {
    async fn new(fixture: &Fixture, agent: &Credential, window: u32) -> Self {
        let address = fixture.server.address();
        let stream = connect(address, &fixture.pki, Some(agent), b"h2").await;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(window)
            .handshake(stream.unwrap())
            .await
            .unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn open(&mut self, path: &str) -> Open {
        let request = Request::get(format!("https://localhost{path}"));
        let request = request.body(()).unwrap();
        let (response, _) = self.0.send_request(request, true).unwrap();
        let (parts, body) = response.await.unwrap().into_parts();
        let answer = Answer {
            status: parts.status,
            headers: parts.headers,
            body: Bytes::new(),
        };
        Open {
            status: answer.status,
            index: audit_index(&answer),
            body,
        }
    }
}

impl Open {
    /// Reads what comes, without ever opening the window, until the stream is reset.
    async fn reset(&mut self) -> h2::Error {
        let reset = async {
            loop {
                match self.body.data().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error,
                    None => panic!("what was not taken never ends cleanly"),
                }
            }
        };
        tokio::time::timeout(SOON, reset).await.expect("a reset")
    }
}

async fn outcome(fixture: &Fixture, decision: u64) -> serde_json::Value {
    fixture
        .find(decision, |record| record["decision_index"] == decision)
        .await
}

#[tokio::test]
async fn a_stream_with_a_shut_window_is_reset_and_recorded() {
    let mut fixture = Fixture::with(IMPATIENT).await;
    let agent = fixture.agent(&Wish::default());
    // Shut from the beginning, and too small for the first event.
    for window in [0, 5] {
        let mut client = Client::new(&fixture, &agent, window).await;
        let mut stream = client.open("/v1/stream").await;
        let error = stream.reset().await;
        assert_eq!(error.reason(), Some(Reason::CANCEL), "{error}");
        // Before it has been idle for as long.
        assert_eq!(
            client.open("/v1/empty").await.status,
            204,
            "the connection goes on"
        );
        let outcome = outcome(&fixture, stream.index).await;
        assert_eq!(outcome["result"]["ended"], "timed-out", "{outcome}");
        let gone = fixture.upstream.gone.notified();
        tokio::time::timeout(SOON, gone)
            .await
            .expect("the upstream's connection is given up");
    }
}

#[tokio::test]
async fn so_is_a_stream_whose_window_ran_out() {
    let mut fixture = Fixture::with(IMPATIENT).await;
    let agent = fixture.agent(&Wish::default());
    let mut client = Client::new(&fixture, &agent, 50_000).await;
    let mut stream = client.open("/v1/big").await;
    stream.reset().await;
    let outcome = outcome(&fixture, stream.index).await;
    assert_eq!(outcome["result"]["ended"], "timed-out", "{outcome}");
    let length = outcome["result"]["length"].as_u64().unwrap();
    assert!((50_000..3 << 20).contains(&length), "{outcome}");
}

#[tokio::test]
async fn a_stream_is_complete_when_its_last_byte_has_left() {
    let mut fixture = Fixture::with(IMPATIENT).await;
    let agent = fixture.agent(&Wish::default());
    // Room for all events but the end of the last one.
    let events = 9 * (1 + crate::upstream::LAST_EVENT);
    let mut client = Client::new(&fixture, &agent, events - 1).await;
    let mut stream = client.open("/v1/stream").await;
    for _ in 0..=crate::upstream::LAST_EVENT {
        stream.body.data().await.unwrap().unwrap();
        fixture.upstream.go.notify_one();
    }
    stream.reset().await;
    let outcome = outcome(&fixture, stream.index).await;
    assert_eq!(outcome["result"]["ended"], "timed-out", "{outcome}");
}

#[tokio::test]
async fn an_answer_that_is_at_hand_is_given_up_as_well() {
    let mut fixture = Fixture::with(IMPATIENT).await;
    let agent = fixture.agent(&Wish::default());
    for (window, path) in [(0, "/v1/accounts/7"), (0, "/v1/long"), (20_000, "/v1/long")] {
        let mut client = Client::new(&fixture, &agent, window).await;
        client.open(path).await.reset().await;
        assert_eq!(client.open("/v1/empty").await.status, 204);
    }
}

/// The library is done with a short answer as soon as its window is open at all: what it keeps of it ends
/// with the connection, whatever else goes on there.
#[tokio::test]
async fn what_is_left_of_a_short_answer_ends_with_its_connection() {
    let mut fixture = Fixture::with(IMPATIENT).await;
    let agent = fixture.agent(&Wish::default());
    let mut client = Client::new(&fixture, &agent, 5).await;
    let request = Request::get("https://localhost/v1/held").body(()).unwrap();
    let (held, _) = client.0.send_request(request, true).unwrap();
    fixture.upstream.held.notified().await;
    client.open("/v1/accounts/7").await.reset().await;
    assert!(held.await.is_err());
    let cut = fixture
        .find(1, |record| {
            record["call"]["name"] == "http:payments:/v1/held"
        })
        .await;
    assert_eq!(cut["result"]["ended"], "timed-out", "{cut}");
}

#[tokio::test]
async fn a_slow_reader_is_served_to_the_end() {
    let mut fixture = Fixture::with("limits = { idle_timeout = \"2s\" }").await;
    let agent = fixture.agent(&Wish::default());
    let mut client = Client::new(&fixture, &agent, 16 << 10).await;
    for (path, length) in [("/v1/long", LONG), ("/v1/big", 3 << 20)] {
        let mut body = client.open(path).await.body;
        let (mut read, mut pauses) = (0, 0);
        while let Some(data) = body.data().await {
            let length = data.unwrap().len();
            read += length;
            if pauses < 6 {
                // Less than the limit each, more than it together.
                tokio::time::sleep(Duration::from_millis(350)).await;
                pauses += 1;
            }
            body.flow_control().release_capacity(length).unwrap();
        }
        assert_eq!((read, pauses), (length, 6));
    }
}
