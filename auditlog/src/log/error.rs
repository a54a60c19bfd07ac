//! Why a log does not do what it is asked.

use super::NotDurable;
use crate::note::NoteError;
use crate::store::StoreError;

/// Why a record was not taken. The caller closes the connection it was for.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StageError {
    /// Too much waits for the disk.
    #[error("{limit} bytes already wait for the disk")]
    Full {
        /// The limit in bytes.
        limit: usize,
    },
    /// There is no room on the disk.
    #[error("there is no room for the log: free some space")]
    Blocked,
    /// Empty, or longer than a record may be.
    #[error("the record has {length} bytes, not 1 to {limit}")]
    TooLarge {
        /// Its bytes.
        length: usize,
        /// The most it may have.
        limit: usize,
    },
    /// The log was shut down.
    #[error("the log is closed")]
    Closed,
    /// The log failed.
    #[error("the log failed")]
    Failed,
}

/// Why an operation of a log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The signer cannot sign for this log.
    #[error("the log's signer: {0}")]
    Signer(#[from] NoteError),
    /// Record 0 was not taken.
    #[error("the first record: {0}")]
    FirstRecord(StageError),
    /// A record was not taken.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A record did not become durable.
    #[error(transparent)]
    NotDurable(#[from] NotDurable),
    /// The log was shut down.
    #[error("the log is closed")]
    Closed,
}
