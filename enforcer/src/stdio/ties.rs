//! The certificates that a process was reached with: it ends with their rights, whether or not a
//! connection is open then.
//!
//! A session outlives a certificate, since its agent renews; so each one that is used is tied once. When
//! one is revoked, or its agent is restricted, the process ends: nobody can tell what it did for whom. One
//! that ended by its time, and is forgotten, ends it only when no other is left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentca_identity::serial::Serial;
use tokio::runtime::Handle;

use super::process::Process;
use crate::status::{Verdict, Watch};

/// All of one process.
#[derive(Debug)]
pub(super) struct Ties {
    watches: Mutex<HashMap<Serial, Tie>>,
    handle: Handle,
}

/// One certificate that it was reached with.
#[derive(Clone, Debug)]
pub(crate) struct Tie(Arc<Watch>);

impl Tie {
    /// Whether it has lost nothing.
    pub(super) fn holds(&self) -> bool {
        !self.0.is_cancelled()
    }
}

impl Ties {
    /// None yet; called on the control plane's runtime.
    pub(super) fn new() -> Self {
        Self {
            watches: Mutex::default(),
            handle: Handle::current(),
        }
    }

    /// Ties a process to a certificate, once.
    pub(super) fn tie(&self, process: &Process, watch: &Watch) -> Tie {
        let mut watches = self.lock();
        if let Some(known) = watches.get(&watch.serial()) {
            return known.clone();
        }
        let tie = Tie(Arc::new(watch.again()));
        watches.insert(watch.serial(), tie.clone());
        drop(watches);
        self.handle.spawn(ends(process.clone(), tie.clone()));
        tie
    }

    /// Whether the process goes on without this one: it was only forgotten, and another is valid.
    fn goes_on_without(&self, tie: &Tie) -> bool {
        if tie.0.verdict() != Verdict::Unknown {
            return false;
        }
        let mut watches = self.lock();
        watches.remove(&tie.0.serial());
        let mut others = watches.values();
        others.any(|other| other.holds() && other.0.verdict() == Verdict::Valid)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Serial, Tie>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the end of either.
async fn ends(process: Process, tie: Tie) {
    tokio::select! {
        () = tie.0.cancelled() => {
            if !process.core.ties.goes_on_without(&tie) {
                process.end();
            }
        }
        () = process.gone() => {}
    }
}
