//! Measures a log: records staged and made durable a second, and records verified a second.
//!
//! `cargo run --profile bench-release -p agentca-auditlog --example throughput -- [DIRECTORY] [RECORDS]`
//!
//! Records have 600 bytes. Verification is done by one thread.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentca_auditlog::decision::{
    AgentFields, CallFields, DecisionFields, RequestFields, ResultFields,
};
use agentca_auditlog::log::{Log, LogSigner};
use agentca_auditlog::record::{Head, Opening, log_opened};
use agentca_auditlog::store::FileStore;
use agentca_auditlog::verify::{VerifyOptions, verify_directory};
use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::profile::{Issuer, Pen, Template, Validity, create_root};
use agentca_identity::scope::Scope;
use agentca_identity::serial::Serial;
use agentca_identity::time::Timestamp;
use agentca_identity::trust::TrustLevel;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_else(|| "throughput-log".into()));
    let count: u64 = arguments
        .next()
        .map_or(Ok(1_000_000), |count| count.parse())?;
    let (anchor, signer) = pki()?;
    let opening = Opening {
        signers: vec![signer.chain.clone()],
        witness: None,
    };
    let store = Arc::new(FileStore::create(&directory)?);
    Log::create(store, &signer, |head, out| log_opened(head, out, &opening))?;
    let (log, _) = Log::open(Arc::new(FileStore::open(&directory)?), &signer)?;
    append(&log, count)?;
    one_by_one(&log)?;
    drop(log);
    let (begun, on_core) = (Instant::now(), on_core());
    let report = verify_directory(&directory, &anchor, &VerifyOptions::default())?;
    print("verified", report.size, begun.elapsed());
    let on_core = self::on_core().saturating_sub(on_core);
    print("verified, counting time on the core", report.size, on_core);
    let begun = Instant::now();
    let (_, recovery) = Log::open(Arc::new(FileStore::open(&directory)?), &signer)?;
    print("opened", recovery.size, begun.elapsed());
    Ok(())
}

fn append(log: &Log, count: u64) -> Result<(), Failure> {
    let scopes: Vec<Scope> = vec!["payments:read".parse()?];
    let serial = Serial::generate();
    let record = record(&scopes, &serial);
    let (begun, before) = (Instant::now(), on_core());
    let mut staging = Duration::ZERO;
    let (mut staged, mut last) = (0, 0);
    while staged < count {
        let from = Instant::now();
        for _ in 0..64 {
            if let Ok(one) = log.stage(|head: &Head<'_>, out: &mut Vec<u8>| record.write(head, out))
            {
                last = one.index;
                staged += 1;
            }
        }
        staging += from.elapsed();
        // As a server with a bounded number of requests in flight.
        while last.saturating_sub(log.durable()) > 4096 {
            log.wait_blocking(log.durable())?;
        }
    }
    print("staged, counting time in the call", staged, staging);
    let on_core = on_core().saturating_sub(before);
    print("staged, counting time on the core", staged, on_core);
    log.wait_blocking(last)?;
    print("appended durably, 4096 in flight", staged, begun.elapsed());
    Ok(())
}

fn one_by_one(log: &Log) -> Result<(), Failure> {
    let scopes: Vec<Scope> = vec!["payments:read".parse()?];
    let serial = Serial::generate();
    let record = record(&scopes, &serial);
    let begun = Instant::now();
    for _ in 0..500 {
        let staged = log.stage(|head, out| record.write(head, out))?;
        log.wait_blocking(staged.index)?;
    }
    print("appended durably, one at a time", 500, begun.elapsed());
    Ok(())
}

fn record<'a>(scopes: &'a [Scope], serial: &'a Serial) -> DecisionFields<'a> {
    DecisionFields {
        agent: Some(AgentFields {
            uri: "spiffe://example.org/prod/agent/support-01",
            serial,
            cert: &[1; 32],
            trust: TrustLevel::L2,
            scopes,
            owner: "alice@example.org",
            grant: 12,
            lineage: &[],
        }),
        call: CallFields {
            proto: "http",
            upstream: Some("payments"),
            template: Some("/v1/accounts/{id}"),
            method: Some("GET"),
            risk: Some("read"),
            ..CallFields::default()
        },
        request: RequestFields {
            id: "0123456789abcdef0123456789abcdef",
            ..RequestFields::default()
        },
        decision: "allow",
        rule: None,
        reason: None,
        would: None,
        policy: None,
        status_number: Some(7),
        result: Some(ResultFields {
            status: Some(200),
            ended: Some("complete"),
            digest: Some(&[3; 32]),
            length: Some(512),
            duration_ms: Some(1),
            ..ResultFields::default()
        }),
    }
}

fn pki() -> Result<(TrustAnchor, LogSigner), Failure> {
    let now = Timestamp::now();
    let root_key = PrivateKey::generate(KeyKind::P256)?;
    let root = create_root("example.org".parse()?, Pen::DOCUMENTATION, &root_key, now)?;
    let validity = Validity::starting(now, Duration::from_secs(3600 * 24));
    let ca_key = PrivateKey::generate(KeyKind::P256)?;
    let ca = Template::signer_ca("example.org".parse()?, ca_key.public_key(), validity);
    let ca = Issuer::new(root.prepare(ca)?.sign()?, ca_key, Pen::DOCUMENTATION)?;
    let key = PrivateKey::generate(KeyKind::Ed25519)?;
    let origin: agentca_identity::spiffe::LogOrigin = "example.org/prod/enforcer/edge-1".parse()?;
    let leaf = Template::log_signer(origin.clone(), key.public_key(), validity);
    let leaf = ca.prepare(leaf)?.sign()?;
    let chain = vec![leaf.der().to_vec(), ca.certificate().der().to_vec()];
    let anchor = TrustAnchor::from_root_der(root.certificate().der())?;
    Ok((anchor, LogSigner { origin, key, chain }))
}

/// How long this thread has had a core, where the system tells (Linux).
fn on_core() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = statistics
        .split(' ')
        .next()
        .and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

fn print(what: &str, count: u64, took: Duration) {
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
    let per_second = u128::from(count) * 1_000_000_000 / u128::from(nanos);
    println!("{what}: {count} in {took:.2?}, {per_second}/s");
}
