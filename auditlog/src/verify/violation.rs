//! What a log is refused for, and where.

use std::fmt::{self, Display};

use agentca_identity::chain::PeerError;
use agentca_identity::time::Timestamp;

use super::CHECKPOINT_FILE;
use crate::checkpoint::CheckpointError;
use crate::record::ScanError;
use crate::status::StatusError;
use crate::store::{FileId, StoreError};

/// Why a log is refused, and where.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct Violation {
    /// Where.
    pub place: Place,
    /// Why.
    pub reason: Reason,
}

/// Where in a log directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a byte of a file.
    File {
        /// The file.
        file: FileId,
        /// The byte.
        offset: u64,
    },
    /// In a record.
    Record {
        /// Its index.
        index: u64,
    },
    /// The checkpoint.
    Checkpoint,
    /// The checkpoint given to compare with.
    Floor,
    /// The directory.
    Directory,
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, offset } => write!(f, "{file} at byte {offset}"),
            Self::Record { index } => write!(f, "record {index}"),
            Self::Checkpoint => f.write_str(CHECKPOINT_FILE),
            Self::Floor => f.write_str("the given checkpoint"),
            Self::Directory => f.write_str("the directory"),
        }
    }
}

/// Why a log is refused.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// It could not be read, or holds what does not belong.
    #[error("{0}")]
    Unreadable(StoreError),
    /// A file is missing.
    #[error("it is missing")]
    Missing,
    /// The checkpoint or its note is malformed.
    #[error("{0}")]
    Checkpoint(CheckpointError),
    /// A checkpoint of something that is not a log of ours.
    #[error("its origin is not that of an authority or an enforcer")]
    Origin,
    /// Not exactly one signature line.
    #[error("it must have exactly one signature line, the log's own")]
    SignatureLines,
    /// Not signed by the key that the log announced.
    #[error("it is not signed by the key that the log announced under this root")]
    AnotherKey,
    /// The records lead to another root.
    #[error("the records lead to another root at size {size}")]
    Root {
        /// The size at which they do.
        size: u64,
    },
    /// Fewer records than a signed head covers.
    #[error("it covers {size} records, the log has {found}")]
    Shorter {
        /// The records covered.
        size: u64,
        /// The records found.
        found: u64,
    },
    /// A batch is damaged, missing, or not the next one.
    #[error("no whole and sound batch with record {next} begins here")]
    Batch {
        /// The record that should come next.
        next: u64,
    },
    /// A hash is another than the records lead to.
    #[error("the hash is not the one the records lead to")]
    Hash,
    /// The file ends too early.
    #[error("the file ends too early")]
    Short,
    /// Bytes that no record accounts for.
    #[error("there are bytes that no record accounts for")]
    Extra,
    /// Not a record.
    #[error("{0}")]
    Record(ScanError),
    /// A record of another place.
    #[error("it says it is record {found} of `{log}`")]
    Elsewhere {
        /// The index it gives.
        found: u64,
        /// The log it gives.
        log: String,
    },
    /// Time goes back.
    #[error("its time is before that of the record before")]
    TimeGoesBack,
    /// A chain of certificates does not hold.
    #[error("the chain of a signer does not hold: {0}")]
    Chain(PeerError),
    /// An announcement that does not announce what it must.
    #[error("it does not announce {0}")]
    Announcement(&'static str),
    /// A cosignature does not verify.
    #[error("the witness's cosignature does not hold: {0}")]
    Cosignature(CheckpointError),
    /// A cosigned root is not ours.
    #[error("the witness co-signed another root at size {size}")]
    CosignedRoot {
        /// The size.
        size: u64,
    },
    /// A status record is malformed.
    #[error("{0}")]
    Status(StatusError),
    /// The status chain has a gap or a fork.
    #[error("it does not follow status record {number} of `{environment}`")]
    StatusChain {
        /// The environment.
        environment: String,
        /// The number before.
        number: u64,
    },
    /// The signer's certificate is not valid yet.
    #[error("the signer's certificate is valid from {} on only, check the clock", not_before.rfc3339())]
    NotYetValid {
        /// From when.
        not_before: Timestamp,
    },
    /// The signer's certificate has expired, and nothing was co-signed before.
    #[error(
        "the signer's certificate expired at {} and nothing was co-signed before: nothing counts",
        not_after.rfc3339()
    )]
    Expired {
        /// Since when.
        not_after: Timestamp,
    },
}

impl Violation {
    pub(super) fn of(place: Place, reason: Reason) -> Self {
        Self { place, reason }
    }

    pub(super) fn at(file: FileId, offset: u64, reason: Reason) -> Self {
        Self {
            place: Place::File { file, offset },
            reason,
        }
    }

    pub(super) fn record(index: u64, reason: Reason) -> Self {
        Self {
            place: Place::Record { index },
            reason,
        }
    }

    pub(super) fn unreadable(error: StoreError) -> Self {
        Self {
            place: Place::Directory,
            reason: Reason::Unreadable(error),
        }
    }
}
