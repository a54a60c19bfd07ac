//! Replay: the state from the log.

use agentca_auditlog::log::{Log, ReadError};
use agentca_auditlog::merkle::leaf_hash;

use super::apply::ApplyError;
use super::event::{Entry, EntryError};
use super::sequencer::Applied;
use super::state::State;

/// Why the log cannot be replayed. Nothing is served from a log that is not understood.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log cannot be read.
    #[error("the log cannot be read: {0}")]
    Read(#[from] ReadError),
    /// A record is not ours.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// A record does not follow.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// Applies every durable record past the state. `applied` sees each, for the index.
pub fn replay(
    state: &mut State,
    log: &Log,
    mut applied: impl FnMut(Applied),
) -> Result<u64, ReplayError> {
    let from = state.applied();
    for record in log.scan(from) {
        let (index, bytes) = record?;
        let entry = Entry::read(index, &bytes)?;
        let leaf = leaf_hash(&bytes);
        let effects = state.apply(&entry, &leaf, None)?;
        applied(Applied {
            index,
            leaf,
            time: state.time(),
            rows: effects
                .rows
                .iter()
                .map(|key| (key.encode(), state.row(key)))
                .collect(),
            status: None,
            ended: effects.ended,
        });
    }
    Ok(state.applied() - from)
}
