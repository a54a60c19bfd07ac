//! Messages, byte by byte as a test wants them, to an enforcer over curl.

use std::path::Path;

use serde_json::{Value, json};

use super::{SESSIONS, STATELESS};
use crate::curl::{Got, curl};
use crate::lab::Enforcer;
use crate::tls::Tls;

/// The headers of every message over HTTP.
pub const MEDIA: [&str; 2] = [
    "Content-Type: application/json",
    "Accept: application/json, text/event-stream",
];

/// The headers that go with a `tools/call` of the revision without sessions.
pub fn headers(method: &str, name: Option<&str>) -> Vec<String> {
    let mut headers = MEDIA.map(str::to_owned).to_vec();
    headers.push(format!("MCP-Protocol-Version: {STATELESS}"));
    headers.push(format!("Mcp-Method: {method}"));
    headers.extend(name.map(|name| format!("Mcp-Name: {name}")));
    headers
}

/// The `_meta` of that revision, as text.
pub const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

/// A request of that revision, as text; `more` are more members of `params`, each after a comma.
pub fn request(id: u64, method: &str, more: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"_meta":{META}{more}}}}}"#
    )
}

/// A `tools/call` of that revision, as text.
pub fn tool_call(id: u64, tool: &str, arguments: &str) -> String {
    request(
        id,
        "tools/call",
        &format!(r#","name":"{tool}","arguments":{arguments}"#),
    )
}

/// POSTs a body as it is to an enforcer's upstream.
pub fn post(
    enforcer: &Enforcer,
    agent: &Path,
    upstream: &str,
    headers: &[String],
    body: &[u8],
) -> Got {
    post_at(enforcer, agent, &format!("/mcp/{upstream}"), headers, body)
}

/// POSTs a body as it is to a path of an enforcer.
pub fn post_at(
    enforcer: &Enforcer,
    agent: &Path,
    path: &str,
    headers: &[String],
    body: &[u8],
) -> Got {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), body).expect("a file");
    let data = format!("@{}", file.path().display());
    let mut options = vec!["--data-binary", &data, "-H", "Expect:"];
    if body.len() > 1 << 20 {
        // curl 7.88 loses an HTTP/2 answer that comes before its body is sent: see http2.py.
        options.push("--http1.1");
    }
    for header in headers {
        options.extend(["-H", header]);
    }
    curl(enforcer, agent, &options, &[path]).remove(0)
}

/// POSTs a request on a connection of its own and reads the head of the answer, which must be a stream.
pub fn open_stream(
    (enforcer, agent): (&Enforcer, &Path),
    path: &str,
    headers: &[String],
    body: &str,
) -> Tls {
    let mut tls = enforcer.connect(agent).expect("a connection");
    let (headers, length) = (headers.join("\r\n"), body.len());
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    tls.send(request).expect("a connection");
    let head = tls.head().expect("an answer");
    assert_eq!(head.status, 200, "{head:?}");
    let header = |name: &str| head.header(name).unwrap_or_default();
    assert_eq!(header("content-type"), "text/event-stream", "{head:?}");
    assert!(header("agent-audit").contains("phase=open"), "{head:?}");
    tls
}

/// Reads a stream until the text has come.
pub fn read_until(tls: &mut Tls, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let chunk = tls.chunk().expect("a stream that goes on");
        let chunk = chunk.unwrap_or_else(|| panic!("no {text} in {read}"));
        read += &String::from_utf8(chunk).expect("text");
    }
    read
}

/// Calls a tool in the revision without sessions; the answer's `result`, or null.
pub fn call(
    enforcer: &Enforcer,
    agent: &Path,
    upstream: &str,
    tool: &str,
    arguments: &str,
) -> Value {
    let body = tool_call(7, tool, arguments);
    let headers = headers("tools/call", Some(tool));
    let got = post(enforcer, agent, upstream, &headers, body.as_bytes());
    answer_in(&got.body, 7)["result"].clone()
}

/// The names of the tools that an agent is shown, sorted.
pub fn listed(enforcer: &Enforcer, agent: &Path, upstream: &str) -> Vec<String> {
    listed_at(enforcer, agent, &format!("/mcp/{upstream}"))
}

