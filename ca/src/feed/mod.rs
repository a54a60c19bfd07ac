//! The status feed: pushed from the commit's completion, never through the index.
//!
//! Each environment has a [`channel`](Hub). The sequencer's listener queues a status record there when
//! it is staged; when the log says that it is durable, one task takes everything that a commit made
//! durable, signs one heartbeat over it, and hands both to every subscriber. Every second a heartbeat
//! goes out anyway, unless the log cannot grow: then nothing could be revoked, no heartbeat says that
//! nothing was, and enforcers deny when theirs have grown old. A subscriber whose queue is full is dropped: it comes back and catches up.

mod followers;
mod snapshot;
mod tail;

pub use followers::{Concern, Followers, Roll, Waited};
pub use snapshot::{Snapshots, serve as serve_snapshots};
pub use tail::{Source, Start, TailError, catch_up, hash_of};

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use agentca_auditlog::heartbeat::Heartbeat;
use agentca_auditlog::log::Log;
use agentca_auditlog::merkle::Hash;
use agentca_auditlog::note::{NoteError, NoteSigner};
use agentca_identity::name::Environment;
use agentca_identity::time::Timestamp;
use agentca_proto::Update;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::authority::sequencer::Applied;
use crate::authority::state::State;

/// Everybody who follows the feed.
pub struct Hub {
    log: Arc<Log>,
    signer: NoteSigner,
    channels: RwLock<HashMap<Environment, Arc<Channel>>>,
    /// True once the feed is closed.
    closed: watch::Sender<bool>,
    /// The newest heartbeat's time in milliseconds: it never goes back, even when the clock does.
    newest: AtomicI64,
}

/// One environment's feed.
struct Channel {
    environment: Environment,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Status records that are staged and were not sent, in order.
    staged: VecDeque<Pending>,
    /// Up to where everything is durable and was sent.
    sent: Position,
    subscribers: Vec<Subscriber>,
    next_subscriber: u64,
}

struct Pending {
    number: u64,
    index: u64,
    leaf: Hash,
    bytes: Bytes,
}

struct Subscriber {
    id: u64,
    queue: mpsc::Sender<Arc<Update>>,
}

/// Why nobody can subscribe.
#[derive(Debug, thiserror::Error)]
pub enum BeatError {
    /// While nothing can be revoked, nothing is said to be in force.
    #[error("the log cannot grow, so that no heartbeat is signed: free some space")]
    Blocked,
    /// The signature failed.
    #[error("a heartbeat cannot be signed: {0}")]
    Sign(#[from] NoteError),
}

/// A place in an environment's status chain: number and leaf hash; 0 and zeros before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The status number.
    pub number: u64,
    /// The leaf hash of that record.
    pub hash: Hash,
}

/// A place in the feed, from which on every update comes.
#[derive(Debug)]
pub struct Subscription {
    /// Every record up to here was sent before.
    pub from: Position,
    /// The heartbeat that covers it.
    pub heartbeat: String,
    /// What comes next.
    pub updates: mpsc::Receiver<Arc<Update>>,
    /// For [`Hub::unsubscribe`].
    pub id: u64,
}

impl Hub {
    /// A hub that goes on from `state`, all of which is durable.
    pub fn new(log: Arc<Log>, signer: NoteSigner, state: &State) -> Self {
        let channels = state.chains().iter().map(|(environment, chain)| {
            let sent = Position {
                number: chain.number,
                hash: chain.hash,
            };
            (
                environment.clone(),
                Arc::new(Channel::new(environment.clone(), sent)),
            )
        });
        let channels = RwLock::new(channels.collect());
        Self {
            log,
            signer,
            channels,
            closed: watch::channel(false).0,
            newest: AtomicI64::new(state.time().millis()),
        }
    }

    /// Queues a status record that was staged.
    pub fn staged(&self, applied: &Applied) {
        let Some(status) = &applied.status else {
            return;
        };
        let channel = self.channel(&status.environment);
        channel.lock().staged.push_back(Pending {
            number: status.number,
            index: applied.index,
            leaf: applied.leaf,
            bytes: status.bytes.clone(),
        });
    }

