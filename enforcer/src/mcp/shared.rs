//! `/mcp`: the tools of several servers under one endpoint, named `<upstream>__<tool>`.
//!
//! The enforcer itself answers for what is about all of them: who is there, and which tools. A call goes
//! to the one server that its name says as if it had come by that server's own endpoint: it is judged,
//! recorded and forwarded as that, under the tool's own name. In the revisions with sessions a session
//! at the shared endpoint stands for one at each server, begun when it is first needed, and a cancellation goes
//! to the server at which the call runs.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use agentca_policy::Rule;

use super::asks::Asks;
use super::denials;
use super::doorway::{Doorway, Found};
use super::exchange::Exchange;
use super::lists::renamed;
use super::reply::{Answer, Expected};
use super::revision::{self, NAME, Revision, SESSION_ID};
use super::rpc::{Kind, Message};
use super::session::{Opened, fresh_id};
use super::shared_sessions::CallKey;
use super::turn::{Conversation, name_of};
use crate::answer::Reply;
use crate::config::DenyAs;
use crate::forward::ForwardFailure;
use crate::head::Head;
use crate::jsonrpc::{Edits, Members};
use crate::live::Live;
use crate::road::Denial;
use crate::service::{Given, Told, Turn};
use crate::upstream::UpstreamError;

/// What a message at the shared endpoint is.
enum Heard {
    /// The enforcer's own to answer.
    Own(Own),
    /// What one server is to have, as it is to read it.
    Call(Arc<str>, Message),
}

/// What the enforcer answers itself.
enum Own {
    /// This is the answer.
    Answer(String),
    /// A session begins.
    Begins(Revision),
    /// There is no such method here.
    NoMethod,
    /// It wants no answer.
    Taken,
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
            Heard::Own(own) => self.shared_answer(&message, own, conversation).await,
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
            Kind::Notification { .. } => {
                let cancelled = self.cancelled(message, conversation);
                return Ok(cancelled.unwrap_or(Heard::Own(Own::Taken)));
            }
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
        Ok(Heard::Own(match request.method.as_str() {
            "tools/list" => Own::Answer(listed(&tools, sessions)),
            "initialize" if sessions => {
                let version = request.params.version.as_deref().and_then(Revision::parse);
                let version = version.filter(|version| version.has_sessions());
                Own::Begins(version.unwrap_or(Revision::V20251125))
            }
            "ping" if sessions => Own::Answer("{}".to_owned()),
            "server/discover" if !sessions => {
                let discovered = json!({
                    "resultType": "complete",
                    "supportedVersions": Revision::ALL.map(Revision::as_str),
                    "capabilities": { "tools": {} },
                    "ttlMs": 0,
                    "cacheScope": "private",
                    "_meta": { "io.modelcontextprotocol/serverInfo": server_info() },
                });
                Own::Answer(discovered.to_string())
            }
            _ => Own::NoMethod,
        }))
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

    /// What is to be said to the server at which a call of this session runs that its client cancels.
    fn cancelled(&self, message: &Message, conversation: &Conversation) -> Option<Heard> {
        if message.method() != CANCELLED {
            return None;
        }
        let text = message.slice(&(0..message.bytes().len()));
        let params = Members::of(text)?.members("params")?;
        let call = CallKey::of(&conversation.session.as_ref()?.id, params.raw("requestId")?);
        let agent = self.session.peer.record().uri();
        let upstream = self.live.shared_sessions().place_of(agent, call)?;
        let message = Message::read(message.bytes().clone()).ok()?;
        Some(Heard::Call(upstream, message))
    }

    async fn shared_answer(
        &mut self,
        message: &Message,
        own: Own,
        conversation: Conversation,
    ) -> Given {
        let revision = conversation.revision;
        let result = match own {
            Own::Answer(result) => result,
            Own::Begins(version) => return self.shared_session(message, version).await,
            Own::Taken => {
                self.ledger.on_well_known(RECORDED);
                let reply = Reply::json(&Method::POST, StatusCode::ACCEPTED, JSON, "");
                return self.give(reply, Told::Answered).await;
            }
            Own::NoMethod => {
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

    /// Passes on what one server is to have, and remembers where a call runs for as long as it can be cancelled.
    async fn shared_call(
        &mut self,
        head: Box<Head>,
        (upstream, message): (Arc<str>, Message),
        conversation: Conversation,
    ) -> Given {
        let shared = conversation.session.as_ref();
        let call = message.id().zip(shared);
        let call = call.map(|(id, shared)| CallKey::of(&shared.id, id));
        let agent = Arc::clone(self.session.peer.record().uri());
        if let Some(call) = call {
            let sessions = self.live.shared_sessions();
            sessions.begins(&agent, call, &upstream);
        }
        let given = self
            .call_at(head, (upstream, message), conversation)
            .await?;
        let media = given.headers().get(header::CONTENT_TYPE);
        // A stream has only begun.
        if let Some(call) = call.filter(|_| media.is_none_or(|media| media != EVENT_STREAM)) {
            self.live.shared_sessions().ends(&agent, call);
        }
        Ok(given)
    }

    async fn call_at(
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
        let conversation = match self.begun(&upstream, conversation) {
            Ok(conversation) => {
                let doorway = found.with(&self.live, head);
                return self.mcp_call(doorway, message, conversation).await;
            }
            Err(conversation) => conversation,
        };
        // Judged before a session is begun: its server is to hear nothing of who may not call.
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
        let before = Arc::clone(&self.live);
        let conversation = match self.session_at(&upstream, &head, conversation).await {
            Ok(conversation) => conversation,
            Err(failure) => {
                // The record is of the call, not of what was said on its way.
                self.ledger.on_permit(&permit);
                return self.unbegun(failure, (&message, revision, deny_as)).await;
            }
        };
        let Some(found) = self.still_there(&upstream, &before) else {
            let detail = "its server was moved while its session began";
            let denial = Denial::new(Rule::NotInCatalogue, detail);
            let refused = denials::denied(&message, revision, deny_as, denial);
            return self.refuse(refused).await;
        };
        let doorway = found.with(&self.live, head);
        self.mcp_call(doorway, message, conversation).await
    }

    /// The endpoint by the settings in force now, if it is of the same server as `before`: to begin a session takes
    /// its server as long as it likes.
    fn still_there(&mut self, upstream: &str, before: &Live) -> Option<Found> {
        self.take_live();
        let is_same = self.live.transport(upstream) == before.transport(upstream);
        is_same.then(|| Doorway::named(&self.live, upstream))?
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

    /// The conversation at a server, where no session has to be begun for it; else the one here.
    fn begun(
        &self,
        upstream: &Arc<str>,
        conversation: Conversation,
    ) -> Result<Conversation, Conversation> {
        let (Some(revision), Some(shared)) = (conversation.revision, &conversation.session) else {
            return Ok(conversation);
        };
        let agent = self.session.peer.record().uri();
        let sessions = self.live.shared_sessions();
        let begun = sessions.begun(agent, &shared.id, upstream);
        let id = begun.ok_or(conversation)?;
        Ok(in_session(revision, id))
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
        Ok(in_session(revision, begun?.clone()))
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

fn in_session(revision: Revision, id: Option<String>) -> Conversation {
    Conversation::new(Some(revision), id.map(|id| Opened { id, revision }))
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
const CANCELLED: &str = "notifications/cancelled";
const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";
