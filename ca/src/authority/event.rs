//! What the authority's log says: one typed event per record.
//!
//! An event of one environment that enforcers must know is a [`StatusEvent`] and is written and read
//! by `auditlog::status`; all others are [`Event`]s, written here as JCS (RFC 8785) beside the head
//! fields `v kind seq time log`. Reading accepts only what writing emits: a record is parsed, written
//! again, and compared byte by byte.

use std::net::IpAddr;

use agentca_auditlog::merkle::Hash;
use agentca_auditlog::record::{Head, LOG_OPENED, SIGNER_ANNOUNCED, VERSION, scan};
use agentca_auditlog::status::{StatusEvent, StatusRecord};
use agentca_identity::grant::Grant;
use agentca_identity::name::{DnsName, Environment, Owner};
use agentca_identity::roles::Roles;
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::{LogOrigin, SpiffeId};
use agentca_identity::time::Timestamp;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::facts::Facts;

/// A change that was decided and is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// What the record will say.
    pub what: What,
    /// What its certificate says, when it is about issuing one.
    pub facts: Option<Facts>,
}

/// What a draft's record will say.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Something of the authority alone.
    Own(Event),
    /// The next certificate of the log's own key, or of the witness's: leaf, then intermediate, DER.
    Signer(Vec<Vec<u8>>),
    /// Something that enforcers of an environment must know; number and hash come when it is staged.
    Status {
        /// Which environment.
        environment: Environment,
        /// Who decided; none when the authority did so by itself.
        by: Option<SpiffeId>,
        /// What happened.
        event: StatusEvent,
    },
}

impl Draft {
    /// A record of the authority alone.
    pub fn own(event: Event) -> Self {
        Self {
            what: What::Own(event),
            facts: None,
        }
    }

    /// The next certificate of the log's own key, or of the witness's.
    pub fn signer(chain: Vec<Vec<u8>>) -> Self {
        Self {
            what: What::Signer(chain),
            facts: None,
        }
    }

    /// A status record.
    pub fn status(environment: Environment, by: Option<SpiffeId>, event: StatusEvent) -> Self {
        Self {
            what: What::Status {
                environment,
                by,
                event,
            },
            facts: None,
        }
    }

    /// With what its certificate says, so that it need not be read again.
    pub fn certifying(self, facts: Facts) -> Self {
        Self {
            facts: Some(facts),
            ..self
        }
    }
}

/// A record of the authority's log, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The record's index.
    pub index: u64,
    /// When it was staged.
    pub time: Timestamp,
    /// What it says.
    pub body: Body,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// The authority's own.
    Own(Event),
    /// A status record.
    Status(StatusRecord),
    /// The log's own bookkeeping: `log-opened`, `signer-announced`.
    Log,
}

/// Everything of the authority's log that is no status record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// A person may act with these roles; replaces earlier roles.
    PersonAdded {
        /// Who.
        person: SpiffeId,
        /// As what.
        roles: Roles,
        /// Who decided; the authority itself at `init`.
        by: SpiffeId,
    },
    /// A person may do nothing any more, and every certificate of theirs ends.
    PersonRemoved {
        /// Who.
        person: SpiffeId,
        /// Who decided.
        by: SpiffeId,
    },
    /// An agent exists from now on.
    AgentRegistered {
        /// Which.
        agent: SpiffeId,
        /// Who answers for it.
        owner: Owner,
        /// Who decided.
        by: SpiffeId,
    },
    /// What an agent may be issued from now on; replaces its earlier grant.
    GrantChanged {
        /// Which agent.
        agent: SpiffeId,
        /// The grant; `approved_by` in it says who decided.
        grant: Grant,
    },
    /// A certificate that is no agent's: a person's, an enforcer's, a signer's, the authority's own.
    CredentialIssued {
        /// What the certificate names: a SPIFFE id, or `spiffe://` and a log origin.
        subject: String,
        /// Its serial number.
        serial: Serial,
        /// Its last moment.
        not_after: String,
        /// The certificate, DER in base64.
        certificate: String,
        /// Who asked.
        by: SpiffeId,
    },
    /// Such a certificate ends.
    CredentialRevoked {
        /// Its serial number.
        serial: Serial,
        /// What it names.
        subject: String,
        /// RFC 5280 section 5.3.1.
        reason: String,
        /// Who decided.
        by: SpiffeId,
    },
    /// An enforcer may follow the feed, and its log is witnessed from size 0. A later one for the
    /// same enforcer opens the next generation of its log and ends every earlier certificate.
    EnforcerAdded {
        /// Which.
        enforcer: SpiffeId,
        /// Its DNS names.
        dns: Vec<DnsName>,
        /// Its IP addresses.
        ip: Vec<IpAddr>,
        /// The origin of its log.
        log_origin: LogOrigin,
        /// Who decided.
        by: SpiffeId,
    },
    /// An enforcer is retired, and every certificate of it ends.
    EnforcerRemoved {
        /// Which.
        enforcer: SpiffeId,
        /// Who decided.
        by: SpiffeId,
    },
    /// Heads of enforcers' logs that are about to be co-signed.
    Witnessed {
        /// One for each log.
        heads: Vec<WitnessedHead>,
    },
    /// A CRL whose number is this record's index is about to be published.
    CrlAnnounced {
        /// Which shard.
        shard: u16,
        /// Where it will be, as certificates name it.
        uri: String,
        /// How many certificates it revokes.
        entries: u64,
        /// Good from.
        this_update: String,
        /// Good until.
        next_update: String,
    },
}

