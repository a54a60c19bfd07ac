//! `catalogue diff`.

use std::fmt::Write as _;

use agentca_policy::diff::{Change, DefinitionDiff, compare, lines};
use agentca_policy::{
    Approved, Pin, PinsFile, Rejection, Rise, ToolDefinition, digest_text, suggest,
};
use clap::Args;
use serde_json::{Value, json};

use super::ConfigArgs;
use super::opened::{Opened, Seen, ToolName, uncallable};
use crate::cli::output::{Failure, print, printable};
use crate::mcp::Shown;

#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only this server
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Exit with 1 when something differs
    #[arg(long)]
    exit_code: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is to be said about one tool.
struct Finding {
    value: Value,
    text: String,
}

pub(super) fn diff(arguments: &DiffArgs) -> Result<(), Failure> {
    let opened = Opened::open(&arguments.config.config)?;
    let (mut findings, mut servers) = (Vec::new(), Vec::new());
    let mut text = String::new();
    let wanted = |name: &&str| {
        arguments
            .upstream
            .as_deref()
            .is_none_or(|only| only == *name)
    };
    for upstream in opened.upstreams().filter(wanted) {
        match opened.seen(upstream)? {
            Some(seen) => {
                let of_server = of_server(&opened, upstream, &seen);
                let _never = writeln!(text, "{upstream}: {}", printable(&seen.looked()));
                for finding in &of_server {
                    let _never = writeln!(text, "\n{}", finding.text.trim_end());
                }
                if of_server.is_empty() {
                    let _never = writeln!(text, "  every tool is as it was approved");
                }
                servers.push(json!({
                    "upstream": upstream, "looked": seen.looked_at(), "since": seen.at,
                }));
                findings.extend(of_server);
            }
            None => eprintln!(
                "{upstream}: nothing was seen yet: {} is missing; a running enforcer writes it",
                opened.seen_path(upstream).display()
            ),
        }
    }
    let values: Vec<&Value> = findings.iter().map(|finding| &finding.value).collect();
    let value = json!({"servers": servers, "tools": values, "reload_refused": opened.refused});
    print(arguments.json, &value, &text)?;
    if arguments.exit_code && !findings.is_empty() {
        return Err(Failure::Found);
    }
    Ok(())
}

fn of_server(opened: &Opened, upstream: &str, seen: &Seen) -> Vec<Finding> {
    let files = opened.config.catalogue_parts.as_ref();
    let files: Vec<&PinsFile> = files.map_or_else(Vec::new, |parts| {
        parts.pins.iter().map(|(_, file)| file).collect()
    });
    let pin = |tool: &str| files.iter().find_map(|file| file.pin(upstream, tool));
    let mut findings = Vec::new();
    for tool in &seen.tools {
        match pin(tool.name()) {
            Some(pin) if pin.definition.digest() == tool.digest() => {}
            pin => findings.push(of_tool(opened, upstream, pin, tool)),
        }
    }
    for (tool, why) in &seen.unreadable {
        findings.push(simple(upstream, tool, "unreadable", why));
    }
    let approval = |tool: &str| Some((pin(tool)?.definition.digest(), pin(tool)?.approved.at));
    for shown in seen.otherwise(approval) {
        findings.push(simple(
            upstream,
            &shown.tool,
            "two-faced",
            &two_faced(shown),
        ));
    }
    let pinned = files.iter().flat_map(|file| &file.pins);
    let gone = pinned.filter(|pin| pin.upstream == upstream && seen.tool(pin.tool()).is_none());
    for pin in gone {
        let why = format!("it is pinned, and was not there at {}", seen.at);
        findings.push(simple(upstream, pin.tool(), "gone", &why));
    }
    findings
}

