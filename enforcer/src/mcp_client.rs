//! A client that lists what an MCP server has: over HTTP, or from a program.
//!
//! It speaks 2026-07-28 first, and the session revisions 2025-11-25 and 2025-06-18 with a server
//! that has not that one. What it reads has one reading, or is refused; a definition is given
//! exactly as the server wrote it.

mod http;
mod negotiate;
mod program;
mod reply;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Mutex;

pub use self::http::{Connect, Headers, HttpEndpoint, Stream, connect_plainly};
use self::program::Program;
use crate::stdio::{Stdio, StdioError};

/// A client of one server; what it agreed upon with it is kept between calls.
#[derive(Debug)]
pub struct McpClient {
    link: Link,
    limits: ClientLimits,
    session: Mutex<Option<Session>>,
}

/// How the server is reached.
#[derive(Debug)]
enum Link {
    Http(HttpEndpoint),
    Program(Program),
}

/// What a server's answers may take.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// One call.
    pub timeout: Duration,
    /// One answer, in bytes.
    pub answer_max: usize,
    /// Pages of a list.
    pub pages: usize,
    /// Tools of a list.
    pub tools: usize,
    /// All definitions together, in bytes.
    pub bytes: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            answer_max: 8 << 20,
            pages: 1000,
            tools: 100_000,
            bytes: 64 << 20,
        }
    }
}

/// A tool as the server lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTool {
    /// Its name.
    pub name: String,
    /// The object, byte for byte.
    pub definition: String,
}

/// What was agreed upon with a server.
#[derive(Clone, Debug)]
struct Session {
    revision: &'static str,
    /// `Mcp-Session-Id`, where the server gave one.
    id: Option<String>,
    server: Server,
}

impl Session {
    fn is_modern(&self) -> bool {
        self.revision == MODERN
    }
}

/// What a server says about itself; nothing of it is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Its name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The revision that was agreed upon.
    pub revision: &'static str,
    /// What it offers, like `tools`, `resources` or `resources.subscribe`.
    pub capabilities: BTreeSet<String>,
}

/// Why a server was not listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("the server cannot be reached: {0}")]
    Connect(String),
    /// Nothing was sent, for want of a credential.
    #[error("what the server is to be shown cannot be had: {0}")]
    Credential(String),
    /// Not the one that was asked for, as far as its certificate says.
    #[error("the server's certificate is not accepted: {0}")]
    Untrusted(String),
    /// It did not answer.
    #[error("the server did not answer in time")]
    Timeout,
    /// It answered with an error of HTTP.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// It answered with an error of JSON-RPC.
    #[error("the server answered with error {code}: {message}")]
    Error {
        /// Its code.
        code: i64,
        /// What it said.
        message: String,
        /// Revisions that it said it has.
        supported: Vec<String>,
    },
    /// What it answered cannot be read, or may be read in several ways.
    #[error("the server's answer cannot be read: {0}")]
    Unreadable(String),
    /// More than the limits.
    #[error("the server's list is too long: more than {0}")]
    TooMuch(String),
    /// It has no revision that is spoken here.
    #[error("the server speaks {0}, and neither 2026-07-28 nor 2025-11-25 nor 2025-06-18")]
    Revision(String),
    /// A session that is not known any more.
    #[error("the server ended the session")]
    SessionLost,
    /// Its process.
    #[error(transparent)]
    Process(#[from] StdioError),
}

impl McpClient {
    /// A client of a server behind HTTP.
    #[must_use]
    pub fn http(endpoint: HttpEndpoint, limits: ClientLimits) -> Self {
        Self::over(Link::Http(endpoint), limits)
    }

    /// A client of a program, in a process of its own.
    #[must_use]
    pub fn program(processes: Arc<Stdio>, limits: ClientLimits) -> Self {
        Self::over(Link::Program(Program::new(processes)), limits)
    }

    fn over(link: Link, limits: ClientLimits) -> Self {
        Self {
            link,
            limits,
            session: Mutex::new(None),
        }
    }

