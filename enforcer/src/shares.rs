//! What one agent may take of an enforcer: connections, calls at one time, and memory for bodies that are
//! held whole.
//!
//! All agents together hold at most `buffered_max` bytes of bodies, one agent at most half of it, so
//! that whoever fills its share leaves room for the others. What is reserved is given back by a drop.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who takes how much.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    buffered: AtomicUsize,
    agents: Mutex<HashMap<Arc<str>, Arc<Share>>>,
}

/// One agent's.
#[derive(Debug, Default)]
struct Share {
    /// Written under the lock of the list.
    connections: AtomicUsize,
    calls: AtomicUsize,
    buffered: AtomicUsize,
}

impl Shares {
    /// A place for one more connection of `agent`'s; none when it has `most` of them.
    pub(crate) fn enter(self: &Arc<Self>, agent: &str, most: usize) -> Option<Place> {
        let mut agents = self.lock();
        let (agent, share) = match agents.get_key_value(agent) {
            Some((agent, share)) => (Arc::clone(agent), Arc::clone(share)),
            None => (Arc::from(agent), Arc::default()),
        };
        if share.connections.load(Ordering::Relaxed) >= most {
            return None;
        }
        share.connections.fetch_add(1, Ordering::Relaxed);
        agents.insert(Arc::clone(&agent), Arc::clone(&share));
        Some(Place {
            shares: Arc::clone(self),
            agent,
            share,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Share>>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open connection of an agent's.
#[derive(Debug)]
pub(crate) struct Place {
    shares: Arc<Shares>,
    agent: Arc<str>,
    share: Arc<Share>,
}

impl Place {
    /// Nothing yet, to be grown.
    pub(crate) fn reserve(&self) -> Reserved {
        Reserved {
            shares: Arc::clone(&self.shares),
            share: Arc::clone(&self.share),
            bytes: 0,
        }
    }
}

impl Place {
    /// One more call that runs; none when `most` of the agent's do.
    pub(crate) fn call(&self, most: usize) -> Option<Calling> {
        take(&self.share.calls, 1, most).then(|| Calling(Arc::clone(&self.share)))
    }
}

/// A call of an agent's that runs.
#[derive(Debug)]
pub(crate) struct Calling(Arc<Share>);

impl Drop for Calling {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut agents = self.shares.lock();
        if self.share.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            agents.remove(&self.agent);
        }
    }
}

/// Room for bytes of a body.
#[derive(Debug)]
pub(crate) struct Reserved {
    shares: Arc<Shares>,
    share: Arc<Share>,
    bytes: usize,
}

impl Reserved {
    /// As [`grow`](Self::grow), up to `bytes` in all; what was taken before stays.
    pub(crate) fn reach(&mut self, bytes: usize, most: usize) -> bool {
        match bytes.checked_sub(self.bytes) {
            None | Some(0) => true,
            Some(more) => self.grow(more, most),
        }
    }

    /// Holds as many as these, more or fewer than before; false leaves it as it was.
    pub(crate) fn hold(&mut self, bytes: usize, most: usize) -> bool {
        let fewer = self.bytes.saturating_sub(bytes);
        if fewer == 0 {
            return self.reach(bytes, most);
        }
        self.give_back(fewer);
        self.bytes = bytes;
        true
    }

    /// Takes `bytes` more, when all agents together stay within `most` and this one within half of it.
    pub(crate) fn grow(&mut self, bytes: usize, most: usize) -> bool {
        if !take(&self.share.buffered, bytes, most / 2) {
            return false;
        }
        if !take(&self.shares.buffered, bytes, most) {
            self.share.buffered.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }

    fn give_back(&self, bytes: usize) {
        self.share.buffered.fetch_sub(bytes, Ordering::Relaxed);
        self.shares.buffered.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

fn take(taken: &AtomicUsize, bytes: usize, most: usize) -> bool {
    let before = taken.fetch_add(bytes, Ordering::Relaxed);
    let fits = before.checked_add(bytes).is_some_and(|after| after <= most);
    if !fits {
        taken.fetch_sub(bytes, Ordering::Relaxed);
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_has_half_and_leaves_the_rest_to_others() {
        let shares = Arc::new(Shares::default());
        let (one, other) = (shares.enter("a", 9).unwrap(), shares.enter("b", 9).unwrap());
        let (mut first, mut second) = (one.reserve(), one.reserve());
        assert!(first.grow(30, 100) && second.grow(20, 100));
        assert!(!second.grow(1, 100), "half of it is taken");
        let mut third = other.reserve();
        assert!(third.grow(50, 100));
        assert!(!first.hold(31, 100) && first.hold(10, 100) && first.hold(30, 100));
        drop(first);
        assert!(second.grow(30, 100), "what was dropped is free");
        assert!(!other.reserve().grow(1, 100));
        drop((second, third));
        assert_eq!(shares.buffered.load(Ordering::Relaxed), 0);
        drop((one, other));
        assert!(shares.lock().is_empty());
    }

    #[test]
    fn calls_are_counted_over_all_connections_of_an_agent() {
        let shares = Arc::new(Shares::default());
        let (one, two) = (shares.enter("a", 9).unwrap(), shares.enter("a", 9).unwrap());
        let first = one.call(2).unwrap();
        let _second = two.call(2).unwrap();
        assert!(one.call(2).is_none() && two.call(2).is_none());
        assert!(shares.enter("b", 9).unwrap().call(2).is_some());
        drop(first);
        assert!(two.call(2).is_some());
    }

    #[test]
    fn connections_are_counted_by_agent() {
        let shares = Arc::new(Shares::default());
        let (one, _two) = (shares.enter("a", 2).unwrap(), shares.enter("a", 2).unwrap());
        assert!(shares.enter("a", 2).is_none());
        let _other = shares.enter("b", 2).unwrap();
        drop(one);
        assert!(shares.enter("a", 2).is_some());
    }
}
