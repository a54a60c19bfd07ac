//! Opening a log: what is there must fit together, up to one torn batch at the very end.
//!
//! Read again on every start: the checkpoint and its signature; the hashes along the tree's right
//! edge, through which the checkpoint's root is computed anew; every byte of the newest segments (256
//! MiB of them, and in any case all that the checkpoint does not cover), which must agree with the hash
//! files. Of older segments only name and first header are looked at, since a log may be larger than
//! memory and start-up time allow; `verify` reads them all.

use agentca_identity::crypto::MacKey;
use agentca_identity::time::Timestamp;

use super::Keys;
use super::committer::Tail;
use super::levels::{self, HASH_BYTES};
use super::publisher::Tree;
use super::segments::{Segments, frame_len};
use crate::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use crate::frame::{self, HEADER_LEN, Header, MAX_TORN};
use crate::merkle::{CompactRange, Hash, tile};
use crate::note::{Note, VerifierKey};
use crate::record;
use crate::store::{FileId, Store, StoreError};

/// What opening a log found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Records in the log.
    pub size: u64,
    /// Records the stored checkpoint covered.
    pub checkpoint: u64,
    /// Bytes of a torn batch that were cut off. None of it had been acknowledged.
    pub dropped: u64,
}

/// Everything the writer goes on from.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) report: Recovery,
    pub(super) signed: SignedCheckpoint,
    pub(super) tree: Tree,
    /// Leaf hashes past the checkpoint.
    pub(super) leaves: Vec<Hash>,
    pub(super) segments: Segments,
    pub(super) tail: Tail,
    pub(super) last_time: Timestamp,
}

/// Reads a store, cuts off what a crash left behind, and checks the rest.
pub(super) fn recover(store: &dyn Store, keys: &Keys) -> Result<Recovered, OpenError> {
    let signed = read_checkpoint(store, keys.note.verifier())?;
    let size = signed.checkpoint.size;
    let files = store.files()?;
    check_levels(store, &files, size)?;
    let all = segment_firsts(&files)?;
    let newest = newest_segments(store, &all, size)?;
    check_old(store, &all, &newest)?;
    let mut reader = Reader {
        store,
        mac: &keys.mac,
        checkpoint: &signed.checkpoint,
        range: load_range(store, newest.first().copied().unwrap_or(0))?,
        levels: Default::default(),
        leaves: Vec::new(),
        segments: Segments::new(all),
        last_record: Vec::new(),
        torn: 0,
    };
    reader.check_root()?;
    let mut tail = Tail::new(0, 0);
    let (mut behind, mut dropped) = (0, 0);
    for (at, first) in newest.iter().enumerate() {
        let is_last = at + 1 == newest.len();
        let length = store.len(FileId::Segment(*first))?;
        let valid = reader.segment(*first, length, is_last)?;
        tail = Tail::new(*first, valid);
        (behind, dropped) = (length - valid, reader.torn);
    }
    let total = reader.next();
    let last_time = time_of(&reader.last_record)?;
    if total < size {
        return Err(OpenError::Shorter {
            checkpoint: size,
            found: total,
        });
    }
    if behind > 0 {
        tail.cut(store)?;
    }
    trim_levels(store, &files, size)?;
    let report = Recovery {
        size: total,
        checkpoint: size,
        dropped,
    };
    let Reader {
        range,
        leaves,
        segments,
        ..
    } = reader;
    Ok(Recovered {
        report,
        signed,
        tree: Tree::new(range, &files),
        leaves,
        segments,
        tail,
        last_time,
    })
}

fn read_checkpoint(store: &dyn Store, key: &VerifierKey) -> Result<SignedCheckpoint, OpenError> {
    let note = store.checkpoint()?.ok_or(OpenError::NoCheckpoint)?;
    let checkpoint = Checkpoint::open(&note, key)?;
    if Note::parse(&note)
        .map_err(CheckpointError::from)?
        .signatures
        .len()
        != 1
    {
        return Err(OpenError::Signatures);
    }
    let note = String::from_utf8(note).map_err(|_| OpenError::Signatures)?;
    Ok(SignedCheckpoint { checkpoint, note })
}

/// The hash files have at least what the checkpoint needs.
fn check_levels(store: &dyn Store, files: &[FileId], size: u64) -> Result<(), OpenError> {
    for level in 0..tile::levels(size) {
        let file = FileId::Hashes(level);
        let expected = tile::level_width(level, size) * HASH_BYTES;
        let length = if files.contains(&file) {
            store.len(file)?
        } else {
            0
        };
        if length < expected {
            return Err(OpenError::Damaged {
                file,
                offset: length,
            });
        }
    }
    Ok(())
}

