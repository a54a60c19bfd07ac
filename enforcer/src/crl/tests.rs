use std::path::Path;

use agentca_auditlog::log::LogSigner;
use agentca_auditlog::record::{Opening, log_opened};
use agentca_auditlog::store::FileStore;
use agentca_identity::pem::encode_certs;
use agentca_identity::profile::crl::{CrlTemplate, sign_crl};
use agentca_identity::profile::{Issuer, RevocationReason};
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::SpiffeId;

use super::*;
use crate::config::Config;
use crate::credentials::Credentials;
use crate::setting::Setting;
use crate::status::{Claim, StaleReason, Verdict};
use crate::testing::{Pki, shard};

const HOUR: Duration = Duration::from_secs(3_600);

struct Bench {
    follower: CrlFollower,
    pki: Pki,
    // Last: the log ends before its directory does.
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
        pki.write(dir.path(), HOUR);
        let text = "environment = \"prod\"\nlisten = \"127.0.0.1:0\"\nidentity_dir = \".\"\n\
                    data_dir = \"data\"\nrevocation = \"crl\"\ncrl = [\"0.crl\"]\n"
            .to_owned()
            + crate::testing::ROUTES;
        let config = Config::parse(&text, dir.path()).unwrap();
        let credentials =
            Credentials::load(dir.path(), &config.environment, Timestamp::now()).unwrap();
        let log = log(&config.log_dir(), &credentials);
        let registry = Registry::for_crl();
        let setting = Setting {
            config: Arc::new(config),
            credentials: Arc::new(credentials),
        };
        let follower = CrlFollower::new(
            (vec![CrlSource::File(dir.path().join("0.crl"))], HOUR),
            Settings::new(setting),
            registry,
            log,
            Floors::default(),
        );
        Self { pki, dir, follower }
    }

    fn publish(&self, number: u64, revoked: &[Serial], this_update: Timestamp, life: Duration) {
        let der = list(&self.pki.issuing, number, revoked, this_update, life);
        std::fs::write(self.dir.path().join("0.crl"), der).unwrap();
    }

    /// Lists issuing CAs in the folder, and reads it again.
    fn know(&self, issuers: &[&Issuer]) {
        let ders = issuers.iter().map(|issuer| issuer.certificate().der());
        std::fs::write(self.dir.path().join("issuers.pem"), encode_certs(ders)).unwrap();
        let config = self.follower.settings.config();
        let now = Timestamp::now();
        let credentials = Credentials::load(self.dir.path(), &config.environment, now).unwrap();
        self.follower.settings.replace(Setting {
            config,
            credentials: Arc::new(credentials),
        });
    }

    /// One turn, in which every source is due.
    async fn turn(&mut self) -> Turn {
        for slot in &mut self.follower.slots {
            slot.due = Instant::now();
        }
        self.follower.turn().await
    }

    /// Whether something new was accepted, and nothing refused.
    async fn round(&mut self) -> bool {
        let turn = self.turn().await;
        assert!(turn.faults.is_empty(), "{turn:?}");
        turn.changed
    }

    /// Why the list was refused.
    async fn refused(&mut self) -> CrlFault {
        let mut turn = self.turn().await;
        assert!(!turn.changed, "{turn:?}");
        turn.faults.pop().expect("it was not refused")
    }

    fn verdict(&self, serial: Serial, uri: &str) -> Verdict {
        let agent: SpiffeId = "spiffe://example.org/prod/agent/a".parse().unwrap();
        let uri = uri.parse().unwrap();
        let claim = Claim {
            serial,
            agent: &agent,
            fingerprint: [0; 32],
            crl_uri: Some(&uri),
            issuer_key: Some(self.pki.issuing.certificate().public_key().short_id()),
        };
        self.follower.registry.handshake_verdict(&claim)
    }
}

fn list(
    issuer: &Issuer,
    number: u64,
    revoked: &[Serial],
    this_update: Timestamp,
    life: Duration,
) -> Vec<u8> {
    let template = CrlTemplate {
        number,
        this_update,
        next_update: this_update + life,
        shard_uri: shard(),
        revoked: revoked
            .iter()
            .map(|serial| (*serial, this_update, RevocationReason::KeyCompromise)),
    };
    sign_crl(issuer, template).unwrap()
}

fn log(dir: &Path, credentials: &Credentials) -> Arc<Log> {
    let signer = LogSigner {
        origin: credentials.log_origin.clone(),
        key: credentials.log.key.clone(),
        chain: credentials.log.chain.clone(),
    };
    std::fs::create_dir_all(dir.parent().unwrap()).unwrap();
    let opening = Opening::default();
    let store = Arc::new(FileStore::create(dir).unwrap());
    Log::create(store, &signer, |head, out| log_opened(head, out, &opening)).unwrap();
    Log::open(Arc::new(FileStore::open(dir).unwrap()), &signer)
        .unwrap()
        .0
}

