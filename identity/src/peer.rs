//! TLS peers (RFC 8446): one verifier for both directions.
//!
//! A peer is judged by its SPIFFE URI for the role it plays; host names are never looked at, because
//! a matching name never suffices. Verdicts on chains are kept by the digest of the chain, so that a
//! peer that comes back costs one hash, its CertificateVerify signature, and whatever `extra` asks.
//! Only good verdicts are kept; time and `extra` (revocation) are asked at every handshake.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls13_signature, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};

use crate::chain::{PeerError, TrustAnchor, VerifiedPeer};
use crate::crypto::{Sha256, provider, sha256};
use crate::spiffe::Role;
use crate::time::Timestamp;

/// What time it is.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A further question about a peer whose chain is good, asked at every handshake: revocation, or
/// whether it is the one that was dialled.
pub type Extra = Arc<dyn Fn(&VerifiedPeer) -> Result<(), CertificateError> + Send + Sync>;

/// Judges TLS peers below one trust anchor for a set of roles, as server and as client. A client
/// certificate is required.
pub struct PeerVerifier {
    anchor: TrustAnchor,
    roles: Vec<Role>,
    now: Clock,
    extra: Option<Extra>,
    verdicts: Verdicts,
    hints: [DistinguishedName; 1],
}

impl PeerVerifier {
    /// A verifier for peers in any of `roles`.
    pub fn new(anchor: TrustAnchor, roles: &[Role], now: Clock, extra: Option<Extra>) -> Self {
        let hints = [DistinguishedName::from(anchor.root().subject_name())];
        Self {
            anchor,
            roles: roles.to_vec(),
            now,
            extra,
            verdicts: Verdicts::new(),
            hints,
        }
    }

    /// The peer of a finished handshake, from the certificates that the connection holds. Time and
    /// `extra` are not asked again.
    pub fn peer(&self, certificates: &[CertificateDer<'_>]) -> Option<Arc<VerifiedPeer>> {
        let (leaf, rest) = certificates.split_first()?;
        self.chain(leaf, rest).ok()
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), CertificateError> {
        let peer = self
            .chain(leaf, intermediates)
            .map_err(|error| certificate_error(&error))?;
        peer.check_time((self.now)())
            .map_err(|error| certificate_error(&error))?;
        match &self.extra {
            Some(extra) => extra(&peer),
            None => Ok(()),
        }
    }

    /// The chain's verdict, time aside, kept or found.
    fn chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<Arc<VerifiedPeer>, PeerError> {
        let [intermediate] = intermediates else {
            return Err(PeerError::Shape(intermediates.len() + 1));
        };
        let fingerprint = sha256(leaf);
        let mut chain = Sha256::new();
        chain.update(&fingerprint);
        chain.update(intermediate);
        let chain = chain.finish();
        if let Some(peer) = self.verdicts.find(&fingerprint, &chain) {
            return Ok(peer);
        }
        let peer = Arc::new(self.anchor.verify_any(&[leaf, intermediate], &self.roles)?);
        self.verdicts
            .keep(fingerprint, chain, peer.clone(), (self.now)());
        Ok(peer)
    }

    fn verify_handshake(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        match self.verdicts.find_leaf(&sha256(leaf)) {
            Some(peer) => {
                let key = SubjectPublicKeyInfoDer::from(peer.certificate().public_key().spki_der());
                verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
            }
            // Crowded out of the cache since its chain was judged.
            None => verify_tls13_signature(message, leaf, signed, algorithms),
        }
    }
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier")
            .field("trust_domain", self.anchor.trust_domain())
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_handshake(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_handshake(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

/// What keys of the profile sign with.
const SCHEMES: [SignatureScheme; 2] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
];

/// What the peer is told: time and origin of its certificate, and no more.
fn certificate_error(error: &PeerError) -> CertificateError {
    match error {
        PeerError::Expired => CertificateError::Expired,
        PeerError::NotYetValid => CertificateError::NotValidYet,
        PeerError::UnknownIssuer => CertificateError::UnknownIssuer,
        PeerError::Shape(_)
        | PeerError::Unreadable(_)
        | PeerError::NotARoot
        | PeerError::BadSignature
        | PeerError::WrongTrustDomain
        | PeerError::WrongRole
        | PeerError::WrongOrigin
        | PeerError::PenMismatch => CertificateError::ApplicationVerificationFailure,
    }
}

/// Good chains by their leaf, in shards so that handshakes on all cores don't meet.
struct Verdicts([RwLock<HashMap<[u8; 32], Verdict>>; SHARDS]);

struct Verdict {
    /// SHA-256 over the leaf's fingerprint and the intermediate.
    chain: [u8; 32],
    peer: Arc<VerifiedPeer>,
}

const SHARDS: usize = 16;

/// Of 16 shards: 16,384 peers, some 3 KiB each.
const MAX_PER_SHARD: usize = 1024;

impl Verdicts {
    fn new() -> Self {
        Self(std::array::from_fn(|_| RwLock::default()))
    }

    fn find(&self, leaf: &[u8; 32], chain: &[u8; 32]) -> Option<Arc<VerifiedPeer>> {
        let shard = self
            .shard(leaf)?
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        shard
            .get(leaf)
            .filter(|verdict| verdict.chain == *chain)
            .map(|verdict| verdict.peer.clone())
    }

    fn find_leaf(&self, leaf: &[u8; 32]) -> Option<Arc<VerifiedPeer>> {
        let shard = self
            .shard(leaf)?
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        shard.get(leaf).map(|verdict| verdict.peer.clone())
    }

    /// A full shard first loses what has expired, then whatever comes first in its random order.
    fn keep(&self, leaf: [u8; 32], chain: [u8; 32], peer: Arc<VerifiedPeer>, now: Timestamp) {
        let Some(shard) = self.shard(&leaf) else {
            return;
        };
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= MAX_PER_SHARD && !shard.contains_key(&leaf) {
            shard.retain(|_, verdict| verdict.peer.not_after() >= now);
            while shard.len() >= MAX_PER_SHARD {
                let Some(first) = shard.keys().next().copied() else {
                    break;
                };
                shard.remove(&first);
            }
        }
        shard.insert(leaf, Verdict { chain, peer });
    }

    fn shard(&self, leaf: &[u8; 32]) -> Option<&RwLock<HashMap<[u8; 32], Verdict>>> {
        let [first, ..] = leaf;
        self.0.get(usize::from(*first) % SHARDS)
    }
}

#[cfg(test)]
mod tests;
