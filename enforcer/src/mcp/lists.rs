//! Lists as an agent may see them: only what it may use, and nothing that cannot be judged.
//!
//! A server tells everybody the same list, again and again, so a page that was read is kept: when the
//! next one has the same tools, byte for byte, only what surrounds them is read.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use agentca_identity::time::Timestamp;
use agentca_policy::json;
use agentca_policy::{McpServer, Tool, ToolDefinition};
use serde_json::value::RawValue;

use super::seen::Seen;
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
    /// The answer to request `id`, where its list is one that was read before.
    pub(super) fn known(&mut self, text: &str, id: &str) -> Option<String> {
        let Judge::Tools(judge) = &self.judge else {
            return None;
        };
        let (page, start) = judge.pages.find(text)?;
        judge.note(&page);
        let end = start.checked_add(page.text.len())?;
        let mut around = String::with_capacity(text.len() - page.text.len() + 2);
        around.push_str(text.get(..start)?);
        around.push_str("[]");
        around.push_str(text.get(end..)?);
        json::check(around.as_bytes(), LIMITS).ok()?;
        let members = Members::of(&around)?;
        let names = members
            .names()
            .all(|name| matches!(name, "jsonrpc" | "id" | "result"));
        let right = names && members.raw("id") == Some(id) && members.text("jsonrpc")? == "2.0";
        let result = members.members("result").filter(|_| right)?;
        if result
            .disguised(&["tools", "cacheScope", "resultType"])
            .is_some()
        {
            return None;
        }
        let list = result.raw("tools")?;
        if place(&around, list)? != (start..start + 2) {
            return None;
        }
        let mut edits = Edits::of(&around);
        edits.replace(start..start + 2, judge.leave(&page));
        private(&mut edits, &around, &result);
        Some(edits.done())
    }

    /// Filters the result of a message.
    pub(super) fn apply(
        &mut self,
        text: &str,
        result: &Members<'_>,
    ) -> Result<Filtered, &'static str> {
        let Some(list) = result.raw(self.member) else {
            // On a stream that was resumed it is the answer to something else.
            return Ok(Filtered(None));
        };
        let range = place(text, list).ok_or(UNREADABLE)?;
        let mut edits = Edits::of(text);
        match &self.judge {
            Judge::All(true) => {}
            Judge::All(false) => edits.replace(range, "[]"),
            Judge::Tools(judge) => {
                let page = judge.pages.read(list, &judge.server)?;
                judge.note(&page);
                edits.replace(range, judge.leave(&page));
            }
        }
        private(&mut edits, text, result);
        Ok(Filtered(Some(edits.done())))
    }
}

impl ToolJudge {
    /// The page's list with only what may be used.
    fn leave(&self, page: &Page) -> String {
        let mut out = String::with_capacity(page.text.len());
        out.push('[');
        for tool in page.tools.iter().filter(|tool| self.passes(tool)) {
            if out.len() > 1 {
                out.push(',');
            }
            let text = page.text.get(tool.place.clone()).unwrap_or_default();
            out.push_str(text);
        }
        out.push(']');
        out
    }

    /// Says what was seen, unless nothing changed since it was said last.
    fn note(&self, page: &Page) {
        let changes = self.seen.changes();
        if page.noted.swap(changes, Ordering::AcqRel) == changes {
            return;
        }
        // What the catalogue does not have is never judged: a server can't make us remember it.
        let known = page.tools.iter().filter(|tool| tool.tool.is_some());
        for tool in known.clone() {
            let pinned = tool
                .tool
                .as_ref()
                .and_then(|tool| Some(tool.pinned.as_ref()?.digest));
            let digest = tool.digest.unwrap_or_default();
            if pinned.is_some_and(|pinned| pinned != digest) {
                self.seen.distrust(&tool.name, digest);
            }
        }
        let digests = known.filter_map(|tool| Some((&*tool.name, tool.digest?)));
        if self.seen.note(digests) {
            page.noted.store(self.seen.changes(), Ordering::Release);
        }
    }

