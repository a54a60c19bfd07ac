//! Receipts of the messages of a stream: what a client can hold against the log while it lasts.
//!
//! Before each server-sent event that carries data stands a comment line
//! `: agent-receipt seq=0, digest=:…:, signature=:…:`. `digest` is the SHA-256 of exactly the event's data;
//! `signature` is the response signer's (Ed25519) over domain, log origin, index of the decision's record,
//! place in the stream and digest, a line each. That record is named by the head's own signature
//! (`Agent-Audit`), so that no message can be moved, left out, repeated or added unseen; where the stream
//! ended is what its outcome record says.

use agentca_identity::crypto::{CryptoError, KeyKind, PrivateKey, PublicKey, sha256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{ReceiptError, bytes, member};
use crate::merkle::Hash;

/// A stream, by the record of its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamId<'a> {
    /// The log's origin.
    pub log: &'a str,
    /// The decision's index.
    pub decision: u64,
}

/// The receipt of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamReceipt {
    /// The message's place among those with data, from 0.
    pub seq: u64,
    /// SHA-256 of its data.
    pub digest: Hash,
    /// Over place, digest and stream.
    pub signature: [u8; 64],
}

impl StreamReceipt {
    /// Signs a message's data.
    ///
    /// # Errors
    /// [`CryptoError`], also for a key that is not Ed25519: the message must not leave.
    pub fn sign(
        key: &PrivateKey,
        stream: StreamId<'_>,
        seq: u64,
        data: &[u8],
    ) -> Result<Self, CryptoError> {
        let digest = sha256(data);
        let signature = key.sign(signed_text(stream, seq, &digest).as_bytes())?;
        let signature = signature.try_into().map_err(|_| CryptoError::Signing)?;
        Ok(Self {
            seq,
            digest,
            signature,
        })
    }

    /// Whether it is for this message at this place of this stream, and signed by `key`.
    ///
    /// # Errors
    /// [`ReceiptError`] when it is not.
    pub fn verify(
        &self,
        key: &PublicKey,
        stream: StreamId<'_>,
        seq: u64,
        data: &[u8],
    ) -> Result<(), ReceiptError> {
        let digest = sha256(data);
        if self.seq != seq || self.digest != digest || key.kind() != KeyKind::Ed25519 {
            return Err(ReceiptError);
        }
        key.verify(
            signed_text(stream, seq, &digest).as_bytes(),
            &self.signature,
        )
        .map_err(|_| ReceiptError)
    }

    /// Reads a comment's text, without its colon.
    ///
    /// # Errors
    /// [`ReceiptError`] for anything that `Display` does not write.
    pub fn parse(text: &str) -> Result<Self, ReceiptError> {
        let mut rest = text;
        let seq = member(&mut rest, "agent-receipt seq=", ",")?;
        let digest = member(&mut rest, " digest=:", ":,")?;
        let signature = member(&mut rest, " signature=:", ":")?;
        let receipt = Self {
            seq: seq.parse().map_err(|_| ReceiptError)?,
            digest: bytes(digest)?,
            signature: bytes(signature)?,
        };
        if receipt.to_string() == text {
            Ok(receipt)
        } else {
            Err(ReceiptError)
        }
    }
}

impl std::fmt::Display for StreamReceipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "agent-receipt seq={}, digest=:{}:, signature=:{}:",
            self.seq,
            STANDARD.encode(self.digest),
            STANDARD.encode(self.signature)
        )
    }
}

fn signed_text(stream: StreamId<'_>, seq: u64, digest: &Hash) -> String {
    let StreamId { log, decision } = stream;
    let digest = STANDARD.encode(digest);
    format!("{DOMAIN}\n{log}\n{decision}\n{seq}\n{digest}\n")
}

/// What no other signature of the response signer begins with: theirs begin with a quote.
const DOMAIN: &str = "agentca-stream-receipt/v1";

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId<'static> = StreamId {
        log: "example.org/prod/enforcer/edge-1",
        decision: 7,
    };

    #[test]
    fn a_receipt_is_for_one_message_at_one_place_of_one_stream() {
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        let receipt = StreamReceipt::sign(&key, STREAM, 3, b"data").unwrap();
        let receipt = StreamReceipt::parse(&receipt.to_string()).unwrap();
        let check = |stream, seq, data| receipt.verify(key.public_key(), stream, seq, data);
        check(STREAM, 3, b"data").unwrap();
        check(STREAM, 4, b"data").unwrap_err();
        check(STREAM, 3, b"date").unwrap_err();
        let other = StreamId {
            decision: 8,
            ..STREAM
        };
        check(other, 3, b"data").unwrap_err();
        let moved = StreamId {
            log: "example.org/prod/enforcer/edge-2",
            ..STREAM
        };
        check(moved, 3, b"data").unwrap_err();
        let stranger = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        receipt
            .verify(stranger.public_key(), STREAM, 3, b"data")
            .unwrap_err();
        let renumbered = StreamReceipt { seq: 4, ..receipt };
        renumbered
            .verify(key.public_key(), STREAM, 4, b"data")
            .unwrap_err();
    }

    #[test]
    fn only_the_written_form_is_read() {
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        let text = StreamReceipt::sign(&key, STREAM, 3, b"data")
            .unwrap()
            .to_string();
        for (from, to) in [
            ("seq=3", "seq=03"),
            ("seq=3", "seq=+3"),
            (", ", ","),
            ("agent", "Agent"),
            (":,", ": ,"),
        ] {
            StreamReceipt::parse(&text.replacen(from, to, 1)).unwrap_err();
        }
        StreamReceipt::parse(&format!("{text} ")).unwrap_err();
    }
}
