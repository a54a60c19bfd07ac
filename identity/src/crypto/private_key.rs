//! Private keys as PKCS#8 (RFC 5208, RFC 8410), plain or encrypted with PBES2 and scrypt (RFC 7914).

use std::fmt;
use std::sync::Arc;

use pkcs8::der::{Decode, Encode};
use pkcs8::pkcs5::pbes2;
use pkcs8::{EncryptedPrivateKeyInfo, ObjectIdentifier, PrivateKeyInfo};
use zeroize::Zeroizing;

use super::backend::rand::SystemRandom;
use super::backend::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use super::{CryptoError, KeyKind, PublicKey, random};
use crate::pem;

/// A private key, parsed once and cheap to clone. Its bytes are wiped when the last clone goes, and
/// `Debug` shows only the public key.
#[derive(Clone)]
pub struct PrivateKey(Arc<Inner>);

impl PrivateKey {
    /// A fresh key.
    pub fn generate(kind: KeyKind) -> Result<Self, CryptoError> {
        match kind {
            KeyKind::P256 => {
                let random = SystemRandom::new();
                let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
                    .map_err(|_| CryptoError::PrivateKey)?;
                Self::p256(der.as_ref())
            }
            KeyKind::Ed25519 => Self::ed25519(&Zeroizing::new(random::<32>())),
        }
    }

    /// Reads a PKCS#8 PrivateKeyInfo, version 1 or 2.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, CryptoError> {
        let info = PrivateKeyInfo::from_der(der).map_err(|_| CryptoError::PrivateKey)?;
        if info.algorithm.oid == EC_PUBLIC_KEY {
            return Self::p256(der);
        }
        match (
            info.algorithm.oid,
            info.algorithm.parameters,
            info.private_key,
        ) {
            // RFC 8410 section 7: the key is an OCTET STRING within the OCTET STRING.
            (ED25519, None, [0x04, 0x20, seed @ ..]) => {
                let seed = seed.try_into().map_err(|_| CryptoError::PrivateKey)?;
                let key = Self::ed25519(&Zeroizing::new(seed))?;
                match info.public_key {
                    Some(public) if public != key.public_key().raw() => {
                        Err(CryptoError::PrivateKey)
                    }
                    _ => Ok(key),
                }
            }
            _ => Err(CryptoError::PrivateKey),
        }
    }

    /// Reads a `PRIVATE KEY` block.
    pub fn from_pem(text: &str) -> Result<Self, CryptoError> {
        if pem::first_label(text) == Some(ENCRYPTED_LABEL) {
            return Err(CryptoError::Encrypted);
        }
        Self::from_pkcs8_der(&pem::decode(LABEL, text)?)
    }

    /// Reads an `ENCRYPTED PRIVATE KEY` block.
    pub fn from_encrypted_pem(
        text: &str,
        passphrase: impl AsRef<[u8]>,
    ) -> Result<Self, CryptoError> {
        let der = pem::decode(ENCRYPTED_LABEL, text)?;
        let info = EncryptedPrivateKeyInfo::from_der(&der).map_err(|_| CryptoError::PrivateKey)?;
        let plain = info
            .decrypt(passphrase)
            .map_err(|_| CryptoError::Passphrase)?;
        Self::from_pkcs8_der(plain.as_bytes())
    }

    /// A `PRIVATE KEY` block that OpenSSL reads.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem::encode(LABEL, self.pkcs8_der()))
    }

    /// An `ENCRYPTED PRIVATE KEY` block that OpenSSL reads.
    pub fn to_encrypted_pem(
        &self,
        passphrase: impl AsRef<[u8]>,
    ) -> Result<Zeroizing<String>, CryptoError> {
        let (salt, iv) = (random::<16>(), random::<16>());
        let parameters = pbes2::Parameters {
            kdf: pbes2::Kdf::Scrypt(pbes2::ScryptParams {
                salt: &salt,
                cost_parameter: SCRYPT_COST,
                block_size: SCRYPT_BLOCK_SIZE,
                parallelization: SCRYPT_PARALLELIZATION,
                key_length: None,
            }),
            encryption: pbes2::EncryptionScheme::Aes256Cbc { iv: &iv },
        };
        let encrypted = parameters
            .encrypt(passphrase, self.pkcs8_der())
            .map_err(|_| CryptoError::Passphrase)?;
        let info = EncryptedPrivateKeyInfo {
            encryption_algorithm: parameters.into(),
            encrypted_data: &encrypted,
        };
        let der = info.to_der().map_err(|_| CryptoError::PrivateKey)?;
        Ok(Zeroizing::new(pem::encode(ENCRYPTED_LABEL, &der)))
    }

    /// The algorithm.
    pub fn kind(&self) -> KeyKind {
        self.0.public.kind()
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public
    }

    /// The PKCS#8 DER, as rustls takes it.
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.0.der
    }

    /// Signs `message`: 64 bytes for Ed25519, ASN.1 DER for P-256.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        match &self.0.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::P256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| CryptoError::Signing),
        }
    }

    fn p256(der: &[u8]) -> Result<Self, CryptoError> {
        let pair = parse_p256(der)?;
        let public = PublicKey::from_p256_point(pair.public_key().as_ref())?;
        Ok(Self::assemble(der.to_vec(), Pair::P256(pair), public))
    }

    /// Always version 1, which OpenSSL 3.0 reads and version 2 it does not.
    fn ed25519(seed: &Zeroizing<[u8; 32]>) -> Result<Self, CryptoError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(&seed[..]).map_err(|_| CryptoError::PrivateKey)?;
        let raw = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| CryptoError::PrivateKey)?;
        let der = [&ED25519_HEADER[..], &seed[..]].concat();
        Ok(Self::assemble(
            der,
            Pair::Ed25519(pair),
            PublicKey::from_ed25519_raw(&raw),
        ))
    }

    fn assemble(der: Vec<u8>, pair: Pair, public: PublicKey) -> Self {
        Self(Arc::new(Inner {
            der: Zeroizing::new(der),
            pair,
            public,
        }))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(secret elided, {:?})", self.0.public)
    }
}

struct Inner {
    der: Zeroizing<Vec<u8>>,
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

#[cfg(feature = "aws-lc")]
fn parse_p256(der: &[u8]) -> Result<EcdsaKeyPair, CryptoError> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
        .map_err(|_| CryptoError::PrivateKey)
}

#[cfg(all(feature = "ring", not(feature = "aws-lc")))]
fn parse_p256(der: &[u8]) -> Result<EcdsaKeyPair, CryptoError> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &SystemRandom::new())
        .map_err(|_| CryptoError::PrivateKey)
}

const LABEL: &str = "PRIVATE KEY";
const ENCRYPTED_LABEL: &str = "ENCRYPTED PRIVATE KEY";

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Everything before the seed of a version 1 PrivateKeyInfo (RFC 8410 section 7).
const ED25519_HEADER: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// 16 MiB of memory, five times over: as costly as OWASP's least for scrypt, and within the 32 MiB
/// that OpenSSL allows a key file by default.
const SCRYPT_COST: u64 = 1 << 14;
const SCRYPT_BLOCK_SIZE: u16 = 8;
const SCRYPT_PARALLELIZATION: u16 = 5;
