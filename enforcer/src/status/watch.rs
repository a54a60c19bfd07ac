//! Connections that follow what becomes of their certificate.
//!
//! Register, then look up, then keep an atomic verdict: a revocation that comes between the two is
//! seen by the look-up, one that comes after sets the verdict.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agentca_identity::certificate::CrlUri;
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::SpiffeId;
use agentca_policy::Restriction;
use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::{Claim, Registry, Source, Verdict};

/// One connection's view of its certificate; ends with its drop.
#[derive(Debug)]
pub struct Watch {
    registry: Arc<Registry>,
    cell: Arc<Cell>,
}

impl Watch {
    pub(super) fn register(registry: Arc<Registry>, claim: &Claim<'_>) -> Self {
        let cell = Arc::new(Cell {
            serial: claim.serial,
            agent: claim.agent.clone(),
            agent_uri: claim.agent.to_string().into(),
            fingerprint: claim.fingerprint,
            crl_uri: claim.crl_uri.cloned(),
            issuer_key: claim.issuer_key,
            verdict: AtomicU64::new(UNKNOWN),
            cancelled: AtomicBool::new(false),
            restriction: ArcSwapOption::empty(),
            changed: Notify::new(),
        });
        let number = registry.status_number();
        registry.watchers.add(&cell, &registry.source, number);
        Self { registry, cell }
    }

    /// What is known now: one atomic read.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.cell.verdict()
    }

    /// The same, with the number of the newest status record that it follows from.
    #[must_use]
    pub fn standing(&self) -> Standing {
        // In this order: a number that is in force was settled in every cell before.
        let in_force = self.registry.status_number();
        let (verdict, settled) = decode(self.cell.verdict.load(Ordering::Acquire));
        Standing {
            verdict,
            status_number: settled.max(in_force),
        }
    }

    /// The restriction in force for the agent; costs one atomic read when there is none.
    #[must_use]
    pub fn restriction(&self) -> Option<Arc<Restriction>> {
        self.cell.restriction.load_full()
    }

    /// Waits until the certificate is known, at most for `limit`.
    pub async fn issued(&self, limit: Duration) -> Verdict {
        if self.verdict() == Verdict::Unknown {
            let known = self.cell.until(|cell| cell.verdict() != Verdict::Unknown);
            // Late is the same as never: the verdict stays unknown.
            let _late = tokio::time::timeout(limit, known).await;
        }
        self.verdict()
    }

    /// The serial of the certificate.
    #[must_use]
    pub fn serial(&self) -> Serial {
        self.cell.serial
    }

    /// Another watch on the same certificate, for what may outlive the connection.
    #[must_use]
    pub fn again(&self) -> Self {
        let cell = &self.cell;
        let claim = Claim {
            serial: cell.serial,
            agent: &cell.agent,
            fingerprint: cell.fingerprint,
            crl_uri: cell.crl_uri.as_ref(),
            issuer_key: cell.issuer_key,
        };
        self.registry.watch(&claim)
    }

    /// Ends when the connection and everything running on it must: the certificate or its agent was
    /// revoked, or the agent's restriction changed.
    pub async fn cancelled(&self) {
        self.cell.until(Cell::is_cancelled).await;
    }

    /// Whether [`cancelled`](Self::cancelled) would end at once.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cell.is_cancelled()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.registry.watchers.remove(&self.cell);
    }
}

/// Every watched connection, by agent.
#[derive(Debug)]
pub(super) struct Watchers {
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
}

type Shard = HashMap<Arc<str>, Vec<Arc<Cell>>>;

impl Default for Watchers {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Watchers {
    fn add(&self, cell: &Arc<Cell>, source: &Source, number: u64) {
        let mut shard = self.shard(&cell.agent_uri);
        shard
            .entry(Arc::clone(&cell.agent_uri))
            .or_default()
            .push(Arc::clone(cell));
        cell.begin(source, number);
    }

