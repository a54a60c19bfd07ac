//! The loopback forwarder: an HTTP endpoint on this machine that stands for the enforcer's.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use crate::door::{Closed, Door};
use crate::enforcer::{Answer, AskError, Content, Enforcer, Question, boxed};
use crate::events::Events;
use crate::link::BoxError;
use crate::problem;

/// The body of an answer to a client.
type Outgoing = UnsyncBoxBody<Bytes, BoxError>;

/// Serves clients of this machine.
#[derive(Debug)]
pub(crate) struct Loopback {
    enforcer: Arc<Enforcer>,
    door: Door,
    slots: Arc<Semaphore>,
}

/// Whether an address is one that only this machine reaches.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    }
}

impl Loopback {
    /// Forwards to `enforcer` whatever `door` lets in.
    pub(crate) fn new(enforcer: Arc<Enforcer>, door: Door) -> Self {
        let slots = Arc::new(Semaphore::new(enforcer.limits.concurrent));
        Self {
            enforcer,
            door,
            slots,
        }
    }

    /// Accepts for ever.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener) -> std::io::Result<()> {
        loop {
            let (stream, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most of all: others end, and there is room again.
                    tracing::warn!(%error, "a client could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            stream.set_nodelay(true)?;
            tokio::spawn(Arc::clone(&self).serve(stream));
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(move |request| {
            let this = Arc::clone(&self);
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a client's connection ended");
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Outgoing> {
        if let Err(closed) = self.door.admit(request.uri(), request.headers()) {
            let Closed {
                status,
                kind,
                detail,
            } = closed;
            tracing::warn!(%status, kind, "a client was not let in");
            return refuse(status, kind, detail);
        }
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            let detail = "too many requests at one time; `--max-concurrent` allows more";
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "concurrency", detail);
        };
        let most = self.enforcer.limits.message;
        if usize::try_from(request.body().size_hint().lower()).is_ok_and(|length| length > most) {
            let detail = "the message is too long; `--max-message` allows more";
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "too-long", detail);
        }
        match self.enforcer.ask(self.question(request)).await {
            Ok(answer) => pass(answer, slot),
            Err(error) => {
                tracing::warn!(%error, "a request was not answered");
                let (status, kind) = error.told();
                refuse(status, kind, &error.to_string())
            }
        }
    }

    /// The request as it goes to the enforcer: end-to-end fields only, nothing of the door.
    fn question(&self, request: Request<Incoming>) -> Question {
        let (head, body) = request.into_parts();
        let mut headers = head.headers;
        strip_hops(&mut headers);
        let secret = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| self.door.holds_secret(value));
        if secret {
            headers.remove(header::AUTHORIZATION);
        }
        // The origin was judged here, and is nothing to the enforcer; encoded streams can't be verified.
        for name in [
            header::HOST,
            header::ORIGIN,
            header::REFERER,
            header::EXPECT,
        ] {
            headers.remove(name);
        }
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        let most = self.enforcer.limits.message;
        Question {
            method: head.method,
            path: self.enforcer.url.path.clone(),
            headers,
            body: boxed(Limited::new(body, most)),
        }
    }
}

/// An answer as it goes to the client.
fn pass(answer: Answer, slot: tokio::sync::OwnedSemaphorePermit) -> Response<Outgoing> {
    let Answer {
        status,
        mut headers,
        content,
    } = answer;
    strip_hops(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    let body = match content {
        Content::Whole(body) => Full::new(body)
            .map_err(|never| match never {})
            .boxed_unsync(),
        Content::Events(events) => flow(*events, slot),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Passes events on one by one, each in a piece of its own; a client that goes away ends the stream, and
/// what does not verify ends it without a clean end.
fn flow(mut events: Events, slot: tokio::sync::OwnedSemaphorePermit) -> Outgoing {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, AskError>>(1);
    tokio::spawn(async move {
        let _slot = slot;
        loop {
            let next = tokio::select! {
                next = events.next() => next,
                () = sender.closed() => return,
            };
            let piece = match next {
                Ok(None) => return,
                Ok(Some(event)) => {
                    let mut text = String::new();
                    event.write(&mut text);
                    Ok(Bytes::from(text))
                }
                Err(error) => {
                    tracing::warn!(%error, "a stream was cut");
                    Err(error)
                }
            };
            let last = piece.is_err();
            if sender.send(piece).await.is_err() || last {
                return;
            }
        }
    });
    Pieces(receiver).boxed_unsync()
}

/// A body out of a channel.
struct Pieces(mpsc::Receiver<Result<Bytes, AskError>>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| piece.map(Frame::data).map_err(Into::into)))
    }
}

fn refuse(status: StatusCode, kind: &str, detail: &str) -> Response<Outgoing> {
    let text = problem::write(status, kind, detail);
    let body = Full::new(Bytes::from(text));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let problem = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, problem);
    response
}

/// Takes away what is for one connection only (RFC 9110 section 7.6.1).
fn strip_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOPS) {
        headers.remove(name);
    }
}

const HOPS: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const BUFFER: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_listened_on() {
        for (address, loopback) in [
            ("127.0.0.1:7900", true),
            ("127.8.9.1:0", true),
            ("[::1]:7900", true),
            ("0.0.0.0:7900", false),
            ("[::]:7900", false),
            ("192.168.1.2:7900", false),
        ] {
            assert_eq!(is_loopback(address.parse().unwrap()), loopback, "{address}");
        }
    }

    #[test]
    fn fields_of_one_connection_are_dropped_with_those_it_names() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "1"),
            ("mcp-method", "ping"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip_hops(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["mcp-method"]);
    }
}
