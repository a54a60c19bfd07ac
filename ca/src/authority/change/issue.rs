//! Issuing to agents: the plan (registration and grant), then the certificate, judged again.

use std::time::Duration;

use agentca_auditlog::status::StatusEvent;
use agentca_identity::grant::{AgentRequest, Grant};
use agentca_identity::name::Owner;
use agentca_identity::roles::PersonRole;
use agentca_identity::scope::ScopeSet;
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::trust::TrustLevel;

use super::{Caller, Change, Clock, Decision, judge_key};
use crate::authority::event::{Draft, Event};
use crate::authority::facts::{Facts, Rights};
use crate::authority::handle::{Handle, Holder};
use crate::authority::refusal::Refusal;
use crate::authority::state::{Agent, KeyId, StandingGrant, State};

/// The longest lifetime an agent's certificate or grant may have.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most groups in a grant.
pub(crate) const MAX_GROUPS: usize = 64;
/// Most bytes in the name of a group.
pub(crate) const MAX_GROUP_NAME: usize = 128;

/// What is to be issued. The first time it also registers the agent and grants what is asked.
#[derive(Debug)]
pub struct PlanIssue {
    /// Who asks: an issuer or an admin.
    pub caller: Caller,
    /// For whom.
    pub agent: Handle,
    /// Needed the first time.
    pub owner: Option<Owner>,
    /// Needed the first time; then as granted unless given.
    pub scopes: Option<ScopeSet>,
    /// Needed the first time; then as granted unless given.
    pub trust: Option<TrustLevel>,
    /// Unless given, the default, or what the grant allows if that is shorter.
    pub lifetime: Option<Duration>,
    /// The grant's groups.
    pub groups: Vec<String>,
    /// The key to certify.
    pub key: KeyId,
    /// The default lifetime.
    pub default_lifetime: Duration,
    /// Our issuing CAs, DER: what an environment is opened with.
    pub issuers: Vec<Vec<u8>>,
}

/// What may be certified.
#[derive(Clone, Debug, PartialEq)]
pub struct IssuePlan {
    /// Who answers for the agent.
    pub owner: Owner,
    /// What the certificate will allow.
    pub request: AgentRequest,
    /// The grant.
    pub grant: Grant,
    /// The grant's record; none if it is the last one that this change writes.
    pub standing: Option<u64>,
}

impl Change for PlanIssue {
    type Outcome = IssuePlan;

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<IssuePlan>, Refusal> {
        self.caller.demand(PersonRole::Issuer, state, clock)?;
        clock.demand_right()?;
        judge_key(state, &self.key, &Holder::Agent(self.agent.clone()))?;
        match state.agent(&self.agent) {
            Some(agent) if agent.revoked.is_some() => Err(Refusal::Revoked(self.agent)),
            Some(agent) => match &agent.grant {
                Some(standing) => self.again(agent, standing),
                None => self.first(state, Some(&agent.owner)),
            },
            None => self.first(state, None),
        }
    }
}

