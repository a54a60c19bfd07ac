//! The CRL publisher: one full CRL per shard, for where no feed can reach.
//!
//! It keeps its own copy of what is revoked, so that building one never holds the sequencer. A list
//! is announced in a record, whose index becomes the crlNumber; built and signed on another thread;
//! and published only when that record is durable. It is signed by the CA whose certificates name its
//! shard. A shard is published before its first revocation, again within half a second of a change,
//! and at half of its lifetime in any case.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use agentca_identity::profile::crl::{CrlTemplate, sign_crl};
use agentca_identity::serial::Serial;
use agentca_identity::time::Timestamp;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::authority::change::AnnounceCrl;
use crate::authority::refusal::Refusal;
use crate::authority::sequencer::Sequencer;
use crate::authority::state::{EndedCertificate, REMEMBERED};
use crate::mint::Mint;

/// The CRLs that are published, by shard.
#[derive(Debug, Default)]
pub struct Shelf {
    now: RwLock<HashMap<u16, Published>>,
    /// The last lists of CAs that have ended: they say nothing new, and whoever still asks gets them.
    past: RwLock<HashMap<u16, Published>>,
}

/// A published CRL.
#[derive(Clone, Debug)]
pub struct Published {
    /// DER.
    pub der: Bytes,
    /// Its crlNumber.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// When it is no longer fresh.
    pub next_update: Timestamp,
    /// How many certificates it revokes.
    pub entries: u64,
}

impl Shelf {
    /// The CRL of a shard, if need be the last of a CA that has ended.
    pub fn find(&self, shard: u16) -> Option<Published> {
        [&self.now, &self.past].into_iter().find_map(|shelf| {
            let shelf = shelf.read().unwrap_or_else(PoisonError::into_inner);
            shelf.get(&shard).cloned()
        })
    }

    /// Every CRL of a CA that has not ended.
    pub fn all(&self) -> BTreeMap<u16, Published> {
        let shelf = self.now.read().unwrap_or_else(PoisonError::into_inner);
        shelf
            .iter()
            .map(|(shard, published)| (*shard, published.clone()))
            .collect()
    }

    fn retire(&self, shard: u16) {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = now.remove(&shard) {
            self.past
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(shard, last);
        }
    }

    pub(crate) fn put(&self, shard: u16, published: Published) {
        self.now
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(shard, published);
    }
}

/// Builds and publishes.
pub struct Publisher {
    /// Where announcements go.
    pub sequencer: Arc<Sequencer>,
    /// Signs.
    pub mint: Arc<Mint>,
    /// Where lists are put.
    pub shelf: Arc<Shelf>,
    /// Certificates that ended, in the order of their records.
    pub ended: mpsc::UnboundedReceiver<EndedCertificate>,
}

/// Why a list could not be published.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Sign(String),
}

type Revoked = HashMap<Serial, EndedCertificate>;

impl Publisher {
    /// Publishes for ever. `in_use` are shards that certificates name, whether they would be chosen
    /// now or not. `first` is told when every shard is there.
    pub async fn run(
        mut self,
        revoked: Vec<EndedCertificate>,
        in_use: BTreeSet<u16>,
        first: oneshot::Sender<()>,
    ) {
        let mut shards = self.begin(revoked, in_use);
        let mut dirty: BTreeSet<u16> = shards.keys().copied().collect();
        let mut first = Some(first);
        let mut tidied = Instant::now();
        loop {
            dirty = self
                .publish_all(&mut shards, std::mem::take(&mut dirty))
                .await;
            if dirty.is_empty()
                && let Some(first) = first.take()
            {
                // Whoever waited for it may have given up.
                let _gone = first.send(());
            }
            let due = if dirty.is_empty() {
                self.due()
            } else {
                Instant::now() + RETRY
            };
            tokio::select! {
                ended = self.ended.recv() => match ended {
                    None => return,
                    Some(ended) => dirty.extend(self.gather(ended, &mut shards).await),
                },
                () = tokio::time::sleep_until(due) => {}
            }
            self.follow_issuers(&mut shards);
            // However many revocations come, no other shard may grow old.
            dirty.extend(self.half_gone(&shards));
            if tidied.elapsed() >= TIDY {
                shards.values_mut().for_each(forget_expired);
                tidied = Instant::now();
            }
        }
    }

