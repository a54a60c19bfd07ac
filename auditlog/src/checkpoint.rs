//! Checkpoints, C2SP tlog-checkpoint, and their cosignatures, C2SP tlog-cosignature (Ed25519).

use std::fmt::{self, Display};

use agentca_identity::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::merkle::proof::{ProofError, verify_consistency};
use crate::merkle::{Hash, empty_root};
use crate::note::{Note, NoteError, NoteSigner, SignatureLine, SignatureType, VerifierKey};

/// The head of a log: what its signature covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's origin, for example `example.org/ca`.
    pub origin: String,
    /// The number of records.
    pub size: u64,
    /// The Merkle root over them.
    pub root: Hash,
}

impl Display for Checkpoint {
    /// The note text: origin, size, root. We write no extension lines and read none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n{}\n{}\n",
            self.origin,
            self.size,
            STANDARD.encode(self.root)
        )
    }
}

impl Checkpoint {
    /// The signed note over this checkpoint.
    ///
    /// # Errors
    /// [`NoteError`]; the signer must bear the origin as its name.
    pub fn sign(&self, signer: &NoteSigner) -> Result<String, NoteError> {
        if signer.verifier().name() != self.origin {
            return Err(NoteError::Name);
        }
        signer.sign(&self.to_string())
    }

    /// Reads a note text.
    ///
    /// # Errors
    /// [`CheckpointError::Text`] for anything that `Display` does not write.
    pub fn parse_text(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Text);
        };
        let root = STANDARD.decode(root).map_err(|_| CheckpointError::Text)?;
        let checkpoint = Self {
            origin: origin.to_owned(),
            size: size.parse().map_err(|_| CheckpointError::Text)?,
            root: root.try_into().map_err(|_| CheckpointError::Text)?,
        };
        // A size of 007 or +7, an empty origin and extension lines do not come back the same.
        if checkpoint.to_string() != text || checkpoint.origin.is_empty() {
            return Err(CheckpointError::Text);
        }
        if checkpoint.size == 0 && checkpoint.root != empty_root() {
            return Err(CheckpointError::Text);
        }
        Ok(checkpoint)
    }

    /// Reads a signed checkpoint and verifies the log's own signature. Other lines are left alone.
    ///
    /// # Errors
    /// [`CheckpointError`]; also when the origin is not the key's name.
    pub fn open(note: &[u8], key: &VerifierKey) -> Result<Self, CheckpointError> {
        let note = Note::parse(note)?;
        let checkpoint = Self::parse_text(note.text)?;
        if checkpoint.origin != key.name() {
            return Err(CheckpointError::Origin {
                expected: key.name().to_owned(),
            });
        }
        note.verify(key)?;
        Ok(checkpoint)
    }

    /// Checks that `self` extends `older`: same origin, and an RFC 6962 consistency proof, which is
    /// empty when the older one has size 0 or the same size.
    ///
    /// # Errors
    /// [`CheckpointError::Origin`] or [`CheckpointError::Proof`].
    pub fn extends(&self, older: &Self, proof: &[Hash]) -> Result<(), CheckpointError> {
        if self.origin != older.origin {
            return Err(CheckpointError::Origin {
                expected: older.origin.clone(),
            });
        }
        if older.size == 0 {
            return match (proof, older.root == empty_root()) {
                ([], true) => Ok(()),
                ([], false) => Err(ProofError::Root.into()),
                _ => Err(ProofError::Length.into()),
            };
        }
        Ok(verify_consistency(
            older.size,
            self.size,
            proof,
            &older.root,
            &self.root,
        )?)
    }
}

/// A checkpoint with the note that carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What the note says.
    pub checkpoint: Checkpoint,
    /// The signed note, one signature line: the log's own.
    pub note: String,
}

/// The signature line of a witness over `checkpoint` at `time` (whole seconds), with a signer of
/// type [`SignatureType::Cosignature`]. That the checkpoint extends every earlier one is for the
/// caller to have checked.
///
/// # Errors
/// [`NoteError::KeyKind`] for a signer of another type, [`NoteError::Crypto`] from the backend.
pub fn cosign(
    checkpoint: &Checkpoint,
    time: Timestamp,
    witness: &NoteSigner,
) -> Result<SignatureLine, NoteError> {
    if witness.verifier().signature_type() != SignatureType::Cosignature {
        return Err(NoteError::KeyKind);
    }
    let seconds = u64::try_from(time.secs()).map_err(|_| NoteError::Text)?;
    let mut signature = seconds.to_be_bytes().to_vec();
    signature.extend_from_slice(&witness.sign_message(&cosigned_message(checkpoint, seconds))?);
    Ok(witness.line(signature))
}

/// Verifies a witness's signature line over `checkpoint`: the time it gives.
///
/// # Errors
/// [`NoteError::Unsigned`] when the line is by another key, [`NoteError::BadSignature`] when wrong.
pub fn verify_cosignature(
    checkpoint: &Checkpoint,
    line: &SignatureLine,
    witness: &VerifierKey,
) -> Result<Timestamp, NoteError> {
    if witness.signature_type() != SignatureType::Cosignature {
        return Err(NoteError::KeyKind);
    }
    if !witness.names(line) {
        return Err(NoteError::Unsigned);
    }
    let (seconds, signature) = line
        .signature
        .split_first_chunk::<8>()
        .ok_or(NoteError::BadSignature)?;
    let seconds = u64::from_be_bytes(*seconds);
    witness
        .public_key()
        .verify(&cosigned_message(checkpoint, seconds), signature)
        .map_err(|_| NoteError::BadSignature)?;
    let seconds = i64::try_from(seconds).map_err(|_| NoteError::BadSignature)?;
    if seconds > MAX_SECONDS {
        return Err(NoteError::BadSignature);
    }
    Ok(Timestamp::from_secs(seconds))
}

