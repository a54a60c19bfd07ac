//! `agentca-enforcer catalogue`: what people decide about tools.

mod changes;
mod decide;
mod list;
mod opened;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::output::ended;

/// What can be done about tools.
#[derive(Debug, Subcommand)]
pub(super) enum CatalogueCommand {
    /// List the tools and routes of the catalogue, and whether each may be called as it was seen last
    #[command(after_help = LIST_EXAMPLES)]
    List(list::ListArgs),
    /// Show everything that is known of one tool
    #[command(after_help = SHOW_EXAMPLES)]
    Show(show::ShowArgs),
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

pub(super) fn run(command: &CatalogueCommand) -> ExitCode {
    ended(match command {
        CatalogueCommand::List(arguments) => list::list(arguments),
        CatalogueCommand::Show(arguments) => show::show(arguments),
        CatalogueCommand::Diff(arguments) => changes::diff(arguments),
        CatalogueCommand::Approve(arguments) => decide::approve(arguments, &decide::ask_terminal),
        CatalogueCommand::Reject(arguments) => decide::reject(arguments),
        CatalogueCommand::Assess(arguments) => decide::assess(arguments),
    })
}

const LIST_EXAMPLES: &str = "\
Examples:
  agentca-enforcer catalogue list --config enforcer.toml
  agentca-enforcer catalogue list --config enforcer.toml --json

The state is `good`, `excepted` or `unverified` for what is served nevertheless, `rejected` for
what a person rejected as it is, `new` for a tool without a table, or the rule that denies calls:
tool-changed, tool-unverified, ceiling.";

const SHOW_EXAMPLES: &str = "\
Examples:
  agentca-enforcer catalogue show payments:refund --config enforcer.toml
  agentca-enforcer catalogue show payments:refund --config enforcer.toml --json";

const DIFF_EXAMPLES: &str = "\
Examples:
  agentca-enforcer catalogue diff --config enforcer.toml
  agentca-enforcer catalogue diff --config enforcer.toml --exit-code

A running enforcer writes what it sees to <data_dir>/tools; that is compared with the pins. A rise
of risk or permissions, as the new definition suggests them, stands first, the command that
approves the tool as it is shown last.";

const APPROVE_EXAMPLES: &str = "\
Example:
  agentca-enforcer catalogue approve payments:refund --config enforcer.toml \\
      --reason \"looked at with its maker\"

It is signed as the person whose credential `agentca` uses by default, or whose folder `--person`
names; they need the role admin or responder. The pin and the signed statement are written to the
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
