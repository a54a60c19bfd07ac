//! Histories that somebody wrote anew, hash files and frames and all, with and without the log's key.

use super::*;
use crate::log::{LogSigner, Reader};
use crate::merkle::leaf_hash;

/// A log whose head over 11 records was co-signed, with ten more records behind that.
struct History {
    _temp: tempfile::TempDir,
    parent: PathBuf,
    pki: Pki,
    /// The checkpoint file that somebody kept.
    kept: String,
    records: Vec<String>,
}

/// The size that was co-signed, and the index of the record that says so.
const COSIGNED: u64 = 11;

fn history() -> History {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    stage(&log, 10);
    pki.confirm(&log, pki.now);
    stage(&log, 10);
    drop(log);
    let report = verify(&directory, &pki).unwrap();
    assert_eq!((report.size, report.uncosigned), (22, 11));
    let mut records = Vec::new();
    let mut reader = Reader::new(&directory, 0);
    while let Some(batch) = reader.batch().unwrap() {
        records.extend(batch.into_iter().map(|(_, bytes)| text(bytes)));
    }
    History {
        kept: fs::read_to_string(directory.join("checkpoint")).unwrap(),
        parent: temp.path().to_owned(),
        _temp: temp,
        pki,
        records,
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

impl History {
    /// A whole new log of these records, signed by `signer`.
    fn forge(&self, signer: &LogSigner, records: &[String]) -> PathBuf {
        let directory = self.parent.join("forged");
        let _ = fs::remove_dir_all(&directory);
        let raw = |record: &str, out: &mut Vec<u8>| out.extend_from_slice(record.as_bytes());
        let store = Arc::new(FileStore::create(&directory).unwrap());
        Log::create(store, signer, |_, out| raw(&records[0], out)).unwrap();
        let store = Arc::new(FileStore::open(&directory).unwrap());
        let (log, _) = Log::open(store, signer).unwrap();
        for record in &records[1..] {
            put(&log, |_, out| raw(record, out));
        }
        drop(log);
        directory
    }

    /// The records with what record `index` says changed.
    fn changed(&self, index: usize) -> Vec<String> {
        let mut records = self.records.clone();
        let other = records[index].replace("\"n\":", "\"n\":1");
        assert_ne!(other, records[index]);
        records[index] = other;
        records
    }

    /// The records without record `index`, those behind it renumbered.
    fn renumbered_without(&self, index: usize) -> Vec<String> {
        let mut records = self.records.clone();
        records.remove(index);
        for (seq, record) in records.iter_mut().enumerate().skip(index) {
            *record = record.replace(&format!("\"seq\":{}", seq + 1), &format!("\"seq\":{seq}"));
        }
        records
    }
}

#[test]
fn without_the_logs_key_nothing_can_be_rewritten() {
    let history = history();
    let pki = &history.pki;
    // Of the log's name, and certified by nobody whom the verifier trusts.
    let theirs = Pki::new().log;
    let records = history.changed(15);
    let directory = history.forge(&theirs, &records);
    let checkpoint = directory.join("checkpoint");
    let error = verify(&directory, pki).unwrap_err();
    assert!(matches!(error.reason, Reason::AnotherKey), "{error}");
    let forged = fs::read_to_string(&checkpoint).unwrap();

    fs::write(&checkpoint, &history.kept).unwrap();
    let error = verify(&directory, pki).unwrap_err();
    assert!(matches!(error.reason, Reason::Root { size: 22 }), "{error}");

    let (text, _) = forged.split_once("\n\n").unwrap();
    let (_, line) = history.kept.split_once("\n\n").unwrap();
    fs::write(&checkpoint, format!("{text}\n\n{line}")).unwrap();
    let error = verify(&directory, pki).unwrap_err();
    assert!(matches!(error.reason, Reason::AnotherKey), "{error}");

    // The whole log of somebody else, chain and all.
    let stranger = Pki::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let directory = stranger.written_log(elsewhere.path(), 22);
    let error = verify(&directory, pki).unwrap_err();
    assert!(matches!(error.reason, Reason::Chain(_)), "{error}");
}

#[test]
fn with_the_logs_key_what_was_witnessed_cannot_be_rewritten() {
    let history = history();
    let pki = &history.pki;
    let directory = history.forge(&pki.log, &history.changed(5));
    let error = verify(&directory, pki).unwrap_err();
    assert_eq!(error.place, Place::Record { index: COSIGNED });
    assert!(
        matches!(error.reason, Reason::CosignedRoot { size: COSIGNED }),
        "{error}"
    );
    // A removed record takes the cosignature to a place where it covers more than there is.
    let directory = history.forge(&pki.log, &history.renumbered_without(5));
    let error = verify(&directory, pki).unwrap_err();
    assert!(
        matches!(error.reason, Reason::CosignedRoot { size: COSIGNED }),
        "{error}"
    );
}

/// Without a witness between, only a head that somebody kept tells: the report counts what that concerns.
#[test]
fn with_the_logs_key_what_was_not_witnessed_shows_under_a_kept_checkpoint() {
    let history = history();
    let pki = &history.pki;
    let directory = history.forge(&pki.log, &history.changed(15));
    let report = verify(&directory, pki).unwrap();
    assert_eq!((report.size, report.uncosigned), (22, 11));
    let error = with_floor(&directory, pki, &history.kept).unwrap_err();
    assert_eq!(error.place, Place::Floor);
    assert!(matches!(error.reason, Reason::Root { size: 22 }), "{error}");

    let mut records = history.renumbered_without(usize::try_from(COSIGNED).unwrap());
    let directory = history.forge(&pki.log, &records);
    let report = verify(&directory, pki).unwrap();
    assert_eq!(
        (report.cosigned, report.size, report.uncosigned),
        (None, 21, 21),
        "a history without its cosignatures is one that nobody vouches for"
    );
    let error = with_floor(&directory, pki, &history.kept).unwrap_err();
    assert!(
        matches!(
            error.reason,
            Reason::Shorter {
                size: 22,
                found: 21
            }
        ),
        "{error}"
    );
    records.push(history.records[21].clone());
    let directory = history.forge(&pki.log, &records);
    let error = with_floor(&directory, pki, &history.kept).unwrap_err();
    assert!(matches!(error.reason, Reason::Root { size: 22 }), "{error}");
}

#[test]
fn a_removed_record_leaves_a_gap() {
    let history = history();
    let pki = &history.pki;
    let mut records = history.records.clone();
    records.remove(15);
    let directory = history.forge(&pki.log, &records);
    for checkpoint in [None, Some(&history.kept)] {
        if let Some(kept) = checkpoint {
            fs::write(directory.join("checkpoint"), kept).unwrap();
        }
        let error = verify(&directory, pki).unwrap_err();
        assert_eq!(error.place, Place::Record { index: 15 });
        assert!(
            matches!(error.reason, Reason::Elsewhere { found: 16, .. }),
            "{error}"
        );
    }
}

/// A cosignature behind the signed head, over records that no hash file covers, could be of any history.
#[test]
fn a_cosignature_that_nothing_can_be_compared_with_does_not_count() {
    let history = history();
    let pki = &history.pki;
    let records = history.changed(3);
    let directory = history.forge(&pki.log, &records);
    let mut range = CompactRange::new();
    for record in &records[..6] {
        range.append(leaf_hash(record.as_bytes()), |_, _| ());
    }
    let head = Checkpoint {
        origin: LOG.into(),
        size: 6,
        root: range.root(),
    };
    let note = head.sign(&pki.log.note_signer().unwrap()).unwrap();
    fs::write(directory.join("checkpoint"), note).unwrap();
    let error = verify(&directory, pki).unwrap_err();
    assert!(
        matches!(error.reason, Reason::CosignedRoot { size: COSIGNED }),
        "{error}"
    );
    let hashes = directory.join(FileId::Hashes(0).to_string());
    let all = fs::read(&hashes).unwrap();
    fs::write(&hashes, &all[..6 * 32]).unwrap();
    let report = verify(&directory, pki).unwrap();
    assert_eq!((report.size, report.tail.records), (6, 16));
    assert_eq!((report.cosigned, report.cosignatures), (None, 0));
    assert_eq!(report.uncosigned, 6);
}
