//! The pins file: which definition of each tool was approved, by whom, and what is known about it.
//!
//! A machine writes it, people read its differences: one order, one form. What a person did stands
//! beside the statement that they signed; [`Admitted`] believes nothing else.

use std::collections::BTreeSet;

use agentca_identity::spiffe::SpiffeId;
use agentca_identity::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::approval::{Action, Approval, StatementError, Subject};
use crate::assessment::Assessment;
use crate::definition::{DefinitionError, ToolDefinition};
use crate::digest::{digest_text, parse_digest};
use crate::dsse::Envelope;
use crate::moment;

mod admit;

pub use self::admit::{Admitted, PinsError, Signers};

/// The name in `approved.by` of what no person looked at.
pub const SCAN: &str = "scan";

/// A file of pins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PinsFile {
    /// What may be called; one of each tool.
    pub pins: Vec<Pin>,
    /// What a person rejected.
    pub rejections: Vec<Rejection>,
    /// What assessors found out, as they signed it.
    pub assessments: Vec<Envelope>,
}

/// An approved definition of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Pin {
    /// The tool's upstream.
    pub upstream: String,
    /// What was approved; it holds the tool's name.
    pub definition: ToolDefinition,
    /// Who approved it.
    pub approved: Approved,
}

impl Pin {
    /// What its statement has to be about.
    #[must_use]
    pub fn tool(&self) -> &str {
        self.definition.name()
    }
}

/// Who approved, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approved {
    /// `scan`, or a person's SPIFFE id.
    pub by: String,
    /// When.
    #[serde(deserialize_with = "moment::read")]
    pub at: Timestamp,
    /// Why.
    pub reason: String,
    /// What the person signed; `scan` signs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<Envelope>,
}

/// A definition that a person rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejection {
    /// The tool's upstream.
    pub upstream: String,
    /// The tool.
    pub tool: String,
    /// `sha256:<hex>` of the definition.
    pub digest: String,
    /// Who rejected it.
    pub rejected: Approved,
}

impl PinsFile {
    /// Reads a file and checks all that can be checked without keys.
    ///
    /// # Errors
    /// [`PinsError`]: everything that is wrong, by place.
    pub fn parse(json: &str) -> Result<Self, Vec<PinsError>> {
        let raw: RawFile<'_> = serde_json::from_str(json)
            .map_err(|error| vec![PinsError::new("", format!("it cannot be read: {error}"))])?;
        let RawFile {
            version,
            pins: raw_pins,
            rejections,
            assessments,
        } = raw;
        if version != 1 {
            let message = format!("version {version} of the file is not known here, 1 is");
            return Err(vec![PinsError::new("version", message)]);
        }
        let mut errors = Vec::new();
        let mut pins = Vec::new();
        for (number, raw) in (1_usize..).zip(raw_pins) {
            match raw.check() {
                Ok(pin) => pins.push(pin),
                Err((key, message)) => {
                    errors.push(PinsError::new(format!("pins[{number}]{key}"), message));
                }
            }
        }
        let file = Self {
            pins,
            rejections,
            assessments,
        };
        file.check(&mut errors);
        if errors.is_empty() {
            Ok(file)
        } else {
            Err(errors)
        }
    }

    /// The file's text: pins by upstream and tool, one form for one content.
    ///
    /// # Errors
    /// Of the JSON writer.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut pins: Vec<&Pin> = self.pins.iter().collect();
        pins.sort_by_key(|pin| (&pin.upstream, pin.tool()));
        let pins = pins.into_iter().map(WrittenPin::of);
        let mut rejections: Vec<&Rejection> = self.rejections.iter().collect();
        rejections
            .sort_by_key(|rejection| (&rejection.upstream, &rejection.tool, &rejection.digest));
        let mut assessments: Vec<&Envelope> = self.assessments.iter().collect();
        assessments.sort_by_cached_key(|envelope| {
            Assessment::read(envelope)
                .map(|read| {
                    (
                        read.upstream,
                        read.tool,
                        read.assessor,
                        read.at,
                        read.digest,
                    )
                })
                .ok()
        });
        let written = WrittenFile {
            version: 1,
            pins: pins.collect::<Result<_, _>>()?,
            rejections,
            assessments,
        };
        Ok(serde_json::to_string_pretty(&written)? + "\n")
    }

    /// The pin of a tool.
    #[must_use]
    pub fn pin(&self, upstream: &str, tool: &str) -> Option<&Pin> {
        self.pins
            .iter()
            .find(|pin| pin.upstream == upstream && pin.tool() == tool)
    }

    /// Puts a pin in the place of the tool's former one; what was rejected before may be approved.
    pub fn approve(&mut self, pin: Pin) {
        let digest = digest_text(&pin.definition.digest());
        let is_same = |upstream: &str, tool: &str| upstream == pin.upstream && tool == pin.tool();
        self.pins.retain(|old| !is_same(&old.upstream, old.tool()));
        self.rejections
            .retain(|old| old.digest != digest || !is_same(&old.upstream, &old.tool));
        self.pins.push(pin);
    }

    /// Notes that a definition was rejected; a pin of that very definition goes.
    pub fn reject(&mut self, rejection: Rejection) {
        let is_same =
            |upstream: &str, tool: &str| upstream == rejection.upstream && tool == rejection.tool;
        self.pins.retain(|old| {
            !is_same(&old.upstream, old.tool())
                || digest_text(&old.definition.digest()) != rejection.digest
        });
        self.rejections
            .retain(|old| old.digest != rejection.digest || !is_same(&old.upstream, &old.tool));
        self.rejections.push(rejection);
    }

    fn check(&self, errors: &mut Vec<PinsError>) {
        let mut pinned = BTreeSet::new();
        for (number, pin) in (1_usize..).zip(&self.pins) {
            if !pinned.insert((pin.upstream.as_str(), pin.tool())) {
                let message = format!("`{}:{}` is pinned twice", pin.upstream, pin.tool());
                errors.push(PinsError::new(format!("pins[{number}]"), message));
            }
        }
        for (number, rejection) in (1_usize..).zip(&self.rejections) {
            let key = format!("rejections[{number}]");
            if let Err((part, message)) = rejection.check() {
                errors.push(PinsError::new(format!("{key}{part}"), message));
            }
            let pin = self.pin(&rejection.upstream, &rejection.tool);
            if pin.is_some_and(|pin| digest_text(&pin.definition.digest()) == rejection.digest) {
                let tool = &rejection.tool;
                let message = format!("`{tool}` is both approved and rejected: remove one");
                errors.push(PinsError::new(key, message));
            }
        }
        for (number, envelope) in (1_usize..).zip(&self.assessments) {
            if let Err(error) = Assessment::read(envelope) {
                errors.push(PinsError::new(format!("assessments[{number}]"), error));
            }
        }
    }
}