/// Cuts hash files back to the checkpoint: the rest is written again from the segments.
fn trim_levels(store: &dyn Store, files: &[FileId], size: u64) -> Result<(), OpenError> {
    for file in files {
        if let FileId::Hashes(level) = file {
            let expected = tile::level_width(*level, size) * HASH_BYTES;
            if store.len(*file)? != expected {
                store.truncate(*file, expected)?;
            }
        }
    }
    Ok(())
}

fn segment_firsts(files: &[FileId]) -> Result<Vec<u64>, OpenError> {
    let firsts: Vec<u64> = files
        .iter()
        .filter_map(|file| match file {
            FileId::Segment(first) => Some(*first),
            FileId::Hashes(_) => None,
        })
        .collect();
    match firsts.first() {
        Some(0) => Ok(firsts),
        _ => Err(OpenError::Damaged {
            file: FileId::Segment(0),
            offset: 0,
        }),
    }
}

/// The segments that are read whole.
fn newest_segments(store: &dyn Store, all: &[u64], size: u64) -> Result<Vec<u64>, OpenError> {
    let mut bytes = 0;
    let mut from = all.len();
    for (at, first) in all.iter().enumerate().rev() {
        from = at;
        bytes += store.len(FileId::Segment(*first))?;
        if bytes >= READ_AGAIN && *first < size {
            break;
        }
    }
    Ok(all.get(from..).unwrap_or_default().to_vec())
}

fn check_old(store: &dyn Store, all: &[u64], newest: &[u64]) -> Result<(), OpenError> {
    for first in all.iter().take(all.len() - newest.len()) {
        let file = FileId::Segment(*first);
        let mut bytes = [0; HEADER_LEN];
        let read = store.read_at(file, 0, &mut bytes)?;
        let header = Header::decode(&bytes).ok().filter(|_| read == HEADER_LEN);
        if header.is_none_or(|header| header.first != *first) {
            return Err(OpenError::Damaged { file, offset: 0 });
        }
    }
    Ok(())
}

fn load_range(store: &dyn Store, size: u64) -> Result<CompactRange, OpenError> {
    Ok(CompactRange::load(size, |height, index| {
        levels::node(store, height, index)
    })?)
}

/// Hashes made from records, from number `first` of their level on.
#[derive(Default)]
struct Made {
    first: u64,
    hashes: Vec<Hash>,
}

/// Follows the segments and compares them with the hash files up to the checkpoint.
struct Reader<'a> {
    store: &'a dyn Store,
    mac: &'a MacKey,
    checkpoint: &'a Checkpoint,
    /// Grows up to the checkpoint, never past it.
    range: CompactRange,
    /// Hashes of each level that are not compared with its file yet.
    levels: [Made; 8],
    leaves: Vec<Hash>,
    segments: Segments,
    last_record: Vec<u8>,
    /// Bytes of a batch that a crash tore, without the zeros behind it.
    torn: u64,
}

