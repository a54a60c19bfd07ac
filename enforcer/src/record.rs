//! What is recorded of a request, and that it is, whatever becomes of it (ARCHITECTURE.md, promises 2 and
//! 3).
//!
//! A [`Ledger`] follows one request. It writes one record when decision and outcome are known
//! together, two when the decision had to come first. From the moment a request was sent to an
//! upstream its drop writes the missing outcome: a client that goes away, a revocation or a shutdown
//! leaves no call without an end.

mod fields;
mod parts;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use agentca_auditlog::decision::{CallFields, DecisionFields, OutcomeFields, RequestFields};
use agentca_auditlog::log::{StageError, Staged};
use agentca_auditlog::receipt::salted_digest;
use agentca_identity::crypto::{Sha256, sha256};
use agentca_identity::scope::Scope;
use agentca_policy::Rule;
use http::{HeaderValue, Method};

use self::parts::RequestId;
pub(crate) use self::parts::{AgentPart, Ended};
use crate::config::DisclosedValues;
use crate::disclosures::Disclosures;
use crate::head::{Head, Trace};
use crate::mcp::Arguments;
use crate::ops::{Decided, Finished, Measured};
use crate::road::{Denial, Matched, Permit};
use crate::session::Session;
use crate::shares::Calling;

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Outcome<'a> {
    pub(crate) status: u16,
    pub(crate) ended: Ended,
    /// SHA-256 of the answer's body; it is salted in the record.
    pub(crate) digest: [u8; 32],
    pub(crate) length: u64,
    pub(crate) error: Option<&'a str>,
}

/// Follows one request.
#[derive(Debug)]
pub(crate) struct Ledger {
    session: Rc<Session>,
    started: Instant,
    id: RequestId,
    salt: [u8; 16],
    method: Method,
    trace: Option<Trace>,
    call: CallName,
    mcp: Option<Box<McpName>>,
    /// What a tool was called with, until the decision is recorded.
    arguments: Option<Box<Arguments>>,
    /// Held until the call has ended, its stream included.
    calling: Option<Calling>,
    /// What went wrong though there was an answer.
    failure: Option<&'static str>,
    scope: Option<Scope>,
    request_digest: Option<[u8; 32]>,
    status_number: u64,
    state: State,
    /// What has left of a running stream.
    streamed: Option<Box<Streamed>>,
    clock: Finished,
}

#[derive(Debug)]
struct Streamed {
    status: u16,
    hash: Sha256,
    length: u64,
}

