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

use super::snapshot::{self, Found};
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
    let (mut position, covered) = match start {
        Start::Behind(number) => (number, Covered::Any),
        Start::Anew => match find_snapshot(source, environment).await? {
            Some(found) => {
                let covers = found.covers;
                send_snapshot(found, out).await?;
                (covers, Covered::WithRecords)
            }
            None => (0, Covered::Any),
        },
    };
    // What an enforcer takes after a snapshot must come with a heartbeat, all in one.
    let mut records = Vec::new();
    loop {
        let newest = source.hub.sent(environment).number;
        if newest.saturating_sub(position) <= CLOSE {
            break;
        }
        let upto = newest.min(position.saturating_add(CLOSE));
        records.append(&mut read(source, environment, position, upto).await?);
        position = upto;
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
    let (folder, environment) = (Arc::clone(&source.snapshots), environment.clone());
    let found = tokio::task::spawn_blocking(move || snapshot::find(&folder, &environment, &mark));
    found.await.map_err(|_| TailError::Task)
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
/// Bytes of a snapshot in one message.
const SNAPSHOT_CHUNK: usize = 1 << 20;
/// Records that are read over rather than sought past.
const SKIP: u64 = 64;
