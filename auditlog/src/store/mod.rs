//! Where a log's bytes lie, and what is asked of that place.

mod file;
#[cfg(test)]
pub(crate) mod memory;

use std::fmt::{self, Display};
use std::io;

pub(crate) use file::CHECKPOINT;
pub use file::FileStore;

/// One growing file of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileId {
    /// A segment of batch frames, named by the index of its first record.
    Segment(u64),
    /// The hashes of one tile level.
    Hashes(u8),
}

impl Display for FileId {
    /// The path below the log directory.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(first) => write!(f, "segments/{first:020}"),
            Self::Hashes(level) => write!(f, "hashes/{level}"),
        }
    }
}

impl FileId {
    /// The file whose path below the log directory this is, if it is spelled as we spell it.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let file = match path.split_once('/')? {
            ("segments", first) => Self::Segment(first.parse().ok()?),
            ("hashes", level) => Self::Hashes(level.parse().ok().filter(|level| *level < 8)?),
            _ => return None,
        };
        (file.to_string() == path).then_some(file)
    }
}

/// A place for one log: segments, hash files, and the checkpoint.
///
/// # Contract
///
/// *One writer.* While a store is open nobody else can open it to write. Writing methods are called
/// by one thread per file at a time; reading methods by any thread at any time.
///
/// *Order and durability.* Bytes given to [`Store::write_at`] are readable at once, and durable only
/// when a later [`Store::sync`] of the same file has returned `Ok`. Before that, a crash may keep
/// any part of them, or none, or a longer file with anything in it; bytes that were durable before are
/// untouched. A file that [`Store::create`] made is itself durable, under its name, when `create` returns.
/// After a failed `sync` nothing is known about the file's unsynced bytes: the caller must not try
/// again, it must end.
///
/// *The checkpoint* is replaced as a whole and durably: after a crash it is the old one or the new
/// one, and the new one once [`Store::replace_checkpoint`] has returned `Ok`.
///
/// *Full.* When there is no room the error says so ([`StoreError::is_full`]); any part of the bytes may
/// have been written, and the caller cuts the file back with [`Store::truncate`].
///
/// *Creation.* A store being created is nowhere to be seen under its name until [`Store::publish`]
/// has returned `Ok`; then all of it is durable.
pub trait Store: Send + Sync {
    /// Every segment and hash file.
    ///
    /// # Errors
    /// [`StoreError`], also when something is there that does not belong.
    fn files(&self) -> Result<Vec<FileId>, StoreError>;

    /// Makes an empty file.
    ///
    /// # Errors
    /// [`StoreError`], also when it is there already.
    fn create(&self, file: FileId) -> Result<(), StoreError>;

    /// The length of a file in bytes.
    ///
    /// # Errors
    /// [`StoreError`], also when it is not there.
    fn len(&self, file: FileId) -> Result<u64, StoreError>;

    /// Reads into `buffer` from `offset` until it is full or the file ends: the bytes read.
    ///
    /// # Errors
    /// [`StoreError`].
    fn read_at(&self, file: FileId, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError>;

    /// Writes all of `bytes` at `offset`, which is at most the file's length.
    ///
    /// # Errors
    /// [`StoreError`].
    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), StoreError>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// [`StoreError`]: the process must end.
    fn sync(&self, file: FileId) -> Result<(), StoreError>;

    /// Cuts a file to `length`, durably.
    ///
    /// # Errors
    /// [`StoreError`].
    fn truncate(&self, file: FileId, length: u64) -> Result<(), StoreError>;

    /// The checkpoint's note, if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    fn checkpoint(&self) -> Result<Option<Vec<u8>>, StoreError>;

    /// Replaces the checkpoint's note.
    ///
    /// # Errors
    /// [`StoreError`].
    fn replace_checkpoint(&self, note: &[u8]) -> Result<(), StoreError>;

    /// Makes a store that is being created appear under its name.
    ///
    /// # Errors
    /// [`StoreError`].
    fn publish(&self) -> Result<(), StoreError>;
}

/// A failed operation of a store: on what, and why.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {file}: {source}")]
pub struct StoreError {
    /// The verb, for example `sync`.
    pub action: &'static str,
    /// The file or directory.
    pub file: String,
    /// What the system said.
    pub source: io::Error,
}

impl StoreError {
    pub(crate) fn new(action: &'static str, file: impl Display, source: io::Error) -> Self {
        Self {
            action,
            file: file.to_string(),
            source,
        }
    }

    /// Whether it failed for want of room, which may come again: disk full, quota, the limit on file
    /// sizes, or no file descriptor left (`EMFILE`, `ENFILE`).
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        ) || matches!(self.source.raw_os_error(), Some(EMFILE | ENFILE))
    }
}

/// Errors of Linux that have no [`io::ErrorKind`].
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_come_again_is_waited_for() {
        let error =
            |code| StoreError::new("open", "checkpoint", io::Error::from_raw_os_error(code));
        for code in [EMFILE, ENFILE] {
            assert!(error(code).is_full(), "{}", error(code));
        }
        // No such file, input/output error, permission denied.
        for code in [2, 5, 13] {
            assert!(!error(code).is_full(), "{}", error(code));
        }
    }
}
