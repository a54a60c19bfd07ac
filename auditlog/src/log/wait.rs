//! Waiting for durability: callbacks, threads, futures.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};

use super::Shared;

type Callback = Box<dyn Fn(u64) + Send + Sync>;

/// Everybody who wants to know.
#[derive(Default)]
pub(super) struct Waiters {
    callbacks: RwLock<Vec<Callback>>,
    /// Futures with the index they wait for.
    wakers: Mutex<Vec<(u64, Waker)>>,
    /// How many threads sleep on `changed`.
    sleepers: Mutex<usize>,
    changed: Condvar,
}

impl fmt::Debug for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiters")
    }
}

impl Waiters {
    pub(super) fn on_durable(&self, callback: Callback) {
        self.callbacks
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(callback);
    }

    /// Tells everybody that something changed; futures wake that wait for less than `durable`, or
    /// all of them when nothing moved, since then the news is bad.
    pub(super) fn wake(&self, durable: u64) {
        let woken: Vec<Waker> = {
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            wakers.drain(..).map(|(_, waker)| waker).collect()
        };
        woken.into_iter().for_each(Waker::wake);
        if *self.sleepers.lock().unwrap_or_else(PoisonError::into_inner) > 0 {
            self.changed.notify_all();
        }
        // Last, since these are not ours: one that panics keeps nobody else waiting.
        for callback in self
            .callbacks
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            callback(durable);
        }
    }
}

impl Shared {
    /// Whether record `index` is durable, or why it is not going to be.
    fn outcome(&self, index: u64) -> Option<Result<(), NotDurable>> {
        if self.durable() > index {
            Some(Ok(()))
        } else if self.failed.load(Ordering::Acquire) {
            Some(Err(NotDurable::Failed))
        } else if self.blocked() {
            Some(Err(NotDurable::Blocked))
        } else {
            None
        }
    }

    pub(super) fn wait_blocking(&self, index: u64) -> Result<(), NotDurable> {
        let waiters = &self.waiters;
        let mut sleepers = waiters
            .sleepers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *sleepers += 1;
        let outcome = loop {
            // Asked under the lock that `wake` takes after every change, so that none is missed.
            if let Some(outcome) = self.outcome(index) {
                break outcome;
            }
            sleepers = waiters
                .changed
                .wait(sleepers)
                .unwrap_or_else(PoisonError::into_inner);
        };
        *sleepers -= 1;
        outcome
    }
}

/// Resolves when a record is durable.
#[derive(Debug)]
#[must_use = "nothing waits unless it is awaited"]
pub struct Durable {
    shared: Arc<Shared>,
    index: u64,
}

impl Durable {
    pub(super) fn new(shared: Arc<Shared>, index: u64) -> Self {
        Self { shared, index }
    }
}

impl Future for Durable {
    type Output = Result<(), NotDurable>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.shared.outcome(self.index) {
            return Poll::Ready(outcome);
        }
        let mut wakers = self
            .shared
            .waiters
            .wakers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        wakers.push((self.index, context.waker().clone()));
        drop(wakers);
        // Registered first, then asked again: a change in between finds the waker.
        self.shared
            .outcome(self.index)
            .map_or(Poll::Pending, Poll::Ready)
    }
}

/// Why a record is not durable and may never be.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotDurable {
    /// There is no room on the disk.
    #[error("there is no room for the log: free some space")]
    Blocked,
    /// The log failed, or was shut down without room.
    #[error("the log failed")]
    Failed,
}
