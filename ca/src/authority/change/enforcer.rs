//! Enforcers: adding, retiring, witnessing their logs; and what the authority announces by itself.

use std::net::IpAddr;

use agentca_auditlog::merkle::Hash;
use agentca_auditlog::status::StatusEvent;
use agentca_identity::name::{DnsName, Environment};
use agentca_identity::roles::PersonRole;
use agentca_identity::spiffe::{LogOrigin, SpiffeId};
use agentca_identity::time::Timestamp;

use super::{Caller, Change, Clock, Decision, judge_key};
use crate::authority::event::{Draft, Event, WitnessedHead};
use crate::authority::handle::{Handle, Holder};
use crate::authority::refusal::Refusal;
use crate::authority::state::{Enforcer, KeyId, State};

/// Adds an enforcer, or opens the next generation of one's log.
#[derive(Debug)]
pub struct AddEnforcer {
    /// Who asks: an admin.
    pub caller: Caller,
    /// Which enforcer.
    pub enforcer: Handle,
    /// DNS names in its certificate.
    pub dns: Vec<DnsName>,
    /// IP addresses in its certificate.
    pub ip: Vec<IpAddr>,
    /// The keys of its TLS certificate, its log and its responses.
    pub keys: EnforcerKeys,
    /// What to do about a log that is there already.
    pub log: LogChoice,
    /// Our issuing CAs, DER: what an environment is opened with.
    pub issuers: Vec<Vec<u8>>,
}

/// An enforcer's three keys.
#[derive(Clone, Copy, Debug)]
pub struct EnforcerKeys {
    /// For TLS.
    pub tls: KeyId,
    /// For its log.
    pub log: KeyId,
    /// For its responses.
    pub response: KeyId,
}

/// What to do about a log that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogChoice {
    /// Go on with it.
    Keep,
    /// It is lost: open its next generation.
    Next,
}

impl Change for AddEnforcer {
    type Outcome = LogOrigin;

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<LogOrigin>, Refusal> {
        self.caller.demand(PersonRole::Admin, state, clock)?;
        clock.demand_right()?;
        let origin = self.origin(state, clock)?;
        let response = origin.response().map_err(internal)?;
        let EnforcerKeys {
            tls,
            log,
            response: response_key,
        } = self.keys;
        if tls == log || tls == response_key || log == response_key {
            return Err(Refusal::field(
                "keys",
                "an enforcer's three keys must differ",
            ));
        }
        let holders = [
            (tls, Holder::Enforcer(self.enforcer.clone())),
            (log, Holder::Signer(self.enforcer.clone(), origin.clone())),
            (
                response_key,
                Holder::Signer(self.enforcer.clone(), response),
            ),
        ];
        holders
            .iter()
            .try_for_each(|(key, holder)| judge_key(state, key, holder))?;
        let mut drafts = Vec::with_capacity(2);
        if state.chain(&self.enforcer.environment).is_none() {
            let opened = StatusEvent::EnvironmentOpened {
                issuers: self.issuers,
            };
            let by = Some(self.caller.id.clone());
            drafts.push(Draft::status(self.enforcer.environment.clone(), by, opened));
        }
        drafts.push(Draft::own(Event::EnforcerAdded {
            enforcer: self.enforcer.enforcer(state.trust_domain()),
            dns: self.dns,
            ip: self.ip,
            log_origin: origin.clone(),
            by: self.caller.id,
        }));
        Ok(Decision {
            drafts,
            outcome: origin,
        })
    }
}

impl AddEnforcer {
    /// The origin of its log: a generation that was ever removed or lost is never used again.
    fn origin(&self, state: &State, clock: Clock) -> Result<LogOrigin, Refusal> {
        let Some(known) = state.enforcer(&self.enforcer) else {
            let Handle { environment, name } = self.enforcer.clone();
            return Ok(LogOrigin::enforcer(
                state.trust_domain().clone(),
                environment,
                name,
            ));
        };
        if known.removed || self.log == LogChoice::Next {
            let generation = known.log_origin.generation().unwrap_or(1).saturating_add(1);
            return known
                .log_origin
                .with_generation(generation)
                .map_err(internal);
        }
        if has_credentials(known, state, clock) {
            return Err(Refusal::EnforcerExists(self.enforcer.clone()));
        }
        Ok(known.log_origin.clone())
    }
}

/// Whether it still has a TLS certificate to renew everything with.
fn has_credentials(enforcer: &Enforcer, state: &State, clock: Clock) -> bool {
    enforcer
        .serials
        .iter()
        .filter_map(|serial| state.certificate(serial))
        .any(|issued| matches!(issued.holder, Holder::Enforcer(_)) && issued.in_force(clock.now))
}

/// Retires an enforcer: its certificates end and it is not waited for again.
#[derive(Debug)]
pub struct RemoveEnforcer {
    /// Who asks: an admin.
    pub caller: Caller,
    /// Which enforcer.
    pub enforcer: Handle,
}

