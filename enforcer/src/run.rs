//! `agentca-enforcer run`: assembly, life and end of an enforcer.
//!
//! Configuration and credentials are checked, the log is opened, then feed and witness (or the CRLs)
//! start on the control runtime. The listener opens once they have confirmed, or after
//! `stale_after`; serving threads are the data plane's own. On SIGTERM running requests end within
//! their deadline, the log is witnessed once more and left with a checkpoint over everything.

mod opening;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use agentca_auditlog::log::Log;
use agentca_identity::time::Timestamp;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::opening::OpeningError;
pub(crate) use self::opening::inspect;
use crate::approvals;
use crate::catalogue_log::CatalogueLog;
use crate::config::{Config, ConfigErrors, RevocationMode};
use crate::credentials::{Credentials, CredentialsError};
use crate::crl::CrlFollower;
use crate::descriptors;
use crate::feed::Follower;
use crate::floor::Floor;
use crate::journal::{Floors, JournalError};
use crate::live::{Live, LiveError, ServingIdentity};
use crate::mcp::Watcher;
use crate::ops::{self, Board, Ops};
use crate::reload::{self, Apply};
use crate::server::{Server, ServerError};
use crate::setting::{Setting, Settings};
use crate::status::{Readiness, Registry};
use crate::witness::{self, Witness};

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`]: it could not start, or not end as promised.
pub fn run(path: &Path) -> Result<(), RunError> {
    descriptors::raise();
    let config = Config::load(path)?;
    let credentials =
        Credentials::load(&config.identity_dir, &config.environment, Timestamp::now())?;
    let config = approvals::admit(config, &credentials.anchor)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    let result = runtime.block_on(serve(path, config, credentials));
    // Nothing that matters is left, only what may hang on a dead authority or a full disk.
    runtime.shutdown_timeout(LAST_TASKS);
    result
}

async fn serve(path: &Path, config: Config, credentials: Credentials) -> Result<(), RunError> {
    let mut stop = Stop::new().map_err(RunError::Runtime)?;
    let enforcer = Enforcer::assemble(path, config, credentials)?;
    let announced = &enforcer.floors.announced;
    opening::announce_missing(&enforcer.log, &enforcer.settings.credentials(), announced).await?;
    let config = enforcer.settings.config();
    let mut catalogue = CatalogueLog::open(&config, &enforcer.log);
    catalogue.record(&config).await?;
    let operators = enforcer.listen_for_operators().await?;
    let mut control = enforcer.start_control(operators, catalogue);
    let watcher = enforcer.watcher();
    let ready = async {
        enforcer.may_listen().await;
        watcher.first().await;
    };
    let server = tokio::select! {
        () = stop.asked() => None,
        () = ready => Some(enforcer.listen()?),
    };
    control.tasks.push(tokio::spawn({
        let watcher = Arc::clone(&watcher);
        async move { match watcher.run().await {} }
    }));
    if let Some(server) = server {
        stop.asked().await;
        tracing::info!("stopping: running requests may end");
        server.drain().await;
    }
    enforcer.live.load_full().leave(None).await;
    control.end(&enforcer.registry).await;
    enforcer.close().await
}

/// Everything that is shared between the parts.
struct Enforcer {
    path: PathBuf,
    settings: Arc<Settings>,
    live: Arc<ArcSwap<Live>>,
    registry: Arc<Registry>,
    log: Arc<Log>,
    floors: Floors,
    board: Arc<Board>,
}

impl Enforcer {
    fn assemble(path: &Path, config: Config, credentials: Credentials) -> Result<Self, RunError> {
        let registry = match config.revocation {
            RevocationMode::Feed { .. } => Registry::for_feed(config.stale_after),
            RevocationMode::Crl { .. } => Registry::for_crl(),
        };
        let (config, credentials) = (Arc::new(config), Arc::new(credentials));
        let live = Live::new(Arc::clone(&config), &serving(&credentials), &registry)?;
        let log = opening::open(&config, &credentials)?;
        let shards = match &config.revocation {
            RevocationMode::Feed { .. } => 0,
            RevocationMode::Crl { sources, .. } => sources.len(),
        };
        let floors = Floors::find(&log, shards)?;
        Ok(Self {
            path: path.to_owned(),
            settings: Settings::new(Setting {
                config,
                credentials,
            }),
            live: Arc::new(ArcSwap::from_pointee(live)),
            registry,
            log,
            floors,
            board: Arc::default(),
        })
    }

    /// Listens for operators, when there is where.
    async fn listen_for_operators(&self) -> Result<Option<JoinHandle<()>>, RunError> {
        let Some(address) = self.settings.config().ops_listen else {
            return Ok(None);
        };
        let failed = |source| ServerError::Operators { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        tracing::info!(listen = %address, "metrics and health");
        let (settings, live) = (Arc::clone(&self.settings), Arc::clone(&self.live));
        let ops = Ops {
            board: Arc::clone(&self.board),
            registry: Arc::clone(&self.registry),
            log: Arc::clone(&self.log),
            certificates: Box::new(move || settings.credentials().ends()),
            programs: Box::new(move || live.load().program_counts()),
        };
        Ok(Some(tokio::spawn(async move {
            match ops::serve(listener, ops).await {}
        })))
    }

    fn start_control(&self, operators: Option<JoinHandle<()>>, catalogue: CatalogueLog) -> Control {
        let reloading = tokio::spawn({
            let swap = Swap {
                settings: Arc::clone(&self.settings),
                live: Arc::clone(&self.live),
                registry: Arc::clone(&self.registry),
                log: Arc::clone(&self.log),
                catalogue,
            };
            let (path, settings) = (self.path.clone(), Arc::clone(&self.settings));
            async move {
                match reload::watch(path, settings, swap).await {
                    Ok(never) => match never {},
                    Err(error) => {
                        tracing::error!(%error, "changes of files and SIGHUP are not noticed");
                    }
                }
            }
        });
        let mut control = Control {
            tasks: std::iter::once(reloading).chain(operators).collect(),
            feed: None,
            witness: None,
        };
        match self.settings.config().revocation.clone() {
            RevocationMode::Feed { authority } => self.follow_feed(authority, &mut control),
            RevocationMode::Crl { sources, refresh } => {
                tracing::warn!("revocation from CRLs alone: no feed, and nobody witnesses the log");
                let follower = CrlFollower::new(
                    (sources, refresh),
                    Arc::clone(&self.settings),
                    Arc::clone(&self.registry),
                    Arc::clone(&self.log),
                    self.floors.clone(),
                );
                control
                    .tasks
                    .push(tokio::spawn(async move { match follower.run().await {} }));
            }
        }
        control
    }

    fn follow_feed(&self, authority: crate::config::AuthorityUrl, control: &mut Control) {
        let credentials = self.settings.credentials();
        let floor = Arc::new(Floor::at(
            self.floors.newest_authority(&credentials.checkpoint),
        ));
        let (links, linked) = watch::channel(None);
        let held = Arc::new(AtomicU64::new(self.floors.witnessed.unwrap_or_default()));
        let announced = &self.floors.announced;
        let named = opening::named_witness(&self.log, &credentials.witness_key, announced);
        let named = Arc::new(named);
        let witness = || Witness {
            settings: Arc::clone(&self.settings),
            registry: Arc::clone(&self.registry),
            log: Arc::clone(&self.log),
            floor: Arc::clone(&floor),
            links: linked.clone(),
            held: Arc::clone(&held),
            named: Arc::clone(&named),
            remembered: None,
            interval: witness::INTERVAL,
        };
        let mut minutely = witness();
        control.witness = Some(witness());
        control
            .tasks
            .push(tokio::spawn(async move { match minutely.run().await {} }));
        let follower = Follower {
            authority,
            settings: Arc::clone(&self.settings),
            registry: Arc::clone(&self.registry),
            floor: Arc::clone(&floor),
            links,
        };
        control.feed = Some(tokio::spawn(async move { match follower.run().await {} }));
    }

    /// Waits until feed and witness, or the CRLs, have been heard, at most for `stale_after`: from then on clients
    /// are told by an alert that this enforcer is not ready.
    async fn may_listen(&self) {
        let ready = async {
            while self.registry.readiness() == Readiness::Starting {
                tokio::time::sleep(LOOK).await;
            }
        };
        let limit = self.settings.config().stale_after;
        let whom = match self.settings.config().revocation {
            RevocationMode::Feed { .. } => "feed and witness",
            RevocationMode::Crl { .. } => "the CRLs",
        };
        if self.registry.readiness() == Readiness::Starting {
            tracing::info!(at_most = ?limit, "waiting for {whom} before listening");
        }
        if tokio::time::timeout(limit, ready).await.is_err() {
            tracing::warn!(
                "{whom} have not been heard yet: every handshake is refused until they are"
            );
        }
    }

    /// Looks at what MCP servers list.
    fn watcher(&self) -> Arc<Watcher> {
        let (config, credentials) = (self.settings.config(), self.settings.credentials());
        Arc::new(Watcher {
            live: Arc::clone(&self.live),
            log: Arc::clone(&self.log),
            own: credentials.id().clone(),
            board: Arc::clone(&self.board),
            dir: config.data_dir.join("tools"),
            first: std::sync::Mutex::default(),
        })
    }

    fn listen(&self) -> Result<Server, ServerError> {
        let server = Server::counting(
            Arc::clone(&self.live),
            Arc::clone(&self.registry),
            Arc::clone(&self.log),
            Arc::clone(&self.board),
        )?;
        match self.registry.readiness() {
            Readiness::Ready => tracing::info!(listen = %server.address(), "serving"),
            _ => tracing::info!(listen = %server.address(), "listening, not serving yet"),
        }
        Ok(server)
    }

    async fn close(self) -> Result<(), RunError> {
        let log = self.log;
        let closing = tokio::task::spawn_blocking(move || log.shutdown());
        closing
            .await
            .map_err(|error| RunError::Close(error.to_string()))
    }
}

/// The running tasks of the control plane.
struct Control {
    tasks: Vec<JoinHandle<()>>,
    feed: Option<JoinHandle<()>>,
    /// For the last confirmation.
    witness: Option<Witness>,
}

impl Control {
    /// Has the log witnessed once more, now that nothing is recorded any longer, and stops.
    async fn end(&mut self, registry: &Registry) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(witness) = &mut self.witness
            && registry.readiness() == Readiness::Ready
            && witness.is_connected()
        {
            match tokio::time::timeout(LAST_WITNESS, witness.round()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the log's end was not witnessed"),
                Err(_) => tracing::warn!("the log's end was not witnessed in time"),
            }
        }
        if let Some(feed) = &self.feed {
            feed.abort();
        }
    }
}

/// Puts a reloaded setting into force.
struct Swap {
    settings: Arc<Settings>,
    live: Arc<ArcSwap<Live>>,
    registry: Arc<Registry>,
    log: Arc<Log>,
    catalogue: CatalogueLog,
}

impl Apply for Swap {
    async fn apply(&mut self, setting: Setting) -> Result<(), String> {
        let serving = serving(&setting.credentials);
        let live = Live::new(Arc::clone(&setting.config), &serving, &self.registry)
            .map_err(|error| error.to_string())?;
        // A signer counts from its announcement on, so that comes first.
        let old = self.settings.credentials();
        opening::announce_changed(&self.log, &old, &setting.credentials)
            .await
            .map_err(|error| error.to_string())?;
        let recorded = self.catalogue.record(&setting.config).await;
        recorded.map_err(|error| error.to_string())?;
        let live = live.after(&self.live.load());
        let live = Arc::new(live);
        let before = self.live.swap(Arc::clone(&live));
        tokio::spawn(async move { before.leave(Some(&live)).await });
        self.settings.replace(setting);
        Ok(())
    }
}

/// What the data plane takes of the credentials.
fn serving(credentials: &Credentials) -> ServingIdentity {
    ServingIdentity {
        anchor: credentials.anchor.clone(),
        chain: credentials.tls.chain.clone(),
        key: credentials.tls.key.clone(),
        response_chain: credentials.response.chain.clone(),
        response_key: credentials.response.key.clone(),
        log_origin: credentials.log_origin.clone(),
        log_chain: credentials.log.chain.clone(),
    }
}

/// SIGTERM or SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// Taken so that a limit on file sizes is an error of the write, as a full disk is, and not the
    /// end of the process.
    _file_size: Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_size: signal(SignalKind::from_raw(SIGXFSZ))?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Why an enforcer did not start, or not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// What clients are served with.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// What upstreams are reached with: a line for each fault.
    #[error("{0}")]
    Upstreams(String),
    /// The log.
    #[error(transparent)]
    Opening(#[from] OpeningError),
    /// What is in the log.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Threads or signals.
    #[error("the process cannot run: {0}")]
    Runtime(std::io::Error),
    /// The listener.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The end.
    #[error("the log could not be closed: {0}")]
    Close(String),
}

impl RunError {
    /// The process's exit code: 2 for what its caller has to write differently.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Credentials(_) | Self::Upstreams(_) => 2,
            Self::Live(_)
            | Self::Opening(_)
            | Self::Journal(_)
            | Self::Runtime(_)
            | Self::Server(_)
            | Self::Close(_) => 1,
        }
    }
}

const CONTROL_THREADS: usize = 2;
/// signal(7), on Linux.
const SIGXFSZ: i32 = 25;
const LOOK: Duration = Duration::from_millis(20);
const LAST_TASKS: Duration = Duration::from_secs(1);
const LAST_WITNESS: Duration = Duration::from_secs(5);
