//! A real server over a real log, with a registry that the test feeds.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentca_auditlog::log::{Log, LogOptions, LogSigner};
use agentca_auditlog::record::{Opening, log_opened};
use agentca_auditlog::status::{StatusEvent, StatusRecord};
use agentca_auditlog::store::FileStore;
use agentca_enforcer::config::Config;
use agentca_enforcer::live::{Live, ServingIdentity};
use agentca_enforcer::ops::Programs;
use agentca_enforcer::server::Server;
use agentca_enforcer::status::{Readiness, Registry};
use agentca_identity::profile::RevocationReason;
use agentca_identity::time::Timestamp;
use arc_swap::ArcSwap;
use tempfile::TempDir;

use crate::client::{Http1, Http2, connect};
use crate::disk::Disk;
use crate::pki::{Credential, Pki, Wish, origin};
use crate::upstream::Upstream;

pub(crate) struct Fixture {
    pub(crate) pki: Pki,
    pub(crate) registry: Arc<Registry>,
    pub(crate) log: Arc<Log>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) server: Server,
    pub(crate) upstream: Upstream,
    pub(crate) identity: ServingIdentity,
    live: Arc<ArcSwap<Live>>,
    log_signer: LogSigner,
    /// Of the newest event.
    pub(crate) status_number: u64,
    directory: TempDir,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// `extra` is appended to the configuration.
    pub(crate) async fn with(extra: &str) -> Self {
        let pki = Pki::new();
        let upstream = Upstream::start().await;
        let directory = TempDir::new().unwrap();
        let config = configuration(&upstream, extra);
        let config = Arc::new(Config::parse(&config, directory.path()).unwrap());
        let registry = Registry::for_feed(config.stale_after);
        let (identity, log_key) = pki.enforcer();
        let log_signer = LogSigner {
            origin: origin(),
            key: log_key,
            chain: identity.log_chain.clone(),
        };
        let log_directory = directory.path().join("log");
        new_log(&log_directory, &log_signer, &identity);
        let (log, disk) = open_log(&log_directory, &log_signer);
        let live = Live::new(config, &identity, &registry).unwrap();
        let live = Arc::new(ArcSwap::from_pointee(live));
        let (for_server, registry_for) = (Arc::clone(&live), Arc::clone(&registry));
        let server = Server::start(for_server, registry_for, Arc::clone(&log)).unwrap();
        registry.heartbeat(Timestamp::now(), Instant::now());
        registry.set_readiness(Readiness::Ready);
        Self {
            pki,
            registry,
            log,
            disk,
            server,
            upstream,
            identity,
            live,
            log_signer,
            status_number: 0,
            directory,
        }
    }

    /// What another process finds that starts after this one has ended: the log, and what the feed
    /// says.
    pub(crate) async fn restart(self) -> Self {
        let Self {
            log,
            disk,
            server,
            registry,
            live,
            log_signer,
            directory,
            ..
        } = self;
        server.drain().await;
        log.shutdown();
        // They hold the directory's lock.
        drop((log, disk));
        let (log, disk) = open_log(&directory.path().join("log"), &log_signer);
        let (for_server, registry_for) = (Arc::clone(&live), Arc::clone(&registry));
        let server = Server::start(for_server, registry_for, Arc::clone(&log)).unwrap();
        Self {
            log,
            disk,
            server,
            registry,
            live,
            log_signer,
            directory,
            pki: self.pki,
            upstream: self.upstream,
            identity: self.identity,
            status_number: self.status_number,
        }
    }

    pub(crate) fn apply(&mut self, event: StatusEvent) {
        self.status_number += 1;
        self.registry.apply(&[StatusRecord {
            environment: "prod".parse().unwrap(),
            number: self.status_number,
            prev: [0; 32],
            seq: self.status_number,
            by: None,
            event,
        }]);
    }

    /// An agent whose certificate was announced.
    pub(crate) fn agent(&mut self, wish: &Wish<'_>) -> Credential {
        let agent = self.pki.agent(wish);
        self.announce(&agent);
        agent
    }

    pub(crate) fn announce(&mut self, agent: &Credential) {
        self.apply(StatusEvent::CertificateIssued {
            serial: agent.certificate.serial(),
            agent: agent.id(),
            certificate: agent.certificate.der().to_vec(),
            not_after: agent.certificate.not_after(),
            grant: 7,
        });
    }

    pub(crate) fn revoke(&mut self, agent: &Credential) {
        let reason = RevocationReason::KeyCompromise;
        self.apply(StatusEvent::AgentRevoked {
            agent: agent.id(),
            reason,
        });
    }

    /// What happened to programs.
    pub(crate) fn programs(&self) -> Programs {
        let live = Arc::clone(&self.live);
        Box::new(move || live.load().program_counts())
    }

    /// Another configuration comes in force, with this appended.
    pub(crate) fn reload(&self, extra: &str) {
        let config = configuration(&self.upstream, extra);
        let config = Arc::new(Config::parse(&config, self.directory.path()).unwrap());
        let live = Live::new(config, &self.identity, &self.registry).unwrap();
        self.live.store(Arc::new(live.after(&self.live.load())));
    }

    /// As at the enforcer's end.
    pub(crate) async fn end_programs(&self) {
        self.live.load_full().leave(None).await;
    }

    pub(crate) async fn http1(&self, agent: &Credential) -> Http1 {
        let stream = connect(self.server.address(), &self.pki, Some(agent), b"http/1.1").await;
        Http1::new(stream.unwrap())
    }

    pub(crate) async fn http2(&self, agent: &Credential) -> Http2 {
        let stream = connect(self.server.address(), &self.pki, Some(agent), b"h2").await;
        Http2::new(stream.unwrap()).await
    }

    /// Record `index`, once it is durable.
    pub(crate) fn record(&self, index: u64) -> serde_json::Value {
        self.log.wait_blocking(index).unwrap();
        let record = self.log.record(index).unwrap().unwrap();
        serde_json::from_slice(&record).unwrap()
    }

    /// The first record from `index` on that satisfies `wanted`; waits for it.
    pub(crate) async fn find(
        &self,
        index: u64,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let mut index = index;
        loop {
            tokio::time::timeout(Duration::from_secs(20), self.log.durable_at(index))
                .await
                .expect("no such record came")
                .unwrap();
            let record = self.record(index);
            if wanted(&record) {
                return record;
            }
            index += 1;
        }
    }

    /// Ends everything and gives the directory of the log.
    pub(crate) async fn end(self) -> (TempDir, Pki) {
        self.server.drain().await;
        self.log.shutdown();
        (self.directory, self.pki)
    }
}

