//! People, and certificates that are no agent's.

use agentca_identity::name::Name;
use agentca_identity::roles::{PersonRole, Roles};
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::SpiffeId;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{Caller, Change, Clock, Decision, judge_admins, judge_key};
use crate::authority::event::{Draft, Event};
use crate::authority::facts::Facts;
use crate::authority::handle::Holder;
use crate::authority::refusal::Refusal;
use crate::authority::state::{KeyId, State};
use crate::mint::Minted;

/// Adds a person, or gives one other roles.
#[derive(Debug)]
pub struct AddPerson {
    /// Who asks: an admin.
    pub caller: Caller,
    /// Who.
    pub person: Name,
    /// What this person may do.
    pub roles: Roles,
    /// The key to certify.
    pub key: KeyId,
}

impl Change for AddPerson {
    type Outcome = SpiffeId;

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<SpiffeId>, Refusal> {
        let Self {
            caller,
            person,
            roles,
            key,
        } = self;
        caller.demand(PersonRole::Admin, state, clock)?;
        clock.demand_right()?;
        if roles.is_empty() {
            return Err(Refusal::field("roles", "give at least one"));
        }
        judge_key(state, &key, &Holder::Person(person.clone()))?;
        let trust_domain = state.trust_domain().clone();
        let id = SpiffeId::Person {
            trust_domain,
            name: person.clone(),
        };
        let drafts = match state.person(&person) {
            Some(known) if known.roles == roles => Vec::new(),
            _ => vec![Draft::own(Event::PersonAdded {
                person: id.clone(),
                roles,
                by: caller.id,
            })],
        };
        Ok(Decision {
            drafts,
            outcome: id,
        })
    }
}

/// Takes a person's roles and ends every certificate of theirs.
#[derive(Debug)]
pub struct RemovePerson {
    /// Who asks: an admin.
    pub caller: Caller,
    /// Who.
    pub person: Name,
}

impl Change for RemovePerson {
    type Outcome = SpiffeId;

    fn uses_reserve(&self) -> bool {
        true
    }

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<SpiffeId>, Refusal> {
        let Self { caller, person } = self;
        caller.demand(PersonRole::Admin, state, clock)?;
        let Some(known) = state.person(&person) else {
            return Err(Refusal::UnknownPerson(person));
        };
        let in_force = |serial| {
            let issued = state.certificate(serial);
            issued.is_some_and(|it| it.in_force(clock.now))
        };
        if known.roles.is_empty() && !known.serials.iter().any(in_force) {
            return Err(Refusal::PersonRemoved(person));
        }
        judge_admins(state, clock, &format!("person {person}"), |of, _| {
            *of == person
        })?;
        let id = SpiffeId::Person {
            trust_domain: state.trust_domain().clone(),
            name: person,
        };
        let event = Event::PersonRemoved {
            person: id.clone(),
            by: caller.id,
        };
        Ok(Decision {
            drafts: vec![Draft::own(event)],
            outcome: id,
        })
    }
}

/// Signed certificates that are no agent's, before anybody sees them.
#[derive(Debug)]
pub struct CertifyCredentials {
    /// Who asked: an admin, or whoever renews its own.
    pub caller: Caller,
    /// The certificates.
    pub credentials: Vec<SignedCredential>,
}

/// The next certificate of the authority itself.
#[derive(Debug)]
pub struct RenewOwn {
    /// The certificate.
    pub credential: SignedCredential,
}

impl Change for RenewOwn {
    type Outcome = ();

    fn uses_reserve(&self) -> bool {
        true
    }

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<()>, Refusal> {
        clock.demand_right()?;
        let own = SpiffeId::Authority {
            trust_domain: state.trust_domain().clone(),
        };
        if self.credential.subject != own {
            return Err(Refusal::Internal(
                "that is not the authority's certificate".into(),
            ));
        }
        let draft = Draft::own(self.credential.event(own));
        Ok(Decision {
            drafts: vec![draft],
            outcome: (),
        })
    }
}

/// Every role and a new certificate for a person, on the word of whoever holds the authority's keys.
#[derive(Debug)]
pub struct RecoverPerson {
    /// The certificate.
    pub credential: SignedCredential,
}

