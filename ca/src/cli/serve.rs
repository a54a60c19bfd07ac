//! `agentca serve`.

use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::Failure;
use super::args::Connection;
use crate::serve::{ServeError, ServeOptions};

/// Run the authority until SIGTERM or SIGINT.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca serve --data ./pki
  agentca serve --data ./pki --listen 0.0.0.0:7443 --http-listen 0.0.0.0:7080

gRPC over mutual TLS is on --listen; the root, CRLs, checkpoint, hash tiles, /healthz and /metrics
are on --http-listen, in plain HTTP. agentca.toml in the folder has every other setting, with its
default and what it is for.

Environment:
  AGENTCA_LOG  what is logged: error, warn, info (the default), debug, or agentca=debug")]
pub(super) struct ServeArgs {
    /// The folder that `agentca init` made.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to serve gRPC [default: agentca.toml's, or 127.0.0.1:7443].
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Where to serve plain HTTP [default: agentca.toml's, or 127.0.0.1:7080].
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    http_listen: Option<SocketAddr>,
    /// How log lines are written to stderr; AGENTCA_LOG sets what is logged.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

pub(super) fn run(args: &ServeArgs, connection: &Connection) -> Result<(), Failure> {
    let filter = log_filter(std::env::var(LOG).ok().as_deref())?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match args.log_format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().init(),
    }
    let options = ServeOptions {
        data: args.data.clone(),
        listen: args.listen,
        http_listen: args.http_listen,
        passphrase_file: connection.passphrase_file.clone(),
        ready: match args.log_format {
            LogFormat::Text => told,
            // The log has it too.
            LogFormat::Json => |_, _| (),
        },
    };
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::refused(format!("could not start: {e}")))?
        .block_on(async {
            let asked = Asked::watch()
                .map_err(|e| Failure::refused(format!("could not wait for signals: {e}")))?;
            crate::serve::run(options, asked.wait())
                .await
                .map_err(|error| match error {
                    // What the operator gave cannot be used, and nothing was begun.
                    ServeError::Config(_) | ServeError::Key(_) | ServeError::Pki(_) => {
                        Failure::usage(error)
                    }
                    _ => Failure::refused(error),
                })
        })
}

/// One line for whoever started it.
fn told(grpc: SocketAddr, http: SocketAddr) {
    eprintln!("agentca: ready, gRPC on https://{grpc}, HTTP on http://{http}");
}

/// A name is no address: it could mean several.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "write an address with its port, like 127.0.0.1:7443".to_owned())
}

/// What is logged: `info` unless set.
fn log_filter(set: Option<&str>) -> Result<EnvFilter, Failure> {
    let text = set.filter(|text| !text.is_empty()).unwrap_or("info");
    // The library takes a word that is no level for a module of that name, and logs nothing.
    let bare =
        |word: &&str| !word.contains(['=', '[']) && !LEVELS.contains(&word.to_lowercase().as_str());
    if let Some(word) = text.split(',').map(str::trim).find(bare) {
        let levels = LEVELS.join(", ");
        return Err(Failure::usage(format!(
            "{LOG}=`{text}`: `{word}` is no level: write one of {levels}, or agentca=debug"
        )));
    }
    EnvFilter::try_new(text).map_err(|error| {
        Failure::usage(format!(
            "{LOG}=`{text}`: {error}; write it like info, or agentca=debug"
        ))
    })
}

/// The environment variable that says what is logged, the same for every program of ours.
const LOG: &str = "AGENTCA_LOG";
/// What is logged is this and everything before it.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The signals that end the program.
struct Asked {
    terminate: Signal,
    interrupt: Signal,
}

impl Asked {
    fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_level_is_refused() {
        for good in [None, Some(""), Some("Debug"), Some("warn,agentca=debug")] {
            assert!(log_filter(good).is_ok(), "{good:?}");
        }
        for bad in ["inof", "loud", "info,agentca", "agentca=loud"] {
            let refused = log_filter(Some(bad)).map(|_| ()).unwrap_err();
            assert!(format!("{refused:?}").contains(LOG), "{refused:?}");
        }
    }
}