/// A tool that is not as it was approved.
fn of_tool(opened: &Opened, upstream: &str, pin: Option<&Pin>, tool: &ToolDefinition) -> Finding {
    let digest = digest_text(&tool.digest());
    if let Some(rejection) = opened.rejection(upstream, tool.name(), &digest) {
        let why = rejected(rejection);
        return simple(upstream, tool.name(), "rejected", &why);
    }
    let mut finding = match pin {
        Some(pin) => changed(upstream, pin, tool),
        None => new(upstream, tool),
    };
    let understated = understated(opened, upstream, tool);
    if let Some(understated) = &understated {
        let _never = writeln!(finding.text, "  !! {}", printable(understated));
    }
    let (command, review) = approval(opened, upstream, tool);
    let uncallable = uncallable(tool.name());
    if let Some(why) = &uncallable {
        let _never = writeln!(finding.text, "  {why}");
    }
    if let Some(command) = &command {
        if let Some(why) = review {
            let _never = writeln!(finding.text, "  it wants a review by hand: {why}");
        }
        let _never = writeln!(
            finding.text,
            "  to approve it as it is shown here:\n    {command}"
        );
    }
    if let Value::Object(members) = &mut finding.value {
        members.insert("approve".to_owned(), command.into());
        members.insert("uncallable".to_owned(), uncallable.into());
        members.insert("understated".to_owned(), understated.into());
    }
    finding
}

/// The command that approves a tool as it is, if one can, and why that takes a review by hand, if it does.
pub(super) fn approval(
    opened: &Opened,
    upstream: &str,
    tool: &ToolDefinition,
) -> (Option<String>, Option<String>) {
    let digest = digest_text(&tool.digest());
    let mut command = opened.command(upstream, tool.name(), &digest);
    let review = review(opened, upstream, tool);
    if let (Some(command), Some(_)) = (&mut command, &review) {
        command.push_str(" --manual-review");
    }
    (command, review)
}

/// Why the enforcer wants a review by hand. It judges by what is declared; a tool without a table gets one that
/// declares what its definition suggests.
fn review(opened: &Opened, upstream: &str, tool: &ToolDefinition) -> Option<String> {
    let suggested = suggest(tool).permissions.wants_review();
    match opened.permissions(upstream, tool.name()) {
        None => suggested.map(|why| format!("{why}, as its `[[tool]]` table will say")),
        Some(declared) => match (declared.wants_review(), suggested) {
            (Some(why), _) => Some(format!("{why}, as its `[[tool]]` table says")),
            (None, Some(why)) => Some(format!("{why}, once its `[[tool]]` table says so")),
            (None, None) => None,
        },
    }
}

/// What to correct where a tool's table declares less than its definition suggests.
pub(super) fn understated(
    opened: &Opened,
    upstream: &str,
    tool: &ToolDefinition,
) -> Option<String> {
    let declared = opened.permissions(upstream, tool.name())?;
    let rises = suggest(tool).permissions.rises_over(&declared);
    let name = ToolName {
        upstream: upstream.to_owned(),
        tool: tool.name().to_owned(),
    };
    let file = opened.file_of(&name);
    let one = |rise: &Rise| {
        format!(
            "`{} = \"{}\"`, not \"{}\"",
            rise.permission, rise.to, rise.from
        )
    };
    let all: Vec<String> = rises.iter().map(one).collect();
    (!all.is_empty()).then(|| {
        format!(
            "its `[[tool]]` table in {} declares less than its definition suggests, and the enforcer goes by the \
             table: correct it to {}, unless you know better",
            file.display(),
            all.join(" and ")
        )
    })
}

/// What is to be said when agents were shown a tool otherwise than the enforcer.
pub(super) fn two_faced(shown: &Shown) -> String {
    let told = shown.told();
    format!("{told}: the tool stays withheld until a person approves it again")
}

/// Who rejected a tool, when and why.
pub(super) fn rejected(rejection: &Rejection) -> String {
    let Approved { by, at, reason, .. } = &rejection.rejected;
    format!("{by} rejected it as it is, at {at}: {reason}")
}

