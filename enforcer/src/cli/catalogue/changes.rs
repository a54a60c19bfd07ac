//! `catalogue diff`.

use std::fmt::Write as _;

use agentca_policy::diff::{Change, DefinitionDiff, compare, lines};
use agentca_policy::{Pin, PinsFile, ToolDefinition, digest_text, suggest};
use clap::Args;
use serde_json::{Value, json};

use super::ConfigArgs;
use super::opened::{Opened, Seen};
use crate::cli::output::{Failure, print, printable};

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
    let mut findings = Vec::new();
    let wanted = |name: &&str| {
        arguments
            .upstream
            .as_deref()
            .is_none_or(|only| only == *name)
    };
    for upstream in opened.upstreams().filter(wanted) {
        match opened.seen(upstream)? {
            Some(seen) => findings.extend(of_server(&opened, upstream, &seen)),
            None => eprintln!(
                "{upstream}: nothing was seen yet: {} is missing; a running enforcer writes it",
                opened.seen_path(upstream).display()
            ),
        }
    }
    let values: Vec<&Value> = findings.iter().map(|finding| &finding.value).collect();
    let texts = findings.iter().map(|finding| finding.text.as_str());
    let text = match findings.len() {
        0 => "every tool is as it was approved\n".to_owned(),
        _ => texts.collect::<Vec<_>>().join("\n"),
    };
    print(arguments.json, &json!({"tools": values}), &text)?;
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
    let rejected = |tool: &ToolDefinition| {
        let digest = digest_text(&tool.digest());
        let mut all = files.iter().flat_map(|file| &file.rejections);
        all.any(|old| old.upstream == upstream && old.tool == tool.name() && old.digest == digest)
    };
    let mut findings = Vec::new();
    for tool in &seen.tools {
        match pin(tool.name()) {
            Some(pin) if pin.definition.digest() == tool.digest() => {}
            _ if rejected(tool) => findings.push(simple(
                upstream,
                tool.name(),
                "rejected",
                "a person rejected it as it is",
            )),
            Some(pin) => findings.push(changed(upstream, pin, tool)),
            None => findings.push(new(upstream, tool)),
        }
    }
    for (tool, why) in &seen.unreadable {
        findings.push(simple(upstream, tool, "unreadable", why));
    }
    let pinned = files.iter().flat_map(|file| &file.pins);
    let gone = pinned.filter(|pin| pin.upstream == upstream && seen.tool(pin.tool()).is_none());
    for pin in gone {
        let why = format!("it is pinned, and was not there at {}", seen.at);
        findings.push(simple(upstream, pin.tool(), "gone", &why));
    }
    findings
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
