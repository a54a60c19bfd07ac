//! Changes of an agent's standing: grant, restriction, reinstatement.

use std::time::Duration;

use agentca_auditlog::status::StatusEvent;
use agentca_identity::grant::Grant;
use agentca_identity::name::{Environment, Name};
use agentca_identity::roles::PersonRole;
use agentca_identity::scope::ScopeSet;
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::trust::TrustLevel;

use super::issue::check_grant;
use super::{Caller, Change, Clock, Decision};
use crate::authority::event::{Draft, Event};
use crate::authority::handle::Handle;
use crate::authority::refusal::Refusal;
use crate::authority::state::State;

/// Replaces what an agent may be issued; what isn't given stays.
#[derive(Debug)]
pub struct SetGrant {
    /// Who asks: an issuer or an admin.
    pub caller: Caller,
    /// Where the agent is, unless its name is enough.
    pub environment: Option<Environment>,
    /// Which agent.
    pub name: Name,
    /// The widest scopes.
    pub scopes: Option<ScopeSet>,
    /// The highest trust level.
    pub max_trust: Option<TrustLevel>,
    /// The longest lifetime.
    pub max_lifetime: Option<Duration>,
    /// Its groups.
    pub groups: Option<Vec<String>>,
}

impl Change for SetGrant {
    type Outcome = SpiffeId;

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<SpiffeId>, Refusal> {
        self.caller.demand(PersonRole::Issuer, state, clock)?;
        let (handle, agent) = state.select(self.environment.as_ref(), &self.name)?;
        let standing = agent.grant.as_ref().map(|standing| &standing.grant);
        let scopes = self.scopes.or_else(|| standing.map(|g| g.scopes.clone()));
        let max_trust = self.max_trust.or_else(|| standing.map(|g| g.max_trust));
        let max_lifetime = self
            .max_lifetime
            .or_else(|| standing.map(|g| g.max_lifetime));
        let needed = [
            ("`--scope`", scopes.is_some()),
            ("`--trust`", max_trust.is_some()),
            ("`--ttl`", max_lifetime.is_some()),
        ];
        let (Some(scopes), Some(max_trust), Some(max_lifetime)) = (scopes, max_trust, max_lifetime)
        else {
            return Err(Refusal::first_issue(handle, &needed));
        };
        let grant = Grant {
            scopes,
            max_trust,
            max_lifetime,
            groups: self
                .groups
                .or_else(|| standing.map(|g| g.groups.clone()))
                .unwrap_or_default(),
            approved_by: self.caller.id,
        };
        check_grant(&grant)?;
        if grant.max_lifetime.is_zero() {
            return Err(Refusal::field("lifetime", "must be at least a second"));
        }
        let id = handle.agent(state.trust_domain());
        let draft = Draft::own(Event::GrantChanged {
            agent: id.clone(),
            grant,
        });
        Ok(Decision {
            drafts: vec![draft],
            outcome: id,
        })
    }
}

/// Lifts the suspension of a revoked agent. Certificates that were revoked stay so.
#[derive(Debug)]
pub struct Reinstate {
    /// Who asks: a responder or an admin.
    pub caller: Caller,
    /// Where the agent is, unless its name is enough.
    pub environment: Option<Environment>,
    /// Which agent.
    pub name: Name,
}

impl Change for Reinstate {
    type Outcome = SpiffeId;

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<SpiffeId>, Refusal> {
        self.caller.demand(PersonRole::Responder, state, clock)?;
        let (handle, agent) = state.select(self.environment.as_ref(), &self.name)?;
        if agent.revoked.is_none() {
            return Err(Refusal::NotRevoked(handle));
        }
        let id = handle.agent(state.trust_domain());
        let event = StatusEvent::AgentReinstated { agent: id.clone() };
        Ok(Decision {
            drafts: vec![Draft::status(
                handle.environment,
                Some(self.caller.id),
                event,
            )],
            outcome: id,
        })
    }
}

/// Lowers an agent's rights at every enforcer at once; neither trust nor scopes lifts it.
#[derive(Debug)]
pub struct Restrict {
    /// Who asks: a responder or an admin.
    pub caller: Caller,
    /// Which agent.
    pub agent: Handle,
    /// Highest trust level.
    pub trust: Option<TrustLevel>,
    /// Widest scopes.
    pub scopes: Option<ScopeSet>,
}

impl Change for Restrict {
    type Outcome = SpiffeId;

    fn uses_reserve(&self) -> bool {
        true
    }

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<SpiffeId>, Refusal> {
        let Self {
            caller,
            agent,
            trust,
            scopes,
        } = self;
        caller.demand(PersonRole::Responder, state, clock)?;
        if state.agent(&agent).is_none() {
            return Err(Refusal::UnknownAgent(agent.to_string()));
        }
        let id = agent.agent(state.trust_domain());
        let event = StatusEvent::AgentRestricted {
            agent: id.clone(),
            trust,
            scopes,
        };
        Ok(Decision {
            drafts: vec![Draft::status(agent.environment, Some(caller.id), event)],
            outcome: id,
        })
    }
}
