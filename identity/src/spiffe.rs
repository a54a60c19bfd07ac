//! SPIFFE ids, the one name by which a peer is judged, and log origins.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::name::{Environment, Name, NameError, TrustDomain, is_plain};
use crate::text::serde_as_text;

/// Who a certificate is for. Written as a URI; the text decides the kind, but for log signers,
/// whose URIs are the origins of logs and mean a signer only below the signer intermediate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpiffeId {
    /// `spiffe://<trust domain>/<environment>/agent/<name>`.
    Agent {
        /// The tenant.
        trust_domain: TrustDomain,
        /// Where it works.
        environment: Environment,
        /// Its name there.
        name: Name,
    },
    /// `spiffe://<trust domain>/<environment>/enforcer/<name>`.
    Enforcer {
        /// The tenant.
        trust_domain: TrustDomain,
        /// Where it enforces.
        environment: Environment,
        /// Its name there.
        name: Name,
    },
    /// `spiffe://<trust domain>/person/<name>`.
    Person {
        /// The tenant.
        trust_domain: TrustDomain,
        /// The person's name.
        name: Name,
    },
    /// `spiffe://<trust domain>/ca`.
    Authority {
        /// The tenant.
        trust_domain: TrustDomain,
    },
    /// `spiffe://<log origin>`. [`FromStr`] never yields it: use [`SpiffeId::parse_signer`].
    LogSigner {
        /// What it signs for.
        origin: LogOrigin,
    },
}

impl SpiffeId {
    /// Reads the URI of a log or response signer.
    pub fn parse_signer(text: &str) -> Result<Self, SpiffeIdError> {
        let origin = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        Ok(Self::LogSigner {
            origin: origin.parse().map_err(|_| SpiffeIdError::Path)?,
        })
    }

    /// The tenant.
    pub fn trust_domain(&self) -> &TrustDomain {
        match self {
            Self::Agent { trust_domain, .. }
            | Self::Enforcer { trust_domain, .. }
            | Self::Person { trust_domain, .. }
            | Self::Authority { trust_domain } => trust_domain,
            Self::LogSigner { origin } => origin.trust_domain(),
        }
    }

    /// The environment of an agent, an enforcer, or an enforcer's signer.
    pub fn environment(&self) -> Option<&Environment> {
        match self {
            Self::Agent { environment, .. } | Self::Enforcer { environment, .. } => {
                Some(environment)
            }
            Self::Person { .. } | Self::Authority { .. } => None,
            Self::LogSigner { origin } => origin.environment(),
        }
    }

    /// The name of an agent, an enforcer or a person.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Agent { name, .. } | Self::Enforcer { name, .. } | Self::Person { name, .. } => {
                Some(name)
            }
            Self::Authority { .. } | Self::LogSigner { .. } => None,
        }
    }

    /// The part its holder plays.
    pub fn role(&self) -> Role {
        match self {
            Self::Agent { .. } => Role::Agent,
            Self::Enforcer { .. } => Role::Enforcer,
            Self::Person { .. } => Role::Person,
            Self::Authority { .. } => Role::Authority,
            Self::LogSigner { .. } => Role::LogSigner,
        }
    }
}

/// The part the holder of a certificate plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Calls through enforcers.
    Agent,
    /// Enforces, and follows the status feed.
    Enforcer,
    /// Administers the authority.
    Person,
    /// The authority itself.
    Authority,
    /// Signs a log or responses; never a TLS peer.
    LogSigner,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Enforcer => "enforcer",
            Self::Person => "person",
            Self::Authority => "authority",
            Self::LogSigner => "log signer",
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        match self {
            Self::Agent {
                trust_domain,
                environment,
                name,
            } => {
                write!(f, "{trust_domain}/{environment}/agent/{name}")
            }
            Self::Enforcer {
                trust_domain,
                environment,
                name,
            } => {
                write!(f, "{trust_domain}/{environment}/enforcer/{name}")
            }
            Self::Person { trust_domain, name } => write!(f, "{trust_domain}/person/{name}"),
            Self::Authority { trust_domain } => write!(f, "{trust_domain}/ca"),
            Self::LogSigner { origin } => write!(f, "{origin}"),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let mut segments = rest.split('/');
        let trust_domain: TrustDomain = segments.next().unwrap_or_default().parse()?;
        let path: Vec<&str> = segments.take(MAX_SEGMENTS).collect();
        match *path.as_slice() {
            ["ca"] => Ok(Self::Authority { trust_domain }),
            ["person", name] => Ok(Self::Person {
                trust_domain,
                name: name.parse()?,
            }),
            [environment, "agent", name] => Ok(Self::Agent {
                trust_domain,
                environment: environment.parse()?,
                name: name.parse()?,
            }),
            [environment, "enforcer", name] => Ok(Self::Enforcer {
                trust_domain,
                environment: environment.parse()?,
                name: name.parse()?,
            }),
            _ => Err(SpiffeIdError::Path),
        }
    }
}

