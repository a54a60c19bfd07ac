//! Records: JSON in the canonical form of RFC 8785 (JCS), at most 65,535 bytes.
//!
//! Every record has the members `kind`, `log` (the log's origin), `seq` (its index), `time` (RFC 3339,
//! UTC, milliseconds) and `v` (1). Integers above 2^53 are strings, bytes are standard base64 with
//! padding, serial numbers and digests of keys lower-case hex. There are no fractions.

mod opening;
mod scan;
mod write;

use agentca_identity::time::Timestamp;
use serde::Deserialize;

pub use opening::{
    Chain, LOG_OPENED, Opening, SIGNER_ANNOUNCED, log_opened, read_announced, read_opened,
    signer_announced,
};
pub use scan::{Envelope, ScanError, scan};
pub use write::{Object, Record};

/// What the log itself says in a record: which one it is, and when.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The record's index.
    pub seq: u64,
    /// Not before that of the record before.
    pub time: Timestamp,
    /// The log's origin.
    pub log: &'a str,
    text: TimeText,
}

impl<'a> Head<'a> {
    /// The head of record `seq` of `log`.
    #[must_use]
    pub fn new(seq: u64, time: Timestamp, log: &'a str) -> Self {
        Self {
            seq,
            time,
            log,
            text: TimeText::new(time),
        }
    }

    /// The same with the time already written out.
    pub(crate) fn with_text(seq: u64, time: Timestamp, text: TimeText, log: &'a str) -> Self {
        Self {
            seq,
            time,
            log,
            text,
        }
    }
}

/// The RFC 3339 form of a time: 24 ASCII bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeText([u8; 24]);

impl TimeText {
    pub(crate) fn new(time: Timestamp) -> Self {
        let text = time.rfc3339();
        Self(text.as_bytes().first_chunk().copied().unwrap_or([b'0'; 24]))
    }
}

/// An integer, above 2^53 as a text.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Number(#[serde(deserialize_with = "number")] pub(crate) u64);

fn number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either<'a> {
        Number(u64),
        Text(&'a str),
    }
    match Either::deserialize(from)? {
        Either::Number(value) => Ok(value),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// The version of the record format.
pub const VERSION: u64 = 1;
/// The largest integer written as a number: 2^53.
pub const MAX_NUMBER: u64 = 1 << 53;

#[cfg(test)]
pub(crate) mod tests;
