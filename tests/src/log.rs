//! Reading a log's directory, to look at what was recorded.

use std::path::Path;

use serde_json::Value;

use crate::program::bytes_of;

/// Every whole record of a log, in order; a torn tail is left out.
pub fn records(log: &Path) -> Vec<Value> {
    let texts = raw_records(log);
    let read = |(index, text): (usize, &Vec<u8>)| {
        serde_json::from_slice(text).unwrap_or_else(|error| panic!("record {index}: {error}"))
    };
    texts.iter().enumerate().map(read).collect()
}

/// The bytes of every whole record.
pub fn raw_records(log: &Path) -> Vec<Vec<u8>> {
    let mut segments: Vec<_> = std::fs::read_dir(log.join("segments"))
        .unwrap_or_else(|error| panic!("{}: {error}", log.display()))
        .map(|entry| entry.expect("a segment").path())
        .collect();
    segments.sort();
    let mut records = Vec::new();
    for segment in segments {
        let data = bytes_of(&segment);
        let mut rest = data.as_slice();
        while let Some((header, after)) = rest.split_at_checked(96) {
            if header.iter().all(|byte| *byte == 0) {
                // Room that a running writer made.
                break;
            }
            let length = u32::from_be_bytes([header[20], header[21], header[22], header[23]]);
            let length = usize::try_from(length).expect("a length");
            let Some((mut payload, after)) = after.split_at_checked(length) else {
                break;
            };
            assert_eq!(&header[..8], b"agcalog\x01", "{}", segment.display());
            while let Some((size, after)) = payload.split_at_checked(2) {
                let (record, after) =
                    after.split_at(usize::from(u16::from_be_bytes([size[0], size[1]])));
                records.push(record.to_vec());
                payload = after;
            }
            rest = after;
        }
    }
    records
}

/// The records of one kind.
pub fn of_kind(log: &Path, kind: &str) -> Vec<Value> {
    let mut found = records(log);
    found.retain(|record| record["kind"] == kind);
    found
}
