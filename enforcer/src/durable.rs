//! Waiting until a record is durable: one wake per runtime and commit.
//!
//! The log's committer stores the number of durable records into the [`Beacon`] of each runtime and
//! wakes one task there; that task releases every answer below it. A request allocates no channel
//! for it, and no lock is shared between runtimes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use crate::slots::Slots;

/// What the committer tells one runtime.
#[derive(Debug, Default)]
pub(crate) struct Beacon {
    durable: AtomicU64,
    raised: Notify,
}

impl Beacon {
    /// Every record below `durable` is on disk; called from the committer's thread.
    pub(crate) fn raise(&self, durable: u64) {
        self.durable.fetch_max(durable, Ordering::Release);
        self.raised.notify_one();
    }

    fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }
}

/// The answers of one runtime that wait for their records.
#[derive(Debug)]
pub(crate) struct Durability {
    beacon: Arc<Beacon>,
    waiters: RefCell<Slots<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    index: u64,
    waker: Option<Waker>,
    failed: bool,
}

/// The log cannot grow: nobody may wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log cannot grow")]
pub(crate) struct Blocked;

impl Durability {
    pub(crate) fn new(beacon: Arc<Beacon>) -> Rc<Self> {
        Rc::new(Self {
            beacon,
            waiters: RefCell::default(),
        })
    }

    /// Releases waiters for ever; spawned once per runtime.
    pub(crate) async fn run(self: Rc<Self>) {
        loop {
            self.beacon.raised.notified().await;
            self.release();
        }
    }

    /// Resolves once record `index` is durable, or fails while the log cannot grow.
    pub(crate) fn wait(self: &Rc<Self>, index: u64) -> Wait {
        Wait {
            durability: Rc::clone(self),
            index,
            key: None,
        }
    }

    /// Lets everybody who waits give up: the log cannot grow.
    pub(crate) fn fail_all(&self) {
        for waiter in self.waiters.borrow_mut().iter_mut() {
            waiter.failed = true;
            if let Some(waker) = waiter.waker.take() {
                waker.wake();
            }
        }
    }

    fn release(&self) {
        let durable = self.beacon.durable();
        let mut waiters = self.waiters.borrow_mut();
        for waiter in waiters.iter_mut().filter(|waiter| waiter.index < durable) {
            // A wake only queues the task: nothing of it runs while the list is borrowed.
            if let Some(waker) = waiter.waker.take() {
                waker.wake();
            }
        }
    }
}

/// See [`Durability::wait`].
#[derive(Debug)]
pub(crate) struct Wait {
    durability: Rc<Durability>,
    index: u64,
    key: Option<usize>,
}

impl Future for Wait {
    type Output = Result<(), Blocked>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.durability.beacon.durable() > this.index {
            return Poll::Ready(Ok(()));
        }
        let mut waiters = this.durability.waiters.borrow_mut();
        match this.key.and_then(|key| waiters.get_mut(key)) {
            None => {
                let waker = Some(cx.waker().clone());
                this.key = Some(waiters.insert(Waiter {
                    index: this.index,
                    waker,
                    failed: false,
                }));
            }
            Some(Waiter { failed: true, .. }) => return Poll::Ready(Err(Blocked)),
            Some(Waiter {
                waker: Some(waker), ..
            }) if waker.will_wake(cx.waker()) => {}
            Some(waiter) => waiter.waker = Some(cx.waker().clone()),
        }
        drop(waiters);
        // Raised between the first look and the registration: the runtime's task may have run
        // before this waiter was in the list.
        if this.durability.beacon.durable() > this.index {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.durability.waiters.borrow_mut().remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(wait: &mut Wait) -> bool {
        std::pin::Pin::new(wait)
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn an_answer_is_released_only_above_its_record() {
        let beacon = Arc::new(Beacon::default());
        let durability = Durability::new(Arc::clone(&beacon));
        let (mut first, mut second) = (durability.wait(4), durability.wait(5));
        assert!(!poll(&mut first) && !poll(&mut second));
        beacon.raise(5);
        assert!(poll(&mut first), "records 0 to 4 are durable");
        assert!(!poll(&mut second));
        beacon.raise(3);
        assert!(poll(&mut first), "durable never goes back");
        beacon.raise(6);
        assert!(poll(&mut second));
    }

    #[test]
    fn nobody_waits_for_a_log_that_cannot_grow() {
        let beacon = Arc::new(Beacon::default());
        let durability = Durability::new(Arc::clone(&beacon));
        let mut wait = durability.wait(0);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(std::pin::Pin::new(&mut wait).poll(&mut cx).is_pending());
        durability.fail_all();
        let polled = std::pin::Pin::new(&mut wait).poll(&mut cx);
        assert_eq!(polled, Poll::Ready(Err(Blocked)));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn one_raise_from_another_thread_wakes_all() {
        let local = tokio::task::LocalSet::new();
        let beacon = Arc::new(Beacon::default());
        let durability = Durability::new(Arc::clone(&beacon));
        local.spawn_local(Rc::clone(&durability).run());
        let tasks: Vec<_> = (0..100)
            .map(|index| local.spawn_local(durability.wait(index)))
            .collect();
        std::thread::spawn(move || beacon.raise(100));
        local
            .run_until(async {
                for task in tasks {
                    task.await.unwrap().unwrap();
                }
            })
            .await;
        assert!(durability.waiters.borrow_mut().iter_mut().next().is_none());
    }
}
