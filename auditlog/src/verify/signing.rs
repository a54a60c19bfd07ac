//! Which key signs a log, for verifiers that are not ours.

use std::path::Path;

use agentca_identity::chain::TrustAnchor;

use super::keys::KeyRing;
use super::violation::{Place, Reason, Violation};
use super::{origin_of, stored_checkpoint};
use crate::log::{ReadError, Reader};
use crate::note::VerifierKey;
use crate::store::FileStore;

/// The key that signed the checkpoint of the log in `directory`, as the log announced it under
/// `anchor`. The rest of the log is not verified: that is [`super::verify_directory`].
///
/// # Errors
/// [`Violation`]; [`Reason::AnotherKey`] when no announced key signed the checkpoint.
pub fn signing_key(directory: &Path, anchor: &TrustAnchor) -> Result<VerifierKey, Violation> {
    let (note, checkpoint) = stored_checkpoint(&FileStore::inspect(directory))?;
    let origin = origin_of(&checkpoint)?;
    let mut keys = KeyRing::new(anchor);
    let (mut reader, mut next) = (Reader::new(directory, 0), 0);
    while next < checkpoint.size {
        let batch = reader.batch().map_err(|e| unread(e, next))?;
        let Some(batch) = batch else { break };
        for (index, bytes) in batch {
            next = index + 1;
            if index < checkpoint.size
                && keys.hear(index, &bytes, &origin)?
                && let Some(key) = keys.signed(&note)
            {
                return Ok(key.clone());
            }
        }
    }
    Err(Violation::of(Place::Checkpoint, Reason::AnotherKey))
}

/// `next` is the record that should have come.
fn unread(error: ReadError, next: u64) -> Violation {
    match error {
        ReadError::Store(error) => Violation::unreadable(error),
        ReadError::Damaged { file, offset } => Violation::at(file, offset, Reason::Batch { next }),
        ReadError::Missing { index } | ReadError::OutOfRange { asked: index, .. } => {
            Violation::record(index, Reason::Missing)
        }
    }
}
