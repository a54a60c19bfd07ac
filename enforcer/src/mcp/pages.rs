//! Pages of lists of tools that were read, and what is known by them of the next one.
//!
//! A server tells everybody the same list, again and again. A page that comes as it came before is
//! compared and not read; of another each tool that stands in it as it stood in a page before is
//! compared and not read, and the others are read and digested. What a page leaves out for whom is
//! kept beside it, as long as nothing of what decided it is another.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentca_identity::time::Timestamp;
use agentca_policy::json::{self, JsonLimits};
use agentca_policy::{DefinitionScanner, McpServer, Tool, ToolDefinition};
use serde_json::value::RawValue;

use super::seen::Odd;
use crate::jsonrpc::{LIMITS, Members, place};
use crate::peer::Rights;

/// Pages of a server's list that were read under one catalogue.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    kept: Mutex<Vec<Arc<Page>>>,
}

/// One page.
#[derive(Debug)]
pub(super) struct Page {
    /// The list as it stands.
    text: Box<str>,
    tools: Vec<ListedTool>,
    by_name: HashMap<Arc<str>, usize>,
    /// Values in all, the list itself not counted.
    values: usize,
    /// How often what was seen had changed when this page was said to be seen.
    noted: AtomicU64,
    views: Mutex<Vec<Arc<View>>>,
}

/// A tool of a page.
#[derive(Clone, Debug)]
pub(super) struct ListedTool {
    pub(super) name: Arc<str>,
    /// Within the page's text.
    place: Range<usize>,
    /// Values in all.
    values: usize,
    /// None when the definition cannot be read.
    pub(super) digest: Option<[u8; 32]>,
    /// None when the catalogue has none of this name.
    pub(super) tool: Option<Arc<Tool>>,
}

/// What a page leaves out for whom, and for how long that is so.
#[derive(Debug)]
pub(super) struct View {
    rights: Rights,
    odd: Odd,
    from: Timestamp,
    until: Option<Timestamp>,
    /// Within the page's text, with the commas that are too many.
    left_out: Vec<Range<usize>>,
}

impl Pages {
    /// A kept page that `rest` begins with.
    pub(super) fn find(&self, rest: &[u8]) -> Option<Arc<Page>> {
        let kept = self.kept();
        let mut pages = kept.iter();
        let page = pages.find(|page| rest.starts_with(page.text.as_bytes()))?;
        Some(Arc::clone(page))
    }

    /// Reads the list that `rest` begins with; `None` where it is not read at once, be it right or wrong.
    pub(super) fn scan(&self, rest: &str, server: &McpServer) -> Option<Page> {
        let kept = self.kept().clone();
        let mut reader = Reader {
            rest,
            at: 0,
            scanner: DefinitionScanner::new(rest),
            kept: &kept,
            expected: None,
            server,
        };
        reader.page()
    }

