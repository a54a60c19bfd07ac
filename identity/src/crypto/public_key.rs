//! Public keys as SubjectPublicKeyInfo (RFC 5280, RFC 5480, RFC 8410).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::backend::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use super::{CryptoError, KeyKind, sha256};

/// A public key: the DER of its SubjectPublicKeyInfo in the one form each kind of key has here.
#[derive(Clone)]
pub struct PublicKey {
    kind: KeyKind,
    spki: Arc<[u8]>,
    id: [u8; 32],
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo: P-256 as an uncompressed point, or Ed25519; nothing else.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, CryptoError> {
        let kind = if der.starts_with(&P256_HEADER) && der.len() == P256_HEADER.len() + 65 {
            KeyKind::P256
        } else if der.starts_with(&ED25519_HEADER) && der.len() == ED25519_HEADER.len() + 32 {
            KeyKind::Ed25519
        } else {
            return Err(CryptoError::PublicKey);
        };
        let key = Self {
            kind,
            spki: der.into(),
            id: sha256(der),
        };
        if kind == KeyKind::P256 && key.raw().first() != Some(&UNCOMPRESSED) {
            return Err(CryptoError::PublicKey);
        }
        Ok(key)
    }

    /// From the 32 bytes of an Ed25519 public key (RFC 8032).
    pub fn from_ed25519_raw(raw: &[u8; 32]) -> Self {
        let der = [&ED25519_HEADER[..], raw].concat();
        Self {
            kind: KeyKind::Ed25519,
            id: sha256(&der),
            spki: der.into(),
        }
    }

    /// The DER of the SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The algorithm.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// SHA-256 of [`PublicKey::spki_der`].
    pub fn key_id(&self) -> [u8; 32] {
        self.id
    }

    /// What certificates call the key identifier: the first 20 bytes of [`PublicKey::key_id`]
    /// (RFC 7093, method 1, over the whole SubjectPublicKeyInfo).
    pub fn short_id(&self) -> [u8; 20] {
        let mut short = [0; 20];
        short
            .iter_mut()
            .zip(self.id)
            .for_each(|(to, from)| *to = from);
        short
    }

    /// The 32 bytes of an Ed25519 key; none for P-256.
    pub fn ed25519_raw(&self) -> Option<[u8; 32]> {
        match self.kind {
            KeyKind::Ed25519 => self.raw().try_into().ok(),
            KeyKind::P256 => None,
        }
    }

    /// Whether `signature` over `message` is this key's.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let checked = match self.kind {
            KeyKind::P256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.raw())
                .verify(message, signature),
            KeyKind::Ed25519 => {
                UnparsedPublicKey::new(&ED25519, self.raw()).verify(message, signature)
            }
        };
        checked.map_err(|_| CryptoError::Signature)
    }

    /// The key's own bytes: a point, or an Ed25519 key.
    pub(crate) fn raw(&self) -> &[u8] {
        let header = match self.kind {
            KeyKind::P256 => P256_HEADER.len(),
            KeyKind::Ed25519 => ED25519_HEADER.len(),
        };
        self.spki.get(header..).unwrap_or_default()
    }

    pub(super) fn from_p256_point(point: &[u8]) -> Result<Self, CryptoError> {
        Self::from_spki_der(&[&P256_HEADER[..], point].concat())
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?} ", self.kind)?;
        self.id
            .iter()
            .take(8)
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…)")
    }
}

/// Everything before the point: SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING }.
const P256_HEADER: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Everything before the key: SEQUENCE { SEQUENCE { id-Ed25519 }, BIT STRING }.
const ED25519_HEADER: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// SEC 1 section 2.3.3: the first byte of an uncompressed point.
const UNCOMPRESSED: u8 = 0x04;