impl Approved {
    /// Whether it says what its statement says, whoever signed that.
    fn check(&self, action: Action, subject: Subject<'_>) -> Result<(), Wrong> {
        if self.by == SCAN {
            return match (action, &self.statement) {
                (Action::Approve, None) => Ok(()),
                (Action::Approve, Some(_)) => Err(wrong(".by", "`scan` signs no statement")),
                (Action::Reject, _) => Err(wrong(".by", "only a person rejects")),
            };
        }
        if !matches!(self.by.parse(), Ok(SpiffeId::Person { .. })) {
            let message = format!("`{}` is neither `scan` nor a person's SPIFFE id", self.by);
            return Err(wrong(".by", message));
        }
        let Some(statement) = &self.statement else {
            let message = "is missing: what a person does is signed by them";
            return Err(wrong(".statement", message));
        };
        let said = |error: StatementError| wrong(".statement", error);
        let approval = Approval::read(statement).map_err(said)?;
        approval.check_subject(subject).map_err(said)?;
        if approval.action != action {
            return Err(wrong(".statement", "the statement says the opposite"));
        }
        if approval.at != self.at || approval.reason != self.reason {
            let message = "`at` or `reason` beside it is not what the statement says";
            return Err(wrong(".statement", message));
        }
        Ok(())
    }
}

impl Rejection {
    fn check(&self) -> Result<(), Wrong> {
        let digest = parse_digest(&self.digest)
            .ok_or_else(|| wrong(".digest", StatementError::Digest(self.digest.clone())))?;
        let subject = Subject {
            upstream: &self.upstream,
            tool: &self.tool,
            digest: &digest,
        };
        let checked = self.rejected.check(Action::Reject, subject);
        checked.map_err(|(key, message)| (format!(".rejected{key}"), message))
    }
}

/// A key below the place, and what is wrong there.
type Wrong = (String, String);

fn wrong(key: &str, message: impl ToString) -> Wrong {
    (key.to_owned(), message.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile<'a> {
    version: u64,
    #[serde(borrow)]
    pins: Vec<RawPin<'a>>,
    #[serde(default)]
    rejections: Vec<Rejection>,
    #[serde(default)]
    assessments: Vec<Envelope>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPin<'a> {
    upstream: String,
    tool: String,
    digest: String,
    #[serde(borrow)]
    definition: &'a RawValue,
    approved: Approved,
}

impl RawPin<'_> {
    fn check(self) -> Result<Pin, Wrong> {
        let Self {
            upstream,
            tool,
            digest,
            definition,
            approved,
        } = self;
        let definition = ToolDefinition::parse(definition.get())
            .map_err(|error: DefinitionError| wrong(".definition", error))?;
        let actual = definition.digest();
        if parse_digest(&digest) != Some(actual) {
            let actual = digest_text(&actual);
            let message = format!("is not that of the definition of `{tool}`, which is {actual}");
            return Err(wrong(".digest", message));
        }
        if definition.name() != tool {
            let message = format!("the definition is of the tool `{}`", definition.name());
            return Err(wrong(".tool", message));
        }
        let subject = Subject {
            upstream: &upstream,
            tool: &tool,
            digest: &actual,
        };
        let checked = approved.check(Action::Approve, subject);
        checked.map_err(|(key, message)| (format!(".approved{key}"), message))?;
        Ok(Pin {
            upstream,
            definition,
            approved,
        })
    }
}

#[derive(Serialize)]
struct WrittenFile<'a> {
    version: u32,
    pins: Vec<WrittenPin<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejections: Vec<&'a Rejection>,
    assessments: Vec<&'a Envelope>,
}

#[derive(Serialize)]
struct WrittenPin<'a> {
    upstream: &'a str,
    tool: &'a str,
    digest: String,
    /// Read again from its canonical form: numbers and order are those that are digested.
    definition: serde_json::Value,
    approved: &'a Approved,
}

impl<'a> WrittenPin<'a> {
    fn of(pin: &'a Pin) -> Result<Self, serde_json::Error> {
        Ok(Self {
            upstream: &pin.upstream,
            tool: pin.tool(),
            digest: digest_text(&pin.definition.digest()),
            definition: serde_json::from_str(pin.definition.canonical())?,
            approved: &pin.approved,
        })
    }
}

#[cfg(test)]
mod tests;
