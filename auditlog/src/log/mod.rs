//! The writer: one durable write path.
//!
//! [`Log::stage`] adds a record to the batch being filled. The committer thread swaps the batch as soon
//! as the last sync returned, writes it as one frame, syncs, and only then moves the durable number
//! on. The publisher thread follows with hash files and, at most once a second, a checkpoint, both
//! over durable records only. When the disk is full the batch is not durable: what was written of it
//! is cut off again, [`Log::blocked`] says so, nothing more is taken, and the write is tried again
//! until there is room. A failed sync ends the process through the `fatal` hook.

mod committer;
mod error;
pub(crate) mod levels;
mod publisher;
mod read;
mod reader;
mod recovery;
pub(crate) mod segments;
mod shared;
mod staging;
mod wait;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

use agentca_identity::crypto::{MacKey, PrivateKey};
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;

use crate::checkpoint::SignedCheckpoint;
use crate::frame::{MAX_PAYLOAD, MAX_RECORD};
use crate::merkle::{CompactRange, Hash};
use crate::note::{NoteError, NoteSigner, SignatureType};
use crate::record::{self, Head};
use crate::store::{FileId, Store};

pub use error::{LogError, StageError};
use publisher::{Queue, QueuePhase, Tree};
pub use read::{Scan, ScanBack};
pub use reader::{Indexed, Reader};
pub use recovery::{OpenError, Recovery};
pub use segments::ReadError;
use shared::{Shared, Threads};
use staging::Staging;
pub use wait::{Durable, NotDurable};

/// Who signs a log's checkpoints: an Ed25519 key under the log's origin, and its certificates.
#[derive(Clone, Debug)]
pub struct LogSigner {
    /// The log's origin.
    pub origin: LogOrigin,
    /// Its key.
    pub key: PrivateKey,
    /// Leaf, then intermediate; DER.
    pub chain: Vec<Vec<u8>>,
}

impl LogSigner {
    /// What signs notes under the origin.
    ///
    /// # Errors
    /// [`NoteError::KeyKind`] unless the key is Ed25519.
    pub fn note_signer(&self) -> Result<NoteSigner, NoteError> {
        NoteSigner::new(
            &self.origin.to_string(),
            SignatureType::Ed25519,
            self.key.clone(),
        )
    }
}

/// What a log writes under: one Ed25519 key, in its two uses.
#[derive(Debug)]
struct Keys {
    /// Signs checkpoints.
    note: NoteSigner,
    /// Authenticates batches until a checkpoint covers them.
    mac: MacKey,
}

impl Keys {
    fn of(signer: &LogSigner) -> Result<Self, NoteError> {
        let note = signer.note_signer()?;
        let purpose = format!("agentca log batches of {}", signer.origin);
        let mac = MacKey::derive(&signer.key, &purpose).ok_or(NoteError::KeyKind)?;
        Ok(Self { note, mac })
    }
}

/// How a log behaves where its callers may differ.
pub struct LogOptions {
    /// Staged bytes that may wait for the disk. More is refused, not queued.
    pub staged_bytes: usize,
    /// Bytes after which a new segment begins.
    pub segment_bytes: u64,
    /// The shortest time between two checkpoints that nobody asked for.
    pub checkpoint_interval: Duration,
    /// What time it is.
    pub clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// Called once, with the reason, when the log can no longer keep its promises. It must end the
    /// process; a test may let it return, then the log takes nothing more.
    pub fatal: Box<dyn Fn(&str) + Send + Sync>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            staged_bytes: 16 << 20,
            segment_bytes: 64 << 20,
            checkpoint_interval: Duration::from_secs(1),
            clock: Box::new(Timestamp::now),
            fatal: Box::new(|reason| {
                tracing::error!(reason, "the log cannot go on");
                std::process::abort();
            }),
        }
    }
}

impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("staged_bytes", &self.staged_bytes)
            .field("segment_bytes", &self.segment_bytes)
            .field("checkpoint_interval", &self.checkpoint_interval)
            .finish_non_exhaustive()
    }
}

/// An open log. Dropping it shuts it down.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
}

/// A staged record: not durable yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Its index.
    pub index: u64,
    /// Its leaf hash.
    pub leaf: Hash,
}

impl Log {
    /// Makes a new log in a store that is being created: record 0, hash files, checkpoint; then the
    /// store is published and let go. `first` writes record 0.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn create(
        store: Arc<dyn Store>,
        signer: &LogSigner,
        first: impl FnOnce(&Head<'_>, &mut Vec<u8>),
    ) -> Result<SignedCheckpoint, LogError> {
        let origin = signer.origin.to_string();
        let mut staging = Staging::new(0, Timestamp::now(), MAX_PAYLOAD);
        staging
            .stage(&origin, Timestamp::now(), first)
            .map_err(LogError::FirstRecord)?;
        let segment = FileId::Segment(0);
        store.create(segment)?;
        let keys = Keys::of(signer)?;
        store.write_at(segment, 0, staging.batch.frame(&keys.mac, 0))?;
        store.sync(segment)?;
        let mut tree = Tree::new(CompactRange::new(), &[]);
        tree.append(&staging.batch.leaves);
        tree.write(store.as_ref())?;
        let signed = tree.sign(&keys.note)?;
        store.replace_checkpoint(signed.note.as_bytes())?;
        store.publish()?;
        Ok(signed)
    }

