//! The segments, streamed.

use super::violation::{Reason, Violation};
use super::{Verifier, segment_firsts};
use crate::frame::{self, FrameError, HEADER_LEN, Header};
use crate::merkle::Hash;
use crate::store::{FileId, FileStore, Store as _};

/// Reads every segment in order and hands its records to `verifier`: the bytes of a torn tail.
pub(super) fn read(
    store: &FileStore,
    files: &[FileId],
    verifier: &mut Verifier<'_>,
) -> Result<u64, Violation> {
    let firsts: Vec<u64> = segment_firsts(files).collect();
    if firsts.first() != Some(&0) {
        return Err(Violation::at(FileId::Segment(0), 0, Reason::Missing));
    }
    let mut torn = 0;
    let mut reader = Reader {
        store,
        leaves: Vec::new(),
        buffer: Vec::new(),
    };
    for (at, first) in firsts.iter().enumerate() {
        let last = at + 1 == firsts.len();
        torn = reader.segment(*first, last, verifier)?;
    }
    Ok(torn)
}

struct Reader<'a> {
    store: &'a FileStore,
    leaves: Vec<Hash>,
    buffer: Vec<u8>,
}

/// The part of a file that is in memory.
struct Window {
    file: FileId,
    /// The offset of the buffer's first byte.
    begin: u64,
    /// Where the next frame begins in the buffer.
    at: usize,
    /// Whether the file ends with the buffer.
    ended: bool,
}

impl Window {
    fn offset(&self) -> u64 {
        self.begin + u64::try_from(self.at).unwrap_or(0)
    }
}

impl Reader<'_> {
    fn segment(
        &mut self,
        first: u64,
        last: bool,
        verifier: &mut Verifier<'_>,
    ) -> Result<u64, Violation> {
        let file = FileId::Segment(first);
        let mut window = Window {
            file,
            begin: 0,
            at: 0,
            ended: false,
        };
        self.buffer.clear();
        if verifier.next() != first {
            return Err(Violation::at(
                file,
                0,
                Reason::Batch {
                    next: verifier.next(),
                },
            ));
        }
        loop {
            match self.frame(&mut window, verifier)? {
                Step::Frame => {}
                Step::End => return Ok(0),
                Step::Unsound => return self.judge_tail(&mut window, last, verifier),
            }
        }
    }

    /// Takes the next frame.
    fn frame(
        &mut self,
        window: &mut Window,
        verifier: &mut Verifier<'_>,
    ) -> Result<Step, Violation> {
        self.fill(window, HEADER_LEN)?;
        let rest = self.buffer.get(window.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(Step::End);
        }
        let Some(header) = rest
            .first_chunk()
            .and_then(|bytes| Header::decode(bytes).ok())
        else {
            return Ok(Step::Unsound);
        };
        if header.first != verifier.next() {
            return Ok(Step::Unsound);
        }
        let end = HEADER_LEN + header.payload_len();
        self.fill(window, end)?;
        self.leaves.clear();
        let begin = window.at + HEADER_LEN;
        let checked = match self.buffer.get_mut(begin..window.at + end) {
            Some(payload) => header.check(payload, &mut self.leaves),
            None => Err(FrameError::Short),
        };
        if checked.is_err() {
            return Ok(Step::Unsound);
        }
        let payload = self.buffer.get(begin..window.at + end).unwrap_or_default();
        for (leaf, record) in self.leaves.iter().zip(frame::records(payload)) {
            verifier.take(*leaf, record)?;
        }
        window.at += end;
        Ok(Step::Frame)
    }

    /// Reads on until `wanted` bytes from the present place on are there, or the file ends.
    fn fill(&mut self, window: &mut Window, wanted: usize) -> Result<(), Violation> {
        if window.ended || self.buffer.len() - window.at >= wanted {
            return Ok(());
        }
        self.buffer.drain(..window.at);
        window.begin += u64::try_from(window.at).unwrap_or(0);
        window.at = 0;
        let have = self.buffer.len();
        self.buffer.resize(wanted.max(READ), 0);
        let offset = window.begin + u64::try_from(have).unwrap_or(0);
        let place = self.buffer.get_mut(have..).unwrap_or_default();
        let room = place.len();
        let read = self.store.read_at(window.file, offset, place);
        let read = read.map_err(Violation::unreadable)?;
        self.buffer.truncate(have + read);
        window.ended = read < room;
        Ok(())
    }

    /// Whether what is left may be a batch that was being written: its bytes.
    fn judge_tail(
        &mut self,
        window: &mut Window,
        last: bool,
        verifier: &Verifier<'_>,
    ) -> Result<u64, Violation> {
        self.fill(window, frame::MAX_TORN + 1)?;
        let rest = self.buffer.get(window.at..).unwrap_or_default();
        let next = verifier.next();
        let torn = frame::torn(rest, next).filter(|_| last && !verifier.is_covered());
        match torn {
            Some(bytes) => Ok(u64::try_from(bytes).unwrap_or(0)),
            None => Err(Violation::at(
                window.file,
                window.offset(),
                Reason::Batch { next },
            )),
        }
    }
}

enum Step {
    Frame,
    End,
    Unsound,
}

const READ: usize = 1 << 20;
