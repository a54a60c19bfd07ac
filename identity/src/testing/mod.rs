//! A small PKI for tests, a forger of certificates, and openssl.

mod forge;
mod openssl;

pub(crate) use forge::Forge;
pub(crate) use openssl::{Files, run};

use std::time::Duration;

use crate::certificate::{AgentIdentity, Certificate, CrlUri};
use crate::chain::TrustAnchor;
use crate::crypto::{KeyKind, PrivateKey};
use crate::grant::Grant;
use crate::profile::{Issuer, Pen, Template, Validity, create_root, lifetime};
use crate::roles::Roles;
use crate::scope::ScopeSet;
use crate::spiffe::{LogOrigin, SpiffeId};
use crate::time::Timestamp;
use crate::trust::TrustLevel;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) struct Pki {
    pub(crate) root: Issuer,
    pub(crate) issuing: Issuer,
    pub(crate) signer: Issuer,
    pub(crate) now: Timestamp,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self::with(KeyKind::P256, Pen::DOCUMENTATION)
    }

    pub(crate) fn with(kind: KeyKind, pen: Pen) -> Self {
        let now = Timestamp::from_secs(1_800_000_000);
        let domain = "example.org".parse().unwrap();
        let root = create_root(domain, pen, &key(kind), now).unwrap();
        let below = |template: fn(_, &_, _) -> Template| {
            let key = key(kind);
            let validity = Validity::starting(now, lifetime::ISSUING_CA);
            let template = template("example.org".parse().unwrap(), key.public_key(), validity);
            let certificate = root.prepare(template).unwrap().sign().unwrap();
            Issuer::new(certificate, key, pen).unwrap()
        };
        let issuing = below(Template::issuing_ca);
        let signer = below(Template::signer_ca);
        Self {
            root,
            issuing,
            signer,
            now,
        }
    }

    pub(crate) fn anchor(&self) -> TrustAnchor {
        TrustAnchor::from_root_der(self.root.certificate().der()).unwrap()
    }

    pub(crate) fn agent_template(&self, key: &PrivateKey, validity: Validity) -> Template {
        Template::agent(agent(), &grant(), key.public_key(), validity, crl_uri())
    }

    pub(crate) fn agent(&self, key: &PrivateKey) -> Certificate {
        self.issue(self.agent_template(key, Validity::starting(self.now, HOUR)))
    }

    pub(crate) fn enforcer(&self, key: &PrivateKey) -> Certificate {
        self.issue(Template::enforcer(
            "spiffe://example.org/prod/enforcer/edge-1".parse().unwrap(),
            vec![
                "localhost".parse().unwrap(),
                "edge-1.example.org".parse().unwrap(),
            ],
            vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
            key.public_key(),
            Validity::starting(self.now, lifetime::ENFORCER),
            crl_uri(),
        ))
    }

    pub(crate) fn person(&self, key: &PrivateKey) -> Certificate {
        self.issue(Template::person(
            "spiffe://example.org/person/alice".parse().unwrap(),
            Roles::all(),
            key.public_key(),
            Validity::starting(self.now, lifetime::PERSON),
            crl_uri(),
        ))
    }

    pub(crate) fn authority(&self, key: &PrivateKey) -> Certificate {
        self.issue(Template::authority(
            "example.org".parse().unwrap(),
            vec!["localhost".parse().unwrap()],
            vec!["127.0.0.1".parse().unwrap()],
            key.public_key(),
            Validity::starting(self.now, lifetime::AUTHORITY),
            crl_uri(),
        ))
    }

    pub(crate) fn log_signer(&self, key: &PrivateKey) -> Certificate {
        let validity = Validity::starting(self.now, lifetime::SIGNER);
        let template = Template::log_signer(origin(), key.public_key(), validity);
        self.signer.prepare(template).unwrap().sign().unwrap()
    }

    pub(crate) fn issue(&self, template: Template) -> Certificate {
        self.issuing.prepare(template).unwrap().sign().unwrap()
    }
}

pub(crate) fn key(kind: KeyKind) -> PrivateKey {
    PrivateKey::generate(kind).unwrap()
}

pub(crate) fn origin() -> LogOrigin {
    "example.org/prod/enforcer/edge-1".parse().unwrap()
}

pub(crate) fn crl_uri() -> CrlUri {
    "http://127.0.0.1:7080/crl/0.crl".parse().unwrap()
}

pub(crate) fn scopes(texts: &[&str]) -> ScopeSet {
    ScopeSet::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
}

pub(crate) fn agent_id(name: &str) -> SpiffeId {
    format!("spiffe://example.org/prod/agent/{name}")
        .parse()
        .unwrap()
}

pub(crate) fn agent() -> AgentIdentity {
    AgentIdentity {
        uri: agent_id("support-01"),
        scopes: scopes(&["mcp:github:get_*", "payments:read"]),
        trust: TrustLevel::L2,
        owner: "alice@example.org".parse().unwrap(),
        grant: 200,
        lineage: vec![agent_id("root"), agent_id("parent")],
    }
}

pub(crate) fn grant() -> Grant {
    Grant {
        scopes: scopes(&["mcp:*", "payments:*"]),
        max_trust: TrustLevel::L3,
        max_lifetime: HOUR,
        groups: Vec::new(),
        approved_by: "spiffe://example.org/person/alice".parse().unwrap(),
    }
}
