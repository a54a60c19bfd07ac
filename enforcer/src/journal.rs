//! What this enforcer's control plane writes into its log, and finds there again after a restart.

use std::collections::HashMap;
use std::sync::Arc;

use agentca_auditlog::checkpoint::{Checkpoint, SignedCheckpoint};
use agentca_auditlog::decision::{
    AUTHORITY_CHECKPOINT, AuthorityCheckpoint, CRL_ACCEPTED, CrlAccepted, WITNESS_CONFIRMED,
};
use agentca_auditlog::log::{Log, NotDurable, ReadError, StageError};
use agentca_auditlog::record::{Head, SIGNER_ANNOUNCED, read_announced, scan};
use serde::Deserialize;

/// Writes one record and waits until it is durable; gives its index.
pub(crate) async fn record(
    log: &Arc<Log>,
    write: impl FnOnce(&Head<'_>, &mut Vec<u8>),
) -> Result<u64, JournalError> {
    let staged = log.stage(write)?;
    log.durable_at(staged.index).await?;
    Ok(staged.index)
}

/// What a restart finds: floors that nothing may go below.
#[derive(Clone, Debug, Default)]
pub(crate) struct Floors {
    /// The newest checkpoint of the authority that was recorded.
    pub(crate) authority: Option<SignedCheckpoint>,
    /// The size of our own log that was co-signed last.
    pub(crate) witnessed: Option<u64>,
    /// The highest CRL number accepted, by shard.
    pub(crate) crls: HashMap<String, u64>,
    /// Leaf certificates of signers that were announced.
    pub(crate) announced: Vec<Vec<u8>>,
    /// The log was looked through from here on.
    from: u64,
}

impl Floors {
    /// Looks back until everything that is repeated every minute is found, through the whole log if
    /// it must: a floor that is not found is a floor that was given up.
    /// `shards` CRLs are looked for, none with a feed. Which they are only the lists themselves say:
    /// when one turns out to be another, [`crl`](Self::crl) looks further.
    pub(crate) fn find(log: &Log, shards: usize) -> Result<Self, JournalError> {
        let mut floors = Self::before(log.durable());
        floors.look_back(log, |floors| match shards {
            0 => floors.authority.is_some() && floors.witnessed.is_some(),
            _ => floors.crls.len() >= shards,
        })?;
        Ok(floors)
    }

    /// The highest number accepted of one CRL. Reads the log as far back as it must.
    pub(crate) async fn crl(
        &mut self,
        log: &Arc<Log>,
        uri: &str,
    ) -> Result<Option<u64>, JournalError> {
        if !self.crls.contains_key(uri) && self.from > 0 {
            let (log, wanted) = (Arc::clone(log), uri.to_owned());
            let mut older = Self::before(self.from);
            let looking = tokio::task::spawn_blocking(move || {
                older.look_back(&log, |floors| floors.crls.contains_key(&wanted))?;
                Ok::<_, JournalError>(older)
            });
            let older = looking.await.map_err(|_| JournalError::Stopped)??;
            self.from = older.from;
            for (uri, number) in older.crls {
                self.accepted(uri, number);
            }
        }
        Ok(self.crls.get(uri).copied())
    }

    /// A number of a CRL was accepted.
    pub(crate) fn accepted(&mut self, uri: String, number: u64) {
        let held = self.crls.entry(uri).or_default();
        *held = number.max(*held);
    }

    /// The later of what was recorded and what the credentials came with.
    pub(crate) fn newest_authority(&self, given: &SignedCheckpoint) -> SignedCheckpoint {
        match &self.authority {
            Some(found) if found.checkpoint.size >= given.checkpoint.size => found.clone(),
            _ => given.clone(),
        }
    }

    fn before(from: u64) -> Self {
        Self {
            from,
            ..Self::default()
        }
    }

    fn look_back(&mut self, log: &Log, enough: impl Fn(&Self) -> bool) -> Result<(), JournalError> {
        for item in log.scan_back(self.from) {
            let (index, bytes) = item?;
            self.take(&bytes)
                .map_err(|reason| JournalError::Unreadable { index, reason })?;
            self.from = index;
            if enough(self) {
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        match scan(bytes).map_err(|error| error.to_string())?.kind {
            AUTHORITY_CHECKPOINT if self.authority.is_none() => {
                let note = AuthorityCheckpoint::read(bytes).map_err(|error| error.to_string())?;
                // Its signature was verified before it was recorded, and the key may be another now.
                let text = note.split_once("\n\n").map(|(text, _)| format!("{text}\n"));
                let checkpoint = Checkpoint::parse_text(&text.unwrap_or_default())
                    .map_err(|error| error.to_string())?;
                self.authority = Some(SignedCheckpoint { checkpoint, note });
            }
            WITNESS_CONFIRMED if self.witnessed.is_none() => {
                let Witnessed { size } =
                    serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
                self.witnessed = Some(size);
            }
            CRL_ACCEPTED => {
                let (uri, number) = CrlAccepted::read(bytes).map_err(|error| error.to_string())?;
                self.accepted(uri, number);
            }
            SIGNER_ANNOUNCED => {
                let chain = read_announced(bytes).map_err(|error| error.to_string())?;
                self.announced.extend(chain.into_iter().take(1));
            }
            _ => {}
        }
        Ok(())
    }
}

/// A size that only the witness could misuse, and that it is asked about again.
#[derive(Deserialize)]
struct Witnessed {
    size: u64,
}

/// The log took no record, or does not give back what it took.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It was not taken.
    #[error("the log took no record: {0}")]
    Stage(#[from] StageError),
    /// It was taken, and is not on disk.
    #[error("a record is not durable: {0}")]
    NotDurable(#[from] NotDurable),
    /// The log cannot be read.
    #[error("the log cannot be read: {0}")]
    Read(#[from] ReadError),
    /// One of our own records.
    #[error("record {index} of the log cannot be read: {reason}")]
    Unreadable {
        /// Which.
        index: u64,
        /// Why.
        reason: String,
    },
    /// The process is ending.
    #[error("stopping")]
    Stopped,
}

#[cfg(test)]
mod tests {
    use agentca_auditlog::merkle::empty_root;
    use agentca_auditlog::note::{NoteSigner, SignatureType};
    use agentca_auditlog::record::{Opening, signer_announced};
    use agentca_identity::crypto::{KeyKind, PrivateKey};

    use super::*;
    use crate::testing;

    fn log() -> (tempfile::TempDir, Arc<Log>) {
        testing::log(&Opening::default())
    }

    fn seen(size: u64) -> SignedCheckpoint {
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        let signer = NoteSigner::new("example.org/ca", SignatureType::Ed25519, key).unwrap();
        let root = if size == 0 { empty_root() } else { [7; 32] };
        let checkpoint = Checkpoint {
            origin: "example.org/ca".into(),
            size,
            root,
        };
        let note = checkpoint.sign(&signer).unwrap();
        SignedCheckpoint { checkpoint, note }
    }

    async fn write_seen(log: &Arc<Log>, checkpoint: &SignedCheckpoint) {
        let seen = AuthorityCheckpoint {
            note: &checkpoint.note,
        };
        record(log, |head, out| seen.write(head, out))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn the_newest_of_everything_is_found() {
        let (_dir, log) = log();
        let (old, new) = (seen(3), seen(9));
        let confirmed = |size| Checkpoint {
            origin: "x".into(),
            size,
            root: [1; 32],
        };
        for (checkpoint, size) in [(&old, 1), (&new, 5)] {
            write_seen(&log, checkpoint).await;
            let checkpoint = confirmed(size);
            let record_of = agentca_auditlog::decision::WitnessConfirmed {
                checkpoint: &checkpoint,
                cosignature: "-",
            };
            record(&log, |head, out| record_of.write(head, out))
                .await
                .unwrap();
        }
        let chain = [b"leaf".to_vec(), b"above".to_vec()];
        record(&log, |head, out| signer_announced(head, out, &chain))
            .await
            .unwrap();
        let floors = Floors::find(&log, 0).unwrap();
        assert_eq!(floors.authority.as_ref(), Some(&new));
        assert_eq!(floors.witnessed, Some(5));
        assert_eq!(floors.announced, [b"leaf".to_vec()]);
        assert_eq!(floors.newest_authority(&seen(20)).checkpoint.size, 20);
        assert_eq!(floors.newest_authority(&old), new);
    }

    #[tokio::test]
    async fn the_highest_crl_number_counts() {
        let (_dir, log) = log();
        for (uri, number) in [("http://a", 3), ("http://b", 7), ("http://a", 5)] {
            let accepted = CrlAccepted { uri, number };
            record(&log, |head, out| accepted.write(head, out))
                .await
                .unwrap();
        }
        let floors = Floors::find(&log, 2).unwrap();
        let crls = |uri: &str| floors.crls.get(uri).copied();
        assert_eq!((crls("http://a"), crls("http://b")), (Some(5), Some(7)));
        assert_eq!(Floors::find(&log, 9).unwrap().crls.len(), 2);
        // Of two that are followed one is no longer recorded, for others were followed meanwhile.
        let mut floors = Floors::find(&log, 1).unwrap();
        assert_eq!(floors.crls.len(), 1);
        assert_eq!(floors.crl(&log, "http://b").await.unwrap(), Some(7));
        assert_eq!(floors.crl(&log, "http://a").await.unwrap(), Some(5));
        assert_eq!(floors.crl(&log, "http://c").await.unwrap(), None);
        assert_eq!(floors.from, 0, "nothing was left out");
    }

    #[tokio::test]
    async fn an_empty_log_has_no_floors() {
        let (_dir, log) = log();
        let floors = Floors::find(&log, 0).unwrap();
        assert!(floors.authority.is_none() && floors.witnessed.is_none());
        let given = seen(0);
        assert_eq!(floors.newest_authority(&given), given);
    }
}
