//! How a record changes the state. Reads no clock: the record's own time is all there is.

use std::net::IpAddr;

use agentca_auditlog::merkle::Hash;
use agentca_auditlog::status::{StatusEvent, StatusRecord};
use agentca_identity::name::{DnsName, Environment};
use agentca_identity::profile::RevocationReason;
use agentca_identity::roles::Roles;
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::{LogOrigin, SpiffeId};
use agentca_identity::time::Timestamp;

use super::event::{Body, Entry, Event, WitnessedHead};
use super::facts::Facts;
use super::handle::{Handle, Holder};
use super::state::{
    Agent, Chain, Effects, Ended, Enforcer, Held, Issued, Person, REMEMBERED, Restriction,
    Revocation, RowKey, SnapshotMark, StandingGrant, State,
};

/// A record that does not follow from those before it.
#[derive(Debug, thiserror::Error)]
#[error("record {index} does not follow from those before it: {why}")]
pub struct ApplyError {
    /// Which record.
    pub index: u64,
    /// What is wrong.
    pub why: String,
}

/// Where and when a record stands.
#[derive(Clone, Copy)]
struct At {
    index: u64,
    time: Timestamp,
}

impl State {
    /// Adds one record. `leaf` is its leaf hash; `facts` what its certificate says, read again from
    /// the record when not given.
    pub fn apply(
        &mut self,
        entry: &Entry,
        leaf: &Hash,
        facts: Option<Facts>,
    ) -> Result<Effects, ApplyError> {
        let at = At {
            index: entry.index,
            time: entry.time,
        };
        let wrong = |why: String| ApplyError {
            index: at.index,
            why,
        };
        if entry.index != self.applied {
            return Err(wrong(format!("record {} was expected", self.applied)));
        }
        let mut effects = Effects::default();
        match &entry.body {
            Body::Log => Ok(()),
            Body::Own(event) => self.apply_own(at, event, &mut effects),
            Body::Status(record) => self.apply_status(at, record, leaf, facts, &mut effects),
        }
        .map_err(wrong)?;
        self.applied += 1;
        self.time = self.time.max(entry.time);
        self.forget_expired(&mut effects);
        Ok(effects)
    }

    fn apply_own(&mut self, at: At, event: &Event, effects: &mut Effects) -> Result<(), String> {
        match event {
            Event::PersonAdded {
                person,
                roles,
                by: _,
            } => {
                let name = person.name().ok_or("a person without a name")?;
                let entry = self.people.entry(name.clone());
                entry
                    .or_insert(Person {
                        roles: *roles,
                        serials: Vec::new(),
                    })
                    .roles = *roles;
                effects.rows.push(RowKey::Person(name.clone()));
            }
            Event::PersonRemoved { person, by: _ } => self.remove_person(at, person, effects)?,
            Event::AgentRegistered {
                agent,
                owner,
                by: _,
            } => {
                let handle = handle(agent)?;
                if self.agents.contains_key(&handle) {
                    return Err(format!("{handle} is registered already"));
                }
                self.owners
                    .entry(owner.clone())
                    .or_default()
                    .insert(handle.clone());
                self.agents
                    .insert(handle.clone(), Agent::new(owner.clone()));
                effects.rows.push(RowKey::Agent(handle));
            }
            Event::GrantChanged { agent, grant } => {
                let (handle, agent) = self.agent_mut(agent)?;
                agent.grant = Some(StandingGrant {
                    grant: grant.clone(),
                    record: at.index,
                });
                effects.rows.push(RowKey::Agent(handle));
            }
            Event::CredentialIssued {
                subject: _,
                serial,
                not_after: _,
                certificate,
                by: _,
            } => {
                let (subject, facts) = Facts::read(certificate)?;
                self.add_certificate(at, 0, *serial, Holder::of(&subject), facts, effects)?;
            }
            Event::CredentialRevoked {
                serial,
                subject: _,
                reason,
                by: _,
            } => {
                let reason: RevocationReason = reason.parse().map_err(|_| "no such reason")?;
                self.end_certificate(at, serial, reason, effects)?;
            }
            Event::EnforcerAdded {
                enforcer,
                dns,
                ip,
                log_origin,
                by: _,
            } => {
                self.open_enforcer(at, enforcer, dns, ip, log_origin, effects)?;
            }
            Event::EnforcerRemoved { enforcer, by: _ } => {
                let handle = handle(enforcer)?;
                let known = self
                    .enforcers
                    .get_mut(&handle)
                    .ok_or("an unknown enforcer")?;
                known.removed = true;
                let serials = known.serials.clone();
                self.end_all(
                    at,
                    &serials,
                    RevocationReason::CessationOfOperation,
                    effects,
                )?;
                effects.rows.push(RowKey::Enforcer(handle));
            }
            Event::Witnessed { heads } => {
                heads.iter().try_for_each(|head| self.hold(head, effects))?;
            }
            Event::CrlAnnounced { .. } => {}
        }
        Ok(())
    }

