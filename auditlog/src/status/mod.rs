//! Status records: what the enforcers of an environment must know, in the authority's log.
//!
//! A status record has, besides its event's members, `"status":{"environment","number","prev"}`: numbers
//! begin with 1 and have no gap, `prev` is the leaf hash of the environment's status record before, 32
//! zero bytes for the first. `by`, where there is one, is the SPIFFE id of whoever asked.
//! [`AgentRevoked`](StatusEvent::AgentRevoked) ends every certificate of the agent whose
//! [`CertificateIssued`](StatusEvent::CertificateIssued) has a smaller number.
//!
//! | kind | members |
//! |---|---|
//! | `environment-opened` | `issuers`: DER of the issuing CAs |
//! | `certificate-issued` | `agent`, `certificate` (DER), `grant`, `not_after`, `serial` |
//! | `agent-revoked` | `agent`, `reason` |
//! | `certificate-revoked` | `agent`, `reason`, `serial` |
//! | `agent-restricted` | `agent`, and `scopes` and `trust` when lowered |
//! | `agent-reinstated` | `agent` |
//! | `snapshot` | `covers`: the number it leads to; `digest`: SHA-256 of its bytes |
//! | `issuer-added` | `certificate` (DER) |

pub mod snapshot;

use agentca_identity::name::Environment;
use agentca_identity::profile::RevocationReason;
use agentca_identity::scope::ScopeSet;
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::time::Timestamp;
use agentca_identity::trust::TrustLevel;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

pub use snapshot::Snapshot;

use crate::merkle::Hash;
use crate::record::{Head, Number, Object, Record, ScanError, scan};

/// One status record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRecord {
    /// Whom it concerns.
    pub environment: Environment,
    /// Its place in the environment's status chain, from 1.
    pub number: u64,
    /// The leaf hash of the status record before; zeros for the first.
    pub prev: Hash,
    /// Its index in the log.
    pub seq: u64,
    /// Who decided it; none when the authority did so by itself.
    pub by: Option<SpiffeId>,
    /// What happened.
    pub event: StatusEvent,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusEvent {
    /// The environment exists, under these issuing CAs.
    EnvironmentOpened {
        /// DER.
        issuers: Vec<Vec<u8>>,
    },
    /// A certificate was issued; only such ones are admitted.
    CertificateIssued {
        /// Its serial.
        serial: Serial,
        /// Its agent.
        agent: SpiffeId,
        /// DER.
        certificate: Vec<u8>,
        /// Its last second.
        not_after: Timestamp,
        /// The index of the grant's record.
        grant: u64,
    },
    /// All certificates of an agent issued so far have ended.
    AgentRevoked {
        /// The agent.
        agent: SpiffeId,
        /// Why.
        reason: RevocationReason,
    },
    /// One certificate has ended.
    CertificateRevoked {
        /// Its serial.
        serial: Serial,
        /// Its agent.
        agent: SpiffeId,
        /// Why.
        reason: RevocationReason,
    },
    /// The agent's rights are lowered to at most this; with neither given, no longer.
    AgentRestricted {
        /// The agent.
        agent: SpiffeId,
        /// The highest trust level that counts.
        trust: Option<TrustLevel>,
        /// The scopes that count.
        scopes: Option<ScopeSet>,
    },
    /// The agent may be issued certificates again; ended ones stay so.
    AgentReinstated {
        /// The agent.
        agent: SpiffeId,
    },
    /// A snapshot was written.
    Snapshot {
        /// SHA-256 of its bytes.
        digest: Hash,
        /// The number of the newest status record it contains.
        covers: u64,
    },
    /// Another issuing CA.
    IssuerAdded {
        /// DER.
        certificate: Vec<u8>,
    },
}

impl StatusRecord {
    /// Writes the record. Its index is the head's, whatever `seq` says.
    pub fn encode(&self, head: &Head<'_>, out: &mut Vec<u8>) {
        encode(self, head, out);
    }

