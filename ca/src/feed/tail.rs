//! Catching up: the snapshot when there is nothing yet, then the tail of status records from the log.

use std::path::Path;
use std::sync::Arc;

use agentca_auditlog::log::{Log, ReadError};
use agentca_auditlog::merkle::leaf_hash;
use agentca_identity::name::Environment;
use agentca_proto::follow_response::Message;
use agentca_proto::{FollowResponse, SnapshotChunk, Update};
use tokio::sync::mpsc;
use tonic::Status;

use super::snapshot::{self, EVERY, Found, Snapshots};
use super::{BeatError, Hub, Position, Subscription};
use crate::authority::refusal::Refusal;
use crate::authority::sequencer::Sequencer;

/// Where an enforcer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With nothing: a snapshot if there is one, then everything.
    Anew,
    /// Behind this status number, which is on our chain.
    Behind(u64),
}

/// Why an enforcer cannot be caught up.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The log cannot be read.
    #[error("the log cannot be read: {0}")]
    Log(#[from] ReadError),
    /// A status record is not where it was.
    #[error("status record {0} is missing")]
    Missing(u64),
    /// The state cannot be asked.
    #[error(transparent)]
    State(#[from] Refusal),
    /// There is no heartbeat.
    #[error(transparent)]
    Heartbeat(#[from] BeatError),
    /// There is too much to send without a newer snapshot.
    #[error("a newer snapshot is being made, come back in a moment")]
    Behind,
    /// The enforcer went away.
    #[error("the enforcer went away")]
    Gone,
    /// A task of ours failed.
    #[error("a task failed")]
    Task,
}

/// What the catching up needs.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where the status numbers are.
    pub sequencer: Arc<Sequencer>,
    /// The live feed.
    pub hub: Arc<Hub>,
    /// `snapshots/`.
    pub snapshots: Arc<Path>,
    /// Where a newer one is asked for.
    pub wishes: Snapshots,
}

type Out = mpsc::Sender<Result<FollowResponse, Status>>;

/// Sends everything up to the newest record, the last of it with a heartbeat. What follows comes from
/// the subscription, which is given to `subscribed` before its heartbeat is sent.
pub async fn catch_up(
    source: &Source,
    environment: &Environment,
    start: Start,
    out: &Out,
    subscribed: impl FnOnce(Subscription),
) -> Result<(), TailError> {
    let (mut position, covered) = match begin(source, environment, start).await? {
        Begin::With(found) => {
            let covers = found.covers;
            send_snapshot(found, out).await?;
            (covers, Covered::WithRecords)
        }
        Begin::Behind(number) => (number, Covered::Any),
    };
    // What an enforcer takes after a snapshot must come with a heartbeat, all in one: so it is bounded.
    let mut records = Vec::new();
    loop {
        let newest = source.hub.sent(environment).number;
        if newest.saturating_sub(position) <= CLOSE {
            break;
        }
        let upto = newest.min(position.saturating_add(CLOSE));
        records.append(&mut read(source, environment, position, upto).await?);
        position = upto;
        bound(source, environment, &records)?;
        if covered == Covered::Any {
            let update = Update {
                records: std::mem::take(&mut records),
                heartbeat: String::new(),
            };
            send(out, Message::Update(update)).await?;
        }
    }
    let subscription = source.hub.subscribe(environment)?;
    let Position { number, .. } = subscription.from;
    let heartbeat = subscription.heartbeat.clone();
    subscribed(subscription);
    records.append(&mut read(source, environment, position, number).await?);
    bound(source, environment, &records)?;
    send(out, Message::Update(Update { records, heartbeat })).await
}

/// The leaf hash of a status record, if there is one of that number.
pub async fn hash_of(
    source: &Source,
    environment: &Environment,
    number: u64,
) -> Result<Option<[u8; 32]>, TailError> {
    let Some(before) = number.checked_sub(1) else {
        return Ok(Some([0; 32]));
    };
    let mut record = read(source, environment, before, number).await?;
    Ok(record.pop().map(|bytes| leaf_hash(&bytes)))
}

/// Whether records may be sent without a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Covered {
    Any,
    WithRecords,
}

/// What an enforcer begins with.
enum Begin {
    With(Found),
    Behind(u64),
}

/// A snapshot for whoever has nothing, and for whoever is so far behind that it is shorter than all that
/// came since; what an enforcer must take before a heartbeat covers it is bounded there, too.
async fn begin(
    source: &Source,
    environment: &Environment,
    start: Start,
) -> Result<Begin, TailError> {
    let from = match start {
        Start::Anew => 0,
        Start::Behind(number) => number,
    };
    let missed = source.hub.sent(environment).number.saturating_sub(from);
    if start != Start::Anew && missed <= EVERY {
        return Ok(Begin::Behind(from));
    }
    match find_snapshot(source, environment).await? {
        Some(found) if found.covers > from => Ok(Begin::With(found)),
        _ if missed > MOST_UNCOVERED => {
            source.wishes.want(environment);
            Err(TailError::Behind)
        }
        _ => Ok(Begin::Behind(from)),
    }
}

