//! A writer that is killed with SIGKILL at random, again and again, loses nothing it acknowledged.
//!
//! The test runs its own binary as the writer. The writer says on its standard error which index is
//! durable, after [`Log::on_durable`] said so, and leaf hashes of what it staged; the parent kills it at
//! a random moment, opens the log, and compares.

#![cfg(test)]

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use agentca_auditlog::log::{Log, LogOptions, LogSigner};
use agentca_auditlog::merkle::{CompactRange, Hash, leaf_hash};
use agentca_auditlog::record::{Head, Opening, Record, log_opened, scan};
use agentca_auditlog::store::FileStore;
use agentca_identity::crypto::{PrivateKey, random};

const KILLS: u32 = 200;
const DIRECTORY: &str = "AGENTCA_CRASH_TEST_DIRECTORY";
const KEY: &str = "AGENTCA_CRASH_TEST_KEY";

/// The other half of the test, in a process of its own; alone it does nothing.
#[test]
fn writer() {
    if let (Ok(directory), Ok(key)) = (env::var(DIRECTORY), env::var(KEY)) {
        write_until_killed(Path::new(&directory), &key);
    }
}

fn signer(pem: &str) -> LogSigner {
    LogSigner {
        origin: "example.org/prod/enforcer/edge-1".parse().unwrap(),
        key: PrivateKey::from_pem(pem).unwrap(),
        chain: vec![vec![1], vec![2]],
    }
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 200_000,
        checkpoint_interval: Duration::from_millis(3),
        ..LogOptions::default()
    }
}

fn open(directory: &Path, signer: &LogSigner) -> Arc<Log> {
    let store = Arc::new(FileStore::open(directory).unwrap());
    Log::open_with(store, signer, options())
        .unwrap_or_else(|e| panic!("does not open: {e}"))
        .0
}

fn sample(head: &Head<'_>, out: &mut Vec<u8>, salt: u64) {
    let mut record = Record::begin(out, head, "sample");
    record.number("salt", salt);
    record
        .at("text")
        .text("text", &"z".repeat(usize::try_from(salt % 700).unwrap()));
    record.finish();
}

/// The writer: stages as fast as it can, and says what it staged and what is durable.
fn write_until_killed(directory: &Path, key: &str) -> ! {
    let log = open(directory, &signer(key));
    log.on_durable(Box::new(|durable| tell(&format!("durable {durable}\n"))));
    let mut salt = u64::from_be_bytes(random());
    loop {
        let mut last = None;
        for _ in 0..1 + salt % 40 {
            salt = salt.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let size = salt >> 33;
            if let Ok(staged) = log.stage(|head, out| sample(head, out, size)) {
                let leaf: String = staged.leaf.iter().map(|b| format!("{b:02x}")).collect();
                tell(&format!("staged {} {leaf}\n", staged.index));
                last = Some(staged.index);
            }
        }
        if let Some(last) = last.filter(|_| salt.is_multiple_of(3)) {
            log.wait_blocking(last).unwrap();
        }
    }
}

/// One write, so that a kill leaves a line whole or cut, never mixed.
fn tell(line: &str) {
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// What the writers said: leaf hashes by index, and how many are durable.
#[derive(Default)]
struct Told {
    staged: BTreeMap<u64, Hash>,
    durable: u64,
}

impl Told {
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            // A line that was cut off by the kill has no newline and is not given to us.
            ["durable", durable] => self.durable = self.durable.max(durable.parse().unwrap()),
            ["staged", index, leaf] if leaf.len() == 64 => {
                let leaf: Vec<u8> = (0..64)
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&leaf[at..at + 2], 16).unwrap())
                    .collect();
                self.staged
                    .insert(index.parse().unwrap(), leaf.try_into().unwrap());
            }
            _ => panic!("the writer said `{line}`"),
        }
    }
}

#[test]
fn a_killed_writer_loses_nothing_acknowledged() {
    let temp = tempfile::tempdir().unwrap();
    let directory: PathBuf = temp.path().join("log");
    let key = PrivateKey::generate(agentca_identity::crypto::KeyKind::Ed25519)
        .unwrap()
        .to_pem();
    let signer = signer(&key);
    let opening = Opening {
        signers: vec![signer.chain.clone()],
        witness: None,
    };
    let store = Arc::new(FileStore::create(&directory).unwrap());
    Log::create(store, &signer, |head, out| log_opened(head, out, &opening)).unwrap();
    let mut told = Told::default();
    let begun = Instant::now();
    for kill in 0..KILLS {
        let mut writer = Command::new(env::current_exe().unwrap())
            .env(DIRECTORY, &directory)
            .env(KEY, &*key)
            .args(["writer", "--exact", "--nocapture"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stderr.take().unwrap());
        let deadline = Duration::from_micros(u64::from(u16::from_be_bytes(random())) / 5 + 500);
        // Most are killed once something is durable, some while they stage for the first time, some while they are
        // still opening the log.
        let (begin, begun) = mpsc::channel();
        let killer = std::thread::spawn(move || {
            let _ = begun.recv_timeout(Duration::from_secs(10));
            std::thread::sleep(deadline);
            writer.kill().unwrap();
            writer.wait().unwrap();
        });
        if kill % 8 == 0 {
            begin.send(()).unwrap();
        }
        let mut line = String::new();
        while lines.read_line(&mut line).unwrap() > 0 {
            if kill % 4 == 1 || line.starts_with("durable") {
                let _ = begin.send(());
            }
            if let Some(whole) = line.strip_suffix('\n') {
                told.take(whole);
            }
            line.clear();
        }
        killer.join().unwrap();
        // What was staged and not durable may be gone, and other records may stand there.
        let durable = check_tail(&directory, &signer, &told);
        told.staged.retain(|index, _| *index < durable);
    }
    check_whole(&directory, &signer, &told);
    eprintln!(
        "{KILLS} kills, {} records, {:?}",
        told.durable,
        begun.elapsed()
    );
    assert!(told.durable > 1000, "the writers came to write");
}

/// Opens the log as it was left and compares what was told since: the records that are durable now.
fn check_tail(directory: &Path, signer: &LogSigner, told: &Told) -> u64 {
    let log = open(directory, signer);
    assert!(
        log.durable() >= told.durable,
        "{} of {} are there",
        log.durable(),
        told.durable
    );
    for record in log.scan_back(told.durable).take(400) {
        let (index, bytes) = record.unwrap();
        compare(told, index, &bytes);
    }
    log.durable()
}

fn check_whole(directory: &Path, signer: &LogSigner, told: &Told) {
    let log = open(directory, signer);
    let checkpoint = log.publish_now().unwrap().checkpoint.clone();
    let mut range = CompactRange::new();
    for (expected, record) in (0..).zip(log.scan(0)) {
        let (index, bytes) = record.unwrap();
        assert_eq!((index, scan(&bytes).unwrap().seq), (expected, expected));
        range.append(leaf_hash(&bytes), |_, _| ());
        if index < told.durable {
            compare(told, index, &bytes);
        }
    }
    assert_eq!(
        (range.size(), range.root()),
        (checkpoint.size, checkpoint.root)
    );
}

fn compare(told: &Told, index: u64, bytes: &[u8]) {
    // A writer killed between staging and telling leaves a durable record nobody was told of.
    if let Some(leaf) = told.staged.get(&index) {
        assert_eq!(leaf_hash(bytes), *leaf, "record {index} is another one");
    }
}