    fn remove(&self, cell: &Arc<Cell>) {
        let mut shard = self.shard(&cell.agent_uri);
        if let Some(cells) = shard.get_mut(&cell.agent_uri) {
            cells.retain(|other| !Arc::ptr_eq(other, cell));
            if cells.is_empty() {
                shard.remove(&cell.agent_uri);
            }
        }
    }

    /// Lets one agent's connections look again, after status record `number`.
    pub(super) fn settle_agent(&self, agent: &str, source: &Source, number: u64) {
        let shard = self.shard(agent);
        for cell in shard.get(agent).into_iter().flatten() {
            cell.settle(source, number);
        }
    }

    /// Lets every connection look again, after status record `number`.
    pub(super) fn settle_all(&self, source: &Source, number: u64) {
        for shard in &self.shards {
            for cell in lock(shard).values().flatten() {
                cell.settle(source, number);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).values().map(Vec::len).sum::<usize>())
            .sum()
    }

    fn shard(&self, agent: &str) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(self.hasher.hash_one(agent) % SHARDS_U64).unwrap_or_default();
        #[expect(clippy::indexing_slicing, reason = "there are SHARDS shards, always")]
        lock(&self.shards[index])
    }
}

#[derive(Debug)]
struct Cell {
    serial: Serial,
    agent: SpiffeId,
    agent_uri: Arc<str>,
    fingerprint: [u8; 32],
    crl_uri: Option<CrlUri>,
    issuer_key: Option<[u8; 20]>,
    /// The verdict in the lowest two bits, above them the status number that it follows from: one
    /// read, so that a record never names one without the other.
    verdict: AtomicU64,
    cancelled: AtomicBool,
    restriction: ArcSwapOption<Restriction>,
    changed: Notify,
}

impl Cell {
    /// The first look; called with the shard locked.
    fn begin(&self, source: &Source, number: u64) {
        self.restriction.store(source.restriction(&self.agent_uri));
        self.settle(source, number);
    }

    /// Looks again; called with the shard locked, so that looks of one cell follow each other.
    fn settle(&self, source: &Source, number: u64) {
        let verdict = source.verdict(&self.claim());
        let before = self.verdict();
        self.verdict
            .store(encode(verdict, number), Ordering::Release);
        let restriction = source.restriction(&self.agent_uri);
        let restricted = self.restriction.load().as_deref() != restriction.as_deref();
        if restricted {
            self.restriction.store(restriction);
        }
        let ended =
            verdict == Verdict::Revoked || (before == Verdict::Valid && verdict != Verdict::Valid);
        if ended || restricted {
            self.cancelled.store(true, Ordering::Release);
        }
        self.changed.notify_waiters();
    }

    fn claim(&self) -> Claim<'_> {
        Claim {
            serial: self.serial,
            agent: &self.agent,
            fingerprint: self.fingerprint,
            crl_uri: self.crl_uri.as_ref(),
            issuer_key: self.issuer_key,
        }
    }

    fn verdict(&self) -> Verdict {
        decode(self.verdict.load(Ordering::Acquire)).0
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the condition is read: no change is missed.
            changed.as_mut().enable();
            if condition(self) {
                return;
            }
            changed.await;
        }
    }
}

/// A verdict and the status number that it follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What is known of the certificate.
    pub verdict: Verdict,
    /// The newest status record in force for it; 0 without a feed.
    pub status_number: u64,
}

const UNKNOWN: u64 = 0;
const VALID: u64 = 1;
const REVOKED: u64 = 2;

fn encode(verdict: Verdict, number: u64) -> u64 {
    let verdict = match verdict {
        Verdict::Unknown => UNKNOWN,
        Verdict::Valid => VALID,
        Verdict::Revoked => REVOKED,
    };
    number << 2 | verdict
}

fn decode(encoded: u64) -> (Verdict, u64) {
    let verdict = match encoded & 3 {
        VALID => Verdict::Valid,
        REVOKED => Verdict::Revoked,
        _ => Verdict::Unknown,
    };
    (verdict, encoded >> 2)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const SHARDS: usize = 64;
const SHARDS_U64: u64 = 64;
