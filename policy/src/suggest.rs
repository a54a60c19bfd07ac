//! A first guess at what a tool can do at worst, for a person to look at.
//!
//! Whole words count: the verbs of the name, then the things that it names, then its arguments.
//! What a server says of its tool in annotations and descriptions is a hint of somebody who may lie:
//! it raises the class and never lowers it. Unsure: the higher class.

mod lists;
mod name;
mod schema;
mod text;
mod words;

use crate::call::Risk;
use crate::definition::{Annotations, ToolDefinition};
use crate::permissions::{CodeExecution, DataAccess, Filesystem, Network, Permissions};

/// What a definition looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// What it can do at worst.
    pub risk: Risk,
    /// One sentence that says why.
    pub reason: String,
    /// What it may reach.
    pub permissions: Permissions,
    /// It may show what opens other doors: worth more trust than its class says.
    pub shows_secrets: bool,
}

/// Guesses from name, schema, annotations and description.
#[must_use]
pub fn suggest(definition: &ToolDefinition) -> Suggestion {
    let Signs { all, secret } = Signs::of(definition);
    let executes = all.iter().any(|class| class.risk == Risk::Execute);
    let Class { risk, reason } = worst(all).unwrap_or_else(unknown);
    Suggestion {
        risk,
        reason,
        permissions: permissions(definition, risk, executes),
        shows_secrets: secret,
    }
}

/// A class and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Class {
    risk: Risk,
    reason: String,
}

impl Class {
    fn new(risk: Risk, reason: impl Into<String>) -> Self {
        Self {
            risk,
            reason: reason.into(),
        }
    }
}

/// Of several signs the one that says most; of equals the first.
fn worst(signs: impl IntoIterator<Item = Class>) -> Option<Class> {
    signs
        .into_iter()
        .reduce(|kept, next| if next.risk > kept.risk { next } else { kept })
}

/// Everything that points to a class.
struct Signs {
    all: Vec<Class>,
    /// The name says that it may show secrets.
    secret: bool,
}

impl Signs {
    fn of(definition: &ToolDefinition) -> Self {
        let name::NameSays { signs, secret } = name::read(definition.name());
        let mut all = signs;
        if all.is_empty() {
            all.push(unknown());
        }
        if let Some(word) = &secret {
            let reason = format!("the name says `{word}`, which may show secrets");
            all.push(Class::new(Risk::Write, reason));
        }
        let arguments = schema::arguments(definition.schema_in());
        all.extend(arguments.iter().filter_map(|words| schema::sign(words)));
        let texts = [definition.title(), definition.description()];
        all.extend(texts.into_iter().flatten().flat_map(text::signs));
        all.extend(hints(definition.annotations()));
        Self {
            all,
            secret: secret.is_some(),
        }
    }
}

/// Nobody's word alone makes a tool harmless.
fn unknown() -> Class {
    Class::new(Risk::Write, "the name has no word that says what it does")
}

/// What its server says of it, as far as that raises.
fn hints(annotations: Annotations) -> impl Iterator<Item = Class> {
    let Annotations {
        read_only,
        destructive,
        idempotent: _,
        open_world: _,
    } = annotations;
    let destructive = (destructive == Some(true))
        .then(|| Class::new(Risk::Destructive, "its server calls it destructive"));
    let writes = (read_only == Some(false))
        .then(|| Class::new(Risk::Write, "its server says that it does not only read"));
    destructive.into_iter().chain(writes)
}

fn permissions(definition: &ToolDefinition, risk: Risk, executes: bool) -> Permissions {
    let of_data = Permissions {
        data_access: match risk {
            Risk::Read => DataAccess::Read,
            Risk::Write | Risk::Destructive | Risk::Execute | Risk::Financial => {
                DataAccess::ReadWrite
            }
        },
        ..Permissions::NONE
    };
    let mut reach = words_of(definition).max(of_data);
    if executes {
        reach.code_execution = CodeExecution::Unrestricted;
    }
    // What reads files may read; what does more may write them.
    if reach.filesystem != Filesystem::None && risk != Risk::Read {
        reach.filesystem = Filesystem::Write;
    }
    if definition.annotations().open_world == Some(true) {
        reach.network = Network::External;
    }
    reach
}

/// What words say about reach.
fn words_of(definition: &ToolDefinition) -> Permissions {
    let arguments = schema::arguments(definition.schema_in());
    let named = words::split(definition.name());
    let named = named.iter().chain(arguments.iter().flatten());
    let texts = [definition.title(), definition.description()];
    let texts: Vec<String> = texts.into_iter().flatten().flat_map(words::split).collect();
    named
        .map(|word| words::reach(word))
        .chain(texts.iter().map(|word| words::reach_of_text(word)))
        .fold(Permissions::NONE, Permissions::max)
}

#[cfg(test)]
mod tests;
