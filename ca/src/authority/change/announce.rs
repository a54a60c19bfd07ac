//! What the authority announces by itself: its signers' certificates, issuing CAs, CRLs, snapshots.

use agentca_auditlog::status::StatusEvent;
use agentca_identity::name::Environment;
use agentca_identity::time::Timestamp;

use super::{Change, Clock, Decision};
use crate::authority::event::{Draft, Event};
use crate::authority::refusal::Refusal;
use crate::authority::state::State;

/// The next certificate of the key that signs the authority's log, or of the witness's.
#[derive(Debug)]
pub struct AnnounceSigner {
    /// Leaf, then intermediate, DER.
    pub chain: Vec<Vec<u8>>,
}

impl Change for AnnounceSigner {
    type Outcome = ();

    fn uses_reserve(&self) -> bool {
        true
    }

    fn decide(self, _: &State, clock: Clock) -> Result<Decision<()>, Refusal> {
        clock.demand_right()?;
        Ok(Decision {
            drafts: vec![Draft::signer(self.chain)],
            outcome: (),
        })
    }
}

/// The issuing CAs, to every environment that has not heard of one of them.
#[derive(Debug)]
pub struct AnnounceIssuers {
    /// Their certificates, DER.
    pub certificates: Vec<Vec<u8>>,
}

impl Change for AnnounceIssuers {
    type Outcome = ();

    fn uses_reserve(&self) -> bool {
        true
    }

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<()>, Refusal> {
        clock.demand_right()?;
        let mut drafts = Vec::new();
        for (environment, chain) in state.chains() {
            let unknown = self.certificates.iter();
            let unknown = unknown.filter(|certificate| !chain.issuers.contains(certificate));
            drafts.extend(unknown.map(|certificate| {
                let certificate = certificate.clone();
                let event = StatusEvent::IssuerAdded { certificate };
                Draft::status(environment.clone(), None, event)
            }));
        }
        Ok(Decision {
            drafts,
            outcome: (),
        })
    }
}

/// Announces the CRL whose number will be the record's index.
#[derive(Debug)]
pub struct AnnounceCrl {
    /// Which shard.
    pub shard: u16,
    /// Where it will be.
    pub uri: String,
    /// How many certificates it revokes.
    pub entries: u64,
    /// Good from.
    pub this_update: Timestamp,
    /// Good until.
    pub next_update: Timestamp,
}

impl Change for AnnounceCrl {
    type Outcome = ();

    fn uses_reserve(&self) -> bool {
        true
    }

    fn decide(self, _: &State, _: Clock) -> Result<Decision<()>, Refusal> {
        let Self {
            shard,
            uri,
            entries,
            this_update,
            next_update,
        } = self;
        let event = Event::CrlAnnounced {
            shard,
            uri,
            entries,
            this_update: this_update.rfc3339(),
            next_update: next_update.rfc3339(),
        };
        Ok(Decision {
            drafts: vec![Draft::own(event)],
            outcome: (),
        })
    }
}

/// Announces a snapshot whose bytes are durable.
#[derive(Debug)]
pub struct AnnounceSnapshot {
    /// Of which environment.
    pub environment: Environment,
    /// The last status number that it includes.
    pub covers: u64,
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
}

impl Change for AnnounceSnapshot {
    /// Whether it was announced: status records may have come in between.
    type Outcome = SnapshotVerdict;

    fn decide(self, state: &State, _: Clock) -> Result<Decision<SnapshotVerdict>, Refusal> {
        let Self {
            environment,
            covers,
            digest,
        } = self;
        if state
            .chain(&environment)
            .is_none_or(|chain| chain.number != covers)
        {
            return Ok(Decision {
                drafts: Vec::new(),
                outcome: SnapshotVerdict::Overtaken,
            });
        }
        let event = StatusEvent::Snapshot { digest, covers };
        let drafts = vec![Draft::status(environment, None, event)];
        Ok(Decision {
            drafts,
            outcome: SnapshotVerdict::Announced,
        })
    }
}

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotVerdict {
    /// Its record follows the last one it covers.
    Announced,
    /// Other status records came first; it is of no use.
    Overtaken,
}