    fn passes(&self, listed: &ListedTool) -> bool {
        let (Some(tool), Some(digest)) = (&listed.tool, &listed.digest) else {
            return false;
        };
        tool.standing(Some(digest), self.now).is_ok() && self.rights.cover(&tool.call)
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

/// A list that was filtered for one is not for others (2026-07-28, caching).
fn private(edits: &mut Edits<'_>, text: &str, result: &Members<'_>) {
    if let Some(range) = result.raw("cacheScope").and_then(|raw| place(text, raw)) {
        edits.replace(range, "\"private\"");
    }
}

/// Pages of a server's list that were read.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    kept: Mutex<Vec<Arc<Page>>>,
}

/// One page.
#[derive(Debug)]
struct Page {
    /// The list as it stands.
    text: String,
    hash: u64,
    tools: Vec<ListedTool>,
    /// How often what was seen had changed when this page was said to be seen.
    noted: AtomicU64,
}

#[derive(Debug)]
struct ListedTool {
    name: Box<str>,
    /// Within the page's text.
    place: Range<usize>,
    /// None when the definition cannot be read.
    digest: Option<[u8; 32]>,
    /// None when the catalogue has none of this name.
    tool: Option<Arc<Tool>>,
}

impl Pages {
    /// A kept page that stands in `text`, and where.
    fn find(&self, text: &str) -> Option<(Arc<Page>, usize)> {
        let start = list_start(text)?;
        let rest = text.get(start..)?;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let page = kept.iter().find(|page| rest.starts_with(&page.text))?;
        Some((Arc::clone(page), start))
    }

    /// Reads a list, and keeps it.
    fn read(&self, list: &str, server: &McpServer) -> Result<Arc<Page>, &'static str> {
        let members: Vec<&RawValue> = serde_json::from_str(list).map_err(|_| UNREADABLE)?;
        let mut tools = Vec::with_capacity(members.len());
        let mut names = HashMap::with_capacity(members.len());
        for member in members {
            let name = Members::of(member.get())
                .and_then(|members| members.text("name"))
                .ok_or(UNREADABLE)?;
            let definition = ToolDefinition::parse(member.get()).ok();
            if names.insert(name.clone(), ()).is_some() {
                return Err("the server lists a tool twice");
            }
            tools.push(ListedTool {
                place: place(list, member.get()).ok_or(UNREADABLE)?,
                digest: definition.map(|definition| definition.digest()),
                tool: server.tool(&name).map(Arc::clone),
                name: name.into(),
            });
        }
        let mut hasher = DefaultHasher::new();
        list.hash(&mut hasher);
        let page = Arc::new(Page {
            text: list.to_owned(),
            hash: hasher.finish(),
            tools,
            noted: AtomicU64::new(u64::MAX),
        });
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| kept.hash != page.hash);
        kept.insert(0, Arc::clone(&page));
        kept.truncate(KEPT);
        let mut bytes = 0_usize;
        kept.retain(|page| {
            bytes = bytes.saturating_add(page.text.len());
            bytes <= KEPT_BYTES
        });
        Ok(page)
    }
}

/// Where the list of a message probably begins: what is found is checked.
fn list_start(text: &str) -> Option<usize> {
    let head = text.get(..floor(text, HEAD))?;
    let key = head.find("\"tools\"")? + "\"tools\"".len();
    let colon = head.get(key..)?.find('[')?;
    Some(key + colon)
}

/// The longest beginning of at most `most` bytes that ends between two characters.
fn floor(text: &str, most: usize) -> usize {
    let most = most.min(text.len());
    (0..=most)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

/// What stands before a list is short.
const HEAD: usize = 1024;
/// Pages kept of one server.
const KEPT: usize = 16;
/// Their texts together.
const KEPT_BYTES: usize = 16 << 20;
const UNREADABLE: &str = "the server's list cannot be read";
