//! Chains of one fixed shape: leaf, intermediate, root.
//!
//! There is no path building. A chain is two certificates, leaf first; the intermediate must be
//! signed by the one root there is, and be the kind of CA that certifies such a leaf. Time is an
//! argument.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use thiserror::Error;

use crate::certificate::{
    AgentIdentity, CaKind, Certificate, PersonIdentity, ReadError, Subject, pem,
};
use crate::crypto::PublicKey;
use crate::name::TrustDomain;
use crate::profile::Pen;
use crate::spiffe::{LogOrigin, Role, SpiffeId};
use crate::time::Timestamp;

/// The root of one trust domain; cheap to clone, clones share what they learnt.
///
/// The PEN of a PKI is the one that its signer CA names. An anchor learns it from the first signer
/// chain that it verifies, or from [`TrustAnchor::learn_pen`]; from then on a certificate that names
/// another one is refused.
#[derive(Clone, Debug)]
pub struct TrustAnchor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: Certificate,
    trust_domain: TrustDomain,
    pen: OnceLock<Pen>,
    /// Intermediates whose signature by the root is known to be good: few, and asked for by every
    /// handshake.
    intermediates: RwLock<Vec<Arc<Certificate>>>,
}

impl TrustAnchor {
    /// From the DER of a root certificate, which must carry its own signature.
    pub fn from_root_der(der: &[u8]) -> Result<Self, PeerError> {
        let root = Certificate::parse(der)?;
        let Subject::Root { trust_domain } = root.subject() else {
            return Err(PeerError::NotARoot);
        };
        root.verify_signature(root.public_key())
            .map_err(|_| PeerError::BadSignature)?;
        let trust_domain = trust_domain.clone();
        let intermediates = RwLock::default();
        Ok(Self(Arc::new(Inner {
            root,
            trust_domain,
            pen: OnceLock::new(),
            intermediates,
        })))
    }

    /// From PEM with exactly one certificate.
    pub fn from_pem(text: &str) -> Result<Self, PeerError> {
        match pem::decode_certs(text).as_deref() {
            Ok([der]) => Self::from_root_der(der),
            _ => Err(PeerError::NotARoot),
        }
    }

    /// The tenant.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// The root certificate.
    pub fn root(&self) -> &Certificate {
        &self.0.root
    }

    /// SHA-256 of the root's DER.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.0.root.fingerprint()
    }

    /// The PEN of this PKI, once a signer CA told it.
    pub fn pen(&self) -> Option<Pen> {
        self.0.pen.get().copied()
    }

    /// Learns the PEN from the DER of a signer CA below this root.
    pub fn learn_pen(&self, signer_ca: &[u8]) -> Result<Pen, PeerError> {
        let certificate = self.intermediate(signer_ca, CaKind::Signer)?;
        self.settle_pen(&certificate)
    }

    /// Reads the DER of an issuing CA below this root; its time is not judged.
    pub fn issuing_ca(&self, der: &[u8]) -> Result<Certificate, PeerError> {
        let certificate = self.intermediate(der, CaKind::Issuing)?;
        Ok(Certificate::clone(&certificate))
    }

    /// Judges a peer's chain, leaf first, for the role that it plays, at a point in time.
    pub fn verify(
        &self,
        chain: &[&[u8]],
        at: Timestamp,
        role: Role,
    ) -> Result<VerifiedPeer, PeerError> {
        let peer = self.verify_any(chain, &[role])?;
        peer.check_time(at)?;
        Ok(peer)
    }

    /// Judges the chain of a log or response signer for exactly `origin`. The time in which its
    /// signatures count is returned, not judged: logs outlive their signers.
    pub fn verify_signer(
        &self,
        chain: &[&[u8]],
        origin: &LogOrigin,
    ) -> Result<SignerKey, PeerError> {
        let [leaf, intermediate] = chain else {
            return Err(PeerError::Shape(chain.len()));
        };
        let leaf = Certificate::parse(leaf)?;
        let Subject::LogSigner { origin: signs_for } = leaf.subject() else {
            return Err(PeerError::WrongRole);
        };
        if signs_for != origin {
            return Err(PeerError::WrongOrigin);
        }
        let intermediate = self.intermediate(intermediate, CaKind::Signer)?;
        check_issued(&leaf, &intermediate)?;
        let pen = self.settle_pen(&intermediate)?;
        if leaf.pen() != Some(pen) {
            return Err(PeerError::PenMismatch);
        }
        Ok(SignerKey {
            public_key: leaf.public_key().clone(),
            not_before: leaf.not_before().max(intermediate.not_before()),
            not_after: leaf.not_after().min(intermediate.not_after()),
            origin: origin.clone(),
        })
    }

    /// As [`TrustAnchor::verify`] for any of several roles, but without judging the time.
    pub(crate) fn verify_any(
        &self,
        chain: &[&[u8]],
        roles: &[Role],
    ) -> Result<VerifiedPeer, PeerError> {
        let [leaf, intermediate] = chain else {
            return Err(PeerError::Shape(chain.len()));
        };
        let leaf = Certificate::parse(leaf)?;
        let intermediate = self.intermediate(intermediate, CaKind::Issuing)?;
        check_issued(&leaf, &intermediate)?;
        let id = leaf.id().ok_or(PeerError::WrongRole)?;
        if !roles.contains(&id.role()) {
            return Err(PeerError::WrongRole);
        }
        if let (Some(named), Some(known)) = (leaf.pen(), self.pen())
            && named != known
        {
            return Err(PeerError::PenMismatch);
        }
        Ok(VerifiedPeer {
            leaf,
            intermediate,
            id,
        })
    }

    /// An intermediate of this kind, checked against the root once.
    fn intermediate(&self, der: &[u8], kind: CaKind) -> Result<Arc<Certificate>, PeerError> {
        let known = self
            .0
            .intermediates
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|known| known.der() == der).cloned();
        drop(known);
        let certificate = match found {
            Some(certificate) => certificate,
            None => self.learn_intermediate(der)?,
        };
        if certificate.subject().ca_kind() == Some(kind) {
            Ok(certificate)
        } else {
            Err(PeerError::WrongRole)
        }
    }

    fn learn_intermediate(&self, der: &[u8]) -> Result<Arc<Certificate>, PeerError> {
        let certificate = Arc::new(Certificate::parse(der)?);
        if !matches!(
            certificate.subject().ca_kind(),
            Some(CaKind::Issuing | CaKind::Signer)
        ) {
            return Err(PeerError::WrongRole);
        }
        check_issued(&certificate, &self.0.root)?;
        let mut known = self
            .0
            .intermediates
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Another handshake may have learnt it meanwhile.
        if !known.contains(&certificate) {
            if known.len() >= MAX_INTERMEDIATES {
                known.remove(0);
            }
            known.push(certificate.clone());
        }
        Ok(certificate)
    }

    fn settle_pen(&self, signer_ca: &Certificate) -> Result<Pen, PeerError> {
        let named = signer_ca.pen().ok_or(PeerError::PenMismatch)?;
        if *self.0.pen.get_or_init(|| named) == named {
            Ok(named)
        } else {
            Err(PeerError::PenMismatch)
        }
    }
}

