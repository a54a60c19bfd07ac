//! The records of a log's directory, read without opening the log: its writer may be running.
//!
//! Every frame is checked against its own digest, which finds damage but proves nothing; that is
//! what [`crate::verify`] is for. What does not read at the very end is taken for a batch that is
//! being written, or was cut off.

use std::path::Path;

use super::segments::{self, Frame, Place, ReadError, frame_len};
use crate::store::{FileId, FileStore};

/// Records from some index on, a batch at a time.
#[derive(Debug)]
pub struct Reader {
    store: FileStore,
    /// The first record that was not handed out yet.
    next: u64,
    place: Option<Next>,
}

/// A record's index and its bytes.
pub type Indexed = (u64, Vec<u8>);

/// Where the next frame begins, and with which record.
#[derive(Clone, Copy, Debug)]
struct Next {
    segment: u64,
    offset: u64,
    first: u64,
}

impl Next {
    fn at_start(segment: u64) -> Self {
        Self {
            segment,
            offset: 0,
            first: segment,
        }
    }
}

impl Reader {
    /// From record `from` of the log in `directory`.
    #[must_use]
    pub fn new(directory: &Path, from: u64) -> Self {
        Self {
            store: FileStore::inspect(directory),
            next: from,
            place: None,
        }
    }

    /// The next records, none of them twice; `None` when there are no more for now.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::Damaged`] for what does not read before the end.
    pub fn batch(&mut self) -> Result<Option<Vec<Indexed>>, ReadError> {
        loop {
            let Some(place) = self.place()? else {
                return Ok(None);
            };
            let Some(frame) = self.frame(place)? else {
                return Ok(None);
            };
            if frame.header.end() <= self.next {
                continue;
            }
            let new = frame.records().filter(|(index, _)| *index >= self.next);
            let batch = new.map(|(index, bytes)| (index, bytes.to_vec())).collect();
            self.next = frame.header.end();
            return Ok(Some(batch));
        }
    }