    /// Reads a status record.
    ///
    /// # Errors
    /// [`StatusError`] for anything that [`StatusRecord::encode`] does not write, unknown kinds
    /// included: a reader that does not understand a status record must deny.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatusError> {
        let envelope = scan(bytes)?;
        let members: Members<'_> = serde_json::from_slice(bytes).map_err(StatusError::members)?;
        let status = members.status.as_ref().ok_or(StatusError::NotStatus)?;
        let record = Self {
            environment: status.environment.clone(),
            number: status.number.0,
            prev: hash(status.prev)?,
            seq: envelope.seq,
            by: members.by.clone(),
            event: members.event()?,
        };
        // Written again it must be the same: no member that is not the event's, no other spelling.
        let head = Head::new(envelope.seq, envelope.time()?, envelope.log);
        let mut again = Vec::with_capacity(bytes.len());
        record.encode(&head, &mut again);
        if again == bytes && record.number > 0 {
            Ok(record)
        } else {
            Err(StatusError::Form)
        }
    }
}

/// Whether a record has a `status` member, so that it must be read with [`StatusRecord::parse`].
#[must_use]
pub fn is_status_kind(kind: &str) -> bool {
    KINDS.contains(&kind)
}

/// Every kind of status record.
pub const KINDS: [&str; 8] = [
    "environment-opened",
    "certificate-issued",
    "agent-revoked",
    "certificate-revoked",
    "agent-restricted",
    "agent-reinstated",
    "snapshot",
    "issuer-added",
];

fn encode(record: &StatusRecord, head: &Head<'_>, out: &mut Vec<u8>) {
    let StatusRecord {
        environment,
        number,
        prev,
        seq: _,
        by,
        event,
    } = record;
    let status = |status: &mut Object<'_>| {
        status.display("environment", environment);
        status.number("number", *number);
        status.base64("prev", prev);
    };
    let by = |record: &mut Record<'_>| {
        if let Some(by) = by {
            record.at("by").display("by", by);
        }
    };
    let mut record = Record::begin(out, head, event.kind());
    match event {
        StatusEvent::EnvironmentOpened { issuers } => {
            by(&mut record);
            record.at("issuers").base64s("issuers", issuers);
            record.object("status", status);
        }
        StatusEvent::CertificateIssued {
            serial,
            agent,
            certificate,
            not_after,
            grant,
        } => {
            record.at("agent").display("agent", agent);
            by(&mut record);
            record.base64("certificate", certificate);
            record.number("grant", *grant);
            record.at("not_after").display("not_after", not_after);
            record.at("serial").display("serial", serial);
            record.object("status", status);
        }
        StatusEvent::AgentRevoked { agent, reason } => {
            record.at("agent").display("agent", agent);
            by(&mut record);
            record.text("reason", reason.as_str());
            record.object("status", status);
        }
        StatusEvent::CertificateRevoked {
            serial,
            agent,
            reason,
        } => {
            record.at("agent").display("agent", agent);
            by(&mut record);
            record.text("reason", reason.as_str());
            record.at("serial").display("serial", serial);
            record.object("status", status);
        }
        StatusEvent::AgentRestricted {
            agent,
            trust,
            scopes,
        } => {
            record.at("agent").display("agent", agent);
            by(&mut record);
            if let Some(scopes) = scopes {
                record.at("scopes").texts("scopes", scopes.iter());
            }
            record.object("status", status);
            if let Some(trust) = trust {
                record.at("trust").display("trust", trust);
            }
        }
        StatusEvent::AgentReinstated { agent } => {
            record.at("agent").display("agent", agent);
            by(&mut record);
            record.object("status", status);
        }
        StatusEvent::Snapshot { digest, covers } => {
            by(&mut record);
            record.number("covers", *covers);
            record.base64("digest", digest);
            record.object("status", status);
        }
        StatusEvent::IssuerAdded { certificate } => {
            by(&mut record);
            record.base64("certificate", certificate);
            record.object("status", status);
        }
    }
    record.finish();
}

impl StatusEvent {
    /// The record's kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::EnvironmentOpened { .. } => "environment-opened",
            Self::CertificateIssued { .. } => "certificate-issued",
            Self::AgentRevoked { .. } => "agent-revoked",
            Self::CertificateRevoked { .. } => "certificate-revoked",
            Self::AgentRestricted { .. } => "agent-restricted",
            Self::AgentReinstated { .. } => "agent-reinstated",
            Self::Snapshot { .. } => "snapshot",
            Self::IssuerAdded { .. } => "issuer-added",
        }
    }
}

