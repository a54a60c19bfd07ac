//! One request of MCP, from its head to its answer.

use std::sync::Arc;

use agentca_identity::crypto::sha256;
use agentca_identity::time::Timestamp;
use agentca_policy::{Rule, is_segment};
use bytes::Bytes;
use http::{Method, StatusCode, header};

use super::asks::Asks;
use super::denials::{self, Told as Refused};
use super::doorway::Doorway;
use super::exchange::Exchange;
use super::heads::{is_json, own_origin, parameters, prepare, repeat};
use super::lists::{Filter, Judge, ToolJudge};
use super::reply::{Answer, Expected};
use super::request_state::{StateSeal, Whose};
use super::revision::{self, LAST_EVENT_ID, Revision, SESSION_ID};
use super::rpc::{BAD_PARAMS, Kind, Message, RpcRefusal};
use super::session::{Holder, Opened};
use crate::body;
use crate::config::DenyAs;
use crate::head::Head;
use crate::jsonrpc::{self, Edits};
use crate::ops::McpKind;
use crate::record::McpName;
use crate::road::{Denial, Permit, authorise_mcp};
use crate::service::{Given, Told, Turn};

/// Which conversation a request is part of.
#[derive(Debug)]
pub(super) struct Conversation {
    /// None for `initialize`, which is about to settle it.
    pub(super) revision: Option<Revision>,
    pub(super) session: Option<Opened>,
}

impl Conversation {
    pub(super) fn new(revision: Option<Revision>, session: Option<Opened>) -> Self {
        Self { revision, session }
    }
}

impl Turn {
    /// Answers a request at an endpoint of MCP.
    pub(crate) async fn mcp(&mut self, doorway: Doorway) -> Given {
        self.ledger.on_mcp(unnamed(doorway.upstream()));
        let head = doorway.head();
        if let Err(denial) = own_origin(&head.headers, &self.asked.target_uri) {
            return self.deny(&denial).await;
        }
        match head.method {
            Method::POST => self.mcp_message(doorway).await,
            Method::GET | Method::DELETE => self.mcp_session(doorway).await,
            _ => self.deny(&no_method()).await,
        }
    }

    /// POST: one message.
    async fn mcp_message(&mut self, doorway: Doorway) -> Given {
        let body = match self.mcp_body(doorway.head()).await {
            Ok(body) => body,
            Err(denial) => return self.refuse(denials::unread(denial)).await,
        };
        let renewed = match self.take_live() {
            true => doorway.renewed(&self.live),
            false => Some(doorway),
        };
        let Some(doorway) = renewed else {
            let denial = Denial::new(Rule::NotInCatalogue, "the server is not there any more");
            return self.deny(&denial).await;
        };
        let message = match Message::read(body) {
            Ok(message) => message,
            Err(refusal) => return self.refuse(denials::unreadable(refusal)).await,
        };
        self.ledger.on_mcp(name_of(doorway.upstream(), &message));
        self.count(doorway.upstream(), &message);
        let endpoint = (&**doorway.upstream(), doorway.options().deny_as);
        let conversation = match self.conversation(endpoint, doorway.head(), &message) {
            Ok(conversation) => conversation,
            Err(refused) => return self.refuse(refused).await,
        };
        self.mcp_call(doorway, message, conversation).await
    }

    /// A message whose conversation is known.
    pub(super) async fn mcp_call(
        &mut self,
        mut doorway: Doorway,
        message: Message,
        conversation: Conversation,
    ) -> Given {
        prepare(&mut doorway, &conversation);
        repeat(&mut doorway, &message, conversation.revision);
        let revision = conversation.revision;
        let deny_as = doorway.options().deny_as;
        let states = self.states(doorway.upstream(), &message, revision);
        let message = match continued(message, states.as_ref()) {
            Ok(message) => message,
            Err(refusal) => return self.refuse(denials::unreadable(refusal)).await,
        };
        let expected = Expected {
            states,
            ..self.expected(&doorway, &message, revision)
        };
        let asks = Asks::of(&message, revision);
        let permitted = self.permit(doorway, asks);
        self.ledger.called_with(message.arguments());
        let permit = match permitted {
            Ok(permit) => permit,
            Err(denial) => {
                let refused = denials::denied(&message, revision, deny_as, denial);
                return self.refuse(refused).await;
            }
        };
        if let Err(refusal) = parameters(&permit, &message, revision) {
            return self.refuse(denials::disagreeing(&message, refusal)).await;
        }
        let exchange = Exchange {
            message: Some(&message),
            expected,
            conversation,
            deny_as,
        };
        self.exchange(permit, exchange).await
    }

