//! The tools as their servers listed them last: what a call is held against.
//!
//! Whoever sees a list says so here: the watcher that asks by itself, and every list that passes. A
//! tool that is not pinned as it was seen is withheld and denied from then on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::seen_file::Approval;

/// What was seen, by server.
#[derive(Debug, Default)]
pub(crate) struct SeenTools {
    servers: Mutex<HashMap<Box<str>, Arc<Seen>>>,
}

/// What agents were shown as it was not pinned, by tool.
pub(crate) type Odd = Arc<HashMap<Box<str>, OddTool>>;

/// A tool that agents were shown as it was not pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OddTool {
    /// Of what they were shown.
    pub(crate) digest: [u8; 32],
    /// What was pinned then: another approval is a person's word on the tool.
    pub(crate) approval: Option<Approval>,
}

/// What stands for the digest of a definition that cannot be read: no text has it.
pub(crate) const UNREADABLE: [u8; 32] = [0; 32];

/// What stands for the digest of what is not known any more: nothing that is shown agrees with it.
pub(crate) const UNKNOWN: [u8; 32] = [0xff; 32];

/// The tools of one server.
#[derive(Debug)]
pub(crate) struct Seen {
    tools: ArcSwap<HashMap<Box<str>, [u8; 32]>>,
    /// The whole list as the watcher saw it last.
    listed: ArcSwap<Vec<Listed>>,
    /// Tools that somebody was shown as they were not pinned: they stay so whatever the watcher is shown, until a
    /// person decides again.
    odd: ArcSwap<HashMap<Box<str>, OddTool>>,
    /// Grows with every change.
    changes: AtomicU64,
    /// Somebody has reason to think that they changed.
    look: Notify,
}

/// A tool as its server listed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: Box<str>,
    /// None when the definition cannot be read.
    pub(crate) digest: Option<[u8; 32]>,
    /// As the server wrote it.
    pub(crate) definition: Box<str>,
}

impl Seen {
    /// The digest of a tool's definition, if it was seen: what its server shows some otherwise than others is
    /// [`UNKNOWN`], whatever of it is pinned.
    pub(crate) fn digest(&self, tool: &str) -> Option<[u8; 32]> {
        let known = self.tools.load().get(tool).copied();
        match self.odd.load().get(tool) {
            Some(odd) if known != Some(odd.digest) => Some(UNKNOWN),
            _ => known,
        }
    }

    /// Whether the server shows a tool of that name, also one whose definition cannot be read.
    pub(crate) fn shows(&self, tool: &str) -> bool {
        self.digest(tool).is_some() || self.listed.load().iter().any(|seen| *seen.name == *tool)
    }

    /// Somebody was shown a tool as it was not pinned. Until the catalogue is another it is not trusted again.
    /// `approval` is the one that stood then.
    pub(crate) fn distrust(&self, tool: &str, digest: [u8; 32], approval: Option<Approval>) {
        let shown = OddTool { digest, approval };
        if self.odd.load().get(tool) == Some(&shown) {
            return;
        }
        self.odd.rcu(|odd| {
            let mut odd = HashMap::clone(odd);
            odd.insert(tool.into(), shown);
            odd
        });
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.look();
    }

    /// What agents were shown as it was not pinned.
    pub(crate) fn odd(&self) -> Odd {
        self.odd.load_full()
    }

    /// The catalogue is another: what somebody decided anew, since the approval that stood when it was distrusted,
    /// is judged anew.
    pub(crate) fn judge_anew(&self, is_decided: impl Fn(&str, Option<Approval>) -> bool) {
        self.odd.rcu(|odd| {
            let mut odd = HashMap::clone(odd);
            odd.retain(|tool, shown| !is_decided(tool, shown.approval));
            odd
        });
        self.look();
    }

    /// The watcher was shown a tool as agents were: its server has one face, and it is judged as it is listed.
    pub(crate) fn agree(&self, tool: &str, digest: [u8; 32]) {
        let is_one = |odd: &OddTool| odd.digest == digest;
        if self.odd.load().get(tool).is_some_and(is_one) {
            self.odd.rcu(|odd| {
                let mut odd = HashMap::clone(odd);
                odd.remove(tool);
                odd
            });
        }
    }

