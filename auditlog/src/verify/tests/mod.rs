mod damage;
mod heads;
mod records;
mod rewrites;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::log::{Log, LogOptions};
use crate::testing::{LOG, Pki, WITNESS, stage};

fn options(pki: &Pki) -> VerifyOptions<'static> {
    VerifyOptions {
        floor: None,
        now: pki.now,
    }
}

fn verify(directory: &Path, pki: &Pki) -> Result<Report, Violation> {
    verify_directory(directory, &pki.anchor(), &options(pki))
}

fn with_floor(directory: &Path, pki: &Pki, floor: &str) -> Result<Report, Violation> {
    let options = VerifyOptions {
        floor: Some(floor.as_bytes()),
        ..options(pki)
    };
    verify_directory(directory, &pki.anchor(), &options)
}

fn put(log: &Log, write: impl FnOnce(&crate::record::Head<'_>, &mut Vec<u8>)) -> u64 {
    let staged = log.stage(write).unwrap();
    log.wait_blocking(staged.index).unwrap();
    staged.index
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = vec![directory.join("checkpoint")];
    for inner in ["segments", "hashes"] {
        let entries = fs::read_dir(directory.join(inner)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files
}

#[test]
fn a_sound_log_verifies_and_is_reported() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.written_log(temp.path(), 700);
    let report = verify(&directory, &pki).unwrap();
    assert_eq!(
        (report.origin.as_str(), report.size, report.counted),
        (LOG, 700, 700)
    );
    assert_eq!(report.tail, Tail::default());
    assert_eq!(report.witness.as_deref(), Some(WITNESS));
    assert_eq!((report.cosigned, report.cosignatures), (None, 0));
    assert_eq!(report.uncosigned, 700);
    assert_eq!(report.revocation, Some(Revocation::Feed));
    assert!(report.vkey.starts_with(LOG));
    assert!(
        files(&directory).len() > 10,
        "several segments and two levels"
    );
}

#[test]
fn it_says_where() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.written_log(temp.path(), 270);
    let hashes = directory.join("hashes/0");
    let mut bytes = fs::read(&hashes).unwrap();
    bytes[32 * 77 + 5] ^= 1;
    fs::write(&hashes, &bytes).unwrap();
    let error = verify(&directory, &pki).unwrap_err();
    assert_eq!(
        error.place,
        Place::File {
            file: FileId::Hashes(0),
            offset: 32 * 77
        }
    );
    assert!(
        error.to_string().starts_with("hashes/0 at byte 2464: "),
        "{error}"
    );
}

#[test]
fn another_root_or_key_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.written_log(temp.path(), 9);
    let stranger = Pki::new();
    let error = verify(&directory, &stranger).unwrap_err();
    assert!(matches!(error.reason, Reason::Chain(_)), "{error}");
    // The same content under a key that the log never announced.
    let report = verify(&directory, &pki).unwrap();
    let head = Checkpoint {
        origin: LOG.into(),
        size: report.size,
        root: report.root,
    };
    let thief = pki.signer(LOG).note_signer().unwrap();
    fs::write(directory.join("checkpoint"), head.sign(&thief).unwrap()).unwrap();
    let error = verify(&directory, &pki).unwrap_err();
    assert!(matches!(error.reason, Reason::AnotherKey), "{error}");
}

#[test]
fn exactly_one_signature_line() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.written_log(temp.path(), 9);
    let path = directory.join("checkpoint");
    let good = fs::read_to_string(&path).unwrap();
    let (text, line) = good.split_once("\n\n").unwrap();
    for bad in [
        format!("{good}\u{2014} witness.example AAAAAAAA\n"),
        format!("{good}{line}"),
        format!("{text}\n\n"),
        format!("{text}\n"),
        good.replace(LOG, "example.org/prod/enforcer/edge-2"),
    ] {
        fs::write(&path, &bad).unwrap();
        assert!(verify(&directory, &pki).is_err(), "{bad}");
    }
}

