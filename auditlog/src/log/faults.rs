//! The log on a store that fails: whatever the fault, what was acknowledged is there afterwards, once,
//! in order, under a checkpoint that never went back, and nothing else is.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::tests::signer;
use super::*;
use crate::checkpoint::Checkpoint;
use crate::merkle::leaf_hash;
use crate::record::{Opening, Record, log_opened, scan};
use crate::store::memory::{Fault, MemoryStore, Operation, Unsynced};

/// What the `fatal` hook was told.
type Fatal = Arc<Mutex<Vec<String>>>;

/// A log under test, and what its callers were told.
struct Subject {
    store: Arc<MemoryStore>,
    signer: LogSigner,
    log: Arc<Log>,
    fatal: Fatal,
    /// Index and leaf hash of every acknowledged record.
    acknowledged: Vec<(u64, Hash)>,
}

fn open(store: &Arc<MemoryStore>, signer: &LogSigner) -> Result<(Arc<Log>, Fatal), OpenError> {
    let fatal = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&fatal);
    let options = LogOptions {
        segment_bytes: 2000,
        checkpoint_interval: Duration::from_secs(3600),
        fatal: Box::new(move |reason| told.lock().unwrap().push(reason.to_owned())),
        ..LogOptions::default()
    };
    let (log, _) = Log::open_with(Arc::<MemoryStore>::clone(store), signer, options)?;
    Ok((log, fatal))
}

impl Subject {
    /// With some records in several segments, the newest few past the checkpoint.
    fn new() -> Self {
        let (store, signer) = (MemoryStore::new(), signer());
        let opening = Opening {
            signers: vec![signer.chain.clone()],
            witness: None,
        };
        let same: Arc<dyn Store> = Arc::<MemoryStore>::clone(&store);
        Log::create(same, &signer, |head, out| log_opened(head, out, &opening)).unwrap();
        let (log, fatal) = open(&store, &signer).unwrap();
        let mut subject = Self {
            store,
            signer,
            log,
            fatal,
            acknowledged: Vec::new(),
        };
        subject.append(10);
        subject.log.publish_now().unwrap();
        subject.append(3);
        subject
    }

    /// Stages and waits, record by record, until one is not acknowledged: how many were.
    fn append(&mut self, count: usize) -> usize {
        self.append_long(count, 150)
    }

    fn append_long(&mut self, count: usize, length: usize) -> usize {
        for done in 0..count {
            let Ok(staged) = self.log.stage(|head, out| {
                let mut record = Record::begin(out, head, "sample");
                record.text("text", &"y".repeat(length));
                record.finish();
            }) else {
                return done;
            };
            if self.log.wait_blocking(staged.index).is_err() {
                return done;
            }
            self.acknowledged.push((staged.index, staged.leaf));
        }
        count
    }

    /// The process dies, the power fails, the log is opened again and checked whole.
    fn survives(&self, unsynced: Unsynced) {
        let store = self.store.crash(unsynced);
        let before = store.checkpoint().unwrap().unwrap();
        let (log, _) = open(&store, &self.signer)
            .unwrap_or_else(|e| panic!("does not open after {unsynced:?}: {e}"));
        check(&log, &self.signer, &before, &self.acknowledged);
    }
}

/// Reads a whole log and compares everything with everything.
fn check(log: &Log, signer: &LogSigner, before: &[u8], acknowledged: &[(u64, Hash)]) {
    let key = signer.note_signer().unwrap();
    let before = Checkpoint::open(before, key.verifier()).unwrap();
    let now = log.publish_now().unwrap();
    let records: Vec<(u64, Vec<u8>)> = log.scan(0).map(Result::unwrap).collect();
    assert_eq!(log.durable(), u64::try_from(records.len()).unwrap());
    assert_eq!(now.checkpoint.size, log.durable());
    let mut range = CompactRange::new();
    for (index, bytes) in &records {
        assert_eq!(
            scan(bytes).unwrap().seq,
            *index,
            "each record once, in its place"
        );
        range.append(leaf_hash(bytes), |_, _| ());
        if range.size() == before.size {
            assert_eq!(
                range.root(),
                before.root,
                "the checkpoint before is a prefix"
            );
        }
    }
    assert!(range.size() >= before.size, "no checkpoint goes back");
    assert_eq!(range.root(), now.checkpoint.root);
    for (index, leaf) in acknowledged {
        let (_, bytes) = &records[usize::try_from(*index).unwrap()];
        assert_eq!(leaf_hash(bytes), *leaf, "record {index} was acknowledged");
    }
    let proof = log.consistency(before.size, now.checkpoint.size).unwrap();
    now.checkpoint.extends(&before, &proof).unwrap();
}

#[test]
fn a_power_failure_at_any_time_loses_nothing_acknowledged() {
    for unsynced in Unsynced::ALL {
        let mut subject = Subject::new();
        for _ in 0..5 {
            subject.survives(unsynced);
            subject.append(4);
        }
    }
}

#[test]
fn a_failed_write_or_sync_ends_the_log_and_loses_nothing_acknowledged() {
    for operation in [Operation::Write, Operation::Sync, Operation::Create] {
        for fault in [Fault::Lost, Fault::Persisted, Fault::Torn] {
            for skip in [0, 3] {
                for unsynced in Unsynced::ALL {
                    let mut subject = Subject::new();
                    subject.store.fail(operation, skip, fault);
                    assert!(subject.append(60) < 60, "{operation:?} {fault:?}");
                    assert_eq!(subject.store.struck(), 1);
                    assert_eq!(subject.log.stage(|_, _| ()), Err(StageError::Failed));
                    assert_eq!(subject.fatal.lock().unwrap().len(), 1, "told once");
                    subject.survives(unsynced);
                }
            }
        }
    }
}