/// Every member any status record has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members<'a> {
    kind: &'a str,
    status: Option<Place<'a>>,
    agent: Option<SpiffeId>,
    by: Option<SpiffeId>,
    certificate: Option<&'a str>,
    covers: Option<Number>,
    digest: Option<&'a str>,
    grant: Option<Number>,
    issuers: Option<Vec<&'a str>>,
    not_after: Option<&'a str>,
    reason: Option<&'a str>,
    scopes: Option<ScopeSet>,
    serial: Option<Serial>,
    trust: Option<TrustLevel>,
    #[serde(rename = "log")]
    _log: &'a str,
    #[serde(rename = "seq")]
    _seq: Number,
    #[serde(rename = "time")]
    _time: &'a str,
    #[serde(rename = "v")]
    _v: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place<'a> {
    environment: Environment,
    number: Number,
    prev: &'a str,
}

impl Members<'_> {
    fn event(&self) -> Result<StatusEvent, StatusError> {
        Ok(match self.kind {
            "environment-opened" => StatusEvent::EnvironmentOpened {
                issuers: given(&self.issuers)?
                    .iter()
                    .map(|issuer| bytes(issuer))
                    .collect::<Result<_, _>>()?,
            },
            "certificate-issued" => StatusEvent::CertificateIssued {
                serial: *given(&self.serial)?,
                agent: self.agent()?,
                certificate: bytes(given(&self.certificate)?)?,
                not_after: Timestamp::parse_rfc3339(given(&self.not_after)?)
                    .map_err(|_| StatusError::Form)?,
                grant: given(&self.grant)?.0,
            },
            "agent-revoked" => StatusEvent::AgentRevoked {
                agent: self.agent()?,
                reason: self.reason()?,
            },
            "certificate-revoked" => StatusEvent::CertificateRevoked {
                serial: *given(&self.serial)?,
                agent: self.agent()?,
                reason: self.reason()?,
            },
            "agent-restricted" => StatusEvent::AgentRestricted {
                agent: self.agent()?,
                trust: self.trust,
                scopes: self.scopes.clone(),
            },
            "agent-reinstated" => StatusEvent::AgentReinstated {
                agent: self.agent()?,
            },
            "snapshot" => StatusEvent::Snapshot {
                digest: hash(given(&self.digest)?)?,
                covers: given(&self.covers)?.0,
            },
            "issuer-added" => StatusEvent::IssuerAdded {
                certificate: bytes(given(&self.certificate)?)?,
            },
            kind => return Err(StatusError::UnknownKind(kind.to_owned())),
        })
    }

    fn agent(&self) -> Result<SpiffeId, StatusError> {
        match given(&self.agent)? {
            agent @ SpiffeId::Agent { .. } => Ok(agent.clone()),
            _ => Err(StatusError::Form),
        }
    }

    fn reason(&self) -> Result<RevocationReason, StatusError> {
        given(&self.reason)?.parse().map_err(|_| StatusError::Form)
    }
}

fn given<T>(member: &Option<T>) -> Result<&T, StatusError> {
    member.as_ref().ok_or(StatusError::Form)
}

fn bytes(text: &str) -> Result<Vec<u8>, StatusError> {
    STANDARD.decode(text).map_err(|_| StatusError::Form)
}

fn hash(text: &str) -> Result<Hash, StatusError> {
    bytes(text)?.try_into().map_err(|_| StatusError::Form)
}

/// Why a record is not a status record we understand.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StatusError {
    /// Not a record.
    #[error(transparent)]
    Record(#[from] ScanError),
    /// A record without a `status` member.
    #[error("not a status record")]
    NotStatus,
    /// A kind from a later release.
    #[error("status records of kind `{0}` are not known: use a newer release")]
    UnknownKind(String),
    /// Members missing, too many, or of the wrong form.
    #[error("the status record does not have the members of its kind")]
    Form,
    /// As `Form`, in the reader's words.
    #[error("the status record cannot be read: {0}")]
    Members(String),
}

impl StatusError {
    #[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` passes")]
    fn members(error: serde_json::Error) -> Self {
        Self::Members(error.to_string())
    }
}

#[cfg(test)]
mod tests;
