//! How fresh what is known is, and what time it is.
//!
//! The authority's time is carried on by the monotonic clock, so that stepping the local clock
//! neither revives an expired certificate nor makes old news fresh.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use agentca_identity::time::Timestamp;

use super::crl_set::Window;

/// The most that the local clock and the authority's may differ.
pub const MAX_SKEW: Duration = Duration::from_secs(60);

/// Why nothing can be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaleReason {
    /// No heartbeat and no CRL was verified, or what came last could not be relied on.
    #[error("no verified revocation status")]
    Unverified,
    /// The newest heartbeat is older than `stale_after`.
    #[error("the authority's status feed has been silent for too long")]
    Silent,
    /// The local clock is off by more than [`MAX_SKEW`].
    #[error("the enforcer's clock differs from the authority's by more than a minute")]
    Skew,
    /// A CRL is past its nextUpdate.
    #[error("a certificate revocation list is past its next update")]
    CrlExpired,
    /// The witness refused this enforcer's log: it may not go on.
    #[error("the witness refused this enforcer's log")]
    LogRefused,
}

#[derive(Debug)]
pub(super) struct Clock {
    base: Instant,
    stale_after: Option<Duration>,
    /// Monotonic milliseconds since `base` up to which heartbeats reach; 0: none.
    deadline: AtomicI64,
    /// The authority's time minus monotonic milliseconds since `base`; [`UNSET`]: none.
    lead: AtomicI64,
    /// CRL mode: the least nextUpdate, Unix milliseconds.
    next_update: AtomicI64,
}

const UNSET: i64 = i64::MIN;

impl Clock {
    pub(super) fn by_heartbeat(stale_after: Duration) -> Self {
        Self::new(Some(stale_after))
    }

    pub(super) fn by_crl() -> Self {
        Self::new(None)
    }

    fn new(stale_after: Option<Duration>) -> Self {
        Self {
            base: Instant::now(),
            stale_after,
            deadline: AtomicI64::new(0),
            lead: AtomicI64::new(UNSET),
            next_update: AtomicI64::new(i64::MAX),
        }
    }

    pub(super) fn freshness(&self, at: Instant, local: Timestamp) -> Result<(), StaleReason> {
        let elapsed = self.elapsed(at);
        let deadline = self.deadline.load(Ordering::Acquire);
        if deadline == 0 {
            return Err(StaleReason::Unverified);
        }
        if elapsed >= deadline {
            return Err(StaleReason::Silent);
        }
        let lead = self.lead.load(Ordering::Acquire);
        let carried = lead.saturating_add(elapsed);
        let behind = carried.saturating_sub(local.millis());
        // A CRL is signed long before it is read: its time is only a lower bound.
        if behind > MAX_SKEW_MS || (self.stale_after.is_some() && behind < -MAX_SKEW_MS) {
            return Err(StaleReason::Skew);
        }
        if carried.max(local.millis()) >= self.next_update.load(Ordering::Acquire) {
            return Err(StaleReason::CrlExpired);
        }
        Ok(())
    }

    /// How old the newest heartbeat is, when there was one that can be relied on.
    pub(super) fn heartbeat_age(&self, at: Instant) -> Option<Duration> {
        let reach = i64::try_from(self.stale_after?.as_millis()).unwrap_or(i64::MAX);
        let deadline = self.deadline.load(Ordering::Acquire);
        if deadline == 0 {
            return None;
        }
        let left = deadline.saturating_sub(self.elapsed(at));
        u64::try_from(reach.saturating_sub(left).max(0))
            .ok()
            .map(Duration::from_millis)
    }

    pub(super) fn now(&self, at: Instant, local: Timestamp) -> Timestamp {
        let lead = self.lead.load(Ordering::Acquire);
        if lead == UNSET {
            return local;
        }
        Timestamp::from_millis(lead.saturating_add(self.elapsed(at)).max(local.millis()))
    }

    /// A heartbeat counts from its own time: by how much it is behind the time carried on from
    /// earlier ones, by so much it was late.
    pub(super) fn heartbeat(&self, time: Timestamp, arrived: Instant) {
        let Some(stale_after) = self.stale_after else {
            return;
        };
        let elapsed = self.elapsed(arrived);
        let lead = time.millis().saturating_sub(elapsed);
        let late = self
            .lead
            .fetch_max(lead, Ordering::AcqRel)
            .saturating_sub(lead)
            .max(0);
        let reach = i64::try_from(stale_after.as_millis()).unwrap_or(i64::MAX);
        let deadline = elapsed.saturating_add(reach).saturating_sub(late).max(1);
        self.deadline.store(deadline, Ordering::Release);
    }