#[tokio::test]
async fn revocations_come_into_force_with_each_list() {
    let mut bench = Bench::new();
    let (good, bad) = (Serial::generate(), Serial::generate());
    assert_eq!(bench.verdict(good, crate::testing::SHARD), Verdict::Unknown);
    bench.publish(7, &[], Timestamp::now(), HOUR);
    assert!(bench.round().await);
    assert!(!bench.round().await, "the same list again is nothing new");
    assert_eq!(bench.verdict(bad, crate::testing::SHARD), Verdict::Valid);
    bench.publish(8, &[bad], Timestamp::now(), HOUR);
    assert!(bench.round().await);
    assert_eq!(bench.verdict(bad, crate::testing::SHARD), Verdict::Revoked);
    assert_eq!(bench.verdict(good, crate::testing::SHARD), Verdict::Valid);
    assert_eq!(
        bench.verdict(good, "http://127.0.0.1:7080/crl/1.crl"),
        Verdict::Unknown
    );
    let floors = crate::journal::Floors::find(&bench.follower.log, 1).unwrap();
    assert_eq!(floors.crls.get(crate::testing::SHARD), Some(&8));
}

#[tokio::test]
async fn numbers_never_go_back() {
    let mut bench = Bench::new();
    bench.publish(8, &[], Timestamp::now(), HOUR);
    assert!(bench.round().await);
    bench.publish(7, &[], Timestamp::now(), HOUR);
    let back = bench.refused().await;
    assert!(matches!(back, CrlFault::WentBack { .. }), "{back:?}");
    // Not after a restart either.
    let mut bench = Bench::new();
    let log = Arc::clone(&bench.follower.log);
    // The newest record is of a list that is no longer followed.
    for (uri, number) in [(crate::testing::SHARD, 9), ("http://moved/0.crl", 3)] {
        let accepted = CrlAccepted { uri, number };
        let record = journal::record(&log, |head, out| accepted.write(head, out));
        record.await.unwrap();
    }
    bench.follower.floors = Floors::find(&log, 1).unwrap();
    bench.publish(8, &[], Timestamp::now(), HOUR);
    let back = bench.refused().await;
    assert!(matches!(back, CrlFault::WentBack { .. }), "{back:?}");
    let stale = bench.follower.registry.freshness(Instant::now());
    assert_eq!(stale, Err(StaleReason::Unverified));
}

