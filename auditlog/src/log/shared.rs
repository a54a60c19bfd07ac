//! What the callers and the threads of a log share, and the life of those threads.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use super::committer::{self, Blocker, Tail};
use super::publisher::{self, Queue, QueuePhase, Tree};
use super::segments::Segments;
use super::staging::{Phase, Staging};
use super::{Keys, LogOptions, wait};
use crate::checkpoint::SignedCheckpoint;
use crate::store::Store;

/// What the callers, the committer and the publisher share.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) options: LogOptions,
    pub(super) origin: String,
    pub(super) staging: Mutex<Staging>,
    /// Wakes the committer.
    pub(super) work: Condvar,
    pub(super) durable: AtomicU64,
    pub(super) blocked_records: AtomicBool,
    pub(super) blocked_hashes: AtomicBool,
    pub(super) failed: AtomicBool,
    pub(super) waiters: wait::Waiters,
    pub(super) queue: Mutex<Queue>,
    /// Wakes the publisher, and those who wait for it.
    pub(super) publish: Condvar,
    pub(super) keys: Mutex<Keys>,
    pub(super) newest: RwLock<Arc<SignedCheckpoint>>,
    pub(super) segments: Segments,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("origin", &self.origin)
            .field("durable", &self.durable())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn staging(&self) -> MutexGuard<'_, Staging> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub(super) fn blocked(&self) -> bool {
        self.blocked_records.load(Ordering::Acquire) || self.blocked_hashes.load(Ordering::Acquire)
    }

    pub(super) fn checkpoint(&self) -> Arc<SignedCheckpoint> {
        Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that a thread lacks room, or has it again, and tells whoever waits.
    pub(super) fn set_blocked(&self, blocker: Blocker, blocked: bool) {
        let flag = match blocker {
            Blocker::Records => &self.blocked_records,
            Blocker::Hashes => &self.blocked_hashes,
        };
        if flag.swap(blocked, Ordering::AcqRel) != blocked {
            if blocked {
                tracing::error!(
                    "no room for the log (disk, quota or file descriptors): nothing is acknowledged until there is"
                );
            } else {
                tracing::info!("the log has room again");
            }
            self.wake();
        }
    }

    pub(super) fn wake(&self) {
        self.waiters.wake(self.durable());
    }

    /// Takes nothing more and tells everybody.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        self.staging().phase = Phase::Failed;
        self.work.notify_all();
        self.wake();
    }

    /// Ends the process before anybody is told anything; where it may go on, nothing more is taken.
    pub(super) fn fatal(&self, reason: &str) {
        (self.options.fatal)(reason);
        self.fail();
    }

    pub(super) fn finish_publishing(&self, asked: u64) {
        self.queue().done = asked;
        self.publish.notify_all();
    }

    fn end_publishing(&self) {
        self.queue().phase = QueuePhase::Ended;
        self.publish.notify_all();
    }
}

/// The committer and the publisher.
#[derive(Debug)]
pub(super) struct Threads {
    committer: JoinHandle<()>,
    publisher: JoinHandle<()>,
}

impl Threads {
    pub(super) fn start(shared: &Arc<Shared>, tail: Tail, tree: Tree) -> std::io::Result<Self> {
        let theirs = Arc::clone(shared);
        let committer = thread::Builder::new()
            .name("log-commit".into())
            .spawn(move || guarded(&theirs, |shared| committer::run(shared, tail)))?;
        let theirs = Arc::clone(shared);
        let publisher = thread::Builder::new()
            .name("log-publish".into())
            .spawn(move || {
                let ended = Ended(&theirs);
                guarded(ended.0, |shared| publisher::run(shared, tree));
            })?;
        Ok(Self {
            committer,
            publisher,
        })
    }

    /// Ends the committer first, so that the last checkpoint covers everything.
    pub(super) fn join(self, shared: &Shared) {
        {
            let mut staging = shared.staging();
            if staging.phase == Phase::Open {
                staging.phase = Phase::Closed;
            }
        }
        shared.work.notify_all();
        let committed = self.committer.join();
        {
            let mut queue = shared.queue();
            if queue.phase == QueuePhase::Open {
                queue.phase = QueuePhase::Closing;
            }
        }
        shared.publish.notify_all();
        if committed.and(self.publisher.join()).is_err() {
            tracing::error!("a thread of the log panicked");
        }
        shared.wake();
    }
}

/// Runs a thread's work. One that panics, perhaps in a callback, must not leave the others waiting.
fn guarded(shared: &Shared, work: impl FnOnce(&Shared)) {
    if panic::catch_unwind(AssertUnwindSafe(|| work(shared))).is_err() {
        shared.fatal("a thread of the log panicked");
    }
}

/// However the publisher ends, whoever waits for it is told.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.end_publishing();
    }
}
