//! Issue: the plan (registration, grant) → certificate → judged again → durable → handed over.

use agentca_identity::certificate::AgentIdentity;
use agentca_proto as proto;

use super::wire;
use crate::authority::change::{Caller, CertifyAgent, IssuePlan, PlanIssue};
use crate::authority::core::Authority;
use crate::authority::handle::Handle;
use crate::authority::refusal::Refusal;
use crate::authority::state::StandingGrant;
use crate::mint::Minted;

pub(super) async fn issue(
    authority: &Authority,
    caller: Caller,
    asked: proto::IssueRequest,
) -> Result<proto::Credential, Refusal> {
    let agent = wire::handle(&asked.environment, &asked.name)?;
    let key = wire::key("csr", &asked.csr)?;
    let plan = PlanIssue {
        caller: caller.clone(),
        agent: agent.clone(),
        owner: given(asked.owner_given, || wire::text("owner", &asked.owner))?,
        scopes: given(asked.scopes_given, || wire::scopes(&asked.scopes))?,
        trust: given(asked.trust_given, || wire::trust(asked.trust))?,
        lifetime: wire::lifetime(asked.lifetime_seconds),
        groups: asked.groups,
        key: key.key_id(),
        default_lifetime: authority.lifetimes.agent,
        issuers: authority.mint.issuers(),
    };
    // 1. The grant: a record of its own the first time.
    let planned = authority.sequencer.submit(plan)?;
    let newest = planned.last();
    let IssuePlan {
        owner,
        request,
        grant,
        standing,
    } = planned.outcome;
    let record = standing
        .or(newest)
        .ok_or_else(|| Refusal::Internal("the grant has no record".into()))?;
    // 2. The certificate, beside the sequencer.
    let identity = AgentIdentity {
        uri: agent.agent(caller.id.trust_domain()),
        scopes: request.scopes,
        trust: request.trust,
        owner,
        grant: record,
        lineage: Vec::new(),
    };
    let minted = authority
        .mint
        .agent(identity, &grant, &key, request.lifetime)?;
    // 3. Judged again: nothing is certified that was revoked meanwhile.
    let index = certify(authority, caller, agent, &minted).await?;
    authority.metrics.issued.increment();
    let standing = StandingGrant { grant, record };
    Ok(wire::credential(
        authority,
        &minted,
        index,
        Some(wire::grant(&standing)),
    ))
}

/// The certificate's own record; completes when it is durable.
pub(super) async fn certify(
    authority: &Authority,
    caller: Caller,
    agent: Handle,
    minted: &Minted,
) -> Result<u64, Refusal> {
    let Minted {
        certificate, facts, ..
    } = minted;
    let submitted = authority.sequencer.submit(CertifyAgent {
        caller,
        agent,
        serial: certificate.serial(),
        certificate: certificate.der().to_vec(),
        facts: facts.clone(),
    })?;
    let index = submitted
        .last()
        .ok_or_else(|| Refusal::Internal("the certificate has no record".into()))?;
    authority.sequencer.durable(index).await?;
    Ok(index)
}

fn given<T>(given: bool, read: impl FnOnce() -> Result<T, Refusal>) -> Result<Option<T>, Refusal> {
    if given { read().map(Some) } else { Ok(None) }
}
