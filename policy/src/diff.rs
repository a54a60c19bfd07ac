//! What changed between two definitions of a tool, for the person who has to decide.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::call::Risk;
use crate::definition::ToolDefinition;
use crate::permissions::Rise;
use crate::suggest::suggest;

/// The part of a definition that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The name.
    Name,
    /// The title for people.
    Title,
    /// What the model is told.
    Description,
    /// The arguments' schema.
    InputSchema,
    /// The results' schema.
    OutputSchema,
    /// What the server hints at.
    Annotations,
    /// Another member.
    Other(String),
}

impl Part {
    fn of(member: &str) -> Self {
        match member {
            "name" => Self::Name,
            "title" => Self::Title,
            "description" => Self::Description,
            "inputSchema" => Self::InputSchema,
            "outputSchema" => Self::OutputSchema,
            "annotations" => Self::Annotations,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::Title => "title",
            Self::Description => "description",
            Self::InputSchema => "inputSchema",
            Self::OutputSchema => "outputSchema",
            Self::Annotations => "annotations",
            Self::Other(member) => member,
        })
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it is.
    pub part: Part,
    /// A JSON pointer into the part (RFC 6901); empty for all of it.
    pub pointer: String,
    /// What was there; none when nothing was. Text is as it is, all else JSON.
    pub old: Option<String>,
    /// What is there.
    pub new: Option<String>,
}

/// Everything that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionDiff {
    /// In the order of parts and pointers.
    pub changes: Vec<Change>,
    /// The suggested risk before and after, when it is higher now.
    pub risk_rise: Option<(Risk, Risk)>,
    /// Suggested permissions that are more now.
    pub permission_rises: Vec<Rise>,
}

impl DefinitionDiff {
    /// Whether it should stand out.
    #[must_use]
    pub fn rises(&self) -> bool {
        self.risk_rise.is_some() || !self.permission_rises.is_empty()
    }

    /// The parts that changed.
    #[must_use]
    pub fn parts(&self) -> BTreeSet<&Part> {
        self.changes.iter().map(|change| &change.part).collect()
    }
}

/// Compares what was approved with what is served.
#[must_use]
pub fn compare(old: &ToolDefinition, new: &ToolDefinition) -> DefinitionDiff {
    let (before, after) = (old.members(), new.members());
    let members: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut changes = Vec::new();
    for member in members {
        let mut walk = Walk {
            part: Part::of(member),
            changes: &mut changes,
        };
        walk.compare("", before.get(member), after.get(member));
    }
    changes.sort_by(|a, b| (&a.part, &a.pointer).cmp(&(&b.part, &b.pointer)));
    let (was, is) = (suggest(old), suggest(new));
    DefinitionDiff {
        changes,
        risk_rise: (is.risk > was.risk).then_some((was.risk, is.risk)),
        permission_rises: is.permissions.rises_over(&was.permissions),
    }
}

struct Walk<'a> {
    part: Part,
    changes: &'a mut Vec<Change>,
}

impl Walk<'_> {
    fn compare(&mut self, pointer: &str, old: Option<&Value>, new: Option<&Value>) {
        if old == new {
            return;
        }
        match (old, new) {
            (Some(Value::Object(before)), Some(Value::Object(after))) => {
                let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                for name in names {
                    let escaped = name.replace('~', "~0").replace('/', "~1");
                    let pointer = format!("{pointer}/{escaped}");
                    self.compare(&pointer, before.get(name), after.get(name));
                }
            }
            (Some(Value::Array(before)), Some(Value::Array(after))) => {
                for index in 0..before.len().max(after.len()) {
                    let pointer = format!("{pointer}/{index}");
                    self.compare(&pointer, before.get(index), after.get(index));
                }
            }
            _ => self.changes.push(Change {
                part: self.part.clone(),
                pointer: pointer.to_owned(),
                old: old.map(shown),
                new: new.map(shown),
            }),
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A line of a text, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// In both.
    Same(&'a str),
    /// Only before.
    Gone(&'a str),
    /// Only now.
    New(&'a str),
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(line) => write!(f, "  {line}"),
            Self::Gone(line) => write!(f, "- {line}"),
            Self::New(line) => write!(f, "+ {line}"),
        }
    }
}

/// Two texts line by line, by their longest common part; texts that are too long for that are told
/// whole.
#[must_use]
pub fn lines<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    if old.len().saturating_mul(new.len()) > MOST_CELLS {
        let gone = old.into_iter().map(Line::Gone);
        return gone.chain(new.into_iter().map(Line::New)).collect();
    }
    let common = common_lengths(&old, &new);
    let length = |i: usize, j: usize| common.get(i).and_then(|row| row.get(j)).copied();
    let (mut i, mut j) = (0, 0);
    let mut told = Vec::new();
    loop {
        match (old.get(i), new.get(j)) {
            (Some(gone), Some(added)) if gone == added => {
                told.push(Line::Same(gone));
                (i, j) = (i + 1, j + 1);
            }
            (Some(gone), other) if other.is_none() || length(i + 1, j) >= length(i, j + 1) => {
                told.push(Line::Gone(gone));
                i += 1;
            }
            (_, Some(added)) => {
                told.push(Line::New(added));
                j += 1;
            }
            (_, None) => return told,
        }
    }
}

/// How many lines the rests from each pair of places have in common.
fn common_lengths(old: &[&str], new: &[&str]) -> Vec<Vec<u32>> {
    let mut rows = vec![vec![0; new.len() + 1]];
    for line in old.iter().rev() {
        let below = rows.last().cloned().unwrap_or_default();
        let mut row = vec![0_u32; new.len() + 1];
        let mut right = 0;
        for (j, other) in new.iter().enumerate().rev() {
            let down = below.get(j).copied().unwrap_or_default();
            let diagonal = below.get(j + 1).copied().unwrap_or_default();
            right = if line == other {
                diagonal + 1
            } else {
                down.max(right)
            };
            if let Some(cell) = row.get_mut(j) {
                *cell = right;
            }
        }
        rows.push(row);
    }
    rows.reverse();
    rows
}

/// Lines of one text times lines of the other.
const MOST_CELLS: usize = 1 << 20;

#[cfg(test)]
mod tests;
