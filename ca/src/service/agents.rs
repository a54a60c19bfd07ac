//! Agents: listing, grants, reinstatement.

use std::sync::Arc;

use agentca_identity::spiffe::SpiffeId;
use agentca_proto as proto;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{AgentStream, status, wire};
use crate::authority::change::{Caller, Change, Reinstate, SetGrant};
use crate::authority::core::Authority;
use crate::authority::handle::Handle;
use crate::authority::refusal::Refusal;
use crate::authority::state::{Agent, State};

pub(super) async fn reinstate(
    authority: &Authority,
    caller: Caller,
    asked: proto::ReinstateRequest,
) -> Result<proto::Change, Refusal> {
    let proto::AgentSelector { environment, name } = selector(asked.agent)?;
    let environment = wire::any_environment(&environment)?;
    let change = Reinstate {
        caller,
        environment,
        name: wire::text("name", &name)?,
    };
    submit(authority, change).await
}

pub(super) async fn set_grant(
    authority: &Authority,
    caller: Caller,
    asked: proto::SetGrantRequest,
) -> Result<proto::Change, Refusal> {
    let proto::AgentSelector { environment, name } = selector(asked.agent)?;
    let change = SetGrant {
        caller,
        environment: wire::any_environment(&environment)?,
        name: wire::text("name", &name)?,
        scopes: asked
            .scopes_given
            .then(|| wire::scopes(&asked.scopes))
            .transpose()?,
        max_trust: asked
            .max_trust_given
            .then(|| wire::trust(asked.max_trust))
            .transpose()?,
        max_lifetime: asked
            .max_lifetime_given
            .then(|| std::time::Duration::from_secs(asked.max_lifetime_seconds)),
        groups: asked.groups_given.then_some(asked.groups),
    };
    submit(authority, change).await
}

/// Every agent that is asked for, read in pages so that nobody waits for a long list.
pub(super) fn list(
    authority: &Arc<Authority>,
    caller: &Caller,
    asked: &proto::ListAgentsRequest,
) -> Result<AgentStream, Refusal> {
    authority.sequencer.read(|state, clock| {
        caller.check(state, clock)?;
        match caller.id {
            SpiffeId::Person { .. } => Ok(()),
            _ => Err(Refusal::Kind {
                who: caller.id.clone(),
                needs: "a person",
            }),
        }
    })??;
    let environment = wire::any_environment(&asked.environment)?;
    let name = asked.name.clone();
    let (queue, agents) = mpsc::channel(PAGE);
    let authority = Arc::clone(authority);
    tokio::spawn(async move {
        let wanted = |handle: &Handle| {
            environment
                .as_ref()
                .is_none_or(|it| *it == handle.environment)
                && (name.is_empty() || name == handle.name.as_str())
        };
        let mut after = None;
        loop {
            let page = authority
                .sequencer
                .read(|state, _| page(state, after.as_ref(), wanted));
            let (agents, last) = match page {
                Ok(page) => page,
                Err(refusal) => {
                    // The caller may be gone; then nobody needs to know.
                    let _gone = queue.send(Err(status(&refusal))).await;
                    return;
                }
            };
            for agent in agents {
                if queue.send(Ok::<_, Status>(agent)).await.is_err() {
                    return;
                }
            }
            match last {
                Some(last) => after = Some(last),
                None => return,
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(agents)))
}

/// The next agents, and where the next page begins.
fn page(
    state: &State,
    after: Option<&Handle>,
    wanted: impl Fn(&Handle) -> bool,
) -> (Vec<proto::Agent>, Option<Handle>) {
    use std::ops::Bound;
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut agents = Vec::new();
    let mut last = None;
    let range = state.agents().range::<Handle, _>((from, Bound::Unbounded));
    for (seen, (handle, agent)) in range.enumerate() {
        if seen == PAGE {
            return (agents, last);
        }
        if wanted(handle) {
            agents.push(write_agent(state, handle, agent));
        }
        last = Some(handle.clone());
    }
    (agents, None)
}

fn write_agent(state: &State, handle: &Handle, agent: &Agent) -> proto::Agent {
    let certificates = agent.serials.iter().filter_map(|serial| {
        let issued = state.certificate(serial)?;
        let rights = issued.facts.rights.as_ref()?;
        Some(proto::AgentCertificate {
            serial: serial.as_bytes().to_vec(),
            not_before: issued.facts.not_before.millis(),
            not_after: issued.facts.not_after.millis(),
            revoked: issued.ended.is_some(),
            reason: issued
                .ended
                .map_or(0, |ended| u32::from(ended.reason.code())),
            record: issued.record,
            scopes: rights.scopes.iter().map(ToString::to_string).collect(),
            trust: u32::from(u8::from(rights.trust)),
            revoked_at: issued.ended.map_or(0, |ended| ended.at.millis()),
        })
    });
    proto::Agent {
        environment: handle.environment.to_string(),
        name: handle.name.to_string(),
        owner: agent.owner.to_string(),
        grant: agent.grant.as_ref().map(wire::grant),
        revoked: agent.revoked.is_some(),
        certificates: certificates.collect(),
        uri: handle.agent(state.trust_domain()).to_string(),
    }
}

/// A change about one subject.
pub(super) async fn submit(
    authority: &Authority,
    change: impl Change<Outcome = SpiffeId>,
) -> Result<proto::Change, Refusal> {
    let submitted = authority.sequencer.submit(change)?;
    let record = submitted
        .last()
        .ok_or_else(|| Refusal::Internal("the change has no record".into()))?;
    authority.sequencer.durable(record).await?;
    Ok(proto::Change {
        record,
        subject: submitted.outcome.to_string(),
    })
}

fn selector(agent: Option<proto::AgentSelector>) -> Result<proto::AgentSelector, Refusal> {
    agent.ok_or_else(|| Refusal::field("agent", "name one"))
}

/// Agents in one page.
const PAGE: usize = 100;