    /// Opens a log with default options.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        store: Arc<dyn Store>,
        signer: &LogSigner,
    ) -> Result<(Arc<Self>, Recovery), OpenError> {
        Self::open_with(store, signer, LogOptions::default())
    }

    /// Opens a log: checks it, cuts off what a crash left behind, starts its threads.
    ///
    /// # Errors
    /// [`OpenError`] says what is damaged and where.
    pub fn open_with(
        store: Arc<dyn Store>,
        signer: &LogSigner,
        options: LogOptions,
    ) -> Result<(Arc<Self>, Recovery), OpenError> {
        let keys = Keys::of(signer).map_err(crate::checkpoint::CheckpointError::from)?;
        let found = recovery::recover(store.as_ref(), &keys)?;
        let size = found.report.size;
        let limit = options.staged_bytes.min(MAX_PAYLOAD - MAX_RECORD - 2);
        let shared = Arc::new(Shared {
            origin: keys.note.verifier().name().to_owned(),
            staging: Mutex::new(Staging::new(size, found.last_time, limit)),
            work: Condvar::new(),
            durable: AtomicU64::new(size),
            blocked_records: AtomicBool::new(false),
            blocked_hashes: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            waiters: wait::Waiters::default(),
            queue: Mutex::new(Queue {
                leaves: found.leaves,
                ..Queue::default()
            }),
            publish: Condvar::new(),
            keys: Mutex::new(keys),
            newest: RwLock::new(Arc::new(found.signed)),
            segments: found.segments,
            store,
            options,
        });
        let threads = Threads::start(&shared, found.tail, found.tree).map_err(OpenError::Thread)?;
        let log = Self {
            shared,
            threads: Mutex::new(Some(threads)),
        };
        Ok((Arc::new(log), found.report))
    }

    /// Adds a record: `write` appends all of it to the buffer, with the head's members. It runs under
    /// the batch lock, so it only copies what was made before. The record becomes durable later; see
    /// [`Log::durable`].
    ///
    /// # Errors
    /// [`StageError`]: the record is not in the log, and its index goes to another.
    pub fn stage(&self, write: impl FnOnce(&Head<'_>, &mut Vec<u8>)) -> Result<Staged, StageError> {
        let shared = &*self.shared;
        if self.blocked() {
            return Err(StageError::Blocked);
        }
        let now = (shared.options.clock)();
        let mut staging = shared.staging();
        let (index, leaf) = staging.stage(&shared.origin, now, write)?;
        let committer_waits = std::mem::take(&mut staging.committer_waits);
        drop(staging);
        if committer_waits {
            shared.work.notify_one();
        }
        Ok(Staged { index, leaf })
    }

    /// The log's origin.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.shared.origin
    }

    /// The number of durable records: every index below it is safe.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.shared.durable()
    }

    /// Whether the log cannot grow for want of room. What is staged may become durable later, but
    /// nobody may wait for it.
    #[must_use]
    pub fn blocked(&self) -> bool {
        self.shared.blocked()
    }

    /// Calls `callback` from the committer thread with the durable number after every sync, and when
    /// [`Log::blocked`] changes. It must return quickly.
    pub fn on_durable(&self, callback: Box<dyn Fn(u64) + Send + Sync>) {
        self.shared.waiters.on_durable(callback);
    }

    /// Blocks until record `index` is durable.
    ///
    /// # Errors
    /// [`NotDurable`] when it is not going to be soon, or ever.
    pub fn wait_blocking(&self, index: u64) -> Result<(), NotDurable> {
        self.shared.wait_blocking(index)
    }

    /// Resolves when record `index` is durable; fails as [`Log::wait_blocking`] does.
    pub fn durable_at(&self, index: u64) -> Durable {
        Durable::new(Arc::clone(&self.shared), index)
    }

    /// The newest published checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> Arc<SignedCheckpoint> {
        self.shared.checkpoint()
    }

    /// Publishes hash files and a checkpoint over every record that is durable now; blocks.
    ///
    /// # Errors
    /// [`LogError::Closed`] when the log ended before that.
    pub fn publish_now(&self) -> Result<Arc<SignedCheckpoint>, LogError> {
        let mut queue = self.shared.queue();
        queue.asked += 1;
        let asked = queue.asked;
        self.shared.publish.notify_all();
        while queue.done < asked {
            if queue.phase == QueuePhase::Ended {
                return Err(LogError::Closed);
            }
            queue = self
                .shared
                .publish
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(queue);
        Ok(self.checkpoint())
    }

    /// Goes over to another key: announces it in a record, publishes a checkpoint over that under the
    /// old key, then one under the new key; blocks. The announcement's index.
    ///
    /// # Errors
    /// [`LogError`]; before the second checkpoint the old key stays in use.
    pub fn rotate_signer(&self, signer: &LogSigner) -> Result<u64, LogError> {
        if signer.origin.to_string() != self.origin() {
            return Err(LogError::Signer(NoteError::Name));
        }
        let next = Keys::of(signer)?;
        let staged = self.stage(|head, out| record::signer_announced(head, out, &signer.chain))?;
        self.wait_blocking(staged.index)?;
        self.publish_now()?;
        *self
            .shared
            .keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = next;
        self.publish_now()?;
        Ok(staged.index)
    }

    /// Takes no more records, makes the staged ones durable, publishes a checkpoint over everything.
    /// While the disk is full what cannot be written is given up. Blocks.
    pub fn shutdown(&self) {
        let threads = self
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(threads) = threads {
            threads.join(&self.shared);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shutdown();
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
