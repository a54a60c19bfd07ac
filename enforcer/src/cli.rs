//! The command line. Exit codes: 0 done, 1 refused or failed, 2 usage or configuration, 3 could not reach.

mod catalogue;
mod disclose;
mod output;
mod scan;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agentca_identity::spiffe::SpiffeId;
use agentca_identity::time::Timestamp;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::approvals;
use crate::config::Config;
use crate::credentials::{Credentials, CredentialsError};
use crate::reload::last_refused;
use crate::run::{self, RunError};
use crate::upstream;

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    // Usage errors, `--help` and `--version` end here.
    let Arguments {
        log_format,
        command,
    } = Arguments::parse();
    match command {
        Command::Run { config } => match start_logging(log_format, "info") {
            Ok(()) => report(run::run(&config)),
            Err(usage) => {
                eprintln!("{NAME}: {usage}");
                ExitCode::from(USAGE)
            }
        },
        Command::Check { config } => check(&config),
        Command::Scan(arguments) => output::ended(
            start_logging(log_format, SCAN_LOG)
                .map_err(output::Failure::Usage)
                .and_then(|()| scan::run(&arguments)),
        ),
        Command::Catalogue { command } => catalogue::run(&command),
        Command::Disclose(arguments) => output::ended(disclose::run(&arguments)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut script);
            let script = String::from_utf8_lossy(&script);
            // clap_complete writes the branches of bash under one form of a name with a hyphen, and goes to another
            // (clap-rs/clap, issue 6421).
            let script = script.replace("agentca__subcmd__enforcer", "agentca__enforcer");
            output::ended(output::put(&script))
        }
    }
}

/// The enforcing proxy: mTLS, scopes, live revocation, signed answers, a record of every decision
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
    /// Serve until SIGTERM; SIGHUP or a changed file reloads configuration and certificates
    #[command(after_help = RUN_EXAMPLES)]
    Run {
        /// The configuration file
        #[arg(long, value_name = "FILE", env = "AGENTCA_ENFORCER_CONFIG")]
        config: PathBuf,
    },
    /// Check a configuration file, the credentials and the log it names, and list all that is wrong
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE", env = "AGENTCA_ENFORCER_CONFIG")]
        config: PathBuf,
    },
    /// Write a catalogue of what a live MCP server has, with its tools pinned as they are
    #[command(after_help = SCAN_EXAMPLES)]
    Scan(scan::ScanArgs),
    /// List, compare, approve, reject and assess the tools of MCP servers
    #[command(after_help = CATALOGUE_EXAMPLES)]
    Catalogue {
        #[command(subcommand)]
        command: catalogue::CatalogueCommand,
    },
    /// Print what a tool was called with, where that is kept, or erase it
    #[command(after_help = DISCLOSE_EXAMPLES)]
    Disclose(disclose::DiscloseArgs),
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

/// Everything that is wrong, as far as one part does not hide the other.
fn check(path: &Path) -> ExitCode {
    let wrong = match Config::load(path) {
        Err(errors) => {
            let credentials = credentials_of(path).and_then(Result::err);
            let config = RunError::Config(errors);
            std::iter::once(config)
                .chain(credentials.map(RunError::Credentials))
                .collect()
        }
        Ok(config) => match check_with(&config) {
            Ok(id) => {
                let good = format!(
                    "{}: good, for {id}; upstreams: {}, routes: {}, tools: {}\n",
                    path.display(),
                    config.upstreams.len(),
                    config.catalogue.routes().len(),
                    config.mcp_catalogue.len()
                );
                let printed = output::put(&good);
                last_refused(&config.data_dir).iter().for_each(output::told);
                return output::ended(printed);
            }
            Err(error) => vec![error],
        },
    };
    for error in &wrong {
        say(error);
    }
    ExitCode::from(USAGE)
}

