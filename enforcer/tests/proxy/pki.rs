//! A PKI of one trust domain, made through the library that makes real ones.

use std::time::Duration;

use agentca_enforcer::live::ServingIdentity;
use agentca_identity::certificate::{AgentIdentity, Certificate};
use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::grant::Grant;
use agentca_identity::profile::{Issuer, Pen, Template, Validity, create_root, lifetime};
use agentca_identity::scope::ScopeSet;
use agentca_identity::spiffe::{LogOrigin, SpiffeId};
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

impl Credential {
    pub(crate) fn id(&self) -> SpiffeId {
        self.certificate.id().unwrap()
    }
}

/// What an agent's certificate shall say.
pub(crate) struct Wish<'a> {
    pub(crate) name: &'a str,
    pub(crate) environment: &'a str,
    pub(crate) scopes: &'a [&'a str],
    pub(crate) trust: TrustLevel,
    /// Seconds from now.
    pub(crate) ends_in: u64,
}

impl Default for Wish<'_> {
    fn default() -> Self {
        Self {
            name: "support-01",
            environment: "prod",
            scopes: &["payments:read", "payments:write"],
            trust: TrustLevel::L2,
            ends_in: 3600,
        }
    }
}

impl Pki {
    pub(crate) fn new() -> Self {
        let now = Timestamp::now();
        let pen = Pen::DOCUMENTATION;
        let root = create_root(
            "example.org".parse().unwrap(),
            pen,
            &key(KeyKind::P256),
            now,
        );
        let root = root.unwrap();
        let below = |template: fn(_, &_, _) -> Template| {
            let key = key(KeyKind::P256);
            let validity = Validity::starting(now, lifetime::ISSUING_CA);
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

    pub(crate) fn agent(&self, wish: &Wish<'_>) -> Credential {
        let scopes = ScopeSet::new(wish.scopes.iter().map(|text| text.parse().unwrap())).unwrap();
        let uri = format!(
            "spiffe://example.org/{}/agent/{}",
            wish.environment, wish.name
        );
        let agent = AgentIdentity {
            uri: uri.parse().unwrap(),
            scopes: scopes.clone(),
            trust: wish.trust,
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
        let key = key(KeyKind::P256);
        let validity = Validity::starting(Timestamp::now(), Duration::from_secs(wish.ends_in));
        let crl = "http://127.0.0.1:7080/crl/0.crl".parse().unwrap();
        let template = Template::agent(agent, &grant, key.public_key(), validity, crl);
        self.credential(template, key)
    }

    /// What an enforcer serves with, and its log's key.
    pub(crate) fn enforcer(&self) -> (ServingIdentity, PrivateKey) {
        let key = key(KeyKind::P256);
        let tls = self.credential(
            Template::enforcer(
                "spiffe://example.org/prod/enforcer/edge-1".parse().unwrap(),
                vec!["localhost".parse().unwrap()],
                vec!["127.0.0.1".parse().unwrap()],
                key.public_key(),
                Validity::starting(Timestamp::now(), lifetime::ENFORCER),
                "http://127.0.0.1:7080/crl/0.crl".parse().unwrap(),
            ),
            key,
        );
        let (log, response) = (
            self.signer(&origin()),
            self.signer(&origin().response().unwrap()),
        );
        let serving = ServingIdentity {
            anchor: self.anchor(),
            chain: tls.chain,
            key: tls.key,
            response_chain: response.chain,
            response_key: response.key,
            log_origin: origin(),
            log_chain: log.chain,
        };
        (serving, log.key)
    }

    fn signer(&self, origin: &LogOrigin) -> Credential {
        let key = key(KeyKind::Ed25519);
        let validity = Validity::starting(Timestamp::now(), lifetime::SIGNER);
        let template = Template::log_signer(origin.clone(), key.public_key(), validity);
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
        let certificate = self.issuing.prepare(template).unwrap().sign().unwrap();
        let chain = vec![
            certificate.der().to_vec(),
            self.issuing.certificate().der().to_vec(),
        ];
        Credential {
            certificate,
            chain,
            key,
        }
    }
}

pub(crate) fn origin() -> LogOrigin {
    "example.org/prod/enforcer/edge-1".parse().unwrap()
}

fn key(kind: KeyKind) -> PrivateKey {
    PrivateKey::generate(kind).unwrap()
}
