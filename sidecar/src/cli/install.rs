//! `agentca-sidecar install`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use agentca_identity::time::Timestamp;
use clap::Args;

use super::Failure;
use crate::credentials::Credential;
use crate::install::{Client, Entry, InstallError, Plan};
use crate::url::{AuthorityUrl, EnforcerUrl};
use crate::verify::Verify;

/// Write the bridge into the configuration of an MCP client
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InstallArguments {
    /// The enforcer's endpoint
    url: EnforcerUrl,
    /// The client; with --print: whose form of configuration, Cursor's when nothing is said
    #[arg(long, value_enum, required_unless_present = "print")]
    client: Option<Client>,
    /// The agent's folder, which `agentca issue --out DIR` wrote
    #[arg(
        long,
        value_name = "DIR",
        env = "AGENTCA_CREDENTIALS",
        hide_env_values = true
    )]
    credentials: PathBuf,
    /// What the client shall call it [default: the last part of the URL]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The authority that renews the certificate [default: the bridge's own]
    #[arg(long, value_name = "URL")]
    authority: Option<AuthorityUrl>,
    /// What to do with an answer that the enforcer's signature does not cover
    #[arg(long, value_enum, default_value_t = Verify::Require)]
    verify: Verify,
    /// The configuration, when it is not where the client has it usually
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Show what would change, and write nothing
    #[arg(long, conflicts_with = "print")]
    dry_run: bool,
    /// Print a configuration with nothing but the entry, and read and write nothing
    #[arg(long)]
    print: bool,
}

pub(super) fn run(arguments: &InstallArguments) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let entry = entry(arguments)?;
    // Most other clients read what this one does.
    let client = arguments.client.unwrap_or(Client::Cursor);
    if arguments.print {
        return Ok(out.write_all(entry.document(client).as_bytes())?);
    }
    let variable = |name: &str| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    let path = match &arguments.file {
        Some(path) => path.clone(),
        None => client.path(variable)?,
    };
    let plan = Plan::make(path, client, &entry)?;
    let shown = plan.path.display();
    if plan.is_done() {
        return Ok(writeln!(out, "`{}` is in {shown} already", entry.name)?);
    }
    if arguments.dry_run {
        return Ok(out.write_all(plan.diff().as_bytes())?);
    }
    let backup = plan.write()?;
    writeln!(out, "wrote `{}` to {shown}", entry.name)?;
    if let Some(backup) = backup {
        writeln!(out, "what was there is in {}", backup.display())?;
    }
    writeln!(out, "now {}", client.advice())?;
    Ok(())
}

/// The entry; a client starts it anywhere, so that every path in it is a whole one.
fn entry(arguments: &InstallArguments) -> Result<Entry, Failure> {
    let program = std::env::current_exe()
        .map_err(|e| Failure::refused(format!("could not tell where this program is: {e}")))?;
    let credential = Credential::load(&arguments.credentials).map_err(Failure::refused)?;
    credential
        .check_time(Timestamp::now())
        .map_err(Failure::refused)?;
    let folder = std::fs::canonicalize(&arguments.credentials).map_err(|e| {
        Failure::refused(format!(
            "could not find {}: {e}",
            arguments.credentials.display()
        ))
    })?;
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            Failure::refused(format!(
                "{} is not UTF-8, give another path",
                path.display()
            ))
        })
    };
    let mut words = vec![
        "connect".to_owned(),
        "--stdio".to_owned(),
        arguments.url.to_string(),
        "--credentials".to_owned(),
        text(&folder)?,
    ];
    if let Some(authority) = &arguments.authority {
        words.extend(["--authority".to_owned(), authority.to_string()]);
    }
    match arguments.verify {
        Verify::Require => {}
        Verify::Warn => words.extend(["--verify".to_owned(), "warn".to_owned()]),
        Verify::Off => words.extend(["--verify".to_owned(), "off".to_owned()]),
    }
    let last = arguments.url.path.split('?').next().unwrap_or_default();
    let last = last.rsplit('/').find(|part| !part.is_empty());
    let name = arguments.name.as_deref().or(last).unwrap_or("agentca");
    Ok(Entry {
        name: name.to_owned(),
        command: text(&program)?,
        arguments: words,
    })
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        Self::refused(error)
    }
}

const EXAMPLES: &str = "\
Examples:
  agentca-sidecar install --client claude-desktop https://localhost:8443/mcp/payments \\
      --credentials ./support-01 --dry-run
  agentca-sidecar install --client vscode https://localhost:8443/mcp/payments \\
      --credentials ./support-01 --name payments
  agentca-sidecar install https://localhost:8443/mcp/payments --credentials ./support-01 --print

What else is in the file stays as it is, byte for byte, comments too, and a copy is kept beside
it. A file that is not understood is left alone.";