    fn apply_status(
        &mut self,
        at: At,
        record: &StatusRecord,
        leaf: &Hash,
        facts: Option<Facts>,
        effects: &mut Effects,
    ) -> Result<(), String> {
        let environment = &record.environment;
        self.follow(environment, record, leaf)?;
        effects.rows.push(RowKey::Chain(environment.clone()));
        effects
            .rows
            .push(RowKey::Status(environment.clone(), record.number));
        match &record.event {
            StatusEvent::EnvironmentOpened { issuers } => {
                effects.rows.push(RowKey::Issuers(environment.clone()));
                self.chain_mut(environment)?.issuers.clone_from(issuers);
            }
            StatusEvent::IssuerAdded { certificate } => {
                effects.rows.push(RowKey::Issuers(environment.clone()));
                self.chain_mut(environment)?
                    .issuers
                    .push(certificate.clone());
            }
            StatusEvent::Snapshot { digest, covers } => {
                self.chain_mut(environment)?.snapshot = Some(SnapshotMark {
                    covers: *covers,
                    digest: *digest,
                });
            }
            StatusEvent::CertificateIssued {
                serial,
                agent,
                certificate,
                ..
            } => {
                let facts = match facts {
                    Some(facts) => facts,
                    None => Facts::read_der(certificate)?.1,
                };
                let holder = Holder::of(agent);
                self.add_certificate(at, record.number, *serial, holder, facts, effects)?;
            }
            StatusEvent::AgentRevoked { agent, reason } => {
                self.revoke_agent(at, record.number, agent, *reason, effects)?;
            }
            StatusEvent::CertificateRevoked {
                serial,
                agent: _,
                reason,
            } => {
                self.end_certificate(at, serial, *reason, effects)?;
            }
            StatusEvent::AgentRestricted {
                agent,
                trust,
                scopes,
            } => {
                let (handle, agent) = self.agent_mut(agent)?;
                let lowered = trust.is_some() || scopes.is_some();
                agent.restriction = lowered.then(|| Restriction {
                    trust: *trust,
                    scopes: scopes.clone(),
                });
                effects.rows.push(RowKey::Agent(handle));
            }
            StatusEvent::AgentReinstated { agent } => {
                let (handle, agent) = self.agent_mut(agent)?;
                agent.revoked = None;
                effects.rows.push(RowKey::Agent(handle));
            }
        }
        Ok(())
    }

    /// Takes the record as the next of its environment's chain.
    fn follow(
        &mut self,
        environment: &Environment,
        record: &StatusRecord,
        leaf: &Hash,
    ) -> Result<(), String> {
        let chain = self.environments.entry(environment.clone()).or_default();
        if record.number != chain.number + 1 || record.prev != chain.hash {
            return Err(format!(
                "it does not extend the status chain of `{environment}`"
            ));
        }
        chain.number = record.number;
        chain.hash = *leaf;
        chain.records.push(record.seq);
        Ok(())
    }

    fn remove_person(
        &mut self,
        at: At,
        person: &SpiffeId,
        effects: &mut Effects,
    ) -> Result<(), String> {
        let name = person.name().ok_or("a person without a name")?;
        let known = self.people.get_mut(name).ok_or("an unknown person")?;
        known.roles = Roles::default();
        let serials = known.serials.clone();
        effects.rows.push(RowKey::Person(name.clone()));
        let reason = RevocationReason::CessationOfOperation;
        self.end_all(at, &serials, reason, effects)
    }

