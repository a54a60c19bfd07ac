use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::decision::CrlAccepted;
use crate::log::Log;
use crate::record::Record;
use crate::status::{StatusEvent, StatusRecord};
use crate::testing::{LOG, Pki, WITNESS, YEAR, sample, stage};

fn options(pki: &Pki) -> VerifyOptions<'static> {
    VerifyOptions {
        floor: None,
        now: pki.now,
    }
}

fn verify(directory: &Path, pki: &Pki) -> Result<Report, Violation> {
    verify_directory(directory, &pki.anchor(), &options(pki))
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
fn every_flipped_byte_is_found() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.written_log(temp.path(), 270);
    for file in files(&directory) {
        let good = fs::read(&file).unwrap();
        let step = if good.len() > 600 { 23 } else { 1 };
        for at in (0..good.len()).step_by(step) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&file, &bad).unwrap();
            assert!(
                verify(&directory, &pki).is_err(),
                "{} at {at}",
                file.display()
            );
        }
        fs::write(&file, &good).unwrap();
    }
    verify(&directory, &pki).unwrap();
}

#[test]
fn missing_and_extra_bytes_and_files_are_found() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.written_log(temp.path(), 270);
    let segments: Vec<_> = files(&directory)
        .into_iter()
        .filter(|file| {
            file.parent()
                .is_some_and(|parent| parent.ends_with("segments"))
        })
        .collect();
    let last = segments.iter().max().unwrap();
    for file in files(&directory) {
        let good = fs::read(&file).unwrap();
        let refused = |what: &str| {
            assert!(
                verify(&directory, &pki).is_err(),
                "{what} {}",
                file.display()
            );
        };
        fs::write(&file, &good[..good.len() - 1]).unwrap();
        refused("shortened");
        fs::write(&file, [&good[..], b"x"].concat()).unwrap();
        if file == *last {
            // What a crash leaves behind and what somebody added look the same there.
            assert_eq!(verify(&directory, &pki).unwrap().tail.torn_bytes, 1);
        } else {
            refused("lengthened");
        }
        fs::remove_file(&file).unwrap();
        refused("removed");
        fs::write(&file, &good).unwrap();
    }
    for extra in [
        "notes.txt",
        "segments/00000000000000000999",
        "hashes/3",
        "hashes/9",
        "checkpoint~",
    ] {
        let path = directory.join(extra);
        fs::write(&path, b"x").unwrap();
        let error = verify(&directory, &pki).unwrap_err();
        assert!(!error.to_string().is_empty());
        fs::remove_file(&path).unwrap();
    }
    fs::create_dir(directory.join("more")).unwrap();
    assert!(verify(&directory, &pki).is_err());
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
fn a_log_must_extend_the_given_checkpoint() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    stage(&log, 10);
    let early = log.publish_now().unwrap().note.clone();
    stage(&log, 10);
    let late = log.publish_now().unwrap().note.clone();
    drop(log);
    let with_floor = |note: &str| {
        let options = VerifyOptions {
            floor: Some(note.as_bytes()),
            ..options(&pki)
        };
        verify_directory(&directory, &pki.anchor(), &options)
    };
    with_floor(&early).unwrap();
    with_floor(&late).unwrap();
    let signer = pki.log.note_signer().unwrap();
    let forged = |size, root| {
        Checkpoint {
            origin: LOG.into(),
            size,
            root,
        }
        .sign(&signer)
        .unwrap()
    };
    let longer = with_floor(&forged(22, [1; 32])).unwrap_err();
    assert!(
        matches!(
            longer.reason,
            Reason::Shorter {
                size: 22,
                found: 21
            }
        ),
        "{longer}"
    );
    let forked = with_floor(&forged(7, [1; 32])).unwrap_err();
    assert!(
        matches!(forked.reason, Reason::Root { size: 7 }),
        "{forked}"
    );
    let stranger = Checkpoint {
        origin: LOG.into(),
        size: 0,
        root: crate::merkle::empty_root(),
    };
    let stranger = stranger
        .sign(&pki.signer(LOG).note_signer().unwrap())
        .unwrap();
    assert!(matches!(
        with_floor(&stranger).unwrap_err().reason,
        Reason::AnotherKey
    ));
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

