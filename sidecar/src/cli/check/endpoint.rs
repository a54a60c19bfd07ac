//! What an endpoint answers: the revisions of MCP that are spoken there, and the tools that this certificate may use.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::printable;
use crate::cli::Failure;
use crate::enforcer::{Answer, Content, Enforcer};
use crate::events::Events;
use crate::fields::{self, PROTOCOL_VERSION, SESSION, Schemas};
use crate::message::{Heard, Id, Message, hear};
use crate::problem::Problem;

/// What was found.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// The newest first.
    pub(super) revisions: Vec<String>,
    /// The names of the tools that are listed to this certificate.
    pub(super) tools: Vec<String>,
    /// Whether these are all.
    pub(super) all: bool,
}

/// Asks in the newest revision and in one with sessions.
pub(super) async fn look(enforcer: &Arc<Enforcer>) -> Result<Endpoint, Failure> {
    let (stateless, session) = (stateless(enforcer).await, session(enforcer).await);
    let spoken: Vec<&Spoken> = [&stateless, &session].into_iter().flatten().collect();
    let Some(newest) = spoken.first() else {
        return Err(refused(enforcer, stateless.err(), session.err()));
    };
    let listed = tools(enforcer, newest).await;
    if let Ok(session) = &session {
        end(enforcer, session).await;
    }
    let (tools, all) = match listed {
        // Not every server has tools.
        Err(Unspoken::Error { code: -32601, .. }) => (Vec::new(), true),
        Err(why) => return Err(why.told(enforcer)),
        Ok(listed) => listed,
    };
    let revisions = spoken.iter().map(|spoken| spoken.revision().to_owned());
    Ok(Endpoint {
        revisions: revisions.collect(),
        tools,
        all,
    })
}

/// A revision that is spoken, and how.
#[derive(Debug)]
enum Spoken {
    Stateless,
    Session {
        revision: String,
        id: Option<HeaderValue>,
    },
}

impl Spoken {
    fn revision(&self) -> &str {
        match self {
            Self::Stateless => STATELESS,
            Self::Session { revision, .. } => revision,
        }
    }

    /// The fields of a message that goes this way.
    fn fields(&self, message: &Message) -> HeaderMap {
        match self {
            Self::Stateless => fields::mirrored(message, &Schemas::default()).unwrap_or_default(),
            Self::Session { revision, id } => {
                let mut headers = fields::posted();
                if let Ok(revision) = HeaderValue::try_from(revision.as_str()) {
                    headers.insert(PROTOCOL_VERSION, revision);
                }
                if let Some(id) = id {
                    headers.insert(SESSION, id.clone());
                }
                headers
            }
        }
    }

    /// A request that goes this way.
    fn request(&self, method: &str, mut params: Value) -> Result<Message, Unspoken> {
        if let (Self::Stateless, Some(params)) = (self, params.as_object_mut()) {
            params.insert(
                "_meta".to_owned(),
                json!({
                    "io.modelcontextprotocol/protocolVersion": STATELESS,
                    "io.modelcontextprotocol/clientCapabilities": {},
                    "io.modelcontextprotocol/clientInfo": client(),
                }),
            );
        }
        let text = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        Message::read(Bytes::from(text.to_string()))
            .map_err(|error| Unspoken::Failed(Failure::refused(error)))
    }
}

/// Why an endpoint did not give what it was asked for.
#[derive(Debug)]
enum Unspoken {
    /// The answer says that it is denied.
    Denied(Problem, StatusCode),
    /// Nobody answered, or nobody who is believed.
    Failed(Failure),
    /// An error of JSON-RPC.
    Error { code: i64, message: String },
    /// No MCP at all.
    Foreign(StatusCode),
}

impl Unspoken {
    fn told(self, enforcer: &Enforcer) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            Self::Denied(problem, status) => {
                let said = printable(&problem.sentence(status), SAID);
                let advice = problem
                    .rule
                    .and_then(|rule| super::look_at(&rule, &enforcer.url));
                let advice = advice.map(|advice| format!("; {advice}"));
                Failure::refused(format!(
                    "the endpoint refuses, the answer says: {said}{}; the server behind it may have said so, the \
                     enforcer's log has what the enforcer decided",
                    advice.unwrap_or_default()
                ))
            }
            Self::Error { code, message } => Failure::refused(format!(
                "the endpoint answers neither {STATELESS} nor {SESSIONS} of MCP, but with error {code}: {}",
                printable(&message, SAID)
            )),
            Self::Foreign(status) => Failure::refused(format!(
                "the endpoint answered {status} and no MCP; give the URL of an `[[upstream]]` with \
                 `kind = \"mcp\"`, like https://HOST:8443/mcp/NAME"
            )),
        }
    }
}

/// Of two reasons the one that says most.
fn refused(enforcer: &Enforcer, one: Option<Unspoken>, other: Option<Unspoken>) -> Failure {
    let weight = |why: &Unspoken| match why {
        Unspoken::Denied(..) => 0,
        Unspoken::Failed(_) => 1,
        Unspoken::Error { .. } => 2,
        Unspoken::Foreign(_) => 3,
    };
    let why = one.into_iter().chain(other).min_by_key(weight);
    let nothing = || Failure::refused("the endpoint gave no answer");
    why.map_or_else(nothing, |why| why.told(enforcer))
}

