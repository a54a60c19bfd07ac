//! `agentca revoke` and `agentca reinstate`.

use std::io::{self, Write};

use agentca_identity::name::{Environment, Owner};
use agentca_identity::profile::RevocationReason;
use agentca_identity::serial::{Serial, SerialError};
use clap::{ArgGroup, Args};

use super::args::{AgentRef, Connection};
use super::{Failure, select};
use crate::client::{RevokeTarget, Revoked};
use crate::output::{Format, count, printable};

/// End an agent's certificates and suspend its grant, and wait until enforcers have confirmed.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["agent", "serial", "owner"]), after_help = "\
Examples:
  agentca revoke support-01 --reason key-compromise
  agentca revoke staging/support-01
  agentca revoke --owner alice@example.org --reason cessationOfOperation
  agentca revoke --serial 3f0a6c1d2b4e5f60718293a4b5c6d7e8

Reasons (RFC 5280, in either spelling): unspecified, key-compromise, ca-compromise,
affiliation-changed, superseded, cessation-of-operation, certificate-hold, privilege-withdrawn,
aa-compromise.

Waits for up to two seconds. Exits 4, naming who lags, when the revocation is durable but some
enforcer has not confirmed it.")]
pub(super) struct RevokeArgs {
    /// The agent, NAME or ENV/NAME.
    agent: Option<AgentRef>,
    /// One certificate, by its serial number in hexadecimal; its agent's grant stands.
    #[arg(long, value_name = "HEX", value_parser = serial)]
    serial: Option<Serial>,
    /// Every agent of an owner.
    #[arg(long)]
    owner: Option<Owner>,
    /// The agent's environment.
    #[arg(long, requires = "agent")]
    env: Option<Environment>,
    /// Why.
    #[arg(long, default_value = "unspecified")]
    reason: RevocationReason,
    #[command(flatten)]
    format: Format,
}

/// Lift the suspension of a revoked agent; certificates that were revoked stay so.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agentca reinstate support-01
  agentca issue support-01 --out ./support-01 --force")]
pub(super) struct ReinstateArgs {
    /// The agent, NAME or ENV/NAME.
    agent: AgentRef,
    /// The agent's environment.
    #[arg(long)]
    env: Option<Environment>,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(args: &RevokeArgs, connection: &Connection) -> Result<(), Failure> {
    let mut client = connection.client().await?;
    let found;
    let target = match (&args.agent, &args.serial, &args.owner) {
        (Some(named), _, _) => {
            found = select::agent(&mut client, named, args.env.as_ref()).await?;
            RevokeTarget::Agent {
                environment: &found.environment,
                name: &found.name,
            }
        }
        (None, Some(serial), _) => RevokeTarget::Serial(serial),
        (None, None, Some(owner)) => RevokeTarget::Owner(owner),
        (None, None, None) => {
            return Err(Failure::usage(
                "name an agent, or give `--serial` or `--owner`",
            ));
        }
    };
    let revoked = client.revoke(target, args.reason).await?;
    args.format
        .print(&revoked, |out| tell(&revoked, args.serial.as_ref(), out))?;
    if revoked.lagging.is_empty() {
        Ok(())
    } else {
        let lagging = printable(&revoked.lagging.join(", "));
        Err(Failure::NotYetInForce(format!(
            "revoked, but not confirmed by {lagging}: look there; with a feed it denies everything \
             after its stale_after, with CRLs it follows when it fetches the next one"
        )))
    }
}

/// What ended and by which record, then where that is in force.
fn tell(revoked: &Revoked, serial: Option<&Serial>, out: &mut dyn Write) -> io::Result<()> {
    let certificates = count(revoked.certificates, "certificate");
    let record = revoked.record;
    match (serial, revoked.agents.as_slice()) {
        (Some(serial), _) if revoked.certificates == 0 => {
            writeln!(
                out,
                "certificate {serial} was revoked already, record {record}"
            )?;
        }
        (Some(serial), _) => writeln!(out, "revoked certificate {serial}, record {record}")?,
        (None, [agent]) if revoked.already.contains(agent) => {
            let agent = printable(agent);
            writeln!(out, "{agent} was revoked already, record {record}")?;
        }
        (None, [agent]) => {
            let agent = printable(agent);
            writeln!(out, "revoked {agent}, {certificates}, record {record}")?;
        }
        (None, agents) => {
            for agent in agents {
                let already = revoked.already.contains(agent);
                let agent = printable(agent);
                if already {
                    writeln!(out, "{agent} was revoked already")?;
                } else {
                    writeln!(out, "revoked {agent}")?;
                }
            }
            writeln!(out, "ended {certificates}, newest record {record}")?;
        }
    }
    for silent in &revoked.silent {
        writeln!(
            out,
            "silent: {}; with a feed it denies everything by now, with CRLs it follows when it \
             fetches the next one",
            printable(silent)
        )?;
    }
    let Revoked {
        confirmed,
        enforcers,
        ..
    } = revoked;
    if revoked.lagging.is_empty() {
        let ms = revoked.in_force_ms.ceil();
        writeln!(
            out,
            "in force at {confirmed} of {enforcers} enforcers, {ms} ms"
        )
    } else {
        writeln!(
            out,
            "in force at {confirmed} of {enforcers} enforcers so far"
        )
    }
}

/// A serial number as anybody writes it: other programs print capitals, and colons.
fn serial(text: &str) -> Result<Serial, String> {
    text.replace(':', "")
        .to_ascii_lowercase()
        .parse()
        .map_err(|e: SerialError| e.to_string())
}

pub(super) async fn reinstate(
    args: &ReinstateArgs,
    connection: &Connection,
) -> Result<(), Failure> {
    let mut client = connection.client().await?;
    let agent = select::agent(&mut client, &args.agent, args.env.as_ref()).await?;
    let change = client.reinstate(&agent.environment, &agent.name).await?;
    args.format.print(&change, |out| {
        let subject = printable(&change.subject);
        writeln!(
            out,
            "reinstated {subject}, record {}; issue it a new certificate",
            change.record
        )
    })?;
    Ok(())
}