/// A TLS peer whose chain was judged good. There is no other way to make one than
/// [`TrustAnchor::verify`] and [`crate::peer::PeerVerifier`].
#[derive(Clone, Debug)]
pub struct VerifiedPeer {
    leaf: Certificate,
    intermediate: Arc<Certificate>,
    id: SpiffeId,
}

impl VerifiedPeer {
    /// The peer's own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.leaf
    }

    /// The CA that issued it.
    pub fn issuer(&self) -> &Certificate {
        &self.intermediate
    }

    /// Who it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The part that it plays.
    pub fn role(&self) -> Role {
        self.id.role()
    }

    /// The identity of an agent.
    pub fn agent(&self) -> Option<&AgentIdentity> {
        self.leaf.agent()
    }

    /// The identity of a person.
    pub fn person(&self) -> Option<&PersonIdentity> {
        self.leaf.person()
    }

    /// SHA-256 of its certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.leaf.fingerprint()
    }

    /// The last second at which leaf and intermediate are both valid.
    pub fn not_after(&self) -> Timestamp {
        self.leaf.not_after().min(self.intermediate.not_after())
    }

    /// Whether leaf and intermediate are both valid at `at`.
    pub fn check_time(&self, at: Timestamp) -> Result<(), PeerError> {
        // Certificates speak in whole seconds, and the last one counts (RFC 5280 section 4.1.2.5).
        let at = at.truncate_to_secs();
        if at > self.not_after() {
            return Err(PeerError::Expired);
        }
        if at < self.leaf.not_before().max(self.intermediate.not_before()) {
            return Err(PeerError::NotYetValid);
        }
        Ok(())
    }
}

/// A key whose signatures count for one origin, for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerKey {
    public_key: PublicKey,
    not_before: Timestamp,
    not_after: Timestamp,
    origin: LogOrigin,
}

impl SignerKey {
    /// The key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The first second at which its signatures count.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// The last second at which its signatures count.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// What it signs for.
    pub fn origin(&self) -> &LogOrigin {
        &self.origin
    }

    /// Whether `at` is in the time in which its signatures count.
    pub fn is_valid_at(&self, at: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&at.truncate_to_secs())
    }
}

/// Why a peer or a signer is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PeerError {
    /// Not leaf and intermediate.
    #[error("a chain must be leaf and intermediate, not {0} certificates")]
    Shape(usize),
    /// A certificate that can't be read.
    #[error("a certificate can't be read: {0}")]
    Unreadable(#[from] ReadError),
    /// The trust anchor is not a root.
    #[error("the trust anchor is not one root certificate of this system")]
    NotARoot,
    /// Issued by somebody else.
    #[error("the certificate was not issued under this root")]
    UnknownIssuer,
    /// A signature in the chain does not verify.
    #[error("a signature in the chain does not verify")]
    BadSignature,
    /// Of another trust domain.
    #[error("the certificate is of another trust domain")]
    WrongTrustDomain,
    /// A certificate for another part than the one played.
    #[error("the certificate is for another role")]
    WrongRole,
    /// A signer of something else.
    #[error("the certificate is for the signer of another origin")]
    WrongOrigin,
    /// Another PEN than the signer CA's.
    #[error("the certificate names another private enterprise number than the signer CA")]
    PenMismatch,
    /// No longer valid.
    #[error("the certificate or its issuer's has expired, renew it")]
    Expired,
    /// Not valid yet.
    #[error("the certificate or its issuer's is not valid yet, is the clock right")]
    NotYetValid,
}

/// Issuing and signer CA, current and next, with room to spare.
const MAX_INTERMEDIATES: usize = 16;

fn check_issued(certificate: &Certificate, issuer: &Certificate) -> Result<(), PeerError> {
    if Some(certificate.subject().issuer_kind()) != issuer.subject().ca_kind() {
        return Err(PeerError::WrongRole);
    }
    if certificate.authority_key_id() != Some(issuer.public_key().short_id()) {
        return Err(PeerError::UnknownIssuer);
    }
    if certificate.subject().trust_domain() != issuer.subject().trust_domain() {
        return Err(PeerError::WrongTrustDomain);
    }
    certificate
        .verify_signature(issuer.public_key())
        .map_err(|_| PeerError::BadSignature)
}

#[cfg(test)]
mod tests;
