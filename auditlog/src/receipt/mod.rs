//! Receipts: what ties a response to the record of its call.
//!
//! `Agent-Audit: log="…", index=…, leaf=:…:, phase=closed|open, peer=:…:, salt=:…:` is an RFC 9651
//! dictionary. The record holds the body's digest, salted; it never holds this header.

pub mod stream;

use std::fmt::{self, Display};

use agentca_identity::crypto::sha256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::merkle::Hash;

/// The value of an `Agent-Audit` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentAudit<'a> {
    /// The log's origin.
    pub log: &'a str,
    /// The record's index.
    pub index: u64,
    /// The record's leaf hash.
    pub leaf: Hash,
    /// Whether the record has the outcome.
    pub phase: Phase,
    /// SHA-256 of the client's certificate, DER.
    pub peer: Hash,
    /// What the digests of the call's bodies are salted with.
    pub salt: [u8; 16],
}

/// Whether the outcome is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The record has the outcome.
    Closed,
    /// A stream: an outcome record follows.
    Open,
}

impl Phase {
    /// The word in the header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }
}

impl Display for AgentAudit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(256);
        self.write(&mut text);
        f.write_str(&text)
    }
}

impl<'a> AgentAudit<'a> {
    /// Appends the header's value to `out`: as `Display`, without its overhead.
    pub fn write(&self, out: &mut String) {
        out.push_str("log=\"");
        out.push_str(self.log);
        out.push_str("\", index=");
        out.push_str(&self.index.to_string());
        out.push_str(", leaf=:");
        STANDARD.encode_string(self.leaf, out);
        out.push_str(":, phase=");
        out.push_str(self.phase.as_str());
        out.push_str(", peer=:");
        STANDARD.encode_string(self.peer, out);
        out.push_str(":, salt=:");
        STANDARD.encode_string(self.salt, out);
        out.push(':');
    }

    /// Reads a header's value.
    ///
    /// # Errors
    /// [`ReceiptError`] for anything that `Display` does not write.
    pub fn parse(value: &'a str) -> Result<Self, ReceiptError> {
        let mut rest = value;
        let log = member(&mut rest, "log=\"", "\"")?;
        let index = member(&mut rest, ", index=", ",")?;
        let leaf = member(&mut rest, " leaf=:", ":,")?;
        let phase = member(&mut rest, " phase=", ",")?;
        let peer = member(&mut rest, " peer=:", ":,")?;
        let salt = member(&mut rest, " salt=:", ":")?;
        let audit = Self {
            log,
            index: index.parse().map_err(|_| ReceiptError)?,
            leaf: bytes(leaf)?,
            phase: match phase {
                "closed" => Phase::Closed,
                "open" => Phase::Open,
                _ => return Err(ReceiptError),
            },
            peer: bytes(peer)?,
            salt: bytes(salt)?,
        };
        if audit.to_string() == value {
            Ok(audit)
        } else {
            Err(ReceiptError)
        }
    }
}

/// The digest of a body as records hold it: SHA-256(salt ‖ SHA-256(body)).
#[must_use]
pub fn salted_digest(salt: &[u8; 16], body_sha256: &Hash) -> Hash {
    let mut input = [0; 48];
    let (first, second) = input.split_at_mut(16);
    first.copy_from_slice(salt);
    second.copy_from_slice(body_sha256);
    sha256(&input)
}

fn member<'a>(rest: &mut &'a str, before: &str, after: &str) -> Result<&'a str, ReceiptError> {
    let inner = rest.strip_prefix(before).ok_or(ReceiptError)?;
    let (value, tail) = inner.split_once(after).ok_or(ReceiptError)?;
    *rest = tail;
    Ok(value)
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], ReceiptError> {
    STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(ReceiptError)
}

/// Not a receipt, or not one for what it came with.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a receipt as an enforcer writes it")]
pub struct ReceiptError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALUE: &str = "log=\"example.org/prod/enforcer/edge-1\", index=73, \
        leaf=:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=:, phase=closed, \
        peer=:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=:, salt=:AwMDAwMDAwMDAwMDAwMDAw==:";

    fn audit() -> AgentAudit<'static> {
        AgentAudit {
            log: "example.org/prod/enforcer/edge-1",
            index: 73,
            leaf: [1; 32],
            phase: Phase::Closed,
            peer: [2; 32],
            salt: [3; 16],
        }
    }

    #[test]
    fn the_form_is_the_documented_one() {
        assert_eq!(audit().to_string(), VALUE);
        assert_eq!(AgentAudit::parse(VALUE).unwrap(), audit());
        let open = AgentAudit {
            phase: Phase::Open,
            ..audit()
        };
        assert_eq!(AgentAudit::parse(&open.to_string()).unwrap(), open);
    }

    #[test]
    fn anything_else_is_refused() {
        for (from, to) in [
            ("index=73", "index=073"),
            ("index=73", "index=+73"),
            (", ", ","),
            ("closed", "Closed"),
            ("AwM=", "AwN="),
            ("E=:", "E:"),
            ("salt=:", "pepper=:"),
        ] {
            let bad = VALUE.replacen(from, to, 1);
            assert!(bad == VALUE || AgentAudit::parse(&bad).is_err(), "{bad}");
        }
        assert!(AgentAudit::parse(&format!("{VALUE}, x=1")).is_err());
    }

    #[test]
    fn the_salted_digest_is_what_a_stranger_computes() {
        let digest = salted_digest(&[3; 16], &sha256(b"body"));
        assert_eq!(digest, sha256(&[&[3; 16][..], &sha256(b"body")].concat()));
    }

    proptest! {
        #[test]
        fn no_input_panics(value in "(log=\")?.{0,20}(\", index=)?[0-9]{0,21}.{0,99}") {
            let _ = AgentAudit::parse(&value);
        }
    }
}
