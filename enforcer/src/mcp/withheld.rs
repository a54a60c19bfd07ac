//! What of a server's list is not as people want it.

use std::cmp::Ordering;
use std::collections::HashMap;

use agentca_identity::time::Timestamp;
use agentca_policy::McpServer;

use super::seen::{Listed, Odd, UNKNOWN};
use super::seen_file::Shown;
use crate::live::Live;
use crate::ops::ToolCounts;

/// What agents were shown otherwise, in order.
pub(super) fn shown(live: &Live, upstream: &str) -> Vec<Shown> {
    let odd = live.seen_tools().of(upstream).odd();
    let mut shown: Vec<Shown> = odd
        .iter()
        .map(|(tool, odd)| Shown::of(tool, odd.digest, odd.approval))
        .collect();
    shown.sort_by(|one, other| one.tool.cmp(&other.tool));
    shown
}

/// Why a tool is withheld.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) digest: Option<[u8; 32]>,
    pub(super) pinned: Option<[u8; 32]>,
    pub(super) reason: &'static str,
}

/// What a server's tools may still take of the log: one that makes up names, or changes without end, fills none.
/// The names that people pinned are counted each by itself, so that nothing else keeps a change of theirs out.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Records of all tools that are not pinned.
    others: u32,
    /// Records of each pinned tool, since it was pinned so.
    pinned: HashMap<String, ([u8; 32], u32)>,
}

/// Whether a change is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// It is.
    Left,
    /// It is the first that is not.
    UsedUp,
    /// It is not, and that was said.
    Nothing,
}

impl Budget {
    pub(super) fn take(&mut self, tool: &str, change: &Change) -> Share {
        let (taken, most) = match change.pinned {
            None => (&mut self.others, OTHERS),
            Some(pin) => {
                let known = self.pinned.entry(tool.to_owned()).or_insert((pin, 0));
                if known.0 != pin {
                    *known = (pin, 0);
                }
                (&mut known.1, OF_PINNED)
            }
        };
        *taken = taken.saturating_add(1);
        match (*taken - 1).cmp(&most) {
            Ordering::Less => Share::Left,
            Ordering::Equal => Share::UsedUp,
            Ordering::Greater => Share::Nothing,
        }
    }
}

/// The tools of a list that are not what was pinned, or were `odd` to agents.
pub(super) fn withheld(
    listed: &[Listed],
    odd: &Odd,
    server: Option<&McpServer>,
) -> Vec<(String, Change)> {
    let change = |tool: &Listed| {
        let known = server.and_then(|server| server.tool(&tool.name));
        let pinned = known.and_then(|known| Some(known.pinned.as_ref()?.digest));
        let is_rejected = |digest| server.is_some_and(|server| server.rejects(&tool.name, digest));
        // Of two faces the one that nobody approved.
        let shown = odd.get(&tool.name).map(|odd| odd.digest);
        let digest = match tool.digest {
            Some(digest) if Some(digest) == pinned => shown.or(tool.digest),
            digest => digest,
        };
        let reason = match (digest, pinned) {
            (Some(digest), Some(pinned)) if digest == pinned => return None,
            (None, _) => "unreadable",
            (Some(digest), _) if is_rejected(&digest) => "rejected",
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "new",
        };
        let change = Change {
            digest,
            pinned,
            reason,
        };
        Some((tool.name.to_string(), change))
    };
    listed.iter().filter_map(change).collect()
}

/// How many of a list may be called now, whoever calls.
pub(super) fn counts(listed: &[Listed], odd: &Odd, server: Option<&McpServer>) -> ToolCounts {
    let now = Timestamp::now();
    let mut counts = ToolCounts::default();
    for tool in listed {
        let known = server.and_then(|server| server.tool(&tool.name));
        let two_faced = odd
            .get(&tool.name)
            .is_some_and(|odd| Some(odd.digest) != tool.digest);
        let digest = if two_faced {
            Some(UNKNOWN)
        } else {
            tool.digest
        };
        let counted = match known.map(|known| known.standing(digest.as_ref(), now)) {
            None => &mut counts.unknown,
            Some(Ok(_)) => &mut counts.callable,
            Some(Err(_)) => &mut counts.withheld,
        };
        *counted += 1;
    }
    counts
}

/// Records of one server's tools that are not pinned, by one process.
const OTHERS: u32 = 1_000;
/// Records of one pinned tool, until it is pinned otherwise.
const OF_PINNED: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn change(pinned: Option<[u8; 32]>) -> Change {
        Change {
            digest: Some([9; 32]),
            pinned,
            reason: "changed",
        }
    }

    #[test]
    fn nothing_that_a_server_makes_up_takes_from_what_is_pinned() {
        let mut budget = Budget::default();
        for number in 0..OTHERS {
            let taken = budget.take(&format!("made-up-{number}"), &change(None));
            assert_eq!(taken, Share::Left);
        }
        assert_eq!(budget.take("another", &change(None)), Share::UsedUp);
        assert_eq!(budget.take("another", &change(None)), Share::Nothing);
        for pin in [[1; 32], [2; 32]] {
            for tool in ["pay", "look"] {
                for _ in 0..OF_PINNED {
                    assert_eq!(budget.take(tool, &change(Some(pin))), Share::Left);
                }
                assert_eq!(budget.take(tool, &change(Some(pin))), Share::UsedUp);
                assert_eq!(budget.take(tool, &change(Some(pin))), Share::Nothing);
            }
        }
    }
}
