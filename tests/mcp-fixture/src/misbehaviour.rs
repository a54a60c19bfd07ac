//! Servers that no client should believe, written by hand: the library would not say such things.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::arguments::Misbehaviour;
use crate::business;
use crate::http::{Answer, full, plain};

/// What is said to one message.
enum Reply {
    /// Nothing at all: it was no request.
    Accepted,
    /// A JSON text, or what stands in for one.
    Json(StatusCode, String),
    /// Messages on a stream.
    Stream(Vec<String>, End),
    /// Nothing, ever.
    Silence,
}

/// How a stream ends.
enum End {
    Cleanly,
    WithinAnEvent,
    Never,
}

/// The answer to a message over HTTP.
pub(crate) async fn over_http(how: Misbehaviour, request: Request<Full<Bytes>>) -> Answer {
    if request.method() != ::http::Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    let body = request
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes());
    let message = body
        .ok()
        .and_then(|body| serde_json::from_slice(&body).ok());
    match reply(&how, &message.unwrap_or_default()) {
        Reply::Accepted => plain(StatusCode::ACCEPTED),
        Reply::Json(status, text) => full(status, "application/json", text),
        Reply::Stream(messages, end) => stream(messages, end),
        Reply::Silence => std::future::pending().await,
    }
}

/// The lines that answer a line.
pub(crate) fn lines(how: &Misbehaviour, line: &str) -> Vec<String> {
    match reply(how, &serde_json::from_str(line).unwrap_or_default()) {
        Reply::Accepted | Reply::Silence => Vec::new(),
        Reply::Json(_, text) => vec![text],
        Reply::Stream(messages, _) => messages,
    }
}

fn reply(how: &Misbehaviour, message: &Value) -> Reply {
    let (Some(id), Some(method)) = (
        message.get("id"),
        message.get("method").and_then(Value::as_str),
    ) else {
        return Reply::Accepted;
    };
    let modern = message.pointer("/params/_meta/io.modelcontextprotocol~1protocolVersion");
    let modern = modern.is_some();
    match method {
        "tools/list" => list(how, id, modern),
        "tools/call" => call(how, id, message, modern),
        "initialize" => {
            let version = message.pointer("/params/protocolVersion");
            good(
                id,
                json!({ "protocolVersion": version, "capabilities": capabilities(), "serverInfo": name() }),
            )
        }
        "server/discover" => good(
            id,
            json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28", "2025-11-25", "2025-06-18"],
                "capabilities": capabilities(), "ttlMs": 0, "cacheScope": "private",
                "_meta": { "io.modelcontextprotocol/serverInfo": name() },
            }),
        ),
        "ping" => good(id, json!({})),
        _ => {
            let error = json!({ "code": -32601, "message": "Method not found" });
            let status = if modern {
                StatusCode::NOT_FOUND
            } else {
                StatusCode::OK
            };
            Reply::Json(
                status,
                json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string(),
            )
        }
    }
}

fn list(how: &Misbehaviour, id: &Value, modern: bool) -> Reply {
    let tools = match how {
        Misbehaviour::HugeList(many) => many_tools(*many),
        _ => business::tools(false),
    };
    let mut result = json!({ "tools": tools });
    if modern {
        complete(&mut result, true);
    }
    match how {
        Misbehaviour::ListAsSse => Reply::Stream(vec![answer(id, &result)], End::Cleanly),
        Misbehaviour::ListNotJson => {
            let mut text = answer(id, &result);
            text.truncate(text.len() / 2);
            Reply::Json(StatusCode::OK, text)
        }
        _ => good(id, result),
    }
}

fn call(how: &Misbehaviour, id: &Value, message: &Value, modern: bool) -> Reply {
    let name = message.pointer("/params/name").and_then(Value::as_str);
    let arguments = message
        .pointer("/params/arguments")
        .and_then(Value::as_object);
    let none = Map::new();
    let said = business::said(name.unwrap_or_default(), arguments.unwrap_or(&none));
    let text = said.unwrap_or_else(|| "no such tool".to_owned());
    let mut result = json!({ "content": [{ "type": "text", "text": text }] });
    if modern {
        complete(&mut result, false);
    }
    let right = answer(id, &result);
    match how {
        Misbehaviour::DuplicateKeys => {
            let other = r#""result":{"content":[{"type":"text","text":"the other reading"}]}"#;
            let mut text = right;
            text.insert_str(1, &format!("{other},"));
            Reply::Json(StatusCode::OK, text)
        }
        Misbehaviour::TwoAnswers => {
            let other = json!({ "content": [{ "type": "text", "text": "the second answer" }] });
            Reply::Stream(vec![right, answer(id, &other)], End::Cleanly)
        }
        Misbehaviour::WrongId => good(&json!("nobody asked"), result),
        Misbehaviour::Stall => Reply::Silence,
        Misbehaviour::CloseEarly => Reply::Stream(vec![right], End::WithinAnEvent),
        Misbehaviour::NeverEnds => Reply::Stream(Vec::new(), End::Never),
        _ => Reply::Json(StatusCode::OK, right),
    }
}

fn many_tools(many: usize) -> Vec<Value> {
    let tool = |number: usize| {
        json!({
            "name": format!("tool_{number}"), "description": format!("Does the thing number {number}."),
            "inputSchema": { "type": "object", "properties": { "value": { "type": "string" } } },
        })
    };
    let mut tools = business::tools(false);
    let own = tools.len();
    tools.truncate(many);
    tools.extend((own..many).map(tool));
    tools
}

/// Adds what the newest revision asks of a result.
fn complete(result: &mut Value, list: bool) {
    let Some(result) = result.as_object_mut() else {
        return;
    };
    result.insert("resultType".to_owned(), json!("complete"));
    if list {
        result.insert("ttlMs".to_owned(), json!(0));
        result.insert("cacheScope".to_owned(), json!("private"));
    }
}

fn good(id: &Value, result: Value) -> Reply {
    Reply::Json(StatusCode::OK, answer(id, &result))
}

fn answer(id: &Value, result: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
}

fn stream(messages: Vec<String>, end: End) -> Answer {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let last = messages.len();
        for (number, message) in messages.into_iter().enumerate() {
            let mut event = format!("event: message\ndata: {message}\n\n");
            if matches!(end, End::WithinAnEvent) && number + 1 == last {
                event.truncate(event.len() / 2);
            }
            if sender.send(Ok(Bytes::from(event))).await.is_err() {
                return;
            }
        }
        match end {
            End::Cleanly => {}
            End::WithinAnEvent => {
                // What was sent first must be on its way before the connection breaks.
                tokio::time::sleep(Duration::from_millis(50)).await;
                let _gone = sender.send(Err(std::io::Error::other("cut"))).await;
            }
            End::Never => go_on(&sender).await,
        }
    });
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(Pieces(receiver).boxed())
        .expect("a well-formed answer")
}

/// A notification every 10 ms, until the caller goes away.
async fn go_on(sender: &mpsc::Sender<Result<Bytes, std::io::Error>>) {
    for number in 0_u64.. {
        let message = json!({
            "jsonrpc": "2.0", "method": "notifications/progress",
            "params": { "progressToken": 1, "progress": number },
        });
        let event = format!("data: {message}\n\n");
        if sender.send(Ok(Bytes::from(event))).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

struct Pieces(mpsc::Receiver<Result<Bytes, std::io::Error>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

fn capabilities() -> Value {
    json!({ "tools": { "listChanged": false } })
}

fn name() -> Value {
    json!({ "name": "agentca-mcp-fixture", "version": "1.0.0" })
}