fn check_with(config: &Config) -> Result<SpiffeId, RunError> {
    let (dir, environment) = (&config.identity_dir, &config.environment);
    let credentials = Credentials::load(dir, environment, Timestamp::now())?;
    approvals::admit(config.clone(), &credentials.anchor)?;
    run::inspect(config, &credentials)?;
    let wrong: Vec<String> = config
        .upstreams
        .iter()
        .flat_map(upstream::inspect)
        .collect();
    if !wrong.is_empty() {
        return Err(RunError::Upstreams(wrong.join("\n")));
    }
    Ok(credentials.id().clone())
}

/// The credentials that a configuration names in which something else is wrong.
fn credentials_of(path: &Path) -> Option<Result<Credentials, CredentialsError>> {
    let table: toml::Table = std::fs::read_to_string(path).ok()?.parse().ok()?;
    let text = |key| table.get(key).and_then(toml::Value::as_str);
    let dir = path.parent()?.join(text("identity_dir")?);
    let environment = text("environment")?.parse().ok()?;
    Some(Credentials::load(&dir, &environment, Timestamp::now()))
}

fn report(result: Result<(), RunError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn say(error: &RunError) {
    match error {
        // Lines about a file begin with the file.
        RunError::Config(errors) => eprintln!("{errors}"),
        other => eprintln!("{NAME}: {other}"),
    }
}

/// `default` is what is logged unless the environment says otherwise.
fn start_logging(format: LogFormat, default: &str) -> Result<(), String> {
    let set = std::env::var(LOG).ok().filter(|set| !set.is_empty());
    let filter = log_filter(set.as_deref().or(Some(default)))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

/// What is logged: `info` unless set.
fn log_filter(set: Option<&str>) -> Result<EnvFilter, String> {
    let text = set.filter(|text| !text.is_empty()).unwrap_or("info");
    // The library takes a word that is no level for a module of that name, and logs nothing.
    let bare =
        |word: &&str| !word.contains(['=', '[']) && !LEVELS.contains(&word.to_lowercase().as_str());
    if let Some(word) = text.split(',').map(str::trim).find(bare) {
        let levels = LEVELS.join(", ");
        return Err(format!(
            "{LOG}=`{text}`: `{word}` is no level: write one of {levels}, or agentca_enforcer=debug"
        ));
    }
    EnvFilter::try_new(text).map_err(|error| {
        format!("{LOG}=`{text}`: {error}; write it like info, or agentca_enforcer=debug")
    })
}

/// The environment variable that says what is logged, the same for every program of ours.
const LOG: &str = "AGENTCA_LOG";
/// While a server is scanned: what goes wrong, and what the server's program says about itself. That it cannot be
/// started is what the scan itself says.
const SCAN_LOG: &str =
    "warn,agentca_enforcer::stdio::stderr=info,agentca_enforcer::stdio::start=off";
/// What is logged is this and everything before it.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Exit code of what the caller has to write differently.
const USAGE: u8 = 2;
/// Exit code of what nobody answered.
const UNREACHABLE: u8 = 3;
const NAME: &str = "agentca-enforcer";

const EXAMPLES: &str = "\
Examples:
  agentca enforcer add edge-1 --env prod --dns localhost --ip 127.0.0.1 --out ./edge-1
  agentca-enforcer check --config enforcer.toml
  agentca-enforcer run --config enforcer.toml

Environment:
  AGENTCA_LOG  what is logged: error, warn, info (the default), debug, or agentca_enforcer=debug

Exit codes: 0 done, 1 refused or failed, 2 usage or configuration, 3 could not reach.";

const RUN_EXAMPLES: &str = "\
Examples:
  agentca-enforcer run --config enforcer.toml
  AGENTCA_LOG=debug agentca-enforcer run --config enforcer.toml --log-format json
  kill -HUP PID     # reload configuration and certificates, all or nothing
  kill -TERM PID    # finish what runs, leave a checkpoint over everything, exit

enforcer/enforcer.example.toml, in the source tree, is a configuration with every key, its default
and what it is for.";

const CHECK_EXAMPLES: &str = "\
Example:
  agentca-enforcer check --config enforcer.toml

Exits 2 when something is wrong. enforcer/enforcer.example.toml, in the source tree, is a
configuration with every key, its default and what it is for.";

const SCAN_EXAMPLES: &str = "\
Examples:
  agentca-enforcer scan --mcp http://127.0.0.1:9000/mcp --upstream payments
  agentca-enforcer scan --mcp \"npx -y @modelcontextprotocol/server-everything\" --upstream everything
  agentca-enforcer scan --config enforcer.toml --upstream payments
  agentca-enforcer scan --mcp http://127.0.0.1:9000/mcp --upstream payments --dry-run

Writes catalogue.toml and catalogue.pins.json, or what `--out` or the configuration names. Where
they are there already, what is new is added at the end and nothing else is touched. Risks and
permissions are guesses by name, schema and annotations, the higher where unsure: read them. What
would reach external hosts, write files or run code is denied until `agentca-enforcer catalogue
approve --manual-review`. The first scan of a server pins its tools; those that come later, or
change, wait for `agentca-enforcer catalogue approve`.";

const CATALOGUE_EXAMPLES: &str = "\
Examples:
  agentca-enforcer catalogue list --config enforcer.toml
  agentca-enforcer catalogue diff --config enforcer.toml
  agentca-enforcer catalogue approve payments:refund --config enforcer.toml \\
      --reason \"looked at with its maker\" --person ~/.config/agentca/admin";

const DISCLOSE_EXAMPLES: &str = "\
Examples:
  agentca-enforcer disclose --config enforcer.toml --index 42
  agentca-enforcer disclose --config enforcer.toml --index 42 --argument amount
  agentca-enforcer disclose --config enforcer.toml --index 42 --erase

Each line is a disclosure (RFC 9901) of one value. Whoever has it and the record can check it:
`agentca log verify-disclosure`. Kept are those of an enforcer with `disclosures = \"keep\"`.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  agentca-enforcer completions bash > ~/.local/share/bash-completion/completions/agentca-enforcer
  agentca-enforcer completions fish > ~/.config/fish/completions/agentca-enforcer.fish";

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
        look(&Arguments::command());
    }

    #[test]
    fn a_configuration_is_asked_for() {
        assert!(Arguments::try_parse_from([NAME, "run", "--config", "a.toml"]).is_ok());
        assert!(Arguments::try_parse_from([NAME, "serve"]).is_err());
    }

    #[test]
    fn what_is_logged_is_understood_or_refused() {
        assert!(log_filter(None).is_ok() && log_filter(Some("")).is_ok());
        assert!(log_filter(Some("agentca_enforcer=debug")).is_ok());
        assert!(log_filter(Some("WARN,hyper=debug")).is_ok());
        let typo = log_filter(Some("inof")).unwrap_err();
        assert!(
            typo.contains("`inof` is no level") && typo.contains("info"),
            "{typo}"
        );
        let refused = log_filter(Some("agentca_enforcer=loud")).unwrap_err();
        assert!(
            refused.contains("AGENTCA_LOG") && refused.contains("=debug"),
            "{refused}"
        );
    }

    #[test]
    fn every_command_has_examples_and_configurations_name_the_example() {
        for name in [
            "run",
            "check",
            "completions",
            "scan",
            "catalogue",
            "disclose",
        ] {
            let help = Arguments::try_parse_from([NAME, name, "--help"]).unwrap_err();
            let help = help.to_string();
            assert!(help.contains(&format!("{NAME} {name}")), "{help}");
            assert!(help.contains("Example"), "{help}");
            let named = help.contains("enforcer/enforcer.example.toml");
            assert_eq!(named, matches!(name, "run" | "check"), "{help}");
        }
    }
}
