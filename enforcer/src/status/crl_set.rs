//! What certificate revocation lists say: one per shard, each for the certificates of its own CA.

use std::collections::HashMap;
use std::sync::Arc;

use agentca_identity::certificate::CrlUri;
use agentca_identity::profile::crl::Crl;
use agentca_identity::time::Timestamp;

use super::{Claim, Verdict};

/// Verified CRLs by the distribution point they are for.
#[derive(Debug, Default)]
pub struct CrlSet {
    by_shard: HashMap<CrlUri, Arc<Crl>>,
}

/// From when and until when a set may be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// The latest thisUpdate: it cannot be earlier now.
    pub(super) this_update: Timestamp,
    /// The earliest nextUpdate.
    pub(super) next_update: Timestamp,
}

impl CrlSet {
    /// The set of all configured CRLs; of two for the same shard the one with the higher number.
    #[must_use]
    pub fn new(crls: impl IntoIterator<Item = Arc<Crl>>) -> Self {
        let mut by_shard: HashMap<CrlUri, Arc<Crl>> = HashMap::new();
        for crl in crls {
            let newer = by_shard
                .get(crl.shard_uri())
                .is_none_or(|held| held.number() < crl.number());
            if newer {
                by_shard.insert(crl.shard_uri().clone(), crl);
            }
        }
        Self { by_shard }
    }

    pub(super) fn window(&self) -> Option<Window> {
        let this_update = self.by_shard.values().map(|crl| crl.this_update()).max()?;
        let next_update = self.by_shard.values().map(|crl| crl.next_update()).min()?;
        Some(Window {
            this_update,
            next_update,
        })
    }

    /// A certificate whose shard is not among them is unknown, and so is one whose CA did not sign the
    /// list: each CA speaks for its own.
    pub(super) fn verdict(&self, claim: &Claim<'_>) -> Verdict {
        match claim.crl_uri.and_then(|uri| self.by_shard.get(uri)) {
            None => Verdict::Unknown,
            Some(crl) if claim.issuer_key != Some(crl.authority_key_id()) => Verdict::Unknown,
            Some(crl) if crl.revoked(&claim.serial).is_some() => Verdict::Revoked,
            Some(_) => Verdict::Valid,
        }
    }
}
