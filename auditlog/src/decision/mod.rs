//! The records an enforcer writes: decisions and outcomes of calls, refused handshakes, and
//! what it needs to remember of the authority.
//!
//! Written in canonical order straight into the batch; nothing is allocated. Fields that do not
//! apply are absent.

mod call;
mod control;

pub use call::{
    AgentFields, CallFields, DecisionFields, OutcomeFields, RequestFields, ResultFields,
};
pub use control::{
    AuthorityCheckpoint, CatalogueChange, CatalogueLoaded, CatalogueStatements, Confirmed,
    CrlAccepted, HandshakeRefused, ToolWithheld, WitnessConfirmed, read_witness_confirmed,
};

/// The kind of a decision record; it may hold the outcome too.
pub const DECISION: &str = "decision";
/// The kind of an outcome record.
pub const OUTCOME: &str = "outcome";
/// The kind of [`HandshakeRefused`].
pub const HANDSHAKE_REFUSED: &str = "handshake-refused";
/// The kind of [`WitnessConfirmed`].
pub const WITNESS_CONFIRMED: &str = "witness-confirmed";
/// The kind of [`AuthorityCheckpoint`].
pub const AUTHORITY_CHECKPOINT: &str = "authority-checkpoint";
/// The kind of [`CrlAccepted`].
pub const CRL_ACCEPTED: &str = "crl-accepted";
/// The kind of [`ToolWithheld`].
pub const TOOL_WITHHELD: &str = "tool-withheld";

/// The kind of [`CatalogueLoaded`].
pub const CATALOGUE_LOADED: &str = "catalogue-loaded";

#[cfg(test)]
mod tests {
    use agentca_identity::time::Timestamp;

    use crate::record::tests::canonical;
    use crate::record::{Head, scan};

    pub(super) const LOG: &str = "example.org/prod/enforcer/edge-1";

    /// What `write` writes, which must be in canonical form.
    pub(super) fn written(write: impl FnOnce(&Head<'_>, &mut Vec<u8>)) -> Vec<u8> {
        let head = Head::new(41, Timestamp::from_millis(1_763_707_760_123), LOG);
        let mut out = Vec::new();
        write(&head, &mut out);
        scan(&out).unwrap();
        assert_eq!(
            String::from_utf8(canonical(&out)).unwrap(),
            String::from_utf8(out.clone()).unwrap()
        );
        out
    }
}
