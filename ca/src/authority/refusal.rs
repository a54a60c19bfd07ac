//! Why a change is refused, in sentences that say what to do.

use std::time::Duration;

use agentca_identity::grant::GrantViolation;
use agentca_identity::name::Name;
use agentca_identity::roles::PersonRole;
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::time::Timestamp;

use super::handle::Handle;

/// Why a change is refused. Nothing was written, unless it says so.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// The caller's certificate is not in force.
    #[error("your certificate {serial} {why}")]
    Caller {
        /// Which certificate.
        serial: Serial,
        /// What is wrong with it, and what to do.
        why: &'static str,
    },
    /// The caller's role does not allow it.
    #[error("this needs the role {needs}, which {who} does not have")]
    Role {
        /// The role that would allow it.
        needs: PersonRole,
        /// The caller.
        who: SpiffeId,
    },
    /// The caller is of a kind that may not ask this.
    #[error("{who} may not ask this; {needs} may")]
    Kind {
        /// The caller.
        who: SpiffeId,
        /// Who may.
        needs: &'static str,
    },
    /// No such agent.
    #[error("there is no agent `{0}`; `agentca agent list` shows all")]
    UnknownAgent(String),
    /// Several environments have an agent of this name.
    #[error("`{name}` is ambiguous, name one of: {}", candidates.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// What it could mean.
        candidates: Vec<Handle>,
    },
    /// Without it nobody could administer.
    #[error(
        "without {0} nobody could administer; add another admin first, or renew the credential (`agentca renew \
         DIR`) and revoke the certificate that it had"
    )]
    LastAdmin(String),
    /// No such person.
    #[error("there is no person `{0}`; `agentca person list` shows all")]
    UnknownPerson(Name),
    /// Removed before.
    #[error("person `{0}` was removed already")]
    PersonRemoved(Name),
    /// No agent has this owner.
    #[error("no agent belongs to `{0}`; `agentca agent list` shows owners")]
    UnknownOwner(String),
    /// No such certificate.
    #[error("there is no certificate with serial {0}, or it expired more than a day ago")]
    UnknownSerial(Serial),
    /// No such enforcer.
    #[error("there is no enforcer `{0}`; `agentca enforcer list` shows all")]
    UnknownEnforcer(Handle),
    /// The enforcer is there and has its credentials.
    #[error(
        "enforcer `{0}` is there already; remove it first, or say --new-log if it lost its log"
    )]
    EnforcerExists(Handle),
    /// The enforcer was removed.
    #[error("enforcer `{0}` was removed; add it again")]
    EnforcerRemoved(Handle),
    /// Removed before.
    #[error("enforcer `{0}` was removed already")]
    RemovedAlready(Handle),
    /// The agent is revoked.
    #[error("agent `{0}` is revoked; `agentca reinstate {0}` lifts that")]
    Revoked(Handle),
    /// The agent is not revoked.
    #[error("agent `{0}` is not revoked, there is nothing to reinstate")]
    NotRevoked(Handle),
    /// A first issue leaves something open.
    #[error(
        "agent `{agent}` has no grant yet (`agentca agent list` shows those that have); give {} too",
        listed(missing)
    )]
    FirstIssue {
        /// Which agent.
        agent: Handle,
        /// The options that are needed besides those given.
        missing: Vec<&'static str>,
    },
    /// An issue names another owner than the registered one.
    #[error("agent `{agent}` belongs to `{owner}`; leave the owner out or give this one")]
    OtherOwner {
        /// Which agent.
        agent: Handle,
        /// The registered owner.
        owner: String,
    },
    /// Wider than the grant.
    #[error(
        "agent `{agent}` asks for more than it is granted: {why}; `agentca agent grant {agent}` \
         changes that, see its `--help`"
    )]
    BeyondGrant {
        /// Which agent.
        agent: Handle,
        /// What is beyond.
        why: GrantViolation,
    },
    /// The grant or a restriction leaves nothing to renew.
    #[error("agent `{0}` is no longer granted anything its certificate has; ask for a new one")]
    NothingLeft(Handle),
    /// The intersection cannot be written into a certificate.
    #[error("agent `{0}` would get more than 128 scopes; widen its grant or issue it anew")]
    TooManyScopes(Handle),
    /// Grant or restriction changed between the decision and the certificate.
    #[error("the grant of agent `{0}` changed meanwhile; ask again")]
    Changed(Handle),
    /// The key was revoked.
    #[error("this key was revoked and is never certified again; make a new one")]
    RevokedKey,
    /// The key is another's.
    #[error("this key is certified for {0}; every identity needs a key of its own")]
    ForeignKey(String),
    /// A key of a kind this use does not allow.
    #[error("the {0} key must be Ed25519")]
    SignerKey(&'static str),
    /// A field that does not hold what it should.
    #[error("{field}: {why}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The clock of this machine stands before the newest record.
    #[error("the authority's clock stands before its newest record ({newest}); set it right")]
    Clock {
        /// The newest record's time.
        newest: Timestamp,
    },
    /// The log takes no more until the disk has room.
    #[error("the log cannot grow now ({0}); ask again later")]
    LogFull(String),
    /// Only the reserve is left, and this is not what it is kept for.
    #[error(
        "the authority's disk is nearly full: the last {0} bytes are kept for revocations; free some space, or set \
         `limits.disk_reserve`"
    )]
    Reserved(u64),
    /// The record would be longer than the log takes.
    #[error("this makes a record of {length} bytes, the log takes {limit}; ask for less at once")]
    RecordTooLarge {
        /// Its bytes.
        length: usize,
        /// The most it may have.
        limit: usize,
    },
    /// Renewed too often.
    #[error("{who} renews too often; ask again in {} s", after.as_secs().saturating_add(1))]
    TooOften {
        /// Who.
        who: SpiffeId,
        /// When there will be another.
        after: Duration,
    },
    /// Renewed while many certificates are still in force.
    #[error(
        "{who} has {most} certificates in force, which is as many as `limits.certificates_each` allows; \
         renew again when the first ends, at {until}, or have some revoked"
    )]
    TooMany {
        /// Who.
        who: SpiffeId,
        /// The limit.
        most: usize,
        /// When the first of them ends.
        until: Timestamp,
    },
    /// Staged but not durable in time; it may still become so.
    #[error(
        "the record did not become durable in time; look whether it happened before asking again"
    )]
    NotDurable,
    /// Our own fault.
    #[error("the authority failed: {0}")]
    Internal(String),
}

