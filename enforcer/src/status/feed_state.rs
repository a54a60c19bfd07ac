//! What the status feed said: certificates by serial, agents by SPIFFE id.
//!
//! Sharded and changed in place, never cloned. A certificate takes 48 bytes (and the map's slack);
//! agents are interned.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use agentca_auditlog::status::Snapshot;
use agentca_auditlog::status::snapshot::{SnapshotAgent, SnapshotCertificate};
use agentca_identity::serial::Serial;
use agentca_identity::time::Timestamp;
use agentca_policy::Restriction;

use super::{Claim, Verdict};

/// Everything issued and not yet forgotten, and every agent.
#[derive(Debug)]
pub struct FeedState {
    certificates: Vec<Mutex<HashMap<Serial, Issued>>>,
    agents: RwLock<Agents>,
    next_to_tidy: AtomicUsize,
}

impl Default for FeedState {
    fn default() -> Self {
        Self {
            certificates: (0..SHARDS).map(|_| Mutex::default()).collect(),
            agents: RwLock::default(),
            next_to_tidy: AtomicUsize::new(0),
        }
    }
}

impl FeedState {
    /// What a snapshot says; it was read strictly, so places of agents are those of the list.
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot) -> Self {
        let state = Self::default();
        for agent in &snapshot.agents {
            // Every field is named, so that a new one has to be decided upon.
            let SnapshotAgent {
                uri,
                revoked_before,
                trust,
                scopes,
            } = agent;
            let uri = uri.to_string();
            state.agent_revoked(&uri, *revoked_before);
            state.restrict(
                &uri,
                Restriction {
                    trust: *trust,
                    scopes: scopes.clone(),
                },
            );
        }
        for certificate in &snapshot.certificates {
            let SnapshotCertificate {
                number,
                serial,
                agent,
                not_after,
                fingerprint,
                revoked,
            } = certificate;
            let issued = Issued {
                number: if *revoked { REVOKED } else { *number },
                fingerprint: shorten(fingerprint),
                not_after: whole_seconds(*not_after),
                agent: *agent,
            };
            state.shard(serial).insert(*serial, issued);
        }
        state
    }

    /// A certificate was issued by the status record of this number.
    pub fn issued(
        &self,
        serial: &Serial,
        agent: &str,
        fingerprint: [u8; 32],
        not_after: Timestamp,
        number: u64,
    ) {
        let agent = self.intern(agent);
        let issued = Issued {
            number,
            fingerprint: shorten(&fingerprint),
            not_after: whole_seconds(not_after),
            agent,
        };
        // A serial is never announced twice; were it, the first stands.
        if let Entry::Vacant(place) = self.shard(serial).entry(*serial) {
            place.insert(issued);
        }
    }

    /// Ends everything issued to an agent by earlier status records.
    pub fn agent_revoked(&self, agent: &str, number: u64) {
        self.change_agent(agent, |agent| {
            agent.revoked_before = agent.revoked_before.max(number)
        });
    }

    /// Ends one certificate; one that was never announced, or forgotten, is denied anyway.
    pub fn certificate_revoked(&self, serial: &Serial) {
        if let Some(issued) = self.shard(serial).get_mut(serial) {
            issued.number = REVOKED;
        }
    }

    /// Lowers an agent's rights, or lifts that again when nothing is lowered.
    pub fn restrict(&self, agent: &str, restriction: Restriction) {
        let Restriction { trust, scopes } = &restriction;
        let lifted = trust.is_none() && scopes.is_none();
        let restriction = (!lifted).then(|| Arc::new(restriction));
        self.change_agent(agent, |agent| agent.restriction = restriction);
    }

    /// The number of certificates that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.certificates
            .iter()
            .map(|shard| lock(shard).len())
            .sum()
    }

    /// Whether no certificate is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn verdict(&self, claim: &Claim<'_>) -> Verdict {
        let Some(issued) = self.shard(&claim.serial).get(&claim.serial).copied() else {
            return Verdict::Unknown;
        };
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        let agent = agents
            .list
            .get(usize::try_from(issued.agent).unwrap_or(usize::MAX));
        let Some(agent) = agent else {
            return Verdict::Unknown;
        };
        // Another certificate under an announced serial is one that nobody announced.
        let same = *agent.uri == *claim.agent.to_string()
            && issued.fingerprint == shorten(&claim.fingerprint);
        if !same {
            Verdict::Unknown
        } else if issued.number < agent.revoked_before || issued.number == REVOKED {
            Verdict::Revoked
        } else {
            Verdict::Valid
        }
    }

    pub(super) fn restriction(&self, agent: &str) -> Option<Arc<Restriction>> {
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        let place = *agents.places.get(agent)?;
        agents
            .list
            .get(usize::try_from(place).ok()?)?
            .restriction
            .clone()
    }

    /// Forgets what expired long ago, one shard at a call: an expired certificate is denied anyway.
    pub(super) fn forget_expired(&self, now: Timestamp) {
        let turn = self.next_to_tidy.fetch_add(1, Ordering::Relaxed);
        let Some(shard) = self.certificates.get(turn % SHARDS) else {
            return;
        };
        let limit = (now - REMEMBERED_AFTER_EXPIRY).secs();
        let mut shard = lock(shard);
        shard.retain(|_, issued| i64::from(issued.not_after) > limit);
        if shard.capacity() > 4 * shard.len().max(64) {
            shard.shrink_to_fit();
        }
    }

    fn shard(&self, serial: &Serial) -> MutexGuard<'_, HashMap<Serial, Issued>> {
        // Serials are random; the first byte is not uniform, the last is.
        let last = serial.as_bytes().last().copied().unwrap_or_default();
        let index = usize::from(last) % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "there are SHARDS shards, always")]
        lock(&self.certificates[index])
    }

    fn intern(&self, agent: &str) -> u32 {
        let mut agents = self.agents.write().unwrap_or_else(PoisonError::into_inner);
        agents.intern(agent)
    }

    fn change_agent(&self, agent: &str, change: impl FnOnce(&mut Agent)) {
        let mut agents = self.agents.write().unwrap_or_else(PoisonError::into_inner);
        let place = agents.intern(agent);
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if let Some(agent) = agents.list.get_mut(place) {
            change(agent);
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Issued {
    /// Of the status record that announced it; [`REVOKED`] when it was revoked by itself.
    number: u64,
    fingerprint: [u8; 16],
    /// Unix seconds.
    not_after: u32,
    agent: u32,
}

/// No status record has this number: they begin at 1.
const REVOKED: u64 = 0;

#[derive(Debug, Default)]
struct Agents {
    places: HashMap<Arc<str>, u32>,
    list: Vec<Agent>,
}

impl Agents {
    fn intern(&mut self, uri: &str) -> u32 {
        if let Some(place) = self.places.get(uri) {
            return *place;
        }
        // Beyond 2^32 agents every further one shares a place that is in no list: denied.
        let place = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        let uri: Arc<str> = Arc::from(uri);
        self.places.insert(Arc::clone(&uri), place);
        self.list.push(Agent {
            uri,
            revoked_before: 0,
            restriction: None,
        });
        place
    }
}

#[derive(Debug)]
struct Agent {
    uri: Arc<str>,
    /// Certificates announced by earlier status records are revoked.
    revoked_before: u64,
    restriction: Option<Arc<Restriction>>,
}

/// Unix seconds; what ends before 1970 or after 2106 is remembered for ever.
fn whole_seconds(time: Timestamp) -> u32 {
    u32::try_from(time.secs()).unwrap_or(u32::MAX)
}

/// Half of a SHA-256: finding another certificate with it takes 2^128 tries.
fn shorten(fingerprint: &[u8; 32]) -> [u8; 16] {
    let (half, _) = fingerprint.split_first_chunk().unwrap_or((&[0; 16], &[]));
    *half
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const SHARDS: usize = 64;
const REMEMBERED_AFTER_EXPIRY: Duration = Duration::from_secs(3_600);