#[test]
fn a_failed_publication_ends_the_log_and_loses_nothing_acknowledged() {
    for operation in [Operation::Write, Operation::Sync, Operation::Checkpoint] {
        for fault in [Fault::Lost, Fault::Persisted, Fault::Torn] {
            for unsynced in Unsynced::ALL {
                let subject = Subject::new();
                subject.store.fail(operation, 0, fault);
                assert!(
                    subject.log.publish_now().is_err(),
                    "{operation:?} {fault:?}"
                );
                assert_eq!(subject.fatal.lock().unwrap().len(), 1);
                subject.survives(unsynced);
            }
        }
    }
}

#[test]
fn a_sync_that_finds_the_disk_full_is_a_failed_sync() {
    let mut subject = Subject::new();
    subject.store.fail(Operation::Sync, 0, Fault::Full);
    assert_eq!(subject.append(1), 0);
    assert_eq!(subject.fatal.lock().unwrap().len(), 1);
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_is_acknowledged_meanwhile() {
    for unsynced in Unsynced::ALL {
        let mut subject = Subject::new();
        subject.store.set_full(true);
        assert_eq!(subject.append(5), 0);
        assert!(subject.log.blocked());
        assert_eq!(subject.log.stage(|_, _| ()), Err(StageError::Blocked));
        subject.survives(unsynced);
        subject.store.set_full(false);
        let (sender, receiver) = std::sync::mpsc::channel();
        subject.log.on_durable(Box::new(move |durable| {
            let _ = sender.send(durable);
        }));
        while subject.log.blocked() {
            let _ = receiver.recv_timeout(Duration::from_millis(50));
        }
        assert_eq!(subject.append(5), 5);
        assert!(subject.fatal.lock().unwrap().is_empty(), "room came back");
        subject.survives(unsynced);
    }
}

#[test]
fn without_room_for_zeros_a_frame_is_written_alone() {
    let mut subject = Subject::new();
    subject.store.fail(Operation::Write, 0, Fault::Full);
    // Longer than what is left of the room that the last frame made.
    assert_eq!(subject.append_long(1, 60_000), 1);
    assert_eq!(subject.store.struck(), 1);
    assert!(!subject.log.blocked());
    subject.survives(Unsynced::Lost);
}

#[test]
fn a_full_write_is_cut_off_and_written_again() {
    let mut subject = Subject::new();
    let before = subject.log.durable();
    subject.store.set_full(true);
    assert_eq!(subject.append(1), 0, "whoever waited was turned away");
    subject.store.set_full(false);
    while subject.log.durable() == before {
        std::thread::yield_now();
    }
    while subject.log.blocked() {
        std::thread::yield_now();
    }
    assert_eq!(subject.append(3), 3);
    subject.survives(Unsynced::Lost);
}

#[test]
fn a_log_without_room_shuts_down() {
    let mut subject = Subject::new();
    subject.store.set_full(true);
    assert_eq!(subject.append(1), 0);
    subject.log.shutdown();
    subject.survives(Unsynced::Lost);
}

#[test]
fn a_checkpoint_without_room_is_published_later() {
    let mut subject = Subject::new();
    subject.store.fail(Operation::Checkpoint, 0, Fault::Full);
    let size = subject.log.durable();
    assert_eq!(subject.log.publish_now().unwrap().checkpoint.size, size);
    assert_eq!(subject.store.struck(), 1);
    while subject.log.blocked() {
        std::thread::yield_now();
    }
    assert_eq!(subject.append(2), 2);
}

#[test]
fn a_callback_that_panics_ends_the_log() {
    let mut subject = Subject::new();
    let first = AtomicBool::new(true);
    subject.log.on_durable(Box::new(move |_| {
        assert!(
            !first.swap(false, Ordering::Relaxed),
            "a callback that panics"
        );
    }));
    subject.append(2);
    assert_eq!(subject.append(1), 0);
    assert_eq!(subject.log.stage(|_, _| ()), Err(StageError::Failed));
    assert_eq!(subject.fatal.lock().unwrap().len(), 1);
    subject.log.shutdown();
    subject.survives(Unsynced::Lost);
}

#[test]
fn staged_bytes_are_bounded() {
    let subject = Subject::new();
    let limit = 4000;
    let mut staging = Staging::new(5, Timestamp::MIN, limit);
    let stage = |staging: &mut Staging| {
        staging.stage("o", Timestamp::MIN, |_, out| {
            out.extend_from_slice(&[b'x'; 500])
        })
    };
    let taken = std::iter::from_fn(|| stage(&mut staging).ok()).count();
    assert_eq!(taken, 8);
    assert_eq!(stage(&mut staging), Err(StageError::Full { limit }));
    drop(subject);
}

#[test]
fn damage_before_the_tail_refuses_to_start_on_any_store() {
    let subject = Subject::new();
    let store = subject.store.crash(Unsynced::Kept);
    let first = FileId::Segment(0);
    let mut byte = [0];
    store.read_at(first, 100, &mut byte).unwrap();
    store.write_at(first, 100, &[byte[0] ^ 1]).unwrap();
    let error = open(&store, &subject.signer).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("segments/00000000000000000000 is damaged at byte 0")
    );
}