    /// What is revoked in each shard of a CA that has not ended.
    fn begin(
        &self,
        revoked: Vec<EndedCertificate>,
        in_use: BTreeSet<u16>,
    ) -> BTreeMap<u16, Arc<Revoked>> {
        let shards = in_use.into_iter().map(|shard| (shard, Arc::default()));
        let mut shards = shards.collect();
        revoked
            .into_iter()
            .for_each(|ended| add(&mut shards, ended));
        self.follow_issuers(&mut shards);
        shards
    }

    /// A new issuing CA brings shards, and one that ended takes its own along: nothing that it signed
    /// counts any more.
    fn follow_issuers(&self, shards: &mut BTreeMap<u16, Arc<Revoked>>) {
        let standing = self.mint.issuing.standing(Timestamp::now());
        for issuer in &standing {
            for shard in self.mint.shards_of(issuer) {
                shards.entry(shard).or_default();
            }
        }
        shards.retain(|shard, _| {
            let stands = standing.iter().any(|issuer| issuer.owns(*shard));
            if !stands {
                self.shelf.retire(*shard);
            }
            stands
        });
    }

    /// Takes this one and those that follow at once; the shards they are in.
    async fn gather(
        &mut self,
        ended: EndedCertificate,
        shards: &mut BTreeMap<u16, Arc<Revoked>>,
    ) -> BTreeSet<u16> {
        tokio::time::sleep(GATHER).await;
        let mut dirty = BTreeSet::from_iter(ended.shard);
        add(shards, ended);
        while let Ok(more) = self.ended.try_recv() {
            dirty.extend(more.shard);
            add(shards, more);
        }
        dirty
    }

    /// Publishes these shards; those that failed.
    async fn publish_all(
        &self,
        shards: &mut BTreeMap<u16, Arc<Revoked>>,
        which: BTreeSet<u16>,
    ) -> BTreeSet<u16> {
        let mut failed = BTreeSet::new();
        for shard in which {
            let Some(revoked) = shards.get_mut(&shard) else {
                continue;
            };
            if let Err(error) = self.publish(shard, Arc::clone(revoked)).await {
                tracing::warn!(shard, %error, "the CRL is not published yet");
                failed.insert(shard);
            }
        }
        failed
    }

    async fn publish(&self, shard: u16, revoked: Arc<Revoked>) -> Result<(), PublishError> {
        let shard_uri = self
            .mint
            .shard_uri(shard)
            .map_err(|e| PublishError::Sign(e.to_string()))?;
        let this_update = Timestamp::now();
        let issuer = self.mint.issuer_of(shard, this_update);
        let issuer = issuer.ok_or_else(|| PublishError::Sign("its CA has ended".into()))?;
        let next_update = this_update + self.mint.lifetimes.crl;
        let entries = u64::try_from(revoked.len()).unwrap_or(u64::MAX);
        let uri = shard_uri.to_string();
        let announced = self.sequencer.submit(AnnounceCrl {
            shard,
            uri,
            entries,
            this_update,
            next_update,
        })?;
        let number = announced
            .last()
            .ok_or_else(|| PublishError::Sign("it was not announced".into()))?;
        let signing = aside(move || {
            let revoked = revoked.values();
            let revoked = revoked.map(|ended| (ended.serial, ended.at, ended.reason));
            let template = CrlTemplate {
                number,
                this_update,
                next_update,
                shard_uri,
                revoked,
            };
            sign_crl(&issuer.issuer, template)
        });
        let der = signing
            .map_err(|e| PublishError::Sign(e.to_string()))?
            .await
            .map_err(|e| PublishError::Sign(e.to_string()))?
            .map_err(|e| PublishError::Sign(e.to_string()))?;
        self.sequencer.durable(number).await?;
        let der = Bytes::from(der);
        self.shelf.put(
            shard,
            Published {
                der,
                number,
                this_update,
                next_update,
                entries,
            },
        );
        Ok(())
    }