impl Reader<'_> {
    /// The index of the next record.
    fn next(&self) -> u64 {
        self.range.size() + u64::try_from(self.leaves.len()).unwrap_or(0)
    }

    /// Reads one segment: the length of its whole frames.
    fn segment(&mut self, first: u64, length: u64, is_last: bool) -> Result<u64, OpenError> {
        let file = FileId::Segment(first);
        if self.next() != first {
            return Err(OpenError::Damaged { file, offset: 0 });
        }
        let mut offset = 0;
        while offset < length {
            let Some(header) = self.frame(file, offset, length)? else {
                self.compare_levels()?;
                self.judge_tail(file, offset, length, is_last)?;
                return Ok(offset);
            };
            self.segments.note(first, header.first, offset);
            offset += frame_len(&header);
            if self
                .levels
                .iter()
                .any(|level| level.hashes.len() >= COMPARE_AT_ONCE)
            {
                self.compare_levels()?;
            }
        }
        self.compare_levels()?;
        Ok(offset)
    }

    /// Reads the frame at `offset` and takes its records; `None` when it is not whole and sound.
    fn frame(
        &mut self,
        file: FileId,
        offset: u64,
        length: u64,
    ) -> Result<Option<Header>, OpenError> {
        let mut bytes = [0; HEADER_LEN];
        let read = self.store.read_at(file, offset, &mut bytes)?;
        let Some(header) = Header::decode(&bytes).ok().filter(|_| read == HEADER_LEN) else {
            return Ok(None);
        };
        if header.first != self.next() || offset + frame_len(&header) > length {
            return Ok(None);
        }
        let mut payload = vec![0; header.payload_len()];
        let begin = offset + frame_len(&header) - u64::from(header.length);
        self.store.read_at(file, begin, &mut payload)?;
        let mut leaves = Vec::new();
        if header.check(&mut payload, &mut leaves).is_err() {
            return Ok(None);
        }
        if header.end() > self.checkpoint.size && !header.is_by(self.mac) {
            return Err(OpenError::Foreign { file, offset });
        }
        for leaf in leaves {
            self.take(leaf, file, offset)?;
        }
        if let Some(last) = frame::records(&payload).last() {
            self.last_record.clear();
            self.last_record.extend_from_slice(last);
        }
        Ok(Some(header))
    }

    fn take(&mut self, leaf: Hash, file: FileId, offset: u64) -> Result<(), OpenError> {
        if self.range.size() >= self.checkpoint.size {
            self.leaves.push(leaf);
            return Ok(());
        }
        let (index, levels) = (self.range.size(), &mut self.levels);
        self.range.append(leaf, |height, hash| {
            let level = tile::level_of(height).map(usize::from);
            if let Some(level) = level.and_then(|level| levels.get_mut(level)) {
                if level.hashes.is_empty() {
                    level.first = index >> height;
                }
                level.hashes.push(*hash);
            }
        });
        if self.range.size() == self.checkpoint.size {
            self.check_root()
                .map_err(|_| OpenError::Damaged { file, offset })?;
        }
        Ok(())
    }

    /// Compares the hashes made so far with the hash files.
    fn compare_levels(&mut self) -> Result<(), OpenError> {
        for (level, made) in (0..).zip(&mut self.levels) {
            if made.hashes.is_empty() {
                // A short log has no file for this level yet.
                continue;
            }
            let count = u64::try_from(made.hashes.len()).unwrap_or(0);
            let stored = levels::read(self.store, level, made.first, count)?;
            let differs = stored
                .iter()
                .zip(&made.hashes)
                .position(|(stored, made)| stored != made);
            if let Some(at) = differs {
                // Either of the two; the segment vouches for itself, so it is the hash file.
                let at = made.first + u64::try_from(at).unwrap_or(0);
                let (file, offset) = (FileId::Hashes(level), at * HASH_BYTES);
                return Err(OpenError::Damaged { file, offset });
            }
            made.hashes.clear();
        }
        Ok(())
    }

    /// At the checkpoint's size its root must come out.
    fn check_root(&self) -> Result<(), OpenError> {
        let reached = self.range.size() == self.checkpoint.size;
        if reached && self.range.root() != self.checkpoint.root {
            return Err(OpenError::Root);
        }
        Ok(())
    }

    /// Whether what begins at `offset` may be a batch that a crash tore.
    fn judge_tail(
        &mut self,
        file: FileId,
        offset: u64,
        length: u64,
        is_last: bool,
    ) -> Result<(), OpenError> {
        let damaged = OpenError::Damaged { file, offset };
        let next = self.next();
        let rest = length - offset;
        let rest = usize::try_from(rest).unwrap_or(usize::MAX);
        if !is_last || next < self.checkpoint.size || rest > MAX_TORN {
            return Err(damaged);
        }
        let mut bytes = vec![0; rest];
        self.store.read_at(file, offset, &mut bytes)?;
        let torn = frame::torn(&bytes, next).ok_or(damaged)?;
        self.torn = u64::try_from(torn).unwrap_or(0);
        Ok(())
    }
}

fn time_of(record: &[u8]) -> Result<Timestamp, OpenError> {
    if record.is_empty() {
        return Ok(Timestamp::MIN);
    }
    let time = record::scan(record).and_then(|envelope| envelope.time());
    time.map_err(OpenError::Record)
}

/// Why a log does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no checkpoint.
    #[error("the log has no checkpoint: restore it from a backup or a replica")]
    NoCheckpoint,
    /// The checkpoint is not by this signer.
    #[error("the log's checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint has other signature lines than the log's own.
    #[error("the log's checkpoint must have one signature line, its own")]
    Signatures,
    /// The hash files lead to another root.
    #[error("the hash files do not lead to the checkpoint's root")]
    Root,
    /// A file is damaged where a crash cannot have damaged it.
    #[error("{file} is damaged at byte {offset}: restore it from a backup or a replica")]
    Damaged {
        /// The file.
        file: FileId,
        /// Where.
        offset: u64,
    },
    /// A batch that no checkpoint covers was not written under this log's key.
    #[error(
        "{file} has a batch at byte {offset} that was not written with this log's key: somebody else \
         wrote there; keep a copy of the log, then restore it from a backup or a replica"
    )]
    Foreign {
        /// The file.
        file: FileId,
        /// Where.
        offset: u64,
    },
    /// Records that the checkpoint covers are missing.
    #[error("the log has {found} records, its checkpoint covers {checkpoint}")]
    Shorter {
        /// The checkpoint's size.
        checkpoint: u64,
        /// The records found.
        found: u64,
    },
    /// The threads of the log could not be started.
    #[error("could not start the log's threads: {0}")]
    Thread(std::io::Error),
    /// The last record cannot be read.
    #[error("the last record: {0}")]
    Record(record::ScanError),
}

/// How many bytes of segments are read again on every start.
const READ_AGAIN: u64 = 256 << 20;
const COMPARE_AT_ONCE: usize = 1 << 13;
