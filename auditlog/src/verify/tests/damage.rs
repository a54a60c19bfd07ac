//! Bytes and files that are changed, missing or too many.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use super::*;
use crate::frame::{HEADER_LEN, Header};

/// Flips bits of each byte of `file`, one flip at a time.
fn each_byte_counts(directory: &Path, pki: &Pki, file: &Path, flips: impl Fn(usize) -> Vec<u8>) {
    let good = fs::read(file).unwrap();
    // In place: a file that is cut and written again takes the disk each time.
    let open = OpenOptions::new().write(true).open(file).unwrap();
    let put = |at: usize, byte: u8| {
        let at = u64::try_from(at).unwrap();
        open.write_all_at(&[byte], at).unwrap();
    };
    for (at, byte) in good.iter().enumerate() {
        for flip in flips(at) {
            put(at, byte ^ flip);
            let verified = verify(directory, pki);
            assert!(verified.is_err(), "{} at {at}", file.display());
        }
        put(at, *byte);
    }
    verify(directory, pki).unwrap();
}

fn one_bit(at: usize) -> Vec<u8> {
    vec![1 << (at % 8)]
}

fn every_bit(_: usize) -> Vec<u8> {
    (0..8).map(|bit| 1 << bit).collect()
}

#[test]
fn every_flipped_byte_is_found() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.written_log(temp.path(), 12);
    assert_eq!(files(&directory).len(), 4, "two segments, one level");
    for file in files(&directory) {
        each_byte_counts(&directory, &pki, &file, one_bit);
    }
}

#[test]
fn every_flipped_byte_of_two_levels_of_hashes_is_found() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.written_log(temp.path(), 260);
    for level in [0, 1] {
        let file = directory.join(FileId::Hashes(level).to_string());
        each_byte_counts(&directory, &pki, &file, one_bit);
    }
}

#[test]
fn every_flipped_bit_of_the_checkpoint_is_found() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.written_log(temp.path(), 12);
    each_byte_counts(&directory, &pki, &directory.join("checkpoint"), every_bit);
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

/// Where the frames of a segment begin, and where the last one ends.
fn frames(segment: &[u8]) -> Vec<usize> {
    let mut begins = vec![0];
    let mut at = 0;
    while let Some(header) = segment[at..].first_chunk() {
        at += HEADER_LEN + Header::decode(header).unwrap().payload_len();
        begins.push(at);
    }
    begins
}

#[test]
fn a_log_shorter_than_its_checkpoint_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.written_log(temp.path(), 60);
    let refused = |found| {
        let error = verify(&directory, &pki).unwrap_err();
        assert_eq!(error.place, Place::Checkpoint, "{error}");
        let Reason::Shorter { size, found: says } = error.reason else {
            panic!("{error}");
        };
        assert_eq!((size, says), (60, found));
    };
    let newest = files(&directory)
        .into_iter()
        .filter(|file| file.parent().unwrap().ends_with("segments"))
        .max()
        .unwrap();
    let whole = fs::read(&newest).unwrap();
    let begins = frames(&whole);
    let last = begins[begins.len() - 2];
    let header = Header::decode(whole[last..].first_chunk().unwrap()).unwrap();
    fs::write(&newest, &whole[..last]).unwrap();
    refused(header.first);
    fs::remove_file(&newest).unwrap();
    let first = newest.file_name().unwrap().to_str().unwrap();
    refused(first.parse().unwrap());
}

/// Behind the checkpoint no signature says what belongs there: only what a crash leaves passes.
#[test]
fn behind_the_checkpoint_one_torn_batch_passes_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    let early = log.publish_now().unwrap().note.clone();
    for _ in 0..3 {
        stage(&log, 2);
    }
    drop(log);
    fs::write(directory.join("checkpoint"), early).unwrap();
    let segment = directory.join(FileId::Segment(0).to_string());
    let whole = fs::read(&segment).unwrap();
    let begins = frames(&whole);
    let tail = |bytes: &[u8]| {
        fs::write(&segment, bytes).unwrap();
        verify(&directory, &pki).map(|report| (report.tail.records, report.tail.torn_bytes))
    };
    let length = |bytes: usize| u64::try_from(bytes).unwrap();
    let last = begins[begins.len() - 2];
    let end = whole.len();
    // Two records were staged at a time, but the committer may have taken the first alone.
    let header = Header::decode(whole[last..].first_chunk().unwrap()).unwrap();
    let before = 6 - u64::from(header.count);
    assert_eq!(tail(&whole).unwrap(), (6, 0));
    for cut in last + 1..end {
        // The hash files go on behind it, which a crash between batch and hash files cannot leave.
        assert!(tail(&whole[..cut]).is_err(), "cut at {cut}");
    }
    let hashes = directory.join(FileId::Hashes(0).to_string());
    let covered = fs::read(&hashes).unwrap();
    fs::write(&hashes, &covered[..32]).unwrap();
    for cut in last + 1..end {
        let left = &whole[last..cut];
        let zeros = left.iter().rev().take_while(|byte| **byte == 0).count();
        let torn = length(left.len() - zeros);
        assert_eq!(tail(&whole[..cut]).unwrap(), (before, torn), "cut at {cut}");
    }
    assert_eq!(tail(&[&whole[..], b"x"].concat()).unwrap(), (6, 1));
    // Room that a running writer made, before and behind a batch that a crash tore.
    assert_eq!(tail(&[&whole[..], &[0; 5000]].concat()).unwrap(), (6, 0));
    let torn = [&whole[..], &[0; 90], b"x", &[0; 90]].concat();
    assert_eq!(tail(&torn).unwrap(), (6, 91));
    // Records after zeros were not written by this log.
    let hidden = [&whole[..last], &[0; 90], &whole[last..]].concat();
    assert!(tail(&hidden).is_ok_and(|(records, _)| records < 6));
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    assert_eq!(
        tail(&flipped(end - 1)).unwrap(),
        (before, length(end - last)),
        "a damaged last batch and a torn one look the same"
    );
    // Damage with a sound batch behind it is no crash's.
    for at in begins[begins.len() - 3]..last {
        assert!(tail(&flipped(at)).is_err(), "flipped at {at}");
    }
    let again = [&whole[..], b"x", &whole[last..]].concat();
    assert_eq!(
        tail(&again).unwrap(),
        (6, length(again.len() - end)),
        "a batch that was there before is not a later one"
    );
}