impl PlanIssue {
    /// A first issue; `registered` is the owner when only the grant is missing, after a crash.
    fn first(
        self,
        state: &State,
        registered: Option<&Owner>,
    ) -> Result<Decision<IssuePlan>, Refusal> {
        let Self {
            caller,
            agent,
            owner,
            scopes,
            trust,
            lifetime,
            groups,
            ..
        } = self;
        if let (Some(asked), Some(registered)) = (&owner, registered)
            && asked != registered
        {
            return Err(Refusal::OtherOwner {
                agent,
                owner: registered.to_string(),
            });
        }
        let owner = owner.or(registered.cloned());
        let needed = [
            ("`--owner`", owner.is_some()),
            ("`--scope`", scopes.is_some()),
            ("`--trust`", trust.is_some()),
        ];
        let (Some(owner), Some(scopes), Some(trust)) = (owner, scopes, trust) else {
            return Err(Refusal::first_issue(agent, &needed));
        };
        let lifetime = lifetime.unwrap_or(self.default_lifetime);
        let max_lifetime = lifetime.max(self.default_lifetime);
        let id = agent.agent(state.trust_domain());
        let approved_by = caller.id.clone();
        let grant = Grant {
            scopes: scopes.clone(),
            max_trust: trust,
            max_lifetime,
            groups,
            approved_by,
        };
        check_grant(&grant)?;
        let request = AgentRequest {
            scopes,
            trust,
            lifetime,
        };
        grant.judge(&request).map_err(|why| Refusal::BeyondGrant {
            agent: agent.clone(),
            why,
        })?;
        let mut drafts = Vec::with_capacity(3);
        if state.chain(&agent.environment).is_none() {
            let opened = StatusEvent::EnvironmentOpened {
                issuers: self.issuers,
            };
            let by = Some(caller.id.clone());
            drafts.push(Draft::status(agent.environment.clone(), by, opened));
        }
        if registered.is_none() {
            let (agent, owner, by) = (id.clone(), owner.clone(), caller.id);
            drafts.push(Draft::own(Event::AgentRegistered { agent, owner, by }));
        }
        drafts.push(Draft::own(Event::GrantChanged {
            agent: id,
            grant: grant.clone(),
        }));
        Ok(Decision {
            drafts,
            outcome: IssuePlan {
                owner,
                request,
                grant,
                standing: None,
            },
        })
    }

    /// A further issue, within the standing grant.
    fn again(
        self,
        agent: &Agent,
        standing: &StandingGrant,
    ) -> Result<Decision<IssuePlan>, Refusal> {
        let grant = &standing.grant;
        if self.owner.is_some_and(|owner| owner != agent.owner) {
            let owner = agent.owner.to_string();
            return Err(Refusal::OtherOwner {
                agent: self.agent,
                owner,
            });
        }
        if let Some(other) = self
            .groups
            .iter()
            .find(|group| !grant.groups.contains(group))
        {
            let why = format!("`{other}` is not granted; `agentca agent grant` changes groups");
            return Err(Refusal::field("groups", why));
        }
        let request = AgentRequest {
            scopes: self.scopes.unwrap_or_else(|| grant.scopes.clone()),
            trust: self.trust.unwrap_or(grant.max_trust),
            lifetime: self
                .lifetime
                .unwrap_or(self.default_lifetime.min(grant.max_lifetime)),
        };
        grant.judge(&request).map_err(|why| Refusal::BeyondGrant {
            agent: self.agent,
            why,
        })?;
        let outcome = IssuePlan {
            owner: agent.owner.clone(),
            request,
            grant: grant.clone(),
            standing: Some(standing.record),
        };
        Ok(Decision {
            drafts: Vec::new(),
            outcome,
        })
    }
}

/// What a renewal may carry: what the certificate has, as far as grant and restriction now allow.
#[derive(Clone, Debug, PartialEq)]
pub struct RenewalRights {
    /// Who answers for the agent.
    pub owner: Owner,
    /// What the new certificate will allow.
    pub request: AgentRequest,
    /// The grant as it stands.
    pub grant: StandingGrant,
}

/// Judges the renewal of the caller's own certificate, an agent's.
pub fn renewal_rights(
    caller: &Caller,
    handle: &Handle,
    key: &KeyId,
    state: &State,
    clock: Clock,
) -> Result<RenewalRights, Refusal> {
    let issued = caller.check(state, clock)?;
    clock.demand_right()?;
    judge_key(state, key, &issued.holder)?;
    let agent = state
        .agent(handle)
        .ok_or_else(|| Refusal::UnknownAgent(handle.to_string()))?;
    if agent.revoked.is_some() {
        return Err(Refusal::Revoked(handle.clone()));
    }
    let nothing = || Refusal::NothingLeft(handle.clone());
    let (Some(grant), Some(rights)) = (&agent.grant, &issued.facts.rights) else {
        return Err(nothing());
    };
    let mut scopes = rights.scopes.intersect(&grant.grant.scopes);
    let mut trust = rights.trust.min(grant.grant.max_trust);
    if let Some(restriction) = &agent.restriction {
        trust = restriction
            .trust
            .map_or(trust, |highest| trust.min(highest));
        if let Some(widest) = &restriction.scopes {
            scopes = scopes.intersect(widest);
        }
    }
    if scopes.is_empty() && !rights.scopes.is_empty() {
        return Err(nothing());
    }
    if scopes.len() > ScopeSet::MAX {
        return Err(Refusal::TooManyScopes(handle.clone()));
    }
    let lifetime = issued.facts.lifetime().min(grant.grant.max_lifetime);
    Ok(RenewalRights {
        owner: agent.owner.clone(),
        request: AgentRequest {
            scopes,
            trust,
            lifetime,
        },
        grant: grant.clone(),
    })
}

