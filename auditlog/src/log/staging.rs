//! The batch that is being filled, under the lock that orders records.

use agentca_identity::crypto::MacKey;
use agentca_identity::time::Timestamp;

use super::StageError;
use crate::frame::{HEADER_LEN, Header, MAX_RECORD};
use crate::merkle::{Hash, leaf_hash_behind};
use crate::record::{Head, TimeText};

/// Records in the form in which one write puts them on disk, room for the header first.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) first: u64,
    pub(super) leaves: Vec<Hash>,
    bytes: Vec<u8>,
    /// The bytes up to the last whole record: what follows was left by a writer that panicked.
    whole: usize,
}

impl Batch {
    pub(super) fn new(first: u64) -> Self {
        let bytes = vec![0; HEADER_LEN];
        Self {
            first,
            leaves: Vec::new(),
            whole: bytes.len(),
            bytes,
        }
    }

    /// Empties it for records from `first` on; memory is kept, except after a burst.
    pub(super) fn reset(&mut self, first: u64) {
        self.first = first;
        self.leaves.clear();
        self.whole = HEADER_LEN;
        self.bytes.truncate(HEADER_LEN);
        self.bytes.shrink_to(KEEP_BYTES);
        self.leaves.shrink_to(KEEP_BYTES / 256);
    }

    /// The index after its last record.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::try_from(self.leaves.len()).unwrap_or(0)
    }

    /// How many bytes the whole frame has.
    pub(super) fn frame_len(&self) -> u64 {
        u64::try_from(self.whole).unwrap_or(0)
    }

    /// The whole frame, header included, and so many zeros behind it.
    pub(super) fn frame(&mut self, key: &MacKey, zeros: u64) -> &[u8] {
        self.bytes.truncate(self.whole);
        let length = u32::try_from(self.whole - HEADER_LEN).unwrap_or(u32::MAX);
        let header = Header::new(self.first, &self.leaves, length, key).encode();
        if let Some(place) = self.bytes.first_chunk_mut() {
            *place = header;
        }
        let zeros = usize::try_from(zeros).unwrap_or(0);
        self.bytes.resize(self.whole.saturating_add(zeros), 0);
        &self.bytes
    }

    /// Lets `write` add one record and hashes it: its leaf hash.
    fn add(
        &mut self,
        head: &Head<'_>,
        write: impl FnOnce(&Head<'_>, &mut Vec<u8>),
    ) -> Result<Hash, StageError> {
        self.bytes.truncate(self.whole);
        self.bytes.extend_from_slice(&[0, 0]);
        let begin = self.bytes.len();
        write(head, &mut self.bytes);
        let length = self.bytes.len().saturating_sub(begin);
        let prefix = match u16::try_from(length) {
            Ok(length) if length > 0 => length.to_be_bytes(),
            _ => {
                return Err(StageError::TooLarge {
                    length,
                    limit: MAX_RECORD,
                });
            }
        };
        let prefixed = self.bytes.get_mut(begin - 1..).unwrap_or_default();
        let leaf = leaf_hash_behind(prefixed);
        if let Some(place) = self.bytes.get_mut(begin - 2..begin) {
            place.copy_from_slice(&prefix);
        }
        self.leaves.push(leaf);
        self.whole = self.bytes.len();
        Ok(leaf)
    }
}

/// What the batch lock guards.
#[derive(Debug)]
pub(super) struct Staging {
    pub(super) batch: Batch,
    pub(super) phase: Phase,
    /// Set by the committer before it sleeps; whoever stages next wakes it.
    pub(super) committer_waits: bool,
    time: Timestamp,
    time_text: TimeText,
    limit: usize,
}

/// Whether records are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Closed,
    Failed,
}

impl Staging {
    pub(super) fn new(first: u64, time: Timestamp, limit: usize) -> Self {
        Self {
            batch: Batch::new(first),
            phase: Phase::Open,
            committer_waits: false,
            time,
            time_text: TimeText::new(time),
            limit,
        }
    }

    /// Adds one record at `now`, or at the time of the one before if that is later.
    pub(super) fn stage(
        &mut self,
        origin: &str,
        now: Timestamp,
        write: impl FnOnce(&Head<'_>, &mut Vec<u8>),
    ) -> Result<(u64, Hash), StageError> {
        match self.phase {
            Phase::Open => {}
            Phase::Closed => return Err(StageError::Closed),
            Phase::Failed => return Err(StageError::Failed),
        }
        if self.batch.whole >= self.limit {
            return Err(StageError::Full { limit: self.limit });
        }
        if now > self.time {
            self.time = now;
            self.time_text = TimeText::new(now);
        }
        let seq = self.batch.end();
        let head = Head::with_text(seq, self.time, self.time_text, origin);
        let leaf = self.batch.add(&head, write)?;
        Ok((seq, leaf))
    }
}

const KEEP_BYTES: usize = 1 << 20;
