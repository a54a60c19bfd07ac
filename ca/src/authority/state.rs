//! What stands now: everything a decision needs, in memory.
//!
//! The state is the sum of the log's records and of nothing else: [`State::apply`] is the one way to
//! change it, live and in replay alike, and reads no clock, so that replaying a log gives the same
//! state. What changed is returned as [`Effects`], for the index, the feed and the CRL.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use agentca_auditlog::merkle::Hash;
use agentca_identity::grant::Grant;
use agentca_identity::name::{DnsName, Environment, Name, Owner, TrustDomain};
use agentca_identity::profile::RevocationReason;
use agentca_identity::roles::Roles;
use agentca_identity::scope::ScopeSet;
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;
use agentca_identity::trust::TrustLevel;
use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::handle::{Handle, Holder};
use super::refusal::Refusal;

/// SHA-256 of a key's SubjectPublicKeyInfo.
pub type KeyId = [u8; 32];

/// How long an expired certificate is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// What stands now.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub(super) trust_domain: TrustDomain,
    /// How many records are in here: the index of the next one.
    pub(super) applied: u64,
    /// The newest record's time.
    pub(super) time: Timestamp,
    pub(super) agents: BTreeMap<Handle, Agent>,
    pub(super) owners: HashMap<Owner, BTreeSet<Handle>>,
    pub(super) people: BTreeMap<Name, Person>,
    pub(super) enforcers: BTreeMap<Handle, Enforcer>,
    pub(super) certificates: HashMap<Serial, Issued>,
    /// When which certificate ends, for forgetting it in order.
    pub(super) expiry: BTreeSet<(Timestamp, Serial)>,
    /// The newest certificate of each key.
    pub(super) keys: HashMap<KeyId, Serial>,
    pub(super) revoked_keys: HashSet<KeyId>,
    pub(super) environments: BTreeMap<Environment, Chain>,
}

/// A registered agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Who answers for it.
    pub owner: Owner,
    /// What it may be issued; none before its first grant.
    pub grant: Option<StandingGrant>,
    /// Its revocation, until it is reinstated.
    pub revoked: Option<Revocation>,
    /// The status number of its newest revocation, reinstated or not: it ends every certificate
    /// with a smaller one. 0 when it was never revoked.
    pub ended_before: u64,
    /// A live lowering of its rights.
    pub restriction: Option<Restriction>,
    /// Its certificates, oldest first, without those forgotten.
    #[serde(skip)]
    pub serials: Vec<Serial>,
}

/// A grant and the record that made it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StandingGrant {
    /// What may be issued.
    pub grant: Grant,
    /// The record's index: what certificates carry.
    pub record: u64,
}

/// That an agent is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The record's index.
    pub record: u64,
    /// The status number of its environment.
    pub number: u64,
    /// Since when.
    pub at: Timestamp,
}

/// A live lowering of an agent's rights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restriction {
    /// Highest trust level.
    pub trust: Option<TrustLevel>,
    /// Widest scopes.
    pub scopes: Option<ScopeSet>,
}

/// A person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// What this person may do.
    pub roles: Roles,
    /// The person's certificates, oldest first, without those forgotten.
    #[serde(skip)]
    pub serials: Vec<Serial>,
}

/// An enforcer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Enforcer {
    /// DNS names in its certificate.
    pub dns: Vec<DnsName>,
    /// IP addresses in its certificate.
    pub ip: Vec<IpAddr>,
    /// The origin of its log, in its present generation.
    pub log_origin: LogOrigin,
    /// Whether it was removed.
    pub removed: bool,
    /// Its certificates, its signers' included, oldest first, without those forgotten.
    #[serde(skip)]
    pub serials: Vec<Serial>,
    /// The head of its log that was witnessed last.
    pub held: Held,
    /// Its `stale_after`, as it last said.
    pub stale_after_ms: Option<u64>,
    /// The Ed25519 keys certified for its present log.
    #[serde(skip)]
    pub log_keys: Vec<(Serial, [u8; 32])>,
}

/// A witnessed head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// How many records; 0 for a log that was just registered.
    pub size: u64,
    /// The Merkle root over them.
    pub root: Hash,
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Issued {
    /// Whose.
    pub holder: Holder,
    /// What the certificate says.
    pub facts: Facts,
    /// The record's index.
    pub record: u64,
    /// The status number in its environment; 0 for what is not an agent's.
    pub number: u64,
    /// Its revocation.
    pub ended: Option<Ended>,
}

/// That a certificate is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The record's index.
    pub record: u64,
    /// Since when.
    pub at: Timestamp,
    /// Why.
    pub reason: RevocationReason,
}

/// The chain of status records of one environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    /// The newest status number; the first is 1.
    pub number: u64,
    /// The leaf hash of the newest status record.
    pub hash: Hash,
    /// The certificates of the CAs that issue for this environment, DER.
    #[serde(skip)]
    pub issuers: Vec<Vec<u8>>,
    /// The newest snapshot.
    pub snapshot: Option<SnapshotMark>,
    /// The log index of each status record, by number less one.
    #[serde(skip)]
    pub records: Vec<u64>,
}

/// Where a snapshot stands in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMark {
    /// The last status number that it includes.
    pub covers: u64,
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
}

/// What a record changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// What is to be written anew, or deleted, in the index.
    pub rows: Vec<RowKey>,
    /// Certificates that ended, for the CRL.
    pub ended: Vec<EndedCertificate>,
}

