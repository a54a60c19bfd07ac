use agentca_auditlog::status::StatusEvent;
use agentca_auditlog::status::snapshot::{SnapshotAgent, SnapshotCertificate};
use agentca_identity::profile::RevocationReason;
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::time::Timestamp;

use super::fake::Authority;
use super::*;
use crate::config::Config;
use crate::setting::Setting;
use crate::status::{Claim, Verdict};
use crate::testing::Pki;

/// A session whose messages a test makes.
struct Bench {
    authority: Authority,
    follower: Follower,
    credentials: Arc<Credentials>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
        Pki::new().write(dir.path(), Duration::from_secs(3_600));
        let text = "environment = \"prod\"\nlisten = \"127.0.0.1:0\"\n\
                    authority = \"https://127.0.0.1:1\"\nidentity_dir = \".\"\ndata_dir = \"data\"\n"
            .to_owned()
            + crate::testing::ROUTES;
        let config = Config::parse(&text, dir.path()).unwrap();
        let mut credentials =
            Credentials::load(dir.path(), &config.environment, Timestamp::now()).unwrap();
        credentials.authority_key = authority.key().clone();
        let credentials = Arc::new(credentials);
        let floor = Arc::new(Floor::at(credentials.checkpoint.clone()));
        let setting = Setting {
            config: Arc::new(config),
            credentials: Arc::clone(&credentials),
        };
        let follower = Follower {
            authority: AuthorityUrl {
                uri: "https://127.0.0.1:1".parse().unwrap(),
                host: "127.0.0.1".to_owned(),
                port: 1,
            },
            settings: Settings::new(setting),
            registry: Registry::for_feed(Duration::from_secs(30)),
            floor,
            links: watch::channel(None).0,
        };
        Self {
            authority,
            follower,
            credentials,
            _dir: dir,
        }
    }

    fn session<'a>(&'a self, chain: &'a mut Chain) -> Session<'a> {
        let credentials = Arc::clone(&self.credentials);
        Session {
            follower: &self.follower,
            chain,
            credentials,
            snapshot: None,
        }
    }
}

fn agent() -> SpiffeId {
    "spiffe://example.org/prod/agent/a".parse().unwrap()
}

fn chain() -> Chain {
    Chain::new("prod".parse().unwrap())
}

fn claim<'a>(serial: Serial, agent: &'a SpiffeId) -> Claim<'a> {
    Claim {
        serial,
        agent,
        fingerprint: [3; 32],
        crl_uri: None,
        issuer_key: None,
    }
}

/// A snapshot over the authority's records so far, with one certificate.
fn snapshot(authority: &Authority, serial: Serial) -> Vec<u8> {
    let snapshot = Snapshot {
        environment: "prod".parse().unwrap(),
        number: authority.position.number,
        hash: authority.position.hash,
        issuers: Vec::new(),
        agents: vec![SnapshotAgent {
            uri: agent(),
            revoked_before: 0,
            trust: None,
            scopes: None,
        }],
        certificates: vec![SnapshotCertificate {
            number: 1,
            serial,
            agent: 0,
            not_after: Timestamp::from_secs(1_900_000_000),
            fingerprint: [3; 32],
            revoked: false,
        }],
    };
    let mut bytes = Vec::new();
    snapshot.write(&mut bytes).unwrap();
    bytes
}

fn chunk(data: &[u8], total: usize) -> Response {
    let total = u64::try_from(total).unwrap();
    Response::Snapshot(SnapshotChunk {
        data: data.to_vec(),
        total,
    })
}

fn update(records: Vec<Vec<u8>>, heartbeat: String) -> Response {
    Response::Update(Update { records, heartbeat })
}

