//! `/mcp`: the tools of several servers under one endpoint, named `<upstream>__<tool>`.
//!
//! The enforcer itself answers for what is about all of them: who is there, and which tools. A call goes
//! to the one server that its name says as if it had come by that server's own endpoint: it is judged,
//! recorded and forwarded as that, under the tool's own name. In the revisions with sessions a session
//! at the shared endpoint stands for one at each server, begun when it is first needed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use agentca_policy::Rule;

use super::asks::Asks;
use super::denials;
use super::doorway::Doorway;
use super::exchange::Exchange;
use super::lists::renamed;
use super::reply::{Answer, Expected};
use super::revision::{self, NAME, Revision, SESSION_ID};
use super::rpc::{Kind, Message};
use super::session::{Opened, fresh_id};
use super::turn::{Conversation, name_of};
use crate::answer::Reply;
use crate::config::DenyAs;
use crate::forward::ForwardFailure;
use crate::head::Head;
use crate::jsonrpc::Edits;
use crate::road::Denial;
use crate::service::{Given, Told, Turn};
use crate::upstream::UpstreamError;

/// Sessions at servers that were begun for sessions at the shared endpoint.
#[derive(Debug, Default)]
pub(crate) struct SharedSessions {
    /// By agent: none can make another's be forgotten.
    begun: Mutex<HashMap<Box<str>, Begun>>,
}

/// One agent's.
#[derive(Debug, Default)]
struct Begun {
    /// By shared session and upstream.
    sessions: HashMap<(String, Arc<str>), Slot>,
    oldest: VecDeque<(String, Arc<str>)>,
}

/// Begun once, whoever comes first; nothing in it where the server gives no id.
type Slot = Arc<OnceCell<Option<String>>>;

impl SharedSessions {
    /// Where a session is kept. What is forgotten is begun again.
    fn slot(&self, agent: &str, shared: &str, upstream: &Arc<str>) -> Slot {
        let mut all = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(agent) && all.len() >= AGENTS {
            // So many that whoever it is will hardly notice.
            let other = all.keys().next().cloned();
            other.and_then(|other| all.remove(&other));
        }
        let begun = all.entry(agent.into()).or_default();
        let key = (shared.to_owned(), Arc::clone(upstream));
        if let Some(slot) = begun.sessions.get(&key) {
            return Arc::clone(slot);
        }
        while begun.sessions.len() >= KEPT {
            let Some(oldest) = begun.oldest.pop_front() else {
                break;
            };
            begun.sessions.remove(&oldest);
        }
        let slot = Slot::default();
        begun.sessions.insert(key.clone(), Arc::clone(&slot));
        begun.oldest.push_back(key);
        slot
    }
}

/// What a message at the shared endpoint is.
enum Heard {
    /// The enforcer answers.
    Answer(String),
    /// A session begins.
    Begins(Revision),
    /// There is no such method here.
    NoMethod,
    /// It wants no answer.
    Taken,
    /// A call of one server's tool.
    Call(Arc<str>, Message),
}

impl Turn {
    /// Answers a request at the shared endpoint.
    pub(crate) async fn mcp_shared(&mut self, head: Box<Head>) -> Given {
        let shared: Arc<str> = SHARED.into();
        self.ledger.on_mcp(super::turn::unnamed(&shared));
        if let Err(denial) = super::heads::own_origin(&head.headers, &self.asked.target_uri) {
            return self.deny(&denial).await;
        }
        if head.method != Method::POST {
            return self.deny(&super::turn::no_method()).await;
        }
        let body = match self.mcp_body(&head).await {
            Ok(body) => body,
            Err(denial) => return self.refuse(denials::unread(denial)).await,
        };
        self.take_live();
        let message = match Message::read(body) {
            Ok(message) => message,
            Err(refusal) => return self.refuse(denials::unreadable(refusal)).await,
        };
        self.ledger.on_mcp(name_of(&shared, &message));
        let conversation = match self.conversation((SHARED, DenyAs::Result), &head, &message) {
            Ok(conversation) => conversation,
            Err(refused) => return self.refuse(refused).await,
        };
        let heard = match self.hear(&message, &conversation) {
            Ok(heard) => heard,
            Err(denial) => {
                let revision = conversation.revision;
                let refused = denials::denied(&message, revision, DenyAs::Result, denial);
                return self.refuse(refused).await;
            }
        };
        match heard {
            Heard::Call(upstream, message) => {
                self.shared_call(head, (upstream, message), conversation)
                    .await
            }
            own => self.shared_answer(&message, own, conversation).await,
        }
    }

