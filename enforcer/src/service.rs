//! What is done with one request, from its head to its sealed answer.

mod routed;

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use agentca_auditlog::log::Staged;
use agentca_auditlog::sse::Event;
use agentca_policy::Rule;
use arc_swap::Guard;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;

use crate::answer::{AnswerBody, OpenBody, Reply, Seal, SealError, seal_open};
use crate::body::Upload;
use crate::durable::Blocked;
use crate::gate::{Call, Protocol};
use crate::head::{Asked, Head, HeadRules};
use crate::head_scan::Shape;
use crate::live::Live;
use crate::mcp::{EventBody, Expected, Passage, Seen, Source as Messages};
use crate::ops::Measured;
use crate::record::{Ended, Ledger, LedgerError, Outcome};
use crate::road::{self, Cleared, Denial, authorise};
use crate::session::Session;
use crate::shares::Reserved;
use crate::upstream::{Link, Target, UpstreamError};
use crate::well_known::WellKnown;

/// Answers every request of a connection.
#[derive(Clone, Debug)]
pub(crate) struct AgentService {
    pub(crate) session: Rc<Session>,
}

/// No answer may be given: the connection closes without one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Abandoned {
    /// The log cannot grow.
    #[error("the log cannot grow")]
    Log,
    /// Signing failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The agent lost its rights, or its time is over: its connection is being cut.
    #[error("the connection is cut")]
    Cut,
    /// There is an answer already.
    #[error("answered twice")]
    Answered,
}

impl From<LedgerError> for Abandoned {
    fn from(_: LedgerError) -> Self {
        Self::Log
    }
}

impl From<Blocked> for Abandoned {
    fn from(_: Blocked) -> Self {
        Self::Log
    }
}

impl hyper::service::Service<Request<Incoming>> for AgentService {
    type Response = Response<AnswerBody>;
    type Error = Abandoned;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Abandoned>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // The gate opens here and not in the future: what the library does in between is ours.
        let (call, shape) = self.session.traffic.call();
        Box::pin(answer(Rc::clone(&self.session), request, call, shape))
    }
}

async fn answer(
    session: Rc<Session>,
    request: Request<Incoming>,
    call: Call,
    shape: Shape,
) -> Result<Response<AnswerBody>, Abandoned> {
    if session.worker.shared.log.blocked() {
        return Err(Abandoned::Log);
    }
    let (mut turn, head) = Turn::begin(session, request, call, shape);
    // Dropped before `turn`, whose ledger then knows what the connection is ended for.
    let answering = turn.session.answering();
    let given = judge(&mut turn, head).await;
    answering.answered();
    given
}

/// Decides on it, and does what was decided.
async fn judge(turn: &mut Turn, head: Result<Box<Head>, Denial>) -> Given {
    if let Some(waiting) = turn.waits_for_issue() {
        // Rare, and not worth its room in every request.
        Box::pin(waiting).await;
        turn.take_live();
    }
    let registry = &turn.session.worker.shared.registry;
    let peer = &turn.session.peer;
    let known = peer.standing();
    turn.ledger.judged_at(known.status_number);
    let most = turn.live.config().limits.max_agent_calls;
    if !turn.ledger.takes_a_place(most) {
        let detail = "as many calls of this agent as may run at one time do: wait for one to end";
        return turn.deny(&Denial::new(Rule::Concurrency, detail)).await;
    }
    match authorise(registry, &turn.live, (peer, known), head) {
        Ok(Cleared::Call(permit)) => turn.call(permit).await,
        Ok(Cleared::WellKnown(document)) => turn.well_known(document).await,
        Ok(Cleared::Mcp(doorway)) => Box::pin(turn.mcp(doorway)).await,
        Ok(Cleared::McpShared(head)) => Box::pin(turn.mcp_shared(head)).await,
        Err(refusal) => {
            if let Some(matched) = refusal.matched {
                turn.ledger.on_match(matched);
            }
            turn.deny(&refusal.denial).await
        }
    }
}

