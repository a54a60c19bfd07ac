//! Reads the records of a log's directory without opening the log: its writer may be running.
//!
//! Every frame is checked against its own digest, which finds damage but proves nothing; that is
//! what `log verify` is for. What does not read at the very end is taken for a batch that is being
//! written, or was cut off.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use agentca_auditlog::frame::{self, HEADER_LEN, Header};

/// Why records can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("could not read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is not the directory of a log, it has no segments", .0.display())]
    NotALog(PathBuf),
    #[error("{} is damaged at byte {offset}, `agentca log verify` says more", path.display())]
    Damaged { path: PathBuf, offset: u64 },
}

/// Records from some index on, a batch at a time.
#[derive(Debug)]
pub(crate) struct Reader {
    segments: PathBuf,
    next: u64,
    place: Option<Place>,
}

/// Where the next frame begins.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    file: File,
    offset: u64,
}

/// A record and its index.
pub(crate) type Indexed = (u64, Vec<u8>);

impl Reader {
    /// From record `from` of the log in `dir`.
    pub(crate) fn open(dir: &Path, from: u64) -> Result<Self, ReadError> {
        let segments = dir.join("segments");
        if !segments.is_dir() {
            return Err(ReadError::NotALog(dir.to_owned()));
        }
        Ok(Self {
            segments,
            next: from,
            place: None,
        })
    }

    /// The next records, none of them twice; `None` when there are no more for now.
    pub(crate) fn batch(&mut self) -> Result<Option<Vec<Indexed>>, ReadError> {
        loop {
            if self.place.is_none() {
                let Some((_, path)) = self.firsts()?.into_iter().rfind(|(f, _)| *f <= self.next)
                else {
                    return Ok(None);
                };
                self.place = Some(Place::at_start(path)?);
            }
            let Some(mut place) = self.place.take() else {
                return Ok(None);
            };
            match place.frame()? {
                Some((header, payload)) if header.end() > self.next => {
                    self.place = Some(place);
                    let records = (header.first..).zip(frame::records(&payload));
                    let records = records.filter(|(index, _)| *index >= self.next);
                    let batch = records
                        .map(|(index, bytes)| (index, bytes.to_vec()))
                        .collect();
                    self.next = header.end();
                    return Ok(Some(batch));
                }
                Some(_) => self.place = Some(place),
                None => {
                    let mut firsts = self.firsts()?.into_iter();
                    let Some((first, path)) = firsts.find(|(_, path)| *path > place.path) else {
                        self.place = Some(place);
                        return Ok(None);
                    };
                    // The writer finishes a segment before it begins another.
                    if first != self.next {
                        return Err(place.damaged());
                    }
                    self.place = Some(Place::at_start(path)?);
                }
            }
        }
    }

    /// The segments with their first indices, in order.
    fn firsts(&self) -> Result<Vec<(u64, PathBuf)>, ReadError> {
        let mut firsts = Vec::new();
        for entry in fs::read_dir(&self.segments).map_err(failed(&self.segments))? {
            let path = entry.map_err(failed(&self.segments))?.path();
            let first = path
                .file_name()
                .and_then(|n| n.to_str())
                .and_then(|n| n.parse().ok());
            firsts.extend(first.map(|first| (first, path)));
        }
        firsts.sort();
        Ok(firsts)
    }
}

impl Place {
    fn at_start(path: PathBuf) -> Result<Self, ReadError> {
        let file = File::open(&path).map_err(failed(&path))?;
        Ok(Self {
            path,
            file,
            offset: 0,
        })
    }

    /// The frame here, if it is whole; then here is behind it.
    fn frame(&mut self) -> Result<Option<(Header, Vec<u8>)>, ReadError> {
        let mut head = [0; HEADER_LEN];
        if !self.fill(self.offset, &mut head)? {
            return Ok(None);
        }
        let Ok(header) = Header::decode(&head) else {
            return Ok(None);
        };
        let begin = self.offset.saturating_add(HEADER_LEN as u64);
        let mut payload = vec![0; header.payload_len()];
        if !self.fill(begin, &mut payload)? {
            return Ok(None);
        }
        if header.check(&mut payload, &mut Vec::new()).is_err() {
            return Ok(None);
        }
        self.offset = begin.saturating_add(u64::from(header.length));
        Ok(Some((header, payload)))
    }

    fn damaged(&self) -> ReadError {
        ReadError::Damaged {
            path: self.path.clone(),
            offset: self.offset,
        }
    }

    fn fill(&mut self, offset: u64, bytes: &mut [u8]) -> Result<bool, ReadError> {
        let read = self
            .file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.file.read_exact(bytes));
        match read {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(failed(&self.path)(e)),
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    let path = path.to_owned();
    move |source| ReadError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentca_auditlog::merkle::leaf_hash;

    fn frame(first: u64, records: &[&[u8]]) -> Vec<u8> {
        let leaves: Vec<_> = records.iter().map(|r| leaf_hash(r)).collect();
        let mut payload = Vec::new();
        for record in records {
            payload.extend(u16::try_from(record.len()).unwrap().to_be_bytes());
            payload.extend(*record);
        }
        let length = u32::try_from(payload.len()).unwrap();
        [&Header::new(first, &leaves, length).encode()[..], &payload].concat()
    }

    fn log(segments: &[(u64, Vec<u8>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("segments")).unwrap();
        for (first, bytes) in segments {
            fs::write(dir.path().join(format!("segments/{first:020}")), bytes).unwrap();
        }
        dir
    }

    fn all(dir: &Path, from: u64) -> Result<Vec<u64>, ReadError> {
        let mut reader = Reader::open(dir, from)?;
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
    }

    #[test]
    fn a_torn_end_is_the_end_until_it_is_whole() {
        let (whole, last) = (frame(0, &[b"a"]), frame(1, &[b"b"]));
        let dir = log(&[(0, [&whole[..], &last[..last.len() - 1]].concat())]);
        let mut reader = Reader::open(dir.path(), 0).unwrap();
        assert_eq!(reader.batch().unwrap().unwrap(), [(0, b"a".to_vec())]);
        assert!(reader.batch().unwrap().is_none());
        let path = dir.path().join(format!("segments/{:020}", 0));
        fs::write(path, [&whole[..], &last].concat()).unwrap();
        assert_eq!(reader.batch().unwrap().unwrap(), [(1, b"b".to_vec())]);
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
            Err(ReadError::Damaged { offset: 67, .. })
        ));
        assert!(matches!(
            Reader::open(&dir.path().join("x"), 0),
            Err(ReadError::NotALog(_))
        ));
    }
}