#[tokio::test]
async fn a_snapshot_and_its_tail_come_into_force_together() {
    let mut bench = Bench::new();
    let (mut chain, serial, agent) = (chain(), Serial::generate(), agent());
    bench.authority.record(StatusEvent::AgentReinstated {
        agent: agent.clone(),
    });
    let bytes = snapshot(&bench.authority, serial);
    let voucher = StatusEvent::Snapshot {
        digest: sha256(&bytes),
        covers: 1,
    };
    let records = vec![
        bench.authority.record(voucher),
        bench.authority.record(StatusEvent::AgentRevoked {
            agent: agent.clone(),
            reason: RevocationReason::KeyCompromise,
        }),
    ];
    let heartbeat = bench.authority.heartbeat();
    let registry = Arc::clone(&bench.follower.registry);
    let mut session = bench.session(&mut chain);
    let (first, rest) = bytes.split_at(10);
    assert_eq!(session.take(chunk(first, bytes.len())).await.unwrap(), None);
    assert_eq!(session.take(chunk(rest, bytes.len())).await.unwrap(), None);
    assert_eq!(
        registry.handshake_verdict(&claim(serial, &agent)),
        Verdict::Unknown
    );
    let number = session.take(update(records, heartbeat)).await.unwrap();
    assert_eq!(number, Some(3));
    assert_eq!(
        registry.handshake_verdict(&claim(serial, &agent)),
        Verdict::Revoked
    );
    assert_eq!(registry.status_number(), 3);
}

#[tokio::test]
async fn records_wait_for_their_heartbeat() {
    let mut bench = Bench::new();
    let (mut chain, agent) = (chain(), agent());
    let (serial, certificate) = (Serial::generate(), b"der".to_vec());
    let record = bench.authority.record(StatusEvent::CertificateIssued {
        serial,
        agent: agent.clone(),
        certificate: certificate.clone(),
        not_after: Timestamp::from_secs(1_900_000_000),
        grant: 1,
    });
    let heartbeat = bench.authority.heartbeat();
    let registry = Arc::clone(&bench.follower.registry);
    let claim = Claim {
        fingerprint: sha256(&certificate),
        ..claim(serial, &agent)
    };
    let mut session = bench.session(&mut chain);
    assert_eq!(
        session
            .take(update(vec![record], String::new()))
            .await
            .unwrap(),
        None
    );
    assert_eq!(registry.handshake_verdict(&claim), Verdict::Unknown);
    assert_eq!(
        session.take(update(Vec::new(), heartbeat)).await.unwrap(),
        Some(1)
    );
    assert_eq!(registry.handshake_verdict(&claim), Verdict::Valid);
}

#[tokio::test]
async fn what_is_out_of_order_is_a_fault() {
    let mut bench = Bench::new();
    bench
        .authority
        .record(StatusEvent::AgentReinstated { agent: agent() });
    let bytes = snapshot(&bench.authority, Serial::generate());
    let heartbeat = bench.authority.heartbeat();
    let welcome = || Response::Welcome(agentca_proto::Welcome::default());
    let within = || update(Vec::new(), heartbeat.clone());
    let half = || chunk(&bytes[..20], bytes.len());
    let whole = || chunk(&bytes, bytes.len());
    let longer = || chunk(&bytes, bytes.len() - 1);
    let cases = [
        vec![welcome()],
        vec![half(), within()],
        vec![whole(), whole()],
        vec![longer()],
        vec![whole(), update(Vec::new(), String::new())],
        vec![whole(), within()],
    ];
    for (index, mut messages) in cases.into_iter().enumerate() {
        let last = messages.pop().unwrap();
        let mut chain = chain();
        let mut session = bench.session(&mut chain);
        for message in messages {
            session.take(message).await.unwrap();
        }
        let error = session.take(last).await.unwrap_err();
        assert!(error.is_fault(), "case {index}: {error}");
    }
}

#[tokio::test]
async fn a_damaged_snapshot_is_a_fault() {
    let mut bench = Bench::new();
    bench
        .authority
        .record(StatusEvent::AgentReinstated { agent: agent() });
    let mut bytes = snapshot(&bench.authority, Serial::generate());
    bytes[0] ^= 1;
    let mut chain = chain();
    let error = bench
        .session(&mut chain)
        .take(chunk(&bytes, bytes.len()))
        .await
        .unwrap_err();
    assert!(error.is_fault(), "{error}");
}