/// One request being answered. Its steps borrow it: moving it costs more than most of them.
pub(crate) struct Turn {
    pub(crate) session: Rc<Session>,
    pub(crate) live: Arc<Live>,
    pub(crate) asked: Asked,
    pub(crate) ledger: Ledger,
    /// `None` once it was handed over to be streamed.
    pub(crate) body: Option<Incoming>,
    /// The body, once it was handed over.
    upload: Option<Rc<Upload>>,
    /// For the body that was read.
    pub(crate) room: Option<Reserved>,
    /// `None` once it was handed over to the answer.
    call: Option<Call>,
}

pub(crate) type Given = Result<Response<AnswerBody>, Abandoned>;

impl Turn {
    fn begin(
        session: Rc<Session>,
        request: Request<Incoming>,
        call: Call,
        shape: Shape,
    ) -> (Self, Result<Box<Head>, Denial>) {
        let live = session.worker.shared.live.load_full();
        let (parts, body) = request.into_parts();
        let asked = Asked::of(&parts);
        let limits = &live.config().limits;
        let rules = HeadRules {
            protocol: session.traffic.protocol(),
            shape,
            sni: session.sni.as_deref(),
            authorities: live.authorities(),
            head_max: limits.head_max,
            headers_max: limits.headers_max,
        };
        let head = Head::read(parts, &rules);
        let ledger = Ledger::begin(&session, &asked.method, head.as_deref().ok());
        let (body, call) = (Some(body), Some(call));
        (
            Self {
                session,
                live,
                asked,
                ledger,
                body,
                upload: None,
                room: None,
                call,
            },
            head,
        )
    }

    /// Takes the settings that are in force by now: a body takes its time. Gives whether they are others.
    pub(crate) fn take_live(&mut self) -> bool {
        let live = self.session.worker.shared.live.load();
        if Arc::ptr_eq(&live, &self.live) {
            return false;
        }
        self.live = Guard::into_inner(live);
        true
    }

    fn waits_for_issue(&self) -> Option<impl Future<Output = ()> + use<>> {
        let (session, live) = (&self.session, &self.live);
        let registry = &session.worker.shared.registry;
        if !road::waits_for_issue(registry, live, &session.peer) {
            return None;
        }
        let (session, limit) = (Rc::clone(session), live.config().limits.issued_wait);
        Some(async move {
            session.peer.issued(limit).await;
        })
    }

    pub(crate) async fn deny(&mut self, denial: &Denial) -> Given {
        let reply = Reply::problem(&self.asked.method, denial);
        self.give(reply, Told::Denied(denial)).await
    }

    async fn well_known(&mut self, document: WellKnown) -> Given {
        self.ledger.on_well_known(document.name());
        let shared = &self.session.worker.shared;
        let reading = document.read(shared, &self.live, self.session.peer.uri());
        // Rare, and not worth its room in every request.
        match Box::pin(reading).await {
            Ok(text) => {
                let method = &self.asked.method;
                let reply = Reply::json(method, StatusCode::OK, "application/json", text);
                self.give(reply, Told::Answered).await
            }
            Err(denial) => self.deny(&denial).await,
        }
    }

    pub(crate) async fn upstream_failed(&mut self, error: &UpstreamError) -> Given {
        // By the cut itself: the ledger's drop says why.
        if self.session.is_cut() {
            return Err(Abandoned::Cut);
        }
        // When its request was broken off, by what the client sent or did not.
        if let Some(denial) = self.upload.as_ref().and_then(|upload| upload.fault()) {
            return self.deny(&denial).await;
        }
        let denial = Denial::from(error);
        self.say_failed(error);
        let reply = Reply::problem(&self.asked.method, &denial);
        self.give(reply, Told::Failed(&denial.detail)).await
    }

    pub(crate) fn say_failed(&self, error: &UpstreamError) {
        let Some(matched) = self.ledger.matched() else {
            return;
        };
        let call = matched.call();
        let counters = &self.session.worker.counters;
        counters.failed(&call.upstream, error.into());
        let url = self.live.target(&call.upstream);
        let url = url.map(|target| target.to_string());
        tracing::warn!(
            upstream = &*call.upstream,
            url = url.unwrap_or_default(),
            call = call.name,
            error = error as &dyn std::error::Error,
            "the upstream failed"
        );
    }

