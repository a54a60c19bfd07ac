//! `agentca enforcer add|list|remove`.

use std::net::IpAddr;
use std::path::PathBuf;

use agentca_identity::name::{DnsName, Environment};
use agentca_identity::spiffe::SpiffeId;
use clap::{ArgGroup, Args, Subcommand};

use super::args::{AgentRef, Connection};
use super::{Failure, existing, select};
use crate::client::{Client, EnforcerState};
use crate::credentials;
use crate::enrol::{EnrolError, Enrolment, NewEnforcer};
use crate::output::{Format, Table, printable};

/// What can be done about enforcers.
#[derive(Debug, Subcommand)]
pub(super) enum EnforcerCommand {
    Add(AddArgs),
    List(ListArgs),
    Remove(RemoveArgs),
}

/// Add an enforcer: write its certificates and keys, and where the authority's log stands.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("names").required(true).multiple(true).args(["dns", "ip"]), after_help = "\
Examples:
  agentca enforcer add edge-1 --env prod --dns localhost --ip 127.0.0.1 --out ./edge-1
  agentca enforcer add edge-1 --dns localhost --new-log --force --out ./edge-1

Writes tls, log and response .crt and .key (0600), feed.toml, signers.pem, issuers.pem and ca.crt;
the folder is the enforcer's identity_dir. The keys are made here and never sent. --new-log is for
an enforcer whose log is lost: it goes on under a new generation of the log's origin.")]
pub(super) struct AddArgs {
    /// The enforcer, NAME or ENV/NAME.
    name: AgentRef,
    /// The environment it enforces [default: prod].
    #[arg(long)]
    env: Option<Environment>,
    /// A DNS name that clients call it by; repeat, or separate with commas.
    #[arg(long = "dns", value_name = "NAME", value_delimiter = ',')]
    dns: Vec<DnsName>,
    /// An address that clients call it by; repeat, or separate with commas.
    #[arg(long = "ip", value_name = "ADDRESS", value_delimiter = ',')]
    ip: Vec<IpAddr>,
    /// The folder to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Start a new log for an enforcer that is known and lost its own.
    #[arg(long)]
    new_log: bool,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    format: Format,
}

/// List enforcers: who is connected, and how far each is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca enforcer list
  agentca enforcer list --json

IN FORCE is the status number that an enforcer has confirmed, of the newest of its environment.
LAST SEEN counts from the authority's last start.")]
pub(super) struct ListArgs {
    #[command(flatten)]
    format: Format,
}

/// Retire an enforcer: its certificates are revoked, and it is not waited for again.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agentca enforcer remove edge-1")]
pub(super) struct RemoveArgs {
    /// The enforcer, NAME or ENV/NAME.
    name: AgentRef,
    /// Its environment.
    #[arg(long)]
    env: Option<Environment>,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(command: &EnforcerCommand, connection: &Connection) -> Result<(), Failure> {
    match command {
        EnforcerCommand::Add(args) => add(args, connection).await,
        EnforcerCommand::List(args) => list(args, connection).await,
        EnforcerCommand::Remove(args) => remove(args, connection).await,
    }
}

async fn add(args: &AddArgs, connection: &Connection) -> Result<(), Failure> {
    let environment = match args.name.environment(args.env.as_ref())? {
        Some(environment) => environment,
        None => "prod".parse().map_err(Failure::usage)?,
    };
    let enrolment = Enrolment::prepare(&args.out, existing(args.force))?;
    let credential = connection.credential()?;
    let id = SpiffeId::Enforcer {
        trust_domain: credential.anchor.trust_domain().clone(),
        environment: environment.clone(),
        name: args.name.name.clone(),
    };
    credentials::demand_own(&args.out, &id)?;
    let mut client = Client::connect(&connection.url, &credential).await?;
    let known = client.enforcers().await?;
    let known = known
        .iter()
        .find(|it| it.environment == environment.as_ref() && it.name == args.name.name.as_ref());
    let new = NewEnforcer {
        environment: &environment,
        name: &args.name.name,
        dns: &args.dns,
        ip: &args.ip,
        new_log: args.new_log,
    };
    let enrolled = enrolment.enrol(&mut client, &credential, &new).await?;
    args.format.print(&enrolled, |out| {
        writeln!(out, "added {} until {}", enrolled.uri, enrolled.not_after)?;
        writeln!(
            out,
            "log {}, record {}",
            enrolled.log_origin, enrolled.record
        )?;
        writeln!(out, "wrote its identity_dir {}", args.out.display())?;
        if known.is_some_and(|it| it.log_origin != enrolled.log_origin) {
            writeln!(out, "this begins a new log: give it a new data_dir")?;
        }
        Ok(())
    })?;
    Ok(())
}

async fn list(args: &ListArgs, connection: &Connection) -> Result<(), Failure> {
    let enforcers = connection.client().await?.enforcers().await?;
    args.format.print(&enforcers, |out| {
        let mut table = Table::new([
            "ENVIRONMENT",
            "NAME",
            "STATUS",
            "IN FORCE",
            "LAST SEEN",
            "NAMES",
            "LOG",
        ]);
        for enforcer in &enforcers {
            let names: Vec<_> = enforcer.dns.iter().chain(&enforcer.ip).cloned().collect();
            table.row([
                enforcer.environment.clone(),
                enforcer.name.clone(),
                enforcer.state().to_owned(),
                format!("{} of {}", enforcer.confirmed, enforcer.newest),
                last_seen(enforcer),
                names.join(" "),
                format!("{} ({})", enforcer.log_origin, enforcer.log_size),
            ]);
        }
        table.write(out)
    })?;
    Ok(())
}

/// The authority remembers who was there only for as long as it runs; a log that was witnessed
/// tells that its enforcer was there before.
fn last_seen(enforcer: &EnforcerState) -> String {
    match enforcer.last_seen {
        Some(seen) => seen.rfc3339(),
        None if enforcer.log_size > 0 => "before this start".to_owned(),
        None => "not since this start".to_owned(),
    }
}

async fn remove(args: &RemoveArgs, connection: &Connection) -> Result<(), Failure> {
    let mut client = connection.client().await?;
    let environment = select::enforcer(&mut client, &args.name, args.env.as_ref()).await?;
    let change = client
        .remove_enforcer(&environment, args.name.name.as_ref())
        .await?;
    args.format.print(&change, |out| {
        writeln!(
            out,
            "removed {}, record {}",
            printable(&change.subject),
            change.record
        )
    })?;
    Ok(())
}

impl From<EnrolError> for Failure {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::Client(error) => error.into(),
            EnrolError::Credential(_) | EnrolError::Staging(_) | EnrolError::Head(_) => {
                Self::refused(error)
            }
        }
    }
}
