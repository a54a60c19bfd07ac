//! What an enforcer writes besides calls: refused handshakes, and what it must find again after a
//! restart.

use std::fmt::Display;

use agentca_identity::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{
    AUTHORITY_CHECKPOINT, CATALOGUE_LOADED, CRL_ACCEPTED, HANDSHAKE_REFUSED, TOOL_WITHHELD,
    WITNESS_CONFIRMED,
};
use crate::checkpoint::{Checkpoint, CheckpointError, verify_cosignature};
use crate::merkle::Hash;
use crate::note::{Note, VerifierKey};
use crate::record::{Head, Object, Record};

/// Handshakes refused for one reason within a second.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeRefused<'a, T> {
    /// Why.
    pub reason: &'a str,
    /// How many.
    pub count: u64,
    /// Where a few of them came from.
    pub samples: &'a [T],
}

impl<T: Display> HandshakeRefused<'_, T> {
    /// Writes the record.
    pub fn write(&self, head: &Head<'_>, out: &mut Vec<u8>) {
        let mut record = Record::begin(out, head, HANDSHAKE_REFUSED);
        record.number("count", self.count);
        record.text("reason", self.reason);
        record.at("samples").texts("samples", self.samples);
        record.finish();
    }
}

/// The witness co-signed a head of this log.
#[derive(Clone, Copy, Debug)]
pub struct WitnessConfirmed<'a> {
    /// The checkpoint that was co-signed.
    pub checkpoint: &'a Checkpoint,
    /// The witness's signature line.
    pub cosignature: &'a str,
}

impl WitnessConfirmed<'_> {
    /// Writes the record.
    pub fn write(&self, head: &Head<'_>, out: &mut Vec<u8>) {
        let mut record = Record::begin(out, head, WITNESS_CONFIRMED);
        record.text("cosignature", self.cosignature.trim_end_matches('\n'));
        record.base64("root", &self.checkpoint.root);
        record.number("size", self.checkpoint.size);
        record.finish();
    }
}

/// What a [`WitnessConfirmed`] record says, once the witness's signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The checkpoint that was co-signed.
    pub checkpoint: Checkpoint,
    /// When.
    pub time: Timestamp,
}

/// Reads a [`WitnessConfirmed`] record of the log `origin` and verifies it with the witness's key.
///
/// # Errors
/// [`CheckpointError`].
pub fn read_witness_confirmed(
    record: &[u8],
    origin: &str,
    witness: &VerifierKey,
) -> Result<Confirmed, CheckpointError> {
    #[derive(serde::Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        cosignature: std::borrow::Cow<'a, str>,
        root: &'a str,
        size: u64,
    }
    let members: Members<'_> = serde_json::from_slice(record).map_err(|_| CheckpointError::Text)?;
    let root = STANDARD
        .decode(members.root)
        .map_err(|_| CheckpointError::Text)?;
    let checkpoint = Checkpoint {
        origin: origin.to_owned(),
        size: members.size,
        root: root.try_into().map_err(|_| CheckpointError::Text)?,
    };
    let time = verify_cosignature(&checkpoint, &members.cosignature.parse()?, witness)?;
    Ok(Confirmed { checkpoint, time })
}

/// The newest checkpoint of the authority that was seen: a floor after a restart.
#[derive(Clone, Copy, Debug)]
pub struct AuthorityCheckpoint<'a> {
    /// The signed note.
    pub note: &'a str,
}

impl AuthorityCheckpoint<'_> {
    /// Writes the record.
    pub fn write(&self, head: &Head<'_>, out: &mut Vec<u8>) {
        let mut record = Record::begin(out, head, AUTHORITY_CHECKPOINT);
        record.text("checkpoint", self.note);
        record.finish();
    }

    /// The note that such a record holds, not verified again.
    ///
    /// # Errors
    /// [`CheckpointError`] when it is not one.
    pub fn read(record: &[u8]) -> Result<String, CheckpointError> {
        #[derive(serde::Deserialize)]
        struct Members {
            checkpoint: String,
        }
        let Members { checkpoint } =
            serde_json::from_slice(record).map_err(|_| CheckpointError::Text)?;
        Checkpoint::parse_text(Note::parse(checkpoint.as_bytes())?.text)?;
        Ok(checkpoint)
    }
}

/// A CRL was accepted: its number is a floor after a restart.
#[derive(Clone, Copy, Debug)]
pub struct CrlAccepted<'a> {
    /// The shard.
    pub uri: &'a str,
    /// Its crlNumber.
    pub number: u64,
}

impl CrlAccepted<'_> {
    /// Writes the record.
    pub fn write(&self, head: &Head<'_>, out: &mut Vec<u8>) {
        let mut record = Record::begin(out, head, CRL_ACCEPTED);
        record.number("number", self.number);
        record.text("uri", self.uri);
        record.finish();
    }

    /// The shard and number that such a record holds.
    ///
    /// # Errors
    /// [`serde_json::Error`] when it is not one.
    pub fn read(record: &[u8]) -> Result<(String, u64), serde_json::Error> {
        #[derive(serde::Deserialize)]
        struct Members {
            uri: String,
            number: crate::record::Number,
        }
        let members: Members = serde_json::from_slice(record)?;
        Ok((members.uri, members.number.0))
    }
}

