//! Every change that can be asked for, and the judgement of each against the state.
//!
//! A change holds what was asked, validated as far as one can without the state. [`Change::decide`]
//! is a pure function: no I/O, no clock but the one it is given.

mod agent;
mod announce;
mod credential;
mod enforcer;
mod issue;
mod revoke;
mod witness;

pub use agent::{Reinstate, Restrict, SetGrant};
pub use announce::{
    AnnounceCrl, AnnounceIssuers, AnnounceSigner, AnnounceSnapshot, SnapshotVerdict,
};
pub use credential::{
    AddPerson, CertifyCredentials, RecoverPerson, RemovePerson, RenewOwn, SignedCredential,
};
pub use enforcer::{AddEnforcer, EnforcerKeys, LogChoice, RemoveEnforcer};
pub use issue::{CertifyAgent, IssuePlan, PlanIssue, RenewalRights, renewal_rights};
pub use revoke::{Revoke, RevokeTarget, Revoked};
pub use witness::{ProvenHead, Witness, WitnessVerdict};

use agentca_identity::name::Name;
use agentca_identity::roles::PersonRole;
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::time::Timestamp;

use super::event::Draft;
use super::handle::{Handle, Holder};
use super::refusal::Refusal;
use super::state::{Issued, KeyId, State};

/// Something asked for, to be judged under the sequencer's lock.
pub trait Change {
    /// What the asker learns besides the records' indexes.
    type Outcome;

    /// Judges the change against everything staged so far.
    fn decide(self, state: &State, clock: Clock) -> Result<Decision<Self::Outcome>, Refusal>;

    /// Whether it is taken while only the reserve of the disk is left: what ends or narrows rights, and
    /// the authority's own upkeep, whose amount nobody else decides.
    fn uses_reserve(&self) -> bool {
        false
    }
}

/// What was decided.
#[derive(Debug)]
pub struct Decision<T> {
    /// The records to write, in order.
    pub drafts: Vec<Draft>,
    /// What the asker learns.
    pub outcome: T,
}

/// The time of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The later of this machine's clock and the newest record.
    pub now: Timestamp,
    /// Whether this machine's clock stands more than a minute before the newest record.
    pub behind: bool,
}

impl Clock {
    /// Refuses to issue on a clock that went back.
    fn demand_right(self) -> Result<(), Refusal> {
        if self.behind {
            Err(Refusal::Clock { newest: self.now })
        } else {
            Ok(())
        }
    }
}

/// Who asks, by the certificate of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What it names.
    pub id: SpiffeId,
    /// Its serial number.
    pub serial: Serial,
}

impl Caller {
    /// The caller's certificate, if we issued it and it is in force.
    pub fn check<'a>(&self, state: &'a State, clock: Clock) -> Result<&'a Issued, Refusal> {
        let refuse = |why| Refusal::Caller {
            serial: self.serial,
            why,
        };
        let issued = state
            .certificate(&self.serial)
            .filter(|issued| issued.holder == Holder::of(&self.id))
            .ok_or_else(|| refuse("is not in the authority's log; ask for a new one"))?;
        if issued.ended.is_some() {
            return Err(refuse("is revoked; ask an admin for a new one"));
        }
        if !issued.in_force(clock.now) {
            return Err(refuse("has expired; ask for a new one"));
        }
        Ok(issued)
    }

    /// Demands a person whose roles allow what `role` allows.
    pub fn demand(&self, role: PersonRole, state: &State, clock: Clock) -> Result<(), Refusal> {
        self.check(state, clock)?;
        let SpiffeId::Person { name, .. } = &self.id else {
            return Err(Refusal::Kind {
                who: self.id.clone(),
                needs: "a person",
            });
        };
        match state.person(name) {
            Some(person) if person.roles.permits(role) => Ok(()),
            _ => Err(Refusal::Role {
                needs: role,
                who: self.id.clone(),
            }),
        }
    }

    /// Demands an enforcer that was not removed.
    pub fn demand_enforcer(&self, state: &State, clock: Clock) -> Result<Handle, Refusal> {
        let refuse = || Refusal::Kind {
            who: self.id.clone(),
            needs: "an enforcer",
        };
        self.check(state, clock)?;
        let (SpiffeId::Enforcer { .. }, Some(handle)) = (&self.id, Handle::of(&self.id)) else {
            return Err(refuse());
        };
        match state.enforcer(&handle) {
            Some(enforcer) if !enforcer.removed => Ok(handle),
            _ => Err(Refusal::EnforcerRemoved(handle)),
        }
    }
}

/// Refuses another certificate to an identity that has `most` of them in force. Whoever may issue is
/// not bounded: that role makes as many as it likes in any case.
pub fn judge_number(
    caller: &Caller,
    most: usize,
    state: &State,
    clock: Clock,
) -> Result<(), Refusal> {
    let serials = match Holder::of(&caller.id) {
        Holder::Agent(agent) => state.agent(&agent).map(|it| &it.serials),
        Holder::Person(person) => state
            .person(&person)
            .filter(|it| !it.roles.permits(PersonRole::Issuer))
            .map(|it| &it.serials),
        Holder::Enforcer(enforcer) => state.enforcer(&enforcer).map(|it| &it.serials),
        Holder::Signer(..) | Holder::Authority(_) => None,
    };
    let (mut running, mut until) = (0, Timestamp::MAX);
    // The newest first: of those that renew most the oldest have long ended.
    for serial in serials.into_iter().flatten().rev() {
        let issued = state.certificate(serial);
        let Some(issued) = issued.filter(|it| it.in_force(clock.now)) else {
            continue;
        };
        running += 1;
        until = until.min(issued.facts.not_after);
        if running >= most {
            return Err(Refusal::TooMany {
                who: caller.id.clone(),
                most,
                until,
            });
        }
    }
    Ok(())
}

/// Refuses to end what `ends` of admins' certificates when no other would be in force: then nobody could
/// administer.
fn judge_admins(
    state: &State,
    clock: Clock,
    what: &str,
    ends: impl Fn(&Name, &Serial) -> bool,
) -> Result<(), Refusal> {
    let admins = state.people().iter();
    let admins = admins.filter(|(_, person)| person.roles.contains(PersonRole::Admin));
    let held = admins.flat_map(|(name, person)| person.serials.iter().map(move |it| (name, it)));
    let in_force = held.filter(|(_, serial)| {
        let issued = state.certificate(serial);
        issued.is_some_and(|it| it.in_force(clock.now))
    });
    let (ending, staying): (Vec<_>, Vec<_>) =
        in_force.partition(|(name, serial)| ends(name, serial));
    if staying.is_empty() && !ending.is_empty() {
        return Err(Refusal::LastAdmin(what.to_owned()));
    }
    Ok(())
}

/// Refuses a key that was revoked, or is certified for somebody else.
fn judge_key(state: &State, key: &KeyId, holder: &Holder) -> Result<(), Refusal> {
    if state.revoked_keys.contains(key) {
        return Err(Refusal::RevokedKey);
    }
    match state
        .keys
        .get(key)
        .and_then(|serial| state.certificate(serial))
    {
        Some(issued) if issued.holder != *holder => {
            Err(Refusal::ForeignKey(issued.holder.to_string()))
        }
        _ => Ok(()),
    }
}
