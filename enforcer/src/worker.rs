//! What one runtime has for itself, and what all share.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use agentca_auditlog::log::Log;
use agentca_identity::crypto;
use arc_swap::ArcSwap;

use crate::disclosures::Disclosures;
use crate::durable::{Beacon, Durability};
use crate::handshake_log::HandshakeLog;
use crate::live::Live;
use crate::ops::{Board, Counters};
use crate::outcomes::Outcomes;
use crate::shares::Shares;
use crate::status::{Registry, StaleReason};
use crate::timers::Timers;
use crate::upstream::Pool;

/// What all runtimes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) live: Arc<ArcSwap<Live>>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) log: Arc<Log>,
    /// Open client connections.
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) board: Arc<Board>,
    pub(crate) handshakes: HandshakeLog,
    pub(crate) outcomes: Outcomes,
    /// Where values that tools were called with are kept, if anywhere.
    pub(crate) disclosures: Option<Disclosures>,
    pub(crate) shares: Arc<Shares>,
    /// Client connections that there are descriptors for.
    pub(crate) connections_max: usize,
}

/// One runtime's own: nothing in it is ever waited for.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) timers: Rc<Timers>,
    pub(crate) durability: Rc<Durability>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) counters: Counters,
    pub(crate) draining: Cell<bool>,
    /// Open connections of this runtime.
    pub(crate) connections: Cell<usize>,
    entropy: RefCell<Entropy>,
    /// By how much the authority's time is ahead of the monotonic clock, and how often that grew.
    clock: Cell<(i64, u64)>,
    /// Whether status was stale at the last look, and how often it became so.
    stale: Cell<(bool, u64)>,
    /// When it was last said that connections were turned away, and how many were since.
    turned_away: Cell<(Option<Instant>, u64)>,
    started: Instant,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, beacon: Arc<Beacon>) -> Rc<Self> {
        let timers = Timers::new();
        Rc::new(Self {
            counters: Counters::new(&shared.board),
            shared,
            durability: Durability::new(beacon),
            pool: Pool::new(Rc::clone(&timers)),
            timers,
            draining: Cell::new(false),
            connections: Cell::new(0),
            entropy: RefCell::new(Entropy::new()),
            clock: Cell::new((i64::MIN, 0)),
            stale: Cell::new((false, 0)),
            turned_away: Cell::new((None, 0)),
            started: Instant::now(),
        })
    }

    /// Says that a connection was closed for want of a place: at most once a second, and how many were.
    pub(crate) fn turn_away(&self, why: &'static str, who: &dyn fmt::Display) {
        let (said, closed) = self.turned_away.get();
        let (now, closed) = (Instant::now(), closed.saturating_add(1));
        if said.is_some_and(|said| now.duration_since(said) < SAY_AGAIN) {
            self.turned_away.set((said, closed));
            return;
        }
        self.turned_away.set((Some(now), 0));
        tracing::warn!(closed, last = %who, "{why}");
    }

    /// Grows whenever times computed from the registry's clock have to be computed again.
    pub(crate) fn clock_reading(&self) -> u64 {
        self.clock.get().1
    }

    /// How often status became stale.
    pub(crate) fn staleness(&self) -> u64 {
        self.stale.get().1
    }

    /// Looks whether status became stale: then what runs has to end.
    /// Gives what changed since the last look.
    pub(crate) fn follow_freshness(&self) -> Option<Result<(), StaleReason>> {
        let fresh = self.shared.registry.freshness(Instant::now());
        let stale = fresh.is_err();
        let (before, times) = self.stale.get();
        if stale && !before {
            self.stale.set((true, times.wrapping_add(1)));
            self.timers.wake_all();
        } else {
            self.stale.set((stale, times));
        }
        (stale != before).then_some(fresh)
    }

    /// Looks whether the registry's clock moved against the monotonic one: then certificates end
    /// sooner than was thought.
    pub(crate) fn follow_clock(&self) {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let lead = self.shared.registry.now().millis().saturating_sub(elapsed);
        let (before, reading) = self.clock.get();
        if lead.abs_diff(before) > MOVED_MS {
            self.clock.set((lead, reading.wrapping_add(1)));
            self.timers.wake_all();
        }
    }

    /// Sixteen random bytes.
    pub(crate) fn random(&self) -> [u8; 16] {
        self.entropy.borrow_mut().take()
    }
}

/// Less is the clocks' own noise.
const MOVED_MS: u64 = 50;

/// Random bytes fetched in bulk.
struct Entropy {
    bytes: [u8; 512],
    used: usize,
}

impl Entropy {
    fn new() -> Self {
        Self {
            bytes: crypto::random(),
            used: 0,
        }
    }

    fn take(&mut self) -> [u8; 16] {
        loop {
            let rest = self.bytes.get_mut(self.used..).unwrap_or_default();
            if let Some(chunk) = rest.first_chunk_mut::<16>() {
                self.used += 16;
                return std::mem::take(chunk);
            }
            *self = Self::new();
        }
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}

/// How often it is said that connections are turned away.
const SAY_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_are_given_once() {
        let mut entropy = Entropy::new();
        let taken: std::collections::HashSet<_> = (0..1000).map(|_| entropy.take()).collect();
        assert_eq!(taken.len(), 1000);
    }
}
