//! How many streams of an HTTP/2 connection their client reset before they were answered.
//!
//! A reset costs its client a frame; us a decision, an upstream's request and a record. It also makes
//! room for the next stream at once, so that no limit on concurrent streams counts it (rapid reset,
//! CVE-2023-44487). What was reset before we saw it the library counts.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Resets of the present window, and answers.
#[derive(Debug)]
pub(crate) struct Resets {
    since: Cell<Instant>,
    reset: Cell<u32>,
    answered: Cell<u32>,
}

impl Resets {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: Cell::new(now),
            reset: Cell::new(0),
            answered: Cell::new(0),
        }
    }

    /// A stream was answered.
    pub(crate) fn answered(&self, now: Instant) {
        self.follow(now);
        self.answered.set(self.answered.get().saturating_add(1));
    }

    /// One was reset before; gives whether these are more than `most`, and more than were answered.
    pub(crate) fn reset(&self, now: Instant, most: u32) -> bool {
        self.follow(now);
        self.reset.set(self.reset.get().saturating_add(1));
        self.reset.get() > most.max(self.answered.get())
    }

    fn follow(&self, now: Instant) {
        if now.saturating_duration_since(self.since.get()) >= WINDOW {
            self.since.set(now);
            self.reset.set(0);
            self.answered.set(0);
        }
    }
}

const WINDOW: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_count_within_a_window_and_against_answers() {
        let start = Instant::now();
        let resets = Resets::new(start);
        assert!(!resets.reset(start, 2) && !resets.reset(start, 2));
        assert!(resets.reset(start, 2), "one more than the most");
        assert!(!resets.reset(start + WINDOW, 2), "another window");
        for _ in 0..5 {
            resets.answered(start + WINDOW);
        }
        for _ in 1..5 {
            assert!(!resets.reset(start + WINDOW, 2), "as many were answered");
        }
        assert!(resets.reset(start + WINDOW, 2));
    }
}