    fn revoke_agent(
        &mut self,
        at: At,
        number: u64,
        agent: &SpiffeId,
        reason: RevocationReason,
        effects: &mut Effects,
    ) -> Result<(), String> {
        let (handle, agent) = self.agent_mut(agent)?;
        agent.revoked = Some(Revocation {
            record: at.index,
            number,
            at: at.time,
        });
        agent.ended_before = number;
        let serials = agent.serials.clone();
        effects.rows.push(RowKey::Agent(handle));
        self.end_all(at, &serials, reason, effects)
    }

    fn open_enforcer(
        &mut self,
        at: At,
        enforcer: &SpiffeId,
        dns: &[DnsName],
        ip: &[IpAddr],
        log_origin: &LogOrigin,
        effects: &mut Effects,
    ) -> Result<(), String> {
        let handle = handle(enforcer)?;
        let earlier = self
            .enforcers
            .get(&handle)
            .map(|e| e.serials.clone())
            .unwrap_or_default();
        self.end_all(at, &earlier, RevocationReason::Superseded, effects)?;
        let entry = self.enforcers.entry(handle.clone());
        let enforcer = entry.or_insert_with(|| Enforcer::new(log_origin.clone()));
        if enforcer.log_origin != *log_origin {
            // Another generation is another log: nothing of the earlier one holds for it.
            *enforcer = Enforcer::new(log_origin.clone());
        }
        enforcer.dns = dns.to_vec();
        enforcer.ip = ip.to_vec();
        enforcer.removed = false;
        enforcer.serials = earlier;
        effects.rows.push(RowKey::Enforcer(handle));
        Ok(())
    }

    fn hold(&mut self, head: &WitnessedHead, effects: &mut Effects) -> Result<(), String> {
        let handle = handle(&head.origin.holder())?;
        let enforcer = self
            .enforcers
            .get_mut(&handle)
            .ok_or("an unknown enforcer's log")?;
        if enforcer.log_origin != head.origin || head.size < enforcer.held.size {
            return Err(format!("the witnessed head of {} went back", head.origin));
        }
        enforcer.held = Held {
            size: head.size,
            root: head.root()?,
        };
        enforcer.stale_after_ms = head.stale_after_ms.or(enforcer.stale_after_ms);
        effects.rows.push(RowKey::Enforcer(handle));
        Ok(())
    }

    fn add_certificate(
        &mut self,
        at: At,
        number: u64,
        serial: Serial,
        holder: Holder,
        facts: Facts,
        effects: &mut Effects,
    ) -> Result<(), String> {
        if self.certificates.contains_key(&serial) {
            return Err(format!("serial {serial} is issued already"));
        }
        let serials = match &holder {
            Holder::Agent(agent) => Some(
                &mut self
                    .agents
                    .get_mut(agent)
                    .ok_or("an unknown agent")?
                    .serials,
            ),
            Holder::Person(person) => Some(
                &mut self
                    .people
                    .get_mut(person)
                    .ok_or("an unknown person")?
                    .serials,
            ),
            Holder::Enforcer(handle) | Holder::Signer(handle, _) => {
                let enforcer = self
                    .enforcers
                    .get_mut(handle)
                    .ok_or("an unknown enforcer")?;
                if let (Holder::Signer(_, origin), Some(key)) = (&holder, facts.ed25519)
                    && *origin == enforcer.log_origin
                {
                    enforcer.log_keys.push((serial, key));
                }
                Some(&mut enforcer.serials)
            }
            Holder::Authority(_) => None,
        };
        if let Some(serials) = serials {
            serials.push(serial);
        }
        self.keys.insert(facts.key, serial);
        self.expiry.insert((facts.not_after, serial));
        let issued = Issued {
            holder,
            facts,
            record: at.index,
            number,
            ended: None,
        };
        self.certificates.insert(serial, issued);
        let record = at.index;
        effects.rows.push(RowKey::Certificate { record, serial });
        Ok(())
    }

