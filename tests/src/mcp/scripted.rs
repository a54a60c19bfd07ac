//! An MCP server made of plain sockets, whose answers a test writes byte by byte.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::STATELESS;
use crate::lab::Lab;
use crate::upstream::{Seen, read_request};

/// The server, serving until it is dropped.
pub struct Scripted {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    ended: Arc<AtomicBool>,
}

/// What it answers.
#[derive(Clone, Debug)]
pub struct Scene {
    status: u16,
    fields: Vec<(String, String)>,
    body: String,
}

impl Scene {
    /// An answer of JSON.
    pub fn json(message: &Value) -> Self {
        Self::of("application/json", &message.to_string())
    }

    /// The result of a request.
    pub fn result(request: &Value, result: &Value) -> Self {
        Self::json(&json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }))
    }

    /// Any body under any content type.
    pub fn of(media: &str, body: &str) -> Self {
        Self {
            status: 200,
            fields: vec![("Content-Type".to_owned(), media.to_owned())],
            body: body.to_owned(),
        }
    }

    /// No body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: String::new(),
        }
    }

    /// Under another status.
    pub fn but(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With one more field.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Scripted {
    /// Starts it; what `answer` leaves open is answered as a decent server with these tools would.
    pub fn start(
        lab: &Lab,
        tools: Vec<Value>,
        answer: impl Fn(&Seen, &Value) -> Option<Scene> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((lab.ip(), 0)).expect("a free port");
        let server = Self {
            address: listener.local_addr().expect("an address"),
            seen: Arc::default(),
            ended: Arc::default(),
        };
        let (seen, ended) = (Arc::clone(&server.seen), Arc::clone(&server.ended));
        let answer = Arc::new(move |seen: &Seen| {
            let message = serde_json::from_slice(&seen.body).unwrap_or_default();
            answer(seen, &message).unwrap_or_else(|| decent(&message, &tools))
        });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                // A caller that breaks off ends its own conversation, nothing else.
                std::thread::spawn(move || drop(converse(&stream, &seen, &*answer)));
            }
        });
        server
    }

    /// Its endpoint.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// What reached it so far by this method of MCP, in order.
    pub fn seen(&self, method: &str) -> Vec<Seen> {
        let mut seen = self.seen.lock().expect("no panic under the lock").clone();
        seen.retain(|seen| {
            let message: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
            message["method"] == method
        });
        seen
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the one that waits for callers.
        drop(TcpStream::connect(self.address));
    }
}

fn converse(
    mut stream: &TcpStream,
    all: &Mutex<Vec<Seen>>,
    answer: &dyn Fn(&Seen) -> Scene,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(seen) = read_request(&mut reader)? {
        all.lock()
            .expect("no panic under the lock")
            .push(seen.clone());
        let Scene {
            status,
            fields,
            body,
        } = answer(&seen);
        let fields: String = fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status} Scripted\r\n{fields}Content-Length: {length}\r\n\r\n");
        stream.write_all((head + &body).as_bytes())?;
    }
    Ok(())
}

fn decent(message: &Value, tools: &[Value]) -> Scene {
    let modern = message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].is_string();
    let capabilities = json!({ "tools": {}, "resources": {}, "prompts": {} });
    let result = match message["method"].as_str().unwrap_or_default() {
        "server/discover" => {
            json!({ "resultType": "complete", "supportedVersions": [STATELESS], "capabilities": capabilities })
        }
        "initialize" => {
            let version = &message["params"]["protocolVersion"];
            let info = json!({ "name": "scripted", "version": "1" });
            let result = json!({ "protocolVersion": version, "capabilities": capabilities, "serverInfo": info });
            return Scene::result(message, &result).with("Mcp-Session-Id", "scripted-session");
        }
        "tools/list" if modern => json!({ "resultType": "complete", "tools": tools }),
        "tools/list" => json!({ "tools": tools }),
        "tools/call" => {
            let text = json!({ "type": "text", "text": "done" });
            json!({ "resultType": "complete", "content": [text] })
        }
        _ if message["id"].is_null() => return Scene::status(202),
        other => {
            let error = json!({ "code": -32601, "message": format!("no {other}") });
            return Scene::json(&json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }));
        }
    };
    Scene::result(message, &result)
}

/// A definition of a tool.
pub fn definition(name: &str) -> Value {
    json!({ "name": name, "inputSchema": { "type": "object" } })
}
