//! Proofs that one record is in a log, C2SP tlog-proof: self-contained, for a stranger who has the
//! record and the root certificate.
//!
//! The `extra` line holds the signer's chain (leaf, then intermediate; DER, one after the other), so
//! that the key need not be known beforehand. Verifiers that are not ours skip it and take the key from
//! elsewhere.

use std::fmt::Write as _;
use std::path::Path;

use agentca_identity::certificate::{Certificate, ReadError as CertificateError};
use agentca_identity::chain::{PeerError, TrustAnchor};
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::log::ReadError;
use crate::log::levels;
use crate::log::segments::Segments;
use crate::merkle::proof::{ProofError, inclusion, verify_inclusion};
use crate::merkle::{Hash, leaf_hash};
use crate::note::{Note, NoteError, SignatureType, VerifierKey};
use crate::record::{self, Chain, ScanError, scan};
use crate::store::{FileId, FileStore, Store as _, StoreError};

/// A proof file, read but not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The signer's chain.
    pub chain: Chain,
    /// The record's index.
    pub index: u64,
    /// From the leaf's sibling to the root's child.
    pub inclusion: Vec<Hash>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

/// What a proof proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The log.
    pub origin: String,
    /// The record's index in it.
    pub index: u64,
    /// The size of the log that vouches for it.
    pub size: u64,
    /// The record's time.
    pub time: Timestamp,
}

impl Proof {
    /// The proof file.
    #[must_use]
    pub fn write(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            let written = writeln!(text, "{arguments}");
            debug_assert!(written.is_ok(), "writing to a string does not fail");
        };
        line(format_args!(
            "extra {}",
            STANDARD.encode(self.chain.concat())
        ));
        line(format_args!("index {}", self.index));
        for hash in &self.inclusion {
            line(format_args!("{}", STANDARD.encode(hash)));
        }
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }

    /// Reads a proof file.
    ///
    /// # Errors
    /// [`ProofFileError`] for anything that [`Proof::write`] does not write, except that the
    /// checkpoint may have more signature lines.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFileError> {
        if bytes.len() > MAX_PROOF {
            return Err(ProofFileError::Form);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| ProofFileError::Form)?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(ProofFileError::Form)?;
        let mut lines = head.split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return Err(ProofFileError::Form);
        }
        let mut value = |name: &str| lines.next().and_then(|line| line.strip_prefix(name));
        let extra = value("extra ").ok_or(ProofFileError::Extra)?;
        let index = value("index ").ok_or(ProofFileError::Form)?;
        let extra = STANDARD.decode(extra).map_err(|_| ProofFileError::Extra)?;
        let inclusion = lines
            .map(|line| STANDARD.decode(line).ok()?.try_into().ok())
            .collect::<Option<Vec<Hash>>>()
            .filter(|hashes| hashes.len() <= 64)
            .ok_or(ProofFileError::Form)?;
        let proof = Self {
            chain: split(&extra).ok_or(ProofFileError::Extra)?,
            index: index.parse().map_err(|_| ProofFileError::Form)?,
            inclusion,
            checkpoint: checkpoint.to_owned(),
        };
        if proof.write() == text {
            Ok(proof)
        } else {
            Err(ProofFileError::Form)
        }
    }

    /// Verifies that `record` is what the proof is about, under `anchor`, at `now`.
    ///
    /// # Errors
    /// [`ProofFileError`].
    pub fn verify(
        &self,
        record: &[u8],
        anchor: &TrustAnchor,
        now: Timestamp,
    ) -> Result<Proven, ProofFileError> {
        let note = Note::parse(self.checkpoint.as_bytes())?;
        let checkpoint = Checkpoint::parse_text(note.text)?;
        let origin: LogOrigin = checkpoint
            .origin
            .parse()
            .map_err(|_| ProofFileError::Origin)?;
        let chain: Vec<&[u8]> = self.chain.iter().map(Vec::as_slice).collect();
        let signer = anchor.verify_signer(&chain, &origin)?;
        let public_key = signer.public_key().clone();
        let key = VerifierKey::new(&checkpoint.origin, SignatureType::Ed25519, public_key)?;
        note.verify(&key)?;
        if now < signer.not_before() || now > signer.not_after() {
            let (not_before, not_after) = (signer.not_before(), signer.not_after());
            return Err(ProofFileError::OutsideValidity {
                not_before,
                not_after,
            });
        }
        let (size, root) = (checkpoint.size, &checkpoint.root);
        verify_inclusion(&leaf_hash(record), self.index, size, &self.inclusion, root)?;
        let envelope = scan(record)?;
        if envelope.seq != self.index || envelope.log != checkpoint.origin {
            return Err(ProofFileError::Elsewhere);
        }
        let time = envelope.time()?;
        Ok(Proven {
            origin: checkpoint.origin,
            index: self.index,
            size,
            time,
        })
    }
}

