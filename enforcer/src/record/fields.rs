//! What a record says of a call and of what came of it.

use agentca_auditlog::decision::{CallFields, ResultFields};
use agentca_policy::{Tier, Tool};

use super::{CallName, Ledger, Outcome};
use crate::road::Matched;

impl Ledger {
    pub(super) fn call_fields(&self) -> CallFields<'_> {
        let base = self.base_fields();
        match &self.call {
            CallName::Unknown => base,
            CallName::WellKnown(name) => CallFields {
                name: Some(name),
                ..base
            },
            CallName::Matched(matched) => {
                let call = matched.call();
                let base = CallFields {
                    name: Some(&call.name),
                    upstream: Some(&call.upstream),
                    risk: Some(call.risk.as_str()),
                    classification: call.classification.as_deref(),
                    ..base
                };
                match matched {
                    Matched::Route(route) => CallFields {
                        template: Some(&route.template),
                        tool_version: route.version.as_deref(),
                        publisher: route.publisher.as_deref(),
                        ..base
                    },
                    Matched::Method(_) | Matched::Talk(_) => base,
                    Matched::Tool { tool, tier, .. } => tool_fields(tool, *tier, base),
                }
            }
        }
    }

    fn base_fields(&self) -> CallFields<'_> {
        match &self.mcp {
            None => CallFields {
                proto: "http",
                method: Some(self.method.as_str()),
                ..CallFields::default()
            },
            Some(mcp) => CallFields {
                proto: "mcp",
                method: Some(mcp.method.as_deref().unwrap_or(self.method.as_str())),
                upstream: Some(&mcp.upstream),
                name: mcp.name.as_deref(),
                ..CallFields::default()
            },
        }
    }

    pub(super) fn result_fields<'a>(
        &self,
        outcome: &'a Outcome<'a>,
        digest: &'a [u8; 32],
        scope: &'a [&'a str],
    ) -> ResultFields<'a> {
        ResultFields {
            status: (outcome.status > 0).then_some(outcome.status),
            ended: Some(outcome.ended.as_str()),
            digest: Some(digest),
            length: Some(outcome.length),
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).ok(),
            permissions_used: scope,
            error: outcome.error.or(self.failure),
        }
    }

    /// What allowed a call: its scope, or that the document is everybody's.
    pub(super) fn allowing_rule(&self) -> &'static str {
        match self.call {
            CallName::WellKnown(_) => "well-known",
            CallName::Matched(Matched::Tool {
                unverified: true, ..
            }) => "scope-unverified",
            CallName::Matched(Matched::Tool { excepted: true, .. }) => "scope-excepted",
            CallName::Matched(Matched::Route(ref route)) if route.is_above_ceiling() => {
                "scope-excepted"
            }
            CallName::Matched(_) | CallName::Unknown => "scope",
        }
    }
}

fn tool_fields<'a>(tool: &'a Tool, tier: Option<Tier>, base: CallFields<'a>) -> CallFields<'a> {
    let pinned = tool.pinned.as_ref();
    CallFields {
        tool_version: tool.version.as_deref(),
        tool_tier: tier.map(Tier::as_str),
        publisher: tool.publisher.as_deref(),
        schema_in: pinned.and_then(|pinned| pinned.schema_in.as_ref()),
        schema_out: pinned.and_then(|pinned| pinned.schema_out.as_ref()),
        ..base
    }
}
