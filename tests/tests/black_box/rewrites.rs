//! An enforcer's log that somebody wrote anew, frames, hash files and checkpoint: who finds out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentca_auditlog::log::{Log, LogSigner};
use agentca_auditlog::store::FileStore;
use agentca_enforcer::credentials::Credentials;
use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::time::Timestamp;
use agentca_tests::curl::curl;
use agentca_tests::lab::Lab;
use agentca_tests::log::{of_kind, raw_records};
use agentca_tests::program::Said;

/// Writes a whole log of these records.
fn forge(dir: &Path, signer: &LogSigner, records: &[String]) {
    let _ = std::fs::remove_dir_all(dir);
    let raw = |record: &str, out: &mut Vec<u8>| out.extend_from_slice(record.as_bytes());
    let store = Arc::new(FileStore::create(dir).unwrap());
    Log::create(store, signer, |_, out| raw(&records[0], out)).unwrap();
    let store = Arc::new(FileStore::open(dir).unwrap());
    let (log, _) = Log::open(store, signer).unwrap();
    for record in &records[1..] {
        log.stage(|_, out| raw(record, out)).unwrap();
    }
    log.shutdown();
}

struct Edge {
    lab: Lab,
    signer: LogSigner,
    /// Its checkpoint, kept by somebody else.
    kept: PathBuf,
    records: Vec<String>,
    forged: PathBuf,
}

/// An enforcer that denied something, was witnessed, and ended.
fn edge() -> Edge {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    let enforcer = lab.enforcer("edge-1");
    curl(
        &enforcer,
        &agent,
        &[],
        &["/v1/accounts/7", "/nowhere", "/v1/accounts/8"],
    );
    let log = enforcer.log();
    assert!(enforcer.program.terminate().success());
    let (kept, forged) = (lab.path("kept"), lab.path("forged"));
    std::fs::copy(log.join("checkpoint"), &kept).unwrap();
    let environment = "prod".parse().unwrap();
    let edge = Credentials::load(&lab.path("edge-1"), &environment, Timestamp::now()).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Edge {
        signer: LogSigner {
            origin: edge.log_origin,
            key: edge.log.key,
            chain: edge.log.chain,
        },
        kept,
        records: raw_records(&log).into_iter().map(text).collect(),
        forged,
        lab,
    }
}

impl Edge {
    /// The denial made an allowance.
    fn whitewashed(&self) -> Vec<String> {
        let allow =
            |record: &String| record.replace("\"decision\":\"deny\"", "\"decision\":\"allow\"");
        let records: Vec<String> = self.records.iter().map(allow).collect();
        assert_ne!(records, self.records, "there was a denial");
        records
    }

    fn verify(&self, more: &[&str]) -> Said {
        let (log, root) = (self.forged.display().to_string(), self.lab.root());
        let root = root.display().to_string();
        let verify = ["log", "verify", &log, "--root", &root];
        self.lab.try_agentca(&[&verify[..], more].concat())
    }
}

#[test]
fn without_its_key_a_log_cannot_be_rewritten() {
    let edge = edge();
    let stranger = LogSigner {
        key: PrivateKey::generate(KeyKind::Ed25519).unwrap(),
        ..edge.signer.clone()
    };
    forge(&edge.forged, &stranger, &edge.whitewashed());
    let said = edge.verify(&[]).must_end_with(1);
    assert!(said.stderr.contains("another root"), "{said}");
    std::fs::copy(&edge.kept, edge.forged.join("checkpoint")).unwrap();
    edge.verify(&[]).must_end_with(1);
}

#[test]
fn with_its_key_what_was_witnessed_stays() {
    let edge = edge();
    let kept = edge.kept.display().to_string();
    // What the attacker can do in principle, which is why the rest of this test says something.
    forge(&edge.forged, &edge.signer, &edge.records);
    edge.verify(&["--checkpoint", &kept]).must_succeed();

    forge(&edge.forged, &edge.signer, &edge.whitewashed());
    let said = edge.verify(&[]).must_end_with(1);
    assert!(said.stderr.contains("co-signed another root"), "{said}");

    // Left without its cosignatures it says that nobody vouches for it, and contradicts what was kept.
    let mut bare = edge.whitewashed();
    bare.retain(|record| !record.contains("\"kind\":\"witness-confirmed\""));
    for (index, record) in bare.iter_mut().enumerate() {
        let begin = record.find("\"seq\":").unwrap();
        let end = begin + record[begin..].find(',').unwrap();
        record.replace_range(begin..end, &format!("\"seq\":{index}"));
    }
    forge(&edge.forged, &edge.signer, &bare);
    assert!(of_kind(&edge.forged, "witness-confirmed").is_empty());
    let said = edge.verify(&[]).must_succeed();
    assert!(said.stdout.contains("nobody so far"), "{said}");
    edge.verify(&["--checkpoint", &kept]).must_end_with(1);
}
