use std::fs;
use std::future::Future as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use agentca_identity::crypto::KeyKind;

use super::segments::Segments;
use super::*;
use crate::checkpoint::Checkpoint;
use crate::merkle::leaf_hash;
use crate::merkle::proof::{verify_consistency, verify_inclusion};
use crate::record::{Opening, Record, log_opened, scan};
use crate::store::FileStore;

pub(super) fn signer() -> LogSigner {
    LogSigner {
        origin: "example.org/ca".parse().unwrap(),
        key: PrivateKey::generate(KeyKind::Ed25519).unwrap(),
        chain: vec![vec![1], vec![2]],
    }
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 4096,
        checkpoint_interval: Duration::from_secs(3600),
        ..LogOptions::default()
    }
}

fn create(directory: &Path, signer: &LogSigner) {
    let store = Arc::new(FileStore::create(directory).unwrap());
    let opening = Opening {
        signers: vec![signer.chain.clone()],
        witness: None,
    };
    Log::create(store, signer, |head, out| log_opened(head, out, &opening)).unwrap();
}

fn open(directory: &Path, signer: &LogSigner) -> (Arc<Log>, Recovery) {
    Log::open_with(
        Arc::new(FileStore::open(directory).unwrap()),
        signer,
        options(),
    )
    .unwrap()
}

fn refused(directory: &Path, signer: &LogSigner) -> String {
    let store = Arc::new(FileStore::open(directory).unwrap());
    Log::open_with(store, signer, options())
        .unwrap_err()
        .to_string()
}

fn sample(head: &Head<'_>, out: &mut Vec<u8>) {
    let mut record = Record::begin(out, head, "sample");
    record.number("n", head.seq * 7);
    record.text("text", &"x".repeat(usize::try_from(head.seq % 90).unwrap()));
    record.finish();
}

fn stage(log: &Log, count: u64) -> u64 {
    let mut last = 0;
    for _ in 0..count {
        last = log.stage(sample).unwrap().index;
    }
    log.wait_blocking(last).unwrap();
    last
}

#[test]
fn records_survive_and_prove_themselves() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, signer) = (temp.path().join("log"), signer());
    create(&directory, &signer);
    let (log, recovery) = open(&directory, &signer);
    assert_eq!(
        recovery,
        Recovery {
            size: 1,
            checkpoint: 1,
            dropped: 0
        }
    );
    for _ in 0..40 {
        stage(&log, 17);
    }
    let published = log.publish_now().unwrap();
    let size = 1 + 40 * 17;
    assert_eq!(published.checkpoint.size, size);
    let verifier = signer.note_signer().unwrap();
    let stored = fs::read(directory.join("checkpoint")).unwrap();
    let opened = Checkpoint::open(&stored, verifier.verifier()).unwrap();
    assert_eq!(opened, published.checkpoint);
    for index in (0..size).step_by(37) {
        let record = log.record(index).unwrap().unwrap();
        assert_eq!(scan(&record).unwrap().seq, index);
        let proof = log.inclusion(index, size).unwrap();
        verify_inclusion(&leaf_hash(&record), index, size, &proof, &opened.root).unwrap();
    }
    let proof = log.consistency(300, size).unwrap();
    verify_consistency(300, size, &proof, &log.root_at(300).unwrap(), &opened.root).unwrap();
    assert_eq!(log.record(size).unwrap(), None);
    assert!(log.inclusion(0, size + 1).is_err());
    assert_eq!(log.hash_tile(0, 2, 169).unwrap().unwrap().len(), 169 * 32);
    assert_eq!(log.hash_tile(0, 2, 170).unwrap(), None);
    assert_eq!(log.hash_tile(1, 0, 2).unwrap().unwrap().len(), 64);
}