/// The same at a path.
pub fn listed_at(enforcer: &Enforcer, agent: &Path, path: &str) -> Vec<String> {
    let body = request(8, "tools/list", "");
    let headers = headers("tools/list", None);
    let got = post_at(enforcer, agent, path, &headers, body.as_bytes());
    names(&answer_in(&got.body, 8))
}

/// The names in a list; none when the answer has no list.
fn names(answer: &Value) -> Vec<String> {
    let name = |tool: &Value| tool["name"].as_str().expect("a name").to_owned();
    let tools = answer["result"]["tools"].as_array();
    let mut names: Vec<String> = tools.into_iter().flatten().map(name).collect();
    names.sort();
    names
}

/// The text of a tool's result.
pub fn text(result: &Value) -> String {
    let items = result["content"].as_array().into_iter().flatten();
    items.filter_map(|item| item["text"].as_str()).collect()
}

/// A session of the older revisions.
pub struct Session<'a> {
    enforcer: &'a Enforcer,
    agent: &'a Path,
    path: String,
    revision: &'a str,
    /// Its id, when the server gave one.
    pub id: Option<String>,
}

impl<'a> Session<'a> {
    /// Shakes hands.
    pub fn open(enforcer: &'a Enforcer, agent: &'a Path, upstream: &str) -> Self {
        Self::open_in(enforcer, agent, upstream, SESSIONS)
    }

    /// Shakes hands in a revision.
    pub fn open_in(
        enforcer: &'a Enforcer,
        agent: &'a Path,
        upstream: &str,
        revision: &'a str,
    ) -> Self {
        Self::open_at(enforcer, agent, format!("/mcp/{upstream}"), revision)
    }

    /// The same at a path.
    pub fn open_at(
        enforcer: &'a Enforcer,
        agent: &'a Path,
        path: String,
        revision: &'a str,
    ) -> Self {
        let mut session = Self {
            enforcer,
            agent,
            path,
            revision,
            id: None,
        };
        let opened = session.post(&initialize().replace(SESSIONS, revision));
        assert_eq!(opened.status, 200, "{opened:?}");
        session.id = opened.header("mcp-session-id").map(str::to_owned);
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert_eq!(session.post(initialized).status, 202);
        session
    }

    /// The same session, told by another.
    pub fn told_by(&self, agent: &'a Path) -> Self {
        Self {
            agent,
            path: self.path.clone(),
            id: self.id.clone(),
            ..*self
        }
    }

    /// POSTs a message in it.
    pub fn post(&self, body: &str) -> Got {
        let headers = self.headers();
        post_at(
            self.enforcer,
            self.agent,
            &self.path,
            &headers,
            body.as_bytes(),
        )
    }

    /// The names of the tools it shows, sorted.
    pub fn listed(&self) -> Vec<String> {
        let list = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}"#;
        names(&answer_in(&self.post(list).body, 2))
    }

    /// Calls a tool; the answer's `result`, or null.
    pub fn call(&self, tool: &str, arguments: &str) -> Value {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
        );
        answer_in(&self.post(&body).body, 3)["result"].clone()
    }

    /// POSTs a request on a connection of its own and reads the head of the answer, which must be a stream.
    pub fn open_stream(&self, body: &str) -> Tls {
        open_stream(
            (self.enforcer, self.agent),
            &self.path,
            &self.headers(),
            body,
        )
    }

    fn headers(&self) -> Vec<String> {
        let mut headers = vec![
            "Content-Type: application/json".to_owned(),
            "Accept: application/json, text/event-stream".to_owned(),
        ];
        if let Some(id) = &self.id {
            headers.push(format!("Mcp-Session-Id: {id}"));
            headers.push(format!("MCP-Protocol-Version: {}", self.revision));
        }
        headers
    }
}

/// The handshake's first message.
pub fn initialize() -> String {
    let client = json!({ "name": "tests", "version": "1" });
    let params = json!({ "protocolVersion": SESSIONS, "capabilities": {}, "clientInfo": client });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }).to_string()
}

/// The answer to a request, in a body that is JSON or a stream of events; null when it is not there.
pub fn answer_in(body: &str, id: u64) -> Value {
    let data = body.lines().filter_map(|line| line.strip_prefix("data:"));
    let mut messages = std::iter::once(body)
        .chain(data)
        .filter_map(|text| serde_json::from_str::<Value>(text.trim()).ok());
    let answer = messages.find(|message| message["id"] == id && message["method"].is_null());
    answer.unwrap_or_default()
}
