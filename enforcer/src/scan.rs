//! What a live MCP server has, written as a catalogue for people to edit, with pins beside it.
//!
//! What is there stays as it is: new tools are added at the end, as text. The first scan of a server
//! pins what it finds; from then on only a person does, with `agentca-enforcer catalogue approve`.

mod files;
mod methods;
mod person;
mod written;

use agentca_identity::time::Timestamp;
use agentca_policy::{
    Approval, Approved, Pin, PinsFile, Risk, SCAN, Suggestion, ToolDefinition, digest_text,
    is_segment, suggest,
};

pub use self::files::{CatalogueFiles, FileError, FolderLock, read_pins, write_file};
pub use self::person::{Person, PersonError};
use crate::mcp_client::{ListedTool, Server};

/// What a server was found to have.
#[derive(Debug)]
pub struct Found {
    /// What routes call it.
    pub upstream: String,
    /// What it says about itself.
    pub server: Server,
    /// Tools that can be called.
    pub tools: Vec<FoundTool>,
    /// Tools that cannot, with why.
    pub refused: Vec<(String, String)>,
}

/// A tool and what it looks like.
#[derive(Debug)]
pub struct FoundTool {
    /// As the server listed it.
    pub definition: ToolDefinition,
    /// A guess.
    pub suggestion: Suggestion,
}

impl Found {
    /// Reads what was listed.
    #[must_use]
    pub fn of(upstream: &str, server: Server, listed: &[ListedTool]) -> Self {
        let (mut tools, mut refused) = (Vec::new(), Vec::new());
        for tool in listed {
            if !is_segment(&tool.name) {
                let why =
                    "its name is not 1 to 128 of A-Z, a-z, 0-9, `_`, `-` and `.`, and so no scope";
                refused.push((tool.name.clone(), why.to_owned()));
                continue;
            }
            match ToolDefinition::parse(&tool.definition) {
                Ok(definition) => tools.push(FoundTool {
                    suggestion: suggest(&definition),
                    definition,
                }),
                Err(error) => refused.push((tool.name.clone(), error.to_string())),
            }
        }
        Self {
            upstream: upstream.to_owned(),
            server,
            tools,
            refused,
        }
    }
}

/// What a scan would write.
#[derive(Debug)]
pub struct Plan {
    /// Of each tool that was found, in the server's order.
    pub rows: Vec<Row>,
    /// `[[method]]` tables that are added.
    pub methods: Vec<&'static str>,
    /// What is added to the catalogue's text; nothing when all is there.
    pub added: String,
    /// All pins after it.
    pub pins: PinsFile,
    /// Whether there are more than before.
    pub has_new_pins: bool,
}

/// What becomes of one tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub tool: String,
    /// `sha256:<hex>` of its definition.
    pub digest: String,
    /// The suggested risk.
    pub risk: Risk,
    /// Why.
    pub reason: String,
    /// What becomes of it.
    pub state: State,
    /// Why somebody has to review it by hand before it can be called; none when nobody has to, or did.
    pub review: Option<&'static str>,
}

/// What becomes of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Added and pinned.
    Added,
    /// It was declared already, and is pinned now.
    Pinned,
    /// Declared and pinned as it is.
    Known,
    /// New since the first scan: declared now, and a person has to approve it.
    Unapproved,
    /// Another definition is pinned: a person has to approve this one.
    Changed,
    /// A person rejected it, as it is or as it was.
    Rejected,
}

impl State {
    /// One word for tables and machines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Pinned => "pinned",
            Self::Known => "known",
            Self::Unapproved => "unapproved",
            Self::Changed => "changed",
            Self::Rejected => "rejected",
        }
    }

    /// Whether a person has to see to it before it can be called.
    #[must_use]
    pub fn wants_a_person(self) -> bool {
        match self {
            Self::Unapproved | Self::Changed | Self::Rejected => true,
            Self::Added | Self::Pinned | Self::Known => false,
        }
    }
}

impl Plan {
    /// Compares what was found with what is there.
    #[must_use]
    pub fn make(found: &Found, files: &CatalogueFiles, now: Timestamp) -> Self {
        let upstream = &found.upstream;
        let mut plan = Self {
            rows: Vec::new(),
            methods: Vec::new(),
            added: String::new(),
            pins: files.pins.clone(),
            has_new_pins: false,
        };
        let is_first = files.pins.pins.iter().all(|pin| pin.upstream != *upstream)
            && files
                .pins
                .rejections
                .iter()
                .all(|old| old.upstream != *upstream);
        for tool in &found.tools {
            let is_declared = files.has_tool(upstream, tool.definition.name());
            let state = state(tool, upstream, &files.pins, (is_first, is_declared));
            if !is_declared {
                written::tool(&mut plan.added, upstream, tool);
            }
            if matches!(state, State::Added | State::Pinned) {
                plan.has_new_pins = true;
                plan.pins.approve(pin(upstream, tool, now));
            }
            plan.rows.push(Row {
                tool: tool.definition.name().to_owned(),
                digest: digest_text(&tool.definition.digest()),
                risk: tool.suggestion.risk,
                reason: tool.suggestion.reason.clone(),
                state,
                review: review(tool, upstream, files, state),
            });
        }
        for method in methods::offered(&found.server) {
            if !files.has_method(upstream, method.name) {
                written::method(&mut plan.added, upstream, &method);
                plan.methods.push(method.name);
            }
        }
        plan
    }
}

/// The table that a tool gets by itself, with guesses for a person to correct.
#[must_use]
pub fn declaration(upstream: &str, definition: &ToolDefinition) -> String {
    let tool = FoundTool {
        definition: definition.clone(),
        suggestion: suggest(definition),
    };
    let mut table = String::new();
    written::tool(&mut table, upstream, &tool);
    table
}

fn state(
    tool: &FoundTool,
    upstream: &str,
    pins: &PinsFile,
    (is_first, is_declared): (bool, bool),
) -> State {
    let name = tool.definition.name();
    match pins.pin(upstream, name) {
        Some(pin) if pin.definition.digest() == tool.definition.digest() => State::Known,
        Some(_) => State::Changed,
        None if pins
            .rejections
            .iter()
            .any(|old| old.upstream == upstream && old.tool == name) =>
        {
            State::Rejected
        }
        None if !is_first => State::Unapproved,
        None if is_declared => State::Pinned,
        None => State::Added,
    }
}

/// By what the catalogue declares, or will once it is written.
fn review(
    tool: &FoundTool,
    upstream: &str,
    files: &CatalogueFiles,
    state: State,
) -> Option<&'static str> {
    let name = tool.definition.name();
    let declared = files.permissions(upstream, name);
    let permissions = declared.unwrap_or(tool.suggestion.permissions);
    let pin = files
        .pins
        .pin(upstream, name)
        .filter(|_| state == State::Known);
    let statement = pin.and_then(|pin| pin.approved.statement.as_ref());
    let reviewed = statement
        .and_then(|statement| Approval::read(statement).ok())
        .is_some_and(|approval| approval.manual_review);
    permissions.wants_review().filter(|_| !reviewed)
}

fn pin(upstream: &str, tool: &FoundTool, now: Timestamp) -> Pin {
    Pin {
        upstream: upstream.to_owned(),
        definition: tool.definition.clone(),
        approved: Approved {
            by: SCAN.to_owned(),
            at: now,
            reason: "found by the first scan".to_owned(),
            statement: None,
        },
    }
}

#[cfg(test)]
mod tests;
