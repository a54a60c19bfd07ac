//! The command line. Exit codes: 0 done, 1 refused or failed, 2 usage or configuration, 3 could not
//! reach.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use agentca_identity::time::Timestamp;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::credentials::Credentials;
use crate::run::{self, RunError};

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    // Usage errors, `--help` and `--version` end here.
    let Arguments {
        log_format,
        command,
    } = Arguments::parse();
    match command {
        Command::Run { config } => {
            start_logging(log_format);
            report(run::run(&config))
        }
        Command::Check { config } => report(check(&config)),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, NAME, &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

/// The enforcing proxy: mTLS, scopes, live revocation, signed answers, a record of every decision
#[derive(Debug, Parser)]
#[command(name = NAME, version, after_help = EXAMPLES)]
struct Arguments {
    /// How log lines are written to stderr; RUST_LOG sets what is logged
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM; SIGHUP or a changed file reloads configuration and certificates
    #[command(after_help = RUN_EXAMPLES)]
    Run {
        /// The configuration file
        #[arg(long, value_name = "FILE", env = "AGENTCA_ENFORCER_CONFIG")]
        config: PathBuf,
    },
    /// Check a configuration file and the credentials it names, and list all that is wrong
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE", env = "AGENTCA_ENFORCER_CONFIG")]
        config: PathBuf,
    },
    /// Print a completion script for a shell
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

fn check(path: &std::path::Path) -> Result<(), RunError> {
    let config = Config::load(path)?;
    let credentials =
        Credentials::load(&config.identity_dir, &config.environment, Timestamp::now())?;
    println!(
        "{}: good, for {}; upstreams: {}, routes: {}",
        path.display(),
        credentials.id(),
        config.upstreams.len(),
        config.catalogue.routes().len()
    );
    Ok(())
}

fn report(result: Result<(), RunError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{NAME}: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().init(),
    }
}

const NAME: &str = "agentca-enforcer";

const EXAMPLES: &str = "\
Examples:
  agentca enforcer add edge-1 --env prod --dns localhost --ip 127.0.0.1 --out ./edge-1
  agentca-enforcer check --config enforcer.toml
  agentca-enforcer run --config enforcer.toml

Exit codes: 0 done, 1 refused or failed, 2 usage or configuration, 3 could not reach.";

const RUN_EXAMPLES: &str = "\
Examples:
  agentca-enforcer run --config enforcer.toml
  RUST_LOG=debug agentca-enforcer run --config enforcer.toml --log-format json
  kill -HUP PID     # reload configuration and certificates, all or nothing
  kill -TERM PID    # finish what runs, leave a checkpoint over everything, exit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_configuration_is_asked_for() {
        assert!(Arguments::try_parse_from([NAME, "run", "--config", "a.toml"]).is_ok());
        assert!(Arguments::try_parse_from([NAME, "serve"]).is_err());
    }
}
