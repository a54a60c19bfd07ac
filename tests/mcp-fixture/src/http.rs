//! Streamable HTTP: every request is read whole, noted, and given to whoever answers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use ::http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::{TcpListener, TcpStream};

use crate::arguments::{Misbehaviour, Server};
use crate::business::Business;
use crate::calls::Calls;
use crate::misbehaviour;
use crate::suite::Suite;

/// A body that may break off.
pub(crate) type Answer = Response<BoxBody<Bytes, std::io::Error>>;
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Answerer = Arc<dyn Fn(Request<Full<Bytes>>) -> Answering + Send + Sync>;

/// Serves until it is killed.
pub(crate) async fn serve(address: SocketAddr, server: &Server, calls: Arc<Calls>) {
    let listener = TcpListener::bind(address)
        .await
        .unwrap_or_else(|error| panic!("{address}: {error}"));
    let address = listener.local_addr().expect("a bound address");
    let answerer = answerer(server, address);
    println!("{address}");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        tokio::spawn(converse(stream, answerer.clone(), calls.clone()));
    }
}

async fn converse(stream: TcpStream, answerer: Answerer, calls: Arc<Calls>) {
    // A stream's events are small and must not wait for each other.
    stream.set_nodelay(true).expect("a socket");
    let service = service_fn(move |request: Request<Incoming>| {
        let (answerer, calls) = (answerer.clone(), calls.clone());
        async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await else {
                return Ok::<_, Infallible>(plain(StatusCode::BAD_REQUEST));
            };
            let body = body.to_bytes();
            calls.http(&head, &body);
            Ok(answerer(Request::from_parts(head, Full::new(body))).await)
        }
    });
    // A caller that breaks off ends its own connection, nothing else.
    let _broken = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answerer(server: &Server, address: SocketAddr) -> Answerer {
    match server {
        Server::Suite => {
            let suite = Suite::default();
            library(suite, address, None)
        }
        Server::Business | Server::Misbehaving(Misbehaviour::ChangedTool) => {
            let business = Business::default();
            library(business.clone(), address, Some(business))
        }
        Server::Misbehaving(how) => {
            let how = how.clone();
            Arc::new(move |request| Box::pin(misbehaviour::over_http(how.clone(), request)))
        }
    }
}

/// Answers as the library does, and changes the bank when it is told to.
fn library<H>(handler: H, address: SocketAddr, bank: Option<Business>) -> Answerer
where
    H: ServerHandler + Clone,
{
    let host = address.ip().to_string();
    let hosts = [host.as_str(), "127.0.0.1", "localhost", "[::1]"];
    let config = StreamableHttpServerConfig::default()
        .with_allowed_hosts(hosts)
        .with_allowed_origins(hosts.map(|host| format!("http://{host}:*")));
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(handler.clone()), sessions, config);
    Arc::new(move |request| {
        let (service, bank) = (service.clone(), bank.clone());
        Box::pin(async move {
            match (request.uri().path(), bank) {
                ("/mcp", _) => {
                    let answer = service.handle(request).await;
                    answer.map(|body| body.map_err(|never| match never {}).boxed())
                }
                ("/change", Some(bank)) => {
                    bank.change().await;
                    plain(StatusCode::NO_CONTENT)
                }
                _ => plain(StatusCode::NOT_FOUND),
            }
        })
    })
}

/// An answer without a body.
pub(crate) fn plain(status: StatusCode) -> Answer {
    full(status, "text/plain", String::new())
}

/// An answer with a body whose length is known.
pub(crate) fn full(status: StatusCode, kind: &str, body: String) -> Answer {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
    Response::builder()
        .status(status)
        .header("content-type", kind)
        .body(body.boxed())
        .expect("a well-formed answer")
}