/// A tool was seen that is not the one that was pinned: from here on it is withheld and denied.
#[derive(Clone, Copy, Debug)]
pub struct ToolWithheld<'a> {
    /// Whose tool it is.
    pub upstream: &'a str,
    /// Its name, as the server writes it.
    pub tool: &'a str,
    /// SHA-256 of its definition in the form of RFC 8785; absent when that cannot be read.
    pub digest: Option<&'a Hash>,
    /// That of the definition that was pinned.
    pub pinned: Option<&'a Hash>,
    /// `new`, `changed`, `rejected` or `unreadable`.
    pub reason: &'a str,
}

impl ToolWithheld<'_> {
    /// Writes the record.
    pub fn write(&self, head: &Head<'_>, out: &mut Vec<u8>) {
        let mut record = Record::begin(out, head, TOOL_WITHHELD);
        if let Some(digest) = self.digest {
            record.base64("digest", digest);
        }
        if let Some(pinned) = self.pinned {
            record.base64("pinned", pinned);
        }
        record.text("reason", self.reason);
        record.text("tool", self.tool);
        record.text("upstream", self.upstream);
        record.finish();
    }
}

/// A catalogue is about to be in force: its files, and what is new of what was said about tools.
#[derive(Clone, Copy, Debug)]
pub struct CatalogueLoaded<'a> {
    /// The files with the SHA-256 of each.
    pub files: &'a [(String, Hash)],
    /// What is new, and what was withdrawn.
    pub changes: &'a [CatalogueChange<'a>],
    /// The record before this one that had changes.
    pub previous: Option<u64>,
}

/// Something that was said about a tool, or that no longer stands.
#[derive(Clone, Copy, Debug)]
pub struct CatalogueChange<'a> {
    /// `pin`, `approve`, `reject`, `assess`, `except`; or `withdraw`.
    pub action: &'a str,
    /// When it was said, RFC 3339.
    pub at: Option<&'a str>,
    /// Who said it.
    pub by: Option<&'a str>,
    /// The digest of the definition that it is about.
    pub definition: Option<&'a Hash>,
    /// When it is over, RFC 3339.
    pub ends: Option<&'a str>,
    /// Why.
    pub reason: Option<&'a str>,
    /// The digest of the statement.
    pub statement: &'a Hash,
    /// The tool.
    pub tool: Option<&'a str>,
    /// Its upstream.
    pub upstream: Option<&'a str>,
}

impl CatalogueLoaded<'_> {
    /// Writes the record.
    pub fn write(&self, head: &Head<'_>, out: &mut Vec<u8>) {
        let mut record = Record::begin(out, head, CATALOGUE_LOADED);
        if !self.changes.is_empty() {
            record
                .at("changes")
                .objects("changes", self.changes, |object, change| {
                    change.write(object);
                });
        }
        record
            .at("files")
            .objects("files", self.files, |object, (name, digest)| {
                object.base64("digest", digest);
                object.text("name", name);
            });
        record.number_if("previous", self.previous);
        record.finish();
    }

    /// The statements of such a record, each with whether it stands or was withdrawn, and the record before.
    ///
    /// # Errors
    /// [`serde_json::Error`] when it is not one.
    pub fn read(record: &[u8]) -> Result<CatalogueStatements, serde_json::Error> {
        #[derive(serde::Deserialize)]
        struct Members<'a> {
            kind: &'a str,
            #[serde(default, borrow)]
            changes: Vec<Change<'a>>,
            previous: Option<crate::record::Number>,
        }
        #[derive(serde::Deserialize)]
        struct Change<'a> {
            action: &'a str,
            statement: &'a str,
        }
        let wrong = <serde_json::Error as serde::de::Error>::custom;
        let members: Members<'_> = serde_json::from_slice(record)?;
        if members.kind != CATALOGUE_LOADED {
            return Err(wrong("another kind of record"));
        }
        let statements = members.changes.iter().map(|change| {
            let bytes = STANDARD.decode(change.statement).ok();
            let digest = bytes.and_then(|bytes| bytes.try_into().ok());
            let digest = digest.ok_or_else(|| wrong("a digest that is none"))?;
            Ok((digest, change.action != "withdraw"))
        });
        let statements = statements.collect::<Result<_, serde_json::Error>>()?;
        Ok((statements, members.previous.map(|previous| previous.0)))
    }
}

/// What [`CatalogueLoaded::read`] gives.
pub type CatalogueStatements = (Vec<(Hash, bool)>, Option<u64>);