    /// What the server says about itself.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn server(&self) -> Result<Server, ClientError> {
        let mut session = self.session.lock().await;
        Ok(self.agreed(&mut session).await?.server)
    }

    /// All its tools, in its order.
    ///
    /// # Errors
    /// [`ClientError`]: also when it names one twice, or a page cannot be read.
    pub async fn list_tools(&self) -> Result<Vec<ListedTool>, ClientError> {
        let mut session = self.session.lock().await;
        let had_one = session.is_some();
        match self.pages(&mut session).await {
            Err(error) if had_one && error.loses_session() => {
                // It may be another server by now.
                *session = None;
                self.pages(&mut session).await
            }
            other => other,
        }
    }

    /// Ends the session, if the server has any; a program is ended.
    pub async fn close(&self) {
        let session = self.session.lock().await.take();
        match (&self.link, session) {
            (
                Link::Http(endpoint),
                Some(Session {
                    id: Some(id),
                    revision,
                    ..
                }),
            ) => {
                let ended = endpoint.end_session(revision, &id);
                // It ends by itself sooner or later.
                let _late = tokio::time::timeout(self.limits.timeout, ended).await;
            }
            (Link::Http(_), _) => {}
            (Link::Program(program), _) => program.close(),
        }
    }

    async fn pages(&self, session: &mut Option<Session>) -> Result<Vec<ListedTool>, ClientError> {
        let agreed = self.agreed(session).await?;
        let mut list = ToolList::new(self.limits);
        let mut cursor: Option<String> = None;
        for _ in 0..self.limits.pages {
            let params = cursor
                .as_ref()
                .map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
            let result = self.call(&agreed, "tools/list", params).await?;
            match list.add_page(&result)? {
                None => return Ok(list.tools),
                next if next == cursor => {
                    return Err(ClientError::Unreadable("a page leads to itself".to_owned()));
                }
                next => cursor = next,
            }
        }
        Err(ClientError::TooMuch(format!("{} pages", self.limits.pages)))
    }

    /// One request's result, as it was written.
    async fn call(
        &self,
        session: &Session,
        method: &str,
        mut params: Value,
    ) -> Result<Box<str>, ClientError> {
        if session.is_modern()
            && let Some(params) = params.as_object_mut()
        {
            params.insert("_meta".to_owned(), modern_meta());
        }
        self.send(Some(session), method, params)
            .await
            .map(|reply| reply.result)
    }

    async fn send(
        &self,
        session: Option<&Session>,
        method: &str,
        params: Value,
    ) -> Result<reply::Reply, ClientError> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let body = body.to_string();
        let sent = async {
            match &self.link {
                Link::Http(endpoint) => endpoint.request(session, method, body, &self.limits).await,
                Link::Program(program) => program.request(body).await,
            }
        };
        let reply = tokio::time::timeout(self.limits.timeout, sent).await;
        reply.unwrap_or(Err(ClientError::Timeout))
    }
}

impl ClientError {
    /// What is wrong with an answer, which may quote it.
    fn unreadable(what: &dyn std::fmt::Display) -> Self {
        Self::Unreadable(shown(&what.to_string()))
    }

    /// No revision that is spoken here, but what the server says that it has.
    fn revision(theirs: &str) -> Self {
        Self::Revision(shown(theirs))
    }

    /// Whether another session may do better.
    fn loses_session(&self) -> bool {
        match self {
            Self::SessionLost | Self::Process(_) | Self::Revision(_) => true,
            Self::Status(status) => matches!(status, 400 | 404),
            Self::Error { code, .. } => matches!(code, -32601 | -32600 | -32020..=-32000),
            Self::Connect(_)
            | Self::Credential(_)
            | Self::Untrusted(_)
            | Self::Timeout
            | Self::Unreadable(_)
            | Self::TooMuch(_) => false,
        }
    }
}

/// What a server wrote, as people may be shown it: short, and nothing in it moves a terminal's cursor or hides.
fn shown(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(SHOWN) {
        match c {
            '"' | '\'' | '\\' => out.push(c),
            c => out.extend(c.escape_debug()),
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}

/// What every request of 2026-07-28 carries.
fn modern_meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": client_info(),
    })
}

fn client_info() -> Value {
    json!({"name": "agentca-enforcer", "version": env!("CARGO_PKG_VERSION")})
}

/// A list that grows page by page.
#[derive(Debug)]
struct ToolList {
    tools: Vec<ListedTool>,
    names: BTreeSet<String>,
    bytes: usize,
    limits: ClientLimits,
}

impl ToolList {
    fn new(limits: ClientLimits) -> Self {
        Self {
            tools: Vec::new(),
            names: BTreeSet::new(),
            bytes: 0,
            limits,
        }
    }

    /// Adds a page, and gives where the next is.
    fn add_page(&mut self, result: &str) -> Result<Option<String>, ClientError> {
        #[derive(Deserialize)]
        struct Page<'a> {
            #[serde(borrow)]
            tools: Vec<&'a RawValue>,
            #[serde(default, rename = "nextCursor")]
            next_cursor: Option<String>,
            #[serde(default, rename = "resultType")]
            result_type: Option<String>,
        }
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let unreadable = |error: serde_json::Error| ClientError::unreadable(&error);
        let page: Page<'_> = serde_json::from_str(result).map_err(unreadable)?;
        if page.result_type.is_some_and(|kind| kind != "complete") {
            return Err(ClientError::Unreadable(
                "a list that is not complete".to_owned(),
            ));
        }
        for raw in page.tools {
            if !raw.get().starts_with('{') {
                return Err(ClientError::Unreadable(
                    "a tool that is no object".to_owned(),
                ));
            }
            let Named { name } = serde_json::from_str(raw.get()).map_err(unreadable)?;
            self.bytes = self.bytes.saturating_add(raw.get().len());
            if self.bytes > self.limits.bytes {
                return Err(ClientError::TooMuch(format!("{} bytes", self.limits.bytes)));
            }
            if self.tools.len() >= self.limits.tools {
                return Err(ClientError::TooMuch(format!("{} tools", self.limits.tools)));
            }
            if !self.names.insert(name.clone()) {
                return Err(ClientError::Unreadable(format!(
                    "`{}` is listed twice",
                    shown(&name)
                )));
            }
            self.tools.push(ListedTool {
                name,
                definition: raw.get().to_owned(),
            });
        }
        Ok(page.next_cursor)
    }
}

/// What is shown of a text of the server's, in letters.
const SHOWN: usize = 200;
/// The revision without sessions.
const MODERN: &str = "2026-07-28";

#[cfg(test)]
mod tests;
