//! Lists as an agent may see them: only what it may use, and nothing that cannot be judged.

use std::ops::Range;
use std::sync::Arc;

use agentca_identity::time::Timestamp;
use agentca_policy::McpServer;
use agentca_policy::json::{self, JsonLimits};

use super::pages::{Page, Pages};
use super::reply::RESULT;
use super::seen::{Seen, UNREADABLE};
use super::splice::Changes;
use crate::jsonrpc::{Edits, LIMITS, Members, place};
use crate::peer::Rights;

/// Leaves out of a result what an agent may not use.
#[derive(Debug)]
pub(crate) struct Filter {
    /// The member that holds the list: `tools`, `prompts`, `resources`, `resourceTemplates`.
    pub(crate) member: &'static str,
    /// For tools: by which each is judged. For the others: whether the agent may use any.
    pub(crate) judge: Judge,
}

/// What decides about members of a list.
pub(crate) enum Judge {
    /// Each by itself.
    Tools(ToolJudge),
    /// All or none.
    All(bool),
}

/// Judges tools for one agent at one time.
pub(crate) struct ToolJudge {
    pub(crate) server: Arc<McpServer>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) pages: Arc<Pages>,
    pub(crate) now: Timestamp,
    /// What the agent may.
    pub(crate) rights: Rights,
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tools(_) => "Tools",
            Self::All(true) => "All",
            Self::All(false) => "None",
        })
    }
}

/// The text of a message, where it is another.
#[derive(Debug)]
pub(crate) struct Filtered(pub(crate) Option<String>);

impl Filter {
    /// The answer to request `id`, where its list can be read by itself.
    pub(super) fn known(&self, text: &str, id: &str) -> Option<String> {
        let mut edits = Edits::of(text);
        for (range, with) in self.changes(text.as_bytes(), id)? {
            edits.replace(range, with);
        }
        Some(edits.done())
    }

    /// What makes of the answer to request `id` the one that is passed on, where its list can be read by
    /// itself: what surrounds the list is checked as if the list were empty.
    pub(super) fn changes(&self, text: &[u8], id: &str) -> Option<Changes> {
        let Judge::Tools(judge) = &self.judge else {
            return None;
        };
        let start = list_start(text)?;
        let rest = text.get(start..)?;
        let (page, fresh) = match judge.pages.find(rest) {
            Some(page) => (Some(page), None),
            None => {
                let rest = std::str::from_utf8(rest).ok()?;
                (None, Some(judge.pages.scan(rest, &judge.server)?))
            }
        };
        let list = page.as_deref().or(fresh.as_ref())?;
        let end = start.checked_add(list.length())?;
        let around = [text.get(..start)?, EMPTY, text.get(end..)?].concat();
        let scope = surrounds(&around, id, (start, list.values()))?;
        let page = page.or_else(|| Some(judge.pages.keep(fresh?)))?;
        judge.note(&page);
        let mut changes = judge.leave(&page, start);
        if let Some(scope) = scope {
            let (at, moved) = if scope.start < start {
                (0, scope)
            } else {
                let added = end - (start + EMPTY.len());
                (changes.len(), scope.start + added..scope.end + added)
            };
            changes.insert(at, (moved, PRIVATE));
        }
        Some(changes)
    }

    /// Filters the result of a message.
    pub(super) fn apply(&self, text: &str, result: &Members<'_>) -> Result<Filtered, &'static str> {
        let Some(list) = result.raw(self.member) else {
            // On a stream that was resumed it is the answer to something else.
            return Ok(Filtered(None));
        };
        let range = place(text, list).ok_or("the server's list cannot be read")?;
        let mut edits = Edits::of(text);
        match &self.judge {
            Judge::All(true) => {}
            Judge::All(false) => edits.replace(range, "[]"),
            Judge::Tools(judge) => {
                let page = judge.pages.read(list, &judge.server)?;
                judge.note(&page);
                for (part, with) in judge.leave(&page, range.start) {
                    edits.replace(part, with);
                }
            }
        }
        if let Some(range) = cache_scope(text, result) {
            edits.replace(range, PRIVATE);
        }
        Ok(Filtered(Some(edits.done())))
    }
}

/// Checks the answer to request `id` that has its list, of so many values, at `start`, where an empty one
/// stands in `around`. Gives where its `cacheScope` is.
fn surrounds(
    around: &[u8],
    id: &str,
    (start, values): (usize, usize),
) -> Option<Option<Range<usize>>> {
    let limits = JsonLimits {
        values: LIMITS.values.checked_sub(values)?,
        ..LIMITS
    };
    let around = json::check(around, limits).ok()?;
    let members = Members::of(around)?;
    let names = members
        .names()
        .all(|name| matches!(name, "jsonrpc" | "id" | "result"));
    let right = names && members.raw("id") == Some(id) && members.text("jsonrpc")? == "2.0";
    let result = members.members("result").filter(|_| right)?;
    if result.disguised(RESULT).is_some() {
        return None;
    }
    let list = place(around, result.raw("tools")?)?;
    (list == (start..start + EMPTY.len())).then(|| cache_scope(around, &result))
}

impl ToolJudge {
    /// What is taken out of the page that stands at `start`, so that only what may be used is left.
    fn leave(&self, page: &Page, start: usize) -> Changes {
        let view = page.view(&self.rights, &self.seen.odd(), self.now);
        let parts = view.left_out().iter();
        parts
            .map(|part| (start + part.start..start + part.end, ""))
            .collect()
    }

    /// Says what was seen, unless nothing changed since it was said last.
    fn note(&self, page: &Page) {
        if !page.is_news(self.seen.changes()) {
            return;
        }
        // What the catalogue does not have is never judged: a server can't make us remember it.
        let known = page.tools().filter(|tool| tool.tool.is_some());
        for tool in known.clone() {
            let known = tool.tool.as_ref();
            let approval = known.and_then(|tool| Some(tool.pinned.as_ref()?.approval()));
            let digest = tool.digest.unwrap_or(UNREADABLE);
            if approval.is_some_and(|(pinned, _)| pinned != digest) {
                self.seen.distrust(&tool.name, digest, approval);
            }
        }
        let digests = known.filter_map(|tool| Some((&*tool.name, tool.digest?)));
        if self.seen.note(digests) {
            page.said(self.seen.changes());
        }
    }
}

pub(super) fn renamed(text: &str, prefix: &str, name: &str) -> String {
    let mut edits = Edits::of(text);
    let raw = Members::of(text).and_then(|members| members.raw("name"));
    if let Some(range) = raw.and_then(|raw| place(text, raw)) {
        edits.replace(
            range,
            serde_json::json!(format!("{prefix}{name}")).to_string(),
        );
    }
    edits.done()
}

/// Where a result says who may keep it: a list that was filtered for one is not for others (2026-07-28,
/// caching).
fn cache_scope(text: &str, result: &Members<'_>) -> Option<Range<usize>> {
    result.raw("cacheScope").and_then(|raw| place(text, raw))
}

/// Where the list of a message probably begins: what is found is checked.
fn list_start(text: &[u8]) -> Option<usize> {
    let head = text.get(..HEAD.min(text.len()))?;
    let key = head
        .windows(KEY.len())
        .position(|window| window == KEY)?
        .checked_add(KEY.len())?;
    let list = head.get(key..)?.iter().position(|byte| *byte == b'[')?;
    Some(key + list)
}

/// What stands before a list is short.
const HEAD: usize = 1024;
const KEY: &[u8] = b"\"tools\"";
const EMPTY: &[u8] = b"[]";
const PRIVATE: &str = "\"private\"";

#[cfg(test)]
mod tests;
