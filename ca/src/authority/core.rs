//! The running authority: what every service needs.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;

use super::sequencer::Sequencer;
use crate::config::{Lifetimes, Limits};
use crate::crl::Shelf;
use crate::feed::{Followers, Hub, Snapshots};
use crate::metrics::Metrics;
use crate::mint::Mint;
use crate::pace::Pace;
use crate::witness::WitnessQueue;

/// The running authority.
#[derive(Debug)]
pub struct Authority {
    /// The one road by which anything changes.
    pub sequencer: Arc<Sequencer>,
    /// Makes certificates.
    pub mint: Arc<Mint>,
    /// The root certificate, DER.
    pub root: Vec<u8>,
    /// The live feed.
    pub hub: Arc<Hub>,
    /// What enforcers confirmed.
    pub followers: Followers,
    /// Asks the witness.
    pub witness: WitnessQueue,
    /// Makes and keeps snapshots.
    pub snapshots: Snapshots,
    /// Published CRLs.
    pub shelf: Arc<Shelf>,
    /// Counters.
    pub metrics: Metrics,
    /// Who signs for the authority.
    pub signers: Signers,
    /// Default lifetimes.
    pub lifetimes: Lifetimes,
    /// Bounds.
    pub limits: Limits,
    /// How often somebody may renew.
    pub pace: Pace,
    /// Rung when the authority must not go on.
    pub alarm: Alarm,
}

/// Who signs for the authority. The keys stay, their certificates are renewed.
#[derive(Debug)]
pub struct Signers {
    /// The origin of the authority's log.
    pub log_origin: String,
    /// The C2SP verifier key of the authority's log.
    pub log_vkey: String,
    /// The C2SP verifier key of the witness.
    pub witness_vkey: String,
    /// The certificates in force.
    pub chains: RwLock<SignerChains>,
}

/// The certificates in force of those who sign: leaf, then intermediate, DER.
#[derive(Clone, Debug)]
pub struct SignerChains {
    /// Of the authority's log.
    pub log: Vec<Vec<u8>>,
    /// Of the witness.
    pub witness: Vec<Vec<u8>>,
}

impl Signers {
    /// The certificates in force.
    pub fn chains(&self) -> SignerChains {
        self.chains
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Puts a renewed certificate into force.
    pub fn renew(&self, change: impl FnOnce(&mut SignerChains)) {
        change(&mut self.chains.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Stops the authority.
#[derive(Clone, Debug)]
pub struct Alarm(mpsc::UnboundedSender<String>);

impl Alarm {
    /// The alarm, and where it rings.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (bell, ear) = mpsc::unbounded_channel();
        (Self(bell), ear)
    }

    /// Stops the authority and says why.
    pub fn raise(&self, why: String) {
        tracing::error!(%why, "the authority stops");
        // Nobody listens when it stops already.
        let _stopping = self.0.send(why);
    }
}
