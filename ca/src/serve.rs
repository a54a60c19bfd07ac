//! Runs the authority until it is told to stop: opens the log, replays what the index lacks, starts
//! the tasks, serves, and at the end leaves a checkpoint over everything.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use agentca_auditlog::log::{Log, LogSigner, OpenError, Recovery};
use agentca_auditlog::note::{NoteError, NoteSigner, SignatureType};
use agentca_auditlog::store::{FileStore, StoreError};
use agentca_identity::chain::{PeerError, TrustAnchor};
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::authority::core::{Alarm, Authority, SignerChains, Signers};
use crate::authority::index::{Index, IndexError, IndexWriter, Loaded, Message};
use crate::authority::refusal::Refusal;
use crate::authority::replay::{ReplayError, replay};
use crate::authority::sequencer::{Listener, Means, Sequencer};
use crate::authority::state::State;
use crate::config::{Config, ConfigError};
use crate::crl::{Publisher, Shelf};
use crate::feed::{Followers, Hub, Snapshots, Source, serve_snapshots};
use crate::files;
use crate::grpc;
use crate::http;
use crate::keys::{KeyError, KeyFolder, Keys, read_passphrase};
use crate::metrics::Metrics;
use crate::mint::Mint;
use crate::pace::Pace;
use crate::paced::Paced;
use crate::renewal::{self, Unwritten};
use crate::room::Room;
use crate::rotation::Rotation;
use crate::service::{AuthorityService, FeedService};
use crate::tls::{self, TlsError};
use crate::witness::WitnessQueue;

/// What the command line adds to `agentca.toml`.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The data directory that `init` made.
    pub data: PathBuf,
    /// Overrides `listen`.
    pub listen: Option<SocketAddr>,
    /// Overrides `http_listen`.
    pub http_listen: Option<SocketAddr>,
    /// The file whose first line opens encrypted keys.
    pub passphrase_file: Option<PathBuf>,
    /// Told once it serves: where gRPC is, and HTTP.
    pub ready: fn(SocketAddr, SocketAddr),
}

