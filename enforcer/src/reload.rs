//! Reloading: SIGHUP, or a change of the configuration file or of a credential.
//!
//! All or nothing: configuration and credentials are read, checked and compared with each other, and
//! only then swapped in together. What is refused is said loudly, to commands too ([`notice`]), and the last good
//! setting stays.

mod notice;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use agentca_identity::time::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::notice::Notice;
pub(crate) use self::notice::{Refused, last_refused};
use crate::approvals;
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
    apply: impl Apply,
) -> std::io::Result<Infallible> {
    let mut hangups = signal(SignalKind::hangup())?;
    let mut watcher = Watcher::new(path, settings, apply);
    loop {
        let asked = wait(&mut hangups).await;
        watcher.look(asked).await;
        watcher.remind();
    }
}

/// What was seen of the files, and what came of it.
struct Watcher<A> {
    path: PathBuf,
    settings: Arc<Settings>,
    apply: A,
    seen: Marks,
    notice: Notice,
    /// When what was refused for a reason that may pass is tried again.
    again: Option<Instant>,
    /// When certificates were last looked at.
    reminded: Option<Instant>,
}

impl<A: Apply> Watcher<A> {
    fn new(path: PathBuf, settings: Arc<Settings>, apply: A) -> Self {
        let seen = marks(&path, &settings.config());
        let notice = Notice::open(&settings.config().data_dir);
        Self {
            path,
            settings,
            apply,
            seen,
            notice,
            again: None,
            reminded: None,
        }
    }

    /// Reloads when it was `asked`, when a file changed, or when it is time to try again.
    async fn look(&mut self, asked: bool) {
        let seen = marks(&self.path, &self.settings.config());
        let due = self.again.is_some_and(|at| at <= Instant::now());
        if !asked && !due && seen == self.seen {
            return;
        }
        // Several files are renewed one after the other: wait until they rest.
        self.seen = settle(&self.path, &self.settings, seen).await;
        self.again = None;
        match reload(&self.path, &self.settings, &mut self.apply).await {
            Ok(()) => {
                self.notice.taken();
                tracing::info!(config = %self.path.display(), "reloaded");
            }
            Err(error) => {
                self.notice.refused(&error.to_string());
                tracing::error!(%error, "reload refused: the last good setting stays in force");
                if error.may_pass() {
                    self.again = Instant::now().checked_add(AGAIN);
                }
            }
        }
    }

    /// Says once a day, and at start, that a certificate is about to end.
    fn remind(&mut self) {
        if self.reminded.is_some_and(|at| at.elapsed() < DAY) {
            return;
        }
        self.reminded = Some(Instant::now());
        if let Some((file, ends)) = self.settings.credentials().ends_soon(Timestamp::now()) {
            tracing::warn!(
                file,
                %ends,
                "a certificate of identity_dir ends soon: renew it with `agentca renew DIR --daemon`"
            );
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
        let again = marks(path, &settings.config());
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
    // A catalogue of many thousand tools takes a while, in which heartbeats must be heard.
    let (path, now) = (path.to_owned(), settings.setting());
    let checked = tokio::task::spawn_blocking(move || check(&path, &now)).await;
    let setting = checked.map_err(|_| ReloadError::Check)??;
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
    let config = approvals::admit(config, &credentials.anchor)?;
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
    #[error("the files could not be checked")]
    Check,
}

impl ReloadError {
    /// Whether the same files may be good later: a disk that was full, a folder half written.
    fn may_pass(&self) -> bool {
        match self {
            Self::Credentials(_) | Self::Apply(_) => true,
            // Files that it names are written one after the other, and not watched until it is in force.
            Self::Config(errors) => errors.in_other_files(),
            Self::Check | Self::Fixed(_) | Self::Root => false,
        }
    }
}

/// What shows that a file changed.
type Marks = BTreeMap<PathBuf, Option<(SystemTime, u64)>>;

fn marks(path: &Path, config: &Config) -> Marks {
    let credentials = FILES
        .iter()
        .chain([&ISSUERS])
        .map(|name| config.identity_dir.join(name));
    std::iter::once(path.to_owned())
        .chain(credentials)
        .chain(config.catalogue_files.iter().cloned())
        .map(|path| {
            let mark = std::fs::metadata(&path)
                .and_then(|meta| Ok((meta.modified()?, meta.len())))
                .ok();
            (path, mark)
        })
        .collect()
}

const LOOK: Duration = Duration::from_secs(1);
/// Until what may pass is tried again.
const AGAIN: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const REST: Duration = Duration::from_millis(200);
const MOST_RESTS: u32 = 25;

#[cfg(test)]
mod tests;
