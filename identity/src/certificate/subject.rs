//! What a certificate says about its subject.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::name::{DnsName, Owner, TrustDomain};
use crate::roles::Roles;
use crate::scope::ScopeSet;
use crate::spiffe::{LogOrigin, SpiffeId};
use crate::text::serde_as_text;
use crate::trust::TrustLevel;

/// Who a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The root: a trust anchor, and nothing else.
    Root {
        /// The tenant.
        trust_domain: TrustDomain,
    },
    /// The CA below the root that issues every TLS certificate.
    IssuingCa {
        /// The tenant.
        trust_domain: TrustDomain,
    },
    /// The CA below the root that certifies log and response signers.
    SignerCa {
        /// The tenant.
        trust_domain: TrustDomain,
    },
    /// An agent.
    Agent(AgentIdentity),
    /// An enforcer, as TLS server for agents and client of the authority.
    Enforcer(EnforcerIdentity),
    /// A person.
    Person(PersonIdentity),
    /// The authority itself.
    Authority(AuthorityIdentity),
    /// A key that signs a log or responses.
    LogSigner {
        /// What it signs for.
        origin: LogOrigin,
    },
}

/// An agent and its rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// Its id, always [`SpiffeId::Agent`].
    pub uri: SpiffeId,
    /// What it may call.
    pub scopes: ScopeSet,
    /// How much is known about it.
    pub trust: TrustLevel,
    /// Who answers for it.
    pub owner: Owner,
    /// The index of its grant's record in the authority's log.
    pub grant: u64,
    /// The agents that delegated to it, from the root of the delegation to its parent; at most
    /// [`AgentIdentity::MAX_LINEAGE`].
    pub lineage: Vec<SpiffeId>,
}

impl AgentIdentity {
    /// Most agents in a lineage.
    pub const MAX_LINEAGE: usize = 32;
}

/// An enforcer and the names under which it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnforcerIdentity {
    /// Its id, always [`SpiffeId::Enforcer`].
    pub uri: SpiffeId,
    /// Its DNS names; at most [`EnforcerIdentity::MAX_HOSTS`].
    pub dns: Vec<DnsName>,
    /// Its IP addresses; at most [`EnforcerIdentity::MAX_HOSTS`].
    pub ip: Vec<IpAddr>,
}

impl EnforcerIdentity {
    /// Most DNS names, and most IP addresses, in one certificate.
    pub const MAX_HOSTS: usize = 64;
}

/// A person and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonIdentity {
    /// Their id, always [`SpiffeId::Person`].
    pub uri: SpiffeId,
    /// What they may do.
    pub roles: Roles,
}

/// The authority and the names under which it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityIdentity {
    /// Its id, always [`SpiffeId::Authority`].
    pub uri: SpiffeId,
    /// Its DNS names; at most [`EnforcerIdentity::MAX_HOSTS`].
    pub dns: Vec<DnsName>,
    /// Its IP addresses; at most [`EnforcerIdentity::MAX_HOSTS`].
    pub ip: Vec<IpAddr>,
}

/// The three CAs of a PKI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CaKind {
    Root,
    Issuing,
    Signer,
}

impl CaKind {
    pub(crate) const ALL: [Self; 3] = [Self::Root, Self::Issuing, Self::Signer];

    pub(crate) const fn common_name(self) -> &'static str {
        match self {
            Self::Root => "agentca root",
            Self::Issuing => "agentca issuing CA",
            Self::Signer => "agentca signer CA",
        }
    }
}

impl Subject {
    /// The tenant.
    pub fn trust_domain(&self) -> &TrustDomain {
        match self {
            Self::Root { trust_domain }
            | Self::IssuingCa { trust_domain }
            | Self::SignerCa { trust_domain } => trust_domain,
            Self::Agent(agent) => agent.uri.trust_domain(),
            Self::Enforcer(enforcer) => enforcer.uri.trust_domain(),
            Self::Person(person) => person.uri.trust_domain(),
            Self::Authority(authority) => authority.uri.trust_domain(),
            Self::LogSigner { origin } => origin.trust_domain(),
        }
    }

