//! Reading an open log: records, proofs, tiles.

use std::collections::VecDeque;
use std::sync::Arc;

use super::segments::{self, Frame, ReadError};
use super::{Log, Shared, levels};
use crate::merkle::proof::{self, MakeError};
use crate::merkle::{Hash, tile};
use crate::store::StoreError;

impl Log {
    /// The bytes of record `index`, if it is durable.
    ///
    /// # Errors
    /// [`ReadError`] when what lies on disk is not what was written.
    pub fn record(&self, index: u64) -> Result<Option<Vec<u8>>, ReadError> {
        if index >= self.durable() {
            return Ok(None);
        }
        let frame = self
            .shared
            .segments
            .frame(self.shared.store.as_ref(), index)?;
        let record = frame.records().find(|(at, _)| *at == index);
        Ok(record.map(|(_, bytes)| bytes.to_vec()))
    }

    /// Durable records from index `from` on, oldest first. It ends after the newest durable record,
    /// and goes on when asked again after more became durable.
    #[must_use]
    pub fn scan(&self, from: u64) -> Scan {
        Scan {
            shared: Arc::clone(&self.shared),
            next: from,
            place: None,
            records: VecDeque::new(),
        }
    }

    /// Durable records before index `before`, newest first.
    #[must_use]
    pub fn scan_back(&self, before: u64) -> ScanBack {
        let before = before.min(self.durable());
        ScanBack {
            shared: Arc::clone(&self.shared),
            before,
            places: Vec::new(),
            frame: Vec::new(),
        }
    }

    /// The root over the first `size` records, at most the published size.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn root_at(&self, size: u64) -> Result<Hash, ReadError> {
        self.published(size)?;
        Ok(proof::root(size, |height, index| self.node(height, index))?)
    }

    /// The proof that record `index` is in the tree of `size` records, at most the published size.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
        self.published(size)?;
        Ok(proof::inclusion(index, size, |height, index| {
            self.node(height, index)
        })?)
    }

    /// The proof that the tree of `old` records is a prefix of that of `new`, at most the published
    /// size.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, ReadError> {
        self.published(new)?;
        Ok(proof::consistency(old, new, |height, index| {
            self.node(height, index)
        })?)
    }

    /// The bytes of a hash tile of `width` hashes, if the published tree has that many there.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn hash_tile(
        &self,
        level: u8,
        index: u64,
        width: u16,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let size = self.checkpoint().checkpoint.size;
        let first = index.checked_mul(u64::from(tile::TILE_WIDTH));
        let end = first.and_then(|first| first.checked_add(u64::from(width)));
        match (first, end) {
            (Some(first), Some(end))
                if (1..=tile::TILE_WIDTH).contains(&width)
                    && end <= tile::level_width(level, size) =>
            {
                let store = self.shared.store.as_ref();
                let hashes = levels::read(store, level, first, u64::from(width))?;
                Ok(Some(hashes.into_flattened()))
            }
            _ => Ok(None),
        }
    }

    fn node(&self, height: u32, index: u64) -> Result<Hash, StoreError> {
        levels::node(self.shared.store.as_ref(), height, index)
    }

    fn published(&self, asked: u64) -> Result<(), ReadError> {
        let size = self.checkpoint().checkpoint.size;
        if asked > size {
            Err(ReadError::OutOfRange { asked, size })
        } else {
            Ok(())
        }
    }
}

impl From<MakeError<StoreError>> for ReadError {
    fn from(error: MakeError<StoreError>) -> Self {
        match error {
            MakeError::OutOfRange { asked, size } => Self::OutOfRange { asked, size },
            MakeError::Read(error) => Self::Store(error),
        }
    }
}

/// Records with their indices, oldest first; see [`Log::scan`].
#[derive(Debug)]
pub struct Scan {
    shared: Arc<Shared>,
    next: u64,
    /// The frame that was read last, and those of its records that are still to come.
    place: Option<segments::Place>,
    records: VecDeque<Vec<u8>>,
}

impl Scan {
    fn fill(&mut self) -> Result<(), ReadError> {
        let store = self.shared.store.as_ref();
        let segments = &self.shared.segments;
        let place = match &self.place {
            Some(place) => segments.after(store, place, self.next)?,
            None => {
                let missing = ReadError::Missing { index: self.next };
                segments.around(store, self.next)?.pop().ok_or(missing)?
            }
        };
        let frame = segments::read(store, &place)?;
        let records = frame.records().filter(|(index, _)| *index >= self.next);
        self.records
            .extend(records.map(|(_, bytes)| bytes.to_vec()));
        self.place = Some(place);
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<(u64, Vec<u8>), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.shared.durable() {
            return None;
        }
        if self.records.is_empty()
            && let Err(e) = self.fill()
        {
            return Some(Err(e));
        }
        let record = self.records.pop_front()?;
        let index = self.next;
        self.next += 1;
        Some(Ok((index, record)))
    }
}

/// Records with their indices, newest first; see [`Log::scan_back`].
#[derive(Debug)]
pub struct ScanBack {
    shared: Arc<Shared>,
    before: u64,
    places: Vec<segments::Place>,
    /// Records of the frame that was read last, oldest first.
    frame: Vec<(u64, Vec<u8>)>,
}

impl ScanBack {
    fn fill(&mut self) -> Result<(), ReadError> {
        let store = self.shared.store.as_ref();
        if self.places.is_empty() {
            self.places = self.shared.segments.around(store, self.before - 1)?;
        }
        if let Some(place) = self.places.pop() {
            let frame: Frame = segments::read(store, &place)?;
            let records = frame.records().filter(|(index, _)| *index < self.before);
            self.frame = records
                .map(|(index, bytes)| (index, bytes.to_vec()))
                .collect();
        }
        Ok(())
    }
}

impl Iterator for ScanBack {
    type Item = Result<(u64, Vec<u8>), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.before == 0 {
            return None;
        }
        if self.frame.is_empty()
            && let Err(e) = self.fill()
        {
            self.before = 0;
            return Some(Err(e));
        }
        let (index, record) = self.frame.pop()?;
        self.before = index;
        Some(Ok((index, record)))
    }
}
