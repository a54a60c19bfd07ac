//! Heartbeats of the status feed: where the authority stands, signed with its log's key.
//!
//! A heartbeat is a signed note of seven lines, whose first is `<origin>/heartbeat`, so that it is never
//! a checkpoint: time (RFC 3339), checkpoint size, checkpoint root, environment, newest status number and
//! the leaf hash of that status record.

use std::fmt::{self, Display};

use agentca_identity::name::Environment;
use agentca_identity::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::merkle::Hash;
use crate::note::{Note, NoteError, NoteSigner, VerifierKey};

/// Where the authority stands at a point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The authority's log.
    pub origin: String,
    /// When it was signed.
    pub time: Timestamp,
    /// The size of its newest checkpoint.
    pub checkpoint_size: u64,
    /// The root of its newest checkpoint.
    pub checkpoint_root: Hash,
    /// The environment whose status records it covers.
    pub environment: Environment,
    /// The number of the newest status record; 0 before the first.
    pub status_number: u64,
    /// The leaf hash of the newest status record; zeros before the first.
    pub status_hash: Hash,
}

impl Display for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{SUFFIX}\n{}\n{}\n{}\n{}\n{}\n{}\n",
            self.origin,
            self.time.rfc3339(),
            self.checkpoint_size,
            STANDARD.encode(self.checkpoint_root),
            self.environment,
            self.status_number,
            STANDARD.encode(self.status_hash),
        )
    }
}

impl Heartbeat {
    /// The signed note.
    ///
    /// # Errors
    /// [`NoteError`]; the signer must bear the log's origin as its name.
    pub fn sign(&self, signer: &NoteSigner) -> Result<String, NoteError> {
        if signer.verifier().name() != self.origin {
            return Err(NoteError::Name);
        }
        signer.sign(&self.to_string())
    }

    /// Reads a heartbeat and verifies it: exactly one signature line, the log's.
    ///
    /// # Errors
    /// [`HeartbeatError`].
    pub fn open(note: &[u8], key: &VerifierKey) -> Result<Self, HeartbeatError> {
        let note = Note::parse(note)?;
        let heartbeat = Self::parse_text(note.text).ok_or(HeartbeatError::Text)?;
        if heartbeat.origin != key.name() {
            return Err(HeartbeatError::Origin);
        }
        if note.signatures.len() != 1 {
            return Err(NoteError::Unsigned.into());
        }
        note.verify(key)?;
        Ok(heartbeat)
    }

    fn parse_text(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.split('\n').collect();
        let [origin, time, size, root, environment, number, hash, ""] = *lines.as_slice() else {
            return None;
        };
        let hash_of = |text: &str| STANDARD.decode(text).ok()?.try_into().ok();
        let heartbeat = Self {
            origin: origin.strip_suffix(SUFFIX)?.to_owned(),
            time: Timestamp::parse_rfc3339(time).ok()?,
            checkpoint_size: size.parse().ok()?,
            checkpoint_root: hash_of(root)?,
            environment: environment.parse().ok()?,
            status_number: number.parse().ok()?,
            status_hash: hash_of(hash)?,
        };
        // Numbers written differently do not come back the same.
        (heartbeat.to_string() == text).then_some(heartbeat)
    }
}

const SUFFIX: &str = "/heartbeat";

/// Why a heartbeat is not believed.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// Not the text of a heartbeat.
    #[error("not a heartbeat")]
    Text,
    /// Of another log.
    #[error("the heartbeat is of another log")]
    Origin,
    /// The note or its signature.
    #[error(transparent)]
    Note(#[from] NoteError),
}

#[cfg(test)]
mod tests {
    use agentca_identity::crypto::{KeyKind, PrivateKey};
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::note::SignatureType;

    fn signer(name: &str) -> NoteSigner {
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        NoteSigner::new(name, SignatureType::Ed25519, key).unwrap()
    }

    fn heartbeat() -> Heartbeat {
        Heartbeat {
            origin: "example.org/ca".into(),
            time: Timestamp::from_millis(1_763_707_760_123),
            checkpoint_size: 41,
            checkpoint_root: [1; 32],
            environment: "prod".parse().unwrap(),
            status_number: 7,
            status_hash: [2; 32],
        }
    }

    #[test]
    fn signs_and_opens() {
        let signer = signer("example.org/ca");
        let note = heartbeat().sign(&signer).unwrap();
        assert!(note.starts_with("example.org/ca/heartbeat\n2025-11-21T06:49:20.123Z\n41\n"));
        assert_eq!(
            Heartbeat::open(note.as_bytes(), signer.verifier()).unwrap(),
            heartbeat()
        );
    }

    #[test]
    fn is_never_a_checkpoint_and_no_checkpoint_is_a_heartbeat() {
        let signer = signer("example.org/ca");
        let note = heartbeat().sign(&signer).unwrap();
        assert!(Checkpoint::open(note.as_bytes(), signer.verifier()).is_err());
        let checkpoint = Checkpoint {
            origin: "example.org/ca".into(),
            size: 1,
            root: [0; 32],
        };
        let note = checkpoint.sign(&signer).unwrap();
        assert!(Heartbeat::open(note.as_bytes(), signer.verifier()).is_err());
    }

    #[test]
    fn anything_changed_is_refused() {
        let signer = signer("example.org/ca");
        let note = heartbeat().sign(&signer).unwrap();
        for (from, to) in [
            ("\n7\n", "\n8\n"),
            ("prod", "dev"),
            ("\n41\n", "\n041\n"),
            ("123Z", "124Z"),
        ] {
            let changed = note.replacen(from, to, 1);
            assert_ne!(changed, note);
            assert!(
                Heartbeat::open(changed.as_bytes(), signer.verifier()).is_err(),
                "{from}"
            );
        }
        let (_, line) = note.split_once("\n\n").unwrap();
        let twice = format!("{note}{line}");
        assert!(Heartbeat::open(twice.as_bytes(), signer.verifier()).is_err());
        assert!(
            heartbeat()
                .sign(&self::signer("example.org/other"))
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let key = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
            let _ = Heartbeat::open(&bytes, &key.parse().unwrap());
        }
    }
}
