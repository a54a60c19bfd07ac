//! Revocation: of an agent, of one certificate, of everything an owner answers for.

use agentca_auditlog::status::StatusEvent;
use agentca_identity::name::{Environment, Name, Owner};
use agentca_identity::profile::RevocationReason;
use agentca_identity::roles::PersonRole;
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::SpiffeId;

use super::{Caller, Change, Clock, Decision, judge_admins};
use crate::authority::event::{Draft, Event};
use crate::authority::handle::{Handle, Holder};
use crate::authority::refusal::Refusal;
use crate::authority::state::{Agent, State};

/// Ends certificates; of agents also their grants, until they are reinstated.
#[derive(Debug)]
pub struct Revoke {
    /// Who asks: a responder or an admin.
    pub caller: Caller,
    /// What.
    pub target: RevokeTarget,
    /// Why.
    pub reason: RevocationReason,
}

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeTarget {
    /// An agent, with every certificate it has.
    Agent(Option<Environment>, Name),
    /// One certificate, anybody's.
    Serial(Serial),
    /// Every agent of that owner.
    Owner(Owner),
}

/// What was revoked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Revoked {
    /// Agents that are suspended now.
    pub agents: Vec<SpiffeId>,
    /// Those of them that had been revoked before.
    pub already: Vec<SpiffeId>,
    /// Certificates that ended by this.
    pub certificates: u64,
    /// What enforcers must have reached for it to be in force, when it happened earlier.
    pub earlier: Vec<(Environment, u64)>,
    /// The newest record that said so earlier.
    pub earlier_record: u64,
}

impl Change for Revoke {
    type Outcome = Revoked;

    fn uses_reserve(&self) -> bool {
        true
    }

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<Revoked>, Refusal> {
        self.caller.demand(PersonRole::Responder, state, clock)?;
        let mut decision = Decision {
            drafts: Vec::new(),
            outcome: Revoked::default(),
        };
        match &self.target {
            RevokeTarget::Agent(environment, name) => {
                let (handle, agent) = state.select(environment.as_ref(), name)?;
                self.agent(state, clock, handle, agent, &mut decision);
            }
            RevokeTarget::Owner(owner) => {
                for handle in state.owned_by(owner) {
                    let Some(agent) = state.agent(handle) else {
                        continue;
                    };
                    self.agent(state, clock, handle.clone(), agent, &mut decision);
                }
                if decision.outcome.agents.is_empty() {
                    return Err(Refusal::UnknownOwner(owner.to_string()));
                }
            }
            RevokeTarget::Serial(serial) => self.serial(state, clock, *serial, &mut decision)?,
        }
        Ok(decision)
    }
}

impl Revoke {
    /// One record whatever the number of certificates; none if it is revoked already.
    fn agent(
        &self,
        state: &State,
        clock: Clock,
        handle: Handle,
        agent: &Agent,
        decision: &mut Decision<Revoked>,
    ) {
        let id = handle.agent(state.trust_domain());
        decision.outcome.agents.push(id.clone());
        if let Some(earlier) = agent.revoked {
            decision.outcome.already.push(id);
            decision
                .outcome
                .earlier
                .push((handle.environment, earlier.number));
            decision.outcome.earlier_record = decision.outcome.earlier_record.max(earlier.record);
            return;
        }
        let running = agent
            .serials
            .iter()
            .filter_map(|serial| state.certificate(serial));
        let running = running.filter(|issued| issued.in_force(clock.now)).count();
        decision.outcome.certificates += u64::try_from(running).unwrap_or(u64::MAX);
        let event = StatusEvent::AgentRevoked {
            agent: id,
            reason: self.reason,
        };
        let by = Some(self.caller.id.clone());
        decision
            .drafts
            .push(Draft::status(handle.environment, by, event));
    }

    fn serial(
        &self,
        state: &State,
        clock: Clock,
        serial: Serial,
        decision: &mut Decision<Revoked>,
    ) -> Result<(), Refusal> {
        let issued = state
            .certificate(&serial)
            .ok_or(Refusal::UnknownSerial(serial))?;
        if let Some(ended) = issued.ended {
            decision.outcome.earlier_record = ended.record;
            if let Holder::Agent(agent) = &issued.holder
                && let Some(chain) = state.chain(&agent.environment)
            {
                decision
                    .outcome
                    .earlier
                    .push((agent.environment.clone(), chain.number));
            }
            return Ok(());
        }
        judge_admins(state, clock, &format!("certificate {serial}"), |_, it| {
            *it == serial
        })?;
        decision.outcome.certificates = 1;
        decision.drafts.push(match &issued.holder {
            Holder::Agent(agent) => {
                let id = agent.agent(state.trust_domain());
                let reason = self.reason;
                let event = StatusEvent::CertificateRevoked {
                    serial,
                    agent: id,
                    reason,
                };
                Draft::status(
                    agent.environment.clone(),
                    Some(self.caller.id.clone()),
                    event,
                )
            }
            holder => Draft::own(Event::CredentialRevoked {
                serial,
                subject: holder.uri(state.trust_domain()),
                reason: self.reason.to_string(),
                by: self.caller.id.clone(),
            }),
        });
        Ok(())
    }
}