/// The task's own thread and those that serve go on meanwhile.
#[tokio::test]
async fn a_long_list_is_taken_in_without_holding_anything_up() {
    let mut bench = Bench::new();
    let now = Timestamp::now();
    let revoked: Vec<Serial> = (0..1_000_000).map(|_| Serial::generate()).collect();
    bench.publish(1, &revoked, now, HOUR);
    let registry = Arc::clone(&bench.follower.registry);
    let agent: SpiffeId = "spiffe://example.org/prod/agent/a".parse().unwrap();
    let (uri, serial) = (shard(), Serial::generate());
    let claim = Claim {
        serial,
        agent: &agent,
        fingerprint: [0; 32],
        crl_uri: Some(&uri),
        issuer_key: Some(bench.pki.issuing.certificate().public_key().short_id()),
    };
    let began = Instant::now();
    let taking = async { assert!(bench.round().await) };
    let (mut longest, mut last) = (Duration::ZERO, began);
    let going_on = async {
        while registry.handshake_verdict(&claim) == Verdict::Unknown {
            longest = longest.max(last.elapsed());
            last = Instant::now();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(taking, going_on);
    let whole = began.elapsed();
    assert!(longest < whole / 2, "{longest:?} of {whole:?}");
    assert!(whole < HOUR / 60, "{whole:?}");
    for serial in [&revoked[0], &revoked[500_000], &revoked[999_999]] {
        assert_eq!(
            bench.verdict(*serial, crate::testing::SHARD),
            Verdict::Revoked
        );
    }
}

#[tokio::test]
async fn old_future_and_foreign_lists_are_refused() {
    let mut bench = Bench::new();
    bench.publish(1, &[], Timestamp::now() - HOUR, HOUR / 2);
    assert!(matches!(bench.refused().await, CrlFault::Expired { .. }));
    bench.publish(1, &[], Timestamp::now() + HOUR, HOUR);
    assert!(matches!(bench.refused().await, CrlFault::Future { .. }));
    let stranger = Pki::new();
    let own = std::mem::replace(&mut bench.pki, stranger);
    bench.publish(1, &[], Timestamp::now(), HOUR);
    assert!(matches!(bench.refused().await, CrlFault::Unreadable(_)));
    bench.pki = own;
    std::fs::write(bench.dir.path().join("0.crl"), b"garbage").unwrap();
    assert!(matches!(bench.refused().await, CrlFault::Unreadable(_)));
    std::fs::remove_file(bench.dir.path().join("0.crl")).unwrap();
    assert!(matches!(bench.refused().await, CrlFault::Fetch(_)));
    bench.publish(1, &[], Timestamp::now(), HOUR);
    assert!(bench.round().await);
    assert_eq!(bench.follower.registry.freshness(Instant::now()), Ok(()));
}

#[tokio::test]
async fn a_list_of_another_issuing_ca_counts_once_that_is_known_and_until_it_ends() {
    let mut bench = Bench::new();
    let now = Timestamp::now();
    let next = bench.pki.another_issuing(now, HOUR);
    let ended = bench.pki.another_issuing(now - 2 * HOUR, HOUR);
    let put = |bench: &Bench, issuer: &Issuer, number| {
        let der = list(issuer, number, &[], now, HOUR);
        std::fs::write(bench.dir.path().join("0.crl"), der).unwrap();
    };
    put(&bench, &next, 5);
    let unknown = bench.refused().await;
    assert!(matches!(unknown, CrlFault::Unreadable(_)), "{unknown:?}");
    bench.know(&[&next, &ended]);
    assert!(bench.round().await);
    assert_eq!(
        bench.verdict(Serial::generate(), crate::testing::SHARD),
        Verdict::Unknown,
        "it speaks for its own certificates alone"
    );
    // That of our own certificate goes on counting.
    put(&bench, &bench.pki.issuing, 6);
    assert!(bench.round().await);
    put(&bench, &ended, 7);
    // What has ended signs no list in place of one that counts.
    let fault = bench.refused().await;
    assert!(matches!(fault, CrlFault::IssuerEnded), "{fault:?}");
    put(&bench, &next, 8);
    assert!(bench.round().await);
}

#[tokio::test]
async fn a_list_whose_ca_has_ended_is_not_waited_for() {
    let mut bench = Bench::new();
    let now = Timestamp::now();
    let ended = bench.pki.another_issuing(now - 2 * HOUR, HOUR);
    bench.know(&[&ended]);
    let old = bench.dir.path().join("old.crl");
    let due = Instant::now();
    for (source, held) in [
        (CrlSource::File(old.clone()), Held::Missing),
        (CrlSource::File(bench.dir.path().join("none")), Held::Gone),
    ] {
        bench.follower.slots.push(Slot { source, held, due });
    }
    bench.publish(1, &[], now, HOUR);
    assert!(bench.turn().await.changed);
    let registry = Arc::clone(&bench.follower.registry);
    assert_eq!(
        registry.readiness(),
        Readiness::Starting,
        "one was not heard"
    );
    let list = list(&ended, 4, &[], now - 2 * HOUR, HOUR / 2);
    std::fs::write(&old, list).unwrap();
    bench.turn().await;
    assert!(matches!(bench.follower.slots[1].held, Held::Ended));
    assert_eq!(registry.readiness(), Readiness::Ready);
    assert_eq!(registry.freshness(Instant::now()), Ok(()));
    assert_eq!(
        bench.verdict(Serial::generate(), crate::testing::SHARD),
        Verdict::Valid
    );
}

#[tokio::test]
async fn only_what_is_due_is_asked_for() {
    let mut bench = Bench::new();
    let now = Timestamp::now();
    bench.publish(1, &[], now, HOUR);
    assert!(bench.round().await);
    bench.publish(2, &[], now, HOUR);
    assert!(!bench.follower.turn().await.changed, "it is not due");
    assert!(bench.round().await);
    let pause = |this_update, life| {
        let der = list(&bench.pki.issuing, 9, &[], this_update, life);
        let crl = Crl::parse_verified(&der, bench.pki.issuing.certificate()).unwrap();
        bench.follower.pause(&Held::List(Arc::new(crl)))
    };
    assert_eq!(pause(now - HOUR, HOUR / 2), RETRY, "what has ended");
    assert!(pause(now, HOUR) <= HOUR / 2 && pause(now, HOUR) > HOUR / 3);
    assert_eq!(pause(now, 9 * HOUR), HOUR, "the schedule");
    assert_eq!(bench.follower.pause(&Held::Missing), RETRY);
}

#[test]
fn an_issuer_of_another_root_is_refused() {
    let bench = Bench::new();
    let foreign = Pki::new();
    let der = foreign.issuing.certificate().der();
    std::fs::write(bench.dir.path().join("issuers.pem"), encode_certs([der])).unwrap();
    let environment = "prod".parse().unwrap();
    let error = Credentials::load(bench.dir.path(), &environment, Timestamp::now()).unwrap_err();
    assert!(error.to_string().contains("issuers.pem"), "{error}");
}
