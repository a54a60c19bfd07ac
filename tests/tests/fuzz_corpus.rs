//! The fuzz targets on stable: every file of the fixed corpus, and systematic damage to things
//! that are well-formed.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it must be"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentca_auditlog::heartbeat::{Heartbeat, HeartbeatError};
use agentca_auditlog::proof::Proof;
use agentca_auditlog::receipt::AgentAudit;
use agentca_auditlog::record::scan;
use agentca_auditlog::sse::EventReader;
use agentca_auditlog::status::{Snapshot, StatusRecord};
use agentca_enforcer::config::Config;
use agentca_identity::certificate::{AgentIdentity, Certificate};
use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::grant::Grant;
use agentca_identity::name::TrustDomain;
use agentca_identity::profile::crl::{Crl, CrlTemplate, sign_crl};
use agentca_identity::profile::{
    Issuer, Pen, RevocationReason, Template, Validity, create_root, csr,
};
use agentca_identity::scope::ScopeSet;
use agentca_identity::serial::Serial;
use agentca_identity::time::Timestamp;
use agentca_identity::trust::TrustLevel;
use agentca_policy::json::{JsonLimits, check as check_json};
use agentca_policy::{PinsFile, ToolDefinition};
use agentca_tests::fuzz_targets::{self, TARGETS, Target};

/// Runs a target over its corpus and over damaged versions of it; asserts that there is a corpus.
fn check(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let folder = fuzz().join("corpus").join(name);
    let seeds = names(&folder);
    assert!(seeds.len() >= 10, "only {} files for {name}", seeds.len());
    for seed in seeds {
        damaged(&fs::read(folder.join(seed)).unwrap(), *target);
    }
}

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

/// A target without a corpus, without an entry for cargo-fuzz or without a test here would never run.
#[test]
fn every_target_is_fuzzed() {
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names(&fuzz().join("corpus")), targets);
    let entries: Vec<_> = names(&fuzz().join("fuzz_targets"));
    let expected: Vec<_> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(entries, expected);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let here = include_str!("fuzz_corpus.rs");
    for name in targets {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
        let calls = format!("fuzz_targets::{name}(data)");
        let entry = fuzz().join("fuzz_targets").join(format!("{name}.rs"));
        assert!(
            fs::read_to_string(entry).unwrap().contains(&calls),
            "{name}"
        );
        assert!(here.contains(&format!("check(\"{name}\");")), "{name}");
    }
}

/// The seed itself, cut at every length, and with every byte changed in a few ways.
///
/// Long seeds are sampled, always at the same places.
fn damaged(seed: &[u8], target: Target) {
    target(seed);
    let stride = seed.len() / 600 + 1;
    for at in (0..seed.len()).step_by(stride) {
        target(&seed[..at]);
        let mut copy = seed.to_vec();
        for change in [0x01, 0x20, 0x80, 0xff] {
            copy[at] = seed[at] ^ change;
            target(&copy);
        }
        copy[at] = seed[at];
        copy.insert(at, seed[at]);
        target(&copy);
        copy.drain(at..=at + 1);
        target(&copy);
    }
}

#[test]
fn certificate_corpus() {
    check("certificate");
}

#[test]
fn rpc_corpus() {
    check("rpc");
}

#[test]
fn lines_corpus() {
    check("lines");
}

#[test]
fn pages_corpus() {
    check("pages");
}

#[test]
fn reply_corpus() {
    check("reply");
}

#[test]
fn csr_corpus() {
    check("csr");
}

#[test]
fn batch_corpus() {
    check("batch");
}

#[test]
fn catalogue_corpus() {
    check("catalogue");
}

#[test]
fn checkpoint_corpus() {
    check("checkpoint");
}

#[test]
fn path_corpus() {
    check("path");
}

#[test]
fn enforcer_config_corpus() {
    check("enforcer_config");
}

#[test]
fn crl_corpus() {
    check("crl");
}

#[test]
fn heartbeat_corpus() {
    check("heartbeat");
}

