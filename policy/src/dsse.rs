//! Signed statements: the envelope of DSSE v1 with one signature.
//!
//! What is signed is the pre-authentication encoding of the payload's type and bytes, so a statement
//! of one kind never counts as one of another.

use agentca_identity::chain::{PeerError, TrustAnchor, VerifiedPeer};
use agentca_identity::crypto::{CryptoError, PrivateKey, PublicKey};
use agentca_identity::spiffe::Role;
use agentca_identity::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A signed statement as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Envelope {
    /// What kind of statement it is.
    payload_type: String,
    /// The statement in base64.
    payload: String,
    /// Exactly one.
    signatures: Vec<Signature>,
}

/// A signature, and for a person the chain that says whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    /// Lower-case hex SHA-256 of the key's SubjectPublicKeyInfo: a hint, not trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyid: Option<String>,
    /// The signature in base64.
    sig: String,
    /// Certificates in base64 of their DER, leaf first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chain: Vec<String>,
}

impl Envelope {
    /// Signs a statement; `chain` is the person's certificate chain (DER, leaf first), or nothing
    /// for a key that stands for itself.
    ///
    /// # Errors
    /// [`EnvelopeError::Crypto`] when the key cannot sign.
    pub fn sign(
        payload_type: &str,
        payload: &[u8],
        key: &PrivateKey,
        chain: &[Vec<u8>],
    ) -> Result<Self, EnvelopeError> {
        let sig = key.sign(&pre_authentication_encoding(payload_type, payload))?;
        let keyid = key.public_key().key_id();
        Ok(Self {
            payload_type: payload_type.to_owned(),
            payload: STANDARD.encode(payload),
            signatures: vec![Signature {
                keyid: Some(keyid.iter().map(|byte| format!("{byte:02x}")).collect()),
                sig: STANDARD.encode(sig),
                chain: chain.iter().map(|der| STANDARD.encode(der)).collect(),
            }],
        })
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// [`EnvelopeError::Form`].
    pub fn parse(json: &str) -> Result<Self, EnvelopeError> {
        serde_json::from_str(json).map_err(|error| EnvelopeError::Form(error.to_string()))
    }

    /// What kind of statement it says it is.
    #[must_use]
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The statement, which nobody vouches for yet.
    ///
    /// # Errors
    /// [`EnvelopeError`] when it is of another kind or no base64.
    pub fn payload(&self, payload_type: &str) -> Result<Vec<u8>, EnvelopeError> {
        if self.payload_type != payload_type {
            return Err(EnvelopeError::Type(self.payload_type.clone()));
        }
        let [_] = self.signatures.as_slice() else {
            return Err(EnvelopeError::Signatures(self.signatures.len()));
        };
        decode(&self.payload)
    }

    /// The statement, when `key` signed it.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn verify(&self, payload_type: &str, key: &PublicKey) -> Result<Vec<u8>, EnvelopeError> {
        let payload = self.payload(payload_type)?;
        let signed = pre_authentication_encoding(payload_type, &payload);
        key.verify(&signed, &decode(&self.signature()?.sig)?)
            .map_err(|_| EnvelopeError::Signature)?;
        Ok(payload)
    }

    /// The statement and who made it, when a person of this PKI signed it with a certificate that
    /// was good at `at`.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn verify_person(
        &self,
        payload_type: &str,
        anchor: &TrustAnchor,
        at: Timestamp,
    ) -> Result<(Vec<u8>, VerifiedPeer), EnvelopeError> {
        let ders: Vec<Vec<u8>> = self
            .signature()?
            .chain
            .iter()
            .map(|der| decode(der))
            .collect::<Result<_, _>>()?;
        let chain: Vec<&[u8]> = ders.iter().map(Vec::as_slice).collect();
        let person = anchor.verify(&chain, at, Role::Person)?;
        let payload = self.verify(payload_type, person.certificate().public_key())?;
        Ok((payload, person))
    }

    fn signature(&self) -> Result<&Signature, EnvelopeError> {
        match self.signatures.as_slice() {
            [signature] => Ok(signature),
            other => Err(EnvelopeError::Signatures(other.len())),
        }
    }
}

/// What is signed: `DSSEv1 <length> <type> <length> <payload>`.
#[must_use]
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

/// Why a statement does not count.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// No envelope.
    #[error("it is not a DSSE envelope: {0}")]
    Form(String),
    /// A part that is no base64.
    #[error("a part of the envelope is not base64")]
    Base64,
    /// A statement of another kind.
    #[error("`{0}` is another kind of statement")]
    Type(String),
    /// None or several.
    #[error("it has {0} signatures, one is needed")]
    Signatures(usize),
    /// Not of that key.
    #[error("the signature is not of the key that it should be of")]
    Signature,
    /// A chain that is not a person's.
    #[error("the signer's certificate: {0}")]
    Chain(#[from] PeerError),
    /// The key did not sign.
    #[error("the key cannot sign")]
    Crypto(#[from] CryptoError),
}

fn decode(text: &str) -> Result<Vec<u8>, EnvelopeError> {
    STANDARD.decode(text).map_err(|_| EnvelopeError::Base64)
}

#[cfg(test)]
mod tests;
