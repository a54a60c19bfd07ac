//! Message authentication: HMAC-SHA256 (RFC 2104) under keys that are derived, never stored.

use std::fmt;

use super::backend::hmac;
use super::{KeyKind, PrivateKey};

/// A key for message authentication codes. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

impl MacKey {
    /// The key for `purpose` that belongs to a private key: whoever has that has this, nobody else.
    ///
    /// HMAC-SHA256 over the purpose under the private key's PKCS#8, as RFC 5869 extracts. None for a
    /// P-256 key, whose PKCS#8 has several forms.
    #[must_use]
    pub fn derive(key: &PrivateKey, purpose: &str) -> Option<Self> {
        if key.kind() != KeyKind::Ed25519 {
            return None;
        }
        let secret = hmac::Key::new(hmac::HMAC_SHA256, key.pkcs8_der());
        let derived = hmac::sign(&secret, purpose.as_bytes());
        Some(Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())))
    }

    /// The key that the salt of a request is: for what its holder may compute again, and nobody else.
    #[must_use]
    pub fn of_salt(salt: &[u8; 16]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, salt))
    }

    /// The code of `message`.
    #[must_use]
    pub fn code(&self, message: &[u8]) -> [u8; 32] {
        let code = hmac::sign(&self.0, message);
        // HMAC-SHA256 always gives 32 bytes.
        code.as_ref().try_into().unwrap_or([0; 32])
    }

    /// Whether `code` is that of `message`; takes the same time whichever bytes differ.
    #[must_use]
    pub fn matches(&self, message: &[u8], code: &[u8; 32]) -> bool {
        hmac::verify(&self.0, message, code).is_ok()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(secret elided)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_and_purpose_has_its_own() {
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        let mac = MacKey::derive(&key, "one").unwrap();
        let code = mac.code(b"message");
        assert!(
            MacKey::derive(&key, "one")
                .unwrap()
                .matches(b"message", &code)
        );
        assert!(!mac.matches(b"messages", &code));
        assert!(
            !MacKey::derive(&key, "two")
                .unwrap()
                .matches(b"message", &code)
        );
        let other = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        assert!(
            !MacKey::derive(&other, "one")
                .unwrap()
                .matches(b"message", &code)
        );
        let read = PrivateKey::from_pem(&key.to_pem()).unwrap();
        assert!(
            MacKey::derive(&read, "one")
                .unwrap()
                .matches(b"message", &code)
        );
    }

    #[test]
    fn a_salts_codes_are_what_others_compute() {
        // printf message | openssl dgst -sha256 -mac HMAC -macopt hexkey:03030303030303030303030303030303
        let code = MacKey::of_salt(&[3; 16]).code(b"message");
        let hex: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "2053a0ce70797caeabb36739d0b44b884d6cafc2e4d504cb0802fd53609ad638"
        );
    }

    #[test]
    fn p256_keys_have_none() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        assert!(MacKey::derive(&key, "one").is_none());
    }
}
