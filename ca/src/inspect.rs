//! Puts our certificates into words: who, what for, how long, and every extension of ours.

use agentca_identity::certificate::{Certificate, Subject};
use agentca_identity::crypto::KeyKind;
use agentca_identity::time::Timestamp;
use serde::Serialize;

/// A certificate in words.
#[derive(Debug, Serialize)]
pub(crate) struct Description {
    pub(crate) file: String,
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trust_domain: Option<String>,
    pub(crate) serial: String,
    pub(crate) not_before: String,
    pub(crate) not_after: String,
    pub(crate) validity: &'static str,
    pub(crate) key: &'static str,
    /// SHA-256 of the key's SubjectPublicKeyInfo, hexadecimal.
    pub(crate) key_id: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub(crate) fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) crl: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) dns: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ip: Vec<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<AgentDescription>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) roles: Vec<String>,
}

/// What only an agent's certificate says.
#[derive(Debug, Serialize)]
pub(crate) struct AgentDescription {
    pub(crate) scopes: Vec<String>,
    pub(crate) trust: String,
    pub(crate) owner: String,
    /// The index of the grant's record in the authority's log.
    pub(crate) grant: u64,
    /// From the root to the parent; empty when nobody delegated.
    pub(crate) lineage: Vec<String>,
}

impl Description {
    pub(crate) fn of(file: &str, certificate: &Certificate, now: Timestamp) -> Self {
        let mut description = Self {
            file: file.to_owned(),
            kind: "",
            uri: None,
            trust_domain: None,
            serial: certificate.serial().to_string(),
            not_before: certificate.not_before().rfc3339(),
            not_after: certificate.not_after().rfc3339(),
            validity: match () {
                () if now < certificate.not_before() => "not yet valid",
                () if now > certificate.not_after() => "expired",
                () => "in its time",
            },
            key: match certificate.public_key().kind() {
                KeyKind::P256 => "P-256",
                KeyKind::Ed25519 => "Ed25519",
            },
            key_id: hex(&certificate.public_key().key_id()),
            fingerprint: hex(&certificate.fingerprint()),
            crl: certificate.crl_uri().map(ToString::to_string),
            dns: Vec::new(),
            ip: Vec::new(),
            agent: None,
            roles: Vec::new(),
        };
        description.name(certificate.subject());
        description
    }

    fn name(&mut self, subject: &Subject) {
        match subject {
            Subject::Root { trust_domain } => {
                self.kind = "root";
                self.trust_domain = Some(trust_domain.to_string());
            }
            Subject::IssuingCa { trust_domain } => {
                self.kind = "issuing authority";
                self.trust_domain = Some(trust_domain.to_string());
            }
            Subject::SignerCa { trust_domain } => {
                self.kind = "authority of log and response signers";
                self.trust_domain = Some(trust_domain.to_string());
            }
            Subject::Agent(agent) => {
                self.kind = "agent";
                self.uri = Some(agent.uri.to_string());
                self.agent = Some(AgentDescription {
                    scopes: agent.scopes.iter().map(ToString::to_string).collect(),
                    trust: agent.trust.to_string(),
                    owner: agent.owner.to_string(),
                    grant: agent.grant,
                    lineage: agent.lineage.iter().map(ToString::to_string).collect(),
                });
            }
            Subject::Enforcer(enforcer) => {
                self.kind = "enforcer";
                self.uri = Some(enforcer.uri.to_string());
                self.dns = enforcer.dns.iter().map(ToString::to_string).collect();
                self.ip = enforcer.ip.iter().map(ToString::to_string).collect();
            }
            Subject::Person(person) => {
                self.kind = "person";
                self.uri = Some(person.uri.to_string());
                self.roles = person.roles.iter().map(|r| r.to_string()).collect();
            }
            Subject::Authority(authority) => {
                self.kind = "the authority itself";
                self.uri = Some(authority.uri.to_string());
                self.dns = authority.dns.iter().map(ToString::to_string).collect();
                self.ip = authority.ip.iter().map(ToString::to_string).collect();
            }
            Subject::LogSigner { origin } => {
                self.kind = if origin.is_response() {
                    "response signer"
                } else {
                    "log signer"
                };
                self.uri = Some(format!("spiffe://{origin}"));
            }
        }
    }

    /// Names and values, in the order in which people ask.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![("file", self.file.clone()), ("kind", self.kind.to_owned())];
        let mut add = |name, value: Option<String>| {
            pairs.extend(value.filter(|v| !v.is_empty()).map(|v| (name, v)));
        };
        add("id", self.uri.clone());
        add("trust domain", self.trust_domain.clone());
        if let Some(agent) = &self.agent {
            add("scopes", Some(agent.scopes.join(" ")));
            add("trust level", Some(agent.trust.clone()));
            add("owner", Some(agent.owner.clone()));
            add(
                "granted by",
                Some(format!("record {} of the authority's log", agent.grant)),
            );
            add("delegated by", Some(agent.lineage.join(", then ")));
        }
        add("roles", Some(self.roles.join(" ")));
        add("DNS names", Some(self.dns.join(" ")));
        add("addresses", Some(self.ip.join(" ")));
        add(
            "valid",
            Some(format!(
                "{} to {}: {}",
                self.not_before, self.not_after, self.validity
            )),
        );
        add("serial", Some(self.serial.clone()));
        add(
            "key",
            Some(format!("{}, SHA-256 {}", self.key, self.key_id)),
        );
        add("SHA-256", Some(self.fingerprint.clone()));
        add("CRL", self.crl.clone());
        pairs
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
