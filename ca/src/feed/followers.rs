//! What enforcers have confirmed, and waiting for them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agentca_identity::name::Environment;
use agentca_identity::time::Timestamp;
use tokio::sync::watch;

use crate::authority::handle::Handle;
use crate::authority::state::{Enforcer, State};

/// What every enforcer has confirmed.
#[derive(Debug)]
pub struct Followers {
    started: Instant,
    known: Mutex<HashMap<Handle, Follower>>,
    changed: watch::Sender<()>,
}

#[derive(Clone, Copy, Debug)]
struct Follower {
    connections: u32,
    confirmed: u64,
    confirmed_at: Instant,
    seen: Instant,
    seen_at: Timestamp,
    stale_after: Duration,
}

/// What is shown of an enforcer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    /// Whether it follows now.
    pub connected: bool,
    /// The status number that it has in force.
    pub confirmed: u64,
    /// When it said something last.
    pub last_seen: Option<Timestamp>,
}

/// How a wait ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waited {
    /// Enforcers that were waited for.
    pub enforcers: u32,
    /// Those of them that confirmed.
    pub confirmed: u32,
    /// Those that did not.
    pub lagging: Vec<Handle>,
    /// Enforcers silent for longer than their `stale_after`: they deny everything.
    pub silent: Vec<Handle>,
    /// Until the last confirmation.
    pub in_force: Duration,
}

/// What is known of one enforcer that must confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Confirmed(Instant),
    Lagging,
    Silent,
    /// It has never served anybody.
    Idle,
}

impl Default for Followers {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            known: Mutex::default(),
            changed: watch::channel(()).0,
        }
    }
}

impl Followers {
    /// An enforcer connected, with everything up to `number` in force.
    pub fn connected(&self, enforcer: &Handle, number: u64, stale_after: Duration) {
        let now = Instant::now();
        let mut known = self.lock();
        let connections = known
            .get(enforcer)
            .map_or(0, |follower| follower.connections);
        let follower = Follower {
            connections: connections.saturating_add(1),
            confirmed: number,
            confirmed_at: now,
            seen: now,
            seen_at: Timestamp::now(),
            stale_after,
        };
        known.insert(enforcer.clone(), follower);
        drop(known);
        self.changed.send_replace(());
    }

    /// An enforcer has everything up to `number` in force.
    pub fn confirmed(&self, enforcer: &Handle, number: u64) {
        if let Some(follower) = self.lock().get_mut(enforcer) {
            let now = Instant::now();
            follower.seen = now;
            follower.seen_at = Timestamp::now();
            if number > follower.confirmed {
                follower.confirmed = number;
                follower.confirmed_at = now;
            }
        }
        self.changed.send_replace(());
    }

    /// A connection of an enforcer ended.
    pub fn disconnected(&self, enforcer: &Handle) {
        if let Some(follower) = self.lock().get_mut(enforcer) {
            follower.connections = follower.connections.saturating_sub(1);
        }
    }

    /// Its `stale_after`, as it last said.
    pub fn stale_after(&self, enforcer: &Handle) -> Option<Duration> {
        self.lock()
            .get(enforcer)
            .map(|follower| follower.stale_after)
    }

    /// What is shown of an enforcer.
    pub fn roll(&self, enforcer: &Handle) -> Roll {
        match self.lock().get(enforcer) {
            None => Roll::default(),
            Some(follower) => Roll {
                connected: follower.connections > 0,
                confirmed: follower.confirmed,
                last_seen: Some(follower.seen_at),
            },
        }
    }

    /// The enforcers that a change of these environments must reach.
    pub fn concerned(state: &State, numbers: &[(Environment, u64)]) -> Vec<(Handle, Concern)> {
        let number = |environment: &Environment| {
            numbers
                .iter()
                .find(|(other, _)| other == environment)
                .map(|(_, number)| *number)
        };
        let concerned = state
            .enforcers()
            .iter()
            .filter(|(_, enforcer)| !enforcer.removed);
        concerned
            .filter_map(|(handle, enforcer)| {
                let number = number(&handle.environment)?;
                Some((handle.clone(), Concern::of(enforcer, number)))
            })
            .collect()
    }

