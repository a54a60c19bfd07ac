//! What is said about a log that verified.

use agentca_identity::time::Timestamp;

use super::keys::Signer;
use crate::merkle::Hash;

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The log.
    pub origin: String,
    /// The records its checkpoint covers.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// The time of the newest record that the checkpoint covers.
    pub time: Timestamp,
    /// How many of the records count: all of `size`, or, when the signer's certificate has expired,
    /// those that were co-signed before.
    pub counted: u64,
    /// Who signed the checkpoint.
    pub signer: Signer,
    /// The log's C2SP verifier key.
    pub vkey: String,
    /// How the enforcer that writes this log learns of revocations; none in the authority's log.
    pub revocation: Option<Revocation>,
    /// The witness whose cosignatures count; none where the log has no witness.
    pub witness: Option<String>,
    /// The newest cosignature.
    pub cosigned: Option<Cosigned>,
    /// How many cosignatures were verified.
    pub cosignatures: u64,
    /// How many of them do not count, being of a time that the witness's certificate does not cover.
    pub cosignatures_uncounted: u64,
    /// How many records come after the newest co-signed head: all of `size` when there is none. The
    /// log's own key alone vouches for them.
    pub uncosigned: u64,
    /// What lies beyond the checkpoint.
    pub tail: Tail,
}

/// A verified cosignature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    /// Who co-signed.
    pub witness: String,
    /// The size it co-signed.
    pub size: u64,
    /// When.
    pub time: Timestamp,
}

/// What lies beyond the checkpoint: a running log, or one that was not shut down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Records in whole, sound batches. No signature covers them yet.
    pub records: u64,
    /// Bytes of a batch that is not whole.
    pub torn_bytes: u64,
}

/// How an enforcer learns of revocations: its log says so from the first record on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// From the authority's status feed, over which its log is witnessed too.
    Feed,
    /// CRL mode: no authority says what was issued, and nobody witnesses.
    Crl {
        /// How many records under the checkpoint say that a list was accepted.
        accepted: u64,
    },
}
