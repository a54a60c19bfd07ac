//! Witnessing enforcers' logs: what is about to be co-signed.

use agentca_auditlog::merkle::Hash;
use agentca_identity::spiffe::LogOrigin;

use super::{Change, Clock, Decision};
use crate::authority::event::{Draft, Event, WitnessedHead};
use crate::authority::handle::Handle;
use crate::authority::refusal::Refusal;
use crate::authority::state::State;

/// Heads to be co-signed, each proven to extend the one held before.
#[derive(Debug)]
pub struct Witness {
    /// The heads.
    pub heads: Vec<ProvenHead>,
}

/// A head with the one it was proven to extend.
#[derive(Clone, Debug)]
pub struct ProvenHead {
    /// Whose log.
    pub enforcer: Handle,
    /// Its origin.
    pub origin: LogOrigin,
    /// The size and root it was proven to extend.
    pub from: (u64, Hash),
    /// Its size and root.
    pub to: (u64, Hash),
    /// What the enforcer said of itself.
    pub stale_after_ms: Option<u64>,
}

/// Whether a head may be co-signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WitnessVerdict {
    /// It is in the record.
    Recorded,
    /// The log is held at this size by now.
    Held(u64),
    /// The log is not to be witnessed any more.
    Retired,
}

impl Change for Witness {
    type Outcome = Vec<WitnessVerdict>;

    fn uses_reserve(&self) -> bool {
        true
    }

    fn decide(self, state: &State, _: Clock) -> Result<Decision<Self::Outcome>, Refusal> {
        let mut heads: Vec<WitnessedHead> = Vec::with_capacity(self.heads.len());
        let mut outcome = Vec::with_capacity(self.heads.len());
        for head in self.heads {
            let verdict = match state.enforcer(&head.enforcer) {
                Some(known) if !known.removed && known.log_origin == head.origin => {
                    // Its own earlier ask, given up and asked again: what will be held is what counts.
                    let earlier = heads.iter().find(|other| other.origin == head.origin);
                    match earlier {
                        Some(earlier) => WitnessVerdict::Held(earlier.size),
                        None if (known.held.size, known.held.root) != head.from => {
                            WitnessVerdict::Held(known.held.size)
                        }
                        None => WitnessVerdict::Recorded,
                    }
                }
                _ => WitnessVerdict::Retired,
            };
            if verdict == WitnessVerdict::Recorded {
                let (size, root) = head.to;
                heads.push(WitnessedHead::new(
                    head.origin,
                    size,
                    &root,
                    head.stale_after_ms,
                ));
            }
            outcome.push(verdict);
        }
        let drafts = match heads.is_empty() {
            true => Vec::new(),
            false => vec![Draft::own(Event::Witnessed { heads })],
        };
        Ok(Decision { drafts, outcome })
    }
}
