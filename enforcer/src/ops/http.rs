//! Plain HTTP/1.1 for operators: GET and HEAD, few connections, each for a short time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Ops, health, metrics};

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, ops: Ops) -> Infallible {
    let (ops, slots) = (Arc::new(ops), Arc::new(Semaphore::new(MOST)));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let slot = Arc::clone(&slots).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let ops = Arc::clone(&ops);
                connections.spawn(async move {
                    connection(stream, ops).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection for operators could be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, ops: Arc<Ops>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request, &ops);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIME, serving).await {
        tracing::debug!(%error, "a connection for operators ended");
    }
}

fn answer(request: &Request<Incoming>, ops: &Ops) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let code = StatusCode::METHOD_NOT_ALLOWED;
        let mut response = response(code, TEXT, "only GET and HEAD\n".to_owned());
        let headers = response.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            response(StatusCode::OK, kind, metrics::render(ops))
        }
        "/healthz" => {
            let (code, text) = health::healthz(ops);
            response(code, JSON, text)
        }
        "/readyz" => {
            let (code, text) = health::readyz(ops);
            response(code, JSON, text)
        }
        _ => response(
            StatusCode::NOT_FOUND,
            TEXT,
            "there is nothing here\n".to_owned(),
        ),
    }
}

fn response(code: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Connections at a time; more wait in the system's queue.
const MOST: usize = 32;
const MAX_HEAD: usize = 8 << 10;
const HEAD_TIME: Duration = Duration::from_secs(5);
const CONNECTION_TIME: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