    /// Reads a list that was checked, tool by tool.
    pub(super) fn read(&self, list: &str, server: &McpServer) -> Result<Arc<Page>, &'static str> {
        let members: Vec<&RawValue> = serde_json::from_str(list).map_err(|_| UNREADABLE)?;
        let mut page = Page::of(members.len());
        for member in members {
            let place = place(list, member.get()).ok_or(UNREADABLE)?;
            let tool = ListedTool::read(member.get(), place, server).ok_or(UNREADABLE)?;
            page.add(tool).ok_or("the server lists a tool twice")?;
        }
        page.text = list.into();
        Ok(self.keep(page))
    }

    /// Keeps a page for the next time.
    pub(super) fn keep(&self, page: Page) -> Arc<Page> {
        let page = Arc::new(page);
        let mut kept = self.kept();
        kept.retain(|kept| kept.text != page.text);
        kept.insert(0, Arc::clone(&page));
        kept.truncate(KEPT);
        let mut bytes = 0_usize;
        kept.retain(|page| {
            let tools = page.tools.len().saturating_mul(TOOL_BYTES);
            bytes = bytes.saturating_add(page.text.len()).saturating_add(tools);
            bytes <= KEPT_BYTES
        });
        page
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Arc<Page>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    fn of(tools: usize) -> Self {
        Self {
            text: Box::default(),
            tools: Vec::with_capacity(tools),
            by_name: HashMap::with_capacity(tools),
            values: 0,
            noted: AtomicU64::new(u64::MAX),
            views: Mutex::default(),
        }
    }

    /// None when it is there already.
    fn add(&mut self, tool: ListedTool) -> Option<()> {
        let known = self
            .by_name
            .insert(Arc::clone(&tool.name), self.tools.len());
        self.values = self.values.saturating_add(tool.values);
        self.tools.push(tool);
        known.is_none().then_some(())
    }

    /// How long its text is.
    pub(super) fn length(&self) -> usize {
        self.text.len()
    }

    /// Values in all, the list itself not counted.
    pub(super) fn values(&self) -> usize {
        self.values
    }

    pub(super) fn tools(&self) -> impl Iterator<Item = &ListedTool> + Clone {
        self.tools.iter()
    }

    /// Whether what was seen had changed since this page was said to be seen.
    pub(super) fn is_news(&self, changes: u64) -> bool {
        self.noted.swap(changes, Ordering::AcqRel) != changes
    }

    /// It is said to be seen, and with it what was seen has changed so often.
    pub(super) fn said(&self, changes: u64) {
        self.noted.store(changes, Ordering::Release);
    }

    /// A tool as it stands.
    fn raw(&self, tool: &ListedTool) -> Option<&str> {
        self.text.get(tool.place.clone())
    }

    /// What is left out for whoever has these rights.
    pub(super) fn view(&self, rights: &Rights, odd: &Odd, now: Timestamp) -> Arc<View> {
        let views = || self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views().iter().find(|view| view.holds(rights, odd, now)) {
            return Arc::clone(view);
        }
        let view = Arc::new(View::of(self, rights, odd, now));
        let mut views = views();
        views.retain(|view| view.rights != *rights);
        views.insert(0, Arc::clone(&view));
        views.truncate(VIEWS);
        view
    }
}

impl View {
    fn of(page: &Page, rights: &Rights, odd: &Odd, now: Timestamp) -> Self {
        let mut left_out = Vec::new();
        // Where what is left out begins, where the last tool ends that stays, and where the last one ends.
        let (mut gap, mut stays, mut last) = (None, None, 0);
        for listed in &page.tools {
            let place = listed.place.clone();
            if listed.passes(rights, odd, now) {
                if let Some(begin) = gap.take() {
                    // One comma stays between two that stay, and none before the first.
                    left_out.push(begin..stays.map_or(place.start, |_| last));
                }
                stays = Some(place.end);
            } else {
                gap = gap.or(stays).or(Some(place.start));
            }
            last = place.end;
        }
        left_out.extend(gap.map(|begin| begin..last));
        let tools = page.tools.iter().filter_map(|listed| listed.tool.as_ref());
        Self {
            rights: rights.clone(),
            odd: Arc::clone(odd),
            from: now,
            until: tools.filter_map(|tool| tool.standing_changes(now)).min(),
            left_out,
        }
    }

    /// Whether it is what it would be if it were made now: all else that it follows from is the page's.
    fn holds(&self, rights: &Rights, odd: &Odd, now: Timestamp) -> bool {
        let in_time = self.from <= now && self.until.is_none_or(|until| now < until);
        in_time && Arc::ptr_eq(&self.odd, odd) && self.rights == *rights
    }

    /// The parts of the page's text, in order, without which it is the list of what may be used.
    pub(super) fn left_out(&self) -> &[Range<usize>] {
        &self.left_out
    }
}

impl ListedTool {
    /// Reads one by itself. None when it has no name.
    fn read(raw: &str, place: Range<usize>, server: &McpServer) -> Option<Self> {
        let name = Members::of(raw).and_then(|members| members.text("name"))?;
        let definition = ToolDefinition::parse(raw).ok();
        Some(Self {
            values: json::measure(raw, LIMITS).ok()?.values,
            place,
            digest: definition.map(|definition| definition.digest()),
            tool: server.tool(&name).map(Arc::clone),
            name: name.into(),
        })
    }

