//! What the feed says, verified before anything of it is in force. No I/O, no clock.
//!
//! Status records of one environment have gapless numbers and name the hash of the one before; a
//! signed heartbeat names the newest of them. A step either verifies whole or changes nothing.

use agentca_auditlog::heartbeat::Heartbeat;
use agentca_auditlog::merkle::{Hash, leaf_hash};
use agentca_auditlog::note::VerifierKey;
use agentca_auditlog::status::{Snapshot, StatusEvent, StatusRecord};
use agentca_identity::name::Environment;
use agentca_identity::time::Timestamp;

/// Where an enforcer stands, and what it takes to go on.
#[derive(Debug)]
pub(crate) struct Chain {
    environment: Environment,
    position: Position,
    /// Records that no heartbeat covers yet, and where they lead.
    pending: Vec<StatusRecord>,
    reached: Position,
    last: Option<Last>,
}

/// A status record by number and leaf hash; number 0 and zeros before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) number: u64,
    pub(crate) hash: Hash,
}

/// What no later heartbeat may contradict.
#[derive(Clone, Debug)]
struct Last {
    time: Timestamp,
    size: u64,
    root: Hash,
    note: String,
}

/// What may be put into force now.
#[derive(Debug)]
pub(crate) struct Step {
    /// Covered by the heartbeat, in order.
    pub(crate) records: Vec<StatusRecord>,
    /// When the authority signed it.
    pub(crate) time: Timestamp,
}

/// What a snapshot claims, before a status record vouched for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SnapshotClaim {
    pub(crate) covers: Position,
    pub(crate) digest: Hash,
}

impl Chain {
    pub(crate) fn new(environment: Environment) -> Self {
        Self {
            environment,
            position: Position::default(),
            pending: Vec::new(),
            reached: Position::default(),
            last: None,
        }
    }

    /// Every record up to here is in force.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// The authority's own signature over the position; empty before the first.
    pub(crate) fn evidence(&self) -> &str {
        self.last.as_ref().map_or("", |last| last.note.as_str())
    }

    /// A new connection begins: what was never covered is forgotten.
    pub(crate) fn restart(&mut self) {
        self.pending.clear();
        self.reached = self.position;
    }

    /// Verifies an update; `snapshot` is what the records continue from when one was sent.
    ///
    /// Gives nothing while no heartbeat has come.
    pub(crate) fn update(
        &mut self,
        records: &[Vec<u8>],
        heartbeat: &str,
        snapshot: Option<SnapshotClaim>,
        key: &VerifierKey,
    ) -> Result<Option<Step>, FeedFault> {
        let mut reached = self.reached;
        if let Some(claim) = snapshot {
            self.check_snapshot(&claim, records.first())?;
            reached = claim.covers;
        }
        let mut read = Vec::with_capacity(records.len());
        for bytes in records {
            let record = self.next_record(bytes, &mut reached)?;
            read.push(record);
        }
        if self.pending.len() + read.len() > MAX_UNCOVERED {
            return Err(FeedFault::Uncovered);
        }
        let last = match heartbeat {
            "" => None,
            note => Some(self.check_heartbeat(note, reached, key)?),
        };
        self.reached = reached;
        self.pending.append(&mut read);
        let Some(last) = last else { return Ok(None) };
        self.position = reached;
        let time = last.time;
        self.last = Some(last);
        Ok(Some(Step {
            records: std::mem::take(&mut self.pending),
            time,
        }))
    }

    /// The record after a snapshot vouches for its digest and says what it covers.
    fn check_snapshot(
        &self,
        claim: &SnapshotClaim,
        first: Option<&Vec<u8>>,
    ) -> Result<(), FeedFault> {
        let back = claim.covers.number < self.position.number
            || (claim.covers.number == self.position.number && claim.covers != self.position);
        if back {
            return Err(FeedFault::WentBack);
        }
        let record = first.map(|bytes| read(bytes)).transpose()?;
        let vouched = match record.map(|record| record.event) {
            Some(StatusEvent::Snapshot { digest, covers }) => {
                digest == claim.digest && covers == claim.covers.number
            }
            _ => false,
        };
        if vouched {
            Ok(())
        } else {
            Err(FeedFault::Snapshot)
        }
    }

