//! People: adding one with roles.

use agentca_proto as proto;

use super::{renew, wire};
use crate::authority::change::{AddPerson, Caller, SignedCredential};
use crate::authority::core::Authority;
use crate::authority::refusal::Refusal;

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