#[test]
fn proof_corpus() {
    check("proof");
}

#[test]
fn receipt_corpus() {
    check("receipt");
}

#[test]
fn record_corpus() {
    check("record");
}

#[test]
fn snapshot_corpus() {
    check("snapshot");
}

#[test]
fn json_corpus() {
    check("json");
}

#[test]
fn sse_corpus() {
    check("sse");
}

#[test]
fn status_corpus() {
    check("status");
}

/// The seeds called `good…` do read: damage to what nobody accepts would show nothing.
#[test]
fn good_seeds_are_accepted() {
    let seeds = |name: &str| {
        let folder = fuzz().join("corpus").join(name);
        let good = names(&folder).into_iter();
        let good: Vec<_> = good.filter(|seed| seed.starts_with("good")).collect();
        assert!(!good.is_empty(), "{name}");
        good.into_iter()
            .map(move |seed| (seed.clone(), fs::read(folder.join(seed)).unwrap()))
    };
    for (seed, bytes) in seeds("proof") {
        assert!(Proof::parse(&bytes).is_ok(), "{seed}");
    }
    for (seed, bytes) in seeds("receipt") {
        let text = String::from_utf8(bytes).unwrap();
        assert!(AgentAudit::parse(&text).is_ok(), "{seed}");
    }
    for (seed, bytes) in seeds("record") {
        assert!(scan(&bytes).is_ok(), "{seed}");
    }
    for (seed, bytes) in seeds("snapshot") {
        assert!(Snapshot::read(&bytes).is_ok(), "{seed}");
    }
    for (seed, bytes) in seeds("status") {
        let read = StatusRecord::parse(&bytes);
        assert!(read.is_ok(), "{seed}: {read:?}");
    }
    for (seed, bytes) in seeds("catalogue") {
        let text = String::from_utf8(bytes).unwrap();
        let is_read = match seed.as_str() {
            "good-tool" => ToolDefinition::parse(&text).is_ok(),
            "good-pins" | "good-signed-pins" => PinsFile::parse(&text).is_ok(),
            _ => {
                let whole = format!("{}{text}", fuzz_targets::BEFORE_CATALOGUE);
                Config::parse(&whole, Path::new("")).is_ok()
            }
        };
        assert!(is_read, "{seed}");
    }
    for (seed, bytes) in seeds("json") {
        let limits = JsonLimits {
            depth: 64,
            values: 10_000,
        };
        assert!(check_json(&bytes, limits).is_ok(), "{seed}");
    }
    for (seed, bytes) in seeds("rpc") {
        let read = agentca_enforcer::message_method(&bytes).is_some();
        assert_eq!(read, seed.starts_with("good"), "{seed}");
    }
    for (seed, bytes) in seeds("reply") {
        assert!(fuzz_targets::reply_is_passed_on(&bytes), "{seed}");
    }
    for (seed, bytes) in seeds("pages") {
        assert!(fuzz_targets::pages_are_read(&bytes), "{seed}");
    }
    for (seed, bytes) in seeds("lines") {
        assert!(fuzz_targets::lines_are_taken(&bytes), "{seed}");
    }
    for (seed, bytes) in seeds("sse") {
        let mut reader = EventReader::new(fuzz_targets::LONGEST_EVENT);
        reader.push(&bytes);
        assert!(matches!(reader.next_event(), Ok(Some(_))), "{seed}");
    }
    // Its key is nobody's, but its text is that of a heartbeat.
    for (seed, bytes) in seeds("heartbeat") {
        let read = Heartbeat::open(&bytes, fuzz_targets::AUTHORITY.verifier());
        assert!(
            matches!(read, Err(HeartbeatError::Note(_))),
            "{seed}: {read:?}"
        );
    }
}

