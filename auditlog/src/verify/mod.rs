//! Offline verification: a log's directory and the root certificate, nothing else.
//!
//! The checkpoint is read first. Every byte up to it, hash files included, is then covered by the
//! checkpoint's signature through the tree: leaf hashes are made from the stored bytes, inner hashes
//! are made from those and compared with the hash files, and the root that comes out must be the
//! checkpoint's. Beyond it whole sound batches and one torn tail are reported and pass, so that a running
//! log verifies. Records are checked for their canonical form and head, announcements for their chains,
//! cosignatures against the witness's key, status records for their numbers and hashes.

mod keys;
mod levels;
mod records;
mod report;
mod segments;
mod signing;
mod violation;

use std::path::Path;

use agentca_identity::chain::TrustAnchor;
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;

pub use keys::Signer;
pub use report::{Cosigned, Report, Revocation, Tail};
pub use signing::signing_key;
pub use violation::{Place, Reason, Violation};

use crate::checkpoint::Checkpoint;
use crate::merkle::{CompactRange, Hash};
use crate::note::Note;
use crate::store::{CHECKPOINT, FileId, FileStore, Store};
use keys::KeyRing;
use levels::Levels;
use records::Records;

/// What a verification is held against besides the directory.
#[derive(Clone, Debug)]
pub struct VerifyOptions<'a> {
    /// A checkpoint of this log that was seen before (a signed note): the log must extend it.
    pub floor: Option<&'a [u8]>,
    /// What time it is.
    pub now: Timestamp,
}

impl Default for VerifyOptions<'_> {
    fn default() -> Self {
        Self {
            floor: None,
            now: Timestamp::now(),
        }
    }
}

/// Verifies the log in `directory` under `anchor`.
///
/// # Errors
/// The first [`Violation`], which says where and what.
pub fn verify_directory(
    directory: &Path,
    anchor: &TrustAnchor,
    options: &VerifyOptions<'_>,
) -> Result<Report, Violation> {
    let store = FileStore::inspect(directory);
    let (note, checkpoint) = stored_checkpoint(&store)?;
    let files = store.files().map_err(Violation::unreadable)?;
    // Their lengths are taken before the segments are read: whatever a running log adds to them later
    // is left for the next verification.
    let levels = Levels::open(&store, &files)?;
    let floor = options.floor.map(read_floor).transpose()?;
    let origin = origin_of(&checkpoint)?;
    let mut verifier = Verifier {
        checkpoint: &checkpoint,
        floor: floor.as_ref().map(|(floor, _)| floor),
        range: CompactRange::new(),
        levels,
        records: Records::new(origin, KeyRing::new(anchor)),
        time: Timestamp::MIN,
        revocation: None,
    };
    let torn_bytes = segments::read(&store, &files, &mut verifier)?;
    verifier.report(&note, floor.as_ref(), options.now, torn_bytes)
}

/// The checkpoint file: a signed note with one signature line, which is verified when the log's keys
/// are known.
fn stored_checkpoint(store: &FileStore) -> Result<(Vec<u8>, Checkpoint), Violation> {
    let wrong = |reason| Violation::of(Place::Checkpoint, reason);
    let note = store.checkpoint().map_err(Violation::unreadable)?;
    let note = note.ok_or_else(|| wrong(Reason::Missing))?;
    let parsed = Note::parse(&note).map_err(|e| wrong(Reason::Checkpoint(e.into())))?;
    if parsed.signatures.len() != 1 {
        return Err(wrong(Reason::SignatureLines));
    }
    let checkpoint =
        Checkpoint::parse_text(parsed.text).map_err(|e| wrong(Reason::Checkpoint(e)))?;
    Ok((note, checkpoint))
}

fn origin_of(checkpoint: &Checkpoint) -> Result<LogOrigin, Violation> {
    let origin = checkpoint.origin.parse();
    origin.map_err(|_| Violation::of(Place::Checkpoint, Reason::Origin))
}

fn read_floor(note: &[u8]) -> Result<(Checkpoint, Vec<u8>), Violation> {
    let wrong = |e| Violation::of(Place::Floor, Reason::Checkpoint(e));
    let parsed = Note::parse(note).map_err(|e| wrong(e.into()))?;
    let checkpoint = Checkpoint::parse_text(parsed.text).map_err(wrong)?;
    Ok((checkpoint, note.to_vec()))
}

/// Follows the records from the first to the last.
struct Verifier<'a> {
    checkpoint: &'a Checkpoint,
    floor: Option<&'a Checkpoint>,
    range: CompactRange,
    levels: Levels<'a>,
    records: Records<'a>,
    /// Of the newest record under the checkpoint.
    time: Timestamp,
    /// As the records under the checkpoint tell it.
    revocation: Option<Revocation>,
}

