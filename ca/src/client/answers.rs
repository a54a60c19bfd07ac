//! What the authority answers, in our own types, every field named.

use agentca_identity::profile::RevocationReason;
use agentca_identity::serial::Serial;
use agentca_identity::time::Timestamp;
use agentca_identity::trust::TrustLevel;
use agentca_proto as proto;
use serde::Serialize;
use serde::ser::Serializer;

/// An answer that no authority of this version gives.
#[derive(Debug, thiserror::Error)]
#[error("the authority's answer has no usable {0}, update this program or the authority")]
pub(crate) struct Unusable(&'static str);

/// Certificates as they came: not verified yet.
#[derive(Debug)]
pub(crate) struct Issued {
    /// The leaf, then its issuer; DER.
    pub(crate) chain: Vec<Vec<u8>>,
    /// The index of the record in the authority's log.
    pub(crate) record: u64,
    /// For an enforcer: the issuing CAs that have not ended; DER.
    pub(crate) issuers: Vec<Vec<u8>>,
}

impl From<proto::Credential> for Issued {
    fn from(answer: proto::Credential) -> Self {
        // The root is the one we already trust, the grant is not ours to print.
        let proto::Credential {
            chain,
            root: _,
            record,
            grant: _,
            issuers,
        } = answer;
        Self {
            chain,
            record,
            issuers,
        }
    }
}

/// What an agent may be issued.
#[derive(Debug, Serialize)]
pub(crate) struct Grant {
    pub(crate) scopes: Vec<String>,
    pub(crate) max_trust: TrustLevel,
    pub(crate) max_lifetime_seconds: u64,
    pub(crate) groups: Vec<String>,
    pub(crate) approved_by: String,
    pub(crate) record: u64,
}

impl TryFrom<proto::Grant> for Grant {
    type Error = Unusable;

    fn try_from(answer: proto::Grant) -> Result<Self, Unusable> {
        let proto::Grant {
            scopes,
            max_trust,
            max_lifetime_seconds,
            groups,
            approved_by,
            record,
        } = answer;
        let max_trust = trust(max_trust)?;
        Ok(Self {
            scopes,
            max_trust,
            max_lifetime_seconds,
            groups,
            approved_by,
            record,
        })
    }
}

/// An agent with everything it was ever issued.
#[derive(Debug, Serialize)]
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) environment: String,
    pub(crate) owner: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) trust: TrustLevel,
    pub(crate) status: AgentStatus,
    pub(crate) uri: String,
    /// None when the authority stopped between registering and granting: it may have nothing.
    pub(crate) grant: Option<Grant>,
    pub(crate) certificates: Vec<AgentCertificate>,
}

/// Whether an agent may be issued anything at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AgentStatus {
    Active,
    Revoked,
}

impl AgentStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
        }
    }
}

impl TryFrom<proto::Agent> for Agent {
    type Error = Unusable;

    fn try_from(answer: proto::Agent) -> Result<Self, Unusable> {
        let proto::Agent {
            environment,
            name,
            owner,
            grant,
            revoked,
            certificates,
            uri,
        } = answer;
        let grant = grant.map(Grant::try_from).transpose()?;
        let granted = grant.as_ref();
        Ok(Self {
            name,
            environment,
            owner,
            scopes: granted.map_or_else(Vec::new, |grant| grant.scopes.clone()),
            trust: granted.map_or(TrustLevel::L0, |grant| grant.max_trust),
            status: if revoked {
                AgentStatus::Revoked
            } else {
                AgentStatus::Active
            },
            uri,
            grant,
            certificates: certificates
                .into_iter()
                .map(AgentCertificate::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// One certificate of an agent.
#[derive(Debug, Serialize)]
pub(crate) struct AgentCertificate {
    pub(crate) serial: Serial,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) not_before: Timestamp,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) not_after: Timestamp,
    pub(crate) status: CertificateStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "rfc3339_if_any"
    )]
    pub(crate) revoked_at: Option<Timestamp>,
    pub(crate) record: u64,
    pub(crate) scopes: Vec<String>,
    pub(crate) trust: TrustLevel,
}

/// Where a certificate is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CertificateStatus {
    Active,
    Expired,
    Revoked,
}