#[test]
fn scans_go_both_ways_over_segments_and_starts() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, signer) = (temp.path().join("log"), signer());
    create(&directory, &signer);
    let (log, _) = open(&directory, &signer);
    for _ in 0..50 {
        stage(&log, 7);
    }
    drop(log);
    let (log, recovery) = open(&directory, &signer);
    assert_eq!(
        recovery,
        Recovery {
            size: 351,
            checkpoint: 351,
            dropped: 0
        }
    );
    assert!(fs::read_dir(directory.join("segments")).unwrap().count() > 5);
    stage(&log, 5);
    for from in [0, 1, 100, 350, 355, 356] {
        let records: Vec<_> = log.scan(from).map(Result::unwrap).collect();
        assert!(records.iter().map(|(index, _)| *index).eq(from..356));
        assert!(
            records
                .iter()
                .all(|(index, bytes)| scan(bytes).unwrap().seq == *index)
        );
        let back: Vec<_> = log.scan_back(from).map(Result::unwrap).collect();
        assert!(back.iter().map(|(index, _)| *index).eq((0..from).rev()));
        assert!(
            back.iter()
                .all(|(index, bytes)| scan(bytes).unwrap().seq == *index)
        );
    }
    assert_eq!(log.scan_back(u64::MAX).count(), 356);
}

#[test]
fn a_scan_goes_on_when_more_is_durable() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, signer) = (temp.path().join("log"), signer());
    create(&directory, &signer);
    let (log, _) = open(&directory, &signer);
    let mut scan = log.scan(0);
    assert_eq!(scan.by_ref().count(), 1);
    for round in 1..30 {
        stage(&log, 20);
        assert_eq!(scan.next().unwrap().unwrap().0, 20 * (round - 1) + 1);
        assert_eq!(scan.by_ref().count(), 19);
    }
}

#[test]
fn a_shut_down_log_has_a_checkpoint_over_everything_and_takes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, signer) = (temp.path().join("log"), signer());
    create(&directory, &signer);
    let (log, _) = open(&directory, &signer);
    for _ in 0..100 {
        log.stage(sample).unwrap();
    }
    log.shutdown();
    assert_eq!(log.durable(), 101);
    assert_eq!(log.checkpoint().checkpoint.size, 101);
    assert_eq!(log.stage(sample), Err(StageError::Closed));
    assert!(matches!(log.publish_now(), Err(LogError::Closed)));
    let (_, recovery) = {
        drop(log);
        open(&directory, &signer)
    };
    assert_eq!(recovery.checkpoint, 101);
}

#[test]
fn times_never_go_back() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, signer) = (temp.path().join("log"), signer());
    create(&directory, &signer);
    let calls = AtomicUsize::new(0);
    let clock = move || {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        Timestamp::from_secs([4_000_000_000, 3_000_000_000, 4_000_000_001][call.min(2)])
    };
    let store = Arc::new(FileStore::open(&directory).unwrap());
    let options = LogOptions {
        clock: Box::new(clock),
        ..options()
    };
    let (log, _) = Log::open_with(store, &signer, options).unwrap();
    stage(&log, 3);
    drop(log);
    let (log, _) = open(&directory, &signer);
    stage(&log, 1);
    let times: Vec<i64> = log
        .scan(1)
        .map(|record| scan(&record.unwrap().1).unwrap().time().unwrap().secs())
        .collect();
    assert_eq!(
        times,
        [4_000_000_000, 4_000_000_000, 4_000_000_001, 4_000_000_001]
    );
}

#[test]
fn what_cannot_be_a_record_is_refused_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, signer) = (temp.path().join("log"), signer());
    create(&directory, &signer);
    let (log, _) = open(&directory, &signer);
    let too_large = log.stage(|_, out| out.resize(out.len() + 65_536, b'x'));
    assert!(matches!(
        too_large,
        Err(StageError::TooLarge { length: 65_536, .. })
    ));
    assert!(matches!(
        log.stage(|_, _| ()),
        Err(StageError::TooLarge { length: 0, .. })
    ));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = log.stage(|_, out| {
            out.extend_from_slice(b"half a rec");
            panic!("a writer that panics");
        });
    }));
    assert!(panicked.is_err());
    assert_eq!(stage(&log, 1), 1);
    assert_eq!(scan(&log.record(1).unwrap().unwrap()).unwrap().seq, 1);
}

#[test]
fn one_writer_holds_the_log() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, signer) = (temp.path().join("log"), signer());
    create(&directory, &signer);
    let (log, _) = open(&directory, &signer);
    assert!(FileStore::open(&directory).is_err());
    drop(log);
    FileStore::open(&directory).unwrap();
}

