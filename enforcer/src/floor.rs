//! The newest checkpoint of the authority's log that this enforcer has seen.
//!
//! It only moves along proofs of consistency, is recorded in the enforcer's own log, and is what the
//! authority has to extend after a restart: a restored or rolled-back copy of it cannot.

use std::sync::{Arc, Mutex, PoisonError};

use agentca_auditlog::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use agentca_auditlog::merkle::Hash;
use agentca_auditlog::note::VerifierKey;

/// Shared between the feed and the witness, both of which move it.
#[derive(Debug)]
pub struct Floor {
    newest: Mutex<Arc<SignedCheckpoint>>,
}

impl Floor {
    /// A floor at a verified checkpoint.
    #[must_use]
    pub fn at(checkpoint: SignedCheckpoint) -> Self {
        Self {
            newest: Mutex::new(Arc::new(checkpoint)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn newest(&self) -> Arc<SignedCheckpoint> {
        Arc::clone(&self.newest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Checks that a signed checkpoint extends `from`, and moves there unless it is further already.
    ///
    /// # Errors
    /// [`FloorError`]: the authority showed a log that is not the one seen before.
    pub fn advance(
        &self,
        from: &SignedCheckpoint,
        note: &str,
        consistency: &[Vec<u8>],
        key: &VerifierKey,
    ) -> Result<Arc<SignedCheckpoint>, FloorError> {
        let checkpoint = Checkpoint::open(note.as_bytes(), key)?;
        let proof = hashes(consistency)?;
        if checkpoint.size < from.checkpoint.size {
            let (shown, floor) = (checkpoint.size, from.checkpoint.size);
            return Err(FloorError::WentBack { shown, floor });
        }
        checkpoint.extends(&from.checkpoint, &proof)?;
        let next = Arc::new(SignedCheckpoint {
            checkpoint,
            note: note.to_owned(),
        });
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if next.checkpoint.size >= newest.checkpoint.size {
            *newest = Arc::clone(&next);
        }
        Ok(next)
    }
}

/// Why a checkpoint of the authority was not believed.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// Shorter than what was seen: a restored copy.
    #[error("the authority's log went back to {shown} records, {floor} were seen before")]
    WentBack {
        /// Records it claims.
        shown: u64,
        /// Records seen before.
        floor: u64,
    },
    /// A proof of hashes that are none.
    #[error("the consistency proof has a hash of the wrong length")]
    Hash,
    /// Signature, origin or proof.
    #[error("the authority's checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
}

/// Hashes as they come over the wire.
pub(crate) fn hashes(list: &[Vec<u8>]) -> Result<Vec<Hash>, FloorError> {
    list.iter()
        .map(|hash| Hash::try_from(hash.as_slice()).map_err(|_| FloorError::Hash))
        .collect()
}

#[cfg(test)]
mod tests {
    use agentca_auditlog::merkle::{empty_root, leaf_hash, node_hash};
    use agentca_auditlog::note::{NoteSigner, SignatureType};
    use agentca_identity::crypto::{KeyKind, PrivateKey};

    use super::*;

    fn signer() -> NoteSigner {
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        NoteSigner::new("example.org/ca", SignatureType::Ed25519, key).unwrap()
    }

    fn signed(signer: &NoteSigner, size: u64, root: Hash) -> SignedCheckpoint {
        let checkpoint = Checkpoint {
            origin: "example.org/ca".into(),
            size,
            root,
        };
        let note = checkpoint.sign(signer).unwrap();
        SignedCheckpoint { checkpoint, note }
    }

    #[test]
    fn moves_only_along_proofs() {
        let signer = signer();
        let key = signer.verifier();
        let (a, b) = (leaf_hash(b"a"), leaf_hash(b"b"));
        let empty = signed(&signer, 0, empty_root());
        let one = signed(&signer, 1, a);
        let two = signed(&signer, 2, node_hash(&a, &b));
        let fork = signed(&signer, 2, node_hash(&b, &a));
        let floor = Floor::at(empty.clone());
        floor.advance(&empty, &one.note, &[], key).unwrap();
        assert!(floor.advance(&one, &fork.note, &[b.to_vec()], key).is_err());
        assert!(floor.advance(&one, &two.note, &[vec![1; 31]], key).is_err());
        assert_eq!(*floor.newest(), one);
        floor.advance(&one, &two.note, &[b.to_vec()], key).unwrap();
        assert_eq!(*floor.newest(), two);
        let back = floor.advance(&two, &one.note, &[], key);
        assert!(matches!(
            back,
            Err(FloorError::WentBack { shown: 1, floor: 2 })
        ));
        // An answer that was under way from further below does not pull it back.
        floor.advance(&empty, &one.note, &[], key).unwrap();
        assert_eq!(*floor.newest(), two);
    }

    #[test]
    fn another_key_moves_nothing() {
        let (ours, theirs) = (signer(), signer());
        let floor = Floor::at(signed(&ours, 0, empty_root()));
        let one = signed(&theirs, 1, leaf_hash(b"a"));
        assert!(
            floor
                .advance(&floor.newest(), &one.note, &[], ours.verifier())
                .is_err()
        );
        assert_eq!(floor.newest().checkpoint.size, 0);
    }
}
