//! `agentca person add`.

use std::io::Write as _;
use std::path::PathBuf;

use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::name::Name;
use agentca_identity::pem;
use agentca_identity::roles::PersonRole;
use agentca_identity::spiffe::{Role, SpiffeId};
use clap::{Args, Subcommand};

use super::args::Connection;
use super::{Failure, existing};
use crate::client::Client;
use crate::credentials::{self, Holder, ROOT};
use crate::staging::{Readers, Staging};

/// What can be done about people.
#[derive(Debug, Subcommand)]
pub(super) enum PersonCommand {
    Add(AddArgs),
}

/// Add a person and write their credential.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca person add bob --role responder --out ./bob
  agentca --credentials ./bob revoke support-01

Roles: admin (everything but reading records), issuer, responder (revoke, restrict), auditor (read
records). Writes person.key (0600), person.crt and ca.crt.")]
pub(super) struct AddArgs {
    /// The person.
    name: Name,
    /// What they may do; repeat, or separate with commas.
    #[arg(
        long = "role",
        value_name = "ROLE",
        required = true,
        value_delimiter = ','
    )]
    roles: Vec<PersonRole>,
    /// The folder to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(command: &PersonCommand, connection: &Connection) -> Result<(), Failure> {
    let PersonCommand::Add(args) = command;
    let mut staging = Staging::prepare(
        &args.out,
        &credentials::person_files(false),
        existing(args.force),
    )?;
    let credential = connection.credential()?;
    let key = PrivateKey::generate(KeyKind::P256).map_err(Failure::refused)?;
    let mut client = Client::connect(&connection.url, &credential).await?;
    let issued = client
        .add_person(&args.name, &args.roles, credentials::request(&key)?)
        .await?;
    let id = SpiffeId::Person {
        trust_domain: credential.anchor.trust_domain().clone(),
        name: args.name.clone(),
    };
    let anchor = &credential.anchor;
    let certificate = credentials::accept(anchor, &issued, Role::Person, &id, key.public_key())?;
    let text = credentials::key_text(&key, None)?;
    staging.write(Holder::Person.key(), text.as_bytes(), Readers::Owner)?;
    let certificates = pem::encode_certs(&issued.chain);
    staging.write(
        Holder::Person.certificate(),
        certificates.as_bytes(),
        Readers::Everybody,
    )?;
    staging.write(ROOT, credential.root_pem.as_bytes(), Readers::Everybody)?;
    staging.commit()?;
    let until = certificate.not_after().rfc3339();
    writeln!(
        std::io::stdout(),
        "added {id} until {until}, record {}",
        issued.record
    )?;
    writeln!(
        std::io::stdout(),
        "use it with `--credentials {}`",
        args.out.display()
    )?;
    Ok(())
}
