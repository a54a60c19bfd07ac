//! Finds the one agent, or the one enforcer, that a name means.

use agentca_identity::name::Environment;

use super::Failure;
use super::args::AgentRef;
use crate::client::{Agent, Client};

/// The agent meant by `NAME` or `ENV/NAME`; several of that name are a usage error that lists them.
pub(super) async fn agent(
    client: &mut Client,
    named: &AgentRef,
    environment: Option<&Environment>,
) -> Result<Agent, Failure> {
    let environment = named.environment(environment)?;
    let within = environment
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut found = client.agents(&within, named.name.as_ref()).await?;
    match (found.pop(), found.is_empty()) {
        (Some(agent), true) => Ok(agent),
        (Some(last), false) => {
            found.push(last);
            let candidates: Vec<_> = found.iter().map(|a| (&a.environment, &a.name)).collect();
            Err(ambiguous(&candidates))
        }
        (None, _) => {
            let people = client.people().await.unwrap_or_default();
            let person = people.iter().any(|it| it.name == named.name.as_ref());
            let hint = match person {
                true => format!(
                    "; the person of that name is removed with `agentca person remove {}`",
                    named.name
                ),
                false => String::new(),
            };
            Err(Failure::refused(format!(
                "there is no agent {}, `agentca agent list` shows those there are{hint}",
                shown(named, environment.as_ref())
            )))
        }
    }
}

/// The environment of the enforcer meant by `NAME` or `ENV/NAME`.
pub(super) async fn enforcer(
    client: &mut Client,
    named: &AgentRef,
    environment: Option<&Environment>,
) -> Result<String, Failure> {
    let environment = named.environment(environment)?;
    if let Some(environment) = environment {
        return Ok(environment.to_string());
    }
    let mut found = client.enforcers().await?;
    found.retain(|e| e.name == named.name.as_ref());
    match found.as_slice() {
        [one] => Ok(one.environment.clone()),
        [] => Err(Failure::refused(format!(
            "there is no enforcer {named}, `agentca enforcer list` shows those there are"
        ))),
        several => {
            let candidates: Vec<_> = several.iter().map(|e| (&e.environment, &e.name)).collect();
            Err(ambiguous(&candidates))
        }
    }
}

fn ambiguous(candidates: &[(&String, &String)]) -> Failure {
    let names: Vec<_> = candidates
        .iter()
        .map(|(env, name)| format!("{env}/{name}"))
        .collect();
    Failure::usage(format!(
        "which one: {}? say it with its environment",
        names.join(", ")
    ))
}

fn shown(named: &AgentRef, environment: Option<&Environment>) -> String {
    match environment {
        Some(environment) => format!("{environment}/{}", named.name),
        None => named.name.to_string(),
    }
}
