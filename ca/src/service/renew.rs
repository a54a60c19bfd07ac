//! Renewal of the caller's own certificate, as a fresh decision. An enforcer also renews its log's
//! and its response signer's.

use std::time::Instant;

use agentca_identity::certificate::AgentIdentity;
use agentca_identity::crypto::PublicKey;
use agentca_identity::spiffe::{LogOrigin, SpiffeId};
use agentca_proto as proto;
use agentca_proto::SignerUse;

use super::{issue, wire};
use crate::authority::change::{
    Caller, CertifyCredentials, RenewalRights, SignedCredential, judge_number, renewal_rights,
};
use crate::authority::core::Authority;
use crate::authority::handle::Handle;
use crate::authority::refusal::Refusal;
use crate::authority::state::Enforcer;
use crate::mint::Minted;

pub(super) async fn renew(
    authority: &Authority,
    caller: Caller,
    asked: proto::RenewRequest,
) -> Result<proto::Credential, Refusal> {
    let signer = SignerUse::try_from(asked.signer).map_err(|e| Refusal::field("signer", e))?;
    judge_cost(authority, &caller)?;
    let renewed = match (&caller.id, signer) {
        (SpiffeId::Agent { .. }, SignerUse::Unspecified) => {
            agent(authority, caller, &asked.csr).await
        }
        (SpiffeId::Person { .. }, SignerUse::Unspecified) => {
            person(authority, caller, &asked.csr).await
        }
        (SpiffeId::Enforcer { .. }, _) => enforcer(authority, caller, &asked.csr, signer).await,
        _ => Err(Refusal::field("signer", "only enforcers have signers")),
    }?;
    authority.metrics.renewed.increment();
    Ok(renewed)
}

/// Every renewal is a record for ever, and whoever holds a certificate can ask for one: so it is bounded
/// before anything is made, by number in force and by pace.
fn judge_cost(authority: &Authority, caller: &Caller) -> Result<(), Refusal> {
    let most = authority.limits.certificates_each;
    authority
        .sequencer
        .read(|state, clock| judge_number(caller, most, state, clock))??;
    authority
        .pace
        .take(&caller.id, Instant::now())
        .map_err(|after| Refusal::TooOften {
            who: caller.id.clone(),
            after,
        })
}

async fn agent(
    authority: &Authority,
    caller: Caller,
    csr: &[u8],
) -> Result<proto::Credential, Refusal> {
    let key = wire::key("csr", csr)?;
    let handle = Handle::of(&caller.id).ok_or_else(|| Refusal::Internal("no handle".into()))?;
    let RenewalRights {
        owner,
        request,
        grant,
    } = authority
        .sequencer
        .read(|state, clock| renewal_rights(&caller, &handle, &key.key_id(), state, clock))??;
    let identity = AgentIdentity {
        uri: caller.id.clone(),
        scopes: request.scopes,
        trust: request.trust,
        owner,
        grant: grant.record,
        lineage: Vec::new(),
    };
    let minted = authority
        .mint
        .agent(identity, &grant.grant, &key, request.lifetime)?;
    let index = issue::certify(authority, caller, handle, &minted).await?;
    Ok(wire::credential(
        authority,
        &minted,
        index,
        Some(wire::grant(&grant)),
    ))
}

async fn person(
    authority: &Authority,
    caller: Caller,
    csr: &[u8],
) -> Result<proto::Credential, Refusal> {
    let key = wire::key("csr", csr)?;
    let roles = authority.sequencer.read(|state, clock| {
        caller.check(state, clock)?;
        let person = caller.id.name().and_then(|name| state.person(name));
        let person = person.ok_or_else(|| Refusal::Internal("the person is unknown".into()))?;
        Ok::<_, Refusal>(person.roles)
    })??;
    let minted = authority.mint.person(caller.id.clone(), roles, &key)?;
    let credential = SignedCredential::new(caller.id.clone(), &minted, Some(roles));
    hand_over(authority, caller, credential, &minted).await
}

async fn enforcer(
    authority: &Authority,
    caller: Caller,
    csr: &[u8],
    signer: SignerUse,
) -> Result<proto::Credential, Refusal> {
    let known = authority.sequencer.read(|state, clock| {
        let handle = caller.demand_enforcer(state, clock)?;
        state
            .enforcer(&handle)
            .cloned()
            .ok_or(Refusal::UnknownEnforcer(handle))
    })??;
    let Enforcer {
        dns,
        ip,
        log_origin,
        ..
    } = known;
    let (subject, minted) = match signer {
        SignerUse::Unspecified => {
            let key = wire::key("csr", csr)?;
            (
                caller.id.clone(),
                authority.mint.enforcer(caller.id.clone(), dns, ip, &key)?,
            )
        }
        SignerUse::Log => sign(authority, log_origin, &wire::signer_key("log", csr)?)?,
        SignerUse::Response => {
            let origin = log_origin
                .response()
                .map_err(|e| Refusal::Internal(e.to_string()))?;
            sign(authority, origin, &wire::signer_key("response", csr)?)?
        }
    };
    let credential = SignedCredential::new(subject, &minted, None);
    hand_over(authority, caller, credential, &minted).await
}

fn sign(
    authority: &Authority,
    origin: LogOrigin,
    key: &PublicKey,
) -> Result<(SpiffeId, Minted), Refusal> {
    let minted = authority.mint.signer(origin.clone(), key)?;
    Ok((SpiffeId::LogSigner { origin }, minted))
}

/// The credential's record, then the credential.
pub(super) async fn hand_over(
    authority: &Authority,
    caller: Caller,
    credential: SignedCredential,
    minted: &Minted,
) -> Result<proto::Credential, Refusal> {
    let credentials = vec![credential];
    let submitted = authority.sequencer.submit(CertifyCredentials {
        caller,
        credentials,
    })?;
    let index = submitted
        .last()
        .ok_or_else(|| Refusal::Internal("the certificate has no record".into()))?;
    authority.sequencer.durable(index).await?;
    Ok(wire::credential(authority, minted, index, None))
}