/// A certificate that was revoked, as a CRL lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedCertificate {
    /// Which.
    pub serial: Serial,
    /// Since when.
    pub at: Timestamp,
    /// Why.
    pub reason: RevocationReason,
    /// After this it needs no entry.
    pub not_after: Timestamp,
    /// The CRL shard it names; none for signers, which no CRL lists.
    pub shard: Option<u16>,
}

/// What one row of the index is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// An agent.
    Agent(Handle),
    /// A person.
    Person(Name),
    /// An enforcer.
    Enforcer(Handle),
    /// A certificate, by the record that issued it.
    Certificate {
        /// The record's index.
        record: u64,
        /// Its serial number.
        serial: Serial,
    },
    /// A revoked key.
    RevokedKey(KeyId),
    /// An environment's chain.
    Chain(Environment),
    /// The issuing CAs of an environment.
    Issuers(Environment),
    /// Where the status record of that number is.
    Status(Environment, u64),
}

impl State {
    /// Before the first record.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            applied: 0,
            time: Timestamp::MIN,
            agents: BTreeMap::new(),
            owners: HashMap::new(),
            people: BTreeMap::new(),
            enforcers: BTreeMap::new(),
            certificates: HashMap::new(),
            expiry: BTreeSet::new(),
            keys: HashMap::new(),
            revoked_keys: HashSet::new(),
            environments: BTreeMap::new(),
        }
    }

    /// The tenant.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// How many records are in here: the index of the next one.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The newest record's time.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// An agent.
    pub fn agent(&self, handle: &Handle) -> Option<&Agent> {
        self.agents.get(handle)
    }

    /// Every agent in order.
    pub fn agents(&self) -> &BTreeMap<Handle, Agent> {
        &self.agents
    }

    /// Agents of that owner in order.
    pub fn owned_by(&self, owner: &Owner) -> impl Iterator<Item = &Handle> {
        self.owners.get(owner).into_iter().flatten()
    }

    /// A person.
    pub fn person(&self, name: &Name) -> Option<&Person> {
        self.people.get(name)
    }

    /// Every person in order.
    pub fn people(&self) -> &BTreeMap<Name, Person> {
        &self.people
    }

    /// An enforcer.
    pub fn enforcer(&self, handle: &Handle) -> Option<&Enforcer> {
        self.enforcers.get(handle)
    }

    /// Every enforcer in order.
    pub fn enforcers(&self) -> &BTreeMap<Handle, Enforcer> {
        &self.enforcers
    }

    /// A certificate, until a day after its end.
    pub fn certificate(&self, serial: &Serial) -> Option<&Issued> {
        self.certificates.get(serial)
    }

    /// How many certificates are remembered.
    pub fn certificate_count(&self) -> usize {
        self.certificates.len()
    }

    /// The chain of an environment.
    pub fn chain(&self, environment: &Environment) -> Option<&Chain> {
        self.environments.get(environment)
    }

    /// Every environment's chain.
    pub fn chains(&self) -> &BTreeMap<Environment, Chain> {
        &self.environments
    }

    /// Every revoked certificate that is remembered.
    pub fn ended(&self) -> impl Iterator<Item = EndedCertificate> {
        self.certificates.iter().filter_map(|(serial, issued)| {
            issued.ended.map(|ended| issued.as_ended(*serial, &ended))
        })
    }

    /// Every CRL shard that a remembered certificate names.
    pub fn shards(&self) -> impl Iterator<Item = u16> {
        self.certificates
            .values()
            .filter_map(|issued| issued.facts.shard)
    }

    /// The agents that a name means: in one environment, or in any.
    pub fn select(
        &self,
        environment: Option<&Environment>,
        name: &Name,
    ) -> Result<(Handle, &Agent), Refusal> {
        let environments: Vec<&Environment> = match environment {
            Some(one) => vec![one],
            None => self.environments.keys().collect(),
        };
        let mut found: Vec<(Handle, &Agent)> = environments
            .into_iter()
            .map(|environment| Handle {
                environment: environment.clone(),
                name: name.clone(),
            })
            .filter_map(|handle| self.agents.get(&handle).map(|agent| (handle, agent)))
            .collect();
        match (found.pop(), found.is_empty()) {
            (Some(one), true) => Ok(one),
            (Some((last, _)), false) => {
                let mut candidates: Vec<Handle> = found.into_iter().map(|(h, _)| h).collect();
                candidates.push(last);
                Err(Refusal::Ambiguous {
                    name: name.to_string(),
                    candidates,
                })
            }
            (None, _) => Err(Refusal::UnknownAgent(match environment {
                Some(environment) => format!("{environment}/{name}"),
                None => name.to_string(),
            })),
        }
    }
}

impl Issued {
    /// Whether it is neither revoked nor expired at that time.
    pub fn in_force(&self, now: Timestamp) -> bool {
        self.ended.is_none() && self.facts.not_before <= now && now <= self.facts.not_after
    }

    pub(super) fn as_ended(&self, serial: Serial, ended: &Ended) -> EndedCertificate {
        EndedCertificate {
            serial,
            at: ended.at,
            reason: ended.reason,
            not_after: self.facts.not_after,
            shard: self.facts.shard,
        }
    }
}

impl Restriction {
    /// Whether certificate rights stay within it.
    pub fn covers(&self, scopes: &ScopeSet, trust: TrustLevel) -> bool {
        self.trust.is_none_or(|highest| trust <= highest)
            && self
                .scopes
                .as_ref()
                .is_none_or(|widest| scopes.is_within(widest))
    }
}

impl Ended {
    pub(super) fn new(record: u64, at: Timestamp, reason: RevocationReason) -> Self {
        Self { record, at, reason }
    }
}