    fn end_all(
        &mut self,
        at: At,
        serials: &[Serial],
        reason: RevocationReason,
        effects: &mut Effects,
    ) -> Result<(), String> {
        serials
            .iter()
            .try_for_each(|serial| self.end_certificate(at, serial, reason, effects))
    }

    /// Ends a certificate and bans its key. What has ended already keeps its first date.
    fn end_certificate(
        &mut self,
        at: At,
        serial: &Serial,
        reason: RevocationReason,
        effects: &mut Effects,
    ) -> Result<(), String> {
        let issued = self
            .certificates
            .get_mut(serial)
            .ok_or("an unknown serial")?;
        if issued.ended.is_some() {
            return Ok(());
        }
        let ended = Ended::new(at.index, at.time, reason);
        issued.ended = Some(ended);
        if self.revoked_keys.insert(issued.facts.key) {
            effects.rows.push(RowKey::RevokedKey(issued.facts.key));
        }
        let (record, serial) = (issued.record, *serial);
        effects.rows.push(RowKey::Certificate { record, serial });
        effects.ended.push(issued.as_ended(serial, &ended));
        Ok(())
    }

    /// Forgets certificates a day after their end, by the time of the newest record.
    fn forget_expired(&mut self, effects: &mut Effects) {
        while let Some((not_after, serial)) = self.expiry.first().copied() {
            if not_after + REMEMBERED >= self.time {
                return;
            }
            self.expiry.remove(&(not_after, serial));
            let Some(issued) = self.certificates.remove(&serial) else {
                continue;
            };
            let record = issued.record;
            effects.rows.push(RowKey::Certificate { record, serial });
            if self.keys.get(&issued.facts.key) == Some(&serial) {
                self.keys.remove(&issued.facts.key);
            }
            self.forget_held(&issued.holder, serial);
        }
    }

    fn forget_held(&mut self, holder: &Holder, serial: Serial) {
        let serials = match holder {
            Holder::Agent(agent) => self.agents.get_mut(agent).map(|a| &mut a.serials),
            Holder::Person(person) => self.people.get_mut(person).map(|p| &mut p.serials),
            Holder::Enforcer(enforcer) | Holder::Signer(enforcer, _) => {
                self.enforcers.get_mut(enforcer).map(|e| {
                    e.log_keys.retain(|(of, _)| *of != serial);
                    &mut e.serials
                })
            }
            Holder::Authority(_) => None,
        };
        // Certificates mostly end in the order of their issue: what is sought stands in front.
        if let Some(serials) = serials
            && let Some(position) = serials.iter().position(|held| *held == serial)
        {
            serials.remove(position);
        }
    }

    fn agent_mut(&mut self, id: &SpiffeId) -> Result<(Handle, &mut Agent), String> {
        let handle = handle(id)?;
        match self.agents.get_mut(&handle) {
            Some(agent) => Ok((handle, agent)),
            None => Err(format!("agent {handle} is unknown")),
        }
    }

    fn chain_mut(&mut self, environment: &Environment) -> Result<&mut Chain, String> {
        self.environments
            .get_mut(environment)
            .ok_or_else(|| "an unknown environment".to_owned())
    }
}

impl Agent {
    fn new(owner: agentca_identity::name::Owner) -> Self {
        Self {
            owner,
            grant: None,
            revoked: None,
            ended_before: 0,
            restriction: None,
            serials: Vec::new(),
        }
    }
}

impl Enforcer {
    fn new(log_origin: LogOrigin) -> Self {
        Self {
            dns: Vec::new(),
            ip: Vec::new(),
            log_origin,
            removed: false,
            serials: Vec::new(),
            held: Held {
                size: 0,
                root: agentca_auditlog::merkle::empty_root(),
            },
            stale_after_ms: None,
            log_keys: Vec::new(),
        }
    }
}

fn handle(id: &SpiffeId) -> Result<Handle, String> {
    Handle::of(id).ok_or_else(|| format!("{id} is neither agent nor enforcer"))
}
