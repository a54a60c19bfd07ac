//! `x-mcp-header`: arguments that are repeated in headers (MCP 2026-07-28, Streamable HTTP).
//!
//! A declaration counts where the property is reached from the schema's root through `properties`
//! alone. Anywhere else, or wrong in itself, it makes the whole tool invalid.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// One argument that is repeated in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderParameter {
    /// The header is `Mcp-Param-` and this.
    pub header: String,
    /// The names that lead to the argument, from the top.
    pub path: Vec<String>,
    /// Its declared type.
    pub kind: HeaderKind,
}

/// The types that an argument in a header may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderKind {
    /// `"type": "string"`.
    String,
    /// `"type": "integer"`.
    Integer,
    /// `"type": "boolean"`.
    Boolean,
}

/// Why a declaration makes its tool invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// Not text, or no token.
    #[error("`{MARK}` at `{0}` is not a header name")]
    Name(String),
    /// The same name twice.
    #[error("`{MARK}` has the name `{0}` twice")]
    Twice(String),
    /// A type that has no form in a header.
    #[error("`{MARK}` at `{0}` is of something else than a string, an integer or a boolean")]
    Type(String),
    /// Where no argument is surely found.
    #[error("`{MARK}` at `{0}` is not reached through `properties` alone")]
    Place(String),
}

/// The member that declares one.
pub(super) const MARK: &str = "x-mcp-header";

/// Members that hold data, in which the mark means nothing.
const DATA: [&str; 5] = ["const", "default", "enum", "example", "examples"];

/// Members whose own members are named by the schema's author.
const NAMED: [&str; 6] = [
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
    "dependencies",
];

/// Every declaration of a tool's `inputSchema`.
pub(super) fn find(schema: &Map<String, Value>) -> Result<Vec<HeaderParameter>, HeaderFault> {
    if schema.contains_key(MARK) {
        return Err(HeaderFault::Place(String::new()));
    }
    let mut search = Search::default();
    search.schema(schema, true)?;
    Ok(search.found)
}

#[derive(Default)]
struct Search {
    found: Vec<HeaderParameter>,
    names: BTreeSet<String>,
    /// Members from the schema's root, for messages.
    at: Vec<String>,
    /// Names of properties from the root, as long as the place can be reached.
    path: Vec<String>,
}

impl Search {
    /// The members of a schema, whose own mark was seen to.
    fn schema(&mut self, schema: &Map<String, Value>, reachable: bool) -> Result<(), HeaderFault> {
        for (key, value) in schema {
            if key == MARK || DATA.contains(&key.as_str()) {
                continue;
            }
            self.at.push(key.clone());
            match value {
                Value::Object(members) if NAMED.contains(&key.as_str()) => {
                    let reachable = reachable && key == "properties";
                    self.named(members, reachable)?;
                }
                other => self.elsewhere(other)?,
            }
            self.at.pop();
        }
        Ok(())
    }

    /// Schemas by name, like those of `properties`.
    fn named(&mut self, members: &Map<String, Value>, reachable: bool) -> Result<(), HeaderFault> {
        for (name, value) in members {
            self.at.push(name.clone());
            match value {
                Value::Object(schema) if reachable => {
                    self.path.push(name.clone());
                    self.note(schema)?;
                    self.schema(schema, true)?;
                    self.path.pop();
                }
                other => self.elsewhere(other)?,
            }
            self.at.pop();
        }
        Ok(())
    }

    /// What no chain of `properties` leads to.
    fn elsewhere(&mut self, value: &Value) -> Result<(), HeaderFault> {
        match value {
            Value::Object(schema) if schema.contains_key(MARK) => {
                Err(HeaderFault::Place(self.place()))
            }
            Value::Object(schema) => self.schema(schema, false),
            Value::Array(members) => members.iter().try_for_each(|member| self.elsewhere(member)),
            _ => Ok(()),
        }
    }

    /// The mark of a property that is reached.
    fn note(&mut self, schema: &Map<String, Value>) -> Result<(), HeaderFault> {
        let Some(mark) = schema.get(MARK) else {
            return Ok(());
        };
        let header = match mark {
            Value::String(name) if is_token(name) => name.clone(),
            _ => return Err(HeaderFault::Name(self.place())),
        };
        // A list of types, even with one of these, has values without a form: refused.
        let kind = match schema.get("type").and_then(Value::as_str) {
            Some("string") => HeaderKind::String,
            Some("integer") => HeaderKind::Integer,
            Some("boolean") => HeaderKind::Boolean,
            _ => return Err(HeaderFault::Type(self.place())),
        };
        if !self.names.insert(header.to_ascii_lowercase()) {
            return Err(HeaderFault::Twice(header));
        }
        self.found.push(HeaderParameter {
            header,
            path: self.path.clone(),
            kind,
        });
        Ok(())
    }

    /// A JSON pointer (RFC 6901) from `inputSchema`.
    fn place(&self) -> String {
        let step = |name: &String| format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        self.at.iter().map(step).collect()
    }
}

/// A token of RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(is_tchar)
}