    /// When the first list has lived half of its life.
    fn due(&self) -> Instant {
        let half = self.mint.lifetimes.crl / 2;
        let now = Timestamp::now();
        let oldest = self
            .shelf
            .all()
            .values()
            .map(|published| published.this_update)
            .min();
        let age = oldest.map_or(half, |made| now.saturating_since(made));
        // The clock may jump while nothing happens: look again now and then.
        Instant::now() + half.saturating_sub(age).clamp(RETRY, LOOK)
    }

    fn half_gone(&self, shards: &BTreeMap<u16, Arc<Revoked>>) -> BTreeSet<u16> {
        let half = self.mint.lifetimes.crl / 2;
        let now = Timestamp::now();
        let fresh = |shard: &u16| {
            let published = self.shelf.find(*shard);
            published.is_some_and(|it| {
                now.saturating_since(it.this_update) < half && it.this_update <= now
            })
        };
        shards
            .keys()
            .copied()
            .filter(|shard| !fresh(shard))
            .collect()
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

/// Does long work on a thread of its own, behind everything that somebody waits for: a list of a million
/// entries must not hold up the next revocation.
fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<oneshot::Receiver<T>> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name("crl".into())
        .spawn(move || {
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::debug!(%error, "lists are made at the usual priority");
            }
            // Whoever waited is gone when the program ends.
            let _ending = done.send(work());
        })?;
    Ok(result)
}

/// What expired a day ago needs no entry any more (RFC 5280 section 3.3 asks for one list longer).
fn forget_expired(revoked: &mut Arc<Revoked>) {
    let horizon = Timestamp::now() - REMEMBERED;
    if revoked.values().any(|ended| ended.not_after < horizon) {
        Arc::make_mut(revoked).retain(|_, ended| ended.not_after >= horizon);
    }
}

/// A certificate without a shard is in no CRL.
fn add(shards: &mut BTreeMap<u16, Arc<Revoked>>, ended: EndedCertificate) {
    if let Some(shard) = ended.shard {
        Arc::make_mut(shards.entry(shard).or_default()).insert(ended.serial, ended);
    }
}

/// How far the threads that make lists stand back: half-way to the lowest priority.
const NICE: i32 = 10;
/// How long revocations are gathered before a list is built.
const GATHER: Duration = Duration::from_millis(50);
/// The longest time between two looks at the clock.
const LOOK: Duration = Duration::from_secs(10);
/// How often expired certificates are forgotten.
const TIDY: Duration = Duration::from_secs(60);
/// After how long a failed list is tried again.
const RETRY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use agentca_identity::profile::RevocationReason;

    use super::*;
    use crate::testing::Made;

    #[test]
    fn an_ended_ca_brings_no_shard_back_and_its_last_list_stays() {
        let made = Made::new(drop);
        let shelf = Arc::<Shelf>::default();
        let publisher = Publisher {
            sequencer: Arc::new(made.sequencer(Vec::new())),
            mint: Arc::new(made.mint(1)),
            shelf: Arc::clone(&shelf),
            ended: mpsc::unbounded_channel().1,
        };
        let now = Timestamp::now();
        let ended = |shard| EndedCertificate {
            serial: Serial::generate(),
            at: now,
            reason: RevocationReason::KeyCompromise,
            not_after: now,
            shard: Some(shard),
        };
        // No CA that stands has shard 1024.
        let revoked = vec![ended(0), ended(1024)];
        let mut shards = publisher.begin(revoked, BTreeSet::from([1024]));
        assert_eq!(shards.keys().copied().collect::<Vec<_>>(), [0]);
        let last = Published {
            der: Bytes::from_static(b"last"),
            number: 7,
            this_update: now,
            next_update: now,
            entries: 1,
        };
        shelf.put(1024, last);
        shards.insert(1024, Arc::default());
        publisher.follow_issuers(&mut shards);
        assert!(!shards.contains_key(&1024));
        assert_eq!(shelf.find(1024).unwrap().number, 7);
        assert!(!shelf.all().contains_key(&1024));
    }
}
