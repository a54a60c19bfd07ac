//! The thread that makes records durable: swap the batch, write it, sync it, say so, again.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::staging::{Batch, Phase};
use crate::store::{FileId, Store, StoreError};

/// Where the next frame goes.
#[derive(Debug)]
pub(super) struct Tail {
    segment: u64,
    /// Where it begins: the end of the whole frames.
    length: u64,
    /// The file's length. What lies between is zeros: a sync of bytes that were there before need not
    /// wait for the file system's own journal.
    room: u64,
}

impl Tail {
    /// Of a segment that ends with its last whole frame.
    pub(super) fn new(segment: u64, length: u64) -> Self {
        Self {
            segment,
            length,
            room: length,
        }
    }

    /// Lets the file end with its last whole frame.
    pub(super) fn cut(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        if store.len(self.file())? > self.length {
            store.truncate(self.file(), self.length)?;
        }
        self.room = self.length;
        Ok(())
    }

    fn file(&self) -> FileId {
        FileId::Segment(self.segment)
    }
}

/// Runs until the log is closed or fails.
pub(super) fn run(shared: &Shared, mut tail: Tail) {
    // Whoever stages comes first: where this thread has to share a core, each sync then serves all that
    // was ready instead of a handful. Where cores are free it makes no difference.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "batches are written at the usual priority");
    }
    let mut batch = Batch::new(shared.durable());
    while take(shared, &mut batch) {
        match commit(shared, &mut tail, &mut batch) {
            Ok(Written::Durable) => {
                announce(shared, &batch);
                // Whoever was just released stages the next records, and comes first here too.
                std::thread::yield_now();
            }
            Ok(Written::GivenUp) => return shared.fail(),
            Err(e) => return shared.fatal(&e.to_string()),
        }
    }
    if let Err(e) = tail.cut(shared.store.as_ref()) {
        shared.fatal(&e.to_string());
    }
}

/// Waits for records and takes them all; false when the log is closed and nothing is left.
fn take(shared: &Shared, batch: &mut Batch) -> bool {
    let mut staging = shared.staging();
    loop {
        if !staging.batch.leaves.is_empty() {
            batch.reset(staging.batch.end());
            std::mem::swap(&mut staging.batch, batch);
            return true;
        }
        if staging.phase != Phase::Open {
            return false;
        }
        staging.committer_waits = true;
        staging = shared
            .work
            .wait(staging)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

enum Written {
    Durable,
    GivenUp,
}

/// Writes and syncs one batch. While the disk is full it cuts off what was written and tries again.
fn commit(shared: &Shared, tail: &mut Tail, batch: &mut Batch) -> Result<Written, StoreError> {
    loop {
        match write(shared, tail, batch) {
            Ok(()) => break,
            Err(e) if e.is_full() => {
                tail.cut(shared.store.as_ref())?;
                shared.set_blocked(Blocker::Records, true);
                if !wait_for_room(shared) {
                    return Ok(Written::GivenUp);
                }
            }
            Err(e) => return Err(e),
        }
    }
    shared.segments.note(tail.segment, batch.first, tail.length);
    tail.length += batch.frame_len();
    Ok(Written::Durable)
}

fn write(shared: &Shared, tail: &mut Tail, batch: &mut Batch) -> Result<(), StoreError> {
    if tail.length >= shared.options.segment_bytes {
        // Only the last segment may end in zeros.
        tail.cut(shared.store.as_ref())?;
        shared.store.create(FileId::Segment(batch.first))?;
        *tail = Tail::new(batch.first, 0);
    }
    if tail.length + batch.frame_len() <= tail.room {
        let frame = batch.frame(&shared.keys().mac, 0);
        shared.store.write_at(tail.file(), tail.length, frame)?;
    } else {
        extend(shared, tail, batch)?;
    }
    // A full disk that shows only now is an fsync error like any other: what is on disk is unknown.
    match shared.store.sync(tail.file()) {
        Err(e) if e.is_full() => Err(StoreError::new(
            "sync",
            tail.file(),
            std::io::Error::other(e.source.to_string()),
        )),
        synced => synced,
    }
}

/// Writes a frame for which the file is too short, and zeros for those to come. Where there is no room
/// for zeros there may be some for the frame.
fn extend(shared: &Shared, tail: &mut Tail, batch: &mut Batch) -> Result<(), StoreError> {
    let ahead = (AHEAD * batch.frame_len()).min(MAX_AHEAD);
    let padded = batch.frame(&shared.keys().mac, ahead);
    let room = tail.length + u64::try_from(padded.len()).unwrap_or(0);
    match shared.store.write_at(tail.file(), tail.length, padded) {
        Err(e) if e.is_full() => {
            tail.cut(shared.store.as_ref())?;
            let frame = batch.frame(&shared.keys().mac, 0);
            shared.store.write_at(tail.file(), tail.length, frame)?;
            tail.room = tail.length + batch.frame_len();
        }
        written => {
            written?;
            tail.room = room;
        }
    }
    Ok(())
}

/// The batch is durable: first the publisher's share, then the number, then everybody who waits.
fn announce(shared: &Shared, batch: &Batch) {
    let publisher_waits = {
        let mut queue = shared.queue();
        queue.leaves.extend_from_slice(&batch.leaves);
        std::mem::take(&mut queue.publisher_waits)
    };
    shared.durable.store(batch.end(), Ordering::Release);
    shared.set_blocked(Blocker::Records, false);
    if publisher_waits {
        shared.publish.notify_all();
    }
    shared.wake();
}

/// Sleeps a moment; false when the log is closing and must not wait for room any longer.
fn wait_for_room(shared: &Shared) -> bool {
    let staging = shared.staging();
    let (staging, _) = shared
        .work
        .wait_timeout_while(staging, RETRY, |staging| staging.phase == Phase::Open)
        .unwrap_or_else(PoisonError::into_inner);
    staging.phase == Phase::Open
}

/// What cannot be written for want of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocker {
    /// A batch of records.
    Records,
    /// Hash files or the checkpoint.
    Hashes,
}

/// How many frames like the last the zeros behind it make room for.
const AHEAD: u64 = 7;
/// The most zeros that are written at once, in bytes.
const MAX_AHEAD: u64 = 1 << 20;
/// Half-way to the lowest priority: on a core that is busy with others it still gets a tenth.
const NICE: i32 = 10;
const RETRY: Duration = Duration::from_millis(100);
