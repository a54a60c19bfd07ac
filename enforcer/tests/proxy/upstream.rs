//! An upstream that does what its path says, and remembers what it was sent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::{Notify, mpsc};

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Connections that came.
    pub(crate) accepted: Arc<AtomicUsize>,
    /// Tells every held answer to go on.
    pub(crate) go: Arc<Notify>,
    /// Says that an answer is being held.
    pub(crate) held: Arc<Notify>,
    /// Says that nobody reads a stream any longer.
    pub(crate) gone: Arc<Notify>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            accepted: Arc::default(),
            go: Arc::default(),
            held: Arc::default(),
            gone: Arc::default(),
        };
        let shared = upstream.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                let shared = shared.clone();
                let service = service_fn(move |request| shared.clone().answer(request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        upstream
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn saw(&self, parts: request::Parts, body: Bytes) {
        self.seen.lock().unwrap().push(Seen {
            method: parts.method,
            path: parts.uri.to_string(),
            headers: parts.headers,
            body,
        });
    }

    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, Infallible>>, std::io::Error> {
        let (parts, mut body) = request.into_parts();
        if parts.uri.path() == "/v1/upload" {
            return self.upload(parts, &mut body).await;
        }
        let body = body
            .collect()
            .await
            .map_err(std::io::Error::other)?
            .to_bytes();
        self.saw(parts.clone(), body.clone());
        let answer = Response::builder();
        Ok(match parts.uri.path() {
            "/v1/stream" => answer
                .header("content-type", "text/event-stream")
                .body(self.events().boxed())
                .unwrap(),
            "/v1/big" => answer.body(full(vec![b'b'; 3 << 20])).unwrap(),
            "/v1/long" => answer.body(full(vec![b'l'; LONG])).unwrap(),
            "/v1/empty" => answer
                .status(StatusCode::NO_CONTENT)
                .body(full(""))
                .unwrap(),
            "/v1/held" => {
                self.held.notify_one();
                self.go.notified().await;
                answer.body(full("held")).unwrap()
            }
            "/v1/closing" => answer
                .header("connection", "close")
                .body(full("bye"))
                .unwrap(),
            "/v1/broken" => return Err(std::io::Error::other("broken")),
            "/v1/liar" => answer
                .header("signature", "enf=:AAAA:")
                .header("agent-audit", "log=\"me\"")
                .header("content-digest", "sha-256=:AAAA:")
                .header("x-other", "kept")
                .body(full("lies"))
                .unwrap(),
            _ if parts.method == Method::POST => answer.body(full(body)).unwrap(),
            path => answer
                .header("content-type", "application/json")
                .body(full(format!("{{\"path\":\"{path}\"}}")))
                .unwrap(),
        })
    }

    /// Says of each piece that it came, and answers with their sum, or says that it was left alone.
    async fn upload(
        self,
        parts: request::Parts,
        body: &mut Incoming,
    ) -> Result<Response<BoxBody<Bytes, Infallible>>, std::io::Error> {
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.inspect_err(|_| self.gone.notify_one());
            let data = frame.map_err(std::io::Error::other)?.into_data();
            whole.extend(data.unwrap_or_default());
            self.held.notify_one();
        }
        let length = whole.len().to_string();
        self.saw(parts, whole.into());
        Ok(Response::new(full(length)))
    }

    /// One event at once, one at every `go`, for ever.
    fn events(&self) -> Events {
        let (sender, receiver) = mpsc::channel(1);
        let (go, held) = (Arc::clone(&self.go), Arc::clone(&self.held));
        let (gone, watched) = (Arc::clone(&self.gone), sender.clone());
        tokio::spawn(async move {
            watched.closed().await;
            gone.notify_one();
        });
        tokio::spawn(async move {
            for number in 0.. {
                let event = Bytes::from(format!("data: {number}\n\n"));
                if sender.send(Some(event)).await.is_err() {
                    break;
                }
                held.notify_one();
                tokio::select! {
                    () = go.notified() => {}
                    () = sender.closed() => break,
                }
                if number == LAST_EVENT {
                    let _end = sender.send(None).await;
                    break;
                }
            }
        });
        Events { receiver }
    }
}

/// The length of `/v1/long`: several HTTP/2 frames, and no stream.
pub(crate) const LONG: usize = 100 << 10;

/// After this many, and one more `go`, the stream ends by itself.
pub(crate) const LAST_EVENT: u32 = 2;

struct Events {
    receiver: mpsc::Receiver<Option<Bytes>>,
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let event = std::task::ready!(self.receiver.poll_recv(cx)).flatten();
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }
}

fn full(body: impl Into<Bytes>) -> BoxBody<Bytes, Infallible> {
    Full::new(body.into()).boxed()
}