    pub(super) fn count(&self, upstream: &Arc<str>, message: &Message) {
        let counters = &self.session.worker.counters;
        counters.mcp(upstream, McpKind::of(message.method()));
    }

    /// GET opens a session's stream, DELETE ends the session.
    async fn mcp_session(&mut self, mut doorway: Doorway) -> Given {
        let conversation = match self.session_of(&doorway) {
            Ok(conversation) => conversation,
            Err(denial) => return self.deny(&denial).await,
        };
        prepare(&mut doorway, &conversation);
        let head = doorway.head();
        if head.headers.contains_key(LAST_EVENT_ID) && conversation.session.is_none() {
            // Without a session a server tells clients apart by nothing but us.
            let detail = "Last-Event-ID resumes a stream of a session, and there is none";
            return self.deny(&Denial::new(Rule::Malformed, detail)).await;
        }
        let (name, resumed) = match head.method {
            Method::GET => ("events", head.headers.contains_key(LAST_EVENT_ID)),
            _ => ("end", false),
        };
        let kind = if resumed {
            Answer::Resumed(self.every_filter(&doorway))
        } else {
            Answer::Plain
        };
        let expected = Expected {
            id: None,
            kind,
            server_asks: true,
            states: None,
        };
        let deny_as = doorway.options().deny_as;
        match self.permit(doorway, Asks::Talk(name)) {
            Ok(permit) => {
                let exchange = Exchange {
                    message: None,
                    expected,
                    conversation,
                    deny_as,
                };
                self.exchange(permit, exchange).await
            }
            Err(denial) => self.deny(&denial).await,
        }
    }

    pub(super) async fn refuse(&mut self, refused: Refused) -> Given {
        let Refused { denial, reply } = refused;
        self.give(*reply, Told::Denied(&denial)).await
    }

