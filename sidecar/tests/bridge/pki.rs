//! A PKI of one trust domain, made through the library that makes real ones.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use agentca_identity::certificate::{AgentIdentity, Certificate};
use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::{KeyKind, PrivateKey, PublicKey};
use agentca_identity::grant::Grant;
use agentca_identity::pem;
use agentca_identity::profile::{Issuer, Pen, Template, Validity, create_root, lifetime};
use agentca_identity::scope::ScopeSet;
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;
use agentca_identity::trust::TrustLevel;

pub(crate) struct Pki {
    root: Issuer,
    issuing: Issuer,
    signer: Issuer,
}

/// A certificate with its key.
pub(crate) struct Credential {
    pub(crate) certificate: Certificate,
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: PrivateKey,
}

/// Long enough ago for certificates that ended meanwhile.
fn born() -> Timestamp {
    Timestamp::now() - Duration::from_secs(6 * 3600)
}

impl Pki {
    pub(crate) fn new() -> Self {
        let pen = Pen::DOCUMENTATION;
        let domain = || "example.org".parse().unwrap();
        let root = create_root(domain(), pen, &key(KeyKind::P256), born()).unwrap();
        let below = |template: fn(_, &_, _) -> Template| {
            let key = key(KeyKind::P256);
            let validity = Validity::starting(born(), lifetime::ISSUING_CA);
            let template = template("example.org".parse().unwrap(), key.public_key(), validity);
            let certificate = root.prepare(template).unwrap().sign().unwrap();
            Issuer::new(certificate, key, pen).unwrap()
        };
        let (issuing, signer) = (below(Template::issuing_ca), below(Template::signer_ca));
        Self {
            root,
            issuing,
            signer,
        }
    }

    pub(crate) fn anchor(&self) -> TrustAnchor {
        TrustAnchor::from_root_der(self.root.certificate().der()).unwrap()
    }

    /// The chain of an agent for a key, from `age` ago for `life`.
    pub(crate) fn agent_chain(
        &self,
        name: &str,
        key: &PublicKey,
        age: Duration,
        life: Duration,
    ) -> Vec<Vec<u8>> {
        let scopes = ScopeSet::new(["mcp:payments:*".parse().unwrap()]).unwrap();
        let agent = AgentIdentity {
            uri: format!("spiffe://example.org/prod/agent/{name}")
                .parse()
                .unwrap(),
            scopes: scopes.clone(),
            trust: TrustLevel::L2,
            owner: "alice@example.org".parse().unwrap(),
            grant: 7,
            lineage: Vec::new(),
        };
        let grant = Grant {
            scopes,
            max_trust: TrustLevel::L4,
            max_lifetime: Duration::from_secs(86_400),
            groups: Vec::new(),
            approved_by: "spiffe://example.org/person/alice".parse().unwrap(),
        };
        let validity = Validity::starting(Timestamp::now() - age, life);
        let template = Template::agent(agent, &grant, key, validity, crl());
        self.chain(template)
    }

    /// An agent's folder, as `agentca issue` writes it.
    pub(crate) fn write_agent(&self, folder: &Path, name: &str, age: Duration, life: Duration) {
        std::fs::create_dir_all(folder).unwrap();
        let key = key(KeyKind::P256);
        let chain = self.agent_chain(name, key.public_key(), age, life);
        write(folder, "agent.key", key.to_pem().as_bytes(), 0o600);
        write(
            folder,
            "agent.crt",
            pem::encode_certs(&chain).as_bytes(),
            0o644,
        );
        let root = pem::encode_certs([self.root.certificate().der()]);
        write(folder, "ca.crt", root.as_bytes(), 0o644);
    }

    pub(crate) fn enforcer(&self, name: &str, dns: &str) -> Credential {
        let key = key(KeyKind::P256);
        let template = Template::enforcer(
            format!("spiffe://example.org/prod/enforcer/{name}")
                .parse()
                .unwrap(),
            vec![dns.parse().unwrap()],
            vec!["127.0.0.1".parse().unwrap()],
            key.public_key(),
            Validity::starting(Timestamp::now(), lifetime::ENFORCER),
            crl(),
        );
        self.credential(template, key)
    }

    pub(crate) fn authority(&self) -> Credential {
        let key = key(KeyKind::P256);
        let template = Template::authority(
            "example.org".parse().unwrap(),
            vec!["localhost".parse().unwrap()],
            vec!["127.0.0.1".parse().unwrap()],
            key.public_key(),
            Validity::starting(Timestamp::now(), lifetime::AUTHORITY),
            crl(),
        );
        self.credential(template, key)
    }

    /// The response signer beside a log, from `age` ago for `life`.
    pub(crate) fn response_signer(
        &self,
        log: &LogOrigin,
        age: Duration,
        life: Duration,
    ) -> Credential {
        let key = key(KeyKind::Ed25519);
        let validity = Validity::starting(Timestamp::now() - age, life);
        let template = Template::log_signer(log.response().unwrap(), key.public_key(), validity);
        let certificate = self.signer.prepare(template).unwrap().sign().unwrap();
        let chain = vec![
            certificate.der().to_vec(),
            self.signer.certificate().der().to_vec(),
        ];
        Credential {
            certificate,
            chain,
            key,
        }
    }

    fn credential(&self, template: Template, key: PrivateKey) -> Credential {
        let chain = self.chain(template);
        Credential {
            certificate: Certificate::parse(&chain[0]).unwrap(),
            chain,
            key,
        }
    }

    fn chain(&self, template: Template) -> Vec<Vec<u8>> {
        let certificate = self.issuing.prepare(template).unwrap().sign().unwrap();
        vec![
            certificate.der().to_vec(),
            self.issuing.certificate().der().to_vec(),
        ]
    }
}

/// Writes a file of a folder in one step.
pub(crate) fn write(folder: &Path, name: &str, contents: &[u8], mode: u32) {
    use std::io::Write as _;
    let aside = folder.join(format!(".{name}.aside"));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&aside)
        .unwrap();
    file.write_all(contents).unwrap();
    std::fs::rename(aside, folder.join(name)).unwrap();
}

pub(crate) fn origin(name: &str) -> LogOrigin {
    format!("example.org/prod/enforcer/{name}").parse().unwrap()
}

fn crl() -> agentca_identity::certificate::CrlUri {
    "http://127.0.0.1:7080/crl/0.crl".parse().unwrap()
}

fn key(kind: KeyKind) -> PrivateKey {
    PrivateKey::generate(kind).unwrap()
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