/// A signed certificate of an agent, before anybody sees it.
#[derive(Debug)]
pub struct CertifyAgent {
    /// Who asked: an issuer, or the agent itself.
    pub caller: Caller,
    /// For whom.
    pub agent: Handle,
    /// Its serial number.
    pub serial: Serial,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// What it says.
    pub facts: Facts,
}

impl Change for CertifyAgent {
    type Outcome = ();

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<()>, Refusal> {
        let Self {
            caller,
            agent,
            serial,
            certificate,
            facts,
        } = self;
        match &caller.id {
            SpiffeId::Person { .. } => caller.demand(PersonRole::Issuer, state, clock)?,
            _ => {
                caller.check(state, clock)?;
            }
        }
        judge_key(state, &facts.key, &Holder::Agent(agent.clone()))?;
        let known = state
            .agent(&agent)
            .ok_or_else(|| Refusal::UnknownAgent(agent.to_string()))?;
        if known.revoked.is_some() {
            return Err(Refusal::Revoked(agent));
        }
        let rights = facts.rights.as_ref().ok_or_else(|| no_agent(&agent))?;
        let standing = known
            .grant
            .as_ref()
            .filter(|grant| grant.record == rights.grant);
        let standing = standing.ok_or_else(|| Refusal::Changed(agent.clone()))?;
        judge_again(&agent, rights, &facts, standing)?;
        if matches!(caller.id, SpiffeId::Agent { .. })
            && known
                .restriction
                .as_ref()
                .is_some_and(|r| !r.covers(&rights.scopes, rights.trust))
        {
            return Err(Refusal::Changed(agent));
        }
        if state.certificate(&serial).is_some() {
            return Err(Refusal::Internal(format!("serial {serial} came up twice")));
        }
        let event = StatusEvent::CertificateIssued {
            serial,
            agent: agent.agent(state.trust_domain()),
            certificate,
            not_after: facts.not_after,
            grant: rights.grant,
        };
        let draft = Draft::status(agent.environment, Some(caller.id), event).certifying(facts);
        Ok(Decision {
            drafts: vec![draft],
            outcome: (),
        })
    }
}

fn judge_again(
    agent: &Handle,
    rights: &Rights,
    facts: &Facts,
    standing: &StandingGrant,
) -> Result<(), Refusal> {
    let request = AgentRequest {
        scopes: rights.scopes.clone(),
        trust: rights.trust,
        lifetime: facts.lifetime(),
    };
    let beyond = |why| Refusal::BeyondGrant {
        agent: agent.clone(),
        why,
    };
    standing.grant.judge(&request).map_err(beyond)
}

fn no_agent(agent: &Handle) -> Refusal {
    Refusal::Internal(format!("the certificate for {agent} is no agent's"))
}

/// Bounds on a grant, so that its record and its certificates fit.
pub(super) fn check_grant(grant: &Grant) -> Result<(), Refusal> {
    if grant.max_lifetime > LONGEST {
        return Err(Refusal::field(
            "lifetime",
            "must be 30 days at most; `--ttl` sets it",
        ));
    }
    if grant.groups.len() > MAX_GROUPS {
        return Err(Refusal::field(
            "groups",
            format!("must be {MAX_GROUPS} at most"),
        ));
    }
    let plain = |group: &String| {
        !group.is_empty() && group.len() <= MAX_GROUP_NAME && !group.contains(char::is_control)
    };
    if !grant.groups.iter().all(plain) {
        return Err(Refusal::field(
            "groups",
            "must be 1 to 128 bytes without control characters",
        ));
    }
    Ok(())
}