    /// Sends what becomes durable, and a heartbeat every second, for ever.
    pub async fn run(self: Arc<Self>, mut durable: watch::Receiver<u64>) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let beat = tokio::select! {
                changed = durable.changed() => match changed {
                    Ok(()) => Beat::WithRecords,
                    Err(_) => return,
                },
                _ = second.tick() => Beat::Always,
            };
            let size = *durable.borrow_and_update();
            let channels: Vec<Arc<Channel>> = self.all_channels();
            for channel in channels {
                if let Err(error) = self.flush(&channel, size, beat) {
                    tracing::error!(%error, "no heartbeat could be signed");
                }
            }
        }
    }

    /// Up to where everything of that environment is durable and was sent.
    pub fn sent(&self, environment: &Environment) -> Position {
        self.channel(environment).lock().sent
    }

    /// Subscribes at the newest position.
    ///
    /// # Errors
    /// [`BeatError`].
    pub fn subscribe(&self, environment: &Environment) -> Result<Subscription, BeatError> {
        if self.log.blocked() {
            return Err(BeatError::Blocked);
        }
        let channel = self.channel(environment);
        let mut inner = channel.lock();
        let heartbeat = self.heartbeat(environment, inner.sent)?;
        let (queue, updates) = mpsc::channel(SUBSCRIBER_QUEUE);
        let id = inner.next_subscriber;
        inner.next_subscriber += 1;
        inner.subscribers.push(Subscriber { id, queue });
        Ok(Subscription {
            from: inner.sent,
            heartbeat,
            updates,
            id,
        })
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, environment: &Environment, id: u64) {
        self.channel(environment)
            .lock()
            .subscribers
            .retain(|subscriber| subscriber.id != id);
    }

    /// Ends every connection that follows, and takes no more.
    pub fn close(&self) {
        self.closed.send_replace(true);
        self.all_channels()
            .iter()
            .for_each(|channel| channel.lock().subscribers.clear());
    }

    /// True once the feed is closed.
    pub fn closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// How many subscribers there are.
    pub fn subscribers(&self) -> usize {
        self.all_channels()
            .iter()
            .map(|channel| channel.lock().subscribers.len())
            .sum()
    }

    /// Sends what is durable. Where no heartbeat can be signed, whoever follows is let go and catches up
    /// when it comes back: a queue that went on would have a gap.
    fn flush(&self, channel: &Channel, durable: u64, beat: Beat) -> Result<(), NoteError> {
        let mut inner = channel.lock();
        let sent = self.send_durable(channel, &mut inner, durable, beat);
        if sent.is_err() {
            inner.subscribers.clear();
        }
        sent
    }

    fn send_durable(
        &self,
        channel: &Channel,
        inner: &mut Inner,
        durable: u64,
        beat: Beat,
    ) -> Result<(), NoteError> {
        let ready = inner
            .staged
            .iter()
            .take_while(|pending| pending.index < durable)
            .count();
        let mut records = Vec::with_capacity(ready);
        for Pending {
            number,
            leaf,
            bytes,
            ..
        } in inner.staged.drain(..ready).collect::<Vec<_>>()
        {
            inner.sent = Position { number, hash: leaf };
            records.push(bytes.to_vec());
        }
        // What is durable goes out in any case: it may be a revocation.
        let silent = beat == Beat::WithRecords || self.log.blocked();
        if inner.subscribers.is_empty() || (records.is_empty() && silent) {
            return Ok(());
        }
        let heartbeat = self.heartbeat(&channel.environment, inner.sent)?;
        let update = Arc::new(Update { records, heartbeat });
        inner.subscribers.retain(|subscriber| {
            let kept = subscriber.queue.try_send(Arc::clone(&update)).is_ok();
            if !kept {
                tracing::warn!(environment = %channel.environment, "a follower is too slow or gone");
            }
            kept
        });
        Ok(())
    }

    /// The signed statement that `position` is the newest of its environment.
    fn heartbeat(
        &self,
        environment: &Environment,
        position: Position,
    ) -> Result<String, NoteError> {
        let now = Timestamp::now().millis();
        let time = self.newest.fetch_max(now, Ordering::Relaxed).max(now);
        let signed = self.log.checkpoint();
        let heartbeat = Heartbeat {
            origin: signed.checkpoint.origin.clone(),
            time: Timestamp::from_millis(time),
            checkpoint_size: signed.checkpoint.size,
            checkpoint_root: signed.checkpoint.root,
            environment: environment.clone(),
            status_number: position.number,
            status_hash: position.hash,
        };
        heartbeat.sign(&self.signer)
    }

    fn channel(&self, environment: &Environment) -> Arc<Channel> {
        let found = {
            let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
            channels.get(environment).cloned()
        };
        found.unwrap_or_else(|| {
            let mut channels = self
                .channels
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let fresh = || Arc::new(Channel::new(environment.clone(), Position::default()));
            Arc::clone(channels.entry(environment.clone()).or_insert_with(fresh))
        })
    }

    fn all_channels(&self) -> Vec<Arc<Channel>> {
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        channels.values().cloned().collect()
    }
}