#[test]
fn another_key_does_not_open_the_log() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, ours) = (temp.path().join("log"), signer());
    create(&directory, &ours);
    assert!(refused(&directory, &signer()).contains("no single signature by the key"));
}

#[test]
fn a_key_is_changed_under_the_old_one() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, old, new) = (temp.path().join("log"), signer(), signer());
    create(&directory, &old);
    let (log, _) = open(&directory, &old);
    stage(&log, 3);
    let index = log.rotate_signer(&new).unwrap();
    let announced = log.record(index).unwrap().unwrap();
    assert_eq!(record::read_announced(&announced).unwrap(), new.chain);
    drop(log);
    assert!(refused(&directory, &old).contains("checkpoint"));
    open(&directory, &new);
}

/// A log of 351 records in several segments, shut down.
fn written(directory: &Path, signer: &LogSigner) {
    create(directory, signer);
    let (log, _) = open(directory, signer);
    for _ in 0..50 {
        stage(&log, 7);
    }
}

fn last_segment(directory: &Path) -> std::path::PathBuf {
    let segments = fs::read_dir(directory.join("segments")).unwrap();
    segments.map(|entry| entry.unwrap().path()).max().unwrap()
}

#[test]
fn a_batch_without_the_logs_key_is_not_taken_over() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, signer) = (temp.path().join("log"), signer());
    written(&directory, &signer);
    let segment = last_segment(&directory);
    let whole = fs::read(&segment).unwrap();
    let append = |by: &LogSigner| {
        let mut staging = Staging::new(351, Timestamp::now(), 1000);
        staging
            .stage("example.org/ca", Timestamp::now(), sample)
            .unwrap();
        let keys = Keys::of(by).unwrap();
        let frame = staging.batch.frame(&keys.mac, 0).to_vec();
        fs::write(&segment, [&whole[..], &frame].concat()).unwrap();
        let store = Arc::new(FileStore::open(&directory).unwrap());
        Log::open(store, &signer).map(|(_, recovery)| recovery.size)
    };
    let other = LogSigner {
        key: PrivateKey::generate(KeyKind::Ed25519).unwrap(),
        ..signer.clone()
    };
    let offset = u64::try_from(whole.len()).unwrap();
    assert!(matches!(append(&other), Err(OpenError::Foreign { offset: at, .. }) if at == offset));
    assert_eq!(append(&signer).unwrap(), 352, "its own is");
}

#[test]
fn a_running_log_has_room_and_a_stopped_one_none() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, signer) = (temp.path().join("log"), signer());
    written(&directory, &signer);
    let segment = last_segment(&directory);
    let (log, _) = open(&directory, &signer);
    log.wait_blocking(log.stage(sample).unwrap().index).unwrap();
    let running = fs::read(&segment).unwrap();
    let zeros = running.iter().rev().take_while(|byte| **byte == 0).count();
    assert!(zeros > 100, "{zeros}");
    let first = segment.file_name().unwrap().to_str().unwrap();
    let segments = Segments::new([first.parse().unwrap()]);
    let store = FileStore::inspect(&directory);
    let frame = segments.frame(&store, 351).unwrap();
    assert_eq!(frame.records().count(), 1, "it is found before the zeros");
    drop(log);
    let stopped = fs::read(&segment).unwrap();
    assert_eq!(stopped, running[..running.len() - zeros]);
    // As after a crash: nothing was lost, and nothing was torn.
    fs::write(&segment, &running).unwrap();
    let (_, recovery) = open(&directory, &signer);
    assert_eq!((recovery.size, recovery.dropped), (352, 0));
}

