//! Which revision a server speaks: the newest is tried, and what the server says to it decides.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::stdio::StdioError;

use super::{ClientError, Link, MODERN, McpClient, Server, Session, client_info, modern_meta};

impl McpClient {
    /// What was agreed upon, now or before.
    pub(super) async fn agreed(
        &self,
        session: &mut Option<Session>,
    ) -> Result<Session, ClientError> {
        if let Some(session) = session {
            return Ok(session.clone());
        }
        let agreed = match self.discover().await {
            Ok(agreed) => agreed,
            Err(error) if speaks_of_sessions(&error) => self.initialize().await?,
            Err(error) => return Err(error),
        };
        *session = Some(agreed.clone());
        Ok(agreed)
    }

    async fn discover(&self) -> Result<Session, ClientError> {
        let modern = Session {
            revision: MODERN,
            id: None,
            server: Server::default(),
        };
        let params = json!({"_meta": modern_meta()});
        let reply = self.send(Some(&modern), "server/discover", params).await;
        let result = match reply {
            Ok(reply) => reply.result,
            Err(ClientError::Error {
                code: UNSUPPORTED,
                supported,
                ..
            }) => {
                return Err(ClientError::revision(&supported.join(", ")));
            }
            Err(error) => return Err(error),
        };
        let said: Discovered = read(&result)?;
        if !said.supported.iter().any(|revision| revision == MODERN) {
            return Err(ClientError::revision(&said.supported.join(", ")));
        }
        let info = said.meta.get("io.modelcontextprotocol/serverInfo");
        Ok(Session {
            server: server(MODERN, info, &said.capabilities),
            ..modern
        })
    }

    async fn initialize(&self) -> Result<Session, ClientError> {
        let params = json!({
            "protocolVersion": REVISIONS[0],
            "capabilities": {},
            "clientInfo": client_info(),
        });
        let reply = self.send(None, "initialize", params).await?;
        let said: Initialized = read(&reply.result)?;
        let revision = REVISIONS
            .into_iter()
            .find(|known| *known == said.protocol_version);
        let revision = revision.ok_or_else(|| ClientError::revision(&said.protocol_version))?;
        let session = Session {
            revision,
            id: reply.session,
            server: server(revision, Some(&said.server_info), &said.capabilities),
        };
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
        match &self.link {
            Link::Http(endpoint) => {
                let sent = endpoint.notify(&session, ready);
                let sent = tokio::time::timeout(self.limits.timeout, sent).await;
                sent.unwrap_or(Err(ClientError::Timeout))?;
            }
            Link::Program(program) => program.notify(ready).await?,
        }
        Ok(session)
    }
}

/// Whether a server that said this to `server/discover` may be of a revision with sessions: any
/// error that is not one of the newest revision's own. A program that does not answer is one too.
fn speaks_of_sessions(error: &ClientError) -> bool {
    match error {
        ClientError::Error { code, .. } => !(-32022..=-32020).contains(code),
        ClientError::Status(status) => matches!(status, 400 | 404 | 405),
        // What cannot be started speaks of nothing.
        ClientError::Process(StdioError::Start(..) | StdioError::Secret(..)) => false,
        ClientError::Process(_) | ClientError::Timeout | ClientError::SessionLost => true,
        ClientError::Connect(_)
        | ClientError::Credential(_)
        | ClientError::Untrusted(_)
        | ClientError::Unreadable(_)
        | ClientError::TooMuch(_)
        | ClientError::Revision(_) => false,
    }
}

#[derive(Deserialize)]
struct Discovered {
    #[serde(rename = "supportedVersions")]
    supported: Vec<String>,
    #[serde(default)]
    capabilities: Map<String, Value>,
    #[serde(default, rename = "_meta")]
    meta: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialized {
    protocol_version: String,
    #[serde(default)]
    capabilities: Map<String, Value>,
    #[serde(default)]
    server_info: Value,
}

fn read<'a, T: Deserialize<'a>>(result: &'a str) -> Result<T, ClientError> {
    let read = serde_json::from_str(result);
    read.map_err(|error| ClientError::unreadable(&error))
}

fn server(
    revision: &'static str,
    info: Option<&Value>,
    capabilities: &Map<String, Value>,
) -> Server {
    let text = |key: &str| Some(info?.get(key)?.as_str()?.to_owned());
    let mut offered = std::collections::BTreeSet::new();
    for (name, value) in capabilities {
        offered.insert(name.clone());
        let flags = value.as_object().into_iter().flatten();
        for (flag, value) in flags {
            if value == &Value::Bool(true) || value.is_object() {
                offered.insert(format!("{name}.{flag}"));
            }
        }
    }
    Server {
        name: text("name"),
        version: text("version"),
        revision,
        capabilities: offered,
    }
}

/// Revisions with sessions, the newest first.
const REVISIONS: [&str; 2] = ["2025-11-25", "2025-06-18"];
/// The code that names the revisions a server has.
const UNSUPPORTED: i64 = -32022;
