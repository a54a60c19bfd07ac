//! Certificates (RFC 5280) of the profile, read strictly.
//!
//! [`Certificate::parse`] is the one reader of every program. It walks the DER, takes only what the
//! profile knows, builds typed facts, encodes those facts again and compares bytes: there is exactly
//! one form for each certificate, and what is not understood is refused. It never panics and its
//! work is bounded by [`MAX_LEN`].
//!
//! | subject | basicConstraints | keyUsage | extKeyUsage | SAN | our extensions |
//! |---|---|---|---|---|---|
//! | root | CA, pathLen 1 | keyCertSign, cRLSign | – | – | – |
//! | issuing CA | CA, pathLen 0 | keyCertSign, cRLSign | – | – | – |
//! | signer CA | CA, pathLen 0 | keyCertSign | signer | – | – |
//! | agent | not a CA | digitalSignature | server, client | URI | `.1`–`.5` |
//! | enforcer, authority | not a CA | digitalSignature | server, client | URI, DNS, IP | – |
//! | person | not a CA | digitalSignature | server, client | URI | `.6` |
//! | log signer | not a CA | digitalSignature | signer | URI | – |
//!
//! `.5` (delegation) is an empty list for an agent that no agent stands behind. Subjects have a
//! common name (CAs an organisation too, the trust domain) that repeats what the URI says; nothing
//! is decided by it.

mod encode;
mod extensions;
mod read;
mod subject;
#[cfg(test)]
mod tests;

pub use crate::pem;
pub use read::ReadError;
pub use subject::{
    AgentIdentity, AuthorityIdentity, CrlUri, CrlUriError, EnforcerIdentity, PersonIdentity,
    Subject,
};

pub(crate) use encode::{
    assemble, own_extensions, write_algorithm, write_ca_name, write_crl_point, write_extension,
};
pub(crate) use read::{read_algorithm, read_crl_point};
pub(crate) use subject::CaKind;

use crate::crypto::{CryptoError, KeyKind, PublicKey, sha256};
use crate::der::Writer;
use crate::profile::Pen;
use crate::serial::Serial;
use crate::spiffe::SpiffeId;
use crate::time::Timestamp;

/// Most bytes of one certificate that are read.
pub const MAX_LEN: usize = 65_535;

/// A certificate that keeps the profile. Nothing is said about who signed it: see
/// [`crate::chain::TrustAnchor`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    fingerprint: [u8; 32],
    facts: Facts,
    tbs: std::ops::Range<usize>,
    signature: Vec<u8>,
}

impl Certificate {
    /// Reads one certificate, with nothing before or after it.
    pub fn parse(der: &[u8]) -> Result<Self, ReadError> {
        read::certificate(der)
    }

    /// The bytes it was read from.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of [`Certificate::der`].
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// The serial number.
    pub fn serial(&self) -> Serial {
        self.facts.serial
    }

    /// Who it is for, and what it says about them.
    pub fn subject(&self) -> &Subject {
        &self.facts.subject
    }

    /// The SPIFFE id of a leaf; none for CAs.
    pub fn id(&self) -> Option<SpiffeId> {
        self.facts.subject.id()
    }

    /// The first second at which it is valid.
    pub fn not_before(&self) -> Timestamp {
        self.facts.not_before
    }

    /// The last second at which it is valid.
    pub fn not_after(&self) -> Timestamp {
        self.facts.not_after
    }

    /// The certified key.
    pub fn public_key(&self) -> &PublicKey {
        &self.facts.public_key
    }

    /// The key identifier of the issuer's key; none for a root.
    pub fn authority_key_id(&self) -> Option<[u8; 20]> {
        self.facts.authority_key_id
    }

    /// Where its CRL is; none for CAs and log signers.
    pub fn crl_uri(&self) -> Option<&CrlUri> {
        self.facts.crl_uri.as_ref()
    }

    /// The PEN that its extensions or key purpose name; none for what carries neither.
    pub fn pen(&self) -> Option<Pen> {
        self.facts.subject.names_pen().then_some(self.facts.pen)
    }

    /// The identity of an agent.
    pub fn agent(&self) -> Option<&AgentIdentity> {
        match &self.facts.subject {
            Subject::Agent(agent) => Some(agent),
            _ => None,
        }
    }

    /// The identity of a person.
    pub fn person(&self) -> Option<&PersonIdentity> {
        match &self.facts.subject {
            Subject::Person(person) => Some(person),
            _ => None,
        }
    }

    /// The DER of the subject's name if it is a CA, empty otherwise: what servers hint clients at.
    pub(crate) fn subject_name(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        if let Some(kind) = self.facts.subject.ca_kind() {
            write_ca_name(&mut writer, self.facts.subject.trust_domain(), kind);
        }
        writer.finish()
    }

    /// Whether the signature is `key`'s.
    pub(crate) fn verify_signature(&self, key: &PublicKey) -> Result<(), CryptoError> {
        if key.kind() != self.facts.signed_with {
            return Err(CryptoError::Signature);
        }
        key.verify(self.tbs(), &self.signature)
    }

    pub(crate) fn tbs(&self) -> &[u8] {
        self.der.get(self.tbs.clone()).unwrap_or_default()
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }
}

/// Everything a certificate says, signature aside. Reading and encoding are inverse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) serial: Serial,
    pub(crate) signed_with: KeyKind,
    pub(crate) subject: Subject,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) public_key: PublicKey,
    pub(crate) authority_key_id: Option<[u8; 20]>,
    pub(crate) crl_uri: Option<CrlUri>,
    /// The default where [`Subject::names_pen`] is false.
    pub(crate) pen: Pen,
}

impl Facts {
    /// Reads a TBSCertificate as strictly as [`Certificate::parse`].
    pub(crate) fn read(tbs: &[u8]) -> Result<Self, ReadError> {
        read::facts(tbs)
    }

    /// The one DER form of the TBSCertificate.
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode::facts(self)
    }
}

fn fingerprint(der: &[u8]) -> [u8; 32] {
    sha256(der)
}