    /// Whether the agent may use anything here, and what it says.
    fn hear(&self, message: &Message, conversation: &Conversation) -> Result<Heard, Denial> {
        let registry = &self.session.worker.shared.registry;
        let known = self.session.peer.standing();
        crate::road::still_standing(registry, &self.session.peer, known)?;
        let revision = conversation.revision;
        let sessions = revision.is_none_or(Revision::has_sessions);
        let request = match message.kind() {
            Kind::Request(request) => request,
            Kind::Notification { .. } => return Ok(Heard::Taken),
            Kind::Response => {
                return Err(Denial::new(Rule::Malformed, "nothing was asked here"));
            }
        };
        if request.method == "tools/call" {
            return self.named_call(message);
        }
        let tools = self.shared_tools();
        if tools.is_empty() {
            let detail = "no scope of the certificate covers anything of the servers here";
            return Err(Denial::new(Rule::Scope, detail));
        }
        Ok(match request.method.as_str() {
            "tools/list" => Heard::Answer(listed(&tools, sessions)),
            "initialize" if sessions => {
                let version = request.params.version.as_deref().and_then(Revision::parse);
                let version = version.filter(|version| version.has_sessions());
                Heard::Begins(version.unwrap_or(Revision::V20251125))
            }
            "ping" if sessions => Heard::Answer("{}".to_owned()),
            "server/discover" if !sessions => {
                let discovered = json!({
                    "resultType": "complete",
                    "supportedVersions": Revision::ALL.map(Revision::as_str),
                    "capabilities": { "tools": {} },
                    "ttlMs": 0,
                    "cacheScope": "private",
                    "_meta": { "io.modelcontextprotocol/serverInfo": server_info() },
                });
                Heard::Answer(discovered.to_string())
            }
            _ => Heard::NoMethod,
        })
    }

    /// The tools that the agent may use, under their names here.
    fn shared_tools(&self) -> Vec<String> {
        let rights = self.session.peer.rights();
        let now = self.session.worker.shared.registry.now();
        let mut tools = Vec::new();
        for upstream in self.live.shared_upstreams() {
            let Some(server) = self.live.config().mcp_catalogue.server(&upstream) else {
                continue;
            };
            let prefix = format!("{upstream}{JOINT}");
            let seen = self.live.seen_tools().of(&upstream);
            for listed in seen.listed().iter() {
                let Some(tool) = server.tool(&listed.name) else {
                    continue;
                };
                // What is shown must be what a call of it is judged by.
                let judged = seen.digest(&listed.name);
                let is_one = judged == listed.digest;
                let stands = is_one && tool.standing(judged.as_ref(), now).is_ok();
                if stands && rights.cover(&tool.call) {
                    tools.push(renamed(&listed.definition, &prefix, &listed.name));
                }
            }
        }
        tools
    }

    /// The server that a tool's name says, and the call as that server is to read it.
    fn named_call(&self, message: &Message) -> Result<Heard, Denial> {
        let absent = || Denial::new(Rule::NotInCatalogue, "the tool is not in the catalogue");
        let Kind::Request(request) = message.kind() else {
            return Err(absent());
        };
        let params = &request.params;
        let (Some(name), Some(place)) = (&params.name, &params.name_at) else {
            return Err(absent());
        };
        let (upstream, tool) = name.split_once(JOINT).ok_or_else(absent)?;
        let mut shared = self.live.shared_upstreams();
        let upstream = shared
            .find(|known| **known == *upstream)
            .ok_or_else(absent)?;
        let text = message.slice(&(0..message.bytes().len()));
        let mut edits = Edits::of(text);
        edits.replace(place.clone(), json!(tool).to_string());
        let message = Message::read(Bytes::from(edits.done()))
            .map_err(|refusal| Denial::new(Rule::Malformed, refusal.detail))?;
        Ok(Heard::Call(upstream, message))
    }

    async fn shared_answer(
        &mut self,
        message: &Message,
        heard: Heard,
        conversation: Conversation,
    ) -> Given {
        let revision = conversation.revision;
        let result = match heard {
            Heard::Answer(result) => result,
            Heard::Begins(version) => return self.shared_session(message, version).await,
            Heard::Taken | Heard::Call(..) => {
                self.ledger.on_well_known(RECORDED);
                let reply = Reply::json(&Method::POST, StatusCode::ACCEPTED, JSON, "");
                return self.give(reply, Told::Answered).await;
            }
            Heard::NoMethod => {
                let denial =
                    Denial::new(Rule::NotInCatalogue, "the shared endpoint has tools alone");
                let refused = denials::denied(message, revision, DenyAs::Error, denial);
                return self.refuse(refused).await;
            }
        };
        self.ledger.on_well_known(RECORDED);
        let text = text(message, &result);
        let reply = Reply::json(&Method::POST, StatusCode::OK, JSON, text);
        self.give(reply, Told::Answered).await
    }

