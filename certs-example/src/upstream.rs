//! The sample upstream: a small HTTP service that knows nothing of certificates.
//!
//! `GET /v1/accounts/{id}` answers with an account and what the enforcer said about the caller, `POST /v1/payments`
//! takes a payment, `POST /v1/echo` gives the body back, and `GET /v1/stream` sends an event every 100 ms without end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::Error;

type Content = UnsyncBoxBody<Bytes, Infallible>;

/// A bound upstream.
pub(crate) struct Upstream {
    listener: TcpListener,
    address: SocketAddr,
}

impl Upstream {
    /// Binds the address; port 0 takes a free one.
    pub(crate) async fn bind(listen: SocketAddr) -> Result<Self, Error> {
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            format!("cannot listen on {listen}: {error}; choose another with --listen")
        })?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves for as long as it is polled.
    pub(crate) async fn serve(self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(converse(stream))),
                Err(error) => {
                    eprintln!("sample upstream: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn converse(stream: TcpStream) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    // A caller that went away is no news here.
    let _ = served.await;
}

async fn answer(request: Request<Incoming>) -> Result<Response<Content>, Infallible> {
    let path = request.uri().path().to_owned();
    let account = path
        .strip_prefix("/v1/accounts/")
        .filter(|id| !id.is_empty() && !id.contains('/'));
    Ok(match (request.method(), account, path.as_str()) {
        (&Method::GET | &Method::HEAD, Some(id), _) => account_of(id, request.headers()),
        (&Method::GET, None, "/v1/stream") => stream_of_events(),
        (&Method::POST, None, "/v1/payments") => payment(request).await,
        (&Method::POST, None, "/v1/echo") => echo(request).await,
        _ => json(
            StatusCode::NOT_FOUND,
            &serde_json::json!({ "error": "no such thing" }),
        ),
    })
}

fn account_of(id: &str, headers: &HeaderMap) -> Response<Content> {
    let said = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    };
    let account = serde_json::json!({
        "account": id,
        "balance": "1204.50",
        "currency": "EUR",
        "asked_by": {
            "agent": said("agent-id"),
            "trust": said("agent-trust"),
            "scopes": said("agent-scopes"),
            "owner": said("agent-owner"),
            "request": said("agent-request-id"),
        },
    });
    json(StatusCode::OK, &account)
}

async fn payment(request: Request<Incoming>) -> Response<Content> {
    let Ok(body) = request.into_body().collect().await else {
        return json(
            StatusCode::BAD_REQUEST,
            &serde_json::json!({ "error": "the body broke off" }),
        );
    };
    let Ok(order) = serde_json::from_slice::<serde_json::Value>(&body.to_bytes()) else {
        return json(
            StatusCode::BAD_REQUEST,
            &serde_json::json!({ "error": "not JSON" }),
        );
    };
    let mut response = json(
        StatusCode::CREATED,
        &serde_json::json!({ "payment": 1, "order": order }),
    );
    response
        .headers_mut()
        .insert(LOCATION, HeaderValue::from_static("/v1/payments/1"));
    response
}

async fn echo(request: Request<Incoming>) -> Response<Content> {
    let content_type = request.headers().get(CONTENT_TYPE).cloned();
    let Ok(body) = request.into_body().collect().await else {
        return json(
            StatusCode::BAD_REQUEST,
            &serde_json::json!({ "error": "the body broke off" }),
        );
    };
    let mut response = Response::new(Full::new(body.to_bytes()).boxed_unsync());
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

fn stream_of_events() -> Response<Content> {
    let events = Events {
        number: 0,
        every: tokio::time::interval(Duration::from_millis(100)),
    };
    let mut response = Response::new(events.boxed_unsync());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// Events without end.
struct Events {
    number: u64,
    every: tokio::time::Interval,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.every.poll_tick(context));
        self.number += 1;
        let event = format!("id: {0}\ndata: {{\"event\": {0}}}\n\n", self.number);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(event)))))
    }
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Content> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