fn configuration(upstream: &Upstream, extra: &str) -> String {
    let threads = if extra.contains("threads") {
        ""
    } else {
        "threads = 1"
    };
    let mut text = format!(
        r#"
environment = "prod"
listen = "127.0.0.1:0"
authority = "https://127.0.0.1:7443"
identity_dir = "edge-1"
data_dir = "edge-1-data"
stale_after = "1h"
{threads}
{extra}
[[upstream]]
name = "payments"
url = "http://{}"
[[upstream]]
name = "nowhere"
url = "http://127.0.0.1:1"
[[route]]
upstream = "payments"
methods = ["POST"]
path = "/v1/upload"
scope = "payments:write"
min_trust = "L2"
risk = "write"
stream_request = true
"#,
        upstream.address
    );
    for (upstream, method, path, scope, trust, risk) in [
        (
            "payments",
            "GET\", \"HEAD",
            "/v1/accounts/{id}",
            "payments:read",
            "L2",
            "read",
        ),
        (
            "payments",
            "GET",
            "/v1/stream",
            "payments:read",
            "L2",
            "read",
        ),
        (
            "payments",
            "POST",
            "/v1/stream",
            "payments:write",
            "L2",
            "write",
        ),
        ("payments", "GET", "/v1/big", "payments:read", "L2", "read"),
        ("payments", "GET", "/v1/long", "payments:read", "L2", "read"),
        (
            "payments",
            "GET",
            "/v1/empty",
            "payments:read",
            "L2",
            "read",
        ),
        ("payments", "GET", "/v1/held", "payments:read", "L2", "read"),
        (
            "payments",
            "POST",
            "/v1/held",
            "payments:write",
            "L2",
            "financial",
        ),
        (
            "payments",
            "GET",
            "/v1/closing",
            "payments:read",
            "L2",
            "read",
        ),
        (
            "payments",
            "GET",
            "/v1/broken",
            "payments:read",
            "L2",
            "read",
        ),
        ("payments", "GET", "/v1/liar", "payments:read", "L2", "read"),
        (
            "payments",
            "POST",
            "/v1/pay",
            "payments:write",
            "L2",
            "financial",
        ),
        (
            "payments",
            "GET",
            "/v1/secret",
            "payments:secret",
            "L2",
            "read",
        ),
        (
            "payments",
            "GET",
            "/v1/trusted",
            "payments:read",
            "L4",
            "read",
        ),
        (
            "nowhere",
            "GET",
            "/v1/nowhere",
            "payments:read",
            "L2",
            "read",
        ),
    ] {
        text.push_str(&format!(
            r#"
[[route]]
upstream = "{upstream}"
methods = ["{method}"]
path = "{path}"
scope = "{scope}"
min_trust = "{trust}"
risk = "{risk}"
"#
        ));
    }
    text
}

fn new_log(directory: &Path, signer: &LogSigner, identity: &ServingIdentity) {
    let opening = Opening {
        signers: vec![signer.chain.clone(), identity.response_chain.clone()],
        witness: None,
    };
    let store = Arc::new(FileStore::create(directory).unwrap());
    Log::create(store, signer, |head, out| log_opened(head, out, &opening)).unwrap();
}

fn open_log(directory: &Path, signer: &LogSigner) -> (Arc<Log>, Arc<Disk>) {
    let disk = Arc::new(Disk::new(FileStore::open(directory).unwrap()));
    // A test that ends takes its directory away under a running log.
    let options = LogOptions {
        fatal: Box::new(|_| {}),
        ..LogOptions::default()
    };
    let log = Log::open_with(Arc::clone(&disk) as _, signer, options)
        .unwrap()
        .0;
    (log, disk)
}
