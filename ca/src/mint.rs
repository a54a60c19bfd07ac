//! Makes certificates: fills in lifetimes, CRL shard and chain, and has them signed.
//!
//! Nothing here decides who may have what; that is the sequencer's, before and after.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agentca_identity::certificate::{AgentIdentity, Certificate, CrlUri, CrlUriError};
use agentca_identity::crypto::{PublicKey, random};
use agentca_identity::grant::Grant;
use agentca_identity::name::{DnsName, TrustDomain};
use agentca_identity::profile::{ProfileError, Template, Validity};
use agentca_identity::roles::Roles;
use agentca_identity::spiffe::{LogOrigin, SpiffeId};
use agentca_identity::time::Timestamp;

use crate::authority::facts::{Facts, shard_path};
use crate::config::Lifetimes;
use crate::line::{Generation, Line};

/// The CAs below the root with all that certificates have in common.
#[derive(Debug)]
pub struct Mint {
    /// Certifies agents, enforcers, people and the authority.
    pub issuing: Arc<Line>,
    /// Certifies log and response signers.
    pub signer: Arc<Line>,
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
    /// Who signed it.
    issuer: Arc<Generation>,
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
        self.issue(lifetime, |validity, crl| {
            Template::agent(identity, grant, key, validity, crl)
        })
    }

    /// For an enforcer's TLS.
    pub fn enforcer(
        &self,
        id: SpiffeId,
        dns: Vec<DnsName>,
        ip: Vec<IpAddr>,
        key: &PublicKey,
    ) -> Result<Minted, MintError> {
        self.issue(self.lifetimes.enforcer, |validity, crl| {
            Template::enforcer(id, dns, ip, key, validity, crl)
        })
    }

    /// For a person.
    pub fn person(&self, id: SpiffeId, roles: Roles, key: &PublicKey) -> Result<Minted, MintError> {
        self.issue(self.lifetimes.person, |validity, crl| {
            Template::person(id, roles, key, validity, crl)
        })
    }

    /// For the authority's own TLS.
    pub fn authority(
        &self,
        trust_domain: TrustDomain,
        dns: Vec<DnsName>,
        ip: Vec<IpAddr>,
        key: &PublicKey,
    ) -> Result<Minted, MintError> {
        self.issue(self.lifetimes.enforcer, |validity, crl| {
            Template::authority(trust_domain, dns, ip, key, validity, crl)
        })
    }

    /// For a key that signs a log or responses.
    pub fn signer(&self, origin: LogOrigin, key: &PublicKey) -> Result<Minted, MintError> {
        let issuer = self.signer.current();
        let validity = validity(&issuer, self.lifetimes.signer);
        sign(issuer, Template::log_signer(origin, key, validity))
    }

    /// Where a shard is published.
    pub fn shard_uri(&self, shard: u16) -> Result<CrlUri, MintError> {
        Ok(format!("{}{}", self.crl_base, shard_path(shard)).parse()?)
    }

    /// Every shard that a generation may name in a certificate.
    pub fn shards_of(&self, generation: &Generation) -> impl Iterator<Item = u16> + use<> {
        let first = generation.shard(0);
        (0..self.crl_shards).map(move |place| first.saturating_add(place))
    }

    /// The issuing CA whose certificates name that shard, unless it has ended at `now`.
    pub fn issuer_of(&self, shard: u16, now: Timestamp) -> Option<Arc<Generation>> {
        let standing = self.issuing.standing(now);
        standing.into_iter().find(|it| it.owns(shard))
    }

    /// The certificates of the issuing CAs that have not ended, DER, oldest first.
    pub fn issuers(&self) -> Vec<Vec<u8>> {
        let standing = self.issuing.standing(Timestamp::now());
        standing
            .iter()
            .map(|it| it.certificate().der().to_vec())
            .collect()
    }

    fn issue(
        &self,
        lifetime: Duration,
        template: impl FnOnce(Validity, CrlUri) -> Template,
    ) -> Result<Minted, MintError> {
        let issuer = self.issuing.current();
        let draw = u16::from_be_bytes(random::<2>());
        let place = draw.checked_rem(self.crl_shards).unwrap_or(0);
        let crl = self.shard_uri(issuer.shard(place))?;
        let template = template(validity(&issuer, lifetime), crl);
        sign(issuer, template)
    }
}

impl Minted {
    /// The certificate, then its issuer's, DER.
    pub fn chain(&self) -> Vec<Vec<u8>> {
        vec![
            self.certificate.der().to_vec(),
            self.issuer.certificate().der().to_vec(),
        ]
    }
}

fn validity(issuer: &Generation, lifetime: Duration) -> Validity {
    let validity = Validity::starting(Timestamp::now(), lifetime);
    validity.until_at_most(issuer.certificate().not_after())
}

fn sign(issuer: Arc<Generation>, template: Template) -> Result<Minted, MintError> {
    let certificate = issuer.issuer.prepare(template)?.sign()?;
    let facts = Facts::of(&certificate);
    Ok(Minted {
        certificate,
        facts,
        issuer,
    })
}