#[test]
fn what_lies_beyond_the_checkpoint_is_reported_and_passes() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    stage(&log, 20);
    log.publish_now().unwrap();
    stage(&log, 7);
    let report = verify(&directory, &pki).unwrap();
    assert_eq!(
        (report.size, report.tail),
        (
            21,
            Tail {
                records: 7,
                torn_bytes: 0
            }
        )
    );
    drop(log);
    let newest = files(&directory)
        .into_iter()
        .filter(|file| file.to_string_lossy().contains("segments"))
        .max()
        .unwrap();
    let whole = fs::read(&newest).unwrap();
    fs::write(&newest, [&whole[..], &whole[..40]].concat()).unwrap();
    let report = verify(&directory, &pki).unwrap();
    assert_eq!(
        (report.size, report.tail),
        (
            28,
            Tail {
                records: 0,
                torn_bytes: 40
            }
        )
    );
}

/// A log that begins segments and signs heads often.
fn running(directory: &Path, pki: &Pki) -> Arc<Log> {
    let store = Arc::new(FileStore::open(directory).unwrap());
    let options = LogOptions {
        segment_bytes: 20_000,
        checkpoint_interval: Duration::from_millis(2),
        ..LogOptions::default()
    };
    Log::open_with(store, &pki.log, options).unwrap().0
}

#[test]
fn a_running_log_verifies_at_any_time() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = running(&directory, &pki);
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(1));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Never far ahead: the verifier must not fall behind further and further.
            while !stop.load(Ordering::Relaxed) {
                if log.durable() < 1000 * rounds.load(Ordering::Relaxed) {
                    stage(&log, 13);
                } else {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let mut sizes = Vec::new();
        while sizes.len() < 20 {
            let size = verify(&directory, &pki).map(|report| report.size);
            if size.is_err()
                || sizes
                    .last()
                    .is_none_or(|last| size.as_ref().ok() != Some(last))
            {
                sizes.push(size.unwrap_or(0));
            }
            rounds.fetch_add(1, Ordering::Relaxed);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(!sizes.contains(&0), "it verified every time");
        assert!(sizes.is_sorted(), "{sizes:?}");
    });
}

#[test]
fn damage_is_found_while_the_log_is_written() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = running(&directory, &pki);
    // Until the first segment has a second one behind it, and no longer changes.
    while directory.join("segments").read_dir().unwrap().count() < 2 {
        stage(&log, 13);
    }
    log.publish_now().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && log.durable() < 20_000 {
                stage(&log, 13);
            }
        });
        let oldest = directory.join(FileId::Segment(0).to_string());
        let good = fs::read(&oldest).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        let mut places = Vec::new();
        for _ in 0..10 {
            let before = log.durable();
            fs::write(&oldest, &bad).unwrap();
            places.push(verify(&directory, &pki).map_err(|error| error.place));
            fs::write(&oldest, &good).unwrap();
            places.push(verify(&directory, &pki).map_err(|error| error.place));
            while log.durable() == before && before < 20_000 {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        for pair in places.chunks(2) {
            let file = FileId::Segment(0);
            assert!(
                matches!(&pair[0], Err(Place::File { file: at, .. }) if *at == file),
                "{:?}",
                pair[0]
            );
            assert!(pair[1].is_ok(), "{:?}", pair[1]);
        }
    });
}

#[test]
fn the_signing_key_is_the_one_the_report_names() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    stage(&log, 10);
    log.publish_now().unwrap();
    let named = || signing_key(&directory, &pki.anchor()).map(|key| key.to_string());
    assert_eq!(named().unwrap(), verify(&directory, &pki).unwrap().vkey);
    let second = pki.signer(LOG);
    log.rotate_signer(&second).unwrap();
    stage(&log, 10);
    drop(log);
    let vkey = second.note_signer().unwrap().verifier().to_string();
    assert_eq!(named().unwrap(), vkey);
    let error = signing_key(&directory, &Pki::new().anchor()).unwrap_err();
    assert!(matches!(error.reason, Reason::Chain(_)), "{error}");
    // A key that is announced only behind the head that it signed announces nothing.
    let report = verify(&directory, &pki).unwrap();
    let thief = pki.signer(LOG).note_signer().unwrap();
    let head = Checkpoint {
        origin: LOG.into(),
        size: report.size,
        root: report.root,
    };
    fs::write(directory.join("checkpoint"), head.sign(&thief).unwrap()).unwrap();
    let error = signing_key(&directory, &pki.anchor()).unwrap_err();
    assert!(matches!(error.reason, Reason::AnotherKey), "{error}");
}
