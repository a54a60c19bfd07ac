//! How often somebody may renew: so many at once, then so many a minute, for each identity.
//!
//! A renewal is asked for by whoever holds a certificate, and each one is a record that is kept for ever:
//! without a bound one agent could fill the disk that revocations are written to.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use agentca_identity::spiffe::SpiffeId;

/// The pace of every identity.
#[derive(Debug)]
pub struct Pace {
    /// From one renewal to the next, in the long run.
    interval: Duration,
    /// How far ahead of that somebody may be.
    ahead: Duration,
    paces: Mutex<Paces>,
}

#[derive(Debug, Default)]
struct Paces {
    /// Until when what was taken is used up.
    until: HashMap<SpiffeId, Instant>,
    /// At how many entries those that are used up are forgotten.
    tidy_at: usize,
}

impl Pace {
    /// `burst` at once, then `per_minute`.
    pub fn new(burst: u32, per_minute: u32) -> Self {
        let interval = Duration::from_secs(60) / per_minute.max(1);
        Self {
            interval,
            ahead: interval.saturating_mul(burst.saturating_sub(1)),
            paces: Mutex::default(),
        }
    }

    /// Takes one at `now`, or says after how long there will be one.
    ///
    /// # Errors
    /// How long to wait.
    pub fn take(&self, who: &SpiffeId, now: Instant) -> Result<(), Duration> {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let until = paces.until.get(who).copied().unwrap_or(now).max(now);
        let early = until.saturating_duration_since(now);
        if early > self.ahead {
            return Err(early.saturating_sub(self.ahead));
        }
        if paces.until.len() >= paces.tidy_at.max(TIDY) {
            paces.until.retain(|_, until| *until > now);
            paces.tidy_at = paces.until.len().saturating_mul(2);
        }
        paces.until.insert(who.clone(), until + self.interval);
        Ok(())
    }
}

/// Below so many entries nothing is forgotten.
const TIDY: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> SpiffeId {
        let uri = format!("spiffe://example.org/prod/agent/{name}");
        uri.parse().unwrap()
    }

    #[test]
    fn so_many_at_once_and_then_at_a_pace() {
        let pace = Pace::new(3, 60);
        let begin = Instant::now();
        let (busy, other) = (agent("busy"), agent("other"));
        for _ in 0..3 {
            pace.take(&busy, begin).unwrap();
        }
        let wait = pace.take(&busy, begin).unwrap_err();
        assert_eq!(wait, Duration::from_secs(1));
        // Refusals cost nothing, and nobody else is touched.
        assert_eq!(pace.take(&busy, begin), Err(wait));
        pace.take(&other, begin).unwrap();
        pace.take(&busy, begin + wait).unwrap();
        assert!(pace.take(&busy, begin + wait).is_err());
        // After a while it may burst again, and no more than that.
        let later = begin + Duration::from_secs(3600);
        for _ in 0..3 {
            pace.take(&busy, later).unwrap();
        }
        assert!(pace.take(&busy, later).is_err());
    }

    #[test]
    fn what_is_used_up_is_forgotten() {
        let pace = Pace::new(1, 60);
        let begin = Instant::now();
        for round in 0..4 {
            for number in 0..TIDY {
                let now = begin + Duration::from_secs(10 * round);
                pace.take(&agent(&format!("a-{round}-{number}")), now)
                    .unwrap();
            }
        }
        assert!(pace.paces.lock().unwrap().until.len() <= 2 * TIDY);
    }
}