impl Verifier<'_> {
    /// The index of the next record.
    fn next(&self) -> u64 {
        self.range.size()
    }

    /// Whether the checkpoint covers the next record.
    fn is_covered(&self) -> bool {
        self.next() < self.checkpoint.size
    }

    /// Takes the next record with its leaf hash. Its form is only judged once it is known to be what
    /// was signed, or to be whole.
    fn take(&mut self, leaf: Hash, record: &[u8]) -> Result<(), Violation> {
        let index = self.next();
        let covered = self.is_covered();
        let (range, levels) = (&mut self.range, &mut self.levels);
        let mut result = Ok(());
        range.append(leaf, |height, hash| {
            if result.is_ok() && height.is_multiple_of(8) {
                result = levels.compare(height, index >> height, hash, covered);
            }
        });
        result?;
        self.records.take(index, record, &self.levels)?;
        if covered {
            self.at_size()?;
        }
        Ok(())
    }

    /// Compares the root where a signed head gives one.
    fn at_size(&mut self) -> Result<(), Violation> {
        let size = self.range.size();
        let signed = [
            (Some(self.checkpoint), Place::Checkpoint),
            (self.floor, Place::Floor),
        ];
        for (head, place) in signed {
            if let Some(head) = head.filter(|head| head.size == size)
                && head.root != self.range.root()
            {
                return Err(Violation::of(place, Reason::Root { size }));
            }
        }
        if size == self.checkpoint.size {
            self.time = self.records.time()?;
            self.revocation = self.records.revocation();
        }
        Ok(())
    }

    /// Everything was read: what remains are lengths and signatures.
    fn report(
        self,
        note: &[u8],
        floor: Option<&(Checkpoint, Vec<u8>)>,
        now: Timestamp,
        torn_bytes: u64,
    ) -> Result<Report, Violation> {
        let (found, size) = (self.next(), self.checkpoint.size);
        if found < size || size == 0 {
            return Err(Violation::of(
                Place::Checkpoint,
                Reason::Shorter { size, found },
            ));
        }
        self.levels.finish()?;
        let (signer, key) = self.records.keys.signer_of(note, size)?;
        if let Some((floor, note)) = floor {
            if floor.origin != self.checkpoint.origin || self.records.keys.signed(note).is_none() {
                return Err(Violation::of(Place::Floor, Reason::AnotherKey));
            }
            if floor.size > size {
                let shorter = Reason::Shorter {
                    size: floor.size,
                    found: size,
                };
                return Err(Violation::of(Place::Floor, shorter));
            }
        }
        let counted = self.counted(&signer, now)?;
        let cosigned = self.records.newest_cosigned();
        let cosigned_size = cosigned.as_ref().map_or(0, |cosigned| cosigned.size);
        Ok(Report {
            origin: self.checkpoint.origin.clone(),
            size,
            root: self.checkpoint.root,
            time: self.time,
            counted,
            signer,
            vkey: key.to_string(),
            revocation: self.revocation,
            witness: self.records.keys.witness_name(),
            cosigned,
            cosignatures: self.records.cosignatures(),
            cosignatures_uncounted: self.records.cosignatures_uncounted(),
            uncosigned: size.saturating_sub(cosigned_size),
            tail: Tail {
                records: found - size,
                torn_bytes,
            },
        })
    }

    /// After a signer's expiry only what was co-signed before counts.
    fn counted(&self, signer: &Signer, now: Timestamp) -> Result<u64, Violation> {
        if now < signer.not_before {
            let reason = Reason::NotYetValid {
                not_before: signer.not_before,
            };
            return Err(Violation::of(Place::Checkpoint, reason));
        }
        if now <= signer.not_after {
            return Ok(self.checkpoint.size);
        }
        let cosigned = self.records.cosigned_until(signer.not_after);
        cosigned
            .map(|size| size.min(self.checkpoint.size))
            .ok_or_else(|| {
                let reason = Reason::Expired {
                    not_after: signer.not_after,
                };
                Violation::of(Place::Checkpoint, reason)
            })
    }
}

/// The files of a log directory besides the checkpoint.
fn segment_firsts(files: &[FileId]) -> impl Iterator<Item = u64> {
    files.iter().filter_map(|file| match file {
        FileId::Segment(first) => Some(*first),
        FileId::Hashes(_) => None,
    })
}

/// The name under which violations of the checkpoint are reported.
const CHECKPOINT_FILE: &str = CHECKPOINT;

#[cfg(test)]
mod tests;
