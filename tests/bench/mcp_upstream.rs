//! The MCP server behind every proxy: one tool's answer of about 200 bytes, and a list of many tools.
//!
//! Like the plain upstream it does as little as it can, so that the core it shares is left to the
//! load: a call's text is not read beyond its id.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Outcome;
use crate::mcp::{RESPELLED, REWRITTEN, definitions};

/// How many ways of writing the list there are: more than anybody keeps.
const WAYS: usize = 1024;

/// What it answers.
struct Server {
    /// The members of the list, without its brackets.
    tools: String,
    /// Counts lists that were written anew.
    rewritten: AtomicUsize,
}

/// Serves on `listen` until the process ends.
pub(crate) async fn serve(listen: SocketAddr, tools: usize) -> Outcome<()> {
    let listener = TcpListener::bind(listen).await?;
    let server = Arc::new(Server {
        tools: definitions(tools).collect::<Vec<_>>().join(","),
        rewritten: AtomicUsize::new(0),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            // A proxy that closes its connection is no event here.
            let _ = server.converse(stream).await;
        });
    }
}

impl Server {
    async fn converse(&self, mut stream: TcpStream) -> Outcome<()> {
        stream.set_nodelay(true)?;
        let mut taken = Vec::with_capacity(4096);
        loop {
            let Some((head, end)) = complete(&taken)? else {
                if stream.read_buf(&mut taken).await? == 0 {
                    return Ok(());
                }
                continue;
            };
            let is_get = taken.starts_with(b"GET ");
            let answer = if is_get {
                found(&self.list("1", 0))
            } else {
                let message = taken.get(head..end).unwrap_or_default();
                self.answer(std::str::from_utf8(message)?)?
            };
            stream.write_all(answer.as_bytes()).await?;
            taken.drain(..end);
        }
    }

    fn answer(&self, message: &str) -> Outcome<String> {
        if message.contains(r#""method":"tools/call""#) {
            return Ok(found(&called(id_of(message).ok_or("a call without id")?)));
        }
        let read: Value = serde_json::from_str(message)?;
        let Some(id) = read.get("id") else {
            return Ok("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_owned());
        };
        let result = match read.get("method").and_then(Value::as_str) {
            Some("server/discover") => json!({
                "resultType": "complete",
                "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}},
                "ttlMs": 0,
                "cacheScope": "public",
            }),
            Some("tools/list") => {
                let cursor = read.pointer("/params/cursor").and_then(Value::as_str);
                let way = || 1 + self.rewritten.fetch_add(1, Ordering::Relaxed) % WAYS;
                return Ok(found(&match cursor {
                    Some(REWRITTEN) => self.list(&id.to_string(), way()),
                    Some(RESPELLED) => self.respelled(&id.to_string(), way()),
                    _ => self.list(&id.to_string(), 0),
                }));
            }
            _ => {
                let error = json!({"code": -32601, "message": "there is no such method"});
                return Ok(found(
                    &json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string(),
                ));
            }
        };
        Ok(found(
            &json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string(),
        ))
    }

    /// The list with `way` spaces in it.
    fn list(&self, id: &str, way: usize) -> String {
        answer(id, way, &self.tools)
    }

    /// The list with `way`, told in white space, in each tool.
    fn respelled(&self, id: &str, way: usize) -> String {
        let digit = |place: u32| match (way >> (2 * place)) % 4 {
            0 => ' ',
            1 => '\t',
            2 => '\n',
            _ => '\r',
        };
        let told: String = (0..6).map(digit).collect();
        let tools = self
            .tools
            .replace("{\"name\":", &format!("{{{told}\"name\":"));
        answer(id, 0, &tools)
    }
}

fn answer(id: &str, spaces: usize, tools: &str) -> String {
    let mut text = String::with_capacity(tools.len() + WAYS + 256);
    // Writing to a string does not fail.
    let _ = write!(
        text,
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","tools":["#
    );
    text.extend(std::iter::repeat_n(' ', spaces));
    text.push_str(tools);
    text.push_str(r#"],"ttlMs":0,"cacheScope":"public"}}"#);
    text
}

fn called(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","content":[{{"type":"text","text":"account 7: 3 entries since 2026-11-01, 12.50, 99.00 and -41.20 EUR; balance 120.50 EUR"}}],"isError":false}}}}"#
    )
}

/// The id as it stands; every client of the benchmark writes a number.
fn id_of(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once(r#""id":"#)?;
    rest.split([',', '}']).next()
}

fn found(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Where a whole request's body begins and ends; none while it is not there.
fn complete(taken: &[u8]) -> Outcome<Option<(usize, usize)>> {
    let Some(end) = taken.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(taken.get(..end).unwrap_or_default())?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>())
    });
    let body = end + 4;
    let whole = body + length.transpose()?.unwrap_or(0);
    Ok((taken.len() >= whole).then_some((body, whole)))
}
