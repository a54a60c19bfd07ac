//! The credential in use: read at the start, and again whenever its files change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use agentca_identity::time::Timestamp;

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
    current: Mutex<(Stamp, Arc<Held>)>,
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
        let read = read(folder, place, Credential::load)?;
        read.1.credential.check_time(Timestamp::now())?;
        Ok(Self {
            folder: folder.to_owned(),
            place: place.clone(),
            current: Mutex::new(read),
        })
    }

    /// The newest one.
    pub(crate) fn current(&self) -> Arc<Held> {
        let current = self.current.lock();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner).1)
    }

    /// Reads the files again when they changed; says whether they did.
    pub(crate) fn refresh(&self) -> Result<bool, HolderError> {
        let known = self
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        if stamp(&self.folder) == known {
            return Ok(false);
        }
        let read = read(&self.folder, &self.place, Credential::load_now)?;
        let ends = read.1.credential.certificate.not_after();
        tracing::info!(until = %ends.rfc3339(), "took over the certificate in the folder");
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(true)
    }

    /// The newest credential, unless it has ended and no newer one lies in the folder.
    pub(crate) fn usable(&self) -> Result<Arc<Held>, HolderError> {
        let held = self.current();
        let now = Timestamp::now();
        if held.credential.check_time(now).is_ok() {
            return Ok(held);
        }
        self.refresh()?;
        let held = self.current();
        held.credential.check_time(now)?;
        Ok(held)
    }

    /// Takes over what somebody else puts into the folder, for ever.
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
                        tracing::warn!(%error, "the certificate in the folder was not taken over");
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