/// A signed heartbeat reads; damaged, it reads as nothing.
#[test]
fn damaged_heartbeats() {
    let heartbeat = Heartbeat {
        origin: "example.org/ca".into(),
        time: Timestamp::from_millis(1_763_707_760_123),
        checkpoint_size: 12,
        checkpoint_root: [1; 32],
        environment: "prod".parse().unwrap(),
        status_number: 7,
        status_hash: [2; 32],
    };
    let signer = &fuzz_targets::AUTHORITY;
    let note = heartbeat.sign(signer).unwrap();
    let read = Heartbeat::open(note.as_bytes(), signer.verifier()).unwrap();
    assert_eq!(read, heartbeat);
    damaged(note.as_bytes(), fuzz_targets::heartbeat);
}

/// A signed list reads; damaged, it reads as nothing or as those very entries.
#[test]
fn damaged_crls() {
    let now = Timestamp::now();
    let serials = [7, 9].map(|byte| Serial::from_bytes([byte; 16]).unwrap());
    let template = CrlTemplate {
        number: 12,
        this_update: now,
        next_update: now + Duration::from_secs(60),
        shard_uri: "http://127.0.0.1:7080/crl/0.crl".parse().unwrap(),
        revoked: serials
            .into_iter()
            .map(|serial| (serial, now, RevocationReason::KeyCompromise)),
    };
    let issuer = &fuzz_targets::ISSUER;
    let der = sign_crl(issuer, template).unwrap();
    let crl = Crl::parse_verified(&der, issuer.certificate()).unwrap();
    assert!(serials.iter().all(|serial| crl.revoked(serial).is_some()));
    damaged(&der, fuzz_targets::crl);
}

/// A good request reads; no damage to it reads as anything but a damaged or the same key.
#[test]
fn damaged_requests() {
    for kind in [KeyKind::P256, KeyKind::Ed25519] {
        let key = PrivateKey::generate(kind).unwrap();
        let request = csr::make(&key).unwrap();
        assert_eq!(csr::read(&request).unwrap(), *key.public_key());
        damaged(&request, fuzz_targets::csr);
    }
}

/// Every certificate of a small PKI reads; damaged, it reads as nothing or as those very bytes.
#[test]
fn damaged_certificates() {
    let now = Timestamp::now();
    let trust_domain: TrustDomain = "example.org".parse().unwrap();
    let keys = [(); 3].map(|()| PrivateKey::generate(KeyKind::P256).unwrap());
    let [root_key, issuing_key, agent_key] = &keys;
    let root = create_root(trust_domain.clone(), Pen::default(), root_key, now).unwrap();
    let validity = Validity::starting(now, Duration::from_secs(3600));
    let template = Template::issuing_ca(trust_domain, issuing_key.public_key(), validity);
    let issuing = root.prepare(template).unwrap().sign().unwrap();
    let issuer = Issuer::new(issuing.clone(), issuing_key.clone(), Pen::default()).unwrap();
    let agent = issuer
        .prepare(agent_template(agent_key, validity))
        .unwrap()
        .sign()
        .unwrap();
    for certificate in [root.certificate(), &issuing, &agent] {
        assert_eq!(Certificate::parse(certificate.der()).unwrap(), *certificate);
        damaged(certificate.der(), fuzz_targets::certificate);
    }
}

fn agent_template(key: &PrivateKey, validity: Validity) -> Template {
    let identity = AgentIdentity {
        uri: "spiffe://example.org/prod/agent/support-01"
            .parse()
            .unwrap(),
        scopes: ScopeSet::new(["payments:read".parse().unwrap()]).unwrap(),
        trust: TrustLevel::L2,
        owner: "alice@example.org".parse().unwrap(),
        grant: 3,
        lineage: Vec::new(),
    };
    let grant = Grant {
        scopes: identity.scopes.clone(),
        max_trust: TrustLevel::L2,
        max_lifetime: Duration::from_secs(3600),
        groups: Vec::new(),
        approved_by: "spiffe://example.org/person/alice".parse().unwrap(),
    };
    let shard = "http://127.0.0.1:7080/crl/0.crl".parse().unwrap();
    Template::agent(identity, &grant, key.public_key(), validity, shard)
}