    /// Everything the head decides was decided: now the body is read.
    pub(super) async fn mcp_body(&mut self, head: &Head) -> Result<Bytes, Denial> {
        if !is_json(&head.headers) {
            let denial = Denial::new(Rule::Malformed, "Content-Type must be application/json");
            return Err(denial.with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        if head.headers.contains_key(header::CONTENT_ENCODING) {
            let denial = Denial::new(Rule::Malformed, "a message must not be encoded");
            return Err(denial.with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let limits = &self.live.config().limits;
        body::refuse_length(head.length, limits.request_max)?;
        let Some(incoming) = &mut self.body else {
            return Ok(Bytes::new());
        };
        let timer = self.session.worker.timers.after(limits.body_timeout);
        let mut room = self.session.reserve();
        let held = (&mut room, limits.buffered_max);
        let bytes = body::read_request(incoming, limits.request_max, &timer, held).await?;
        self.room = Some(room);
        let digest = sha256(&bytes);
        body::check_digest(self.asked.content_digest.as_deref(), &digest)?;
        self.ledger.request_body(&digest);
        Ok(bytes)
    }

    pub(super) fn conversation(
        &self,
        (upstream, deny_as): (&str, DenyAs),
        head: &Head,
        message: &Message,
    ) -> Result<Conversation, Refused> {
        let headers = &head.headers;
        let revision = match message.kind() {
            Kind::Request(request) => revision::of_request(request, headers),
            Kind::Notification { .. } | Kind::Response => revision::of_head(headers),
        };
        let revision = revision.map_err(|refusal| denials::disagreeing(message, refusal))?;
        if revision.is_some_and(|revision| !revision.has_sessions()) {
            if matches!(message.kind(), Kind::Response) {
                let detail = "this revision has no requests of servers, and so no answers to them";
                let denial = Denial::new(Rule::Malformed, detail);
                return Err(denials::denied(message, revision, deny_as, denial));
            }
            return Ok(Conversation::new(revision, None));
        }
        let deny = |denial| denials::denied(message, revision, deny_as, denial);
        if message.method() == "initialize" {
            return Ok(Conversation::new(None, None));
        }
        let session = self.opened(upstream, head).map_err(deny)?;
        settle(revision, session).map_err(deny)
    }

    fn session_of(&self, doorway: &Doorway) -> Result<Conversation, Denial> {
        let told = revision::of_head(&doorway.head().headers)
            .map_err(|refusal| Denial::new(Rule::Malformed, refusal.detail))?;
        if told.is_some_and(|revision| !revision.has_sessions()) {
            return Err(no_method());
        }
        settle(told, self.opened(doorway.upstream(), doorway.head())?)
    }

    /// The session that a request names, which must be its agent's own.
    fn opened(&self, upstream: &str, head: &Head) -> Result<Option<Opened>, Denial> {
        let mut values = head.headers.get_all(SESSION_ID).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return match head.headers.contains_key(SESSION_ID) {
                true => Err(Denial::new(Rule::Malformed, "Mcp-Session-Id is repeated")),
                false => Ok(None),
            };
        };
        let holder = self.holder(upstream);
        let unknown = || {
            let detail = "there is no such session of this agent: begin again with `initialize`";
            Denial::new(Rule::Session, detail)
        };
        let opened = self.live.sessions().open(holder, value);
        opened.map(Some).ok_or_else(unknown)
    }

    pub(super) fn holder<'a>(&'a self, upstream: &'a str) -> Holder<'a> {
        let record = self.session.peer.record();
        Holder {
            upstream,
            agent: record.uri(),
            grant: record.grant(),
        }
    }

    pub(super) fn permit(&mut self, doorway: Doorway, asks: Asks<'_>) -> Result<Permit, Denial> {
        let registry = &self.session.worker.shared.registry;
        let peer = &self.session.peer;
        let known = peer.standing();
        self.ledger.judged_at(known.status_number);
        match authorise_mcp(&self.live, (peer, known), registry, (doorway, asks)) {
            Ok(permit) => {
                self.ledger.on_permit(&permit);
                Ok(permit)
            }
            Err(refusal) => {
                if let Some(matched) = refusal.matched {
                    self.ledger.on_match(matched);
                }
                Err(refusal.denial)
            }
        }
    }

    /// What is to be done with the answer.
    fn expected(
        &self,
        doorway: &Doorway,
        message: &Message,
        revision: Option<Revision>,
    ) -> Expected {
        let all = |method: &str, member| Answer::List(self.whole_filter(doorway, method, member));
        let kind = match message.method() {
            "tools/call" => Answer::Tool,
            "tools/list" => self
                .tool_filter(doorway)
                .map_or_else(|| all("", "tools"), Answer::List),
            "resources/list" => all("resources/read", "resources"),
            "resources/templates/list" => all("resources/read", "resourceTemplates"),
            "prompts/list" => all("prompts/get", "prompts"),
            "initialize" => Answer::Initialize,
            "server/discover" => Answer::Discover,
            _ => Answer::Plain,
        };
        Expected {
            id: message.id().map(str::to_owned),
            kind,
            server_asks: revision.is_none_or(Revision::has_sessions),
            states: None,
        }
    }

    /// Of a call that may need several rounds.
    fn states(
        &self,
        upstream: &Arc<str>,
        message: &Message,
        revision: Option<Revision>,
    ) -> Option<StateSeal> {
        let modern = revision.is_some_and(|revision| !revision.has_sessions());
        let Kind::Request(request) = message.kind() else {
            return None;
        };
        let several = ["tools/call", "prompts/get", "resources/read"];
        if !modern || !several.contains(&request.method.as_str()) {
            return None;
        }
        let record = self.session.peer.record();
        let whose = Whose {
            upstream: Arc::clone(upstream),
            agent: Arc::clone(record.uri()),
            grant: record.grant(),
        };
        Some(StateSeal::of(self.live.states(), whose, message))
    }

    /// A list of which an agent may have all or nothing, by the method that reads its members.
    fn whole_filter(&self, doorway: &Doorway, method: &str, member: &'static str) -> Filter {
        let call = doorway.server().and_then(|server| server.method(method));
        let any = call.is_some_and(|call| self.session.peer.rights().cover(call));
        Filter {
            member,
            judge: Judge::All(any),
        }
    }

    /// For a list of which nobody knows any more who asked.
    fn every_filter(&self, doorway: &Doorway) -> Vec<Filter> {
        let tools = self
            .tool_filter(doorway)
            .unwrap_or_else(|| self.whole_filter(doorway, "", "tools"));
        let mut filters = vec![tools];
        for (method, member) in [
            ("resources/read", "resources"),
            ("resources/read", "resourceTemplates"),
            ("prompts/get", "prompts"),
        ] {
            filters.push(self.whole_filter(doorway, method, member));
        }
        filters
    }

    fn tool_filter(&self, doorway: &Doorway) -> Option<Filter> {
        let upstream = doorway.upstream();
        let live = &self.live;
        let server = Arc::clone(doorway.server()?);
        let rights = self.session.peer.rights();
        let judge = ToolJudge {
            seen: live.seen_tools().of(upstream),
            pages: live.pages(upstream)?,
            now: self.session.worker.shared.registry.now(),
            rights,
            server,
        };
        Some(Filter {
            member: "tools",
            judge: Judge::Tools(judge),
        })
    }
}

/// Puts the server's own state where a client brought it sealed.
fn continued(message: Message, states: Option<&StateSeal>) -> Result<Message, RpcRefusal> {
    let Kind::Request(request) = message.kind() else {
        return Ok(message);
    };
    let Some(range) = request.params.request_state.clone() else {
        return Ok(message);
    };
    let Some(states) = states else {
        return Ok(message);
    };
    let sealed = jsonrpc::text(message.slice(&range)).unwrap_or_default();
    let Some(state) = states.open(&sealed, Timestamp::now()) else {
        return Err(RpcRefusal {
            code: BAD_PARAMS,
            detail: "`requestState` was not given for this call, or too long ago".to_owned(),
            id: message.id().map(str::to_owned),
        });
    };
    let mut edits = Edits::of(message.slice(&(0..message.bytes().len())));
    edits.replace(range, serde_json::Value::from(state).to_string());
    Message::read(Bytes::from(edits.done()))
}

/// Of a session the revision that was settled, which the head may repeat.
fn settle(told: Option<Revision>, session: Option<Opened>) -> Result<Conversation, Denial> {
    let settled = session.as_ref().map(|session| session.revision);
    let revision = match (told, settled) {
        (Some(told), Some(settled)) if told != settled => {
            let detail = "MCP-Protocol-Version is not what the session settled on";
            return Err(Denial::new(Rule::Malformed, detail));
        }
        (None, None) => {
            let detail =
                "MCP-Protocol-Version is missing, and there is no session that would say it";
            return Err(Denial::new(Rule::Malformed, detail));
        }
        (told, settled) => settled.or(told),
    };
    Ok(Conversation { revision, session })
}

/// Before the message was read.
pub(super) fn unnamed(upstream: &Arc<str>) -> McpName {
    McpName {
        upstream: Arc::clone(upstream),
        method: None,
        name: None,
    }
}

pub(super) fn name_of(upstream: &Arc<str>, message: &Message) -> McpName {
    let plain = |name: &&str| is_segment(name);
    McpName {
        upstream: Arc::clone(upstream),
        method: Some(message.method().to_owned()),
        name: message
            .tool()
            .filter(plain)
            .map(|name| format!("mcp:{upstream}:{name}")),
    }
}

pub(super) fn no_method() -> Denial {
    Denial::new(Rule::Malformed, "MCP is spoken by POST here")
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
}
