//! Reading fields of requests, and writing fields of answers, in one form each.

use std::net::IpAddr;
use std::time::Duration;

use agentca_identity::crypto::PublicKey;
use agentca_identity::name::{DnsName, Environment};
use agentca_identity::profile::csr;
use agentca_identity::roles::{PersonRole, Roles};
use agentca_identity::scope::{Scope, ScopeSet};
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::trust::TrustLevel;
use agentca_proto as proto;

use crate::authority::core::Authority;
use crate::authority::handle::Handle;
use crate::authority::refusal::Refusal;
use crate::authority::state::StandingGrant;
use crate::mint::Minted;

/// A text of its own grammar.
pub(super) fn text<T>(field: &'static str, value: &str) -> Result<T, Refusal>
where
    T: std::str::FromStr,
    T::Err: ToString,
{
    value
        .parse()
        .map_err(|e: T::Err| Refusal::field(field, format!("`{value}` is {}", e.to_string())))
}

pub(super) fn handle(environment: &str, name: &str) -> Result<Handle, Refusal> {
    Ok(Handle {
        environment: text("environment", environment)?,
        name: text("name", name)?,
    })
}

/// Empty means any.
pub(super) fn any_environment(environment: &str) -> Result<Option<Environment>, Refusal> {
    if environment.is_empty() {
        Ok(None)
    } else {
        text("environment", environment).map(Some)
    }
}

pub(super) fn scopes(values: &[String]) -> Result<ScopeSet, Refusal> {
    let scopes: Vec<Scope> = values
        .iter()
        .map(|value| text("scopes", value))
        .collect::<Result<_, _>>()?;
    ScopeSet::new(scopes).map_err(|e| Refusal::field("scopes", e))
}

pub(super) fn trust(value: u32) -> Result<TrustLevel, Refusal> {
    let level = u8::try_from(value)
        .ok()
        .and_then(|level| TrustLevel::try_from(level).ok());
    level.ok_or_else(|| Refusal::field("trust", "must be 0 to 4"))
}

pub(super) fn roles(values: &[String]) -> Result<Roles, Refusal> {
    let roles = values
        .iter()
        .map(|value| text::<PersonRole>("roles", value));
    roles.collect()
}

/// 0 means not given.
pub(super) fn lifetime(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// The public key of a request, whose holder has proven that the key is theirs.
pub(super) fn key(field: &'static str, request: &[u8]) -> Result<PublicKey, Refusal> {
    csr::read(request).map_err(|e| Refusal::field(field, e))
}

/// An enforcer's signers sign with Ed25519.
pub(super) fn signer_key(which: &'static str, request: &[u8]) -> Result<PublicKey, Refusal> {
    let key = key(which, request)?;
    if key.ed25519_raw().is_none() {
        return Err(Refusal::SignerKey(which));
    }
    Ok(key)
}

pub(super) fn hosts(dns: &[String], ip: &[String]) -> Result<(Vec<DnsName>, Vec<IpAddr>), Refusal> {
    let mut dns: Vec<DnsName> = dns
        .iter()
        .map(|value| text("dns", value))
        .collect::<Result<_, _>>()?;
    let mut ip: Vec<IpAddr> = ip
        .iter()
        .map(|value| text("ip", value))
        .collect::<Result<_, _>>()?;
    dns.sort();
    dns.dedup();
    ip.sort();
    ip.dedup();
    if dns.len() > MAX_HOSTS || ip.len() > MAX_HOSTS {
        return Err(Refusal::field(
            "dns",
            format!("must be {MAX_HOSTS} names and addresses at most"),
        ));
    }
    Ok((dns, ip))
}

pub(super) fn credential(
    authority: &Authority,
    minted: &Minted,
    record: u64,
    grant: Option<proto::Grant>,
) -> proto::Credential {
    let issuers = match minted.certificate.id() {
        Some(SpiffeId::Enforcer { .. }) => authority.mint.issuers(),
        _ => Vec::new(),
    };
    proto::Credential {
        chain: minted.chain(),
        root: authority.root.clone(),
        record,
        grant,
        issuers,
    }
}

pub(super) fn grant(standing: &StandingGrant) -> proto::Grant {
    let StandingGrant { grant, record } = standing;
    proto::Grant {
        scopes: grant.scopes.iter().map(ToString::to_string).collect(),
        max_trust: u32::from(u8::from(grant.max_trust)),
        max_lifetime_seconds: grant.max_lifetime.as_secs(),
        groups: grant.groups.clone(),
        approved_by: grant.approved_by.to_string(),
        record: *record,
    }
}

/// Most DNS names, and most addresses, of an enforcer.
const MAX_HOSTS: usize = 32;