    /// `initialize`: the session is the agent's alone, and stands for nothing yet.
    async fn shared_session(&mut self, message: &Message, version: Revision) -> Given {
        let id = fresh_id(&self.session.worker.random());
        let sessions = self.live.sessions();
        let sealed = sessions.seal(self.holder(SHARED), version, &id);
        let result = json!({
            "protocolVersion": version.as_str(),
            "capabilities": { "tools": {} },
            "serverInfo": server_info(),
        });
        self.ledger.on_well_known(RECORDED);
        let text = text(message, &result.to_string());
        let mut reply = Reply::json(&Method::POST, StatusCode::OK, JSON, text);
        if let Some(sealed) = sealed {
            reply.headers.insert(SESSION_ID, sealed);
        }
        self.give(reply, Told::Answered).await
    }

    async fn shared_call(
        &mut self,
        mut head: Box<Head>,
        (upstream, message): (Arc<str>, Message),
        conversation: Conversation,
    ) -> Given {
        let Some(found) = Doorway::named(&self.live, &upstream) else {
            return self.deny(&super::turn::no_method()).await;
        };
        let deny_as = found.deny_as();
        self.ledger.on_mcp(name_of(&upstream, &message));
        self.count(&upstream, &message);
        let name = match message.kind() {
            Kind::Request(request) => revision::named(request).and_then(revision::encoded),
            _ => None,
        };
        if let Some(name) = name.filter(|_| head.headers.contains_key(NAME)) {
            head.headers.insert(NAME, name);
        }
        // Judged before its server hears of the agent at all.
        let judged = found.clone().with(&self.live, head.clone());
        let revision = conversation.revision;
        let permitted = self.permit(judged, Asks::of(&message, revision));
        self.ledger.called_with(message.arguments());
        let permit = match permitted {
            Ok(permit) => permit,
            Err(denial) => {
                let refused = denials::denied(&message, revision, deny_as, denial);
                return self.refuse(refused).await;
            }
        };
        let conversation = match self.session_at(&upstream, &head, conversation).await {
            Ok(conversation) => conversation,
            Err(failure) => {
                // The record is of the call, not of what was said on its way.
                self.ledger.on_permit(&permit);
                return self.unbegun(failure, (&message, revision, deny_as)).await;
            }
        };
        let doorway = found.with(&self.live, head);
        self.mcp_call(doorway, message, conversation).await
    }

    /// There is no session to call in.
    async fn unbegun(
        &mut self,
        failure: ForwardFailure,
        (message, revision, deny_as): (&Message, Option<Revision>, DenyAs),
    ) -> Given {
        match failure {
            ForwardFailure::Denied(denial, status_number) => {
                self.ledger.judged_at(status_number);
                let refused = denials::denied(message, revision, deny_as, denial);
                self.refuse(refused).await
            }
            ForwardFailure::Upstream(error) => {
                let exchange = Exchange {
                    message: Some(message),
                    expected: expected(message, Answer::Plain),
                    conversation: Conversation::new(revision, None),
                    deny_as,
                };
                self.mcp_failed(&error, &exchange).await
            }
        }
    }

    /// The session at a server that a session here stands for.
    async fn session_at(
        &mut self,
        upstream: &Arc<str>,
        head: &Head,
        conversation: Conversation,
    ) -> Result<Conversation, ForwardFailure> {
        let (Some(revision), Some(shared)) = (conversation.revision, &conversation.session) else {
            return Ok(conversation);
        };
        let agent = self.session.peer.record().uri();
        let sessions = self.live.shared_sessions();
        let slot = sessions.slot(agent, &shared.id, upstream);
        // Calls that come at once wait for the first of them, each no longer than for an answer.
        let timer = self.session.worker.timers.timer();
        timer.restart(self.live.mcp_pause(upstream));
        let beginning = slot.get_or_try_init(|| self.begin_at(upstream, head, revision));
        let begun = timer.limit(beginning).await.map_err(UpstreamError::from)?;
        let id = begun?.clone();
        Ok(Conversation {
            revision: Some(revision),
            session: id.map(|id| Opened { id, revision }),
        })
    }

