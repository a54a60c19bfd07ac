//! The serving side: one single-threaded runtime per core, each with a listener of its own
//! (`SO_REUSEPORT`), nothing shared between them but what is in `Shared`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use agentca_auditlog::log::Log;
use arc_swap::ArcSwap;
use tokio::net::TcpSocket;
use tokio::sync::watch;

use crate::config::{Config, DisclosedValues};
use crate::descriptors;
use crate::disclosures::{self, Disclosures};
use crate::durable::Beacon;
use crate::handshake_log::HandshakeLog;
use crate::listener;
use crate::live::Live;
use crate::ops::Board;
use crate::outcomes::Outcomes;
use crate::status::{Readiness, Registry};
use crate::worker::{Shared, Worker};

/// A server that serves.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address.
    #[error("cannot listen on {address}: {source}; stop who has it, or choose another `listen`")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The address for operators.
    #[error(
        "cannot listen on {address}: {source}; stop who has it, or choose another `ops_listen`"
    )]
    Operators {
        /// The configured address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A thread.
    #[error("a serving thread cannot be started")]
    Thread(#[source] io::Error),
}

impl Server {
    /// Listens on the configured address, once per thread, and serves. Store another [`Live`] to
    /// reload. Until the registry is ready every handshake is refused. Called within a Tokio runtime.
    ///
    /// # Errors
    /// [`ServerError`]: nothing is served then.
    pub fn start(
        live: Arc<ArcSwap<Live>>,
        registry: Arc<Registry>,
        log: Arc<Log>,
    ) -> Result<Self, ServerError> {
        Self::counting(live, registry, log, Arc::default())
    }

    /// The same, counting on a board that others read.
    ///
    /// # Errors
    /// [`ServerError`]: nothing is served then.
    pub fn counting(
        live: Arc<ArcSwap<Live>>,
        registry: Arc<Registry>,
        log: Arc<Log>,
        board: Arc<Board>,
    ) -> Result<Self, ServerError> {
        let (listeners, address) = listen_all(live.load().config())?;
        let outcomes = Outcomes::since(log.durable());
        let disclosures = keep_disclosures(live.load().config(), &board)?;
        let shared = Arc::new(Shared {
            live: Arc::clone(&live),
            registry,
            log,
            connections: Arc::clone(&board.connections),
            handshakes: HandshakeLog::new(Arc::clone(&board.refused)),
            board,
            outcomes,
            disclosures,
            shares: Arc::default(),
            connections_max: connections_that_fit(&live.load()),
        });
        let (stop, stopped) = watch::channel(false);
        let beacons = beacons(&shared.log, listeners.len());
        let mut threads = Vec::new();
        for (number, (listener, beacon)) in listeners.into_iter().zip(beacons).enumerate() {
            let (shared, stopped) = (Arc::clone(&shared), stopped.clone());
            let thread = std::thread::Builder::new()
                .name(format!("serve-{number}"))
                .spawn(move || serve(shared, listener, beacon, stopped, number == 0))
                .map_err(ServerError::Thread)?;
            threads.push(thread);
        }
        Ok(Self {
            shared,
            address,
            stop,
            threads,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Open client connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// What it counts.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.shared.board)
    }

    /// Accepts nothing more, lets running requests end until `drain_timeout` of the configuration,
    /// cuts what is left, and returns when everything that happened is staged for the log.
    pub async fn drain(self) {
        // Nobody listens any more only when every thread has already ended.
        let _ended = self.stop.send(true);
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                match thread.join() {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!(%error, "a serving thread failed"),
                    Err(_) => tracing::error!("a serving thread panicked"),
                }
            }
        });
        if let Err(error) = joined.await {
            tracing::error!(%error, "serving threads could not be waited for");
        }
        let shared = self.shared;
        let closing = tokio::task::spawn_blocking(move || {
            if let Some(disclosures) = &shared.disclosures {
                disclosures.close();
            }
        });
        if let Err(error) = closing.await {
            tracing::error!(%error, "disclosures could not be written to the end");
        }
    }
}

