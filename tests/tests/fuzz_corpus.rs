//! The fuzz targets on stable: every file of the fixed corpus, and systematic damage to things
//! that are well-formed.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it must be"
)]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use agentca_identity::certificate::{AgentIdentity, Certificate};
use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::grant::Grant;
use agentca_identity::name::TrustDomain;
use agentca_identity::profile::{Issuer, Pen, Template, Validity, create_root, csr};
use agentca_identity::scope::ScopeSet;
use agentca_identity::time::Timestamp;
use agentca_identity::trust::TrustLevel;
use agentca_tests::fuzz_targets;

/// Runs `target` over its corpus and over damaged versions of it; asserts that there is a corpus.
fn check(name: &str, target: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut files = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let seed = fs::read(file.unwrap().path()).unwrap();
        damaged(&seed, target);
        files += 1;
    }
    assert!(files >= 10, "only {files} files in {}", folder.display());
}

/// The seed itself, cut at every length, and with every byte changed in a few ways.
///
/// Long seeds are sampled, always at the same places.
fn damaged(seed: &[u8], target: fn(&[u8])) {
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
    check("certificate", fuzz_targets::certificate);
}

#[test]
fn csr_corpus() {
    check("csr", fuzz_targets::csr);
}

#[test]
fn batch_corpus() {
    check("batch", fuzz_targets::batch);
}

#[test]
fn checkpoint_corpus() {
    check("checkpoint", fuzz_targets::checkpoint);
}

#[test]
fn path_corpus() {
    check("path", fuzz_targets::path);
}

#[test]
fn enforcer_config_corpus() {
    check("enforcer_config", fuzz_targets::enforcer_config);
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