/// Log signers share their text with what they sign for, so only the other kinds can be read back.
impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The name of a log, or of the key that signs the responses beside it.
///
/// - `<trust domain>/ca`, then up to two more names: `…/ca/witness`, `…/ca/2`;
/// - `<trust domain>/<environment>/enforcer/<name>`, then its generation from 2 on;
/// - an enforcer's log origin followed by `/response`: its response signer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogOrigin {
    trust_domain: TrustDomain,
    place: Place,
}

impl LogOrigin {
    /// The authority's log.
    pub fn authority(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            place: Place::Authority { tail: Vec::new() },
        }
    }

    /// The authority as the witness of enforcers' logs.
    pub fn witness(trust_domain: TrustDomain) -> Result<Self, OriginError> {
        format!("{trust_domain}/ca/witness").parse()
    }

    /// An enforcer's log in its first generation.
    pub fn enforcer(trust_domain: TrustDomain, environment: Environment, name: Name) -> Self {
        let place = Place::Enforcer {
            environment,
            name,
            generation: 1,
            signs: Signs::Log,
        };
        Self {
            trust_domain,
            place,
        }
    }

    /// The same enforcer's log in another generation (1 is the first).
    pub fn with_generation(&self, generation: u32) -> Result<Self, OriginError> {
        match &self.place {
            Place::Enforcer {
                environment,
                name,
                signs,
                ..
            } if generation >= 1 => Ok(Self {
                trust_domain: self.trust_domain.clone(),
                place: Place::Enforcer {
                    environment: environment.clone(),
                    name: name.clone(),
                    generation,
                    signs: *signs,
                },
            }),
            _ => Err(OriginError),
        }
    }

    /// The response signer beside an enforcer's log.
    pub fn response(&self) -> Result<Self, OriginError> {
        match &self.place {
            Place::Enforcer {
                environment,
                name,
                generation,
                signs: Signs::Log,
            } => Ok(Self {
                trust_domain: self.trust_domain.clone(),
                place: Place::Enforcer {
                    environment: environment.clone(),
                    name: name.clone(),
                    generation: *generation,
                    signs: Signs::Responses,
                },
            }),
            _ => Err(OriginError),
        }
    }

    /// The tenant.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The enforcer's environment; none for the authority.
    pub fn environment(&self) -> Option<&Environment> {
        match &self.place {
            Place::Enforcer { environment, .. } => Some(environment),
            Place::Authority { .. } => None,
        }
    }

    /// The generation of an enforcer's log, from 1; none for the authority.
    pub fn generation(&self) -> Option<u32> {
        match &self.place {
            Place::Enforcer { generation, .. } => Some(*generation),
            Place::Authority { .. } => None,
        }
    }

    /// Whether it names a response signer, not a log.
    pub fn is_response(&self) -> bool {
        matches!(
            &self.place,
            Place::Enforcer {
                signs: Signs::Responses,
                ..
            }
        )
    }

    /// The id of the enforcer, or of the authority, that it belongs to.
    pub fn holder(&self) -> SpiffeId {
        let trust_domain = self.trust_domain.clone();
        match &self.place {
            Place::Enforcer {
                environment, name, ..
            } => SpiffeId::Enforcer {
                trust_domain,
                environment: environment.clone(),
                name: name.clone(),
            },
            Place::Authority { .. } => SpiffeId::Authority { trust_domain },
        }
    }
}

impl fmt::Display for LogOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.trust_domain)?;
        match &self.place {
            Place::Authority { tail } => {
                f.write_str("/ca")?;
                tail.iter().try_for_each(|name| write!(f, "/{name}"))
            }
            Place::Enforcer {
                environment,
                name,
                generation,
                signs,
            } => {
                write!(f, "/{environment}/enforcer/{name}")?;
                if *generation > 1 {
                    write!(f, "/{generation}")?;
                }
                match signs {
                    Signs::Log => Ok(()),
                    Signs::Responses => f.write_str("/response"),
                }
            }
        }
    }
}

impl FromStr for LogOrigin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut segments = text.split('/');
        let trust_domain: TrustDomain = segments
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|_| OriginError)?;
        let path: Vec<&str> = segments.take(MAX_SEGMENTS).collect();
        let place = match *path.as_slice() {
            ["ca", ref tail @ ..] if tail.len() <= 2 => Place::Authority {
                tail: tail
                    .iter()
                    .map(|name| name.parse().map_err(|_| OriginError))
                    .collect::<Result<_, _>>()?,
            },
            [environment, "enforcer", name, ref tail @ ..] => {
                let (generation, signs) = match *tail {
                    [] => (1, Signs::Log),
                    ["response"] => (1, Signs::Responses),
                    [generation] => (read_generation(generation)?, Signs::Log),
                    [generation, "response"] => (read_generation(generation)?, Signs::Responses),
                    _ => return Err(OriginError),
                };
                Place::Enforcer {
                    environment: environment.parse().map_err(|_| OriginError)?,
                    name: name.parse().map_err(|_| OriginError)?,
                    generation,
                    signs,
                }
            }
            _ => return Err(OriginError),
        };
        Ok(Self {
            trust_domain,
            place,
        })
    }
}

serde_as_text!(LogOrigin);

