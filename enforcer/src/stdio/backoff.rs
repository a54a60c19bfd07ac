//! How long a program that ended is left alone before it is started again.

use std::time::{Duration, Instant};

/// When the next start may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    delay: Duration,
    until: Instant,
}

impl Backoff {
    /// After an end that nobody asked for.
    pub(super) fn after(before: Option<Self>, lived: Duration, now: Instant) -> Self {
        let delay = match before {
            Some(before) if lived < GOOD_LIFE => before.delay.saturating_mul(2).min(LONGEST),
            _ => FIRST,
        };
        Self {
            delay,
            until: now.checked_add(delay).unwrap_or(now),
        }
    }

    /// How long it still is, unless it is over.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.until
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())
    }

    /// Whether it is too long ago to count.
    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.until) > GOOD_LIFE
    }
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// Who lived this long starts anew.
const GOOD_LIFE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_half_a_minute_and_a_good_life_resets_them() {
        let now = Instant::now();
        let short = Duration::from_secs(1);
        let mut backoff = Backoff::after(None, short, now);
        let mut delays = Vec::new();
        for _ in 0..11 {
            delays.push(backoff.delay.as_millis());
            backoff = Backoff::after(Some(backoff), short, now);
        }
        assert_eq!(
            delays,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000
            ]
        );
        let backoff = Backoff::after(Some(backoff), GOOD_LIFE, now);
        assert_eq!(backoff.delay, FIRST);
        assert_eq!(backoff.left(now), Some(FIRST));
        assert_eq!(backoff.left(now + FIRST), None);
        assert!(!backoff.is_forgotten(now + GOOD_LIFE));
        assert!(backoff.is_forgotten(now + GOOD_LIFE + FIRST * 2));
    }
}