fn cosigned_message(checkpoint: &Checkpoint, seconds: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {seconds}\n{checkpoint}").into_bytes()
}

/// The end of the year 9999: later times have no RFC 3339 form.
const MAX_SECONDS: i64 = 253_402_300_799;

/// Why a checkpoint is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Not a checkpoint text.
    #[error("not a checkpoint: origin, size, root, each on its line")]
    Text,
    /// Of another log.
    #[error("the checkpoint is not of `{expected}`")]
    Origin {
        /// The log it should be of.
        expected: String,
    },
    /// The note or its signature.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// It does not extend the older one.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

#[cfg(test)]
mod tests {
    use agentca_identity::crypto::{KeyKind, PrivateKey};
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::{leaf_hash, node_hash};

    fn signer(name: &str, signature_type: SignatureType) -> NoteSigner {
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        NoteSigner::new(name, signature_type, key).unwrap()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            origin: "example.org/ca".into(),
            size: 7,
            root: [9; 32],
        }
    }

    #[test]
    fn the_text_has_three_lines() {
        let root = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
        assert_eq!(
            checkpoint().to_string(),
            format!("example.org/ca\n7\n{root}\n")
        );
    }

    #[test]
    fn signs_and_opens() {
        let signer = signer("example.org/ca", SignatureType::Ed25519);
        let note = checkpoint().sign(&signer).unwrap();
        assert_eq!(
            Checkpoint::open(note.as_bytes(), signer.verifier()).unwrap(),
            checkpoint()
        );
        let grown = note.replace("\n7\n", "\n8\n");
        assert!(Checkpoint::open(grown.as_bytes(), signer.verifier()).is_err());
    }

    #[test]
    fn only_the_origin_signs() {
        let other = signer("example.org/prod/enforcer/edge-1", SignatureType::Ed25519);
        assert!(checkpoint().sign(&other).is_err());
    }

    #[test]
    fn texts_are_read_strictly() {
        let good = checkpoint().to_string();
        assert_eq!(Checkpoint::parse_text(&good).unwrap(), checkpoint());
        for bad in [
            good.replace("\n7\n", "\n07\n"),
            good.replace("\n7\n", "\n+7\n"),
            good.replace("\n7\n", "\n-1\n"),
            good.replace("\n7\n", "\n0\n"),
            good.replace("example.org/ca", ""),
            good.replace("CQk=", "CQl="),
            good.replace("CQk=", "CQk"),
            format!("{good}extension\n"),
            good.trim_end().to_owned(),
            String::new(),
        ] {
            assert!(Checkpoint::parse_text(&bad).is_err(), "{bad:?}");
        }
    }

    /// The example of C2SP tlog-cosignature: its message, byte for byte.
    #[test]
    fn the_cosigned_message_is_that_of_the_specification() {
        let root = STANDARD
            .decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
            .unwrap();
        let checkpoint = Checkpoint {
            origin: "example.com/behind-the-sofa".into(),
            size: 20_852_163,
            root: root.try_into().unwrap(),
        };
        let expected = "cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n\
            CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        assert_eq!(
            cosigned_message(&checkpoint, 1_679_315_147),
            expected.as_bytes()
        );
    }

    #[test]
    fn cosignatures_verify_and_give_their_time() {
        let witness = signer("example.org/ca/witness", SignatureType::Cosignature);
        let time = Timestamp::from_secs(1_700_000_000);
        let line = cosign(&checkpoint(), time, &witness).unwrap();
        assert_eq!(line.signature.len(), 72);
        let read: SignatureLine = line.to_string().parse().unwrap();
        assert_eq!(
            verify_cosignature(&checkpoint(), &read, witness.verifier()).unwrap(),
            time
        );
        let later = Checkpoint {
            size: 8,
            ..checkpoint()
        };
        assert!(verify_cosignature(&later, &read, witness.verifier()).is_err());
        let mut moved = read;
        moved.signature[7] ^= 1;
        assert!(verify_cosignature(&checkpoint(), &moved, witness.verifier()).is_err());
    }

    #[test]
    fn a_log_key_cannot_cosign_and_a_witness_cannot_sign_notes() {
        let log = signer("example.org/ca", SignatureType::Ed25519);
        assert!(cosign(&checkpoint(), Timestamp::from_secs(1), &log).is_err());
        let witness = signer("example.org/ca", SignatureType::Cosignature);
        let note = Note {
            text: "x\n",
            signatures: Vec::new(),
        };
        assert!(matches!(
            note.verify(witness.verifier()),
            Err(NoteError::KeyKind)
        ));
    }

    #[test]
    fn extends_knows_the_empty_log() {
        let empty = Checkpoint {
            origin: "o".into(),
            size: 0,
            root: empty_root(),
        };
        let (a, b) = (leaf_hash(b"a"), leaf_hash(b"b"));
        let one = Checkpoint {
            origin: "o".into(),
            size: 1,
            root: a,
        };
        let two = Checkpoint {
            origin: "o".into(),
            size: 2,
            root: node_hash(&a, &b),
        };
        one.extends(&empty, &[]).unwrap();
        two.extends(&one, &[b]).unwrap();
        assert!(two.extends(&one, &[a]).is_err());
        assert!(two.extends(&empty, &[a]).is_err());
        assert!(one.extends(&two, &[]).is_err());
        let elsewhere = Checkpoint {
            origin: "p".into(),
            ..two
        };
        assert!(elsewhere.extends(&one, &[b]).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}\n[0-9+-]{0,22}\n[A-Za-z0-9+/=]{0,46}\n?") {
            if let Ok(checkpoint) = Checkpoint::parse_text(&text) {
                prop_assert_eq!(checkpoint.to_string(), text);
            }
        }
    }
}
