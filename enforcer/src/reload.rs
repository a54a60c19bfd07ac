//! Reloading: SIGHUP, or a change of the configuration file or of a credential.
//!
//! All or nothing: configuration and credentials are read, checked and compared with each other, and
//! only then swapped in together. What is refused is said loudly, and the last good setting stays.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agentca_identity::time::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Config, ConfigErrors};
use crate::credentials::{Credentials, CredentialsError, FILES, ISSUERS};
use crate::setting::{Setting, Settings};

/// What puts a checked setting into force; refuses or does all of it.
pub(crate) trait Apply: Send + 'static {
    /// Called on the control runtime, one at a time.
    fn apply(&mut self, setting: Setting) -> impl Future<Output = Result<(), String>> + Send;
}

/// Watches for ever.
pub(crate) async fn watch(
    path: PathBuf,
    settings: Arc<Settings>,
    mut apply: impl Apply,
) -> std::io::Result<Infallible> {
    let mut hangups = signal(SignalKind::hangup())?;
    let mut in_force = marks(&path, &settings.config().identity_dir);
    loop {
        let asked = wait(&mut hangups).await;
        let seen = marks(&path, &settings.config().identity_dir);
        if !asked && seen == in_force {
            continue;
        }
        // Several files are renewed one after the other: wait until they rest.
        let seen = settle(&path, &settings, seen).await;
        in_force = seen;
        match reload(&path, &settings, &mut apply).await {
            Ok(()) => tracing::info!(config = %path.display(), "reloaded"),
            Err(error) => {
                tracing::error!(%error, "reload refused: the last good setting stays in force");
            }
        }
    }
}

/// Whether a reload was asked for, rather than looked for.
async fn wait(hangups: &mut Signal) -> bool {
    tokio::select! {
        hangup = hangups.recv() => hangup.is_some(),
        () = tokio::time::sleep(LOOK) => false,
    }
}

async fn settle(path: &Path, settings: &Settings, mut seen: Marks) -> Marks {
    for _ in 0..MOST_RESTS {
        tokio::time::sleep(REST).await;
        let again = marks(path, &settings.config().identity_dir);
        if again == seen {
            break;
        }
        seen = again;
    }
    seen
}

async fn reload(
    path: &Path,
    settings: &Settings,
    apply: &mut impl Apply,
) -> Result<(), ReloadError> {
    let setting = check(path, &settings.setting())?;
    apply.apply(setting).await.map_err(ReloadError::Apply)
}

/// Reads what is to come and compares it with what is.
fn check(path: &Path, now: &Setting) -> Result<Setting, ReloadError> {
    let config = Config::load(path)?;
    if let Some(key) = now.config.fixed_key_changed(&config) {
        return Err(ReloadError::Fixed(key));
    }
    let credentials =
        Credentials::load(&config.identity_dir, &config.environment, Timestamp::now())?;
    let old = &now.credentials;
    if credentials.id() != old.id() || credentials.log_origin != old.log_origin {
        return Err(ReloadError::Fixed("identity_dir"));
    }
    if credentials.anchor.fingerprint() != old.anchor.fingerprint() {
        return Err(ReloadError::Root);
    }
    Ok(Setting {
        config: Arc::new(config),
        credentials: Arc::new(credentials),
    })
}

#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("`{0}` changed: restart the enforcer for that")]
    Fixed(&'static str),
    #[error("the root certificate changed: restart the enforcer for that")]
    Root,
    #[error("{0}")]
    Apply(String),
}

/// What shows that a file changed.
type Marks = BTreeMap<PathBuf, Option<(SystemTime, u64)>>;

fn marks(config: &Path, identity_dir: &Path) -> Marks {
    let files = FILES
        .iter()
        .chain([&ISSUERS])
        .map(|name| identity_dir.join(name));
    std::iter::once(config.to_owned())
        .chain(files)
        .map(|path| {
            let mark = std::fs::metadata(&path)
                .and_then(|meta| Ok((meta.modified()?, meta.len())))
                .ok();
            (path, mark)
        })
        .collect()
}

const LOOK: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_millis(200);
const MOST_RESTS: u32 = 25;

#[cfg(test)]
mod tests;
