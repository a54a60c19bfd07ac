//! A tool as an MCP server lists it, read once and strictly.

mod headers;
mod scan;

use serde_json::{Map, Value};

use agentca_identity::crypto::sha256;

use crate::json::{JsonError, JsonLimits, check};

pub use self::headers::{HeaderFault, HeaderKind, HeaderParameter};
pub use self::scan::{DefinitionScanner, ScannedDefinition};

/// The longest definition, in bytes.
pub const MAX_DEFINITION: usize = 1 << 20;

/// What a definition may take.
const LIMITS: JsonLimits = JsonLimits {
    depth: 64,
    values: 50_000,
};

/// One member of a `tools/list` result.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolDefinition {
    name: String,
    canonical: String,
    digest: [u8; 32],
    value: Map<String, Value>,
    annotations: Annotations,
    headers: Vec<HeaderParameter>,
}

/// What a server says about its tool's nature: a hint, never trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// It changes nothing.
    pub read_only: Option<bool>,
    /// It may remove or overwrite.
    pub destructive: Option<bool>,
    /// Twice does no more than once.
    pub idempotent: Option<bool>,
    /// It reaches what nobody knows.
    pub open_world: Option<bool>,
}

impl ToolDefinition {
    /// Reads one tool object.
    ///
    /// # Errors
    /// [`DefinitionError`]: such a tool is withheld.
    pub fn parse(json: &str) -> Result<Self, DefinitionError> {
        if json.len() > MAX_DEFINITION {
            return Err(DefinitionError::TooLong);
        }
        check(json.as_bytes(), LIMITS)?;
        let value: Value =
            serde_json::from_str(json).map_err(|error| JsonError::Syntax(error.to_string()))?;
        check_numbers(&value)?;
        let canonical = canonical_text(&value)?;
        // As it was digested: `1.0` and `1` are no difference to show to anybody.
        let value = serde_json::from_str(&canonical)
            .map_err(|error| JsonError::Syntax(error.to_string()))?;
        let Value::Object(value) = value else {
            return Err(DefinitionError::NotAnObject);
        };
        let name = match value.get("name") {
            Some(Value::String(name)) if !name.is_empty() => name.clone(),
            _ => return Err(DefinitionError::Name),
        };
        for key in ["title", "description"] {
            if value.get(key).is_some_and(|text| !text.is_string()) {
                return Err(DefinitionError::NotText(key));
            }
        }
        let annotations = read_annotations(value.get("annotations"))?;
        let headers = match value.get("inputSchema") {
            None => Vec::new(),
            Some(Value::Object(schema)) => headers::find(schema)?,
            Some(_) => return Err(DefinitionError::Schema("inputSchema")),
        };
        if !matches!(
            value.get("outputSchema"),
            None | Some(Value::Object(_) | Value::Bool(_))
        ) {
            return Err(DefinitionError::Schema("outputSchema"));
        }
        Ok(Self {
            name,
            digest: sha256(canonical.as_bytes()),
            canonical,
            value,
            annotations,
            headers,
        })
    }

    /// The tool's name, as the server calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of [`ToolDefinition::canonical`].
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The whole object, every member, in the canonical form of RFC 8785.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// What the server hints at.
    #[must_use]
    pub fn annotations(&self) -> Annotations {
        self.annotations
    }

    /// The title for people.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.value.get("title")?.as_str()
    }

    /// What the model is told.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.value.get("description")?.as_str()
    }

    /// The members of the object.
    #[must_use]
    pub fn members(&self) -> &Map<String, Value> {
        &self.value
    }

    /// The schema of the arguments.
    #[must_use]
    pub fn schema_in(&self) -> Option<&Value> {
        self.value.get("inputSchema")
    }

    /// The schema of structured results.
    #[must_use]
    pub fn schema_out(&self) -> Option<&Value> {
        self.value.get("outputSchema")
    }

    /// SHA-256 of the arguments' schema in its canonical form.
    #[must_use]
    pub fn schema_in_digest(&self) -> Option<[u8; 32]> {
        part_digest(self.schema_in()?)
    }

    /// SHA-256 of the results' schema in its canonical form.
    #[must_use]
    pub fn schema_out_digest(&self) -> Option<[u8; 32]> {
        part_digest(self.schema_out()?)
    }

    /// The arguments that are repeated in `Mcp-Param-*` headers.
    #[must_use]
    pub fn header_parameters(&self) -> &[HeaderParameter] {
        &self.headers
    }

    /// The names of the arguments that the schema declares at its top level.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        let properties = self.schema_in().and_then(|schema| schema.get("properties"));
        properties
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|properties| properties.keys().map(String::as_str))
    }
}

/// Why a definition was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// Over [`MAX_DEFINITION`].
    #[error("it is longer than {MAX_DEFINITION} bytes")]
    TooLong,
    /// No JSON with one reading.
    #[error("{0}")]
    Json(#[from] JsonError),
    /// Something else than an object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// No name.
    #[error("`name` is missing, empty or not text")]
    Name,
    /// A title or description that is not text.
    #[error("`{0}` is not text")]
    NotText(&'static str),
    /// An annotation of another type.
    #[error("`annotations.{0}` is neither true nor false")]
    Annotation(&'static str),
    /// Annotations that are no object.
    #[error("`annotations` is not an object")]
    Annotations,
    /// A schema that is none.
    #[error("`{0}` is not a schema")]
    Schema(&'static str),
    /// A number whose digest would not tell it from its neighbours.
    #[error("the number {0} is beyond 2^53, where not every reader finds the same")]
    Number(String),
    /// An `x-mcp-header` that makes the tool invalid.
    #[error("{0}")]
    Header(#[from] HeaderFault),
}

fn read_annotations(value: Option<&Value>) -> Result<Annotations, DefinitionError> {
    let members = match value {
        None => return Ok(Annotations::default()),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(DefinitionError::Annotations),
    };
    let hint = |key: &'static str| match members.get(key) {
        None => Ok(None),
        Some(Value::Bool(hint)) => Ok(Some(*hint)),
        Some(_) => Err(DefinitionError::Annotation(key)),
    };
    Ok(Annotations {
        read_only: hint("readOnlyHint")?,
        destructive: hint("destructiveHint")?,
        idempotent: hint("idempotentHint")?,
        open_world: hint("openWorldHint")?,
    })
}

/// Numbers are compared as doubles (RFC 8785); beyond 2^53 two of them may be one.
fn check_numbers(value: &Value) -> Result<(), DefinitionError> {
    const LARGEST: f64 = 9_007_199_254_740_991.0;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(double) if double.abs() <= LARGEST => Ok(()),
            _ => Err(DefinitionError::Number(number.to_string())),
        },
        Value::Array(members) => members.iter().try_for_each(check_numbers),
        Value::Object(members) => members.values().try_for_each(check_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

fn canonical_text(value: &Value) -> Result<String, DefinitionError> {
    serde_json_canonicalizer::to_string(value)
        .map_err(|error| JsonError::Syntax(error.to_string()).into())
}

/// A part of what was canonical as a whole.
fn part_digest(part: &Value) -> Option<[u8; 32]> {
    Some(sha256(canonical_text(part).ok()?.as_bytes()))
}

#[cfg(test)]
mod tests;