    fn passes(&self, rights: &Rights, odd: &Odd, now: Timestamp) -> bool {
        let (Some(tool), Some(digest)) = (&self.tool, &self.digest) else {
            return false;
        };
        // What agents were shown otherwise is what calls of it are judged by.
        let is_one = odd.is_empty() || odd.get(&*self.name).is_none_or(|odd| odd.digest == *digest);
        is_one && rights.cover(&tool.call) && tool.standing(Some(digest), now).is_ok()
    }
}

/// Reads a list of which nothing was checked.
struct Reader<'a> {
    rest: &'a str,
    at: usize,
    scanner: DefinitionScanner<'a>,
    kept: &'a [Arc<Page>],
    /// The page, and the place in it, of the tool that comes next if it is as it was.
    expected: Option<(&'a Page, usize)>,
    server: &'a McpServer,
}

impl Reader<'_> {
    fn page(&mut self) -> Option<Page> {
        let most = self.kept.first().map_or(0, |page| page.tools.len());
        let mut page = Page::of(most);
        self.take(b'[')?;
        if self.next()? != b']' {
            loop {
                self.next()?;
                let tool = self.tool()?;
                self.at = tool.place.end;
                page.add(tool)?;
                if page.values > LIMITS.values {
                    return None;
                }
                if self.next()? == b']' {
                    break;
                }
                self.take(b',')?;
            }
        }
        self.take(b']')?;
        page.text = self.rest.get(..self.at)?.into();
        Some(page)
    }

    fn tool(&mut self) -> Option<ListedTool> {
        if let Some(tool) = self.as_expected() {
            return Some(tool);
        }
        let Some(scanned) = self.scanner.read(self.at) else {
            return self.slowly();
        };
        if scanned.depth > DEPTH {
            return None;
        }
        self.expect_after(scanned.name);
        let (name, tool) = match self.server.tool(scanned.name) {
            Some(tool) => (Arc::clone(&tool.name), Some(Arc::clone(tool))),
            None => (scanned.name.into(), None),
        };
        Some(ListedTool {
            name,
            place: self.at..self.at + scanned.raw.len(),
            values: scanned.values,
            digest: Some(scanned.digest),
            tool,
        })
    }

    /// The tool that was expected, if it stands here as it did: a whole object is one wherever it stands.
    fn as_expected(&mut self) -> Option<ListedTool> {
        let (page, at) = self.expected?;
        let known = page.tools.get(at)?;
        let raw = page.raw(known)?;
        if !self.rest.get(self.at..)?.starts_with(raw) {
            return None;
        }
        self.expected = Some((page, at + 1));
        Some(ListedTool {
            place: self.at..self.at + raw.len(),
            ..known.clone()
        })
    }

    /// What followed a tool of this name follows it again.
    fn expect_after(&mut self, name: &str) {
        let mut pages = self.kept.iter();
        self.expected = pages.find_map(|page| Some((&**page, page.by_name.get(name)? + 1)));
    }

    /// A tool that is written in an unusual way.
    fn slowly(&mut self) -> Option<ListedTool> {
        let rest = serde_json::Deserializer::from_str(self.rest.get(self.at..)?);
        let raw = rest.into_iter::<&RawValue>().next()?.ok()?.get();
        let limits = JsonLimits {
            depth: DEPTH,
            ..LIMITS
        };
        json::measure(raw, limits).ok()?;
        let tool = ListedTool::read(raw, self.at..self.at + raw.len(), self.server)?;
        self.expect_after(&tool.name);
        Some(tool)
    }

    /// The next character that is no space.
    fn next(&mut self) -> Option<u8> {
        loop {
            match self.rest.as_bytes().get(self.at)? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                next => return Some(*next),
            }
        }
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then(|| self.at += 1)
    }
}

/// Depth that is left within the message, its result and its list.
const DEPTH: usize = LIMITS.depth - 3;
/// Pages kept of one server.
const KEPT: usize = 16;
/// Their texts together.
const KEPT_BYTES: usize = 16 << 20;
/// About what is remembered of a tool beside its text.
const TOOL_BYTES: usize = 512;
/// Views kept of one page.
const VIEWS: usize = 4;
const UNREADABLE: &str = "the server's list cannot be read";