impl CertificateStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl CertificateStatus {
    fn of(revoked: bool, not_after: Timestamp) -> Self {
        match (revoked, not_after < Timestamp::now()) {
            (true, _) => Self::Revoked,
            (false, true) => Self::Expired,
            (false, false) => Self::Active,
        }
    }
}

/// A person, and what they may do.
#[derive(Debug, Serialize)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) uri: String,
    pub(crate) status: PersonStatus,
    pub(crate) roles: Vec<String>,
    pub(crate) certificates: Vec<PersonCertificate>,
}

/// Whether a person may do anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PersonStatus {
    Active,
    Removed,
}

impl PersonStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Removed => "removed",
        }
    }
}

/// One certificate of a person.
#[derive(Debug, Serialize)]
pub(crate) struct PersonCertificate {
    pub(crate) serial: Serial,
    pub(crate) status: CertificateStatus,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) not_before: Timestamp,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) not_after: Timestamp,
    pub(crate) record: u64,
}

impl TryFrom<proto::Person> for Person {
    type Error = Unusable;

    fn try_from(answer: proto::Person) -> Result<Self, Unusable> {
        let proto::Person {
            name,
            uri,
            roles,
            certificates,
        } = answer;
        let certificates = certificates.into_iter().map(|certificate| {
            let proto::PersonCertificate {
                serial,
                not_before,
                not_after,
                revoked,
                record,
            } = certificate;
            let not_after = Timestamp::from_millis(not_after);
            let serial = serial.as_slice().try_into().ok();
            Ok(PersonCertificate {
                serial: serial
                    .and_then(|bytes| Serial::from_bytes(bytes).ok())
                    .ok_or(Unusable("serial number"))?,
                status: CertificateStatus::of(revoked, not_after),
                not_before: Timestamp::from_millis(not_before),
                not_after,
                record,
            })
        });
        Ok(Self {
            name,
            uri,
            status: match roles.is_empty() {
                true => PersonStatus::Removed,
                false => PersonStatus::Active,
            },
            roles,
            certificates: certificates.collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<proto::AgentCertificate> for AgentCertificate {
    type Error = Unusable;

    fn try_from(answer: proto::AgentCertificate) -> Result<Self, Unusable> {
        let proto::AgentCertificate {
            serial,
            not_before,
            not_after,
            revoked,
            reason,
            record,
            scopes,
            trust: level,
            revoked_at,
        } = answer;
        let not_after = Timestamp::from_millis(not_after);
        let status = CertificateStatus::of(revoked, not_after);
        let reason = match revoked {
            true => Some(
                u8::try_from(reason)
                    .ok()
                    .and_then(|code| RevocationReason::from_code(code).ok())
                    .ok_or(Unusable("reason of a revocation"))?
                    .as_str(),
            ),
            false => None,
        };
        Ok(Self {
            serial: serial
                .as_slice()
                .try_into()
                .map_err(|_| Unusable("serial number"))?,
            not_before: Timestamp::from_millis(not_before),
            not_after,
            status,
            reason,
            revoked_at: revoked.then(|| Timestamp::from_millis(revoked_at)),
            record,
            scopes,
            trust: trust(level)?,
        })
    }
}

/// What a revocation did, and where it is in force.
#[derive(Debug, Serialize)]
pub(crate) struct Revoked {
    pub(crate) agents: Vec<String>,
    /// Those of them that had been revoked before.
    pub(crate) already: Vec<String>,
    pub(crate) certificates: u64,
    pub(crate) enforcers: u32,
    pub(crate) confirmed: u32,
    pub(crate) lagging: Vec<String>,
    pub(crate) silent: Vec<String>,
    pub(crate) in_force_ms: f64,
    pub(crate) record: u64,
}

impl From<proto::RevokeResponse> for Revoked {
    fn from(answer: proto::RevokeResponse) -> Self {
        let proto::RevokeResponse {
            agents,
            certificates,
            enforcers,
            confirmed,
            lagging,
            in_force_ms,
            record,
            silent,
            already,
        } = answer;
        Self {
            agents,
            already,
            certificates,
            enforcers,
            confirmed,
            lagging,
            silent,
            in_force_ms,
            record,
        }
    }
}

/// A change that was made.
#[derive(Debug, Serialize)]
pub(crate) struct Change {
    pub(crate) subject: String,
    pub(crate) record: u64,
}

impl From<proto::Change> for Change {
    fn from(answer: proto::Change) -> Self {
        let proto::Change { record, subject } = answer;
        Self { subject, record }
    }
}

/// An enforcer's certificates and where it starts: not verified yet.
#[derive(Debug)]
pub(crate) struct EnforcerAdded {
    pub(crate) tls: Issued,
    pub(crate) log: Issued,
    pub(crate) response: Issued,
    pub(crate) authority_origin: String,
    pub(crate) authority_vkey: String,
    pub(crate) authority_checkpoint: String,
    pub(crate) log_origin: String,
    pub(crate) witness_vkey: String,
    /// Leaf, then intermediate; DER.
    pub(crate) authority_log_chain: Vec<Vec<u8>>,
    /// Leaf, then intermediate; DER.
    pub(crate) witness_chain: Vec<Vec<u8>>,
}

impl TryFrom<proto::AddEnforcerResponse> for EnforcerAdded {
    type Error = Unusable;

    fn try_from(answer: proto::AddEnforcerResponse) -> Result<Self, Unusable> {
        let proto::AddEnforcerResponse {
            tls,
            log,
            response,
            authority_origin,
            authority_vkey,
            authority_checkpoint,
            log_origin,
            witness_vkey,
            authority_log_chain,
            witness_chain,
        } = answer;
        Ok(Self {
            tls: tls.ok_or(Unusable("TLS certificate"))?.into(),
            log: log.ok_or(Unusable("log certificate"))?.into(),
            response: response.ok_or(Unusable("response certificate"))?.into(),
            authority_origin,
            authority_vkey,
            authority_checkpoint,
            log_origin,
            witness_vkey,
            authority_log_chain,
            witness_chain,
        })
    }
}

/// An enforcer and how far it is.
#[derive(Debug, Serialize)]
pub(crate) struct EnforcerState {
    pub(crate) name: String,
    pub(crate) environment: String,
    pub(crate) status: EnforcerStatus,
    pub(crate) connected: bool,
    /// The status number it confirmed last.
    pub(crate) confirmed: u64,
    /// The newest status number of its environment.
    pub(crate) newest: u64,
    #[serde(serialize_with = "rfc3339_if_any")]
    pub(crate) last_seen: Option<Timestamp>,
    pub(crate) dns: Vec<String>,
    pub(crate) ip: Vec<String>,
    pub(crate) log_origin: String,
    pub(crate) log_size: u64,
}

/// Whether an enforcer is still one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EnforcerStatus {
    Active,
    Removed,
}

impl EnforcerState {
    /// In a word.
    pub(crate) fn state(&self) -> &'static str {
        match (self.status, self.connected) {
            (EnforcerStatus::Removed, _) => "removed",
            (EnforcerStatus::Active, true) => "connected",
            (EnforcerStatus::Active, false) => "away",
        }
    }
}

impl From<proto::Enforcer> for EnforcerState {
    fn from(answer: proto::Enforcer) -> Self {
        let proto::Enforcer {
            environment,
            name,
            dns,
            ip,
            connected,
            confirmed,
            newest,
            last_seen,
            log_origin,
            log_size,
            removed,
        } = answer;
        Self {
            name,
            environment,
            status: if removed {
                EnforcerStatus::Removed
            } else {
                EnforcerStatus::Active
            },
            connected,
            confirmed,
            newest,
            last_seen: (last_seen > 0).then(|| Timestamp::from_millis(last_seen)),
            dns,
            ip,
            log_origin,
            log_size,
        }
    }
}

fn trust(level: u32) -> Result<TrustLevel, Unusable> {
    u8::try_from(level)
        .ok()
        .and_then(|l| l.try_into().ok())
        .ok_or(Unusable("trust level"))
}

fn rfc3339<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&time.rfc3339())
}

fn rfc3339_if_any<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    time.map(|t| t.rfc3339()).serialize(to)
}