impl Change for RecoverPerson {
    type Outcome = ();

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<()>, Refusal> {
        let Self { credential } = self;
        clock.demand_right()?;
        let holder = Holder::of(&credential.subject);
        if !matches!(holder, Holder::Person(_)) {
            return Err(Refusal::Internal("that is no person's certificate".into()));
        }
        judge_key(state, &credential.facts.key, &holder)?;
        let by = SpiffeId::Authority {
            trust_domain: state.trust_domain().clone(),
        };
        let added = Event::PersonAdded {
            person: credential.subject.clone(),
            roles: Roles::all(),
            by: by.clone(),
        };
        Ok(Decision {
            drafts: vec![Draft::own(added), Draft::own(credential.event(by))],
            outcome: (),
        })
    }
}

/// A signed certificate that is no agent's.
#[derive(Clone, Debug)]
pub struct SignedCredential {
    /// What it names.
    pub subject: SpiffeId,
    /// Its serial number.
    pub serial: Serial,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// What it says.
    pub facts: Facts,
    /// The roles it carries, a person's.
    pub roles: Option<Roles>,
}

impl Change for CertifyCredentials {
    type Outcome = ();

    fn decide(self, state: &State, clock: Clock) -> Result<Decision<()>, Refusal> {
        let Self {
            caller,
            credentials,
        } = self;
        let mine = caller.check(state, clock)?.holder.clone();
        clock.demand_right()?;
        let mut drafts = Vec::with_capacity(credentials.len());
        for credential in credentials {
            let holder = Holder::of(&credential.subject);
            if !is_own(&mine, &holder) {
                caller.demand(PersonRole::Admin, state, clock)?;
            }
            stands(&holder, &credential, state)?;
            judge_key(state, &credential.facts.key, &holder)?;
            if state.certificate(&credential.serial).is_some() {
                return Err(Refusal::Internal("a serial number came up twice".into()));
            }
            drafts.push(Draft::own(credential.event(caller.id.clone())));
        }
        Ok(Decision {
            drafts,
            outcome: (),
        })
    }
}

impl SignedCredential {
    /// Of a certificate that was just made.
    pub fn new(subject: SpiffeId, minted: &Minted, roles: Option<Roles>) -> Self {
        let Minted {
            certificate, facts, ..
        } = minted;
        let (serial, facts) = (certificate.serial(), facts.clone());
        Self {
            subject,
            serial,
            certificate: certificate.der().to_vec(),
            facts,
            roles,
        }
    }

    /// What its record says.
    pub fn event(&self, by: SpiffeId) -> Event {
        Event::CredentialIssued {
            subject: self.subject.to_string(),
            serial: self.serial,
            not_after: self.facts.not_after.rfc3339(),
            certificate: BASE64_STANDARD.encode(&self.certificate),
            by,
        }
    }
}

/// Whether a certificate for `holder` renews one of `mine`.
fn is_own(mine: &Holder, holder: &Holder) -> bool {
    match (mine, holder) {
        (Holder::Enforcer(mine), Holder::Enforcer(it) | Holder::Signer(it, _)) => mine == it,
        (Holder::Person(mine), Holder::Person(it)) => mine == it,
        _ => false,
    }
}

/// Whether what is certified still stands.
fn stands(holder: &Holder, credential: &SignedCredential, state: &State) -> Result<(), Refusal> {
    let changed = || Refusal::Internal(format!("{holder} changed meanwhile; ask again"));
    let stands = match holder {
        Holder::Person(name) => state
            .person(name)
            .is_some_and(|person| Some(person.roles) == credential.roles),
        Holder::Enforcer(handle) => state.enforcer(handle).is_some_and(|known| !known.removed),
        Holder::Signer(handle, origin) => state.enforcer(handle).is_some_and(|known| {
            let response = known.log_origin.response();
            !known.removed && (*origin == known.log_origin || response.as_ref() == Ok(origin))
        }),
        Holder::Agent(_) | Holder::Authority(_) => false,
    };
    if stands { Ok(()) } else { Err(changed()) }
}
