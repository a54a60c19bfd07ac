//! A first guess at what a tool can do at worst, for a person to look at.
//!
//! Everything a server says is a hint of somebody who may lie: a hint may raise the class, and lower
//! it only where name and schema agree. Unsure: the higher class.

mod words;

use serde_json::Value;

use crate::call::Risk;
use crate::definition::{Annotations, ToolDefinition};
use crate::permissions::{CodeExecution, DataAccess, Filesystem, Network, Permissions};

use self::words::{in_name, in_schema, in_text};

/// What a definition looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// What it can do at worst.
    pub risk: Risk,
    /// One sentence that says why.
    pub reason: String,
    /// What it may reach.
    pub permissions: Permissions,
}

/// Guesses from name, schema, annotations and description.
#[must_use]
pub fn suggest(definition: &ToolDefinition) -> Suggestion {
    let hints = Hints::of(definition);
    let Class { risk, reason } = hints.class();
    Suggestion {
        risk,
        reason,
        permissions: hints.permissions(risk),
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

struct Hints {
    annotations: Annotations,
    /// What the words of the name say.
    name: Option<Class>,
    /// What the names of arguments say; never that something only reads.
    schema: Option<Class>,
    /// What the description says; never that something only reads.
    text: Option<Class>,
    reach: Permissions,
}

impl Hints {
    fn of(definition: &ToolDefinition) -> Self {
        let name = words::split(definition.name());
        let arguments = argument_names(definition.schema_in());
        let text = [definition.title(), definition.description()];
        let text: Vec<String> = text.into_iter().flatten().flat_map(words::split).collect();
        let from_name = name.iter().filter_map(|word| {
            let risk = in_name(word)?;
            Some(Class::new(risk, format!("the name says `{word}`")))
        });
        let from_schema = arguments.iter().filter_map(|word| {
            let risk = in_schema(word)?;
            let reason = format!("it takes an argument that says `{word}`");
            Some(Class::new(risk, reason))
        });
        let from_text = text.iter().filter_map(|word| {
            let risk = in_text(word)?;
            Some(Class::new(risk, format!("the description says `{word}`")))
        });
        let all = name.iter().chain(&arguments).chain(&text);
        let reach = all.fold(Permissions::NONE, |reach, word| {
            reach.max(words::reach(word))
        });
        Self {
            annotations: definition.annotations(),
            name: worst(from_name),
            schema: worst(from_schema),
            text: worst(from_text),
            reach,
        }
    }

    fn class(&self) -> Class {
        let unknown = Class::new(Risk::Write, "the name has no word that says what it does");
        let base = match &self.name {
            Some(named) => named.clone(),
            // Nobody's word alone makes a tool harmless.
            None => unknown,
        };
        let Annotations {
            read_only,
            destructive,
            idempotent: _,
            open_world: _,
        } = self.annotations;
        let raised = [
            (destructive == Some(true))
                .then(|| Class::new(Risk::Destructive, "its server calls it destructive")),
            (read_only == Some(false))
                .then(|| Class::new(Risk::Write, "its server says that it does not only read")),
        ];
        // A description names what a tool does not do, too: a server that says that it only reads is
        // believed over its own description where name and schema say the same.
        let agree = base.risk == Risk::Read && self.schema.is_none();
        let text = self
            .text
            .clone()
            .filter(|_| read_only != Some(true) || !agree);
        let signs = [self.schema.clone(), text];
        let all = std::iter::once(base).chain(signs.into_iter().chain(raised).flatten());
        let Some(class) = worst(all) else {
            return Class::new(Risk::Financial, "nothing is known about it");
        };
        class
    }

    fn permissions(&self, risk: Risk) -> Permissions {
        let by_risk = match risk {
            Risk::Read => Permissions {
                data_access: DataAccess::Read,
                ..Permissions::NONE
            },
            Risk::Write | Risk::Destructive | Risk::Financial => Permissions {
                data_access: DataAccess::ReadWrite,
                ..Permissions::NONE
            },
            Risk::Execute => Permissions {
                data_access: DataAccess::ReadWrite,
                code_execution: CodeExecution::Unrestricted,
                ..Permissions::NONE
            },
        };
        let mut reach = self.reach.max(by_risk);
        // What reads files may read; what does more may write them.
        if reach.filesystem != Filesystem::None && risk != Risk::Read {
            reach.filesystem = Filesystem::Write;
        }
        let open_world = self.annotations.open_world;
        if open_world == Some(true) {
            reach.network = Network::External;
        }
        reach
    }
}

/// The words of every argument's name, however deep.
fn argument_names(schema: Option<&Value>) -> Vec<String> {
    fn walk(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(members) => {
                if let Some(Value::Object(properties)) = members.get("properties") {
                    found.extend(properties.keys().flat_map(|name| words::split(name)));
                }
                members.values().for_each(|member| walk(member, found));
            }
            Value::Array(members) => members.iter().for_each(|member| walk(member, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Some(schema) = schema {
        walk(schema, &mut found);
    }
    found
}

#[cfg(test)]
mod tests;