    pub(super) fn crl_window(&self, window: Option<Window>, at: Instant) {
        let Some(Window {
            this_update,
            next_update,
        }) = window
        else {
            return self.distrust();
        };
        let lead = this_update.millis().saturating_sub(self.elapsed(at));
        self.lead.fetch_max(lead, Ordering::AcqRel);
        self.next_update
            .store(next_update.millis(), Ordering::Release);
        self.deadline.store(i64::MAX, Ordering::Release);
    }

    pub(super) fn distrust(&self) {
        self.deadline.store(0, Ordering::Release);
    }

    /// At least 1, so that 0 is free to say "never".
    fn elapsed(&self, at: Instant) -> i64 {
        let elapsed = at.saturating_duration_since(self.base).as_millis();
        i64::try_from(elapsed).unwrap_or(i64::MAX).saturating_add(1)
    }
}

const MAX_SKEW_MS: i64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_800_000_000_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(START + millis)
    }

    fn after(clock: &Clock, millis: u64) -> Instant {
        clock.base + Duration::from_millis(millis)
    }

    #[test]
    fn a_heartbeat_reaches_as_far_as_stale_after() {
        let clock = Clock::by_heartbeat(Duration::from_secs(30));
        assert_eq!(
            clock.freshness(after(&clock, 0), at(0)),
            Err(StaleReason::Unverified)
        );
        clock.heartbeat(at(0), after(&clock, 0));
        assert_eq!(clock.freshness(after(&clock, 29_999), at(29_999)), Ok(()));
        assert_eq!(
            clock.freshness(after(&clock, 30_000), at(30_000)),
            Err(StaleReason::Silent)
        );
        clock.heartbeat(at(31_000), after(&clock, 31_000));
        assert_eq!(clock.freshness(after(&clock, 32_000), at(32_000)), Ok(()));
        clock.distrust();
        assert_eq!(
            clock.freshness(after(&clock, 32_000), at(32_000)),
            Err(StaleReason::Unverified)
        );
    }

    #[test]
    fn a_late_heartbeat_counts_from_its_time() {
        let clock = Clock::by_heartbeat(Duration::from_secs(30));
        clock.heartbeat(at(0), after(&clock, 0));
        clock.heartbeat(at(1_000), after(&clock, 21_000));
        assert_eq!(clock.freshness(after(&clock, 30_999), at(30_999)), Ok(()));
        assert_eq!(
            clock.freshness(after(&clock, 31_000), at(31_000)),
            Err(StaleReason::Silent)
        );
    }

    #[test]
    fn skew_denies_both_ways() {
        let clock = Clock::by_heartbeat(Duration::from_secs(30));
        clock.heartbeat(at(0), after(&clock, 0));
        assert_eq!(clock.freshness(after(&clock, 0), at(60_000)), Ok(()));
        assert_eq!(
            clock.freshness(after(&clock, 0), at(60_002)),
            Err(StaleReason::Skew)
        );
        assert_eq!(clock.freshness(after(&clock, 0), at(-60_000)), Ok(()));
        assert_eq!(
            clock.freshness(after(&clock, 0), at(-60_002)),
            Err(StaleReason::Skew)
        );
    }

    #[test]
    fn now_is_the_later_clock() {
        let clock = Clock::by_heartbeat(Duration::from_secs(30));
        assert_eq!(clock.now(after(&clock, 0), at(5)), at(5));
        clock.heartbeat(at(1_000), after(&clock, 0));
        assert_eq!(clock.now(after(&clock, 500), at(0)), at(1_500));
        assert_eq!(clock.now(after(&clock, 500), at(9_000)), at(9_000));
    }

    #[test]
    fn crls_end_at_their_next_update() {
        let clock = Clock::by_crl();
        let window = Window {
            this_update: at(0),
            next_update: at(100_000),
        };
        clock.crl_window(Some(window), after(&clock, 0));
        assert_eq!(clock.freshness(after(&clock, 0), at(99_999)), Ok(()));
        assert_eq!(
            clock.freshness(after(&clock, 0), at(100_000)),
            Err(StaleReason::CrlExpired)
        );
        // A clock stepped back does not bring it back.
        assert_eq!(
            clock.freshness(after(&clock, 110_000), at(60_000)),
            Err(StaleReason::CrlExpired)
        );
        assert_eq!(
            clock.freshness(after(&clock, 0), at(-61_000)),
            Err(StaleReason::Skew)
        );
        clock.crl_window(None, after(&clock, 0));
        assert_eq!(
            clock.freshness(after(&clock, 0), at(0)),
            Err(StaleReason::Unverified)
        );
    }
}