/// Verifies a proof file at `now`: what it proves of `record`.
///
/// # Errors
/// [`ProofFileError`].
pub fn verify_proof(
    proof: &[u8],
    record: &[u8],
    anchor: &TrustAnchor,
    now: Timestamp,
) -> Result<Proven, ProofFileError> {
    Proof::parse(proof)?.verify(record, anchor, now)
}

/// Makes the proof for record `index` from a log's directory, running or not: the proof and the
/// record. It leans on the stored checkpoint and is not verified here.
///
/// # Errors
/// [`ProofFileError`].
pub fn prove(directory: &Path, index: u64) -> Result<(Proof, Vec<u8>), ProofFileError> {
    let store = FileStore::inspect(directory);
    let note = store.checkpoint()?.ok_or(ProofFileError::NoCheckpoint)?;
    let note = String::from_utf8(note).map_err(|_| ProofFileError::Form)?;
    let checkpoint = Checkpoint::parse_text(Note::parse(note.as_bytes())?.text)?;
    let size = checkpoint.size;
    if index >= size {
        return Err(ProofFileError::Beyond { index, size });
    }
    let firsts = store.files()?.into_iter().filter_map(|file| match file {
        FileId::Segment(first) => Some(first),
        FileId::Hashes(_) => None,
    });
    let segments = Segments::new(firsts);
    let record = read(&segments, &store, index)?;
    let hashes = inclusion(index, size, |height, at| levels::node(&store, height, at))
        .map_err(ReadError::from)?;
    let chain = signer_chain(&segments, &store, &note, &checkpoint)?;
    Ok((
        Proof {
            chain,
            index,
            inclusion: hashes,
            checkpoint: note,
        },
        record,
    ))
}

fn read(segments: &Segments, store: &FileStore, index: u64) -> Result<Vec<u8>, ReadError> {
    let frame = segments.frame(store, index)?;
    let record = frame
        .records()
        .find(|(at, _)| *at == index)
        .map(|(_, bytes)| bytes.to_vec());
    record.ok_or(ReadError::Missing { index })
}

/// The announced chain whose key signed the checkpoint: newest announcements first.
fn signer_chain(
    segments: &Segments,
    store: &FileStore,
    note: &str,
    checkpoint: &Checkpoint,
) -> Result<Chain, ProofFileError> {
    let signed = |chain: &Chain| {
        let leaf = chain.first().and_then(|leaf| Certificate::parse(leaf).ok());
        let key = leaf.and_then(|leaf| {
            let key = leaf.public_key().clone();
            VerifierKey::new(&checkpoint.origin, SignatureType::Ed25519, key).ok()
        });
        key.is_some_and(|key| Checkpoint::open(note.as_bytes(), &key).is_ok())
    };
    let opening = record::read_opened(&read(segments, store, 0)?)?;
    if let Some(chain) = opening.signers.into_iter().find(|chain| signed(chain)) {
        return Ok(chain);
    }
    let mut before = checkpoint.size;
    while before > 0 {
        let frame = segments.frame(store, before - 1)?;
        for (_, bytes) in frame.records() {
            if let Ok(chain) = record::read_announced(bytes)
                && signed(&chain)
            {
                return Ok(chain);
            }
        }
        before = frame.header.first;
    }
    Err(ProofFileError::Extra)
}

/// Splits DER certificates that lie one after the other.
fn split(bytes: &[u8]) -> Option<Chain> {
    let mut chain = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = match rest {
            [0x30, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
            [0x30, 0x81, length, ..] => 3 + usize::from(*length),
            [0x30, length @ 0..=0x7f, ..] => 2 + usize::from(*length),
            _ => return None,
        };
        let (certificate, after) = rest.split_at_checked(length)?;
        chain.push(certificate.to_vec());
        rest = after;
    }
    Some(chain)
}

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
const MAX_PROOF: usize = 256 * 1024;