    /// Every tool there is.
    pub(crate) fn replace(&self, listed: Vec<Listed>) {
        let digests = listed
            .iter()
            .filter_map(|tool| Some((tool.name.clone(), tool.digest?)));
        self.tools.store(Arc::new(digests.collect()));
        self.listed.store(Arc::new(listed));
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Nothing is known of its tools any more.
    pub(crate) fn forget(&self) {
        self.replace(Vec::new());
        self.look();
    }

    /// Tools of a page that passed: others stay. Gives whether anything is new.
    pub(crate) fn note<'a>(&self, page: impl Iterator<Item = (&'a str, [u8; 32])> + Clone) -> bool {
        let known = self.tools.load();
        if page
            .clone()
            .all(|(name, digest)| known.get(name) == Some(&digest))
        {
            return false;
        }
        self.tools.rcu(|tools| {
            let mut tools = HashMap::clone(tools);
            tools.extend(page.clone().map(|(name, digest)| (name.into(), digest)));
            tools
        });
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.look();
        true
    }

    /// The whole list as the watcher saw it last.
    pub(crate) fn listed(&self) -> Arc<Vec<Listed>> {
        self.listed.load_full()
    }

    /// How often it changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Asks the watcher to look.
    pub(crate) fn look(&self) {
        self.look.notify_one();
    }

    /// Until somebody asks for a look.
    pub(crate) async fn asked(&self) {
        self.look.notified().await;
    }
}

impl SeenTools {
    /// One server's.
    pub(crate) fn of(&self, upstream: &str) -> Arc<Seen> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = servers.get(upstream) {
            return Arc::clone(seen);
        }
        let seen = Arc::new(Seen {
            tools: ArcSwap::default(),
            listed: ArcSwap::default(),
            odd: ArcSwap::default(),
            changes: AtomicU64::new(0),
            look: Notify::new(),
        });
        servers.insert(upstream.into(), Arc::clone(&seen));
        seen
    }

    /// The digest of a tool's definition, if it was seen.
    pub(crate) fn digest(&self, upstream: &str, tool: &str) -> Option<[u8; 32]> {
        self.of(upstream).digest(tool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_last_counts() {
        let tools = SeenTools::default();
        let seen = tools.of("payments");
        assert_eq!(seen.digest("refund"), None);
        assert!(seen.note([("refund", [1; 32]), ("list", [2; 32])].into_iter()));
        assert!(!seen.note([("refund", [1; 32])].into_iter()));
        assert!(seen.note([("refund", [3; 32])].into_iter()));
        assert_eq!(tools.digest("payments", "refund"), Some([3; 32]));
        assert_eq!(tools.digest("payments", "list"), Some([2; 32]));
        assert_eq!(tools.digest("mail", "refund"), None);
        let listed = Listed {
            name: "list".into(),
            digest: Some([2; 32]),
            definition: "{}".into(),
        };
        seen.replace(vec![listed]);
        assert_eq!(tools.digest("payments", "refund"), None);
        assert!(seen.shows("list") && !seen.shows("refund"));
        // What an agent was shown counts, whatever the watcher is shown.
        seen.distrust("list", [9; 32], None);
        assert_eq!(seen.digest("list"), Some(UNKNOWN));
        seen.distrust("pay", [8; 32], None);
        seen.agree("pay", [8; 32]);
        assert_eq!(seen.digest("pay"), None);
        seen.agree("list", [2; 32]);
        seen.judge_anew(|tool, _| tool == "refund");
        assert_eq!(seen.digest("list"), Some(UNKNOWN));
        seen.judge_anew(|tool, _| tool == "list");
        assert_eq!(seen.digest("list"), Some([2; 32]));
        // Two faces are none, whichever of them is approved.
        seen.distrust("list", [2; 32], None);
        assert_eq!(seen.digest("list"), Some([2; 32]));
        let other = Listed {
            name: "list".into(),
            digest: Some([3; 32]),
            definition: "{}".into(),
        };
        seen.replace(vec![other]);
        assert_eq!(seen.digest("list"), Some(UNKNOWN));
    }
}