    fn next_record(&self, bytes: &[u8], reached: &mut Position) -> Result<StatusRecord, FeedFault> {
        let record = read(bytes)?;
        let expected = reached.number.saturating_add(1);
        if record.number != expected {
            return Err(FeedFault::Gap {
                expected,
                found: record.number,
            });
        }
        if record.prev != reached.hash {
            return Err(FeedFault::Fork {
                number: record.number,
            });
        }
        if record.environment != self.environment {
            return Err(FeedFault::Environment {
                found: record.environment.to_string(),
            });
        }
        *reached = Position {
            number: record.number,
            hash: leaf_hash(bytes),
        };
        Ok(record)
    }

    fn check_heartbeat(
        &self,
        note: &str,
        reached: Position,
        key: &VerifierKey,
    ) -> Result<Last, FeedFault> {
        let heartbeat = Heartbeat::open(note.as_bytes(), key)
            .map_err(|error| FeedFault::Heartbeat(error.to_string()))?;
        // Every field is named, so that a new one has to be decided upon.
        let Heartbeat {
            origin: _,
            time,
            checkpoint_size,
            checkpoint_root,
            environment,
            status_number,
            status_hash,
        } = heartbeat;
        if environment != self.environment {
            return Err(FeedFault::Environment {
                found: environment.to_string(),
            });
        }
        if (Position {
            number: status_number,
            hash: status_hash,
        }) != reached
        {
            let (covered, number) = (status_number, reached.number);
            return Err(FeedFault::Mismatch { covered, number });
        }
        if let Some(last) = &self.last {
            let forked = checkpoint_size == last.size && checkpoint_root != last.root;
            if time < last.time || checkpoint_size < last.size || forked {
                return Err(FeedFault::WentBack);
            }
        }
        Ok(Last {
            time,
            size: checkpoint_size,
            root: checkpoint_root,
            note: note.to_owned(),
        })
    }
}

/// What a snapshot's bytes say about themselves.
impl SnapshotClaim {
    pub(crate) fn of(
        snapshot: &Snapshot,
        digest: Hash,
        environment: &Environment,
    ) -> Result<Self, FeedFault> {
        if snapshot.environment != *environment {
            return Err(FeedFault::Environment {
                found: snapshot.environment.to_string(),
            });
        }
        let covers = Position {
            number: snapshot.number,
            hash: snapshot.hash,
        };
        Ok(Self { covers, digest })
    }
}

fn read(bytes: &[u8]) -> Result<StatusRecord, FeedFault> {
    StatusRecord::parse(bytes).map_err(|error| FeedFault::Unreadable(error.to_string()))
}

/// The authority broke the feed's rules: the connection is dropped and nothing counts as fresh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FeedFault {
    #[error("status record {found} came where {expected} was due")]
    Gap { expected: u64, found: u64 },
    #[error("status record {number} does not follow the one before: the feed forked")]
    Fork { number: u64 },
    #[error("a status record cannot be read: {0}")]
    Unreadable(String),
    #[error("a heartbeat cannot be believed: {0}")]
    Heartbeat(String),
    #[error("it is about environment `{found}`, not ours")]
    Environment { found: String },
    #[error("the heartbeat covers status record {covered}, the records end with {number}")]
    Mismatch { covered: u64, number: u64 },
    #[error("the authority's time, log or status went back")]
    WentBack,
    #[error("the snapshot is not the one that the status record after it vouches for")]
    Snapshot,
    #[error("too many status records without a heartbeat")]
    Uncovered,
    #[error("a message came out of order: {0}")]
    Order(&'static str),
    #[error("the snapshot cannot be read: {0}")]
    SnapshotUnreadable(String),
}

/// What an authority may send before it covers it.
const MAX_UNCOVERED: usize = 1_000_000;

#[cfg(test)]
mod tests;