#[test]
fn a_running_log_verifies_at_any_time() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let store = std::sync::Arc::new(FileStore::open(&directory).unwrap());
    let running = crate::log::LogOptions {
        segment_bytes: 20_000,
        checkpoint_interval: Duration::from_millis(2),
        ..crate::log::LogOptions::default()
    };
    let (log, _) = Log::open_with(store, &pki.log, running).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Not for ever: the verifier must not fall behind further and further.
            while !stop.load(std::sync::atomic::Ordering::Relaxed) && log.durable() < 20_000 {
                stage(&log, 13);
            }
        });
        let mut sizes = Vec::new();
        while sizes.len() < 20 && log.durable() < 20_000 {
            let size = verify(&directory, &pki).map(|report| report.size);
            if size.is_err()
                || sizes
                    .last()
                    .is_none_or(|last| size.as_ref().ok() != Some(last))
            {
                sizes.push(size.unwrap_or(0));
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(!sizes.contains(&0), "it verified every time");
        assert!(sizes.is_sorted() && sizes.len() > 2, "{sizes:?}");
    });
}

#[test]
fn cosignatures_are_verified_and_the_newest_is_reported() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    let time = pki.now.truncate_to_secs();
    for minute in 0..3 {
        stage(&log, 10);
        pki.confirm(&log, time + Duration::from_secs(60 * minute));
    }
    drop(log);
    let report = verify(&directory, &pki).unwrap();
    let newest = Cosigned {
        witness: WITNESS.into(),
        size: 33,
        time: time + Duration::from_secs(120),
    };
    assert_eq!((report.cosigned, report.cosignatures), (Some(newest), 3));
    // The last cosignature's own record.
    assert_eq!((report.size, report.uncosigned), (34, 1));
    let log = pki.open(&directory);
    stage(&log, 5);
    drop(log);
    assert_eq!(verify(&directory, &pki).unwrap().uncosigned, 6);
}

#[test]
fn cosignatures_outside_the_witnesss_certificate_do_not_count() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    pki.confirm(&log, pki.now);
    pki.confirm(&log, pki.now + 2 * YEAR);
    drop(log);
    let report = verify(&directory, &pki).unwrap();
    assert_eq!(report.cosigned.unwrap().size, 1);
    assert_eq!((report.cosignatures, report.cosignatures_uncounted), (2, 1));
    assert_eq!(report.uncosigned, 2);
}

fn crl_accepted(log: &Log, number: u64) {
    let accepted = CrlAccepted {
        uri: "http://ca.example.org/crl/0.crl",
        number,
    };
    put(log, |head, out| accepted.write(head, out));
}

#[test]
fn a_log_without_a_witness_is_one_of_crl_mode() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create_unwitnessed(temp.path());
    let mode = |accepted| Some(Revocation::Crl { accepted });
    let report = verify(&directory, &pki).unwrap();
    assert_eq!((report.revocation, report.witness), (mode(0), None));
    let log = pki.open(&directory);
    crl_accepted(&log, 7);
    stage(&log, 4);
    log.publish_now().unwrap();
    crl_accepted(&log, 8);
    // Not under the checkpoint yet.
    assert_eq!(verify(&directory, &pki).unwrap().revocation, mode(1));
    drop(log);
    let report = verify(&directory, &pki).unwrap();
    assert_eq!((report.revocation, report.uncosigned), (mode(2), 7));
    // The authority's own log has no feed and no CRLs to follow.
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::of("example.org/ca");
    let directory = pki.create_unwitnessed(temp.path());
    assert_eq!(verify(&directory, &pki).unwrap().revocation, None);
}

#[test]
fn a_cosignature_over_another_history_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    stage(&log, 10);
    log.publish_now().unwrap();
    let other = Checkpoint {
        origin: LOG.into(),
        size: 5,
        root: [3; 32],
    };
    pki.confirm_checkpoint(&log, &other, pki.now);
    drop(log);
    let error = verify(&directory, &pki).unwrap_err();
    assert!(
        matches!(error.reason, Reason::CosignedRoot { size: 5 }),
        "{error}"
    );
    assert_eq!(error.place, Place::Record { index: 11 });
}

#[test]
fn after_expiry_only_what_was_cosigned_before_counts() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    stage(&log, 10);
    let later = VerifyOptions {
        floor: None,
        now: pki.now + 2 * YEAR,
    };
    log.publish_now().unwrap();
    let error = verify_directory(&directory, &pki.anchor(), &later).unwrap_err();
    assert!(matches!(error.reason, Reason::Expired { .. }), "{error}");
    pki.confirm(&log, pki.now);
    stage(&log, 10);
    drop(log);
    let report = verify_directory(&directory, &pki.anchor(), &later).unwrap();
    assert_eq!((report.size, report.counted), (22, 11));
    let early = VerifyOptions {
        floor: None,
        now: pki.now - YEAR,
    };
    let error = verify_directory(&directory, &pki.anchor(), &early).unwrap_err();
    assert!(
        matches!(error.reason, Reason::NotYetValid { .. }),
        "{error}"
    );
}