/// A head of an enforcer's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessedHead {
    /// Whose log.
    pub origin: LogOrigin,
    /// How many records.
    pub size: u64,
    /// The Merkle root over them, in base64.
    pub root: String,
    /// After how long without a heartbeat this enforcer denies everything, when it has said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_after_ms: Option<u64>,
}

impl WitnessedHead {
    /// A head as it is written.
    pub fn new(origin: LogOrigin, size: u64, root: &Hash, stale_after_ms: Option<u64>) -> Self {
        Self {
            origin,
            size,
            root: BASE64_STANDARD.encode(root),
            stale_after_ms,
        }
    }

    /// The root, read.
    pub fn root(&self) -> Result<Hash, String> {
        let bytes = BASE64_STANDARD
            .decode(&self.root)
            .map_err(|e| e.to_string())?;
        bytes
            .try_into()
            .map_err(|_| "a root that is no hash".to_owned())
    }
}

/// A record that this program did not write.
#[derive(Debug, thiserror::Error)]
#[error("record {index} is not readable: {why}")]
pub struct EntryError {
    /// Which record.
    pub index: u64,
    /// What is wrong with it.
    pub why: String,
}

impl Event {
    fn write(&self, head: &Head<'_>, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let mut fields = match serde_json::to_value(self)? {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        fields.insert("log".into(), head.log.into());
        fields.insert("seq".into(), head.seq.into());
        fields.insert("time".into(), head.time.rfc3339().into());
        fields.insert("v".into(), VERSION.into());
        // A `Map` is sorted by key and all keys are ASCII, which is the order RFC 8785 demands.
        serde_json::to_writer(out, &fields)
    }

    /// Appends the whole record, or nothing, which the log refuses.
    pub fn write_whole(&self, head: &Head<'_>, out: &mut Vec<u8>) {
        let from = out.len();
        if self.write(head, out).is_err() {
            out.truncate(from);
        }
    }

    /// Reads the members that are not of the head; unknown ones are refused.
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut fields: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        for head in ["log", "seq", "time", "v"] {
            fields.remove(head);
        }
        serde_json::from_value(Value::Object(fields)).map_err(|e| e.to_string())
    }
}

impl Entry {
    /// Reads the record at `index`, strictly: canonical form, its own index, no unknown member.
    pub fn read(index: u64, bytes: &[u8]) -> Result<Self, EntryError> {
        let refuse = |why: String| EntryError { index, why };
        let envelope = scan(bytes).map_err(|e| refuse(e.to_string()))?;
        let time = envelope.time().map_err(|e| refuse(e.to_string()))?;
        if envelope.seq != index {
            return Err(refuse(format!("it calls itself {}", envelope.seq)));
        }
        let body = match envelope.kind {
            LOG_OPENED | SIGNER_ANNOUNCED => Body::Log,
            kind if OWN_KINDS.contains(&kind) => Body::Own(Event::read(bytes).map_err(refuse)?),
            _ => Body::Status(StatusRecord::parse(bytes).map_err(|e| refuse(e.to_string()))?),
        };
        Ok(Self { index, time, body })
    }
}

/// The kinds of [`Event`].
const OWN_KINDS: [&str; 10] = [
    "agent-registered",
    "credential-issued",
    "credential-revoked",
    "crl-announced",
    "enforcer-added",
    "enforcer-removed",
    "grant-changed",
    "person-added",
    "person-removed",
    "witnessed",
];