/// Why a proof is not made or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ProofFileError {
    /// Not a proof file.
    #[error("not a c2sp.org/tlog-proof@v1 file")]
    Form,
    /// No chain of the signer in it, or none of the log's fits the checkpoint.
    #[error("the signer's chain is missing")]
    Extra,
    /// Of a log that is none of ours.
    #[error("its origin is not that of an authority or an enforcer")]
    Origin,
    /// The log has no checkpoint.
    #[error("the log has no checkpoint")]
    NoCheckpoint,
    /// The checkpoint does not cover the record yet.
    #[error("record {index} is not under the checkpoint over {size} records, wait a moment")]
    Beyond {
        /// The record.
        index: u64,
        /// The checkpoint's size.
        size: u64,
    },
    /// The record says that it is another one.
    #[error("the record says that it is another one")]
    Elsewhere,
    /// The signer's certificate is not valid now, so that the checkpoint alone proves nothing.
    #[error(
        "the signer's certificate is valid from {} to {}",
        not_before.rfc3339(), not_after.rfc3339()
    )]
    OutsideValidity {
        /// Its first second.
        not_before: Timestamp,
        /// Its last second.
        not_after: Timestamp,
    },
    /// The signer's chain does not hold.
    #[error("the signer's chain does not hold: {0}")]
    Chain(#[from] PeerError),
    /// A certificate cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The note or its signature.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The inclusion proof.
    #[error(transparent)]
    Inclusion(#[from] ProofError),
    /// Not a record.
    #[error("not a record: {0}")]
    Record(#[from] ScanError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Pki;

    #[test]
    fn every_record_proves_itself_to_a_stranger() {
        let temp = tempfile::tempdir().unwrap();
        let pki = Pki::new();
        let directory = pki.written_log(temp.path(), 300);
        for index in [0, 1, 255, 256, 299] {
            let (proof, record) = prove(&directory, index).unwrap();
            let file = proof.write();
            let proven = verify_proof(file.as_bytes(), &record, &pki.anchor(), pki.now).unwrap();
            assert_eq!((proven.index, proven.size), (index, 300));
            assert_eq!(proven.origin, crate::testing::LOG);
        }
        assert!(matches!(
            prove(&directory, 300),
            Err(ProofFileError::Beyond { .. })
        ));
    }

    #[test]
    fn a_proof_is_for_its_record_under_its_root_in_its_time() {
        let temp = tempfile::tempdir().unwrap();
        let pki = Pki::new();
        let directory = pki.written_log(temp.path(), 20);
        let (proof, record) = prove(&directory, 7).unwrap();
        let file = proof.write();
        let verify = |file: &str, record: &[u8], anchor: &TrustAnchor, now| {
            verify_proof(file.as_bytes(), record, anchor, now)
        };
        verify(&file, &record, &pki.anchor(), pki.now).unwrap();
        let (_, other) = prove(&directory, 8).unwrap();
        assert!(verify(&file, &other, &pki.anchor(), pki.now).is_err());
        assert!(verify(&file, &record, &Pki::new().anchor(), pki.now).is_err());
        let late = pki.now + std::time::Duration::from_secs(3600 * 24 * 365 * 9);
        let error = verify(&file, &record, &pki.anchor(), late).unwrap_err();
        assert!(matches!(error, ProofFileError::OutsideValidity { .. }));
        for (from, to) in [
            ("index 7", "index 8"),
            ("index 7", "index 07"),
            ("tlog-proof@v1", "tlog-proof@v2"),
            ("\n20\n", "\n21\n"),
            ("extra ", "Extra "),
        ] {
            let bad = file.replacen(from, to, 1);
            assert_ne!(bad, file);
            assert!(
                verify(&bad, &record, &pki.anchor(), pki.now).is_err(),
                "{to}"
            );
        }
    }

    #[test]
    fn unknown_signature_lines_are_passed_over() {
        let temp = tempfile::tempdir().unwrap();
        let pki = Pki::new();
        let (proof, record) = prove(&pki.written_log(temp.path(), 9), 3).unwrap();
        let file = format!("{}\u{2014} witness.example AAAAAAAA\n", proof.write());
        verify_proof(file.as_bytes(), &record, &pki.anchor(), pki.now).unwrap();
    }

    proptest! {
        #[test]
        fn no_input_panics(inner in "(extra [A-Za-z0-9+/=]{0,20}\n)?(index [0-9]{1,21}\n)?.{0,60}\n\n.{0,60}") {
            let _ = Proof::parse(format!("{FIRST_LINE}\n{inner}").as_bytes());
            let _ = Proof::parse(inner.as_bytes());
        }
    }
}