impl Change for RemoveEnforcer {
    type Outcome = SpiffeId;

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<SpiffeId>, Refusal> {
        let Self { caller, enforcer } = self;
        caller.demand(PersonRole::Admin, state, clock)?;
        match state.enforcer(&enforcer) {
            Some(known) if !known.removed => {}
            Some(_) => return Err(Refusal::EnforcerRemoved(enforcer)),
            None => return Err(Refusal::UnknownEnforcer(enforcer)),
        }
        let id = enforcer.enforcer(state.trust_domain());
        let event = Event::EnforcerRemoved {
            enforcer: id.clone(),
            by: caller.id,
        };
        Ok(Decision {
            drafts: vec![Draft::own(event)],
            outcome: id,
        })
    }
}

/// Heads to be co-signed, each proven to extend the one held before.
#[derive(Debug)]
pub struct Witness {
    /// The heads.
    pub heads: Vec<ProvenHead>,
}

/// A head with the one it was proven to extend.
#[derive(Clone, Debug)]
pub struct ProvenHead {
    /// Whose log.
    pub enforcer: Handle,
    /// Its origin.
    pub origin: LogOrigin,
    /// The size and root it was proven to extend.
    pub from: (u64, Hash),
    /// Its size and root.
    pub to: (u64, Hash),
    /// What the enforcer said of itself.
    pub stale_after_ms: Option<u64>,
}

/// Whether a head may be co-signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WitnessVerdict {
    /// It is in the record.
    Recorded,
    /// The log is held at this size by now.
    Held(u64),
    /// The log is not to be witnessed any more.
    Retired,
}

impl Change for Witness {
    type Outcome = Vec<WitnessVerdict>;

    fn decide(self, state: &State, _: Clock) -> Result<Decision<Self::Outcome>, Refusal> {
        let mut heads: Vec<WitnessedHead> = Vec::with_capacity(self.heads.len());
        let mut outcome = Vec::with_capacity(self.heads.len());
        for head in self.heads {
            let verdict = match state.enforcer(&head.enforcer) {
                Some(known) if !known.removed && known.log_origin == head.origin => {
                    let twice = heads.iter().any(|other| other.origin == head.origin);
                    if twice || (known.held.size, known.held.root) != head.from {
                        WitnessVerdict::Held(known.held.size)
                    } else {
                        WitnessVerdict::Recorded
                    }
                }
                _ => WitnessVerdict::Retired,
            };
            if verdict == WitnessVerdict::Recorded {
                let (size, root) = head.to;
                heads.push(WitnessedHead::new(
                    head.origin,
                    size,
                    &root,
                    head.stale_after_ms,
                ));
            }
            outcome.push(verdict);
        }
        let drafts = match heads.is_empty() {
            true => Vec::new(),
            false => vec![Draft::own(Event::Witnessed { heads })],
        };
        Ok(Decision { drafts, outcome })
    }
}

/// Announces the CRL whose number will be the record's index.
#[derive(Debug)]
pub struct AnnounceCrl {
    /// Which shard.
    pub shard: u16,
    /// Where it will be.
    pub uri: String,
    /// How many certificates it revokes.
    pub entries: u64,
    /// Good from.
    pub this_update: Timestamp,
    /// Good until.
    pub next_update: Timestamp,
}

impl Change for AnnounceCrl {
    type Outcome = ();

    fn decide(self, _: &State, _: Clock) -> Result<Decision<()>, Refusal> {
        let Self {
            shard,
            uri,
            entries,
            this_update,
            next_update,
        } = self;
        let event = Event::CrlAnnounced {
            shard,
            uri,
            entries,
            this_update: this_update.rfc3339(),
            next_update: next_update.rfc3339(),
        };
        Ok(Decision {
            drafts: vec![Draft::own(event)],
            outcome: (),
        })
    }
}

/// Announces a snapshot whose bytes are durable.
#[derive(Debug)]
pub struct AnnounceSnapshot {
    /// Of which environment.
    pub environment: Environment,
    /// The last status number that it includes.
    pub covers: u64,
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
}

impl Change for AnnounceSnapshot {
    /// Whether it was announced: status records may have come in between.
    type Outcome = SnapshotVerdict;

    fn decide(self, state: &State, _: Clock) -> Result<Decision<SnapshotVerdict>, Refusal> {
        let Self {
            environment,
            covers,
            digest,
        } = self;
        if state
            .chain(&environment)
            .is_none_or(|chain| chain.number != covers)
        {
            return Ok(Decision {
                drafts: Vec::new(),
                outcome: SnapshotVerdict::Overtaken,
            });
        }
        let event = StatusEvent::Snapshot { digest, covers };
        let drafts = vec![Draft::status(environment, None, event)];
        Ok(Decision {
            drafts,
            outcome: SnapshotVerdict::Announced,
        })
    }
}

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotVerdict {
    /// Its record follows the last one it covers.
    Announced,
    /// Other status records came first; it is of no use.
    Overtaken,
}

fn internal(error: impl ToString) -> Refusal {
    Refusal::Internal(error.to_string())
}
