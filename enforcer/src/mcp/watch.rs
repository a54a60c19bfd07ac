//! Looks at what MCP servers list, by itself: a tool that is not the one that was pinned is withheld
//! from the moment it is seen, whether or not an agent asked for a list.
//!
//! What was seen last is written down ([`super::seen_file`]), and with it what agents were shown otherwise: a
//! restart takes that up again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agentca_auditlog::decision::ToolWithheld;
use agentca_auditlog::log::{Log, StageError, Staged};
use agentca_identity::spiffe::SpiffeId;
use agentca_policy::ToolDefinition;
use arc_swap::ArcSwap;
use tokio::task::{JoinHandle, JoinSet};

use super::seen::{Listed, UNKNOWN, UNREADABLE};
use super::seen_file::{SeenFile, put, touch};
use super::withheld::{Budget, Change, Share, counts, shown, withheld};
use crate::live::Live;
use crate::mcp_client::{ClientError, ListedTool, McpClient};
use crate::ops::{Board, ToolCounts};
use crate::stdio::Stdio;

/// Looks at every MCP server of the configuration.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) live: Arc<ArcSwap<Live>>,
    pub(crate) log: Arc<Log>,
    /// The enforcer's own name: it looks as itself, for nobody.
    pub(crate) own: SpiffeId,
    /// Where operators look.
    pub(crate) board: Arc<Board>,
    /// Where what was seen is written.
    pub(crate) dir: PathBuf,
    /// What the first look left for those that follow.
    pub(crate) first: Mutex<HashMap<Arc<str>, Known>>,
}

/// What is known of one server between two looks.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// A program's process is kept, a server over HTTP is asked anew.
    program: Option<(Arc<Stdio>, McpClient)>,
    /// Tools that were recorded as withheld: how they were, and why.
    withheld: HashMap<String, (Option<[u8; 32]>, &'static str)>,
    /// How many more are recorded.
    budget: Budget,
    /// What was written.
    written: Option<SeenFile>,
    /// When its tools were listed last.
    listed: Option<Instant>,
    /// Why the last look failed.
    failing: Option<ClientError>,
}

impl Watcher {
    /// One look at every server, all at once and for a short time: so that the first call finds what
    /// it is held against.
    pub(crate) async fn first(self: &Arc<Self>) {
        let mut looks = JoinSet::new();
        for name in self.live.load().mcp_names() {
            let own = Arc::clone(self);
            let mut known = self.recall(&name).await;
            looks.spawn(async move {
                own.look(&name, &mut known).await;
                let mut first = own.first.lock().unwrap_or_else(PoisonError::into_inner);
                first.insert(name, known);
            });
        }
        let all = async { while looks.join_next().await.is_some() {} };
        if tokio::time::timeout(FIRST, all).await.is_err() {
            tracing::warn!(
                "not every MCP server told its tools yet: those of the others are denied until it does"
            );
        }
    }

    /// Looks again and again.
    pub(crate) async fn run(self: Arc<Self>) -> std::convert::Infallible {
        let mut running: HashMap<Arc<str>, JoinHandle<()>> = HashMap::new();
        loop {
            let names = self.live.load().mcp_names();
            running.retain(|name, task| {
                let stays = names.contains(name);
                if !stays {
                    task.abort();
                }
                stays
            });
            for name in names {
                let own = Arc::clone(&self);
                let upstream = Arc::clone(&name);
                running
                    .entry(name)
                    .or_insert_with(|| tokio::spawn(async move { own.follow(&upstream).await }));
            }
            tokio::time::sleep(CONFIGURATION).await;
        }
    }

    async fn follow(&self, upstream: &str) {
        let first = {
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.remove(upstream)
        };
        let mut known = match first {
            Some(known) => known,
            None => self.recall(upstream).await,
        };
        loop {
            self.look(upstream, &mut known).await;
            let live = self.live.load_full();
            let Some((_, options)) = live.mcp_upstream(upstream) else {
                return;
            };
            let seen = live.seen_tools().of(upstream);
            let next = tokio::time::Instant::now() + options.watch;
            if tokio::time::timeout_at(next, seen.asked()).await.is_ok() {
                // Whatever its server says, and when: what agents were shown is not forgotten.
                self.keep(&live, upstream, &mut known).await;
                // Lists that change in bursts are looked at once.
                let soon = tokio::time::Instant::now() + SOON;
                tokio::time::sleep_until(soon.min(next)).await;
            }
        }
    }

