//! A line of CAs below the root: the one that `init` made, and those that came after.
//!
//! A CA lives for a year. At two thirds of it the next of its line is prepared, with a key of its own,
//! and at three quarters the line certifies from that one; the old goes on signing its CRLs until it
//! ends. CRL shards belong to one CA: each generation has numbers of its own, so that a list is always
//! signed by the issuer of the certificates it is for (RFC 5280 section 5).

use std::sync::{Arc, PoisonError, RwLock};

use agentca_identity::certificate::Certificate;
use agentca_identity::profile::Issuer;
use agentca_identity::time::Timestamp;

/// Which CA of its line; the first is 1.
pub type Number = u16;

/// Shard numbers of one generation: as many as `crl_shards` may be.
pub const SHARDS_EACH: u16 = 1024;
/// Generations whose shards have a number.
pub const MOST: Number = u16::MAX / SHARDS_EACH;

/// One CA of a line.
#[derive(Debug)]
pub struct Generation {
    /// Its place.
    pub number: Number,
    /// Certificate and key.
    pub issuer: Issuer,
}

impl Generation {
    /// The CA's certificate.
    pub fn certificate(&self) -> &Certificate {
        self.issuer.certificate()
    }

    /// The shard of that place among the generation's own.
    pub fn shard(&self, place: u16) -> u16 {
        let before = self.number.saturating_sub(1);
        before.saturating_mul(SHARDS_EACH).saturating_add(place)
    }

    /// Whether the shard is one of the generation's own.
    pub fn owns(&self, shard: u16) -> bool {
        shard / SHARDS_EACH == self.number.saturating_sub(1)
    }

    /// Whether its successor should be there at `now`.
    pub fn is_near(&self, now: Timestamp) -> bool {
        self.has_lived(now, PREPARE)
    }

    /// Whether its successor should certify at `now`.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.has_lived(now, USE)
    }

    /// Whether nothing of it counts any more at `now`.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.certificate().not_after() < now
    }

    /// Whether this share of its life is over at `now`.
    fn has_lived(&self, now: Timestamp, (part, whole): (u32, u32)) -> bool {
        let certificate = self.certificate();
        let begin = certificate.not_before();
        let life = certificate.not_after().saturating_since(begin);
        now.saturating_since(begin) >= life / whole * part
    }
}

/// The CAs of one kind, oldest first.
#[derive(Debug)]
pub struct Line(RwLock<Inner>);

#[derive(Debug)]
struct Inner {
    /// Never empty.
    all: Vec<Arc<Generation>>,
    current: Arc<Generation>,
}

impl Line {
    /// Begins with `first`; `later` follow it. It certifies from the first until it is told otherwise.
    pub fn new(first: Generation, later: impl IntoIterator<Item = Generation>) -> Self {
        let current = Arc::new(first);
        let mut all = vec![Arc::clone(&current)];
        all.extend(later.into_iter().map(Arc::new));
        Self(RwLock::new(Inner { all, current }))
    }

    /// The one that certifies now.
    pub fn current(&self) -> Arc<Generation> {
        self.read(|inner| Arc::clone(&inner.current))
    }

    /// The one that was prepared last.
    pub fn newest(&self) -> Arc<Generation> {
        self.read(|inner| Arc::clone(inner.all.last().unwrap_or(&inner.current)))
    }

    /// Those that have not ended at `now`, and the one that certifies in any case; oldest first.
    pub fn standing(&self, now: Timestamp) -> Vec<Arc<Generation>> {
        self.read(|inner| {
            let stands =
                |it: &&Arc<Generation>| !it.has_ended(now) || it.number == inner.current.number;
            inner.all.iter().filter(stands).cloned().collect()
        })
    }

    /// Adds one that was prepared.
    pub fn add(&self, generation: Generation) {
        self.write(|inner| inner.all.push(Arc::new(generation)));
    }

    /// Certifies from `generation` on.
    pub fn use_from_now_on(&self, generation: Arc<Generation>) {
        self.write(|inner| inner.current = generation);
    }

    fn read<T>(&self, read: impl FnOnce(&Inner) -> T) -> T {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, write: impl FnOnce(&mut Inner)) {
        write(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// When the next is prepared, as a share of the present one's life.
const PREPARE: (u32, u32) = (2, 3);
/// When the next certifies: those that know a list's address by configuration have a month to learn it.
const USE: (u32, u32) = (3, 4);