#[derive(Debug)]
enum CallName {
    Unknown,
    WellKnown(&'static str),
    Matched(Matched),
}

/// What a message of MCP says that it is, whatever the catalogue has of it.
#[derive(Clone, Debug)]
pub(crate) struct McpName {
    pub(crate) upstream: Arc<str>,
    /// The JSON-RPC method, once it was read.
    pub(crate) method: Option<String>,
    /// `mcp:<upstream>:<tool>`, for a tool whose name can be written so.
    pub(crate) name: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing was recorded, and nothing happened that had to be.
    Open,
    /// Bytes may have reached the upstream; nothing was recorded.
    Sent,
    /// The decision was recorded.
    Decided(Staged),
    /// Everything was.
    Closed,
}

/// A record could not be staged.
#[derive(Debug, thiserror::Error)]
#[error("the log takes no records: {0}")]
pub(crate) struct LedgerError(#[from] StageError);

/// Records that a connection is ended for what its client did: a denial of all that it would ask.
pub(crate) fn record_flood(session: &Session, how: &str) {
    let shared = &session.worker.shared;
    let id = RequestId::new(session.worker.random());
    let fields = DecisionFields {
        agent: Some(session.peer.record().fields()),
        call: CallFields {
            proto: "http",
            ..CallFields::default()
        },
        request: RequestFields {
            id: id.as_str(),
            trace: None,
            parent: None,
            digest: None,
            args: &[],
        },
        decision: "deny",
        rule: Some(Rule::Flood.as_str()),
        reason: Some(how),
        would: None,
        policy: None,
        status_number: Some(shared.registry.status_number()),
        result: None,
    };
    if let Err(error) = shared.log.stage(|head, out| fields.write(head, out)) {
        tracing::warn!(%error, "a flood was not recorded");
    }
}

impl Ledger {
    /// Opens the ledger of a request; the head is there when it could be read.
    pub(crate) fn begin(session: &Rc<Session>, method: &Method, head: Option<&Head>) -> Self {
        let (worker, started) = (&session.worker, Instant::now());
        Self {
            session: Rc::clone(session),
            started,
            clock: Finished::starting(started),
            id: RequestId::new(worker.random()),
            salt: worker.random(),
            method: method.clone(),
            trace: head.and_then(|head| head.trace.clone()),
            call: CallName::Unknown,
            mcp: None,
            arguments: None,
            calling: None,
            failure: None,
            scope: None,
            request_digest: None,
            status_number: 0,
            state: State::Open,
            streamed: None,
        }
    }

    /// What the caller needs to recompute digests in the record.
    pub(crate) fn salt(&self) -> [u8; 16] {
        self.salt
    }

    /// What the upstream is told.
    pub(crate) fn request_id(&self) -> HeaderValue {
        HeaderValue::from_str(self.id.as_str()).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// What of the catalogue it is.
    pub(crate) fn on_match(&mut self, matched: Matched) {
        self.scope = None;
        self.call = CallName::Matched(matched);
    }

    /// What of the catalogue it is, once that is known.
    pub(crate) fn matched(&self) -> Option<&Matched> {
        match &self.call {
            CallName::Matched(matched) => Some(matched),
            CallName::Unknown | CallName::WellKnown(_) => None,
        }
    }

    /// Counts the call for its agent; false when too many run.
    pub(crate) fn takes_a_place(&mut self, most: usize) -> bool {
        self.calling = self.session.calling(most);
        self.calling.is_some()
    }

    /// It is a message of MCP.
    pub(crate) fn on_mcp(&mut self, name: McpName) {
        self.mcp = Some(Box::new(name));
    }

    /// What the tool, if it is one, is called with.
    pub(crate) fn called_with(&mut self, arguments: Option<&str>) {
        let (Some(Matched::Tool { tool, .. }), Some(text)) = (self.matched(), arguments) else {
            return;
        };
        let kept = self.session.worker.shared.disclosures.as_ref();
        let values = match kept.is_some_and(Disclosures::keeps) {
            true => DisclosedValues::Keep,
            false => DisclosedValues::Drop,
        };
        let arguments = Arguments::commit(tool, text, &self.salt, values);
        self.arguments = arguments.map(Box::new);
    }

    /// The answer says that it failed, or was not passed on.
    pub(crate) fn failed(&mut self, why: &'static str) {
        self.failure = Some(why);
    }

    pub(crate) fn on_well_known(&mut self, name: &'static str) {
        self.call = CallName::WellKnown(name);
    }

    pub(crate) fn on_permit(&mut self, permit: &Permit) {
        self.on_match(permit.matched().clone());
        self.scope = Some(permit.scope().clone());
    }

    /// The newest status record that the verdict follows from.
    pub(crate) fn judged_at(&mut self, status_number: u64) {
        self.status_number = status_number;
    }

    /// The SHA-256 of the request's body.
    pub(crate) fn request_body(&mut self, digest: &[u8; 32]) {
        self.request_digest = Some(salted_digest(&self.salt, digest));
    }

    /// The upstream has answered: with a head, and again with the whole.
    pub(crate) fn answered(&mut self) {
        self.clock.answered();
    }

    /// What is measured of it once its answer may leave.
    pub(crate) fn measured(&self) -> Measured {
        let upstream = self.matched().map(|matched| &matched.call().upstream);
        let counters = &self.session.worker.counters;
        counters.measured(upstream, self.clock)
    }

    /// From here on bytes may reach the upstream.
    pub(crate) fn sent(&mut self) {
        self.clock.sent();
        if matches!(self.state, State::Open) {
            self.state = State::Sent;
        }
    }

    /// The head of a stream is about to leave.
    pub(crate) fn streams(&mut self, status: u16) {
        let streamed = Streamed {
            status,
            hash: Sha256::new(),
            length: 0,
        };
        self.streamed = Some(Box::new(streamed));
        if let State::Decided(decision) = self.state {
            let agent = self.session.peer.uri().clone();
            self.session
                .worker
                .shared
                .outcomes
                .begin(decision.index, agent);
        }
    }

    /// Gives everything to whoever sees the call's end; what stays behind records nothing.
    pub(crate) fn hand_over(&mut self) -> Self {
        let rest = Self {
            session: Rc::clone(&self.session),
            started: self.started,
            id: self.id,
            salt: self.salt,
            method: self.method.clone(),
            trace: self.trace.take(),
            call: std::mem::replace(&mut self.call, CallName::Unknown),
            mcp: self.mcp.take(),
            arguments: self.arguments.take(),
            calling: self.calling.take(),
            failure: self.failure,
            scope: self.scope.take(),
            request_digest: self.request_digest,
            status_number: self.status_number,
            state: self.state,
            streamed: self.streamed.take(),
            clock: self.clock,
        };
        self.state = State::Closed;
        rest
    }

    /// A piece of it has left.
    pub(crate) fn passed(&mut self, data: &[u8]) {
        if let Some(streamed) = &mut self.streamed {
            streamed.hash.update(data);
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            streamed.length = streamed.length.saturating_add(length);
        }
    }

    /// How much has left.
    pub(crate) fn length(&self) -> u64 {
        self.streamed.as_ref().map_or(0, |streamed| streamed.length)
    }

    /// Records that the call is allowed, before its outcome is known.
    pub(crate) fn decide(&mut self) -> Result<Staged, LedgerError> {
        if let State::Decided(staged) = self.state {
            return Ok(staged);
        }
        let staged = self.write_decision(None, None)?;
        self.state = State::Decided(staged);
        Ok(staged)
    }

    /// Records a denial with its answer. After a recorded decision it is the outcome.
    pub(crate) fn deny(
        &mut self,
        denial: &Denial,
        outcome: &Outcome<'_>,
    ) -> Result<Staged, LedgerError> {
        let staged = match self.state {
            State::Decided(decision) => self.write_outcome(decision, Some(denial), outcome)?,
            _ => self.write_decision(Some(denial), Some(outcome))?,
        };
        self.state = State::Closed;
        self.count(Some(denial.rule), outcome.status);
        Ok(staged)
    }

    /// Records the outcome of an allowed call, with the decision when that was not recorded yet.
    pub(crate) fn conclude(&mut self, outcome: &Outcome<'_>) -> Result<Staged, LedgerError> {
        let staged = match self.state {
            State::Decided(decision) => self.write_outcome(decision, None, outcome)?,
            _ => self.write_decision(None, Some(outcome))?,
        };
        self.state = State::Closed;
        self.count(None, outcome.status);
        Ok(staged)
    }

    /// Records how an answer ended whose head has left, or that there was none: nobody can be told
    /// if that fails.
    pub(crate) fn end(&mut self, ended: Ended) {
        let streamed = self.streamed.take();
        let (status, length, digest) = match streamed.map(|streamed| *streamed) {
            Some(Streamed {
                status,
                hash,
                length,
            }) => (status, length, hash.finish()),
            None => (0, 0, sha256(b"")),
        };
        let decided = self.state;
        match self.conclude(&Outcome {
            status,
            ended,
            digest,
            length,
            error: None,
        }) {
            Ok(outcome) => {
                if let (State::Decided(decision), true) = (decided, status > 0) {
                    self.session
                        .worker
                        .shared
                        .outcomes
                        .end(decision.index, outcome.index);
                }
            }
            Err(error) => {
                self.state = State::Closed;
                if let State::Decided(decision) = decided {
                    self.session.worker.shared.outcomes.lose(decision.index);
                }
                tracing::error!(%error, request = self.id.as_str(), "an outcome was not recorded");
            }
        }
    }
}

impl Ledger {
    fn write_decision(
        &mut self,
        denial: Option<&Denial>,
        outcome: Option<&Outcome<'_>>,
    ) -> Result<Staged, LedgerError> {
        let scope = self.used_scope();
        let digest = outcome.map(|outcome| salted_digest(&self.salt, &outcome.digest));
        let result = outcome.zip(digest.as_ref());
        let arguments = self.arguments.as_ref();
        let args = arguments.map_or_else(Vec::new, |arguments| arguments.committed());
        let fields = DecisionFields {
            agent: Some(self.session.peer.record().fields()),
            call: self.call_fields(),
            request: RequestFields {
                id: self.id.as_str(),
                trace: self.trace.as_ref().map(Trace::id),
                parent: self.trace.as_ref().map(Trace::parent),
                digest: self.request_digest.as_ref(),
                args: &args,
            },
            decision: if denial.is_some() { "deny" } else { "allow" },
            rule: Some(denial.map_or(self.allowing_rule(), |denial| denial.rule.as_str())),
            reason: denial.map(|denial| denial.detail.as_ref()),
            would: None,
            policy: None,
            status_number: Some(self.status_number),
            result: result.map(|(outcome, digest)| self.result_fields(outcome, digest, &scope)),
        };
        let shared = &self.session.worker.shared;
        let staged = shared.log.stage(|head, out| fields.write(head, out))?;
        let kept = shared.disclosures.as_ref().filter(|kept| kept.keeps());
        if let (Some(kept), Some(arguments)) = (kept, self.arguments.take()) {
            kept.keep(staged.index, arguments.into_disclosures());
        }
        Ok(staged)
    }

    fn write_outcome(
        &self,
        decision: Staged,
        denial: Option<&Denial>,
        outcome: &Outcome<'_>,
    ) -> Result<Staged, LedgerError> {
        let scope = self.used_scope();
        let digest = salted_digest(&self.salt, &outcome.digest);
        let registry = &self.session.worker.shared.registry;
        let fields = OutcomeFields {
            decision_index: decision.index,
            request_id: self.id.as_str(),
            rule: denial.map(|denial| denial.rule.as_str()),
            reason: denial.map(|denial| denial.detail.as_ref()),
            status_number: Some(registry.status_number()),
            result: self.result_fields(outcome, &digest, &scope),
        };
        let log = &self.session.worker.shared.log;
        Ok(log.stage(|head, out| fields.write(head, out))?)
    }

    fn count(&self, rule: Option<Rule>, status: u16) {
        let call = self.matched().map(Matched::call);
        self.session.worker.counters.decided(Decided {
            call: call.map(|call| (&call.upstream, call.risk)),
            rule,
            status,
        });
    }

    fn used_scope(&self) -> Vec<&str> {
        self.scope.iter().map(|scope| scope.as_str()).collect()
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if matches!(self.state, State::Open | State::Closed) {
            return;
        }
        self.end(self.session.why_dropped());
    }
}
