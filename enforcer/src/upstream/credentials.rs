//! What this enforcer shows an upstream: kept ready, so that no request waits for it.
//!
//! One thread reads files, runs commands and asks for tokens, ahead of time. A request takes what is there
//! or, when nothing is, is denied. What cannot be read any longer is withdrawn at once when it is a
//! file or a variable; what a command or a token endpoint gave stays until it ends.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::mpsc as blocking;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use agentca_identity::spiffe::SpiffeId;
use arc_swap::ArcSwapOption;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{Notify, mpsc, watch};

use super::oauth::{self, TokenError};
use super::secret::{Secret, SecretError};
use super::target::{Target, TargetError};
use crate::config::{CredentialKind, CredentialOptions, SecretSource};

/// Those of one upstream. Dropping it ends their keeping.
pub(crate) struct Credentials {
    upstream: Arc<str>,
    all: Option<Arc<Slot>>,
    agents: HashMap<String, Arc<Slot>>,
    _stop: watch::Sender<()>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(elided)")
    }
}

/// There is none for this call: it is denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream `{upstream}` has no credential")]
pub(crate) struct NoCredential {
    upstream: Arc<str>,
}

/// What is put into a request.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    name: HeaderName,
    value: HeaderValue,
}

impl Shown {
    /// In place of whatever the client sent there.
    pub(crate) fn put(self, headers: &mut HeaderMap) {
        headers.insert(self.name, self.value);
    }
}

impl Credentials {
    /// Begins to keep them; returns when each was tried once, or after [`FIRST`].
    pub(super) fn keep(upstream: &str, options: &CredentialOptions) -> Result<Self, TargetError> {
        let (stop, stopped) = watch::channel(());
        let (done, tried) = blocking::channel();
        let mut count = 0_u32;
        let mut slot = |agent: Option<&str>, kind: &CredentialKind| {
            let slot = Arc::<Slot>::default();
            let keeping = Keeping {
                upstream: upstream.to_owned(),
                agent: agent.map(str::to_owned),
                what: What::of(upstream, kind)?,
                refresh: options.refresh,
                slot: Arc::clone(&slot),
                forced: None,
                failures: 0,
            };
            count = count.saturating_add(1);
            let (done, stopped) = (done.clone(), stopped.clone());
            keeper(Box::new(move || Box::pin(keeping.run(done, stopped))))
                .map_err(TargetError::Keeper)?;
            Ok::<_, TargetError>(slot)
        };
        let all = options
            .all
            .as_ref()
            .map(|kind| slot(None, kind))
            .transpose()?;
        let agents: Result<HashMap<_, _>, TargetError> = options
            .agents
            .iter()
            .map(|(agent, kind)| Ok((agent.clone(), slot(Some(agent), kind)?)))
            .collect();
        let agents = agents?;
        let deadline = Instant::now().checked_add(FIRST);
        for _ in 0..count {
            let left = deadline.map_or(FIRST, |at| at.saturating_duration_since(Instant::now()));
            if tried.recv_timeout(left).is_err() {
                tracing::warn!(
                    upstream,
                    "credentials take long: calls are denied until they come"
                );
                break;
            }
        }
        Ok(Self {
            upstream: upstream.into(),
            all,
            agents,
            _stop: stop,
        })
    }

    /// What `agent`'s request shows.
    pub(super) fn shown(&self, agent: &SpiffeId) -> Result<Shown, NoCredential> {
        self.slot(agent)
            .and_then(|slot| slot.shown())
            .ok_or_else(|| NoCredential {
                upstream: Arc::clone(&self.upstream),
            })
    }

    /// The upstream did not take what `agent`'s request showed.
    pub(super) fn refused(&self, agent: &SpiffeId) {
        if let Some(slot) = self.slot(agent) {
            slot.refused.notify_one();
        }
    }

    fn slot(&self, agent: &SpiffeId) -> Option<&Slot> {
        let own = agent.name().and_then(|name| self.agents.get(name.as_str()));
        own.or(self.all.as_ref()).map(Arc::as_ref)
    }
}

/// Where the newest of one credential lies.
#[derive(Default)]
struct Slot {
    current: ArcSwapOption<Ready>,
    refused: Notify,
}

struct Ready {
    shown: Shown,
    /// When it ends.
    until: Option<Instant>,
}