/// One message must hold them.
fn bound(source: &Source, environment: &Environment, records: &[Vec<u8>]) -> Result<(), TailError> {
    let bytes: usize = records.iter().map(Vec::len).sum();
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    source.wishes.want(environment);
    Err(TailError::Behind)
}

async fn find_snapshot(
    source: &Source,
    environment: &Environment,
) -> Result<Option<Found>, TailError> {
    let mark = source.sequencer.read(|state, _| {
        let chain = state.chain(environment)?;
        chain.snapshot.map(|mark| (mark, chain.number))
    })?;
    let Some((mark, newest)) = mark else {
        return Ok(None);
    };
    // Its record may still be on its way to the disk; then it does not help anybody yet.
    if newest <= mark.covers || source.hub.sent(environment).number <= mark.covers {
        return Ok(None);
    }
    let (folder, of) = (Arc::clone(&source.snapshots), environment.clone());
    let found = tokio::task::spawn_blocking(move || snapshot::find(&folder, &of, &mark));
    let found = found.await.map_err(|_| TailError::Task)?;
    if found.is_none() {
        source.wishes.want(environment);
    }
    Ok(found)
}

async fn send_snapshot(found: Found, out: &Out) -> Result<(), TailError> {
    let total = u64::try_from(found.bytes.len()).unwrap_or(u64::MAX);
    for data in found.bytes.chunks(SNAPSHOT_CHUNK) {
        let chunk = SnapshotChunk {
            data: data.to_vec(),
            total,
        };
        send(out, Message::Snapshot(chunk)).await?;
    }
    Ok(())
}

/// The status records behind `from` up to and including `upto`, from the log.
async fn read(
    source: &Source,
    environment: &Environment,
    from: u64,
    upto: u64,
) -> Result<Vec<Vec<u8>>, TailError> {
    if upto <= from {
        return Ok(Vec::new());
    }
    let indexes = source.sequencer.read(|state, _| {
        let records = &state.chain(environment)?.records;
        let range = usize::try_from(from).ok()?..usize::try_from(upto).ok()?;
        records.get(range).map(<[u64]>::to_vec)
    })?;
    let indexes = indexes.ok_or(TailError::Missing(upto))?;
    let log = Arc::clone(source.sequencer.log());
    let reading = tokio::task::spawn_blocking(move || read_all(&log, &indexes));
    reading.await.map_err(|_| TailError::Task)?
}

/// Neighbours are read in one scan, since one frame often holds many.
fn read_all(log: &Log, indexes: &[u64]) -> Result<Vec<Vec<u8>>, TailError> {
    let mut records = Vec::with_capacity(indexes.len());
    let mut scan = None;
    let mut next = 0;
    for index in indexes {
        if scan.is_none() || *index < next || index - next > SKIP {
            scan = Some(log.scan(*index));
            next = *index;
        }
        let found = scan.as_mut().and_then(|scan| {
            let skip = usize::try_from(index - next).ok()?;
            scan.nth(skip)
        });
        let (_, bytes) = found.ok_or(TailError::Missing(*index))??;
        records.push(bytes);
        next = index + 1;
    }
    Ok(records)
}

async fn send(out: &Out, message: Message) -> Result<(), TailError> {
    let response = FollowResponse {
        message: Some(message),
    };
    out.send(Ok(response)).await.map_err(|_| TailError::Gone)
}

/// Records in one message while catching up, and how near is near enough to subscribe.
const CLOSE: u64 = 1_000;
/// Status records that an enforcer takes before a heartbeat covers them.
const MOST_UNCOVERED: u64 = 1_000_000;
/// Bytes of records in one message; an enforcer takes 64 MiB.
const MOST_BYTES: usize = 48 << 20;
/// Bytes of a snapshot in one message.
const SNAPSHOT_CHUNK: usize = 1 << 20;
/// Records that are read over rather than sought past.
const SKIP: u64 = 64;

#[cfg(test)]
mod tests {
    use agentca_auditlog::note::{NoteSigner, SignatureType};
    use agentca_identity::scope::ScopeSet;
    use agentca_identity::trust::TrustLevel;

    use super::super::Beat;
    use super::*;
    use crate::authority::change::{PlanIssue, Restrict};
    use crate::authority::handle::Handle;
    use crate::authority::sequencer::Listener;
    use crate::testing::Made;

    struct Lab {
        source: Source,
        wishes: mpsc::UnboundedReceiver<Environment>,
        agent: Handle,
        /// The log has to end before its folder.
        made: Made,
    }

