//! A small PKI for tests, and the folder that `agentca enforcer add` would write from it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentca_auditlog::checkpoint::Checkpoint;
use agentca_auditlog::log::{Log, LogSigner};
use agentca_auditlog::merkle::empty_root;
use agentca_auditlog::note::{NoteSigner, SignatureType};
use agentca_auditlog::record::{Opening, log_opened};
use agentca_auditlog::store::FileStore;
use agentca_identity::certificate::{Certificate, CrlUri};
use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::name::TrustDomain;
use agentca_identity::pem::encode_certs;
use agentca_identity::profile::{Issuer, Pen, Template, Validity, create_root, lifetime};
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;

/// The shard that certificates name.
pub(crate) const SHARD: &str = "http://127.0.0.1:7080/crl/0.crl";

pub(crate) struct Pki {
    pub(crate) root: Issuer,
    pub(crate) issuing: Issuer,
    pub(crate) signer: Issuer,
    pub(crate) now: Timestamp,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let (now, pen) = (Timestamp::now(), Pen::DOCUMENTATION);
        let root = create_root(domain(), pen, &key(KeyKind::P256), now).unwrap();
        let below = |template: fn(_, &_, _) -> Template| {
            let key = key(KeyKind::P256);
            let validity = Validity::starting(now, lifetime::ISSUING_CA);
            let template = template(domain(), key.public_key(), validity);
            let certificate = root.prepare(template).unwrap().sign().unwrap();
            Issuer::new(certificate, key, pen).unwrap()
        };
        let (issuing, signer) = (below(Template::issuing_ca), below(Template::signer_ca));
        Self {
            root,
            issuing,
            signer,
            now,
        }
    }

    /// Writes everything into `dir`; certificates end `lifetime` after now.
    pub(crate) fn write(&self, dir: &Path, lifetime: Duration) {
        let origin: LogOrigin = "example.org/prod/enforcer/edge-1".parse().unwrap();
        let put = |name: &str, text: String| std::fs::write(dir.join(name), text).unwrap();
        put("ca.crt", encode_certs([self.root.certificate().der()]));
        self.write_tls(dir, lifetime);
        self.write_signer(dir, "log", &origin, lifetime);
        self.write_signer(dir, "response", &origin.response().unwrap(), lifetime);
        let log = self.note_signer("example.org/ca", SignatureType::Ed25519);
        let witness = self.note_signer("example.org/ca/witness", SignatureType::Cosignature);
        let empty = Checkpoint {
            origin: "example.org/ca".into(),
            size: 0,
            root: empty_root(),
        };
        put(
            "feed.toml",
            format!(
                "authority_origin = \"example.org/ca\"\nauthority_vkey = \"{}\"\n\
                 checkpoint = \"\"\"\n{}\"\"\"\nlog_origin = \"{origin}\"\nwitness_vkey = \"{}\"\n\
                 enforcer = \"spiffe://example.org/prod/enforcer/edge-1\"\n",
                log.0.verifier(),
                empty.sign(&log.0).unwrap(),
                witness.0.verifier(),
            ),
        );
        let intermediate = self.signer.certificate().der();
        let chains = [log.1.der(), intermediate, witness.1.der(), intermediate];
        put("signers.pem", encode_certs(chains));
    }

    pub(crate) fn write_tls(&self, dir: &Path, lifetime: Duration) {
        let key = key(KeyKind::P256);
        let template = Template::enforcer(
            "spiffe://example.org/prod/enforcer/edge-1".parse().unwrap(),
            vec!["localhost".parse().unwrap()],
            vec!["127.0.0.1".parse().unwrap()],
            key.public_key(),
            self.validity(lifetime),
            shard(),
        );
        let leaf = self.issuing.prepare(template).unwrap().sign().unwrap();
        write_pair(dir, "tls", &key, &leaf, self.issuing.certificate());
    }

    pub(crate) fn write_signer(
        &self,
        dir: &Path,
        name: &str,
        origin: &LogOrigin,
        lifetime: Duration,
    ) {
        self.renew_signer(dir, name, origin, &key(KeyKind::Ed25519), lifetime);
    }

    pub(crate) fn renew_signer(
        &self,
        dir: &Path,
        name: &str,
        origin: &LogOrigin,
        key: &PrivateKey,
        lifetime: Duration,
    ) {
        let leaf = self.log_signer(origin, key, lifetime);
        write_pair(dir, name, key, &leaf, self.signer.certificate());
    }

    /// Another issuing CA, from `begin` on.
    pub(crate) fn another_issuing(&self, begin: Timestamp, life: Duration) -> Issuer {
        let key = key(KeyKind::P256);
        let validity = Validity::starting(begin, life);
        let template = Template::issuing_ca(domain(), key.public_key(), validity);
        let certificate = self.root.prepare(template).unwrap().sign().unwrap();
        Issuer::new(certificate, key, Pen::DOCUMENTATION).unwrap()
    }

    fn note_signer(&self, origin: &str, kind: SignatureType) -> (NoteSigner, Certificate) {
        let key = key(KeyKind::Ed25519);
        let leaf = self.log_signer(&origin.parse().unwrap(), &key, lifetime::SIGNER);
        (NoteSigner::new(origin, kind, key).unwrap(), leaf)
    }

    pub(crate) fn log_signer(
        &self,
        origin: &LogOrigin,
        key: &PrivateKey,
        life: Duration,
    ) -> Certificate {
        let template = Template::log_signer(origin.clone(), key.public_key(), self.validity(life));
        self.signer.prepare(template).unwrap().sign().unwrap()
    }

    fn validity(&self, lifetime: Duration) -> Validity {
        Validity::starting(self.now, lifetime)
    }
}

/// A new log, open; it has to end before its directory does.
pub(crate) fn log(opening: &Opening) -> (tempfile::TempDir, Arc<Log>) {
    let dir = tempfile::tempdir().unwrap();
    let signer = LogSigner {
        origin: "example.org/prod/enforcer/edge-1".parse().unwrap(),
        key: key(KeyKind::Ed25519),
        chain: Vec::new(),
    };
    let at = dir.path().join("log");
    let store = Arc::new(FileStore::create(&at).unwrap());
    Log::create(store, &signer, |head, out| log_opened(head, out, opening)).unwrap();
    let store = Arc::new(FileStore::open(&at).unwrap());
    (dir, Log::open(store, &signer).unwrap().0)
}

/// An upstream and a route, for the end of a configuration.
pub(crate) const ROUTES: &str = r#"
[[upstream]]
name = "payments"
url = "http://127.0.0.1:9000"
[[route]]
upstream = "payments"
methods = ["GET"]
path = "/v1/accounts/{id}"
scope = "payments:read"
min_trust = "L2"
risk = "read"
"#;

pub(crate) fn shard() -> CrlUri {
    SHARD.parse().unwrap()
}

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn key(kind: KeyKind) -> PrivateKey {
    PrivateKey::generate(kind).unwrap()
}

fn write_pair(dir: &Path, name: &str, key: &PrivateKey, leaf: &Certificate, above: &Certificate) {
    let crt = encode_certs([leaf.der(), above.der()]);
    std::fs::write(dir.join(format!("{name}.crt")), crt).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.to_pem().as_bytes()).unwrap();
}
