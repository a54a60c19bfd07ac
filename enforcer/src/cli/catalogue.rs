//! `agentca-enforcer catalogue`: what people decide about tools.

mod changes;
mod decide;
mod opened;

use std::path::PathBuf;
use std::process::ExitCode;

use agentca_identity::time::Timestamp;
use clap::{Args, Subcommand};
use serde_json::json;

use self::opened::Opened;
use super::output::{Failure, Table, ended, print};

/// What can be done about tools.
#[derive(Debug, Subcommand)]
pub(super) enum CatalogueCommand {
    /// List the tools of the catalogue, and whether each may be called as it was seen last
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show how tools differ from what was approved
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(changes::DiffArgs),
    /// Approve a tool as it was seen last, with a person's signature
    #[command(after_help = APPROVE_EXAMPLES)]
    Approve(decide::ApproveArgs),
    /// Reject a tool as it was seen last, with a person's signature
    #[command(after_help = REJECT_EXAMPLES)]
    Reject(decide::DecisionArgs),
    /// Take signed assessments of tools
    #[command(after_help = ASSESS_EXAMPLES)]
    Assess(decide::AssessArgs),
}

/// Which configuration.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "AGENTCA_ENFORCER_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &CatalogueCommand) -> ExitCode {
    ended(match command {
        CatalogueCommand::List(arguments) => list(arguments),
        CatalogueCommand::Diff(arguments) => changes::diff(arguments),
        CatalogueCommand::Approve(arguments) => decide::approve(arguments),
        CatalogueCommand::Reject(arguments) => decide::reject(arguments),
        CatalogueCommand::Assess(arguments) => decide::assess(arguments),
    })
}

fn list(arguments: &ListArgs) -> Result<(), Failure> {
    let opened = Opened::open(&arguments.config.config)?;
    let admitted = opened.admitted()?;
    let now = Timestamp::now();
    let mut rows = Vec::new();
    let mut table = Table::new([
        "UPSTREAM",
        "TOOL",
        "RISK",
        "TRUST",
        "SCOPE",
        "TIER",
        "APPROVED BY",
        "STATE",
    ]);
    for upstream in opened.upstreams() {
        let Some(server) = admitted.mcp_catalogue.server(upstream) else {
            continue;
        };
        let seen = opened.seen(upstream)?;
        for tool in server.tools() {
            let digest = seen.as_ref().and_then(|seen| seen.digest(&tool.name));
            let state = match (&seen, tool.standing(digest.as_ref(), now)) {
                (None, _) => "not seen yet".to_owned(),
                (Some(_), Ok(standing)) if standing.exception().is_some() => "excepted".to_owned(),
                (Some(_), Ok(standing)) if standing.unverified() => "unverified".to_owned(),
                (Some(_), Ok(_)) => "good".to_owned(),
                (Some(_), Err(refusal)) => refusal.rule.to_string(),
            };
            let by = tool
                .pinned
                .as_ref()
                .map(|pinned| pinned.approved_by.clone());
            let tier = tool.tier.map(|tier| tier.to_string());
            table.row([
                upstream.to_owned(),
                tool.name.to_string(),
                tool.call.risk.to_string(),
                tool.call.min_trust.to_string(),
                tool.call.scope.to_string(),
                tier.clone().unwrap_or_default(),
                by.clone().unwrap_or_default(),
                state.clone(),
            ]);
            rows.push(json!({
                "upstream": upstream, "tool": &*tool.name, "risk": tool.call.risk.as_str(),
                "min_trust": tool.call.min_trust.to_string(), "scope": tool.call.scope.to_string(),
                "tier": tier, "approved_by": by, "state": state,
            }));
        }
    }
    print(arguments.json, &json!({"tools": rows}), &table.text())
}

const LIST_EXAMPLES: &str = "\
Examples:
  agentca-enforcer catalogue list --config enforcer.toml
  agentca-enforcer catalogue list --config enforcer.toml --json

The state is `good`, or the rule that denies calls: tool-changed, tool-unverified, ceiling.";

const DIFF_EXAMPLES: &str = "\
Examples:
  agentca-enforcer catalogue diff --config enforcer.toml
  agentca-enforcer catalogue diff --config enforcer.toml --exit-code

A running enforcer writes what it sees to <data_dir>/tools; that is compared with the pins. A rise of
risk or permissions, as the new definition suggests them, stands first.";

const APPROVE_EXAMPLES: &str = "\
Example:
  agentca-enforcer catalogue approve payments:refund --config enforcer.toml \\
      --reason \"looked at with its maker\"

It is signed as the person whose credential `agentca` uses by default, or whose folder `--person` names;
they need the role admin or responder. The pin and the signed statement are written to the
pins file; a running enforcer takes it up at once.";

const REJECT_EXAMPLES: &str = "\
Example:
  agentca-enforcer catalogue reject payments:refund --config enforcer.toml \\
      --reason \"it asks for card numbers now\"";

const ASSESS_EXAMPLES: &str = "\
Example:
  agentca-enforcer catalogue assess --import assessment.json --config enforcer.toml

The file holds one DSSE envelope, or a list of them, by an `[[assessor]]` of the configuration.";

#[cfg(test)]
mod tests;
