//! The gate in front of the real HTTP/1 library: what it would answer by itself never leaves.

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::LocalSet;

use super::*;

/// An answer that keeps the gate open until it has ended.
struct Answer {
    bytes: Option<bytes::Bytes>,
    _call: Call,
}

impl http_body::Body for Answer {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
        Poll::Ready(
            self.bytes
                .take()
                .map(|bytes| Ok(http_body::Frame::data(bytes))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// Serves `ok` to every request, reading its body when told to; gives the client's end.
fn serve(read_body: bool) -> DuplexStream {
    let (client, server) = tokio::io::duplex(1 << 16);
    let traffic = Traffic::new(Protocol::Http1, Timers::new());
    let gate = Gate::new(server, Rc::clone(&traffic));
    let service = service_fn(move |request: Request<Incoming>| {
        let (call, shape) = traffic.call();
        async move {
            if read_body {
                let _body = request.into_body().collect().await;
            }
            let text = match shape {
                Shape::Plain => "ok",
                Shape::Ambiguous(_) => "ambiguous",
            };
            let body = Answer {
                bytes: Some(text.into()),
                _call: call,
            };
            Ok::<_, Infallible>(Response::new(body))
        }
    });
    tokio::task::spawn_local(async move {
        let _ended = http1::Builder::new()
            .max_buf_size(8192)
            .serve_connection(TokioIo::new(gate), service)
            .await;
    });
    client
}

/// Everything that the server says to `sent` until it closes.
async fn said(sent: &[u8], read_body: bool) -> String {
    LocalSet::new()
        .run_until(async {
            let mut client = serve(read_body);
            // It may have closed before it had everything.
            let _sent = client.write_all(sent).await;
            let mut said = Vec::new();
            client.read_to_end(&mut said).await.unwrap();
            String::from_utf8(said).unwrap()
        })
        .await
}

const GOOD: &str = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST: &str = "GET /good HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn our_answers_leave() {
    let said = said(LAST.as_bytes(), true).await;
    assert!(
        said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\nok"),
        "{said}"
    );
}

#[tokio::test]
async fn answers_of_the_library_do_not() {
    for bad in [
        "nonsense\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nBad Header: x\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n".to_owned(),
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(20_000)
        ),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000)),
    ] {
        assert_eq!(
            said(bad.as_bytes(), true).await,
            "",
            "{}",
            bad.get(..30).unwrap()
        );
    }
}

#[tokio::test]
async fn nor_when_they_follow_one_of_ours() {
    let said = said(format!("{GOOD}nonsense\r\n\r\n").as_bytes(), true).await;
    assert_eq!(said.matches("HTTP/1.1").count(), 1, "{said}");
    assert!(said.ends_with("\r\n\r\nok"), "{said}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let said = said(format!("{GOOD}{GOOD}{LAST}").as_bytes(), true).await;
    assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 3, "{said}");
}

#[tokio::test]
async fn continue_leaves_only_when_the_body_is_wanted() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\
                Connection: close\r\n\r\n";
    let wanted = said(format!("{head}xx").as_bytes(), true).await;
    assert!(
        wanted.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"),
        "{wanted}"
    );
    let refused = said(head.as_bytes(), false).await;
    assert!(refused.starts_with("HTTP/1.1 200 OK"), "{refused}");
}

#[tokio::test]
async fn the_service_learns_of_ambiguous_framing() {
    let twice = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\
                 Connection: close\r\n\r\nx";
    let said = said(twice.as_bytes(), true).await;
    assert!(said.ends_with("ambiguous"), "{said}");
}

#[test]
fn phases_have_their_own_deadlines() {
    let timers = Timers::new();
    let start = timers.now();
    let traffic = Traffic::new(Protocol::Http1, Rc::clone(&timers));
    let seconds = Duration::from_secs;
    let limits = PhaseLimits {
        idle: seconds(60),
        header: seconds(10),
        stall: seconds(30),
    };
    assert_eq!(traffic.deadline(&limits), Some(start + seconds(60)));
    traffic.received(b"GET");
    assert_eq!(traffic.deadline(&limits), Some(start + seconds(10)));
    traffic.received(b" / HTTP/1.1\r\n\r\n");
    let (call, _) = traffic.call();
    assert_eq!(traffic.deadline(&limits), None);
    traffic.wrote(true);
    assert_eq!(traffic.deadline(&limits), Some(start + seconds(30)));
    traffic.wrote(false);
    drop(call);
    assert_eq!(traffic.deadline(&limits), Some(start + seconds(60)));
}