    /// Records, signs while the disk syncs, and lets the answer go once its record is durable.
    pub(crate) fn give(
        &mut self,
        reply: Reply,
        told: Told<'_>,
    ) -> impl Future<Output = Given> + use<> {
        let prepared = self.prepare(reply, told);
        let durability = Rc::clone(&self.session.worker.durability);
        let measured = self.ledger.measured();
        async move {
            let (response, index) = prepared?;
            durability.wait(index).await?;
            measured.leaves();
            Ok(response)
        }
    }

    /// Stages the record and seals the answer with it.
    fn prepare(
        &mut self,
        reply: Reply,
        told: Told<'_>,
    ) -> Result<(Response<AnswerBody>, u64), Abandoned> {
        let digest = reply.digest();
        let (ended, error) = match told {
            Told::Failed(error) => (Ended::UpstreamFailed, Some(error)),
            Told::Answered | Told::Denied(_) => (Ended::Complete, None),
        };
        let status = reply.status.as_u16();
        let outcome = Outcome {
            status,
            ended,
            digest,
            length: reply.length(),
            error,
        };
        let staged = match told {
            Told::Denied(denial) => self.ledger.deny(denial, &outcome)?,
            Told::Answered | Told::Failed(_) => self.ledger.conclude(&outcome)?,
        };
        let call = self.call.take().ok_or(Abandoned::Answered)?;
        let response = reply.seal_closed(&self.seal(staged), &digest, call)?;
        Ok((response, staged.index))
    }

    /// Lets the head of a stream go once its decision is durable.
    async fn open(
        &self,
        (staged, measured): (Staged, Measured),
        (status, headers): (StatusCode, HeaderMap),
        body: OpenBody,
    ) -> Given {
        let response = seal_open(&self.seal(staged), status, headers, body)?;
        self.session.worker.durability.wait(staged.index).await?;
        measured.leaves();
        Ok(response)
    }

    /// Lets the head of a stream of messages go once the decision is durable.
    pub(crate) async fn events(
        &mut self,
        ((first, source), expected, seen): ((Option<Event>, Messages), Expected, Arc<Seen>),
        (status, headers): (StatusCode, HeaderMap),
        (pause, alive): (Duration, Option<Duration>),
    ) -> Given {
        let staged = self.ledger.decide()?;
        self.ledger.streams(status.as_u16());
        let call = self.call.take().ok_or(Abandoned::Answered)?;
        let timers = &self.session.worker.timers;
        let timer = timers.after(pause);
        let alive = alive.map(|every| (timers.after(every), every));
        let passage = Passage {
            _asked: self.room.take(),
            expected,
            live: Arc::clone(&self.live),
            session: Rc::clone(&self.session),
            decision: staged.index,
            seen,
            seq: 0,
        };
        let measured = self.ledger.measured();
        let ledger = self.ledger.hand_over();
        let running = (call, self.session.running());
        let body = EventBody::new(
            (first, source),
            passage,
            (timer, pause, alive),
            ledger,
            running,
        );
        let body = OpenBody::Events(Box::new(body));
        self.open((staged, measured), (status, headers), body).await
    }

    /// Keeps the link of an answer that was read to its end.
    pub(crate) fn put_back(&self, target: &Target, link: Link) {
        let pool = &self.session.worker.pool;
        pool.put_back(target, link, &self.live.upstream_limits());
    }

    fn seal(&self, staged: Staged) -> Seal<'_> {
        Seal {
            session: &self.session,
            live: &self.live,
            asked: &self.asked,
            staged,
            salt: self.ledger.salt(),
            close: self.closes(),
        }
    }

    /// Whether the connection takes no further request: its body was not read, or where the next
    /// head begins is not known.
    fn closes(&self) -> bool {
        let unread = match (&self.body, &self.upload) {
            (Some(body), _) => !body.is_end_stream(),
            (None, upload) => upload.as_ref().is_none_or(|upload| !upload.ended()),
        };
        if unread {
            self.session.traffic.leave_unread();
        }
        self.session.traffic.protocol() == Protocol::Http1
            && (unread || self.session.traffic.closes())
    }
}

/// What an answer tells.
#[derive(Clone, Copy)]
pub(crate) enum Told<'a> {
    /// What was asked for.
    Answered,
    /// That it is denied.
    Denied(&'a Denial),
    /// That the upstream failed, and how.
    Failed(&'a str),
}
