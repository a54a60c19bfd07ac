//! The thread that follows with hash files and checkpoints, over durable records only.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::committer::Blocker;
use super::levels::HASH_BYTES;
use super::{LogError, Shared};
use crate::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::merkle::{CompactRange, Hash, tile};
use crate::note::NoteSigner;
use crate::store::{FileId, Store, StoreError};

/// What waits for the publisher.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Leaf hashes of durable records that are in no hash file yet.
    pub(super) leaves: Vec<Hash>,
    /// Requests to publish now: how many were made, and how many are done.
    pub(super) asked: u64,
    pub(super) done: u64,
    pub(super) phase: QueuePhase,
    /// Set by the publisher before it sleeps with nothing to do.
    pub(super) publisher_waits: bool,
}

/// Whether the publisher goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum QueuePhase {
    #[default]
    Open,
    /// The committer has ended: one more round, then end.
    Closing,
    /// It has ended.
    Ended,
}

/// The tree as it lies in the hash files.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) range: CompactRange,
    /// Hashes per level that are not written yet, and where they go.
    pending: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    written: u64,
    exists: bool,
    hashes: Vec<Hash>,
}

impl Tree {
    /// The tree of `range`, whose hash files have exactly its hashes; `files` are there.
    pub(super) fn new(range: CompactRange, files: &[FileId]) -> Self {
        let pending = (0..LEVELS)
            .map(|level| Pending {
                written: tile::level_width(level, range.size()),
                exists: files.contains(&FileId::Hashes(level)),
                hashes: Vec::new(),
            })
            .collect();
        Self { range, pending }
    }

    pub(super) fn append(&mut self, leaves: &[Hash]) {
        let Self { range, pending } = self;
        for leaf in leaves {
            range.append(*leaf, |height, hash| {
                let level = tile::level_of(height).map(usize::from);
                if let Some(level) = level.and_then(|level| pending.get_mut(level)) {
                    level.hashes.push(*hash);
                }
            });
        }
    }

    /// Writes what is pending. After an error the same may be tried again.
    pub(super) fn write(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        for (level, pending) in (0..LEVELS).zip(&mut self.pending) {
            if pending.hashes.is_empty() {
                continue;
            }
            let file = FileId::Hashes(level);
            if !pending.exists {
                store.create(file)?;
                pending.exists = true;
            }
            store.write_at(
                file,
                pending.written * HASH_BYTES,
                pending.hashes.as_flattened(),
            )?;
            store.sync(file)?;
            pending.written += u64::try_from(pending.hashes.len()).unwrap_or(0);
            pending.hashes.clear();
            pending.hashes.shrink_to(KEEP_HASHES);
        }
        Ok(())
    }

    /// Signs the tree as it stands.
    pub(super) fn sign(&self, signer: &NoteSigner) -> Result<SignedCheckpoint, LogError> {
        let checkpoint = Checkpoint {
            origin: signer.verifier().name().to_owned(),
            size: self.range.size(),
            root: self.range.root(),
        };
        let note = checkpoint.sign(signer)?;
        Ok(SignedCheckpoint { checkpoint, note })
    }
}

/// Runs until the log is closed or fails.
pub(super) fn run(shared: &Shared, mut tree: Tree) {
    let mut last = Instant::now().checked_sub(shared.options.checkpoint_interval);
    let mut leaves = Vec::new();
    loop {
        let Some(asked) = take(shared, &mut leaves, last) else {
            return;
        };
        tree.append(&leaves);
        leaves.clear();
        match publish_until_room(shared, &mut tree) {
            Ok(Published::Done) => shared.finish_publishing(asked),
            Ok(Published::GivenUp) => return,
            Err(e) => return shared.fatal(&e.to_string()),
        }
        last = Some(Instant::now());
    }
}

/// Waits until there is something to publish and it is time: the request it answers.
fn take(shared: &Shared, leaves: &mut Vec<Hash>, last: Option<Instant>) -> Option<u64> {
    let mut queue = shared.queue();
    loop {
        let urgent = queue.asked > queue.done || queue.phase == QueuePhase::Closing;
        let wait = last
            .map(|last| {
                shared
                    .options
                    .checkpoint_interval
                    .saturating_sub(last.elapsed())
            })
            .filter(|wait| !wait.is_zero());
        let waiting = !queue.leaves.is_empty();
        match wait {
            _ if queue.phase == QueuePhase::Closing && !waiting && queue.asked == queue.done => {
                return None;
            }
            Some(wait) if waiting && !urgent => {
                let waited = shared.publish.wait_timeout(queue, wait);
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            _ if waiting || urgent => {
                std::mem::swap(&mut queue.leaves, leaves);
                return Some(queue.asked);
            }
            _ => {
                queue.publisher_waits = true;
                queue = shared
                    .publish
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

enum Published {
    Done,
    GivenUp,
}

fn publish_until_room(shared: &Shared, tree: &mut Tree) -> Result<Published, LogError> {
    loop {
        match publish(shared, tree) {
            Ok(()) => {
                shared.set_blocked(Blocker::Hashes, false);
                return Ok(Published::Done);
            }
            Err(LogError::Store(e)) if e.is_full() && e.action != "sync" => {
                shared.set_blocked(Blocker::Hashes, true);
                let queue = shared.queue();
                if queue.phase == QueuePhase::Closing {
                    return Ok(Published::GivenUp);
                }
                let waited = shared.publish.wait_timeout(queue, RETRY);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
            Err(e) => return Err(e),
        }
    }
}

/// Hash files first, then the checkpoint that needs them.
fn publish(shared: &Shared, tree: &mut Tree) -> Result<(), LogError> {
    tree.write(shared.store.as_ref())?;
    let signed = tree.sign(&shared.keys().note)?;
    let newest = shared.checkpoint();
    if newest.note != signed.note {
        shared.store.replace_checkpoint(signed.note.as_bytes())?;
    }
    *shared
        .newest
        .write()
        .unwrap_or_else(PoisonError::into_inner) = Arc::new(signed);
    Ok(())
}

const LEVELS: u8 = 8;
const KEEP_HASHES: usize = 1 << 15;
const RETRY: Duration = Duration::from_millis(100);
