//! Enforcers: adding and retiring.

use std::net::IpAddr;

use agentca_auditlog::status::StatusEvent;
use agentca_identity::name::DnsName;
use agentca_identity::roles::PersonRole;
use agentca_identity::spiffe::{LogOrigin, SpiffeId};

use super::{Caller, Change, Clock, Decision, judge_key};
use crate::authority::event::{Draft, Event};
use crate::authority::handle::{Handle, Holder};
use crate::authority::refusal::Refusal;
use crate::authority::state::{Enforcer, KeyId, State};

/// Adds an enforcer, or opens the next generation of one's log.
#[derive(Debug)]
pub struct AddEnforcer {
    /// Who asks: an admin.
    pub caller: Caller,
    /// Which enforcer.
    pub enforcer: Handle,
    /// DNS names in its certificate.
    pub dns: Vec<DnsName>,
    /// IP addresses in its certificate.
    pub ip: Vec<IpAddr>,
    /// The keys of its TLS certificate, its log and its responses.
    pub keys: EnforcerKeys,
    /// What to do about a log that is there already.
    pub log: LogChoice,
    /// Our issuing CAs, DER: what an environment is opened with.
    pub issuers: Vec<Vec<u8>>,
}

/// An enforcer's three keys.
#[derive(Clone, Copy, Debug)]
pub struct EnforcerKeys {
    /// For TLS.
    pub tls: KeyId,
    /// For its log.
    pub log: KeyId,
    /// For its responses.
    pub response: KeyId,
}

/// What to do about a log that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogChoice {
    /// Go on with it.
    Keep,
    /// It is lost: open its next generation.
    Next,
}

impl Change for AddEnforcer {
    type Outcome = LogOrigin;

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<LogOrigin>, Refusal> {
        self.caller.demand(PersonRole::Admin, state, clock)?;
        clock.demand_right()?;
        let origin = self.origin(state, clock)?;
        let response = origin.response().map_err(internal)?;
        let EnforcerKeys {
            tls,
            log,
            response: response_key,
        } = self.keys;
        if tls == log || tls == response_key || log == response_key {
            return Err(Refusal::field(
                "keys",
                "an enforcer's three keys must differ",
            ));
        }
        let holders = [
            (tls, Holder::Enforcer(self.enforcer.clone())),
            (log, Holder::Signer(self.enforcer.clone(), origin.clone())),
            (
                response_key,
                Holder::Signer(self.enforcer.clone(), response),
            ),
        ];
        holders
            .iter()
            .try_for_each(|(key, holder)| judge_key(state, key, holder))?;
        let mut drafts = Vec::with_capacity(2);
        if state.chain(&self.enforcer.environment).is_none() {
            let opened = StatusEvent::EnvironmentOpened {
                issuers: self.issuers,
            };
            let by = Some(self.caller.id.clone());
            drafts.push(Draft::status(self.enforcer.environment.clone(), by, opened));
        }
        drafts.push(Draft::own(Event::EnforcerAdded {
            enforcer: self.enforcer.enforcer(state.trust_domain()),
            dns: self.dns,
            ip: self.ip,
            log_origin: origin.clone(),
            by: self.caller.id,
        }));
        Ok(Decision {
            drafts,
            outcome: origin,
        })
    }
}

impl AddEnforcer {
    /// The origin of its log: a generation that was ever removed or lost is never used again.
    fn origin(&self, state: &State, clock: Clock) -> Result<LogOrigin, Refusal> {
        let Some(known) = state.enforcer(&self.enforcer) else {
            let Handle { environment, name } = self.enforcer.clone();
            return Ok(LogOrigin::enforcer(
                state.trust_domain().clone(),
                environment,
                name,
            ));
        };
        if known.removed || self.log == LogChoice::Next {
            let generation = known.log_origin.generation().unwrap_or(1).saturating_add(1);
            return known
                .log_origin
                .with_generation(generation)
                .map_err(internal);
        }
        if has_credentials(known, state, clock) {
            return Err(Refusal::EnforcerExists(self.enforcer.clone()));
        }
        Ok(known.log_origin.clone())
    }
}

/// Whether it still has a TLS certificate to renew everything with.
fn has_credentials(enforcer: &Enforcer, state: &State, clock: Clock) -> bool {
    enforcer
        .serials
        .iter()
        .filter_map(|serial| state.certificate(serial))
        .any(|issued| matches!(issued.holder, Holder::Enforcer(_)) && issued.in_force(clock.now))
}

/// Retires an enforcer: its certificates end and it is not waited for again.
#[derive(Debug)]
pub struct RemoveEnforcer {
    /// Who asks: an admin.
    pub caller: Caller,
    /// Which enforcer.
    pub enforcer: Handle,
}

impl Change for RemoveEnforcer {
    type Outcome = SpiffeId;

    fn uses_reserve(&self) -> bool {
        true
    }

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<SpiffeId>, Refusal> {
        let Self { caller, enforcer } = self;
        caller.demand(PersonRole::Admin, state, clock)?;
        match state.enforcer(&enforcer) {
            Some(known) if !known.removed => {}
            Some(_) => return Err(Refusal::RemovedAlready(enforcer)),
            None => return Err(Refusal::UnknownEnforcer(enforcer)),
        }
        let id = enforcer.enforcer(state.trust_domain());
        let event = Event::EnforcerRemoved {
            enforcer: id.clone(),
            by: caller.id,
        };
        Ok(Decision {
            drafts: vec![Draft::own(event)],
            outcome: id,
        })
    }
}

fn internal(error: impl ToString) -> Refusal {
    Refusal::Internal(error.to_string())
}
