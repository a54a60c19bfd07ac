//! Reading records back: where frames lie, found again by hopping over headers.
//!
//! A frame is small and there may be billions, so only one mark per [`MARK_EVERY`] bytes is kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::frame::{self, HEADER_LEN, Header};
use crate::store::{FileId, Store, StoreError};

/// Where frames begin.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    /// By the index of the first record.
    marks: Mutex<BTreeMap<u64, Marks>>,
}

/// Some frames of one segment, in order.
#[derive(Debug, Default, Clone)]
struct Marks {
    /// (first record, offset). Empty until the segment is first looked at.
    known: Vec<(u64, u64)>,
}

/// A frame with its place and its checked payload.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
}

/// The place of one frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    segment: u64,
    offset: u64,
    header: Header,
}

impl Place {
    /// The frame that begins at `offset` of the segment whose first record is `segment`.
    pub(crate) fn find(store: &dyn Store, segment: u64, offset: u64) -> Result<Self, ReadError> {
        Ok(Self {
            segment,
            offset,
            header: header_at(store, segment, offset)?,
        })
    }
}

impl Segments {
    pub(crate) fn new(firsts: impl IntoIterator<Item = u64>) -> Self {
        let marks = firsts
            .into_iter()
            .map(|first| (first, Marks::default()))
            .collect();
        Self {
            marks: Mutex::new(marks),
        }
    }

    /// Takes note of a frame that was written, or read on the way.
    pub(crate) fn note(&self, segment: u64, first: u64, offset: u64) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut marks.entry(segment).or_default().known;
        if known
            .last()
            .is_none_or(|(_, last)| *last + MARK_EVERY <= offset)
        {
            // Marks must begin at the segment's start to be of use.
            if offset == 0 || !known.is_empty() {
                known.push((first, offset));
            }
        }
    }

    /// The frames between the mark before `index` and the next mark, those up to the one with
    /// `index`, in order. `index` must be durable.
    pub(crate) fn around(&self, store: &dyn Store, index: u64) -> Result<Vec<Place>, ReadError> {
        let (segment, next) = self.segment_of(index)?;
        self.load(store, segment)?;
        let (_, mut offset) = self.mark_before(segment, index)?;
        let mut places = Vec::new();
        loop {
            let place = Place::find(store, segment, offset)?;
            let header = place.header;
            places.push(place);
            offset += frame_len(&header);
            if header.end() > index || next.is_some_and(|next| header.end() >= next) {
                return Ok(places);
            }
        }
    }

    /// The frame that begins with record `first` and follows the one at `place`; `first` must be durable.
    pub(crate) fn after(
        &self,
        store: &dyn Store,
        place: &Place,
        first: u64,
    ) -> Result<Place, ReadError> {
        let rolled = {
            let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            first != place.segment && marks.contains_key(&first)
        };
        let (segment, offset) = if rolled {
            (first, 0)
        } else {
            (place.segment, place.offset + frame_len(&place.header))
        };
        let place = Place::find(store, segment, offset)?;
        if place.header.first == first {
            Ok(place)
        } else {
            Err(ReadError::Damaged {
                file: FileId::Segment(segment),
                offset,
            })
        }
    }

    /// The frame that holds `index`, which must be durable.
    pub(crate) fn frame(&self, store: &dyn Store, index: u64) -> Result<Frame, ReadError> {
        let places = self.around(store, index)?;
        let place = places.last().filter(|place| place.header.end() > index);
        read(store, place.ok_or(ReadError::Missing { index })?)
    }

    fn segment_of(&self, index: u64) -> Result<(u64, Option<u64>), ReadError> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, _) = marks
            .range(..=index)
            .next_back()
            .ok_or(ReadError::Missing { index })?;
        let next = marks.range(index + 1..).next().map(|(first, _)| *first);
        Ok((*first, next))
    }

    /// Hops through a segment that was not looked at since the log was opened.
    fn load(&self, store: &dyn Store, segment: u64) -> Result<(), ReadError> {
        let loaded = |marks: &BTreeMap<u64, Marks>| {
            marks
                .get(&segment)
                .is_some_and(|marks| !marks.known.is_empty())
        };
        if loaded(&self.marks.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let length = store.len(FileId::Segment(segment))?;
        let mut found = Marks::default();
        let (mut offset, mut next) = (0, segment);
        while offset < length {
            if found
                .known
                .last()
                .is_none_or(|(_, last)| *last + MARK_EVERY <= offset)
            {
                found.known.push((next, offset));
            }
            let header = match header_at(store, segment, offset) {
                Ok(header) => header,
                // The room or the torn batch at a log's end. If it is damage before that, who seeks a
                // record from there on comes upon it.
                Err(ReadError::Damaged { .. }) => break,
                Err(e) => return Err(e),
            };
            offset += frame_len(&header);
            next = header.end();
        }
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if !loaded(&marks) {
            marks.insert(segment, found);
        }
        Ok(())
    }

    fn mark_before(&self, segment: u64, index: u64) -> Result<(u64, u64), ReadError> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let known = marks.get(&segment).map_or(&[][..], |marks| &marks.known);
        let after = known.partition_point(|(first, _)| *first <= index);
        let mark = after.checked_sub(1).and_then(|at| known.get(at));
        mark.copied().ok_or(ReadError::Missing { index })
    }
}

/// Reads and checks the frame at `place`.
pub(crate) fn read(store: &dyn Store, place: &Place) -> Result<Frame, ReadError> {
    let Place {
        segment,
        offset,
        header,
    } = *place;
    let file = FileId::Segment(segment);
    let mut payload = vec![0; header.payload_len()];
    let begin = offset + HEADER_BYTES;
    let read = store.read_at(file, begin, &mut payload)?;
    let whole = read == payload.len();
    if !whole || header.check(&mut payload, &mut Vec::new()).is_err() {
        return Err(ReadError::Damaged { file, offset });
    }
    Ok(Frame { header, payload })
}

/// Bytes a frame takes.
pub(crate) fn frame_len(header: &Header) -> u64 {
    HEADER_BYTES + u64::from(header.length)
}

impl Frame {
    /// The records with their indices.
    pub(crate) fn records(&self) -> impl Iterator<Item = (u64, &[u8])> {
        (self.header.first..).zip(frame::records(&self.payload))
    }
}

fn header_at(store: &dyn Store, segment: u64, offset: u64) -> Result<Header, ReadError> {
    let file = FileId::Segment(segment);
    let mut bytes = [0; HEADER_LEN];
    let read = store.read_at(file, offset, &mut bytes)?;
    match Header::decode(&bytes) {
        Ok(header) if read == HEADER_LEN => Ok(header),
        _ => Err(ReadError::Damaged { file, offset }),
    }
}

/// Why durable records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A frame is damaged.
    #[error("{file} is damaged at byte {offset}: restore it from a backup or a replica")]
    Damaged {
        /// The file.
        file: FileId,
        /// Where the frame begins.
        offset: u64,
    },
    /// No segment has the record.
    #[error("no segment has record {index}")]
    Missing {
        /// The record.
        index: u64,
    },
    /// Not inside the published tree.
    #[error("{asked} is not inside the published tree of {size} records")]
    OutOfRange {
        /// The index or size asked for.
        asked: u64,
        /// The published size.
        size: u64,
    },
}

const MARK_EVERY: u64 = 256 << 10;
const HEADER_BYTES: u64 = 96;