/// The connections that there are descriptors for; says so when more were asked for.
fn connections_that_fit(live: &Live) -> usize {
    let (fit, asked) = (
        descriptors::connections_that_fit(),
        live.config().limits.max_connections,
    );
    if asked > fit {
        tracing::warn!(
            max_connections = asked,
            in_force = fit,
            "the limit on open files is too low for `max_connections`; raise it (ulimit -Hn, \
             LimitNOFILE=) to twice as many and 256 more"
        );
    }
    fit
}

/// The writer of disclosures, where they are kept, or were: what was kept does not outlive its time.
fn keep_disclosures(config: &Config, board: &Board) -> Result<Option<Disclosures>, ServerError> {
    let counts = Arc::clone(&board.disclosures);
    if config.disclosures.values == DisclosedValues::Drop && !disclosures::dir(config).is_dir() {
        return Ok(None);
    }
    Disclosures::start(config, counts)
        .map(Some)
        .map_err(ServerError::Thread)
}

/// One per runtime, raised by the log's committer.
fn beacons(log: &Log, runtimes: usize) -> Vec<Arc<Beacon>> {
    let beacons: Vec<Arc<Beacon>> = (0..runtimes).map(|_| Arc::default()).collect();
    let raised = beacons.clone();
    log.on_durable(Box::new(move |durable| {
        for beacon in &raised {
            beacon.raise(durable);
        }
    }));
    for beacon in &beacons {
        beacon.raise(log.durable());
    }
    beacons
}

fn listen_all(config: &Config) -> Result<(Vec<TcpListener>, SocketAddr), ServerError> {
    let failed = |source| ServerError::Listen {
        address: config.listen,
        source,
    };
    if config.listen.port() != 0 {
        // Without SO_REUSEPORT: fails when anybody listens here already, another enforcer included.
        drop(TcpListener::bind(config.listen).map_err(failed)?);
    }
    let first = listen(config.listen).map_err(failed)?;
    let address = first.local_addr().map_err(failed)?;
    let mut listeners = vec![first];
    for _ in 1..config.threads {
        listeners.push(listen(address).map_err(failed)?);
    }
    Ok((listeners, address))
}

fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    beacon: Arc<Beacon>,
    stop: watch::Receiver<bool>,
    first: bool,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let worker = Worker::new(shared, beacon);
    let result = runtime.block_on(local.run_until(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::task::spawn_local(Rc::clone(&worker.timers).run());
        tokio::task::spawn_local(Rc::clone(&worker.durability).run());
        tokio::task::spawn_local(housekeeping(Rc::clone(&worker), first));
        listener::run(Rc::clone(&worker), listener, stop).await;
        Ok(())
    }));
    // What is left is cut: its drops record how it ended, inside the runtime they belong to.
    let _entered = runtime.enter();
    drop(local);
    if first {
        worker.shared.handshakes.flush(&worker.shared.log);
    }
    result
}

/// What has to be looked at from time to time.
async fn housekeeping(worker: Rc<Worker>, first: bool) {
    let mut interval = tokio::time::interval(LOOK);
    let mut rounds = 0_u32;
    loop {
        interval.tick().await;
        if worker.shared.log.blocked() {
            worker.durability.fail_all();
        }
        worker.follow_clock();
        // Said once for all runtimes, and not while the first word is waited for.
        match worker.follow_freshness() {
            Some(Err(reason)) if first && is_ready(&worker) => {
                tracing::error!(%reason, "status is stale: from now on every request is denied");
            }
            Some(Ok(())) if first && is_ready(&worker) => {
                tracing::info!("status is fresh: requests are decided");
            }
            _ => {}
        }
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(SWEEP) {
            worker.pool.sweep();
            if first {
                worker.shared.handshakes.flush(&worker.shared.log);
            }
        }
    }
}

fn is_ready(worker: &Worker) -> bool {
    worker.shared.registry.readiness() != Readiness::Starting
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

const LOOK: Duration = Duration::from_millis(100);
const SWEEP: u32 = 10;
const BACKLOG: u32 = 4096;