    /// Waits until all of them have confirmed, or for `patience`. `since` is when it was durable.
    pub async fn wait(
        &self,
        concerned: &[(Handle, Concern)],
        since: Instant,
        patience: Duration,
    ) -> Waited {
        let mut changed = self.changed.subscribe();
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            changed.mark_unchanged();
            let waited = self.count(concerned, since);
            if waited.lagging.is_empty() {
                return waited;
            }
            if tokio::time::timeout_at(deadline, changed.changed())
                .await
                .is_err()
            {
                return self.count(concerned, since);
            }
        }
    }

    fn count(&self, concerned: &[(Handle, Concern)], since: Instant) -> Waited {
        let mut waited = Waited::default();
        let known = self.lock();
        for (handle, concern) in concerned {
            match self.standing(known.get(handle), concern) {
                Standing::Idle => continue,
                Standing::Silent => {
                    waited.silent.push(handle.clone());
                    continue;
                }
                Standing::Lagging => waited.lagging.push(handle.clone()),
                Standing::Confirmed(at) => {
                    waited.confirmed += 1;
                    waited.in_force = waited.in_force.max(at.saturating_duration_since(since));
                }
            }
            waited.enforcers += 1;
        }
        waited
    }

    fn standing(&self, follower: Option<&Follower>, concern: &Concern) -> Standing {
        match follower {
            Some(follower) if follower.confirmed >= concern.number => {
                Standing::Confirmed(follower.confirmed_at)
            }
            Some(follower) if follower.seen.elapsed() > follower.stale_after => Standing::Silent,
            Some(_) => Standing::Lagging,
            // An enforcer serves nobody before its log was witnessed once.
            None if concern.ever_served == EverServed::No => Standing::Idle,
            // It was last heard of before we started at the latest.
            None if self.started.elapsed() > concern.stale_after => Standing::Silent,
            None => Standing::Lagging,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Handle, Follower>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an enforcer must confirm.
#[derive(Clone, Copy, Debug)]
pub struct Concern {
    number: u64,
    ever_served: EverServed,
    stale_after: Duration,
}

/// Whether an enforcer may ever have let anybody through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EverServed {
    Yes,
    No,
}

impl Concern {
    fn of(enforcer: &Enforcer, number: u64) -> Self {
        Self {
            number,
            ever_served: if enforcer.held.size > 0 {
                EverServed::Yes
            } else {
                EverServed::No
            },
            stale_after: enforcer
                .stale_after_ms
                .map_or(DEFAULT_STALE, Duration::from_millis),
        }
    }
}

/// For an enforcer that has never said how long it goes on without us.
const DEFAULT_STALE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(name: &str) -> Handle {
        Handle {
            environment: "prod".parse().unwrap(),
            name: name.parse().unwrap(),
        }
    }

    fn concern(number: u64, ever_served: EverServed) -> Concern {
        Concern {
            number,
            ever_served,
            stale_after: DEFAULT_STALE,
        }
    }

    #[tokio::test]
    async fn waits_for_the_last_and_names_the_rest() {
        let followers = Followers::default();
        followers.connected(&handle("a"), 3, DEFAULT_STALE);
        followers.connected(&handle("b"), 3, DEFAULT_STALE);
        followers.connected(&handle("gone"), 3, Duration::ZERO);
        let concerned = [
            (handle("a"), concern(4, EverServed::Yes)),
            (handle("b"), concern(4, EverServed::Yes)),
            (handle("gone"), concern(4, EverServed::Yes)),
            (handle("new"), concern(4, EverServed::No)),
            (handle("restarting"), concern(4, EverServed::Yes)),
        ];
        followers.confirmed(&handle("a"), 4);
        let since = Instant::now();
        let waited = followers
            .wait(&concerned, since, Duration::from_millis(20))
            .await;
        assert_eq!((waited.enforcers, waited.confirmed), (3, 1));
        assert_eq!(waited.lagging, [handle("b"), handle("restarting")]);
        assert_eq!(waited.silent, [handle("gone")]);
        let both = concerned.get(..2).unwrap();
        let (waited, ()) =
            tokio::join!(followers.wait(both, since, Duration::from_secs(9)), async {
                followers.confirmed(&handle("b"), 7);
            });
        assert_eq!((waited.enforcers, waited.confirmed), (2, 2));
        assert!(waited.lagging.is_empty());
    }

    #[tokio::test]
    async fn a_confirmation_never_goes_back_but_a_connection_may() {
        let followers = Followers::default();
        followers.connected(&handle("a"), 3, DEFAULT_STALE);
        followers.confirmed(&handle("a"), 9);
        followers.confirmed(&handle("a"), 5);
        assert_eq!(followers.roll(&handle("a")).confirmed, 9);
        // It lost its state: what it had in force before does not count any more.
        followers.connected(&handle("a"), 0, DEFAULT_STALE);
        assert_eq!(followers.roll(&handle("a")).confirmed, 0);
        followers.disconnected(&handle("a"));
        assert!(followers.roll(&handle("a")).connected);
        followers.disconnected(&handle("a"));
        assert!(!followers.roll(&handle("a")).connected);
    }
}
