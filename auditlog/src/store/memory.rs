//! A store in memory that can fail in every way a disk can, for tests.
//!
//! It keeps what is durable apart from what was only written, as the contract of [`Store`] says. A
//! fault strikes one operation: what it was to do is lost, or done though reported failed, or half
//! done. [`MemoryStore::crash`] then gives the store that a process would find after losing power.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{FileId, Store, StoreError};

/// The kinds of operation that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Write,
    Sync,
    Truncate,
    Checkpoint,
}

/// How one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing happened, and it is reported.
    Lost,
    /// It happened, durably, and is reported as failed.
    Persisted,
    /// Half of the bytes were written.
    Torn,
    /// Half of the bytes were written: there is no more room.
    Full,
}

/// What a power failure does with bytes that were written and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsynced {
    Lost,
    Kept,
    /// The first half survives.
    Torn,
    /// The length survives, the bytes read as zeros.
    Zeros,
    /// The first half reads as zeros, the second survives: pages are written in any order.
    Reordered,
    /// They are there twice.
    Twice,
}

impl Unsynced {
    pub(crate) const ALL: [Self; 6] = [
        Self::Lost,
        Self::Kept,
        Self::Torn,
        Self::Zeros,
        Self::Reordered,
        Self::Twice,
    ];
}

#[derive(Clone, Debug, Default)]
struct Contents {
    durable: Vec<u8>,
    written: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<FileId, Contents>,
    checkpoint: Option<Vec<u8>>,
    /// Strikes the operation after so many more of its kind, once or from then on.
    fault: Option<(Operation, u32, Fault)>,
    /// No room from here on, whatever is written, until it is set back.
    full: bool,
    struck: u32,
}

/// A store in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore(Mutex<State>);