    impl Lab {
        fn new() -> Self {
            let made = Made::new(drop);
            let key = made.keys.log.key.clone();
            let signer = NoteSigner::new(made.log.origin(), SignatureType::Ed25519, key).unwrap();
            let hub = Arc::new(Hub::new(Arc::clone(&made.log), signer, &made.state));
            let theirs = Arc::clone(&hub);
            let listener: Listener = Box::new(move |applied| theirs.staged(applied));
            let sequencer = Arc::new(made.sequencer(vec![listener]));
            let (snapshots, wishes) = Snapshots::new();
            let agent = Handle {
                environment: "prod".parse().unwrap(),
                name: "a".parse().unwrap(),
            };
            let plan = PlanIssue {
                caller: made.admin.clone(),
                agent: agent.clone(),
                owner: Some("alice@example.org".parse().unwrap()),
                scopes: Some(ScopeSet::new(["payments:read".parse().unwrap()]).unwrap()),
                trust: Some(TrustLevel::L2),
                lifetime: None,
                groups: Vec::new(),
                key: [7; 32],
                default_lifetime: std::time::Duration::from_secs(3600),
                issuers: vec![vec![1]],
            };
            sequencer.submit(plan).unwrap();
            let folder: Arc<Path> = made.data().join("snapshots").into();
            Self {
                source: Source {
                    sequencer,
                    hub,
                    snapshots: folder,
                    wishes: snapshots,
                },
                made,
                wishes,
                agent,
            }
        }

        /// Status records without effect; all of them durable and sent.
        fn write(&self, many: u64) {
            let mut last = 0;
            for _ in 0..many {
                // Otherwise too much would wait for the disk.
                if last % 1_000 == 0 {
                    self.made.log.wait_blocking(last).unwrap();
                }
                let written = self.source.sequencer.submit(Restrict {
                    caller: self.made.admin.clone(),
                    agent: self.agent.clone(),
                    trust: Some(TrustLevel::L1),
                    scopes: None,
                });
                last = written.unwrap().last().unwrap();
            }
            self.made.log.wait_blocking(last).unwrap();
            let channel = self.source.hub.channel(&self.agent.environment);
            let durable = self.made.log.durable();
            self.source
                .hub
                .flush(&channel, durable, Beat::WithRecords)
                .unwrap();
        }

        fn snapshot(&self) {
            let Source {
                sequencer,
                snapshots,
                ..
            } = &self.source;
            snapshot::make(sequencer, snapshots, &self.agent.environment)
                .unwrap()
                .unwrap();
        }

        async fn first(&self, start: Start) -> Option<Message> {
            let (out, mut messages) = mpsc::channel(1);
            let (source, environment) = (self.source.clone(), self.agent.environment.clone());
            let task = tokio::spawn(async move {
                let _gone = catch_up(&source, &environment, start, &out, drop).await;
            });
            let first = messages.recv().await;
            drop(messages);
            task.await.unwrap();
            first?.unwrap().message
        }
    }

    #[tokio::test]
    async fn who_is_far_behind_begins_with_the_snapshot() {
        let lab = Lab::new();
        lab.write(EVERY);
        lab.snapshot();
        lab.write(10);
        let far = lab.first(Start::Behind(1)).await;
        assert!(matches!(far, Some(Message::Snapshot(_))), "{far:?}");
        let near = lab.first(Start::Behind(100)).await;
        assert!(matches!(near, Some(Message::Update(_))));
        let anew = lab.first(Start::Anew).await;
        assert!(matches!(anew, Some(Message::Snapshot(_))));
    }

    #[tokio::test]
    async fn what_no_message_holds_waits_for_a_newer_snapshot() {
        let mut lab = Lab::new();
        let prod = lab.agent.environment.clone();
        bound(&lab.source, &prod, &[vec![0; MOST_BYTES]]).unwrap();
        assert!(lab.wishes.try_recv().is_err());
        let much = [vec![0; MOST_BYTES], vec![0]];
        let refused = bound(&lab.source, &prod, &much).unwrap_err();
        assert!(matches!(refused, TailError::Behind), "{refused}");
        assert_eq!(lab.wishes.try_recv().unwrap(), prod);
    }

    #[tokio::test]
    async fn a_snapshot_that_is_lost_is_made_again() {
        let mut lab = Lab::new();
        lab.write(2);
        lab.snapshot();
        lab.write(1);
        std::fs::remove_dir_all(&lab.source.snapshots).unwrap();
        let anew = lab.first(Start::Anew).await;
        assert!(matches!(anew, Some(Message::Update(_))), "{anew:?}");
        assert_eq!(lab.wishes.try_recv().unwrap(), lab.agent.environment);
        lab.snapshot();
    }

    #[test]
    fn a_snapshot_is_made_while_others_keep_coming_first() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let lab = Lab::new();
        let (stop, prod) = (AtomicBool::new(false), &lab.agent.environment);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    lab.write(1);
                }
            });
            for _ in 0..10 {
                lab.write(1);
                let (sequencer, folder) = (&lab.source.sequencer, &lab.source.snapshots);
                if let Some(mark) = snapshot::make(sequencer, folder, prod).unwrap() {
                    let found = snapshot::find(folder, prod, &mark).unwrap();
                    assert_eq!(found.covers, mark.covers);
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