impl CatalogueChange<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.text("action", self.action);
        object.text_if("at", self.at);
        object.text_if("by", self.by);
        object.base64_if("definition", self.definition.map(<[u8; 32]>::as_slice));
        object.text_if("ends", self.ends);
        object.text_if("reason", self.reason);
        object.base64("statement", self.statement);
        object.text_if("tool", self.tool);
        object.text_if("upstream", self.upstream);
    }
}

#[cfg(test)]
mod tests {
    use agentca_identity::crypto::{KeyKind, PrivateKey};

    use super::*;
    use crate::checkpoint::cosign;
    use crate::decision::tests::{LOG, written};
    use crate::note::{NoteSigner, SignatureType};

    #[test]
    fn small_records_are_canonical() {
        let withheld = ToolWithheld {
            upstream: "payments",
            tool: "refund",
            digest: Some(&[1; 32]),
            pinned: Some(&[2; 32]),
            reason: "changed",
        };
        let record = written(|head, out| withheld.write(head, out));
        let value: serde_json::Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(
            (&value["tool"], &value["reason"]),
            (&"refund".into(), &"changed".into())
        );
        let samples = ["192.0.2.1", "2001:db8::1"];
        let refused = HandshakeRefused {
            reason: "expired",
            count: 3,
            samples: &samples,
        };
        written(|head, out| refused.write(head, out));
        for number in [7, u64::MAX] {
            let accepted = CrlAccepted {
                uri: "http://ca.example.org/crl/1.crl",
                number,
            };
            let record = written(|head, out| accepted.write(head, out));
            assert_eq!(
                CrlAccepted::read(&record).unwrap(),
                (accepted.uri.to_owned(), number)
            );
        }
    }

    #[test]
    fn a_catalogue_reads_back() {
        let change = CatalogueChange {
            action: "approve",
            at: Some("2026-11-21T06:49:20.123Z"),
            by: Some("spiffe://example.org/person/alice"),
            definition: Some(&[1; 32]),
            ends: Some("2027-11-21T06:49:20.123Z"),
            reason: Some("looked at it"),
            statement: &[2; 32],
            tool: Some("refund"),
            upstream: Some("payments"),
        };
        let gone = CatalogueChange {
            action: "withdraw",
            at: None,
            by: None,
            definition: None,
            ends: None,
            reason: None,
            statement: &[3; 32],
            tool: None,
            upstream: None,
        };
        let files = [("catalogue.toml".to_owned(), [4; 32])];
        let loaded = CatalogueLoaded {
            files: &files,
            changes: &[change, gone],
            previous: Some(1 << 60),
        };
        let record = written(|head, out| loaded.write(head, out));
        let read = CatalogueLoaded::read(&record).unwrap();
        assert_eq!(
            read,
            (vec![([2; 32], true), ([3; 32], false)], Some(1 << 60))
        );
        let bare = CatalogueLoaded {
            changes: &[],
            previous: None,
            ..loaded
        };
        let record = written(|head, out| bare.write(head, out));
        assert_eq!(CatalogueLoaded::read(&record).unwrap(), (vec![], None));
        let other = AuthorityCheckpoint { note: "x" };
        let record = written(|head, out| other.write(head, out));
        assert!(CatalogueLoaded::read(&record).is_err());
    }

    #[test]
    fn what_the_witness_confirmed_reads_back() {
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        let signer =
            NoteSigner::new("example.org/ca/witness", SignatureType::Cosignature, key).unwrap();
        let checkpoint = Checkpoint {
            origin: LOG.into(),
            size: 41,
            root: [7; 32],
        };
        let time = Timestamp::from_secs(1_763_707_760);
        let line = cosign(&checkpoint, time, &signer).unwrap().to_string();
        let confirmed = WitnessConfirmed {
            checkpoint: &checkpoint,
            cosignature: &line,
        };
        let record = written(|head, out| confirmed.write(head, out));
        let read = read_witness_confirmed(&record, LOG, signer.verifier()).unwrap();
        assert_eq!(read, Confirmed { checkpoint, time });
        assert!(read_witness_confirmed(&record, "example.org/ca", signer.verifier()).is_err());
        let forged = String::from_utf8(record)
            .unwrap()
            .replace("\"size\":41", "\"size\":42");
        assert!(read_witness_confirmed(forged.as_bytes(), LOG, signer.verifier()).is_err());
    }

    #[test]
    fn the_authoritys_checkpoint_reads_back() {
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        let signer = NoteSigner::new("example.org/ca", SignatureType::Ed25519, key).unwrap();
        let checkpoint = Checkpoint {
            origin: "example.org/ca".into(),
            size: 3,
            root: [7; 32],
        };
        let note = checkpoint.sign(&signer).unwrap();
        let record = written(|head, out| AuthorityCheckpoint { note: &note }.write(head, out));
        assert_eq!(AuthorityCheckpoint::read(&record).unwrap(), note);
        assert!(AuthorityCheckpoint::read(b"{\"checkpoint\":\"x\"}").is_err());
    }
}
