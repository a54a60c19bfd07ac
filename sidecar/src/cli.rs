//! The command line. Exit codes: 0 done, 1 refused or failed, 2 usage, 3 could not reach.

mod check;
mod connect;
mod failure;
mod install;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use failure::Failure;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    // Usage errors, `--help` and `--version` end here.
    let Arguments {
        log_format,
        command,
    } = Arguments::parse();
    let outcome = start_logging(log_format).and_then(|()| run(command));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                // Nobody to tell is no reason to end otherwise.
                let _unheard = writeln!(std::io::stderr(), "{NAME}: {failure}");
            }
            failure.exit_code()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Connect(arguments) => wait(connect::run(*arguments)),
        Command::Check(arguments) => wait(check::run(arguments)),
        Command::Install(arguments) => install::run(&arguments),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut script);
            let script = String::from_utf8_lossy(&script);
            // clap_complete writes the branches of bash under one form of a name with a hyphen, and goes to another
            // (clap-rs/clap, issue 6421).
            let script = script.replace("agentca__subcmd__sidecar", "agentca__sidecar");
            Ok(std::io::stdout().write_all(script.as_bytes())?)
        }
    }
}

/// One thread does it all: a bridge shall cost its machine next to nothing.
fn wait(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::refused(format!("could not start: {e}")))?;
    let outcome = runtime.block_on(command);
    // A thread that waits for standard input must not keep the program.
    runtime.shutdown_background();
    outcome
}

/// The agent's companion: a bridge from plain MCP clients to an enforcer
#[derive(Debug, Parser)]
#[command(name = NAME, version, after_help = EXAMPLES)]
struct Arguments {
    /// How log lines are written to stderr; AGENTCA_LOG sets what is logged
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Connect(Box<connect::ConnectArguments>),
    Check(check::CheckArguments),
    Install(Box<install::InstallArguments>),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// Log lines go to standard error, whatever the command: standard output may be a protocol's.
fn start_logging(format: LogFormat) -> Result<(), Failure> {
    let set = std::env::var(LOG).ok();
    let text = set.as_deref().filter(|text| !text.is_empty());
    let text = text.unwrap_or("info");
    // The library takes a word that is no level for a module of that name, and logs nothing.
    let bare =
        |word: &&str| !word.contains(['=', '[']) && !LEVELS.contains(&word.to_lowercase().as_str());
    if let Some(word) = text.split(',').map(str::trim).find(bare) {
        let levels = LEVELS.join(", ");
        return Err(Failure::usage(format!(
            "{LOG}=`{text}`: `{word}` is no level: write one of {levels}, or agentca_sidecar=debug"
        )));
    }
    let filter = EnvFilter::try_new(text).map_err(|error| {
        Failure::usage(format!(
            "{LOG}=`{text}`: {error}; write it like info, or agentca_sidecar=debug"
        ))
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

/// The environment variable that says what is logged, the same for every program of ours.
const LOG: &str = "AGENTCA_LOG";
/// What is logged is this and everything before it.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const NAME: &str = "agentca-sidecar";

const EXAMPLES: &str = "\
Examples:
  agentca issue support-01 --owner alice@example.org --scope 'mcp:payments:*' --trust L2 \\
      --out ./support-01
  agentca-sidecar check https://localhost:8443/mcp/payments --credentials ./support-01
  agentca-sidecar install --client claude-desktop https://localhost:8443/mcp/payments \\
      --credentials ./support-01
  agentca-sidecar connect --stdio https://localhost:8443/mcp/payments --credentials ./support-01
  agentca-sidecar connect --http 127.0.0.1:7900 https://localhost:8443/mcp/payments \\
      --credentials ./support-01

Environment:
  AGENTCA_LOG  what is logged to standard error: error, warn, info (the default), debug

Exit codes: 0 done, 1 refused or failed, 2 usage, 3 could not reach.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  agentca-sidecar completions bash > ~/.local/share/bash-completion/completions/agentca-sidecar
  agentca-sidecar completions fish > ~/.config/fish/completions/agentca-sidecar.fish";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    /// Longer lines would be wrapped again.
    #[test]
    fn notes_under_help_are_as_wide_as_help_is() {
        let command = Arguments::command();
        for command in std::iter::once(&command).chain(command.get_subcommands()) {
            let notes = command.get_after_help().map(ToString::to_string);
            for line in notes.unwrap_or_default().lines() {
                assert!(
                    line.chars().count() <= 100,
                    "{}: {line}",
                    command.get_name()
                );
            }
        }
    }

    #[test]
    fn one_way_in_is_asked_for() {
        let parse = |more: &[&str]| {
            let fixed = [
                NAME,
                "connect",
                "https://localhost:8443/mcp/a",
                "--credentials",
                "./a",
            ];
            Arguments::try_parse_from(fixed.iter().chain(more)).map(drop)
        };
        parse(&["--stdio"]).unwrap();
        parse(&["--http", "127.0.0.1:7900"]).unwrap();
        parse(&["--http", "127.0.0.1:7900", "--verify", "warn"]).unwrap();
        for wrong in [
            &[][..],
            &["--stdio", "--http", "127.0.0.1:7900"],
            &["--http", "0.0.0.0:7900"],
            &["--stdio", "--verify", "maybe"],
        ] {
            parse(wrong).unwrap_err();
        }
        let neither = parse(&[]).unwrap_err().to_string();
        assert!(
            neither.contains("--stdio") && neither.contains("--http"),
            "{neither}"
        );
    }

    #[test]
    fn an_entry_is_printed_for_nobody_in_particular_and_written_for_a_client() {
        let parse = |more: &[&str]| {
            let url = "https://localhost:8443/mcp/a";
            let fixed = [NAME, "install", url, "--credentials", "./a"];
            Arguments::try_parse_from(fixed.iter().chain(more)).map(drop)
        };
        parse(&["--print"]).unwrap();
        parse(&["--print", "--client", "codex"]).unwrap();
        parse(&["--client", "cursor"]).unwrap();
        for wrong in [&[][..], &["--dry-run"]] {
            parse(wrong).unwrap_err();
        }
    }
}
