//! Tables of the catalogue as text.

use std::fmt::Write as _;

use agentca_policy::{Risk, Suggestion};

use super::FoundTool;
use super::methods::Offered;

/// Adds a `[[tool]]`.
pub(super) fn tool(out: &mut String, upstream: &str, found: &FoundTool) {
    let FoundTool {
        definition,
        suggestion,
    } = found;
    let name = definition.name();
    let said = definition.description().or(definition.title());
    out.push('\n');
    if let Some(said) = said.and_then(comment) {
        let _never = writeln!(out, "# {said}");
    }
    let permissions = suggestion.permissions;
    let _never = write!(
        out,
        "[[tool]]\nupstream = {}\nname = {}\nscope = {}\nmin_trust = \"{}\"\nrisk = \"{}\"\nrisk_reason = {}\n\
         [tool.permissions]\nnetwork = \"{}\"\nfilesystem = \"{}\"\ncode_execution = \"{}\"\ndata_access = \"{}\"\n",
        quoted(upstream),
        quoted(name),
        quoted(&format!("mcp:{upstream}:{name}")),
        trust_for(suggestion),
        suggestion.risk,
        quoted(&suggestion.reason),
        permissions.network,
        permissions.filesystem,
        permissions.code_execution,
        permissions.data_access,
    );
}

/// Adds a `[[method]]`.
pub(super) fn method(out: &mut String, upstream: &str, offered: &Offered) {
    let Offered { name, risk } = *offered;
    let scope = format!("mcp:{upstream}:{}", name.replace('/', ":"));
    let _never = write!(
        out,
        "\n[[method]]\nupstream = {}\nname = {}\nscope = {}\nmin_trust = \"{}\"\nrisk = \"{risk}\"\n",
        quoted(upstream),
        quoted(name),
        quoted(&scope),
        least_trust(risk),
    );
}

/// The least trust that a risk is worth, until a person thinks otherwise.
pub(super) fn least_trust(risk: Risk) -> &'static str {
    match risk {
        Risk::Read => "L1",
        Risk::Write => "L2",
        Risk::Destructive | Risk::Execute | Risk::Financial => "L3",
    }
}

/// Whoever reads a secret may go on as somebody else.
fn trust_for(suggestion: &Suggestion) -> &'static str {
    if suggestion.shows_secrets {
        least_trust(Risk::Execute)
    } else {
        least_trust(suggestion.risk)
    }
}

/// The beginning of what a server says, where it can do nothing.
fn comment(said: &str) -> Option<String> {
    let line = said.lines().map(str::trim).find(|line| !line.is_empty())?;
    let line: String = line
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(COMMENT)
        .collect();
    Some(line.trim_end().to_owned())
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            control if control.is_control() => {
                let _never = write!(out, "\\u{:04X}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

const COMMENT: usize = 100;
