//! The name of an agent or an enforcer within the trust domain, and who holds a certificate.

use std::fmt;

use agentca_identity::name::{Environment, Name, TrustDomain};
use agentca_identity::spiffe::{LogOrigin, SpiffeId};
use serde::{Deserialize, Serialize};

/// `<environment>/<name>`: an agent, or an enforcer, of this trust domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Handle {
    /// Where.
    pub environment: Environment,
    /// Its name there.
    pub name: Name,
}

impl Handle {
    /// Of an agent's or an enforcer's id.
    pub fn of(id: &SpiffeId) -> Option<Self> {
        match id {
            SpiffeId::Agent {
                environment, name, ..
            }
            | SpiffeId::Enforcer {
                environment, name, ..
            } => Some(Self {
                environment: environment.clone(),
                name: name.clone(),
            }),
            SpiffeId::Person { .. } | SpiffeId::Authority { .. } | SpiffeId::LogSigner { .. } => {
                None
            }
        }
    }

    /// The agent of this name.
    pub fn agent(&self, trust_domain: &TrustDomain) -> SpiffeId {
        SpiffeId::Agent {
            trust_domain: trust_domain.clone(),
            environment: self.environment.clone(),
            name: self.name.clone(),
        }
    }

    /// The enforcer of this name.
    pub fn enforcer(&self, trust_domain: &TrustDomain) -> SpiffeId {
        SpiffeId::Enforcer {
            trust_domain: trust_domain.clone(),
            environment: self.environment.clone(),
            name: self.name.clone(),
        }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.environment, self.name)
    }
}

/// Who holds a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    /// An agent.
    Agent(Handle),
    /// A person.
    Person(Name),
    /// An enforcer, its TLS certificate.
    Enforcer(Handle),
    /// An enforcer's log, or the signer of its responses.
    Signer(Handle, LogOrigin),
    /// The authority: TLS, its own log, its witness.
    Authority(String),
}

impl Holder {
    /// Of what a certificate names.
    pub fn of(id: &SpiffeId) -> Self {
        match id {
            SpiffeId::Agent {
                environment, name, ..
            } => Self::Agent(Handle {
                environment: environment.clone(),
                name: name.clone(),
            }),
            SpiffeId::Enforcer {
                environment, name, ..
            } => Self::Enforcer(Handle {
                environment: environment.clone(),
                name: name.clone(),
            }),
            SpiffeId::Person { name, .. } => Self::Person(name.clone()),
            SpiffeId::Authority { .. } => Self::Authority(id.to_string()),
            SpiffeId::LogSigner { origin } => match Handle::of(&origin.holder()) {
                Some(enforcer) => Self::Signer(enforcer, origin.clone()),
                None => Self::Authority(id.to_string()),
            },
        }
    }

    /// The URI in its certificate.
    pub fn uri(&self, trust_domain: &TrustDomain) -> String {
        match self {
            Self::Agent(agent) => agent.agent(trust_domain).to_string(),
            Self::Enforcer(enforcer) => enforcer.enforcer(trust_domain).to_string(),
            Self::Person(name) => {
                let (trust_domain, name) = (trust_domain.clone(), name.clone());
                SpiffeId::Person { trust_domain, name }.to_string()
            }
            Self::Signer(_, origin) => SpiffeId::LogSigner {
                origin: origin.clone(),
            }
            .to_string(),
            Self::Authority(uri) => uri.clone(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(agent) => write!(f, "agent {agent}"),
            Self::Person(person) => write!(f, "person {person}"),
            Self::Enforcer(enforcer) => write!(f, "enforcer {enforcer}"),
            Self::Signer(_, origin) => write!(f, "signer {origin}"),
            Self::Authority(uri) => f.write_str(uri),
        }
    }
}