#[test]
fn an_announced_key_signs_and_the_old_one_no_longer() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    stage(&log, 10);
    let (second, third) = (pki.signer(LOG), pki.signer(LOG));
    log.rotate_signer(&second).unwrap();
    let index = log.rotate_signer(&third).unwrap();
    drop(log);
    let report = verify(&directory, &pki).unwrap();
    assert_eq!(report.signer.announced, index);
    let head = Checkpoint {
        origin: LOG.into(),
        size: report.size,
        root: report.root,
    };
    let first = head.sign(&pki.log.note_signer().unwrap()).unwrap();
    fs::write(directory.join("checkpoint"), first).unwrap();
    assert!(matches!(
        verify(&directory, &pki).unwrap_err().reason,
        Reason::AnotherKey
    ));
    let handing_over = head.sign(&second.note_signer().unwrap()).unwrap();
    fs::write(directory.join("checkpoint"), handing_over).unwrap();
    verify(&directory, &pki).unwrap();
}

/// What a writer that breaks the rules, but signs properly, gets for it.
fn judged<T>(write: impl Fn(&Log) -> T) -> Reason {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::of("example.org/ca");
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    stage(&log, 3);
    write(&log);
    drop(log);
    let error = verify(&directory, &pki).unwrap_err();
    assert!(matches!(error.place, Place::Record { .. }), "{error}");
    error.reason
}

fn put(log: &Log, write: impl FnOnce(&crate::record::Head<'_>, &mut Vec<u8>)) -> u64 {
    let staged = log.stage(write).unwrap();
    log.wait_blocking(staged.index).unwrap();
    staged.index
}

#[test]
fn records_must_be_records_of_this_place() {
    let elsewhere = judged(|log| {
        put(log, |_, out| {
            let head = crate::record::Head::new(9, Timestamp::MAX, "example.org/ca");
            sample(&head, out);
        });
    });
    assert!(matches!(elsewhere, Reason::Elsewhere { found: 9, .. }));
    let other_log = judged(|log| {
        put(log, |head, out| {
            let head = crate::record::Head::new(head.seq, head.time, "example.org/prod/enforcer/x");
            sample(&head, out);
        });
    });
    assert!(matches!(other_log, Reason::Elsewhere { found: 4, .. }));
    let back = judged(|log| {
        put(log, |head, out| {
            let head = crate::record::Head::new(head.seq, Timestamp::MIN, head.log);
            sample(&head, out);
        });
    });
    assert!(matches!(back, Reason::TimeGoesBack));
    let form = judged(|log| {
        put(log, |head, out| {
            sample(head, out);
            out.push(b' ');
        });
    });
    assert!(matches!(form, Reason::Record(_)));
    let opened = judged(|log| {
        put(log, |head, out| {
            Record::begin(out, head, crate::record::LOG_OPENED).finish()
        });
    });
    assert!(matches!(opened, Reason::Announcement(_)));
    let announced = judged(|log| {
        let chain = Pki::new().signer("example.org/ca").chain;
        put(log, |head, out| {
            crate::record::signer_announced(head, out, &chain)
        });
    });
    assert!(matches!(announced, Reason::Chain(_)));
}

fn status(number: u64, prev: Hash) -> StatusRecord {
    StatusRecord {
        environment: "prod".parse().unwrap(),
        number,
        prev,
        seq: 0,
        by: None,
        event: StatusEvent::EnvironmentOpened {
            issuers: Vec::new(),
        },
    }
}

#[test]
fn the_status_chain_has_no_gap_and_no_fork() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::of("example.org/ca");
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    let mut prev = [0; 32];
    for number in 1..5 {
        let staged = log
            .stage(|head, out| status(number, prev).encode(head, out))
            .unwrap();
        prev = staged.leaf;
    }
    drop(log);
    verify(&directory, &pki).unwrap();
    let gap = judged(|log| put(log, |head, out| status(2, [0; 32]).encode(head, out)));
    assert!(matches!(gap, Reason::StatusChain { number: 0, .. }));
    let fork = judged(|log| {
        put(log, |head, out| status(1, [0; 32]).encode(head, out));
        put(log, |head, out| status(2, [7; 32]).encode(head, out));
    });
    assert!(matches!(fork, Reason::StatusChain { number: 1, .. }));
    let unknown = judged(|log| {
        put(log, |head, out| {
            let mut record = Record::begin(out, head, "agent-forgiven");
            record.object("status", |_| ());
            record.finish();
        });
    });
    assert!(matches!(unknown, Reason::Status(_)));
}