    /// Begins a session at a server, in the agent's name.
    async fn begin_at(
        &mut self,
        upstream: &Arc<str>,
        head: &Head,
        revision: Revision,
    ) -> Result<Option<String>, ForwardFailure> {
        let initialize = json!({
            "jsonrpc": "2.0", "id": 0, "method": "initialize",
            "params": { "protocolVersion": revision.as_str(), "capabilities": {}, "clientInfo": server_info() },
        });
        let begun = self
            .quietly(upstream, head, &initialize, Conversation::new(None, None))
            .await?;
        if begun.0 != Some(revision) {
            let detail = "the server settles on another revision than the session here";
            return Err(UpstreamError::Unusable(detail).into());
        }
        let session = begun.1.map(|id| Opened { id, revision });
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let conversation = Conversation::new(Some(revision), session.clone());
        self.quietly(upstream, head, &initialized, conversation)
            .await?;
        Ok(session.map(|session| session.id))
    }

    /// Sends a message of the enforcer's own making in the agent's name, permitted as any other.
    async fn quietly(
        &mut self,
        upstream: &Arc<str>,
        head: &Head,
        message: &Value,
        conversation: Conversation,
    ) -> Result<(Option<Revision>, Option<String>), ForwardFailure> {
        let message = Message::read(Bytes::from(message.to_string()))
            .map_err(|_| UpstreamError::Unusable("a session cannot be begun"))?;
        let found = Doorway::named(&self.live, upstream)
            .ok_or(UpstreamError::Unusable("the server is not there"))?;
        let mut doorway = found.with(&self.live, Box::new(head.clone()));
        super::heads::prepare(&mut doorway, &conversation);
        let kind = match message.id() {
            Some(_) => Answer::Initialize,
            None => Answer::Plain,
        };
        let number = self.session.peer.standing().status_number;
        let permit = self
            .permit(doorway, Asks::of(&message, None))
            .map_err(|denial| ForwardFailure::Denied(denial, number))?;
        let mut exchange = Exchange {
            message: Some(&message),
            expected: expected(&message, kind),
            conversation,
            deny_as: DenyAs::Result,
        };
        self.arrive(permit, &mut exchange).await
    }
}

/// What is done with the answer to a message of a session.
fn expected(message: &Message, kind: Answer) -> Expected {
    Expected {
        id: message.id().map(str::to_owned),
        kind,
        server_asks: true,
        states: None,
    }
}

/// Definitions go on as their servers wrote them, but for their names.
fn listed(tools: &[String], sessions: bool) -> String {
    let tools = tools.join(",");
    if sessions {
        format!("{{\"tools\":[{tools}]}}")
    } else {
        format!(
            "{{\"resultType\":\"complete\",\"tools\":[{tools}],\"ttlMs\":0,\"cacheScope\":\"private\"}}"
        )
    }
}

fn server_info() -> Value {
    json!({ "name": "agentca-enforcer", "version": env!("CARGO_PKG_VERSION") })
}

/// The id goes in as it stands.
fn text(message: &Message, result: &str) -> String {
    let id = message.id().unwrap_or("0");
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}")
}

/// Between an upstream's name and a tool's.
pub(crate) const JOINT: &str = "__";
/// What stands for all servers where one is named; no upstream can have it.
const SHARED: &str = "*";
const RECORDED: &str = "mcp:agentca:shared";
const JSON: &str = "application/json";
/// Sessions at servers remembered for one agent.
const KEPT: usize = 256;
/// Agents whose sessions are remembered.
const AGENTS: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_makes_none_forget_but_its_own() {
        let (sessions, upstream) = (SharedSessions::default(), Arc::from("bank"));
        let slot = |agent: &str, shared: &str| sessions.slot(agent, shared, &upstream);
        let begin = async || Ok::<_, ()>(Some("begun".to_owned()));
        slot("a", "s").get_or_try_init(begin).await.unwrap();
        for number in 0..KEPT * 2 {
            slot("b", &number.to_string());
        }
        assert!(slot("a", "s").get().is_some());
        assert!(slot("b", "s").get().is_none(), "another's session");
        let begun = sessions.begun.lock().unwrap();
        assert_eq!(begun["b"].sessions.len(), KEPT);
        assert_eq!(begun["b"].oldest.len(), KEPT);
    }

    #[tokio::test]
    async fn two_first_calls_begin_one_session() {
        let (sessions, upstream) = (SharedSessions::default(), Arc::from("bank"));
        let (one, other) = (
            sessions.slot("a", "s", &upstream),
            sessions.slot("a", "s", &upstream),
        );
        let begin = async || {
            tokio::task::yield_now().await;
            Ok::<_, ()>(Some("one".to_owned()))
        };
        let never = async || -> Result<Option<String>, ()> { panic!("begun twice") };
        let (first, second) =
            tokio::join!(one.get_or_try_init(begin), other.get_or_try_init(never));
        assert_eq!(first, second);
    }
}
