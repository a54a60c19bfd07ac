//! Coarse timers of one runtime: one tick looks over all deadlines, none is registered anywhere.
//!
//! A request arms and disarms several timers, none of which ever fires in a healthy system. Setting
//! one here is a store into a slot; every [`TICK`] one task walks over the slots, whose number is
//! that of open connections and running requests, not of requests a second.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::slots::Slots;

/// How late a timer may fire.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// All timers of one runtime.
#[derive(Debug)]
pub(crate) struct Timers {
    now: Cell<Instant>,
    slots: RefCell<Slots<Slot>>,
}

impl Timers {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            now: Cell::new(Instant::now()),
            slots: RefCell::default(),
        })
    }

    /// The time of the last tick: at most a [`TICK`] old while the runtime isn't overloaded.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Ticks for ever; spawned once per runtime.
    pub(crate) async fn run(self: Rc<Self>) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.tick(Instant::now());
        }
    }

    /// A timer that is not set.
    pub(crate) fn timer(self: &Rc<Self>) -> Timer {
        let key = self.slots.borrow_mut().insert(Slot {
            deadline: None,
            waker: None,
        });
        Timer {
            timers: Rc::clone(self),
            key,
        }
    }

    /// A timer that fires after `duration`.
    pub(crate) fn after(self: &Rc<Self>, duration: Duration) -> Timer {
        let timer = self.timer();
        timer.set(self.now().checked_add(duration));
        timer
    }

    /// Wakes everybody who waits, to look at what changed besides the time.
    pub(crate) fn wake_all(&self) {
        let all: Vec<Waker> = self
            .slots
            .borrow_mut()
            .iter_mut()
            .filter_map(|slot| slot.waker.take())
            .collect();
        for waker in all {
            waker.wake();
        }
    }

    fn tick(&self, now: Instant) {
        self.now.set(now);
        let due: Vec<Waker> = self
            .slots
            .borrow_mut()
            .iter_mut()
            .filter(|slot| slot.deadline.is_some_and(|deadline| deadline <= now))
            .filter_map(|slot| slot.waker.take())
            .collect();
        for waker in due {
            waker.wake();
        }
    }
}

#[derive(Debug)]
struct Slot {
    deadline: Option<Instant>,
    waker: Option<Waker>,
}

/// One deadline; dropping it frees its slot.
#[derive(Debug)]
pub(crate) struct Timer {
    timers: Rc<Timers>,
    key: usize,
}

impl Timer {
    /// Moves the deadline; `None` means never.
    pub(crate) fn set(&self, deadline: Option<Instant>) {
        if let Some(slot) = self.timers.slots.borrow_mut().get_mut(self.key) {
            slot.deadline = deadline;
        }
    }

    /// Moves the deadline to `duration` from now.
    pub(crate) fn restart(&self, duration: Duration) {
        self.set(self.timers.now().checked_add(duration));
    }

    /// Ready once the deadline has passed, else wakes when it does.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut slots = self.timers.slots.borrow_mut();
        let Some(slot) = slots.get_mut(self.key) else {
            return Poll::Ready(());
        };
        if slot
            .deadline
            .is_some_and(|deadline| deadline <= self.timers.now())
        {
            return Poll::Ready(());
        }
        match &slot.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => slot.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Runs `future` until it is done or the deadline has passed.
    pub(crate) async fn limit<F: Future>(&self, future: F) -> Result<F::Output, TimedOut> {
        let mut future = std::pin::pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.poll(cx).map(|()| Err(TimedOut))
        })
        .await
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.timers.slots.borrow_mut().remove(self.key);
    }
}

/// The deadline came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimedOut;

#[cfg(test)]
mod tests {
    use super::*;

    fn polled(timer: &Timer) -> bool {
        timer
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn a_timer_fires_at_its_tick_and_not_before() {
        let timers = Timers::new();
        let start = timers.now();
        let timer = timers.after(Duration::from_secs(2));
        assert!(!polled(&timer));
        timers.tick(start + Duration::from_secs(1));
        assert!(!polled(&timer));
        timers.tick(start + Duration::from_secs(2));
        assert!(polled(&timer));
        timer.set(Some(start + Duration::from_secs(3)));
        assert!(!polled(&timer));
        timer.set(None);
        timers.tick(start + Duration::from_secs(99));
        assert!(!polled(&timer));
    }

    #[test]
    fn the_tick_wakes_who_waits() {
        struct Count(std::sync::atomic::AtomicU32);
        impl std::task::Wake for Count {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let count = std::sync::Arc::new(Count(0.into()));
        let waker = Waker::from(std::sync::Arc::clone(&count));
        let timers = Timers::new();
        let start = timers.now();
        let timer = timers.after(Duration::from_secs(1));
        assert!(timer.poll(&mut Context::from_waker(&waker)).is_pending());
        timers.tick(start);
        assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 0);
        timers.tick(start + Duration::from_secs(1));
        assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 1);
        drop(timer);
        timers.tick(start + Duration::from_secs(2));
        assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}
