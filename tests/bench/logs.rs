//! The log alone: durable appends, and offline verification of a large log.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentca_auditlog::log::{Log, LogSigner};
use agentca_auditlog::record::{Head, Opening, Record, log_opened};
use agentca_auditlog::store::FileStore;
use agentca_auditlog::verify::{VerifyOptions, verify_directory};
use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::name::TrustDomain;
use agentca_identity::profile::{Issuer, Pen, Template, Validity, create_root};
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;
use tokio::task::LocalSet;

use crate::Outcome;
use crate::decisions::Decisions;
use crate::part::run_pinned;
use crate::report::{Bar, Bound, Section, Table, number};
use crate::stats::{median, spread_percent};

/// An enforcer's log.
pub(crate) const ORIGIN: &str = "bench.example/prod/enforcer/edge-1";
/// Records of the log that is verified.
const RECORDS: u64 = 1_000_000;
/// Tasks that append and wait, one record at a time each.
const WRITERS: usize = 32;
/// How long appends are counted.
const MEASURE: Duration = Duration::from_secs(3);

/// Measures both, in processes of their own on the server's core.
pub(crate) fn measure(work: &Path, rounds: usize) -> Outcome<Section> {
    std::fs::create_dir_all(work)?;
    let (large, records) = (work.join("large"), RECORDS.to_string());
    eprintln!("writing a log of {records} records");
    let log = large.to_str().ok_or("the directory's name is not UTF-8")?;
    run_pinned(&["make-log", log, &records])?;
    let (mut appends, mut verified) = (vec![], vec![]);
    for turn in 0..rounds {
        eprintln!("logs, round {turn}");
        let fresh = work.join(format!("appends-{turn}"));
        let fresh = fresh.to_str().ok_or("the directory's name is not UTF-8")?;
        appends.push(run_pinned(&["appends", fresh])?);
        verified.push(run_pinned(&["verify", log])?);
    }
    Ok(section(&appends, &verified, Decisions::new()?.mean_bytes()))
}

fn section(appends: &[f64], verified: &[f64], bytes: f64) -> Section {
    let mut section = Section::new("Logs");
    section.say(format!(
        "On one core each. Appends: {WRITERS} writers, records of 600 to 1,200 bytes, each waits \
         until its record is durable (one committer, one `fdatasync` for each batch; hash files \
         and checkpoints beside it). Verification: everything `log verify` does with a log of {} \
         decision records with their outcomes, as an enforcer writes them, {} bytes each on average, \
         the files in the page cache.",
        number(RECORDS as f64),
        number(bytes),
    ));
    let mut table = Table::new(&["", "records/s", "±"]);
    for (name, rounds) in [("durable appends", appends), ("verified", verified)] {
        let spread = format!("{:.0} %", spread_percent(rounds));
        table.row(&[name.to_owned(), number(median(rounds)), spread]);
    }
    section.table(table);
    let bound = Bound::AtLeast(500_000.0);
    section.bar(Bar::new(
        "verification on one core",
        median(verified),
        bound,
        "records/s",
    ));
    section
}

/// Appends durably for a while to a new log in `dir`; per second.
pub(crate) fn append_rate(dir: &Path) -> Outcome<f64> {
    let log = new_log(dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (count, started) = (Rc::new(Cell::new(0.0)), Instant::now());
    let writers = LocalSet::new();
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let (log, count) = (Arc::clone(&log), Rc::clone(&count));
        tasks.push(writers.spawn_local(async move {
            let mut length = 600 + 600 * writer / WRITERS;
            while started.elapsed() < MEASURE {
                length = if length >= 1200 { 600 } else { length + 7 };
                let staged = log.stage(|head, out| filler(head, out, length))?;
                log.durable_at(staged.index).await?;
                count.set(count.get() + 1.0);
            }
            Outcome::Ok(())
        }));
    }
    writers.block_on(&runtime, async {
        for task in tasks {
            task.await??;
        }
        Outcome::Ok(())
    })?;
    let rate = count.get() / started.elapsed().as_secs_f64();
    log.shutdown();
    Ok(rate)
}

/// Writes a log of `records` records into `dir` and the root certificate beside it.
pub(crate) fn make(dir: &Path, records: u64) -> Outcome<f64> {
    let log = new_log(dir)?;
    let started = Instant::now();
    let decisions = Decisions::new()?;
    for number in 1..records {
        let staged = log.stage(|head, out| decisions.write(number, head, out))?;
        if number % 4096 == 0 {
            log.wait_blocking(staged.index)?;
        }
    }
    log.shutdown();
    Ok(records as f64 / started.elapsed().as_secs_f64())
}

/// Verifies the log in `dir`; records per second.
pub(crate) fn verify_rate(dir: &Path) -> Outcome<f64> {
    let anchor = TrustAnchor::from_root_der(&std::fs::read(root_of(dir))?)?;
    let options = VerifyOptions {
        floor: None,
        now: Timestamp::now(),
    };
    let started = Instant::now();
    let report = verify_directory(dir, &anchor, &options)?;
    Ok(report.size as f64 / started.elapsed().as_secs_f64())
}

/// A record of `length` bytes.
fn filler(head: &Head<'_>, out: &mut Vec<u8>, length: usize) {
    const FILL: &str = "the content of a record is opaque to the log and only hashed here; ";
    let begin = out.len();
    let mut record = Record::begin(out, head, "measured");
    // What the other members take is known only roughly; the rest of a record is filled.
    let room = length.saturating_sub(107);
    let text = FILL.repeat(room / FILL.len() + 1);
    record.text("text", text.get(..room).unwrap_or_default());
    record.finish();
    debug_assert!(
        out.len() - begin <= length + 40,
        "a record as long as asked for"
    );
}

fn root_of(dir: &Path) -> std::path::PathBuf {
    dir.with_extension("root.der")
}

fn new_log(dir: &Path) -> Outcome<Arc<Log>> {
    let now = Timestamp::now();
    let trust_domain: TrustDomain = "bench.example".parse()?;
    let origin: LogOrigin = ORIGIN.parse()?;
    let root_key = PrivateKey::generate(KeyKind::P256)?;
    let root = create_root(trust_domain.clone(), Pen::default(), &root_key, now)?;
    let key = PrivateKey::generate(KeyKind::P256)?;
    let validity = Validity::starting(now, Duration::from_secs(24 * 3600));
    let template = Template::signer_ca(trust_domain, key.public_key(), validity);
    let intermediate = root.prepare(template)?.sign()?;
    let signers = Issuer::new(intermediate.clone(), key, Pen::default())?;
    let key = PrivateKey::generate(KeyKind::Ed25519)?;
    let template = Template::log_signer(origin.clone(), key.public_key(), validity);
    let leaf = signers.prepare(template)?.sign()?;
    let chain = vec![leaf.der().to_vec(), intermediate.der().to_vec()];
    std::fs::write(root_of(dir), root.certificate().der())?;
    let signer = LogSigner { origin, key, chain };
    let opening = Opening {
        signers: vec![signer.chain.clone()],
        witness: None,
    };
    let store = Arc::new(FileStore::create(dir)?);
    Log::create(store, &signer, |head, out| log_opened(head, out, &opening))?;
    let (log, _) = Log::open(Arc::new(FileStore::open(dir)?), &signer)?;
    Ok(log)
}
