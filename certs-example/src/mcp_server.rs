//! The sample MCP server: the tools of a support desk, over Streamable HTTP.
//!
//! It speaks 2026-07-28, in which every request stands alone, and the revisions that begin with `initialize`, for
//! clients that know nothing newer. It remembers nothing of a client, so it gives none of them a session id.
//!
//! It knows nothing of certificates, and its maker publishes releases: the second has another tool, and in the third
//! a tool describes itself differently, and does more than it did.

mod desk;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use self::desk::{called, tools};
use crate::Error;

/// A bound server.
pub(crate) struct McpServer {
    listener: TcpListener,
    address: SocketAddr,
    maker: Maker,
}

/// Who decides what the server offers, while it runs.
#[derive(Clone)]
pub(crate) struct Maker(Arc<AtomicU8>);

impl Maker {
    /// From now on it is this release.
    pub(crate) fn publish(&self, release: u8) {
        self.0.store(release, Ordering::SeqCst);
    }
}

impl McpServer {
    /// Binds the address; port 0 takes a free one.
    pub(crate) async fn bind(listen: SocketAddr, release: u8) -> Result<Self, Error> {
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            format!("cannot listen on {listen}: {error}; choose another with --listen")
        })?;
        let address = listener.local_addr()?;
        let maker = Maker(Arc::new(AtomicU8::new(release)));
        Ok(Self {
            listener,
            address,
            maker,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its maker.
    pub(crate) fn maker(&self) -> Maker {
        self.maker.clone()
    }

    /// Serves for as long as it is polled.
    pub(crate) async fn serve(self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(converse(stream, self.maker.clone()))),
                Err(error) => {
                    eprintln!("sample MCP server: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn converse(stream: TcpStream, maker: Maker) {
    let answer = service_fn(|request| {
        let release = maker.0.load(Ordering::SeqCst);
        async move { Ok::<_, Infallible>(answer(request, release).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), answer);
    // A client that went away is no news here.
    let _ = served.await;
}

async fn answer(request: Request<Incoming>, release: u8) -> Response<Full<Bytes>> {
    if request.uri().path() != "/mcp" {
        return empty(StatusCode::NOT_FOUND);
    }
    if request.method() != Method::POST {
        return empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MESSAGE_MAX).collect().await;
    let message = body
        .ok()
        .and_then(|body| serde_json::from_slice::<Value>(&body.to_bytes()).ok());
    match message {
        Some(message) => said(&message, &head.headers, release),
        None => {
            let (status, error) = refused(-32700, "no JSON of a size that is read here");
            json_answer(status, &json!({ "jsonrpc": "2.0", "error": error }))
        }
    }
}

/// What is said to one message.
fn said(message: &Value, head: &HeaderMap, release: u8) -> Response<Full<Bytes>> {
    let Some(id) = message.get("id") else {
        return empty(StatusCode::ACCEPTED);
    };
    let (status, member, value) = match result(message, head, release) {
        Ok(result) => (StatusCode::OK, "result", result),
        Err((status, error)) => (status, "error", error),
    };
    json_answer(
        status,
        &json!({ "jsonrpc": "2.0", "id": id, member: value }),
    )
}

fn result(message: &Value, head: &HeaderMap, release: u8) -> Result<Value, Refusal> {
    let method = text(message, "/method");
    let era = era(message, method, head)?;
    let capabilities = json!({ "tools": {} });
    let info = json!({ "name": "support-desk", "version": format!("{release}.0") });
    let mut result = match (era, method) {
        (Era::Stateless, "server/discover") => json!({
            "supportedVersions": [REVISION], "capabilities": capabilities,
            "_meta": { "io.modelcontextprotocol/serverInfo": info },
        }),
        (Era::Sessions, "initialize") => json!({
            "protocolVersion": settled(text(message, "/params/protocolVersion")),
            "capabilities": capabilities, "serverInfo": info,
        }),
        (Era::Sessions, "ping") => json!({}),
        (_, "tools/list") => json!({ "tools": tools(release) }),
        (_, "tools/call") => {
            let text = called(text(message, "/params/name"), release);
            let text = text.ok_or_else(|| (StatusCode::OK, error(-32602, "no such tool")))?;
            json!({ "content": [{ "type": "text", "text": text }], "isError": false })
        }
        (Era::Stateless, _) => {
            return Err((StatusCode::NOT_FOUND, error(-32601, "no such method")));
        }
        (Era::Sessions, _) => return Err((StatusCode::OK, error(-32601, "no such method"))),
    };
    if era == Era::Stateless
        && let Some(members) = result.as_object_mut()
    {
        members.insert("resultType".to_owned(), json!("complete"));
        if method != "tools/call" {
            members.insert("ttlMs".to_owned(), json!(0));
            members.insert("cacheScope".to_owned(), json!("public"));
        }
    }
    Ok(result)
}

/// How a client speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Era {
    /// Each request says in `_meta` what revision it is of, and its head says what it asks.
    Stateless,
    /// The conversation begins with `initialize`.
    Sessions,
}

fn era(message: &Value, method: &str, head: &HeaderMap) -> Result<Era, Refusal> {
    let told = |name: &str| {
        head.get(name)
            .map_or("", |told| told.to_str().unwrap_or("?"))
    };
    match text(
        message,
        "/params/_meta/io.modelcontextprotocol~1protocolVersion",
    ) {
        REVISION if told("mcp-method") == method => Ok(Era::Stateless),
        REVISION => Err(refused(
            -32020,
            "Mcp-Method and the body do not say the same",
        )),
        "" => match told("mcp-protocol-version") {
            // Before the revision is settled there is none to tell.
            "" => Ok(Era::Sessions),
            version if SESSIONS.contains(&version) => Ok(Era::Sessions),
            REVISION => Err(refused(
                -32602,
                "`_meta` does not say which revision this is",
            )),
            version => Err(unsupported(version)),
        },
        version => Err(unsupported(version)),
    }
}

/// The revision that a client asks for when it is spoken here, else the newest of its kind.
fn settled(asked: &str) -> &'static str {
    let known = SESSIONS.into_iter().find(|known| *known == asked);
    known.unwrap_or(SESSIONS[0])
}

fn text<'a>(message: &'a Value, pointer: &str) -> &'a str {
    let text = message.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_default()
}

/// The status and the error of an answer that has no result.
type Refusal = (StatusCode, Value);

fn refused(code: i32, message: &str) -> Refusal {
    (StatusCode::BAD_REQUEST, error(code, message))
}

fn unsupported(version: &str) -> Refusal {
    let data = json!({ "supported": [REVISION], "requested": version });
    let error = json!({ "code": -32022, "message": "Unsupported protocol version", "data": data });
    (StatusCode::BAD_REQUEST, error)
}

fn error(code: i32, message: &str) -> Value {
    json!({ "code": code, "message": message })
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn json_answer(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The newest revision of MCP, which the agent of the example speaks.
pub(crate) const REVISION: &str = "2026-07-28";
/// Those that begin with `initialize`, the newest first.
const SESSIONS: [&str; 2] = ["2025-11-25", "2025-06-18"];
const MESSAGE_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(message: &Value, head: &[(&'static str, &'static str)]) -> (u16, Value) {
        let head = head.iter().map(|(name, value)| {
            let (name, value) = (name.parse().unwrap(), HeaderValue::from_static(value));
            (name, value)
        });
        let (head, body) = said(message, &head.collect(), 1).into_parts();
        let body = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(body.collect());
        let body = body.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        (head.status.as_u16(), body)
    }

    fn asked(method: &str, params: Value) -> Value {
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
    }

    #[test]
    fn a_request_that_stands_alone_says_what_it_is() {
        let meta = json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": REVISION } });
        let of = |method: &str, told: &'static str| {
            answered(&asked(method, meta.clone()), &[("mcp-method", told)])
        };
        let (status, list) = of("tools/list", "tools/list");
        assert_eq!((status, &list["result"]["ttlMs"]), (200, &json!(0)));
        let (status, differs) = of("tools/list", "tools/call");
        assert_eq!((status, &differs["error"]["code"]), (400, &json!(-32020)));
        assert_eq!(answered(&asked("tools/list", meta.clone()), &[]).0, 400);
        for gone in ["ping", "initialize"] {
            assert_eq!(of(gone, gone).0, 404, "{gone}");
        }
        let other = json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2027-01-01" } });
        let (status, other) = answered(&asked("tools/list", other), &[]);
        assert_eq!((status, &other["error"]["code"]), (400, &json!(-32022)));
    }

    #[test]
    fn a_client_that_begins_with_initialize_is_served_too() {
        for (wanted, given) in [
            ("2025-11-25", "2025-11-25"),
            ("2025-06-18", "2025-06-18"),
            ("2024-11-05", "2025-11-25"),
        ] {
            let (status, said) = answered(
                &asked("initialize", json!({ "protocolVersion": wanted })),
                &[],
            );
            assert_eq!(
                (status, &said["result"]["protocolVersion"]),
                (200, &json!(given))
            );
        }
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(answered(&ready, &[]).0, 202);
        let then = |method: &str, params| {
            answered(
                &asked(method, params),
                &[("mcp-protocol-version", "2025-11-25")],
            )
        };
        assert_eq!(then("ping", json!({})).1["result"], json!({}));
        let (status, list) = then("tools/list", json!({}));
        assert_eq!(
            (status, &list["result"]),
            (200, &json!({ "tools": tools(1) }))
        );
        let (_, call) = then("tools/call", json!({ "name": "close_ticket" }));
        assert_eq!(call["result"]["content"][0]["text"], "ticket 7 is closed");
        let (status, unknown) = then("server/discover", json!({}));
        assert_eq!((status, &unknown["error"]["code"]), (200, &json!(-32601)));
        for (version, code) in [("2024-11-05", -32022), (REVISION, -32602)] {
            let list = asked("tools/list", json!({}));
            let (status, said) = answered(&list, &[("mcp-protocol-version", version)]);
            assert_eq!((status, &said["error"]["code"]), (400, &json!(code)));
        }
    }
}
