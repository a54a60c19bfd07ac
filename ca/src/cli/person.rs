//! `agentca person`.

use std::io::Write as _;
use std::path::PathBuf;

use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::name::Name;
use agentca_identity::pem;
use agentca_identity::roles::PersonRole;
use agentca_identity::spiffe::{Role, SpiffeId};
use clap::{Args, Subcommand};

use super::args::Connection;
use super::{Failure, existing, init};
use crate::client::Client;
use crate::credentials::{self, Holder, ROOT};
use crate::keys::read_passphrase;
use crate::staging::{Readers, Staging};

/// What can be done about people.
#[derive(Debug, Subcommand)]
pub(super) enum PersonCommand {
    Add(AddArgs),
    Recover(RecoverArgs),
}

/// Add a person and write their credential.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca person add bob --role responder --out ./bob
  agentca --credentials ./bob revoke support-01

Roles: admin adds people and enforcers, and does what issuer and responder do; issuer issues to agents
and changes their grants; responder revokes and reinstates; auditor lists agents and enforcers, as
everybody does (no command reads records over the network yet). Writes person.key (0600), person.crt
and ca.crt.")]
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

/// Give a person every role and a new credential, on the authority's own machine.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agentca person recover admin --data ./pki --out ./admin

For when nobody has a credential left that is in force. Works on the folder that `agentca init` made,
while `agentca serve` is not running, and asks nobody: whoever can read the keys there may do it. The
log says so. Earlier certificates of the person stay as they are; revoke those that are lost.")]
pub(super) struct RecoverArgs {
    /// The person; a new one if there is none of that name.
    name: Name,
    /// The authority's folder.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The folder to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(command: &PersonCommand, connection: &Connection) -> Result<(), Failure> {
    match command {
        PersonCommand::Add(args) => add(args, connection).await,
        PersonCommand::Recover(args) => recover(args, connection),
    }
}

fn recover(args: &RecoverArgs, connection: &Connection) -> Result<(), Failure> {
    let passphrase_file = connection.passphrase_file();
    let passphrase = passphrase_file
        .map(read_passphrase)
        .transpose()
        .map_err(Failure::refused)?;
    let files = credentials::person_files(passphrase_file.is_some());
    let staging = Staging::prepare(&args.out, &files, existing(args.force))?;
    let made = crate::recover::recover(&args.data, args.name.clone(), passphrase.clone())
        .map_err(Failure::refused)?;
    let key = credentials::key_text(&made.admin_key, passphrase.as_ref().map(|p| p.as_str()))?;
    init::write(staging, &made, &key, passphrase_file)?;
    let out = args.out.display();
    writeln!(
        std::io::stdout(),
        "{} may do everything, with {out}\nuse it with `--credentials {out}` once `agentca serve` runs again",
        made.admin,
    )?;
    Ok(())
}

async fn add(args: &AddArgs, connection: &Connection) -> Result<(), Failure> {
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