    /// The index after the last record in the log, as far as that was read: when [`Reader::batch`] gave
    /// none, the number of records there are.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.place.map_or(0, |place| place.first)
    }

    /// Where to go on: in the newest segment that begins no later than the record asked for.
    fn place(&mut self) -> Result<Option<Next>, ReadError> {
        if self.place.is_none() {
            let segments = self.store.segments()?;
            let before = segments.into_iter().rfind(|first| *first <= self.next);
            self.place = before.map(Next::at_start);
        }
        Ok(self.place)
    }

    /// The frame at `place` or, behind the last one of a segment, the first of the next segment.
    fn frame(&mut self, place: Next) -> Result<Option<Frame>, ReadError> {
        if let Some(frame) = self.frame_at(place)? {
            return Ok(Some(frame));
        }
        let segments = self.store.segments()?;
        let Some(after) = segments.into_iter().find(|first| *first > place.segment) else {
            return Ok(None);
        };
        // The writer finishes a segment before it begins another: now this one is whole.
        if let Some(frame) = self.frame_at(place)? {
            return Ok(Some(frame));
        }
        if after != place.first {
            let file = FileId::Segment(place.segment);
            let offset = place.offset;
            return Err(ReadError::Damaged { file, offset });
        }
        self.place = Some(Next::at_start(after));
        self.frame_at(Next::at_start(after))
    }

    /// The frame here, if it is whole and the next one; then here is behind it.
    fn frame_at(&mut self, here: Next) -> Result<Option<Frame>, ReadError> {
        let read = Place::find(&self.store, here.segment, here.offset)
            .and_then(|place| segments::read(&self.store, &place));
        let frame = match read {
            Ok(frame) if frame.header.first == here.first => frame,
            Ok(_) | Err(ReadError::Damaged { .. }) => return Ok(None),
            Err(e) => return Err(e),
        };
        self.place = Some(Next {
            offset: here.offset + frame_len(&frame.header),
            first: frame.header.end(),
            ..here
        });
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::Arc;

    use agentca_identity::crypto::{KeyKind, MacKey, PrivateKey};

    use super::*;
    use crate::frame::Header;
    use crate::log::{Log, LogOptions};
    use crate::merkle::leaf_hash;
    use crate::testing::{Pki, stage};

    fn frame(first: u64, records: &[&[u8]]) -> Vec<u8> {
        let leaves: Vec<_> = records.iter().map(|record| leaf_hash(record)).collect();
        let mut payload = Vec::new();
        for record in records {
            payload.extend(u16::try_from(record.len()).unwrap().to_be_bytes());
            payload.extend(*record);
        }
        let length = u32::try_from(payload.len()).unwrap();
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        let key = MacKey::derive(&key, "test").unwrap();
        [
            &Header::new(first, &leaves, length, &key).encode()[..],
            &payload,
        ]
        .concat()
    }

    fn segment(dir: &Path, first: u64) -> PathBuf {
        dir.join(FileId::Segment(first).to_string())
    }

    fn log(segments: &[(u64, Vec<u8>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("segments")).unwrap();
        for (first, bytes) in segments {
            fs::write(segment(dir.path(), *first), bytes).unwrap();
        }
        dir
    }

    fn all(dir: &Path, from: u64) -> Result<Vec<u64>, ReadError> {
        let mut reader = Reader::new(dir, from);
        let mut indices = Vec::new();
        while let Some(batch) = reader.batch()? {
            indices.extend(batch.iter().map(|(index, _)| *index));
        }
        Ok(indices)
    }

    #[test]
    fn across_frames_and_segments_from_anywhere() {
        let first = [frame(0, &[b"a", b"b"]), frame(2, &[b"c"])].concat();
        let dir = log(&[(0, first), (3, frame(3, &[b"d", b"e"]))]);
        for from in 0..=5 {
            assert_eq!(
                all(dir.path(), from).unwrap(),
                (from..5).collect::<Vec<_>>()
            );
        }
        let mut beyond = Reader::new(dir.path(), 90);
        assert!(beyond.batch().unwrap().is_none());
        assert_eq!(beyond.end(), 5);
    }

    #[test]
    fn a_torn_end_is_the_end_until_it_is_whole() {
        let (whole, last) = (frame(0, &[b"a"]), frame(1, &[b"b"]));
        let dir = log(&[(0, [&whole[..], &last[..last.len() - 1]].concat())]);
        let mut reader = Reader::new(dir.path(), 0);
        assert_eq!(reader.batch().unwrap().unwrap(), [(0, b"a".to_vec())]);
        assert!(reader.batch().unwrap().is_none());
        fs::write(segment(dir.path(), 0), [&whole[..], &last].concat()).unwrap();
        assert_eq!(reader.batch().unwrap().unwrap(), [(1, b"b".to_vec())]);
    }

    #[test]
    fn what_the_writer_added_before_it_began_another_segment_is_read() {
        let (whole, last) = (frame(0, &[b"a"]), frame(1, &[b"b"]));
        let dir = log(&[(0, whole.clone())]);
        let mut reader = Reader::new(dir.path(), 0);
        reader.batch().unwrap().unwrap();
        assert!(reader.batch().unwrap().is_none());
        // Both at once, as it looks to a reader that was slow.
        fs::write(segment(dir.path(), 0), [&whole[..], &last].concat()).unwrap();
        fs::write(segment(dir.path(), 2), frame(2, &[b"c"])).unwrap();
        assert_eq!(reader.batch().unwrap().unwrap(), [(1, b"b".to_vec())]);
        assert_eq!(reader.batch().unwrap().unwrap(), [(2, b"c".to_vec())]);
        assert!(reader.batch().unwrap().is_none());
    }

    #[test]
    fn a_running_log_is_followed_across_segments() {
        const RECORDS: u64 = 3000;
        let temp = tempfile::tempdir().unwrap();
        let pki = Pki::new();
        let directory = pki.create(temp.path());
        let store = Arc::new(FileStore::open(&directory).unwrap());
        let options = LogOptions {
            // A few batches each.
            segment_bytes: 1000,
            ..LogOptions::default()
        };
        let (log, _) = Log::open_with(store, &pki.log, options).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while log.durable() < RECORDS {
                    stage(&log, 3);
                }
            });
            let mut reader = Reader::new(&directory, 0);
            let mut next = 0;
            while next < RECORDS {
                for (index, _) in reader.batch().unwrap().unwrap_or_default() {
                    assert_eq!(index, next);
                    next += 1;
                }
            }
        });
    }

    #[test]
    fn damage_before_the_end_is_said() {
        let mut first = [frame(0, &[b"a"]), frame(1, &[b"b"])].concat();
        *first.last_mut().unwrap() ^= 1;
        let dir = log(&[(0, first), (2, frame(2, &[b"c"]))]);
        // The second segment can be read; the first can't be read to its end.
        assert_eq!(all(dir.path(), 2).unwrap(), [2]);
        assert!(matches!(
            all(dir.path(), 0),
            Err(ReadError::Damaged { offset: 99, .. })
        ));
        assert!(matches!(
            all(&dir.path().join("x"), 0),
            Err(ReadError::Store(_))
        ));
    }

    #[test]
    fn a_frame_of_another_place_is_damage() {
        let first = [frame(0, &[b"a"]), frame(2, &[b"c"])].concat();
        let dir = log(&[(0, first), (3, frame(3, &[b"d"]))]);
        assert!(matches!(
            all(dir.path(), 0),
            Err(ReadError::Damaged { offset: 99, .. })
        ));
    }
}
