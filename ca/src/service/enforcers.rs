//! Enforcers: adding, retiring, listing.

use agentca_identity::crypto::PublicKey;
use agentca_identity::spiffe::{LogOrigin, SpiffeId};
use agentca_proto as proto;

use super::{agents, wire};
use crate::authority::change::{
    AddEnforcer, Caller, CertifyCredentials, EnforcerKeys, LogChoice, RemoveEnforcer,
    SignedCredential,
};
use crate::authority::core::{Authority, Signers};
use crate::authority::handle::Handle;
use crate::authority::refusal::Refusal;
use crate::mint::Minted;

/// The three public keys of an enforcer.
struct Keys {
    tls: PublicKey,
    log: PublicKey,
    response: PublicKey,
}

pub(super) async fn add(
    authority: &Authority,
    caller: Caller,
    asked: proto::AddEnforcerRequest,
) -> Result<proto::AddEnforcerResponse, Refusal> {
    let enforcer = wire::handle(&asked.environment, &asked.name)?;
    let (dns, ip) = wire::hosts(&asked.dns, &asked.ip)?;
    let keys = Keys {
        tls: wire::key("tls_csr", &asked.tls_csr)?,
        log: wire::signer_key("log", &asked.log_csr)?,
        response: wire::signer_key("response", &asked.response_csr)?,
    };
    let change = AddEnforcer {
        caller: caller.clone(),
        enforcer: enforcer.clone(),
        dns: dns.clone(),
        ip: ip.clone(),
        keys: EnforcerKeys {
            tls: keys.tls.key_id(),
            log: keys.log.key_id(),
            response: keys.response.key_id(),
        },
        log: if asked.new_log {
            LogChoice::Next
        } else {
            LogChoice::Keep
        },
        issuers: authority.mint.issuers(),
    };
    let origin = authority.sequencer.submit(change)?.outcome;
    let id = enforcer.enforcer(caller.id.trust_domain());
    let tls = authority.mint.enforcer(id.clone(), dns, ip, &keys.tls)?;
    let response_origin = origin
        .response()
        .map_err(|e| Refusal::Internal(e.to_string()))?;
    let log = authority.mint.signer(origin.clone(), &keys.log)?;
    let response = authority
        .mint
        .signer(response_origin.clone(), &keys.response)?;
    let signed = [
        (id, tls),
        (signer(&origin), log),
        (signer(&response_origin), response),
    ];
    let records = certify(authority, caller, &signed).await?;
    authority.snapshots.want(&enforcer.environment);
    let [(_, tls), (_, log), (_, response)] = &signed;
    let [tls_record, log_record, response_record] = records;
    let Signers {
        log_origin,
        log_vkey,
        witness_vkey,
        chains: _,
    } = &authority.signers;
    let chains = authority.signers.chains();
    Ok(proto::AddEnforcerResponse {
        tls: Some(wire::credential(authority, tls, tls_record, None)),
        log: Some(wire::credential(authority, log, log_record, None)),
        response: Some(wire::credential(authority, response, response_record, None)),
        authority_origin: log_origin.clone(),
        authority_vkey: log_vkey.clone(),
        authority_checkpoint: authority.sequencer.log().checkpoint().note.clone(),
        log_origin: origin.to_string(),
        witness_vkey: witness_vkey.clone(),
        authority_log_chain: chains.log,
        witness_chain: chains.witness,
    })
}

/// The records of all three; completes when they are durable.
async fn certify(
    authority: &Authority,
    caller: Caller,
    signed: &[(SpiffeId, Minted); 3],
) -> Result<[u64; 3], Refusal> {
    let credentials = signed
        .iter()
        .map(|(subject, minted)| SignedCredential::new(subject.clone(), minted, None));
    let credentials = credentials.collect();
    let submitted = authority.sequencer.submit(CertifyCredentials {
        caller,
        credentials,
    })?;
    let records: [u64; 3] = submitted
        .records
        .try_into()
        .map_err(|_| Refusal::Internal("the certificates have no records".into()))?;
    let [_, _, last] = records;
    authority.sequencer.durable(last).await?;
    Ok(records)
}

pub(super) async fn remove(
    authority: &Authority,
    caller: Caller,
    asked: proto::RemoveEnforcerRequest,
) -> Result<proto::Change, Refusal> {
    let enforcer = wire::handle(&asked.environment, &asked.name)?;
    agents::submit(authority, RemoveEnforcer { caller, enforcer }).await
}

pub(super) fn list(
    authority: &Authority,
    caller: &Caller,
) -> Result<proto::ListEnforcersResponse, Refusal> {
    let enforcers = authority.sequencer.read(|state, clock| {
        caller.check(state, clock)?;
        if !matches!(caller.id, SpiffeId::Person { .. }) {
            return Err(Refusal::Kind {
                who: caller.id.clone(),
                needs: "a person",
            });
        }
        let enforcers = state
            .enforcers()
            .iter()
            .map(|(handle, enforcer)| proto::Enforcer {
                environment: handle.environment.to_string(),
                name: handle.name.to_string(),
                dns: enforcer.dns.iter().map(ToString::to_string).collect(),
                ip: enforcer.ip.iter().map(ToString::to_string).collect(),
                newest: state
                    .chain(&handle.environment)
                    .map_or(0, |chain| chain.number),
                log_origin: enforcer.log_origin.to_string(),
                log_size: enforcer.held.size,
                removed: enforcer.removed,
                ..roll(authority, handle)
            });
        Ok(enforcers.collect())
    })??;
    Ok(proto::ListEnforcersResponse { enforcers })
}

/// What is known of its connection.
fn roll(authority: &Authority, handle: &Handle) -> proto::Enforcer {
    let roll = authority.followers.roll(handle);
    proto::Enforcer {
        connected: roll.connected,
        confirmed: roll.confirmed,
        last_seen: roll.last_seen.map_or(0, |at| at.millis()),
        ..proto::Enforcer::default()
    }
}

fn signer(origin: &LogOrigin) -> SpiffeId {
    SpiffeId::LogSigner {
        origin: origin.clone(),
    }
}