/// A text is not a SPIFFE id of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SpiffeIdError {
    /// Another scheme, or none.
    #[error("not a SPIFFE id, it must begin with `spiffe://`")]
    Scheme,
    /// A name in it breaks the grammar.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The path is none of ours.
    #[error(
        "not a SPIFFE id of this system, use <trust domain>/<environment>/agent/<name>, \
         …/enforcer/<name>, <trust domain>/person/<name> or <trust domain>/ca"
    )]
    Path,
}

/// A text is not the origin of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a log origin, use <trust domain>/ca or <trust domain>/<environment>/enforcer/<name>")]
pub struct OriginError;

const SCHEME: &str = "spiffe://";

/// One more than any path of ours has, so that longer ones are seen and refused.
const MAX_SEGMENTS: usize = 6;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    Authority {
        tail: Vec<Name>,
    },
    Enforcer {
        environment: Environment,
        name: Name,
        generation: u32,
        signs: Signs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Signs {
    Log,
    Responses,
}

/// A generation as it is written: decimal, from 2, no leading zero.
fn read_generation(text: &str) -> Result<u32, OriginError> {
    if !is_plain(text) || text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(OriginError);
    }
    match text.parse() {
        Ok(generation) if generation >= 2 => Ok(generation),
        _ => Err(OriginError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip() {
        for (text, role) in [
            ("spiffe://example.org/prod/agent/support-01", Role::Agent),
            ("spiffe://example.org/prod/enforcer/edge-1", Role::Enforcer),
            ("spiffe://example.org/person/alice", Role::Person),
            ("spiffe://example.org/ca", Role::Authority),
        ] {
            let id: SpiffeId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
            assert_eq!(id.role(), role);
            assert_eq!(id.trust_domain().as_str(), "example.org");
        }
    }

    #[test]
    fn other_ids_are_refused() {
        for text in [
            "",
            "example.org/ca",
            "SPIFFE://example.org/ca",
            "https://example.org/ca",
            "spiffe://",
            "spiffe:///ca",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://example.org/ca/",
            "spiffe://example.org//ca",
            "spiffe://Example.org/ca",
            "spiffe://example.org:443/ca",
            "spiffe://u@example.org/ca",
            "spiffe://example.org/prod/agent",
            "spiffe://example.org/prod/agent/",
            "spiffe://example.org/prod/agent/..",
            "spiffe://example.org/prod/agent/a/b",
            "spiffe://example.org/prod/agent/a/b/c/d/e/f/g",
            "spiffe://example.org/prod/agents/a",
            "spiffe://example.org/ca/agent/a",
            "spiffe://example.org/person/agent/a",
            "spiffe://example.org/prod/agent/a?x",
            "spiffe://example.org/prod/agent/a#x",
            "spiffe://example.org/prod/agent/%61",
            "spiffe://example.org/person/Alice",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn origins_round_trip() {
        for (text, response) in [
            ("example.org/ca", false),
            ("example.org/ca/witness", false),
            ("example.org/ca/2/witness", false),
            ("example.org/prod/enforcer/edge-1", false),
            ("example.org/prod/enforcer/edge-1/2", false),
            ("example.org/prod/enforcer/edge-1/response", true),
            ("example.org/prod/enforcer/response/17/response", true),
            ("example.org/prod/enforcer/response", false),
        ] {
            let origin: LogOrigin = text.parse().unwrap();
            assert_eq!(origin.to_string(), text);
            assert_eq!(origin.is_response(), response, "{text}");
            let id = SpiffeId::parse_signer(&format!("spiffe://{text}")).unwrap();
            assert_eq!(id.role(), Role::LogSigner);
            assert_eq!(id.to_string(), format!("spiffe://{text}"));
        }
        for text in [
            "",
            "example.org",
            "example.org/prod/agent/a",
            "example.org/ca/",
            "example.org/ca/a/b/c",
            "example.org/prod/enforcer/edge-1/1",
            "example.org/prod/enforcer/edge-1/02",
            "example.org/prod/enforcer/edge-1/0",
            "example.org/prod/enforcer/edge-1/4294967296",
            "example.org/prod/enforcer/edge-1/+2",
            "example.org/prod/enforcer/edge-1/response/response",
            "example.org/ca/enforcer/edge-1/2",
        ] {
            assert!(text.parse::<LogOrigin>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_origin_knows_its_neighbours() {
        let log: LogOrigin = "example.org/prod/enforcer/edge-1".parse().unwrap();
        let second = log.with_generation(2).unwrap();
        assert_eq!(second.to_string(), "example.org/prod/enforcer/edge-1/2");
        assert_eq!(
            second.response().unwrap().to_string(),
            "example.org/prod/enforcer/edge-1/2/response"
        );
        assert_eq!(
            second.holder().to_string(),
            "spiffe://example.org/prod/enforcer/edge-1"
        );
        assert!(second.response().unwrap().response().is_err());
        let authority = LogOrigin::authority("example.org".parse().unwrap());
        assert!(authority.response().is_err() && authority.with_generation(2).is_err());
        let witness = LogOrigin::witness("example.org".parse().unwrap()).unwrap();
        assert_eq!(witness.to_string(), "example.org/ca/witness");
    }
}
