//! The credential in use: read at the start, and again whenever its files change.
//!
//! An enforcer learns of a new certificate from the authority, which may take a while when one of them was
//! away. Until it lets the new one in, the one before stays in use as long as it is valid.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use agentca_identity::time::Timestamp;
use tokio::sync::Notify;

use crate::credentials::{CERTIFICATE, Credential, CredentialError, KEY};
use crate::tls::{self, Dialler};
use crate::url::Place;

/// A credential with what dials its enforcer.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) credential: Credential,
    pub(crate) dialler: Dialler,
}

/// Holds the newest credential of a folder.
#[derive(Debug)]
pub(crate) struct Holder {
    folder: PathBuf,
    place: Place,
    state: Mutex<State>,
    /// Told when there is a newer credential that the enforcer may not know yet.
    newer: Notify,
}

#[derive(Debug)]
struct State {
    /// Of the files as they were read last.
    stamp: Stamp,
    used: Arc<Held>,
    /// Read, and not in use yet.
    next: Option<Arc<Held>>,
}

/// When the two files that change were written.
type Stamp = [Option<SystemTime>; 2];

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HolderError {
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("TLS cannot use the credential: {0}")]
    Tls(#[from] rustls::Error),
}

impl Holder {
    /// Reads `folder`, to be shown to the enforcer at `place`.
    pub(crate) fn open(folder: &Path, place: &Place) -> Result<Self, HolderError> {
        let (stamp, used) = read(folder, place, Credential::load)?;
        used.credential.check_time(Timestamp::now())?;
        Ok(Self {
            folder: folder.to_owned(),
            place: place.clone(),
            state: Mutex::new(State {
                stamp,
                used,
                next: None,
            }),
            newer: Notify::new(),
        })
    }

    /// The newest one, whether or not it is in use.
    pub(crate) fn newest(&self) -> Arc<Held> {
        let state = self.state();
        Arc::clone(state.next.as_ref().unwrap_or(&state.used))
    }

    /// Reads the files again when they changed; says whether they did.
    pub(crate) fn refresh(&self) -> Result<bool, HolderError> {
        if stamp(&self.folder) == self.state().stamp {
            return Ok(false);
        }
        let (stamp, held) = read(&self.folder, &self.place, Credential::load_now)?;
        let ends = held.credential.certificate.not_after();
        tracing::info!(until = %ends.rfc3339(), "found another certificate in the folder");
        let mut state = self.state();
        state.stamp = stamp;
        state.next = Some(held);
        drop(state);
        self.newer.notify_one();
        Ok(true)
    }

    /// The credential to show to the enforcer: the one in use, or once it has ended the newest.
    pub(crate) fn usable(&self) -> Result<Arc<Held>, HolderError> {
        let now = Timestamp::now();
        let used = Arc::clone(&self.state().used);
        if used.credential.check_time(now).is_ok() {
            return Ok(used);
        }
        self.refresh()?;
        let newest = self.newest();
        newest.credential.check_time(now)?;
        self.take_over(&newest);
        Ok(newest)
    }

    /// Waits for a credential that is not in use yet.
    pub(crate) async fn next(&self) -> Arc<Held> {
        loop {
            if let Some(next) = self.state().next.clone() {
                return next;
            }
            self.newer.notified().await;
        }
    }

    /// From now on this one is in use, unless there is another by now.
    pub(crate) fn take_over(&self, held: &Arc<Held>) {
        let mut state = self.state();
        if state
            .next
            .as_ref()
            .is_some_and(|next| Arc::ptr_eq(next, held))
        {
            state.used = Arc::clone(held);
            state.next = None;
            tracing::info!("took over the certificate in the folder");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for what somebody else puts into the folder, for ever.
    pub(crate) async fn watch(&self) {
        let mut failures: u32 = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            match self.refresh() {
                Ok(_) => failures = 0,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    // The first time somebody may be in the middle of replacing them; then it is said once.
                    if failures == 2 {
                        tracing::warn!(%error, "the certificate in the folder cannot be used");
                    }
                }
            }
        }
    }
}

fn read(
    folder: &Path,
    place: &Place,
    load: impl FnOnce(&Path) -> Result<Credential, CredentialError>,
) -> Result<(Stamp, Arc<Held>), HolderError> {
    // Before the files: one that is replaced meanwhile is read again at the next look.
    let stamp = stamp(folder);
    let credential = load(folder)?;
    let dialler = tls::enforcer(&credential, place)?;
    let held = Held {
        credential,
        dialler,
    };
    Ok((stamp, Arc::new(held)))
}

fn stamp(folder: &Path) -> Stamp {
    [KEY, CERTIFICATE].map(|name| fs::metadata(folder.join(name)).ok()?.modified().ok())
}

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);