/// A tool as a person has to see it before they approve it.
pub(super) fn shown(opened: &Opened, upstream: &str, tool: &ToolDefinition) -> String {
    let pins = opened.config.catalogue_parts.as_ref();
    let mut pins = pins.into_iter().flat_map(|parts| &parts.pins);
    let pin = pins.find_map(|(_, file)| file.pin(upstream, tool.name()));
    of_tool(opened, upstream, pin, tool).text
}

fn simple(upstream: &str, tool: &str, state: &str, why: &str) -> Finding {
    Finding {
        value: json!({"upstream": upstream, "tool": tool, "state": state, "reason": why}),
        text: format!(
            "{upstream}:{}  {state}\n  {}\n",
            printable(tool),
            printable(why)
        ),
    }
}

fn new(upstream: &str, tool: &ToolDefinition) -> Finding {
    let guess = suggest(tool);
    let digest = digest_text(&tool.digest());
    let said = tool.description().unwrap_or("no description");
    let mut text = format!(
        "{upstream}:{}  new\n  digest  {digest}\n  risk    {}: {}\n",
        printable(tool.name()),
        guess.risk,
        printable(&guess.reason)
    );
    for line in said.lines() {
        let _never = writeln!(text, "  + {}", printable(line));
    }
    Finding {
        value: json!({
            "upstream": upstream, "tool": tool.name(), "state": "new", "digest": digest,
            "risk": guess.risk.as_str(), "reason": guess.reason,
        }),
        text,
    }
}

fn changed(upstream: &str, pin: &Pin, tool: &ToolDefinition) -> Finding {
    let DefinitionDiff {
        changes,
        risk_rise,
        permission_rises,
    } = compare(&pin.definition, tool);
    let digest = digest_text(&tool.digest());
    let mut text = format!(
        "{upstream}:{}  changed\n  digest  {digest}\n",
        printable(tool.name())
    );
    if let Some((from, to)) = risk_rise {
        let _never = writeln!(text, "  !! the suggested risk rises from {from} to {to}");
    }
    for rise in &permission_rises {
        let _never = writeln!(text, "  !! the suggested permissions rise: {rise}");
    }
    for change in &changes {
        write_change(&mut text, change);
    }
    let changes = changes.iter().map(|change| {
        json!({
            "part": change.part.to_string(), "pointer": change.pointer,
            "old": change.old, "new": change.new,
        })
    });
    let rises = permission_rises
        .iter()
        .map(|rise| json!({"permission": rise.permission, "from": rise.from, "to": rise.to}));
    let value = json!({
        "upstream": upstream, "tool": tool.name(), "state": "changed", "digest": digest,
        "pinned": digest_text(&pin.definition.digest()),
        "risk_rise": risk_rise.map(|(from, to)| json!({"from": from.as_str(), "to": to.as_str()})),
        "permission_rises": rises.collect::<Vec<_>>(),
        "changes": changes.collect::<Vec<_>>(),
    });
    Finding { value, text }
}

fn write_change(text: &mut String, change: &Change) {
    let place = format!("{}{}", change.part, change.pointer);
    let _never = writeln!(text, "  {}", printable(&place));
    let (old, new) = (change.old.as_deref(), change.new.as_deref());
    for line in lines(old.unwrap_or_default(), new.unwrap_or_default()) {
        let _never = writeln!(text, "    {}", printable(&line.to_string()));
    }
}

#[cfg(test)]
pub(super) fn text(opened: &Opened, upstream: &str, seen: &Seen) -> String {
    let findings = of_server(opened, upstream, seen);
    findings
        .iter()
        .map(|finding| finding.text.as_str())
        .collect()
}

#[cfg(test)]
pub(super) fn values(opened: &Opened, upstream: &str, seen: &Seen) -> Vec<Value> {
    let findings = of_server(opened, upstream, seen);
    findings.into_iter().map(|finding| finding.value).collect()
}
