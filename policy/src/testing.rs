//! A small PKI and small tools for tests.

use std::time::Duration;

use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::profile::{Issuer, Pen, Template, Validity, create_root, lifetime};
use agentca_identity::roles::{PersonRole, Roles};
use agentca_identity::time::Timestamp;

use crate::approval::{Action, Approval, Subject};
use crate::definition::ToolDefinition;
use crate::pins::{Approved, Pin, SCAN};

pub(crate) const ALICE: &str = "spiffe://example.org/person/alice";

pub(crate) struct Pki {
    root: Issuer,
    issuing: Issuer,
    pub(crate) now: Timestamp,
}

/// A person's key and chain.
pub(crate) struct Person {
    pub(crate) key: PrivateKey,
    pub(crate) chain: Vec<Vec<u8>>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let (now, pen) = (Timestamp::from_secs(1_800_000_000), Pen::DOCUMENTATION);
        let root = create_root("example.org".parse().unwrap(), pen, &key(), now).unwrap();
        let issuing_key = key();
        let validity = Validity::starting(now, lifetime::ISSUING_CA);
        let domain = "example.org".parse().unwrap();
        let template = Template::issuing_ca(domain, issuing_key.public_key(), validity);
        let issuing = root.prepare(template).unwrap().sign().unwrap();
        Self {
            issuing: Issuer::new(issuing, issuing_key, pen).unwrap(),
            root,
            now,
        }
    }

    pub(crate) fn anchor(&self) -> TrustAnchor {
        TrustAnchor::from_root_der(self.root.certificate().der()).unwrap()
    }

    pub(crate) fn person(&self, uri: &str, roles: &[PersonRole]) -> Person {
        let key = key();
        let template = Template::person(
            uri.parse().unwrap(),
            roles.iter().copied().collect::<Roles>(),
            key.public_key(),
            Validity::starting(self.now, Duration::from_secs(86_400)),
            "http://127.0.0.1:7080/crl/0.crl".parse().unwrap(),
        );
        let leaf = self.issuing.prepare(template).unwrap().sign().unwrap();
        let chain = [leaf.der(), self.issuing.certificate().der()];
        Person {
            key,
            chain: chain.map(<[u8]>::to_vec).to_vec(),
        }
    }
}

pub(crate) fn key() -> PrivateKey {
    PrivateKey::generate(KeyKind::P256).unwrap()
}

/// A tool with a name and a description.
pub(crate) fn definition(name: &str, description: &str) -> ToolDefinition {
    let json = format!(
        r#"{{"name":"{name}","description":"{description}","inputSchema":{{"type":"object"}}}}"#
    );
    ToolDefinition::parse(&json).unwrap()
}

pub(crate) fn scanned(upstream: &str, definition: ToolDefinition) -> Pin {
    Pin {
        upstream: upstream.to_owned(),
        definition,
        approved: Approved {
            by: SCAN.to_owned(),
            at: Timestamp::from_secs(1_800_000_000),
            reason: "first scan".to_owned(),
            statement: None,
        },
    }
}

/// What a person signs.
pub(crate) fn approval(
    action: Action,
    upstream: &str,
    definition: &ToolDefinition,
    at: Timestamp,
) -> Approval {
    let subject = Subject {
        upstream,
        tool: definition.name(),
        digest: &definition.digest(),
    };
    Approval::new(action, subject, "looked at it", at)
}

/// The same, signed, as it stands in a file.
pub(crate) fn approved(by: &str, person: &Person, statement: &Approval) -> Approved {
    Approved {
        by: by.to_owned(),
        at: statement.at,
        reason: statement.reason.clone(),
        statement: Some(statement.sign(&person.key, &person.chain).unwrap()),
    }
}
