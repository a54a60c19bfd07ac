//! What is to be certified.

use std::net::IpAddr;
use std::time::Duration;

use crate::certificate::{
    AgentIdentity, AuthorityIdentity, CrlUri, EnforcerIdentity, PersonIdentity, Subject,
};
use crate::crypto::PublicKey;
use crate::grant::Grant;
use crate::name::{DnsName, TrustDomain};
use crate::profile::BACKDATE;
use crate::roles::Roles;
use crate::serial::Serial;
use crate::spiffe::{LogOrigin, SpiffeId};
use crate::time::Timestamp;

/// From when to when a certificate is valid, in whole seconds, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

impl Validity {
    /// From [`BACKDATE`] before `now` until `lifetime` after it.
    pub fn starting(now: Timestamp, lifetime: Duration) -> Self {
        let now = now.truncate_to_secs();
        Self {
            not_before: now - BACKDATE,
            not_after: (now + lifetime).truncate_to_secs(),
        }
    }

    /// The first second.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// The last second.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The same, but ending no later than `limit`.
    pub fn until_at_most(self, limit: Timestamp) -> Self {
        Self {
            not_after: self.not_after.min(limit.truncate_to_secs()),
            ..self
        }
    }
}

/// What is to be certified, complete with its serial number.
#[derive(Clone, Debug)]
pub struct Template {
    pub(crate) serial: Serial,
    pub(crate) subject: Subject,
    pub(crate) public_key: PublicKey,
    pub(crate) validity: Validity,
    pub(crate) crl_uri: Option<CrlUri>,
    /// What an agent may be issued; always there for agents, and for nothing else.
    pub(crate) grant: Option<Grant>,
}

impl Template {
    /// The CA that issues TLS certificates; by the root.
    pub fn issuing_ca(trust_domain: TrustDomain, key: &PublicKey, validity: Validity) -> Self {
        Self::new(Subject::IssuingCa { trust_domain }, key, validity)
    }

    /// The CA that certifies log and response signers; by the root.
    pub fn signer_ca(trust_domain: TrustDomain, key: &PublicKey, validity: Validity) -> Self {
        Self::new(Subject::SignerCa { trust_domain }, key, validity)
    }

    /// An agent, within its grant; by the issuing CA.
    pub fn agent(
        agent: AgentIdentity,
        grant: &Grant,
        key: &PublicKey,
        validity: Validity,
        crl_uri: CrlUri,
    ) -> Self {
        let mut template = Self::new(Subject::Agent(agent), key, validity).with_crl(crl_uri);
        template.grant = Some(grant.clone());
        template
    }

    /// An enforcer; by the issuing CA.
    pub fn enforcer(
        uri: SpiffeId,
        dns: Vec<DnsName>,
        ip: Vec<IpAddr>,
        key: &PublicKey,
        validity: Validity,
        crl_uri: CrlUri,
    ) -> Self {
        let subject = Subject::Enforcer(EnforcerIdentity { uri, dns, ip });
        Self::new(subject, key, validity).with_crl(crl_uri)
    }

    /// A person; by the issuing CA.
    pub fn person(
        uri: SpiffeId,
        roles: Roles,
        key: &PublicKey,
        validity: Validity,
        crl_uri: CrlUri,
    ) -> Self {
        Self::new(
            Subject::Person(PersonIdentity { uri, roles }),
            key,
            validity,
        )
        .with_crl(crl_uri)
    }

    /// The authority itself; by the issuing CA.
    pub fn authority(
        trust_domain: TrustDomain,
        dns: Vec<DnsName>,
        ip: Vec<IpAddr>,
        key: &PublicKey,
        validity: Validity,
        crl_uri: CrlUri,
    ) -> Self {
        let uri = SpiffeId::Authority { trust_domain };
        let subject = Subject::Authority(AuthorityIdentity { uri, dns, ip });
        Self::new(subject, key, validity).with_crl(crl_uri)
    }

    /// A log or response signer; by the signer CA.
    pub fn log_signer(origin: LogOrigin, key: &PublicKey, validity: Validity) -> Self {
        Self::new(Subject::LogSigner { origin }, key, validity)
    }

    /// The serial number it will have.
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// The subject it will have.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// From when to when it will be valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    pub(crate) fn root(trust_domain: TrustDomain, key: &PublicKey, validity: Validity) -> Self {
        Self::new(Subject::Root { trust_domain }, key, validity)
    }

    fn new(subject: Subject, key: &PublicKey, validity: Validity) -> Self {
        Self {
            serial: Serial::generate(),
            subject,
            public_key: key.clone(),
            validity,
            crl_uri: None,
            grant: None,
        }
    }

    fn with_crl(mut self, crl_uri: CrlUri) -> Self {
        self.crl_uri = Some(crl_uri);
        self
    }
}
