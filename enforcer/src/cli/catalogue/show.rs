//! `catalogue show`: everything that is known of one tool.

use agentca_identity::time::Timestamp;
use agentca_policy::{
    DataFlow, Permissions, Standing, Suggestion, Tier, Tool, digest_text, suggest,
};
use clap::Args;
use serde_json::{Map, Value, json};

use super::ConfigArgs;
use super::list::undeclared_state;
use super::opened::{Opened, Seen, ToolName};
use crate::cli::output::{Failure, print, printable};
use crate::mcp::Shown;

#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The tool: `server:tool`, or `tool` where only one server has it
    #[arg(value_name = "TOOL")]
    tool: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn show(arguments: &ShowArgs) -> Result<(), Failure> {
    let opened = Opened::open(&arguments.config.config)?;
    let members = known(&opened, &opened.find(&arguments.tool)?)?;
    let text = lines(&members);
    print(arguments.json, &Value::Object(members), &text)
}

/// What is known of a tool.
pub(super) fn known(opened: &Opened, name: &ToolName) -> Result<Map<String, Value>, Failure> {
    let admitted = opened.admitted()?;
    let server = admitted.mcp_catalogue.server(&name.upstream);
    let tool = server.and_then(|server| server.tool(&name.tool));
    let seen = opened.seen(&name.upstream)?;
    let Some(tool) = tool else {
        return undeclared(opened, name, seen.as_ref());
    };
    let (judged, shown) = seen.as_ref().map_or((None, None), |seen| seen.judged(tool));
    let digest = seen.as_ref().and_then(|seen| seen.digest(&name.tool));
    let standing = tool.standing(judged.as_ref(), Timestamp::now());
    let tier = standing.as_ref().ok().and_then(Standing::tier);
    let mut members = facts(name, tool, tier);
    members.extend(described(tool));
    let denied = standing.err();
    members.insert("denied".into(), denied.map(|refusal| refusal.detail).into());
    members.insert("seen".into(), digest.as_ref().map(digest_text).into());
    members.insert("two_faced".into(), shown.map(Shown::told).into());
    Ok(members)
}

/// What was seen of a tool that has no table.
fn undeclared(
    opened: &Opened,
    name: &ToolName,
    seen: Option<&Seen>,
) -> Result<Map<String, Value>, Failure> {
    let ToolName { upstream, tool } = name;
    let Some(definition) = seen.and_then(|seen| seen.tool(tool)) else {
        let message =
            format!("no `[[tool]]` is `{tool}` of `{upstream}`, and it was not seen there");
        return Err(Failure::failed(message));
    };
    let (state, why) = undeclared_state(opened, upstream, definition);
    let Suggestion {
        risk,
        reason,
        permissions,
        shows_secrets: _,
    } = suggest(definition);
    let config = opened.shell_path();
    let facts = json!({
        "upstream": upstream,
        "tool": tool,
        "state": state,
        "why": why,
        "seen": digest_text(&definition.digest()),
        "description": definition.description(),
        "suggested": {
            "risk": risk.as_str(),
            "risk_reason": reason,
            "permissions": reach(&permissions),
        },
        "see": format!("agentca-enforcer catalogue diff --upstream {upstream} --config {config}"),
    });
    Ok(members(facts))
}

fn members(facts: Value) -> Map<String, Value> {
    match facts {
        Value::Object(facts) => facts,
        _ => Map::new(),
    }
}

fn reach(permissions: &Permissions) -> Value {
    json!({
        "network": permissions.network.as_str(),
        "filesystem": permissions.filesystem.as_str(),
        "code_execution": permissions.code_execution.as_str(),
        "data_access": permissions.data_access.as_str(),
    })
}

/// What is decided by.
fn facts(name: &ToolName, tool: &Tool, tier: Option<Tier>) -> Map<String, Value> {
    let pinned = tool.pinned.as_ref();
    members(json!({
        "upstream": name.upstream,
        "tool": name.tool,
        "risk": tool.call.risk.as_str(),
        "min_trust": tool.call.min_trust.to_string(),
        "scope": tool.call.scope.to_string(),
        "classification": tool.call.classification.as_deref(),
        "permissions": reach(&tool.permissions),
        "publisher": tool.publisher.as_deref(),
        "version": tool.version.as_deref(),
        "tier": tier.map(|tier| tier.to_string()),
        "pinned": pinned.map(|pinned| digest_text(&pinned.digest)),
        "approved_by": pinned.map(|pinned| pinned.approved_by.clone()),
        "approved_at": pinned.map(|pinned| pinned.approved_at.to_string()),
        "arguments": pinned.map(|pinned| pinned.arguments.iter().map(|name| &**name).collect::<Vec<_>>()),
    }))
}

/// What the catalogue says of a tool for people: nothing follows from it.
pub(super) fn described(tool: &Tool) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("risk_reason".into(), tool.risk_reason.as_deref().into());
    let flow = tool.data_flow.as_deref().map_or(Value::Null, flow);
    members.insert("data_flow".into(), flow);
    members
}

fn flow(flow: &DataFlow) -> Value {
    // Every field is named, so that a new one is shown.
    let DataFlow {
        input,
        processing,
        destination,
        logged,
        retention,
        subprocessor,
    } = flow;
    json!({
        "input": input, "processing": processing, "destination": destination, "logged": logged,
        "retention": retention, "subprocessor": subprocessor,
    })
}

/// A line for each member that there is, those of objects below them.
fn lines(members: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (name, value) in members {
        let name = name.replace('_', " ");
        match value {
            Value::Null => {}
            Value::Object(inner) => {
                let inner = lines(inner);
                if !inner.is_empty() {
                    text.push_str(&format!("{name}\n"));
                    text.extend(inner.lines().map(|line| format!("  {line}\n")));
                }
            }
            other => text.push_str(&format!("{name:WIDTH$}  {}\n", printable(&plain(other)))),
        }
    }
    text
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

const WIDTH: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_there_is() {
        let members = json!({
            "tool": "a\u{1b}", "tier": null, "data_flow": {"input": "names", "logged": true, "retention": null},
            "arguments": ["x", "y"], "permissions": {"network": null},
        });
        let Value::Object(members) = members else {
            panic!("an object")
        };
        assert_eq!(
            lines(&members),
            "arguments       x, y\ndata flow\n  input           names\n  logged          yes\ntool            a\u{fffd}\n"
        );
    }
}
