//! Who may sign notes: C2SP signed-note's verifier keys.

use std::fmt::{self, Display};
use std::str::FromStr;

use agentca_identity::crypto::{PublicKey, sha256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{NoteError, SignatureLine};

/// What a key signs, and so its signature type byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureType {
    /// 0x01: Ed25519 over the note text.
    Ed25519,
    /// 0x04: timestamped Ed25519 cosignature of a checkpoint, C2SP tlog-cosignature.
    Cosignature,
}

impl SignatureType {
    fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }
}

/// A public key that may sign notes: what a *vkey* line says.
#[derive(Clone, Debug)]
pub struct VerifierKey {
    name: String,
    id: u32,
    signature_type: SignatureType,
    key: PublicKey,
    raw: [u8; 32],
}

impl VerifierKey {
    /// The verifier key `name` for an Ed25519 public key.
    ///
    /// # Errors
    /// [`NoteError::Name`] for a name no signature line can carry, [`NoteError::KeyKind`] for a
    /// key that is not Ed25519.
    pub fn new(
        name: &str,
        signature_type: SignatureType,
        key: PublicKey,
    ) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::Name);
        }
        let raw = key.ed25519_raw().ok_or(NoteError::KeyKind)?;
        let id = key_id(name, signature_type, &raw);
        Ok(Self {
            name: name.to_owned(),
            id,
            signature_type,
            key,
            raw,
        })
    }

    /// The key name: for a log its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key id of signature lines.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What it signs.
    #[must_use]
    pub fn signature_type(&self) -> SignatureType {
        self.signature_type
    }

    /// The public key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether `line` claims to be by this key.
    #[must_use]
    pub fn names(&self, line: &SignatureLine) -> bool {
        line.name == self.name && line.key_id == self.id
    }
}

impl PartialEq for VerifierKey {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.signature_type, self.raw)
            == (&other.name, other.signature_type, other.raw)
    }
}

impl Eq for VerifierKey {}

impl Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut material = vec![self.signature_type.byte()];
        material.extend_from_slice(&self.raw);
        write!(
            f,
            "{}+{:08x}+{}",
            self.name,
            self.id,
            STANDARD.encode(material)
        )
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, rest) = text.split_once('+').ok_or(NoteError::VerifierKey)?;
        let (id, material) = rest.split_once('+').ok_or(NoteError::VerifierKey)?;
        let material = STANDARD
            .decode(material)
            .map_err(|_| NoteError::VerifierKey)?;
        let (signature_type, raw) = match material.split_first() {
            Some((0x01, raw)) => (SignatureType::Ed25519, raw),
            Some((0x04, raw)) => (SignatureType::Cosignature, raw),
            _ => return Err(NoteError::VerifierKey),
        };
        let raw: [u8; 32] = raw.try_into().map_err(|_| NoteError::VerifierKey)?;
        let key = PublicKey::from_ed25519_raw(&raw);
        let key = Self::new(name, signature_type, key)?;
        if format!("{:08x}", key.id) == id {
            Ok(key)
        } else {
            Err(NoteError::VerifierKey)
        }
    }
}

fn key_id(name: &str, signature_type: SignatureType, raw: &[u8; 32]) -> u32 {
    let mut input = name.as_bytes().to_vec();
    input.extend_from_slice(&[b'\n', signature_type.byte()]);
    input.extend_from_slice(raw);
    let hash = sha256(&input);
    u32::from_be_bytes(hash.first_chunk().copied().unwrap_or_default())
}

pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifier_keys_are_read_strictly() {
        for text in [
            "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903a+CekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U0=",
            "example.com/foo+530d903a",
            "",
        ] {
            assert!(text.parse::<VerifierKey>().is_err(), "{text}");
        }
    }
}
