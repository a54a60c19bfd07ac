//! What of a server's list is not as people want it.

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
