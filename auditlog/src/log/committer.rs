//! The thread that makes records durable: swap the batch, write it, sync it, say so, again.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::staging::{Batch, Phase};
use crate::store::{FileId, StoreError};

/// Where the next frame goes.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) segment: u64,
    pub(super) length: u64,
}

/// Runs until the log is closed or fails.
pub(super) fn run(shared: &Shared, mut tail: Tail) {
    let mut batch = Batch::new(shared.durable());
    while take(shared, &mut batch) {
        let written = commit(shared, &mut tail, &mut batch);
        match written {
            Ok(Written::Durable) => {
                announce(shared, &batch);
                // Whoever was just released stages the next records. Where it has to share a core
                // with this thread it comes first, or every batch would be a handful; where cores
                // are free this returns at once.
                std::thread::yield_now();
            }
            Ok(Written::GivenUp) => return shared.fail(),
            Err(e) => return shared.fatal(&e.to_string()),
        }
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
    let first = batch.first;
    let frame = batch.frame();
    loop {
        match write(shared, tail, first, frame) {
            Ok(()) => break,
            Err(e) if e.is_full() => {
                let file = FileId::Segment(tail.segment);
                if shared.store.len(file)? > tail.length {
                    shared.store.truncate(file, tail.length)?;
                }
                shared.set_blocked(Blocker::Records, true);
                if !wait_for_room(shared) {
                    return Ok(Written::GivenUp);
                }
            }
            Err(e) => return Err(e),
        }
    }
    shared.segments.note(tail.segment, first, tail.length);
    tail.length += u64::try_from(frame.len()).unwrap_or(0);
    Ok(Written::Durable)
}

fn write(shared: &Shared, tail: &mut Tail, first: u64, frame: &[u8]) -> Result<(), StoreError> {
    if tail.length >= shared.options.segment_bytes {
        shared.store.create(FileId::Segment(first))?;
        *tail = Tail {
            segment: first,
            length: 0,
        };
    }
    let file = FileId::Segment(tail.segment);
    shared.store.write_at(file, tail.length, frame)?;
    // A full disk that shows only now is an fsync error like any other: what is on disk is unknown.
    match shared.store.sync(file) {
        Err(e) if e.is_full() => Err(StoreError::new(
            "sync",
            file,
            std::io::Error::other(e.source.to_string()),
        )),
        synced => synced,
    }
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

const RETRY: Duration = Duration::from_millis(100);
