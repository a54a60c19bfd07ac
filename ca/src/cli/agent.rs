//! `agentca agent list|show|grant`.

use std::io::{self, Write};

use agentca_identity::name::{Environment, Name};
use agentca_identity::scope::{Scope, ScopeSet};
use agentca_identity::trust::TrustLevel;
use clap::{ArgGroup, Args, Subcommand};

use super::args::{AgentRef, Connection, Span};
use super::{Failure, select};
use crate::client::{Agent, CertificateStatus, Grant, GrantChange};
use crate::output::{Format, Table, printable, write_pairs};

/// What can be done about agents.
#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    List(ListArgs),
    Show(ShowArgs),
    Grant(GrantArgs),
}

/// List every agent, revoked ones included.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca agent list
  agentca agent list --env prod --json | jq -r '.[] | select(.status == \"active\") | .name'")]
pub(super) struct ListArgs {
    /// Only this environment.
    #[arg(long)]
    env: Option<Environment>,
    /// Only agents of this name.
    #[arg(long)]
    name: Option<Name>,
    #[command(flatten)]
    format: Format,
}

/// Show one agent, its grant and its certificates.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca agent show support-01
  agentca agent show prod/support-01 --json")]
pub(super) struct ShowArgs {
    /// The agent, NAME or ENV/NAME.
    agent: AgentRef,
    /// The agent's environment.
    #[arg(long)]
    env: Option<Environment>,
    #[command(flatten)]
    format: Format,
}

/// Change what an agent may be issued, narrower or wider; what isn't given stays.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("change").required(true).multiple(true)
        .args(["scopes", "trust", "ttl", "groups"]),
    after_help = "\
Examples:
  agentca agent grant support-01 --scope payments:read,payments:refund
  agentca agent grant prod/support-01 --trust L1 --ttl 30m

Certificates that are out keep what they carry until they end. A renewal brings what both the
certificate in hand and the new grant allow: what is wider is used when the agent is issued again."
)]
pub(super) struct GrantArgs {
    /// The agent, NAME or ENV/NAME.
    agent: AgentRef,
    /// The agent's environment.
    #[arg(long)]
    env: Option<Environment>,
    /// All it may do from now on; repeat, or separate with commas.
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// Its highest trust level, L0 to L4.
    #[arg(long)]
    trust: Option<TrustLevel>,
    /// Its certificates' longest life.
    #[arg(long)]
    ttl: Option<Span>,
    /// All groups it belongs to from now on; repeat, or separate with commas.
    #[arg(long = "group", value_name = "GROUP", value_delimiter = ',')]
    groups: Vec<String>,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(command: &AgentCommand, connection: &Connection) -> Result<(), Failure> {
    match command {
        AgentCommand::List(args) => list(args, connection).await,
        AgentCommand::Show(args) => show(args, connection).await,
        AgentCommand::Grant(args) => grant(args, connection).await,
    }
}

async fn list(args: &ListArgs, connection: &Connection) -> Result<(), Failure> {
    let mut client = connection.client().await?;
    let environment = args
        .env
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let name = args
        .name
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let agents = client.agents(&environment, &name).await?;
    args.format.print(&agents, |out| {
        let mut table = Table::new([
            "ENVIRONMENT",
            "NAME",
            "OWNER",
            "TRUST",
            "STATUS",
            "VALID",
            "SCOPES",
        ]);
        for agent in &agents {
            table.row([
                agent.environment.clone(),
                agent.name.clone(),
                agent.owner.clone(),
                agent.trust.to_string(),
                agent.status.as_str().to_owned(),
                format!("{} of {}", valid(agent), agent.certificates.len()),
                agent.scopes.join(" "),
            ]);
        }
        table.write(out)
    })?;
    Ok(())
}

fn valid(agent: &Agent) -> usize {
    agent
        .certificates
        .iter()
        .filter(|c| c.status == CertificateStatus::Active)
        .count()
}

async fn show(args: &ShowArgs, connection: &Connection) -> Result<(), Failure> {
    let mut client = connection.client().await?;
    let agent = select::agent(&mut client, &args.agent, args.env.as_ref()).await?;
    args.format.print(&agent, |out| describe(&agent, out))?;
    Ok(())
}

fn describe(agent: &Agent, out: &mut dyn Write) -> io::Result<()> {
    let mut pairs = vec![
        ("agent", agent.uri.clone()),
        ("owner", agent.owner.clone()),
        ("status", agent.status.as_str().to_owned()),
    ];
    match &agent.grant {
        None => pairs.push(("scopes", "none: nothing was granted yet".to_owned())),
        Some(grant) => describe_grant(grant, &mut pairs),
    }
    write_pairs(out, &pairs)?;
    writeln!(out)?;
    let mut table = Table::new(["SERIAL", "STATUS", "NOT AFTER", "TRUST", "RECORD", "SCOPES"]);
    for certificate in &agent.certificates {
        let status = certificate.status.as_str();
        table.row([
            certificate.serial.to_string(),
            certificate
                .reason
                .map_or(status.to_owned(), |reason| format!("{status}: {reason}")),
            certificate.not_after.rfc3339(),
            certificate.trust.to_string(),
            certificate.record.to_string(),
            certificate.scopes.join(" "),
        ]);
    }
    table.write(out)
}

fn describe_grant(grant: &Grant, pairs: &mut Vec<(&str, String)>) {
    pairs.extend([
        ("scopes", grant.scopes.join(" ")),
        ("highest trust", grant.max_trust.to_string()),
        ("longest life", format!("{} s", grant.max_lifetime_seconds)),
        (
            "granted by",
            format!("{}, record {}", grant.approved_by, grant.record),
        ),
    ]);
    if !grant.groups.is_empty() {
        pairs.push(("groups", grant.groups.join(" ")));
    }
}

async fn grant(args: &GrantArgs, connection: &Connection) -> Result<(), Failure> {
    let scopes = match args.scopes.as_slice() {
        [] => None,
        scopes => Some(ScopeSet::new(scopes.iter().cloned()).map_err(Failure::usage)?),
    };
    let mut client = connection.client().await?;
    let agent = select::agent(&mut client, &args.agent, args.env.as_ref()).await?;
    let change = GrantChange {
        scopes: scopes.as_ref(),
        max_trust: args.trust,
        max_lifetime: args.ttl.map(|ttl| ttl.0),
        groups: (!args.groups.is_empty()).then_some(args.groups.as_slice()),
    };
    let widens = agent
        .grant
        .as_ref()
        .is_none_or(|standing| is_wider(&change, standing));
    let change = client
        .set_grant(&agent.environment, &agent.name, change)
        .await?;
    args.format.print(&change, |out| {
        writeln!(
            out,
            "changed the grant of {}, record {}",
            printable(&change.subject),
            change.record
        )?;
        if widens {
            writeln!(
                out,
                "issue it again to use wider rights: renewals keep what they have"
            )?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Whether anything is allowed that was not.
fn is_wider(change: &GrantChange<'_>, standing: &Grant) -> bool {
    let scopes = standing.scopes.iter().map(|scope| scope.parse::<Scope>());
    let before = scopes.collect::<Result<Vec<_>, _>>().ok();
    let before = before.and_then(|scopes| ScopeSet::new(scopes).ok());
    let scopes = change.scopes.is_some_and(|scopes| {
        before
            .as_ref()
            .is_none_or(|before| !scopes.is_within(before))
    });
    let trust = change.max_trust.is_some_and(|it| it > standing.max_trust);
    let life = change
        .max_lifetime
        .is_some_and(|it| it.as_secs() > standing.max_lifetime_seconds);
    scopes || trust || life
}
