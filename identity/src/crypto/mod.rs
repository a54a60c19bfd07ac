//! The crypto backend: hashing, randomness, keys, and the TLS provider.
//!
//! The only module that names a backend. `aws-lc` is the default; `ring` is a build feature, and
//! when both are on `aws-lc` is used. Keys are P-256 (ECDSA with SHA-256) or Ed25519, nothing else.

mod mac;
mod private_key;
mod public_key;

pub use mac::MacKey;
pub use private_key::PrivateKey;
pub use public_key::PublicKey;

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use thiserror::Error;

#[cfg(feature = "aws-lc")]
pub(crate) use aws_lc_rs as backend;
#[cfg(all(feature = "ring", not(feature = "aws-lc")))]
pub(crate) use ring as backend;

#[cfg(not(any(feature = "aws-lc", feature = "ring")))]
compile_error!("agentca-identity needs a crypto backend: enable the feature `aws-lc` or `ring`");

use backend::digest::{self, SHA256};
use backend::rand::{SecureRandom, SystemRandom};

/// SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    digest_bytes(&digest::digest(&SHA256, data))
}

/// SHA-256 in pieces.
#[derive(Clone)]
pub struct Sha256(digest::Context);

impl Sha256 {
    /// With nothing hashed yet.
    pub fn new() -> Self {
        Self(digest::Context::new(&SHA256))
    }

    /// Adds `data`.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of everything added.
    pub fn finish(self) -> [u8; 32] {
        digest_bytes(&self.0.finish())
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256")
    }
}

/// `N` bytes from the system's random number generator.
///
/// # Panics
///
/// When the system can give no randomness: no key, serial or salt made then would be safe.
#[expect(clippy::panic, reason = "without randomness nothing safe can follow")]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        panic!("the system's random number generator failed");
    }
    bytes
}

/// The algorithm of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA on P-256 with SHA-256; signatures are ASN.1 DER.
    #[default]
    P256,
    /// Ed25519; signatures are 64 bytes.
    Ed25519,
}

/// The provider for every rustls configuration: TLS 1.3 suites only, X25519MLKEM768 preferred where
/// the backend has it.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(tls13_only(backend_provider())))
        .clone()
}

/// The same for dialling servers that are not ours: TLS 1.2 besides, for there are many that know nothing newer.
pub fn foreign_provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(backend_provider()))
        .clone()
}

/// Why a key or signature is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CryptoError {
    /// The bytes are no private key that can be used.
    #[error("not a PKCS#8 private key on P-256 or Ed25519")]
    PrivateKey,
    /// The bytes are no public key that can be used.
    #[error("not a public key on P-256 (uncompressed) or Ed25519")]
    PublicKey,
    /// A signature does not verify.
    #[error("the signature does not verify")]
    Signature,
    /// The backend failed to sign.
    #[error("signing failed")]
    Signing,
    /// The text is not the PEM that is wanted.
    #[error(transparent)]
    Pem(#[from] crate::pem::PemError),
    /// A key is encrypted and no passphrase was given.
    #[error("the private key is encrypted, give its passphrase file")]
    Encrypted,
    /// A passphrase does not open a key.
    #[error("the private key can't be decrypted, is the passphrase right")]
    Passphrase,
}

fn digest_bytes(digest: &digest::Digest) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes
        .iter_mut()
        .zip(digest.as_ref())
        .for_each(|(to, from)| *to = *from);
    bytes
}

fn tls13_only(mut provider: CryptoProvider) -> CryptoProvider {
    provider
        .cipher_suites
        .retain(|suite| suite.tls13().is_some());
    provider
}

#[cfg(feature = "aws-lc")]
fn backend_provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

#[cfg(all(feature = "ring", not(feature = "aws-lc")))]
fn backend_provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

#[cfg(test)]
mod tests;