impl Channel {
    fn new(environment: Environment, sent: Position) -> Self {
        let inner = Inner {
            staged: VecDeque::new(),
            sent,
            subscribers: Vec::new(),
            next_subscriber: 0,
        };
        Self {
            environment,
            inner: Mutex::new(inner),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

/// When a heartbeat is due.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beat {
    WithRecords,
    Always,
}

/// Updates that may wait for one subscriber: four minutes of heartbeats.
const SUBSCRIBER_QUEUE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::change::AnnounceSigner;
    use crate::authority::sequencer::Sequencer;
    use crate::testing::Made;
    use agentca_auditlog::note::SignatureType;

    fn hub(made: &Made) -> Hub {
        let key = made.keys.log.key.clone();
        let signer = NoteSigner::new(made.log.origin(), SignatureType::Ed25519, key).unwrap();
        Hub::new(Arc::clone(&made.log), signer, &made.state)
    }

    /// Stages a record, whatever it says.
    fn stage(sequencer: &Sequencer) -> u64 {
        let chain = vec![vec![1; 40], vec![2; 40]];
        let staged = sequencer.submit(AnnounceSigner { chain }).unwrap();
        staged.last().unwrap()
    }

    #[test]
    fn while_the_log_cannot_grow_no_heartbeat_is_signed() {
        let made = Made::new(drop);
        let (hub, sequencer) = (hub(&made), made.sequencer(Vec::new()));
        let prod: Environment = "prod".parse().unwrap();
        let channel = hub.channel(&prod);
        let mut follower = hub.subscribe(&prod).unwrap();
        hub.flush(&channel, 0, Beat::Always).unwrap();
        assert!(follower.updates.try_recv().is_ok());
        made.disk.fill(true);
        let index = stage(&sequencer);
        made.log.wait_blocking(index).unwrap_err();
        assert!(made.log.blocked());
        hub.flush(&channel, 0, Beat::Always).unwrap();
        assert!(follower.updates.try_recv().is_err());
        // Nor for somebody who comes anew.
        assert!(matches!(hub.subscribe(&prod), Err(BeatError::Blocked)));
        // What had become durable before goes out: it may be a revocation.
        channel.lock().staged.push_back(Pending {
            number: 1,
            index: 0,
            leaf: [7; 32],
            bytes: Bytes::from_static(b"{}"),
        });
        hub.flush(&channel, 1, Beat::WithRecords).unwrap();
        assert_eq!(follower.updates.try_recv().unwrap().records.len(), 1);
        made.disk.fill(false);
        while made.log.blocked() {
            std::thread::yield_now();
        }
        hub.flush(&channel, 1, Beat::Always).unwrap();
        assert!(follower.updates.try_recv().is_ok());
        hub.subscribe(&prod).unwrap();
    }
}