impl Slot {
    fn shown(&self) -> Option<Shown> {
        let current = self.current.load();
        let ready = current.as_ref()?;
        let over = ready.until.is_some_and(|until| until <= Instant::now());
        (!over).then(|| ready.shown.clone())
    }
}

/// One credential being kept.
struct Keeping {
    upstream: String,
    agent: Option<String>,
    what: What,
    refresh: Duration,
    slot: Arc<Slot>,
    /// When an upstream's refusal last had it read before its time.
    forced: Option<Instant>,
    failures: u32,
}

enum What {
    Read {
        name: HeaderName,
        form: Form,
        source: SecretSource,
    },
    Token {
        endpoint: Box<Target>,
        options: Box<crate::config::OAuthOptions>,
    },
}

/// What a secret becomes.
enum Form {
    Bare,
    Bearer,
    Basic(String),
}

impl Form {
    fn value(&self, secret: &Secret) -> Result<HeaderValue, SecretError> {
        match self {
            Self::Bare => secret.value(""),
            Self::Bearer => secret.value(BEARER),
            Self::Basic(user) => secret.basic(user.as_bytes()),
        }
    }
}

impl What {
    fn of(upstream: &str, kind: &CredentialKind) -> Result<Self, TargetError> {
        let read = |name, form, source: &SecretSource| Self::Read {
            name,
            form,
            source: source.clone(),
        };
        Ok(match kind {
            CredentialKind::Header { name, value } => read(name.clone(), Form::Bare, value),
            CredentialKind::Basic { user, password } => {
                read(AUTHORIZATION, Form::Basic(user.clone()), password)
            }
            CredentialKind::Bearer(source) => read(AUTHORIZATION, Form::Bearer, source),
            CredentialKind::OAuth(options) => Self::Token {
                endpoint: Box::new(Target::token_endpoint(upstream, options)?),
                options: options.clone(),
            },
        })
    }
}

/// What was got, until when it counts and when it is due again.
struct Got {
    ready: Ready,
    again: Duration,
}

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("{0} {1}")]
    Secret(SecretSource, SecretError),
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl Keeping {
    async fn run(mut self, tried: blocking::Sender<()>, mut stopped: watch::Receiver<()>) {
        loop {
            let wait = tokio::select! {
                got = self.get() => self.take(got),
                _gone = stopped.changed() => return,
            };
            // Only the first is waited for.
            let _nobody = tried.send(());
            tokio::select! {
                () = self.due(wait) => {}
                _gone = stopped.changed() => return,
            }
        }
    }

    async fn get(&self) -> Result<Got, KeepError> {
        match &self.what {
            What::Read { name, form, source } => {
                let failed = |error| KeepError::Secret(source.clone(), error);
                let secret = Secret::read(source).await.map_err(failed)?;
                let until = match source {
                    SecretSource::Command { .. } => Instant::now().checked_add(self.refresh * 2),
                    SecretSource::File(_) | SecretSource::Environment(_) => None,
                };
                let value = form.value(&secret).map_err(failed)?;
                Ok(Got {
                    ready: ready(name.clone(), value, until),
                    again: self.refresh,
                })
            }
            What::Token { endpoint, options } => {
                let asked = Instant::now();
                let token = oauth::fetch(endpoint, options).await?;
                let lifetime = token.lifetime.map(|lifetime| lifetime.min(LONGEST));
                let value = token.secret.value(BEARER).map_err(TokenError::Secret)?;
                // Whatever the endpoint says, a token ends a moment early for us: a request takes its time.
                let until = lifetime.map(|lifetime| lifetime.saturating_sub(margin(lifetime) / 2));
                Ok(Got {
                    ready: ready(
                        AUTHORIZATION,
                        value,
                        until.and_then(|u| asked.checked_add(u)),
                    ),
                    again: lifetime.map_or(self.refresh, |all| all.saturating_sub(margin(all))),
                })
            }
        }
    }

    /// Puts it into force, or says why there is none; gives when to try again.
    fn take(&mut self, got: Result<Got, KeepError>) -> Duration {
        let (upstream, agent) = (self.upstream.as_str(), self.agent.as_deref());
        match got {
            Ok(Got { ready, again }) => {
                self.slot.current.store(Some(Arc::new(ready)));
                if self.failures > 0 {
                    tracing::info!(upstream, agent, "the upstream's credential is there again");
                }
                self.failures = 0;
                again
            }
            Err(error) => {
                if self.withdraws(&error) {
                    self.slot.current.store(None);
                }
                let in_force = self.slot.shown().is_some();
                tracing::warn!(upstream, agent, %error, in_force, "no new credential for the upstream");
                self.failures = self.failures.saturating_add(1);
                let seconds = 1_u64 << self.failures.saturating_sub(1).min(6);
                Duration::from_secs(seconds).min(LONGEST_PAUSE)
            }
        }
    }

    /// Whether whoever had it has taken it away.
    fn withdraws(&self, error: &KeepError) -> bool {
        match (error, &self.what) {
            (KeepError::Secret(SecretSource::Command { .. }, _) | KeepError::Token(_), _) => false,
            (KeepError::Secret(..), _) => true,
        }
    }

    /// Until it has to be got again: in time, or because an upstream refused it, though not at every refusal, for
    /// those an agent may bring about.
    async fn due(&mut self, wait: Duration) {
        let slot = Arc::clone(&self.slot);
        let mut waiting = std::pin::pin!(tokio::time::sleep(wait));
        loop {
            tokio::select! {
                () = &mut waiting => return,
                () = slot.refused.notified() => {
                    let rested = self.forced.is_none_or(|at| at.elapsed() >= BETWEEN_FORCED);
                    if rested && self.failures == 0 {
                        self.forced = Some(Instant::now());
                        return;
                    }
                }
            }
        }
    }
}