#[test]
fn a_torn_last_batch_is_dropped_wherever_it_is_torn() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, signer) = (temp.path().join("log"), signer());
    written(&directory, &signer);
    let segment = last_segment(&directory);
    let whole = fs::read(&segment).unwrap();
    let mut batch = staging::Batch::new(351);
    batch.leaves.push([0; 32]);
    let mut staging = Staging::new(351, Timestamp::now(), 1000);
    staging
        .stage("example.org/ca", Timestamp::now(), sample)
        .unwrap();
    let keys = Keys::of(&signer).unwrap();
    let frame = staging.batch.frame(&keys.mac, 0).to_vec();
    for cut in [0, 1, 95, 96, 97, 100, frame.len() - 1] {
        for fill in [0u8, 0xff] {
            // What was not written reads as anything.
            let mut torn = frame[..cut].to_vec();
            fs::write(&segment, [&whole[..], &torn[..]].concat()).unwrap();
            let dropped = open(&directory, &signer).1.dropped;
            // Zeros at the end may as well be room.
            let zeros = torn.iter().rev().take_while(|byte| **byte == 0).count();
            assert_eq!(dropped, u64::try_from(cut - zeros).unwrap());
            torn.resize(frame.len(), fill);
            fs::write(&segment, [&whole[..], &torn[..]].concat()).unwrap();
            let (log, recovery) = open(&directory, &signer);
            assert_eq!(recovery.size, 351);
            drop(log);
            assert_eq!(fs::read(&segment).unwrap(), whole, "cut off again");
        }
    }
    fs::write(&segment, [&whole[..], &frame[..]].concat()).unwrap();
    let (_, recovery) = open(&directory, &signer);
    assert_eq!(
        recovery,
        Recovery {
            size: 352,
            checkpoint: 351,
            dropped: 0
        }
    );
}

#[test]
fn any_other_damage_refuses_to_start() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, signer) = (temp.path().join("log"), signer());
    written(&directory, &signer);
    let mut files: Vec<_> = fs::read_dir(directory.join("segments"))
        .unwrap()
        .chain(fs::read_dir(directory.join("hashes")).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    files.push(directory.join("checkpoint"));
    for file in files {
        let good = fs::read(&file).unwrap();
        for at in (0..good.len()).step_by(41) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(&file, &bad).unwrap();
            let reason = refused(&directory, &signer);
            assert!(!reason.is_empty(), "{} at {at}", file.display());
        }
        fs::write(&file, &good[..good.len() - 1]).unwrap();
        refused(&directory, &signer);
        fs::remove_file(&file).unwrap();
        refused(&directory, &signer);
        fs::write(&file, &good).unwrap();
    }
    open(&directory, &signer);
}

#[test]
fn damage_before_a_whole_batch_is_not_a_torn_tail() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, signer) = (temp.path().join("log"), signer());
    create(&directory, &signer);
    let checkpoint = fs::read(directory.join("checkpoint")).unwrap();
    let (log, _) = open(&directory, &signer);
    stage(&log, 1);
    stage(&log, 1);
    drop(log);
    // As if the process had died before the checkpoint moved on.
    fs::write(directory.join("checkpoint"), checkpoint).unwrap();
    let segment = last_segment(&directory);
    let good = fs::read(&segment).unwrap();
    assert_eq!(open(&directory, &signer).1.size, 3);
    fs::write(
        directory.join("checkpoint"),
        fs::read(directory.join("checkpoint")).unwrap(),
    )
    .unwrap();
    let second =
        96 + usize::try_from(u32::from_be_bytes(good[20..24].try_into().unwrap())).unwrap();
    let mut bad = good.clone();
    bad[second + 102] ^= 1;
    fs::write(&segment, &bad).unwrap();
    let reason = refused(&directory, &signer);
    assert!(reason.contains(&format!("byte {second}")), "{reason}");
}

struct Flag(AtomicUsize);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn futures_and_callbacks_hear_of_durability() {
    let temp = tempfile::tempdir().unwrap();
    let (directory, signer) = (temp.path().join("log"), signer());
    create(&directory, &signer);
    let (log, _) = open(&directory, &signer);
    let (sender, receiver) = std::sync::mpsc::channel();
    log.on_durable(Box::new(move |durable| {
        let _ = sender.send(durable);
    }));
    let flag = Arc::new(Flag(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(log.durable_at(1));
    assert_eq!(future.as_mut().poll(&mut context), Poll::Pending);
    stage(&log, 1);
    assert_eq!(receiver.recv().unwrap(), 2);
    while flag.0.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    assert_eq!(future.as_mut().poll(&mut context), Poll::Ready(Ok(())));
}
