//! Makes certificates: fills in lifetimes, CRL shard and chain, and has them signed.
//!
//! Nothing here decides who may have what; that is the sequencer's, before and after.

use std::net::IpAddr;
use std::time::Duration;

use agentca_identity::certificate::{AgentIdentity, Certificate, CrlUri, CrlUriError};
use agentca_identity::crypto::{PublicKey, random};
use agentca_identity::grant::Grant;
use agentca_identity::name::{DnsName, TrustDomain};
use agentca_identity::profile::{Issuer, ProfileError, Template, Validity};
use agentca_identity::roles::Roles;
use agentca_identity::spiffe::{LogOrigin, SpiffeId};
use agentca_identity::time::Timestamp;

use crate::authority::facts::{Facts, shard_path};
use crate::config::Lifetimes;

/// The issuing CAs with all that certificates have in common.
#[derive(Debug)]
pub struct Mint {
    /// Certifies agents, enforcers, people and the authority.
    pub issuing: Issuer,
    /// Certifies log and response signers.
    pub signer: Issuer,
    /// What every certificate's CRL URI begins with, without a final slash.
    pub crl_base: String,
    /// Over how many shards certificates are spread.
    pub crl_shards: u16,
    /// How long what lasts.
    pub lifetimes: Lifetimes,
}

/// A signed certificate that nobody has seen yet.
#[derive(Debug)]
pub struct Minted {
    /// The certificate.
    pub certificate: Certificate,
    /// What it says.
    pub facts: Facts,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The profile refuses it.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The CRL's URI cannot be written.
    #[error("the CRL's address in `public_url` is {0}")]
    CrlUri(#[from] CrlUriError),
}

impl Mint {
    /// For an agent, within its grant.
    pub fn agent(
        &self,
        identity: AgentIdentity,
        grant: &Grant,
        key: &PublicKey,
        lifetime: Duration,
    ) -> Result<Minted, MintError> {
        let validity = self.validity(&self.issuing, lifetime);
        let crl = self.any_shard()?;
        sign(
            &self.issuing,
            Template::agent(identity, grant, key, validity, crl),
        )
    }

    /// For an enforcer's TLS.
    pub fn enforcer(
        &self,
        id: SpiffeId,
        dns: Vec<DnsName>,
        ip: Vec<IpAddr>,
        key: &PublicKey,
    ) -> Result<Minted, MintError> {
        let validity = self.validity(&self.issuing, self.lifetimes.enforcer);
        let crl = self.any_shard()?;
        sign(
            &self.issuing,
            Template::enforcer(id, dns, ip, key, validity, crl),
        )
    }

    /// For a person.
    pub fn person(&self, id: SpiffeId, roles: Roles, key: &PublicKey) -> Result<Minted, MintError> {
        let validity = self.validity(&self.issuing, self.lifetimes.person);
        let crl = self.any_shard()?;
        sign(
            &self.issuing,
            Template::person(id, roles, key, validity, crl),
        )
    }

    /// For the authority's own TLS.
    pub fn authority(
        &self,
        trust_domain: TrustDomain,
        dns: Vec<DnsName>,
        ip: Vec<IpAddr>,
        key: &PublicKey,
    ) -> Result<Minted, MintError> {
        let validity = self.validity(&self.issuing, self.lifetimes.enforcer);
        let crl = self.any_shard()?;
        sign(
            &self.issuing,
            Template::authority(trust_domain, dns, ip, key, validity, crl),
        )
    }

    /// For a key that signs a log or responses.
    pub fn signer(&self, origin: LogOrigin, key: &PublicKey) -> Result<Minted, MintError> {
        let validity = self.validity(&self.signer, self.lifetimes.signer);
        sign(&self.signer, Template::log_signer(origin, key, validity))
    }

    /// Where a shard is published.
    pub fn shard_uri(&self, shard: u16) -> Result<CrlUri, MintError> {
        Ok(format!("{}{}", self.crl_base, shard_path(shard)).parse()?)
    }

    /// What it made, then its issuer's certificate, DER.
    pub fn chain(&self, minted: &Minted) -> Vec<Vec<u8>> {
        let issuer = match minted.certificate.id() {
            Some(SpiffeId::LogSigner { .. }) => &self.signer,
            _ => &self.issuing,
        };
        vec![
            minted.certificate.der().to_vec(),
            issuer.certificate().der().to_vec(),
        ]
    }

    fn any_shard(&self) -> Result<CrlUri, MintError> {
        let draw = u16::from_be_bytes(random::<2>());
        self.shard_uri(draw.checked_rem(self.crl_shards).unwrap_or(0))
    }

    fn validity(&self, issuer: &Issuer, lifetime: Duration) -> Validity {
        let validity = Validity::starting(Timestamp::now(), lifetime);
        validity.until_at_most(issuer.certificate().not_after())
    }
}

fn sign(issuer: &Issuer, template: Template) -> Result<Minted, MintError> {
    let certificate = issuer.prepare(template)?.sign()?;
    let facts = Facts::of(&certificate);
    Ok(Minted { certificate, facts })
}