fn ready(name: HeaderName, value: HeaderValue, until: Option<Instant>) -> Ready {
    Ready {
        shown: Shown { name, value },
        until,
    }
}

/// How long before its end a token is renewed.
fn margin(lifetime: Duration) -> Duration {
    (lifetime / 4).min(Duration::from_secs(60))
}

type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Gives a task to the thread that keeps credentials, which begins with the first.
fn keeper(job: Job) -> io::Result<()> {
    static KEEPER: OnceLock<mpsc::UnboundedSender<Job>> = OnceLock::new();
    let sender = match KEEPER.get() {
        Some(sender) => sender,
        None => {
            let started = start_keeper()?;
            // Another may have begun at the same time: one of them has nothing to do.
            KEEPER.get_or_init(|| started)
        }
    };
    sender
        .send(job)
        .map_err(|_| io::Error::other("its thread has ended"))
}

fn start_keeper() -> io::Result<mpsc::UnboundedSender<Job>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (sender, mut jobs) = mpsc::unbounded_channel::<Job>();
    std::thread::Builder::new()
        .name("credentials".to_owned())
        .spawn(move || {
            let local = tokio::task::LocalSet::new();
            runtime.block_on(local.run_until(async {
                while let Some(job) = jobs.recv().await {
                    tokio::task::spawn_local(job());
                }
            }));
        })?;
    Ok(sender)
}

/// What can be known of an upstream's credentials without running or asking anything.
pub(super) fn inspect(upstream: &str, options: &CredentialOptions) -> Vec<String> {
    let all = options.all.iter().map(|kind| (None, kind));
    let agents = options.agents.iter();
    all.chain(agents.map(|(agent, kind)| (Some(agent), kind)))
        .filter_map(|(agent, kind)| {
            let wrong = wrong(upstream, kind)?;
            Some(match agent {
                None => format!("credentials: {wrong}"),
                Some(agent) => format!("credentials of agent `{agent}`: {wrong}"),
            })
        })
        .collect()
}

fn wrong(upstream: &str, kind: &CredentialKind) -> Option<String> {
    let source = match kind {
        CredentialKind::Header { value, .. } => value,
        CredentialKind::Basic { password, .. } => password,
        CredentialKind::Bearer(source) => source,
        CredentialKind::OAuth(options) => &options.client_secret,
    };
    let looked = Secret::look(source).err();
    let looked = looked.map(|error| format!("{source} {error}"));
    looked.or_else(|| Some(What::of(upstream, kind).err()?.to_string()))
}

const BEARER: &str = "Bearer ";
/// How long a start or a reload waits for the first of everything.
const FIRST: Duration = Duration::from_secs(10);
/// Between two refreshes because of a refusal.
const BETWEEN_FORCED: Duration = Duration::from_secs(30);
/// Between two tries that fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A token is asked for again at least this often.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
