//! People: adding one with roles, removing one, listing all.

use agentca_identity::name::Name;
use agentca_identity::spiffe::SpiffeId;
use agentca_proto as proto;

use super::{agents, renew, wire};
use crate::authority::change::{AddPerson, Caller, RemovePerson, SignedCredential};
use crate::authority::core::Authority;
use crate::authority::handle::Holder;
use crate::authority::refusal::Refusal;
use crate::authority::state::{Person, State};

pub(super) async fn add(
    authority: &Authority,
    caller: Caller,
    asked: proto::AddPersonRequest,
) -> Result<proto::Credential, Refusal> {
    let proto::AddPersonRequest { name, roles, csr } = asked;
    let key = wire::key("csr", &csr)?;
    let roles = wire::roles(&roles)?;
    let person = wire::text("name", &name)?;
    let change = AddPerson {
        caller: caller.clone(),
        person,
        roles,
        key: key.key_id(),
    };
    let id = authority.sequencer.submit(change)?.outcome;
    let minted = authority.mint.person(id.clone(), roles, &key)?;
    let credential = SignedCredential::new(id, &minted, Some(roles));
    let handed = renew::hand_over(authority, caller, credential, &minted).await?;
    authority.metrics.issued.increment();
    Ok(handed)
}

pub(super) async fn remove(
    authority: &Authority,
    caller: Caller,
    asked: proto::RemovePersonRequest,
) -> Result<proto::Change, Refusal> {
    let proto::RemovePersonRequest { name } = asked;
    let person = wire::text("name", &name)?;
    agents::submit(authority, RemovePerson { caller, person }).await
}

pub(super) fn list(
    authority: &Authority,
    caller: &Caller,
) -> Result<proto::ListPeopleResponse, Refusal> {
    let people = authority.sequencer.read(|state, clock| {
        caller.check(state, clock)?;
        if !matches!(caller.id, SpiffeId::Person { .. }) {
            return Err(Refusal::Kind {
                who: caller.id.clone(),
                needs: "a person",
            });
        }
        let people = state.people().iter();
        Ok(people
            .map(|(name, person)| write_person(state, name, person))
            .collect())
    })??;
    Ok(proto::ListPeopleResponse { people })
}

fn write_person(state: &State, name: &Name, person: &Person) -> proto::Person {
    let certificates = person.serials.iter().filter_map(|serial| {
        let issued = state.certificate(serial)?;
        Some(proto::PersonCertificate {
            serial: serial.as_bytes().to_vec(),
            not_before: issued.facts.not_before.millis(),
            not_after: issued.facts.not_after.millis(),
            revoked: issued.ended.is_some(),
            record: issued.record,
        })
    });
    proto::Person {
        name: name.to_string(),
        uri: Holder::Person(name.clone()).uri(state.trust_domain()),
        roles: person.roles.iter().map(|role| role.to_string()).collect(),
        certificates: certificates.collect(),
    }
}