async fn stateless(enforcer: &Arc<Enforcer>) -> Result<Spoken, Unspoken> {
    let spoken = Spoken::Stateless;
    let discover = spoken.request("server/discover", json!({}))?;
    let (_, result) = ask(enforcer, spoken.fields(&discover), &discover).await?;
    let supported = result.get("supportedVersions").and_then(Value::as_array);
    if supported.is_some_and(|all| all.iter().any(|version| version == STATELESS)) {
        return Ok(spoken);
    }
    Err(Unspoken::Error {
        code: 0,
        message: "its `supportedVersions` have no such revision".to_owned(),
    })
}

async fn session(enforcer: &Arc<Enforcer>) -> Result<Spoken, Unspoken> {
    let unsettled = Spoken::Session {
        revision: String::new(),
        id: None,
    };
    let params = json!({ "protocolVersion": SESSIONS, "capabilities": {}, "clientInfo": client() });
    let initialize = unsettled.request("initialize", params)?;
    let (headers, result) = ask(enforcer, fields::posted(), &initialize).await?;
    let revision = result.get("protocolVersion").and_then(Value::as_str);
    Ok(Spoken::Session {
        revision: revision.unwrap_or(SESSIONS).to_owned(),
        id: headers.get(SESSION).cloned(),
    })
}

/// What is listed, and whether that is all.
async fn tools(enforcer: &Arc<Enforcer>, spoken: &Spoken) -> Result<(Vec<String>, bool), Unspoken> {
    if let Spoken::Session { .. } = spoken {
        let ready = Message::read(crate::stdio::INITIALIZED);
        let ready = ready.map_err(|error| Unspoken::Failed(Failure::refused(error)))?;
        let told = enforcer.ask_with(Method::POST, spoken.fields(&ready), ready.text);
        told.await.map_err(|error| Unspoken::Failed(error.into()))?;
    }
    let mut names = Vec::new();
    let mut params = json!({});
    for _ in 0..MOST_PAGES {
        let list = spoken.request("tools/list", params)?;
        let (_, result) = ask(enforcer, spoken.fields(&list), &list).await?;
        let page = Page::deserialize(result);
        let page = page.map_err(|error| {
            let said = printable(&error.to_string(), SAID);
            Unspoken::Failed(Failure::refused(format!("a list cannot be read: {said}")))
        })?;
        names.extend(page.tools.into_iter().map(|tool| tool.name));
        let Some(next) = page.next else {
            return Ok((names, true));
        };
        params = json!({ "cursor": next });
    }
    Ok((names, false))
}

#[derive(Deserialize)]
struct Page {
    tools: Vec<Tool>,
    #[serde(rename = "nextCursor")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Tool {
    name: String,
}

/// A session nobody needs any more shall cost nobody anything.
async fn end(enforcer: &Arc<Enforcer>, spoken: &Spoken) {
    let Spoken::Session {
        id: Some(id),
        revision,
    } = spoken
    else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(SESSION, id.clone());
    if let Ok(revision) = HeaderValue::try_from(revision.as_str()) {
        headers.insert(PROTOCOL_VERSION, revision);
    }
    let ended = enforcer.ask_with(Method::DELETE, headers, Bytes::new());
    if let Err(error) = ended.await {
        tracing::debug!(%error, "the session was not ended");
    }
}

/// Asks, and gives fields and result of the answer.
async fn ask(
    enforcer: &Arc<Enforcer>,
    headers: HeaderMap,
    message: &Message,
) -> Result<(HeaderMap, Value), Unspoken> {
    let asked = enforcer.ask_with(Method::POST, headers, message.text.clone());
    let answer = asked
        .await
        .map_err(|error| Unspoken::Failed(error.into()))?;
    let Answer {
        status,
        headers,
        content,
    } = answer;
    let id = message.id.as_ref();
    let body = match content {
        Content::Whole(body) => body,
        Content::Events(events) => answer_in(*events, id).await?,
    };
    let problem = match Problem::read(&body) {
        Problem {
            rule: None,
            title: None,
            ..
        } => Problem::in_error(&body),
        problem => problem,
    };
    if problem.rule.is_some() || problem.title.is_some() {
        return Err(Unspoken::Denied(problem, status));
    }
    match (hear(&body, id), serde_json::from_slice(&body)) {
        (Heard::Answer, Ok(Said::Result { result })) => Ok((headers, result)),
        (Heard::Answer | Heard::NamelessError, Ok(Said::Error { error })) => {
            let Error { code, message } = error;
            Err(Unspoken::Error { code, message })
        }
        _ => Err(Unspoken::Foreign(status)),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Result { result: Value },
    Error { error: Error },
}

#[derive(Deserialize)]
struct Error {
    code: i64,
    #[serde(default)]
    message: String,
}

/// The answer at the end of a stream.
async fn answer_in(mut events: Events, id: Option<&Id>) -> Result<Bytes, Unspoken> {
    let failed = |error: crate::enforcer::AskError| Unspoken::Failed(error.into());
    while let Some(event) = events.next().await.map_err(failed)? {
        let data = Bytes::from(event.data.unwrap_or_default());
        if hear(&data, id) == Heard::Answer {
            return Ok(data);
        }
    }
    Err(Unspoken::Failed(Failure::refused(
        "the endpoint's stream ended before the answer",
    )))
}

fn client() -> Value {
    json!({ "name": "agentca-sidecar", "version": env!("CARGO_PKG_VERSION") })
}

/// The revision in which every request stands alone.
const STATELESS: &str = "2026-07-28";
/// The newest that begins with `initialize`; a server may settle on an older one.
const SESSIONS: &str = "2025-11-25";
const MOST_PAGES: usize = 20;
/// What is shown of an answer, in letters.
const SAID: usize = 400;