impl MemoryStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Lets the operation of this kind after `skip` others fail, once.
    pub(crate) fn fail(&self, operation: Operation, skip: u32, fault: Fault) {
        self.state().fault = Some((operation, skip, fault));
    }

    /// How many faults have struck.
    pub(crate) fn struck(&self) -> u32 {
        self.state().struck
    }

    /// Takes all room away, or gives it back.
    pub(crate) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// What is found after the power came back.
    pub(crate) fn crash(&self, unsynced: Unsynced) -> Arc<Self> {
        let state = self.state();
        let files = state
            .files
            .iter()
            .map(|(file, contents)| {
                let left = contents.after_crash(unsynced);
                (
                    *file,
                    Contents {
                        durable: left.clone(),
                        written: left,
                    },
                )
            })
            .collect();
        let checkpoint = state.checkpoint.clone();
        Arc::new(Self(Mutex::new(State {
            files,
            checkpoint,
            ..State::default()
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strike(&self, operation: Operation) -> Option<Fault> {
        let mut state = self.state();
        match &mut state.fault {
            Some((kind, skip, _)) if *kind == operation && *skip > 0 => {
                *skip -= 1;
                None
            }
            Some((kind, _, fault)) if *kind == operation => {
                let fault = *fault;
                state.fault = None;
                state.struck += 1;
                Some(fault)
            }
            _ => None,
        }
    }
}

impl Contents {
    fn after_crash(&self, unsynced: Unsynced) -> Vec<u8> {
        let common = self
            .durable
            .iter()
            .zip(&self.written)
            .take_while(|(a, b)| a == b)
            .count();
        // What was written since: to the end of a file that grew, or in the middle of one that did not.
        let changed = self
            .durable
            .iter()
            .zip(&self.written)
            .rposition(|(a, b)| a != b);
        let end = match changed {
            Some(last) if self.written.len() <= self.durable.len() => last + 1,
            None if self.written.len() <= self.durable.len() => common,
            _ => self.written.len(),
        };
        let (kept, new) = (&self.written[..common], &self.written[common..end]);
        let half = new.len() / 2;
        let rest = &self.written[end..];
        let before = self.durable.get(common + half..).unwrap_or_default();
        match unsynced {
            // Bytes that were durable and overwritten since may be either.
            Unsynced::Lost => self.durable.clone(),
            Unsynced::Kept => self.written.clone(),
            Unsynced::Torn => [kept, &new[..half], before].concat(),
            Unsynced::Zeros => [kept, &vec![0; new.len()], rest].concat(),
            Unsynced::Reordered => [kept, &vec![0; half], &new[half..], rest].concat(),
            Unsynced::Twice if rest.is_empty() => [kept, new, new].concat(),
            Unsynced::Twice => self.written.clone(),
        }
    }
}

fn failed(action: &'static str, file: impl std::fmt::Display, kind: io::ErrorKind) -> StoreError {
    StoreError::new(action, file, kind.into())
}

impl Store for MemoryStore {
    fn files(&self) -> Result<Vec<FileId>, StoreError> {
        Ok(self.state().files.keys().copied().collect())
    }

    fn create(&self, file: FileId) -> Result<(), StoreError> {
        let fault = self.strike(Operation::Create);
        let mut state = self.state();
        if state.full || fault == Some(Fault::Full) {
            return Err(failed("create", file, io::ErrorKind::StorageFull));
        }
        if state.files.contains_key(&file) {
            return Err(failed("create", file, io::ErrorKind::AlreadyExists));
        }
        if !matches!(fault, Some(Fault::Lost | Fault::Torn)) {
            state.files.insert(file, Contents::default());
        }
        match fault {
            Some(_) => Err(failed("create", file, io::ErrorKind::Other)),
            None => Ok(()),
        }
    }

    fn len(&self, file: FileId) -> Result<u64, StoreError> {
        let state = self.state();
        let contents = state.files.get(&file);
        let contents = contents.ok_or_else(|| failed("open", file, io::ErrorKind::NotFound))?;
        Ok(contents.written.len().try_into().unwrap())
    }

    fn read_at(&self, file: FileId, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let state = self.state();
        let contents = state.files.get(&file);
        let contents = contents.ok_or_else(|| failed("open", file, io::ErrorKind::NotFound))?;
        let rest = contents
            .written
            .get(usize::try_from(offset).unwrap()..)
            .unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let fault = self.strike(Operation::Write);
        let mut state = self.state();
        let full = state.full || fault == Some(Fault::Full);
        let bytes = match fault {
            Some(Fault::Lost) => return Err(failed("write", file, io::ErrorKind::Other)),
            Some(Fault::Torn) => &bytes[..bytes.len() / 2],
            _ if full => &bytes[..bytes.len() / 2],
            _ => bytes,
        };
        let contents = state.files.get_mut(&file);
        let contents = contents.ok_or_else(|| failed("open", file, io::ErrorKind::NotFound))?;
        let offset = usize::try_from(offset).unwrap();
        assert!(offset <= contents.written.len(), "a hole in {file}");
        let end = offset + bytes.len();
        if contents.written.len() < end {
            contents.written.resize(end, 0);
        }
        contents.written[offset..end].copy_from_slice(bytes);
        if fault == Some(Fault::Persisted) {
            contents.durable.clone_from(&contents.written);
        }
        match fault {
            _ if full => Err(failed("write", file, io::ErrorKind::StorageFull)),
            Some(_) => Err(failed("write", file, io::ErrorKind::Other)),
            None => Ok(()),
        }
    }

    fn sync(&self, file: FileId) -> Result<(), StoreError> {
        let fault = self.strike(Operation::Sync);
        let mut state = self.state();
        let contents = state.files.get_mut(&file);
        let contents = contents.ok_or_else(|| failed("open", file, io::ErrorKind::NotFound))?;
        match fault {
            None => contents.durable.clone_from(&contents.written),
            Some(Fault::Persisted) => {
                contents.durable.clone_from(&contents.written);
                return Err(failed("sync", file, io::ErrorKind::Other));
            }
            Some(Fault::Full) => return Err(failed("sync", file, io::ErrorKind::StorageFull)),
            Some(Fault::Lost) => return Err(failed("sync", file, io::ErrorKind::Other)),
            Some(Fault::Torn) => {
                contents.durable = contents.after_crash(Unsynced::Torn);
                return Err(failed("sync", file, io::ErrorKind::Other));
            }
        }
        Ok(())
    }

    fn truncate(&self, file: FileId, length: u64) -> Result<(), StoreError> {
        let fault = self.strike(Operation::Truncate);
        let mut state = self.state();
        let contents = state.files.get_mut(&file);
        let contents = contents.ok_or_else(|| failed("open", file, io::ErrorKind::NotFound))?;
        if !matches!(fault, Some(Fault::Lost)) {
            contents.written.resize(usize::try_from(length).unwrap(), 0);
            contents.durable.clone_from(&contents.written);
        }
        match fault {
            Some(_) => Err(failed("truncate", file, io::ErrorKind::Other)),
            None => Ok(()),
        }
    }

    fn checkpoint(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().checkpoint.clone())
    }

    fn replace_checkpoint(&self, note: &[u8]) -> Result<(), StoreError> {
        let fault = self.strike(Operation::Checkpoint);
        let mut state = self.state();
        if state.full || fault == Some(Fault::Full) {
            return Err(failed("replace", "checkpoint", io::ErrorKind::StorageFull));
        }
        if !matches!(fault, Some(Fault::Lost | Fault::Torn)) {
            state.checkpoint = Some(note.to_vec());
        }
        match fault {
            Some(_) => Err(failed("replace", "checkpoint", io::ErrorKind::Other)),
            None => Ok(()),
        }
    }

    fn publish(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