/// What a refusal means for the asker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The caller may not.
    Denied,
    /// It does not exist.
    NotFound,
    /// It exists already.
    Exists,
    /// Not as things stand.
    Precondition,
    /// Never, as asked.
    Invalid,
    /// Something changed meanwhile: ask again.
    Aborted,
    /// The caller takes too much.
    Exhausted,
    /// Not now.
    Unavailable,
    /// Our fault.
    Internal,
}

/// `a`, `a and b`, `a, b and c`.
fn listed(things: &[&str]) -> String {
    match things {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

impl Refusal {
    /// What it means for the asker.
    pub fn meaning(&self) -> Meaning {
        match self {
            Self::Caller { .. }
            | Self::Role { .. }
            | Self::Kind { .. }
            | Self::BeyondGrant { .. } => Meaning::Denied,
            Self::UnknownAgent(_)
            | Self::UnknownOwner(_)
            | Self::UnknownPerson(_)
            | Self::UnknownSerial(_)
            | Self::UnknownEnforcer(_) => Meaning::NotFound,
            Self::EnforcerExists(_) => Meaning::Exists,
            Self::Ambiguous { .. }
            | Self::EnforcerRemoved(_)
            | Self::RemovedAlready(_)
            | Self::Revoked(_)
            | Self::NotRevoked(_)
            | Self::LastAdmin(_)
            | Self::PersonRemoved(_)
            | Self::OtherOwner { .. }
            | Self::NothingLeft(_)
            | Self::TooManyScopes(_)
            | Self::RevokedKey
            | Self::ForeignKey(_) => Meaning::Precondition,
            Self::FirstIssue { .. }
            | Self::SignerKey(_)
            | Self::Field { .. }
            | Self::RecordTooLarge { .. } => Meaning::Invalid,
            Self::TooOften { .. } | Self::TooMany { .. } => Meaning::Exhausted,
            Self::Changed(_) => Meaning::Aborted,
            Self::Clock { .. } | Self::LogFull(_) | Self::Reserved(_) | Self::NotDurable => {
                Meaning::Unavailable
            }
            Self::Internal(_) => Meaning::Internal,
        }
    }

    /// Not everything was given that a first grant needs: the options, and whether each was.
    pub fn first_issue(agent: Handle, needed: &[(&'static str, bool)]) -> Self {
        let missing = needed.iter().filter(|(_, given)| !given);
        Self::FirstIssue {
            agent,
            missing: missing.map(|(option, _)| *option).collect(),
        }
    }

    /// A field that does not hold what it should.
    pub fn field(field: &'static str, why: impl ToString) -> Self {
        Self::Field {
            field,
            why: why.to_string(),
        }
    }
}