    /// What was known when the enforcer was last up. What agents were shown then counts until a person decides.
    async fn recall(&self, upstream: &str) -> Known {
        let path = self.dir.join(format!("{upstream}.json"));
        let reading = tokio::task::spawn_blocking(move || SeenFile::load(&path)).await;
        let live = self.live.load_full();
        let written = match reading.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(written) => written,
            Err(error) => {
                self.distrust_all(&live, upstream, &error);
                None
            }
        };
        for shown in written.iter().flat_map(|written| &written.shown) {
            if shown.counts(live.approval(upstream, &shown.tool)) {
                tracing::warn!(
                    upstream,
                    tool = shown.tool,
                    "agents were shown another definition than the approved one: the tool is denied until a \
                     person decides, see `agentca-enforcer catalogue diff`"
                );
                let seen = live.seen_tools().of(upstream);
                seen.distrust(&shown.tool, shown.digest, shown.approval());
            }
        }
        Known {
            written,
            ..Known::default()
        }
    }

    /// Nobody knows what a damaged file said: more than it did is denied, and never less.
    fn distrust_all(&self, live: &Live, upstream: &str, error: &str) {
        tracing::error!(
            upstream,
            error,
            dir = %self.dir.display(),
            "it is not known what agents were shown before: the tools of this server are denied until a person \
             approves them again, or removes its file there and starts the enforcer again"
        );
        let seen = live.seen_tools().of(upstream);
        let server = live.config().mcp_catalogue.server(upstream);
        for tool in server.into_iter().flat_map(|server| server.tools()) {
            let approval = tool.pinned.as_ref().map(|pinned| pinned.approval());
            seen.distrust(&tool.name, UNKNOWN, approval);
        }
    }

    async fn look(&self, upstream: &str, known: &mut Known) {
        let mut live = self.live.load_full();
        let within = live
            .mcp_upstream(upstream)
            .map(|(_, options)| options.watch);
        let within = within.unwrap_or_default().max(LONGEST);
        // For all pages together: a server that takes its time for each is not looked at.
        let list = async |client: &McpClient| {
            let listed = tokio::time::timeout(within, client.list_tools()).await;
            listed.unwrap_or(Err(ClientError::Timeout))
        };
        let listed = match live.mcp_client(upstream, &self.own) {
            None => return,
            Some((client, None)) => {
                let listed = list(&client).await;
                client.close().await;
                listed
            }
            Some((client, Some(stdio))) => {
                // A reload may have put others in their place.
                let kept = known.program.take();
                let kept = kept.filter(|(kept, _)| Arc::ptr_eq(kept, &stdio));
                let (_, client) = known.program.insert(kept.unwrap_or((stdio, client)));
                list(client).await
            }
        };
        // A list takes its time: it is judged by what is in force when it is there.
        let before = std::mem::replace(&mut live, self.live.load_full());
        if live.transport(upstream) != before.transport(upstream) {
            // Of another server than the one that is there by now.
            live.seen_tools().of(upstream).look();
            return;
        }
        match listed {
            Ok(tools) => {
                known.failing = None;
                known.listed = Some(Instant::now());
                self.saw(&live, upstream, tools, known).await;
            }
            Err(error) => {
                if known.failing.as_ref() != Some(&error) {
                    tracing::warn!(
                        upstream,
                        %error,
                        "the MCP server's tools cannot be listed: they are judged as they were seen last"
                    );
                }
                known.failing = Some(error);
                self.ages(&live, upstream, known);
                self.keep(&live, upstream, known).await;
            }
        }
    }

    /// What nobody could look at for too long is not known any more: it is denied.
    fn ages(&self, live: &Live, upstream: &str, known: &mut Known) {
        let Some((name, options)) = live.mcp_upstream(upstream) else {
            return;
        };
        let is_old = |at: Instant| at.elapsed() >= options.watch_max_age;
        if !known.listed.is_some_and(is_old) {
            return;
        }
        known.listed = None;
        tracing::error!(
            upstream,
            "the MCP server's tools could not be listed for `watch_max_age`: they are denied until they can"
        );
        self.board.tools(&name, ToolCounts::default());
        live.seen_tools().of(upstream).forget();
    }

    async fn saw(&self, live: &Live, upstream: &str, tools: Vec<ListedTool>, known: &mut Known) {
        let name: Arc<str> = upstream.into();
        let seen = live.seen_tools().of(upstream);
        let listed: Vec<Listed> = tools.iter().map(Listed::read).collect();
        for tool in &listed {
            seen.agree(&tool.name, tool.digest.unwrap_or(UNREADABLE));
        }
        // What agents were shown otherwise counts, whatever we are shown.
        let odd = seen.odd();
        let server = live.config().mcp_catalogue.server(upstream).cloned();
        let withheld = withheld(&listed, &odd, server.as_deref());
        // Denied from here on, recorded then.
        self.board.listed(&name);
        self.board
            .tools(&name, counts(&listed, &odd, server.as_deref()));
        seen.replace(listed);
        let mut last = None;
        for (name, change) in &withheld {
            if known.withheld.get(name) == Some(&(change.digest, change.reason)) {
                continue;
            }
            match known.budget.take(name, change) {
                Share::Left => {}
                Share::UsedUp => {
                    tracing::error!(
                        upstream,
                        tool = name,
                        is_pinned = change.pinned.is_some(),
                        "more tools are withheld than are recorded: this one, and what more there is of its kind, \
                         is denied without a record"
                    );
                    continue;
                }
                Share::Nothing => continue,
            }
            tracing::warn!(
                upstream,
                tool = name,
                reason = change.reason,
                "a tool is withheld: see `agentca-enforcer catalogue diff`"
            );
            match self.record(upstream, name, change) {
                Ok(staged) => last = Some(staged.index),
                Err(error) => tracing::error!(%error, "a withheld tool was not recorded"),
            }
        }
        // All of them at once: the next look waits for one sync, not for one each.
        if let Some(last) = last
            && let Err(error) = self.log.durable_at(last).await
        {
            tracing::error!(%error, "withheld tools were not recorded");
        }
        let digests = withheld
            .into_iter()
            .map(|(name, change)| (name, (change.digest, change.reason)));
        known.withheld = digests.collect();
        let shown = shown(live, upstream);
        let written = SeenFile { tools, shown };
        if known.written.as_ref() != Some(&written) {
            self.write(upstream, written, known).await;
        }
        self.looked(upstream).await;
    }

    async fn looked(&self, upstream: &str) {
        let path = self.dir.join(format!("{upstream}.json"));
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || touch(&path)).await {
            let dir = self.dir.display();
            tracing::warn!(%error, %dir, "when an MCP server was looked at was not noted");
        }
    }

    /// Writes what agents were shown otherwise, beside the list as it was seen last.
    async fn keep(&self, live: &Live, upstream: &str, known: &mut Known) {
        let shown = shown(live, upstream);
        let before = known.written.as_ref();
        if before.map_or(&[][..], |before| &before.shown) != shown {
            let tools = before.map_or_else(Vec::new, |before| before.tools.clone());
            self.write(upstream, SeenFile { tools, shown }, known).await;
        }
    }

    fn record(&self, upstream: &str, name: &str, change: &Change) -> Result<Staged, StageError> {
        let tool: String = name.chars().take(NAME).collect();
        let withheld = ToolWithheld {
            upstream,
            tool: &tool,
            digest: change.digest.as_ref(),
            pinned: change.pinned.as_ref(),
            reason: change.reason,
        };
        self.log.stage(|head, out| withheld.write(head, out))
    }

    async fn write(&self, upstream: &str, file: SeenFile, known: &mut Known) {
        let (dir, upstream) = (self.dir.clone(), upstream.to_owned());
        let writing = tokio::task::spawn_blocking(move || {
            let text = file.text(&upstream)?;
            put(&dir, &format!("{upstream}.json"), &text).map(|()| file)
        });
        match writing.await {
            Ok(Ok(file)) => known.written = Some(file),
            Ok(Err(error)) => {
                let dir = self.dir.display();
                tracing::warn!(%error, %dir, "what was seen of an MCP server was not written");
            }
            Err(error) => tracing::error!(%error, "what was seen of an MCP server was not written"),
        }
    }
}

impl Listed {
    fn read(tool: &ListedTool) -> Self {
        let definition = ToolDefinition::parse(&tool.definition).ok();
        Self {
            name: tool.name.as_str().into(),
            digest: definition.map(|definition| definition.digest()),
            definition: tool.definition.as_str().into(),
        }
    }
}

/// How long the first look may hold up the opening of the port.
const FIRST: Duration = Duration::from_secs(5);
/// How often a configuration is looked at for other servers.
const CONFIGURATION: Duration = Duration::from_secs(1);
/// The least that a whole list may take.
const LONGEST: Duration = Duration::from_secs(60);
/// The least time between two looks.
const SOON: Duration = Duration::from_secs(1);
/// Characters of a name that are recorded.
const NAME: usize = 128;