/// Why the authority did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The PKI in `keys/` is not of one piece.
    #[error("the certificates in `keys/` do not go together: {0}")]
    Pki(#[from] PeerError),
    /// The log's folder cannot be used.
    #[error("the log cannot be used: {0}")]
    Store(#[from] StoreError),
    /// Another process has the log open.
    #[error(
        "another process runs on `{0}`, probably another `agentca serve`: end that one first, or \
         give this one another folder with `--data`"
    )]
    InUse(PathBuf),
    /// The log is damaged or not ours.
    #[error("the log cannot be opened: {0}")]
    Log(#[from] OpenError),
    /// A signer does not fit.
    #[error("a signer cannot be used: {0}")]
    Signer(#[from] NoteError),
    /// The log holds what this program does not understand.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The index cannot even be made anew.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}; end whoever listens there, perhaps another `agentca \
         serve`, or choose another with `--listen` or `--http-listen`"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("`{path}`: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The state cannot be asked.
    #[error(transparent)]
    State(#[from] Refusal),
    /// It must not go on.
    #[error("stopped serving: {0}")]
    Stopped(String),
}

/// Serves until `shutdown` completes; then drains, and leaves a checkpoint over everything.
pub async fn run(
    options: ServeOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let ServeOptions {
        data,
        listen,
        http_listen,
        passphrase_file,
        ready,
    } = options;
    let mut config = Config::load(&data)?;
    config.listen = listen.unwrap_or(config.listen);
    config.http_listen = http_listen.unwrap_or(config.http_listen);
    config.limits.max_connections = files::make_room(config.limits.max_connections);
    let passphrase = passphrase_file
        .as_deref()
        .map(read_passphrase)
        .transpose()?;
    let folder = KeyFolder::new(&data, passphrase);
    let keys = folder.load(Timestamp::now())?;
    let grpc = bind(config.listen).await?;
    let web = bind(config.http_listen).await?;
    let addresses = Addresses {
        grpc: local(&grpc, config.listen)?,
        http: local(&web, config.http_listen)?,
    };
    let running = Running::start(&data, &config, keys, folder, addresses).await?;
    let ready = move || ready(addresses.grpc, addresses.http);
    running.serve((grpc, web), ready, shutdown).await
}

/// Where it listens in fact.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    grpc: SocketAddr,
    http: SocketAddr,
}

/// Everything that runs.
struct Running {
    authority: Arc<Authority>,
    source: Source,
    server: tls::Server,
    signer: NoteSigner,
    index: IndexWriter,
    /// What runs for ever: feed, snapshots, CRL, witness.
    tasks: JoinSet<()>,
    alarm: mpsc::UnboundedReceiver<String>,
    folder: KeyFolder,
    keys: Keys,
    config: Config,
    addresses: Addresses,
    data: PathBuf,
}

impl Running {
    async fn start(
        data: &Path,
        config: &Config,
        keys: Keys,
        folder: KeyFolder,
        addresses: Addresses,
    ) -> Result<Self, ServeError> {
        let anchor = TrustAnchor::from_root_der(keys.root.der())?;
        let pen = anchor.learn_pen(keys.signer.current().certificate().der())?;
        if pen.is_documentation() {
            tracing::warn!("the PEN is 32473, which is for documentation: `init --pen` sets yours");
        }
        let origin = LogOrigin::authority(config.trust_domain.clone());
        let log_signer = LogSigner {
            origin: origin.clone(),
            key: keys.log.key.clone(),
            chain: keys.log.chain.clone(),
        };
        let store = FileStore::open(&data.join("log")).map_err(|e| unopened(data, e))?;
        let (log, recovery) = Log::open(Arc::new(store), &log_signer)?;
        let Recovery {
            size,
            checkpoint,
            dropped,
        } = recovery;
        tracing::info!(
            records = size,
            under_checkpoint = checkpoint,
            "the log is open"
        );
        if dropped > 0 {
            tracing::warn!(
                bytes = dropped,
                "the end of a batch that was not acknowledged was cut off"
            );
        }
        let (state, index) = load(&log, config, &data.join("index"))?;
        let mint = Arc::new(Mint {
            issuing: Arc::clone(&keys.issuing),
            signer: Arc::clone(&keys.signer),
            crl_base: config.crl_base(addresses.http),
            crl_shards: config.crl_shards,
            lifetimes: config.lifetimes,
        });
        let server = tls::server_config(anchor, &keys.server.chain, &keys.server.key)?;
        let (alarm, ear) = Alarm::new();
        let parts = Parts {
            log,
            state,
            mint,
            keys: &keys,
            config,
            alarm,
        };
        let mut tasks = JoinSet::new();
        let (authority, source, signer) = assemble(parts, &index, data, &mut tasks).await?;
        Ok(Self {
            authority,
            source,
            server,
            signer,
            index,
            tasks,
            alarm: ear,
            folder,
            keys,
            config: config.clone(),
            addresses,
            data: data.to_owned(),
        })
    }

    async fn serve(
        mut self,
        (grpc, web): (TcpListener, TcpListener),
        ready: impl FnOnce() + Send,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let mut own = renewal::Own {
            authority: Arc::clone(&self.authority),
            certificate: Arc::clone(&self.server.certificate),
            folder: Arc::new(self.folder),
            server: self.keys.server.clone(),
            log: self.keys.log.clone(),
            witness: self.keys.witness.clone(),
            hosts: crate::init::server_hosts(&self.config.dns),
            unwritten: Unwritten::default(),
            rotation: Rotation {
                pen: self.keys.pen,
                root_end: self.keys.root.not_after(),
                warned: [None; 2],
            },
        };
        // Whatever cannot be renewed: an authority that serves can still revoke.
        own.look(Timestamp::now()).await;
        self.tasks.spawn(own.run());
        let (stop, stopped) = watch::channel(());
        let mut serving = JoinSet::new();
        let web = http::serve(web, Arc::clone(&self.authority), stopped.clone());
        serving.spawn(async move {
            web.await;
            Ok::<(), tonic::transport::Error>(())
        });
        let feed = FeedService {
            authority: Arc::clone(&self.authority),
            source: self.source,
            own_key: self.signer.verifier().clone(),
        };
        let service = AuthorityService(Arc::clone(&self.authority));
        serving.spawn(grpc::serve(grpc, self.server, service, feed, stopped));
        announce(&self.data, self.addresses)?;
        ready();
        let why = tokio::select! {
            () = shutdown => None,
            why = self.alarm.recv() => why,
            ended = serving.join_next() => Some(match ended {
                Some(Ok(Err(error))) => format!("the gRPC server failed: {error}"),
                _ => "a server ended by itself".to_owned(),
            }),
        };
        // Nobody listens any more if they ended already.
        let _ended = stop.send(());
        self.authority.hub.close();
        let patience = match why {
            None => self.config.limits.drain_timeout,
            Some(_) => FAREWELL,
        };
        let drained = async { while serving.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, drained).await.is_err() {
            tracing::warn!("some requests were still running at the end");
        }
        serving.shutdown().await;
        self.tasks.shutdown().await;
        let log = Arc::clone(self.authority.sequencer.log());
        let mut index = self.index;
        let closing = tokio::task::spawn_blocking(move || {
            log.shutdown();
            index.stop();
        });
        if closing.await.is_err() {
            tracing::error!("the log was not closed in order");
        }
        why.map_or(Ok(()), |why| Err(ServeError::Stopped(why)))
    }
}

/// What the authority is put together from.
struct Parts<'a> {
    log: Arc<Log>,
    state: State,
    mint: Arc<Mint>,
    keys: &'a Keys,
    config: &'a Config,
    alarm: Alarm,
}

/// Starts the tasks, and waits until the CRLs are published.
async fn assemble(
    parts: Parts<'_>,
    index: &IndexWriter,
    data: &Path,
    tasks: &mut JoinSet<()>,
) -> Result<(Arc<Authority>, Source, NoteSigner), ServeError> {
    let Parts {
        log,
        state,
        mint,
        keys,
        config,
        alarm,
    } = parts;
    let origin = log.origin().to_owned();
    let signer = || NoteSigner::new(&origin, SignatureType::Ed25519, keys.log.key.clone());
    let witness_origin = format!("{}/ca/witness", config.trust_domain);
    let witness = NoteSigner::new(
        &witness_origin,
        SignatureType::Cosignature,
        keys.witness.key.clone(),
    )?;
    let signers = signers(keys, &signer()?, &witness);
    let revoked = state.ended().collect();
    let in_use: BTreeSet<u16> = state.shards().collect();
    let hub = Arc::new(Hub::new(Arc::clone(&log), signer()?, &state));
    let (snapshots, wishes) = Snapshots::new();
    let (ended, ended_inbox) = mpsc::unbounded_channel();
    let listeners: Vec<Listener> = vec![
        to_hub(&hub),
        to_index(index),
        to_snapshots(&snapshots),
        Box::new(move |applied| {
            applied.ended.iter().for_each(|certificate| {
                // The publisher ends with the authority.
                let _ending = ended.send(*certificate);
            });
        }),
    ];
    let durable = watch_durable(&log, index);
    let timeout = config.limits.durable_timeout;
    let room = Arc::new(Room::of(&data.join("log"), config.limits.disk_reserve));
    tasks.spawn(Arc::clone(&room).watch());
    let means = Means {
        durable_timeout: timeout,
        room,
        alarm: alarm.clone(),
    };
    let sequencer = Arc::new(Sequencer::new(state, log, listeners, means));
    tasks.spawn(Arc::clone(&hub).run(durable));
    let folder: Arc<Path> = data.join("snapshots").into();
    tasks.spawn(serve_snapshots(
        Arc::clone(&sequencer),
        Arc::clone(&folder),
        wishes,
    ));
    let shelf = Arc::new(Shelf::default());
    let publisher = Publisher {
        sequencer: Arc::clone(&sequencer),
        mint: Arc::clone(&mint),
        shelf: Arc::clone(&shelf),
        ended: ended_inbox,
    };
    let (published, first) = oneshot::channel();
    tasks.spawn(publisher.run(revoked, in_use, published));
    if tokio::time::timeout(timeout, first).await.is_err() {
        tracing::warn!("the CRL is not published yet");
    }
    let source = Source {
        sequencer: Arc::clone(&sequencer),
        hub: Arc::clone(&hub),
        snapshots: folder,
        wishes: snapshots.clone(),
    };
    let (witness, witnessing) = WitnessQueue::new(Arc::clone(&sequencer), witness);
    tasks.spawn(witnessing);
    let authority = Arc::new(Authority {
        witness,
        sequencer,
        mint,
        root: keys.root.der().to_vec(),
        hub,
        followers: Followers::default(),
        snapshots,
        shelf,
        metrics: Metrics::default(),
        signers,
        lifetimes: config.lifetimes,
        limits: config.limits,
        pace: Pace::new(
            config.limits.renewals_at_once,
            config.limits.renewals_per_minute,
        ),
        alarm,
    });
    Ok((authority, source, signer()?))
}

fn signers(keys: &Keys, log: &NoteSigner, witness: &NoteSigner) -> Signers {
    Signers {
        log_origin: log.verifier().name().to_owned(),
        log_vkey: log.verifier().to_string(),
        witness_vkey: witness.verifier().to_string(),
        chains: RwLock::new(SignerChains {
            log: keys.log.chain.clone(),
            witness: keys.witness.chain.clone(),
        }),
    }
}

/// The state: the index's rows, then the log past them.
fn load(log: &Arc<Log>, config: &Config, path: &Path) -> Result<(State, IndexWriter), ServeError> {
    let record = |index| log.record(index).ok().flatten();
    let (index, loaded) = Index::open(path, &config.trust_domain, record)?;
    let mut state = match loaded {
        Loaded::Rows(state) => *state,
        Loaded::New => State::new(config.trust_domain.clone()),
        Loaded::Unusable(why) => {
            tracing::warn!(%why, "the index is rebuilt from the log");
            State::new(config.trust_domain.clone())
        }
    };
    let writer = index.start()?;
    let mut paced = Paced::new(writer.queue(), log.durable());
    let replayed = replay(&mut state, log, |applied| paced.send(applied))?;
    tracing::info!(records = state.applied(), replayed, "the state is loaded");
    Ok((state, writer))
}

fn to_hub(hub: &Arc<Hub>) -> Listener {
    let hub = Arc::clone(hub);
    Box::new(move |applied| hub.staged(applied))
}

fn to_index(index: &IndexWriter) -> Listener {
    let queue = index.queue();
    Box::new(move |applied| {
        // The thread ends by itself only after it failed, which it said.
        let _failed = queue.send(Message::Applied(Arc::clone(applied)));
    })
}

fn to_snapshots(snapshots: &Snapshots) -> Listener {
    let snapshots = snapshots.clone();
    Box::new(move |applied| {
        if let Some(status) = &applied.status {
            snapshots.staged(&status.environment, status.number);
        }
    })
}

/// Passes on how many records are durable, to the feed and to the index.
fn watch_durable(log: &Log, index: &IndexWriter) -> watch::Receiver<u64> {
    let (told, durable) = watch::channel(log.durable());
    let queue = index.queue();
    log.on_durable(Box::new(move |size| {
        told.send_replace(size);
        let _failed = queue.send(Message::Durable(size));
    }));
    durable
}

/// A lock that is held is told apart from a log that cannot be read.
fn unopened(data: &Path, error: StoreError) -> ServeError {
    match error.source.kind() {
        std::io::ErrorKind::WouldBlock => ServeError::InUse(data.to_owned()),
        _ => ServeError::Store(error),
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen { address, source })
}

fn local(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, ServeError> {
    listener
        .local_addr()
        .map_err(|source| ServeError::Listen { address, source })
}

/// `serve.json`, for programs: where it listens. The file is written anew at
/// every start and says nothing about whether the authority still runs.
fn announce(data: &Path, addresses: Addresses) -> Result<(), ServeError> {
    let Addresses { grpc, http } = addresses;
    let path = data.join("serve.json");
    let fresh = data.join("serve.json.new");
    let text = format!("{{\"listen\":\"{grpc}\",\"http_listen\":\"{http}\"}}\n");
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, &path))
        .map_err(|source| ServeError::Io { path, source })?;
    tracing::info!(%grpc, %http, "ready");
    Ok(())
}

/// How long answers that are on their way may take when the authority must not go on.
const FAREWELL: std::time::Duration = std::time::Duration::from_millis(500);
