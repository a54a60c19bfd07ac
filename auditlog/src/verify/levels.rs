//! The hash files, read in step with the records.

use std::cell::RefCell;

use super::violation::{Place, Reason, Violation};
use crate::log::levels::{HASH_BYTES, node};
use crate::merkle::proof::root;
use crate::merkle::{Hash, tile};
use crate::store::{FileId, FileStore, Store as _};

/// Every hash file as long as it was when the verification began.
#[derive(Debug)]
pub(super) struct Levels<'a> {
    store: &'a FileStore,
    files: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    file: FileId,
    length: u64,
    /// Hashes compared so far.
    compared: u64,
    buffer: RefCell<Buffer>,
}

#[derive(Debug, Default)]
struct Buffer {
    begin: u64,
    bytes: Vec<u8>,
}

impl<'a> Levels<'a> {
    pub(super) fn open(store: &'a FileStore, present: &[FileId]) -> Result<Self, Violation> {
        let files = (0..LEVELS)
            .map(|level| {
                let file = FileId::Hashes(level);
                let length = match present.contains(&file) {
                    true => store.len(file).map_err(Violation::unreadable)?,
                    false => 0,
                };
                Ok(Level {
                    file,
                    length,
                    compared: 0,
                    buffer: RefCell::default(),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { store, files })
    }

    /// Compares a hash with its place in the file. Under the checkpoint it must be there.
    pub(super) fn compare(
        &mut self,
        height: u32,
        index: u64,
        hash: &Hash,
        covered: bool,
    ) -> Result<(), Violation> {
        let level = tile::level_of(height).map(usize::from);
        let Some(level) = level.and_then(|level| self.files.get_mut(level)) else {
            return Ok(());
        };
        level.compared = index + 1;
        let offset = index * HASH_BYTES;
        let present = level.length.saturating_sub(offset).min(HASH_BYTES);
        if covered && present < HASH_BYTES {
            return Err(Violation::at(level.file, level.length, Reason::Short));
        }
        if present == 0 {
            return Ok(());
        }
        let expected = hash
            .get(..usize::try_from(present).unwrap_or(0))
            .unwrap_or_default();
        if level.matches(self.store, offset, expected, covered)? {
            Ok(())
        } else {
            Err(Violation::at(level.file, offset, Reason::Hash))
        }
    }

    /// The root at an earlier size, if the files reach that far. Everything up to the records read so
    /// far was compared.
    pub(super) fn root_at(&self, size: u64) -> Result<Option<Hash>, Violation> {
        let reaches = (0..LEVELS).zip(&self.files).all(|(number, level)| {
            level.length >= tile::level_width(number, size) * HASH_BYTES
                && level.compared >= tile::level_width(number, size)
        });
        if !reaches {
            return Ok(None);
        }
        let root = root(size, |height, index| node(self.store, height, index));
        root.map(Some).map_err(Violation::unreadable)
    }

    /// No file goes on after the last record.
    pub(super) fn finish(&self) -> Result<(), Violation> {
        for level in &self.files {
            let end = level.compared * HASH_BYTES;
            if level.length > end {
                return Err(Violation::at(level.file, end, Reason::Extra));
            }
        }
        Ok(())
    }
}

impl Level {
    fn matches(
        &self,
        store: &FileStore,
        offset: u64,
        expected: &[u8],
        covered: bool,
    ) -> Result<bool, Violation> {
        let mut buffer = self.buffer.borrow_mut();
        let within = |buffer: &Buffer| {
            let at = usize::try_from(offset.checked_sub(buffer.begin)?).ok()?;
            buffer
                .bytes
                .get(at..at.checked_add(expected.len())?)
                .map(|bytes| bytes == expected)
        };
        if let Some(equal) = within(&buffer) {
            return Ok(equal);
        }
        let wanted = usize::try_from(self.length - offset)
            .unwrap_or(BUFFER)
            .min(BUFFER);
        buffer.begin = offset;
        buffer.bytes.resize(wanted, 0);
        let read = store.read_at(self.file, offset, &mut buffer.bytes);
        let read = read.map_err(|e| Violation::of(Place::Directory, Reason::Unreadable(e)))?;
        buffer.bytes.truncate(read);
        match within(&buffer) {
            Some(equal) => Ok(equal),
            // A log that was just opened cuts the file back to the checkpoint.
            None if !covered => Ok(true),
            None => Err(Violation::at(self.file, offset, Reason::Short)),
        }
    }
}

const LEVELS: u8 = 8;
const BUFFER: usize = 1 << 18;
