//! The command line: what can be asked, and how its outcome becomes an exit code.
//!
//! One file per group of commands. Exit codes: 0 done, 1 refused or verification failed, 2 usage,
//! 3 could not reach, 4 done but not yet in force everywhere.

mod agent;
mod args;
mod completions;
mod crl;
mod enforcer;
mod failure;
mod init;
mod inspect;
mod issue;
mod log;
mod person;
mod renew;
mod revoke;
mod select;
mod serve;

pub(crate) use failure::Failure;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use args::Connection;

use crate::staging::Existing;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(asked) => {
            // Help and version go to standard output; a reader that went away is no failure.
            let _ = asked.print();
            return if asked.use_stderr() {
                ExitCode::from(failure::USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_quiet() {
                let _ = writeln!(std::io::stderr(), "agentca: {failure}");
            }
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let connection = cli.connection;
    match cli.command {
        Command::Init(args) => init::run(&args, &connection),
        Command::Serve(args) => serve::run(&args, &connection),
        Command::Issue(args) => wait(issue::run(&args, &connection)),
        Command::Renew(args) => wait(renew::run(&args, &connection)),
        Command::Revoke(args) => wait(revoke::run(&args, &connection)),
        Command::Reinstate(args) => wait(revoke::reinstate(&args, &connection)),
        Command::Agent { command } => wait(agent::run(&command, &connection)),
        Command::Enforcer { command } => wait(enforcer::run(&command, &connection)),
        Command::Person { command } => wait(person::run(&command, &connection)),
        Command::Inspect(args) => inspect::run(&args),
        Command::Crl { command } => wait(crl::run(&command, &connection)),
        Command::Log { command } => log::run(&command),
        Command::Completions(args) => completions::run(&args),
    }
}

/// What `--force` means.
fn existing(force: bool) -> Existing {
    if force {
        Existing::Replace
    } else {
        Existing::Refuse
    }
}

/// Runs a command that talks to somebody.
fn wait(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::refused(format!("could not start: {e}")))?
        .block_on(command)
}

/// The identity authority for AI agents: certificates, revocation, and a log that anybody can check.
#[derive(Debug, Parser)]
#[command(
    name = "agentca",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  agentca init --trust-domain example.org --data ./pki
  agentca serve --data ./pki
  agentca issue support-01 --owner alice@example.org --scope payments:read --trust L2 \\
      --out ./support-01
  agentca revoke support-01 --reason key-compromise

Exit codes:
  0 done   1 refused, or verification failed   2 usage, or a configuration that cannot be used
  3 could not reach
  4 done, but not yet in force everywhere"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::InitArgs),
    Serve(serve::ServeArgs),
    Issue(issue::IssueArgs),
    Renew(renew::RenewArgs),
    Revoke(revoke::RevokeArgs),
    Reinstate(revoke::ReinstateArgs),
    /// List agents, show one, or change what it may be issued.
    #[command(after_help = "\
Examples:
  agentca agent list
  agentca agent show support-01 --json
  agentca agent grant support-01 --scope payments:read,payments:refund")]
    Agent {
        #[command(subcommand)]
        command: agent::AgentCommand,
    },
    /// Add, list or remove enforcers.
    #[command(after_help = "\
Examples:
  agentca enforcer add edge-1 --env prod --dns localhost --ip 127.0.0.1 --out ./edge-1
  agentca enforcer list
  agentca enforcer remove edge-1")]
    Enforcer {
        #[command(subcommand)]
        command: enforcer::EnforcerCommand,
    },
    /// Add, list or remove people who may administer, or let one back in.
    #[command(after_help = "\
Examples:
  agentca person add bob --role responder --out ./bob
  agentca person list
  agentca person remove bob
  agentca person recover admin --data ./pki --out ./admin")]
    Person {
        #[command(subcommand)]
        command: person::PersonCommand,
    },
    Inspect(inspect::InspectArgs),
    /// Fetch and check certificate revocation lists.
    #[command(after_help = "\
Example:
  agentca crl get")]
    Crl {
        #[command(subcommand)]
        command: crl::CrlCommand,
    },
    /// Verify, read and prove from a log's directory, without asking anybody.
    #[command(after_help = "\
Examples:
  agentca log verify ./edge-1-data/log --root support-01/ca.crt
  agentca log show ./edge-1-data/log
  agentca log prove ./edge-1-data/log 42 --root ca.crt --out 42.proof --record 42.json")]
    Log {
        #[command(subcommand)]
        command: log::LogCommand,
    },
    Completions(completions::CompletionsArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    /// Longer lines would be wrapped again.
    #[test]
    fn notes_under_help_are_as_wide_as_help_is() {
        fn look(command: &clap::Command) {
            let notes = command.get_after_help().map(ToString::to_string);
            for line in notes.unwrap_or_default().lines() {
                assert!(
                    line.chars().count() <= 100,
                    "{}: {line}",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(look);
        }
        look(&super::Cli::command());
    }
}
