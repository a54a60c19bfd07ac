//! `agentca renew`.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use agentca_identity::time::Timestamp;
use clap::Args;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use super::args::Connection;
use crate::renew::{Folder, RenewError, Renewed};

/// Renew the certificates of a folder with the certificate in hand: an agent's, a person's, or all
/// three of an enforcer.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca renew ./support-01
  agentca renew ./edge-1 --daemon
  agentca renew ./support-01 --daemon --exec 'systemctl reload support'

Every renewal is a fresh decision against the grant as it stands, and never brings more than the
certificate in hand has: wider rights are issued again. With --daemon, renews at about
two thirds of a certificate's life, says when that is, and tries again, ever more slowly, when it
fails.")]
pub(super) struct RenewArgs {
    /// The folder with agent.crt, person.crt or tls.crt, the keys and ca.crt.
    dir: PathBuf,
    /// Stay, and renew whenever it is due.
    #[arg(long)]
    daemon: bool,
    /// A shell command to run after each renewal.
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,
}

pub(super) async fn run(args: &RenewArgs, connection: &Connection) -> Result<(), Failure> {
    let folder = Folder {
        path: args.dir.clone(),
        url: connection.url.clone(),
        passphrase_file: connection.passphrase_file.clone(),
    };
    if args.daemon {
        return stay(&folder, args.exec.as_deref()).await;
    }
    let renewed = folder.renew().await?;
    tell(&renewed)?;
    match &args.exec {
        Some(command) => execute(command).await.map_err(Failure::Refused),
        None => Ok(()),
    }
}

/// Renews whenever it is due until told to end.
async fn stay(folder: &Folder, exec: Option<&str>) -> Result<(), Failure> {
    let mut end = signal(SignalKind::terminate())
        .map_err(|e| Failure::refused(format!("could not wait for signals: {e}")))?;
    tokio::select! {
        failure = keep(folder, exec) => Err(failure),
        _ = end.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// Ends only when trying again can't help.
async fn keep(folder: &Folder, exec: Option<&str>) -> Failure {
    let mut failures: u32 = 0;
    loop {
        let attempt = match folder.due() {
            Ok(due) => {
                if failures == 0 {
                    if let Err(failure) = tell_next(folder, due) {
                        return failure;
                    }
                    until(due).await;
                }
                folder.renew().await
            }
            Err(error) => Err(error),
        };
        match attempt {
            Ok(renewed) => {
                failures = 0;
                if let Err(failure) = tell(&renewed) {
                    return failure;
                }
                if let Some(Err(message)) = run_if_any(exec).await {
                    warn(&message);
                }
                // However short a life is, the authority is not asked without pause.
                tokio::time::sleep(Folder::retry_after(0)).await;
            }
            Err(error) if error.is_final() => return error.into(),
            Err(error) => {
                let wait = Folder::retry_after(failures);
                failures = failures.saturating_add(1);
                warn(&format!(
                    "{error}; trying again in {} s",
                    wait.as_secs().max(1)
                ));
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Sleeps in short steps: the clock may be set, and a machine may have been suspended.
async fn until(due: Timestamp) {
    const STEP: Duration = Duration::from_secs(30);
    loop {
        let left = due.saturating_since(Timestamp::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(STEP)).await;
    }
}

async fn run_if_any(exec: Option<&str>) -> Option<Result<(), String>> {
    Some(execute(exec?).await)
}

async fn execute(command: &str) -> Result<(), String> {
    match Command::new("sh").arg("-c").arg(command).status().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("renewed, but `{command}` failed: {status}")),
        Err(e) => Err(format!("renewed, but `{command}` could not be run: {e}")),
    }
}

fn tell(renewed: &Renewed) -> Result<(), Failure> {
    let Renewed {
        id,
        not_after,
        record,
    } = renewed;
    let until = not_after.rfc3339();
    Ok(writeln!(
        std::io::stdout(),
        "renewed {id} until {until}, record {record}"
    )?)
}

/// When a folder that is kept alive is due, unless that is now.
fn tell_next(folder: &Folder, due: Timestamp) -> Result<(), Failure> {
    if due <= Timestamp::now() {
        return Ok(());
    }
    let path = folder.path.display();
    Ok(writeln!(
        std::io::stdout(),
        "next renewal of {path} at {}",
        due.rfc3339()
    )?)
}

fn warn(message: &str) {
    // Nobody to tell is no reason to stop renewing.
    let _ = writeln!(std::io::stderr(), "agentca: {message}");
}

impl From<RenewError> for Failure {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::Client(error) => error.into(),
            RenewError::Credential(_) | RenewError::Staging(_) | RenewError::Expired { .. } => {
                Self::refused(error)
            }
        }
    }
}