    /// The SPIFFE id of a leaf; none for CAs.
    pub fn id(&self) -> Option<SpiffeId> {
        match self {
            Self::Root { .. } | Self::IssuingCa { .. } | Self::SignerCa { .. } => None,
            Self::Agent(agent) => Some(agent.uri.clone()),
            Self::Enforcer(enforcer) => Some(enforcer.uri.clone()),
            Self::Person(person) => Some(person.uri.clone()),
            Self::Authority(authority) => Some(authority.uri.clone()),
            Self::LogSigner { origin } => Some(SpiffeId::LogSigner {
                origin: origin.clone(),
            }),
        }
    }

    /// Which CA this is, if it is one.
    pub(crate) fn ca_kind(&self) -> Option<CaKind> {
        match self {
            Self::Root { .. } => Some(CaKind::Root),
            Self::IssuingCa { .. } => Some(CaKind::Issuing),
            Self::SignerCa { .. } => Some(CaKind::Signer),
            _ => None,
        }
    }

    /// Which CA certifies this.
    pub(crate) fn issuer_kind(&self) -> CaKind {
        match self {
            Self::Root { .. } | Self::IssuingCa { .. } | Self::SignerCa { .. } => CaKind::Root,
            Self::Agent(_) | Self::Enforcer(_) | Self::Person(_) | Self::Authority(_) => {
                CaKind::Issuing
            }
            Self::LogSigner { .. } => CaKind::Signer,
        }
    }

    /// Whether its certificate names the PEN in an extension or a key purpose.
    pub(crate) fn names_pen(&self) -> bool {
        match self {
            Self::Root { .. } | Self::IssuingCa { .. } | Self::Enforcer(_) | Self::Authority(_) => {
                false
            }
            Self::SignerCa { .. } | Self::Agent(_) | Self::Person(_) | Self::LogSigner { .. } => {
                true
            }
        }
    }

    /// Whether its certificate says where its CRL is.
    pub(crate) fn has_crl_uri(&self) -> bool {
        self.issuer_kind() == CaKind::Issuing
    }

    /// The DNS names and IP addresses beside the URI.
    pub fn hosts(&self) -> (&[DnsName], &[IpAddr]) {
        match self {
            Self::Enforcer(enforcer) => (&enforcer.dns, &enforcer.ip),
            Self::Authority(authority) => (&authority.dns, &authority.ip),
            _ => (&[], &[]),
        }
    }

    /// The common name, for people who look at it.
    pub(crate) fn common_name(&self) -> &str {
        match self {
            Self::Root { .. } => CaKind::Root.common_name(),
            Self::IssuingCa { .. } => CaKind::Issuing.common_name(),
            Self::SignerCa { .. } => CaKind::Signer.common_name(),
            Self::Agent(AgentIdentity { uri, .. })
            | Self::Enforcer(EnforcerIdentity { uri, .. })
            | Self::Person(PersonIdentity { uri, .. }) => {
                uri.name().map_or("agentca", |name| name.as_str())
            }
            Self::Authority(_) => "agentca authority",
            Self::LogSigner { origin } if origin.is_response() => "agentca response signer",
            Self::LogSigner { .. } => "agentca log signer",
        }
    }
}

/// Where a CRL shard is published: an `http` or `https` URI of at most 1024 visible ASCII
/// characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CrlUri(Arc<str>);

impl CrlUri {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for CrlUri {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CrlUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CrlUri {
    type Err = CrlUriError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"));
        let names_host = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
        if names_host && text.len() <= 1024 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(CrlUriError)
        }
    }
}

serde_as_text!(CrlUri);

/// A text is not the URI of a CRL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not the URI of a CRL, use http://… or https://… of at most 1024 ASCII characters")]
pub struct CrlUriError;
