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
use crate::client::{CertificateStatus, Client};
use crate::credentials::{self, Holder, ROOT};
use crate::keys::read_passphrase;
use crate::output::{Format, Table, printable, write_pairs};
use crate::staging::{Readers, Staging};

/// What can be done about people.
#[derive(Debug, Subcommand)]
pub(super) enum PersonCommand {
    Add(AddArgs),
    List(ListArgs),
    Show(ShowArgs),
    Remove(RemoveArgs),
    Recover(RecoverArgs),
}

/// List people: what they may do, and how long.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca person list
  agentca person list --json")]
pub(super) struct ListArgs {
    #[command(flatten)]
    format: Format,
}

/// Show one person and their certificates.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agentca person show bob")]
pub(super) struct ShowArgs {
    /// The person.
    name: Name,
    #[command(flatten)]
    format: Format,
}

/// Take all of a person's roles, and revoke all of their certificates.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agentca person remove bob

`agentca person add` adds them again, with a new key.")]
pub(super) struct RemoveArgs {
    /// The person.
    name: Name,
    #[command(flatten)]
    format: Format,
}

/// Add a person and write their credential; one who is there gets the roles given instead of theirs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca person add bob --role responder --out ./bob
  agentca --credentials ./bob revoke support-01

Roles: admin adds people and enforcers, and does what issuer and responder do; issuer issues to
agents and changes their grants; responder revokes and reinstates; auditor lists agents and
enforcers, as everybody does (no command reads records over the network yet). Writes person.key
(0600), person.crt and ca.crt.")]
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

For when nobody has a credential left that is in force. Works on the folder that `agentca init`
made, while `agentca serve` is not running, and asks nobody: whoever can read the keys there may
do it. The log says so. Earlier certificates of the person stay as they are; revoke those that are
lost.")]
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
        PersonCommand::List(args) => list(args, connection).await,
        PersonCommand::Show(args) => show(args, connection).await,
        PersonCommand::Remove(args) => remove(args, connection).await,
        PersonCommand::Recover(args) => recover(args, connection),
    }
}

async fn list(args: &ListArgs, connection: &Connection) -> Result<(), Failure> {
    let people = connection.client().await?.people().await?;
    args.format.print(&people, |out| {
        let mut table = Table::new(["NAME", "STATUS", "VALID", "UNTIL", "ROLES"]);
        for person in &people {
            let certificates = person.certificates.iter();
            let valid = certificates.filter(|it| it.status == CertificateStatus::Active);
            let until = valid.clone().map(|it| it.not_after).max();
            table.row([
                person.name.clone(),
                person.status.as_str().to_owned(),
                format!("{} of {}", valid.count(), person.certificates.len()),
                until.map_or("-".to_owned(), |until| until.rfc3339()),
                person.roles.join(" "),
            ]);
        }
        table.write(out)
    })?;
    Ok(())
}

async fn show(args: &ShowArgs, connection: &Connection) -> Result<(), Failure> {
    let people = connection.client().await?.people().await?;
    let person = people.iter().find(|it| it.name == args.name.as_ref());
    let person = person.ok_or_else(|| {
        Failure::refused(format!(
            "there is no person {}, `agentca person list` shows those there are",
            args.name
        ))
    })?;
    args.format.print(person, |out| {
        let pairs = [
            ("person", person.uri.clone()),
            ("status", person.status.as_str().to_owned()),
            ("roles", person.roles.join(" ")),
        ];
        write_pairs(out, &pairs)?;
        writeln!(out)?;
        let mut table = Table::new(["SERIAL", "STATUS", "NOT AFTER", "RECORD"]);
        for certificate in &person.certificates {
            table.row([
                certificate.serial.to_string(),
                certificate.status.as_str().to_owned(),
                certificate.not_after.rfc3339(),
                certificate.record.to_string(),
            ]);
        }
        table.write(out)
    })?;
    Ok(())
}

async fn remove(args: &RemoveArgs, connection: &Connection) -> Result<(), Failure> {
    let mut client = connection.client().await?;
    let change = client.remove_person(&args.name).await?;
    args.format.print(&change, |out| {
        let subject = printable(&change.subject);
        writeln!(out, "removed {subject}, record {}", change.record)
    })?;
    Ok(())
}

fn recover(args: &RecoverArgs, connection: &Connection) -> Result<(), Failure> {
    let passphrase_file = connection.passphrase_file();
    let passphrase = passphrase_file
        .map(read_passphrase)
        .transpose()
        .map_err(Failure::refused)?;
    let files = credentials::person_files(passphrase_file.is_some());
    let staging = Staging::prepare(&args.out, &files, existing(args.force))?;
    let id = SpiffeId::Person {
        trust_domain: crate::recover::trust_domain(&args.data).map_err(Failure::refused)?,
        name: args.name.clone(),
    };
    credentials::demand_own(&args.out, &id)?;
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
    let id = SpiffeId::Person {
        trust_domain: credential.anchor.trust_domain().clone(),
        name: args.name.clone(),
    };
    credentials::demand_own(&args.out, &id)?;
    let key = PrivateKey::generate(KeyKind::P256).map_err(Failure::refused)?;
    let mut client = Client::connect(&connection.url, &credential).await?;
    let known = client.people().await?;
    let known = known.iter().find(|it| it.name == args.name.as_ref());
    let issued = client
        .add_person(&args.name, &args.roles, credentials::request(&key)?)
        .await?;
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
    let mut roles: Vec<PersonRole> = args.roles.clone();
    roles.sort_unstable();
    roles.dedup();
    let roles: Vec<String> = roles.iter().map(ToString::to_string).collect();
    if let Some(before) = known.filter(|it| it.roles != roles) {
        let before = match before.roles.as_slice() {
            [] => "none".to_owned(),
            roles => printable(&roles.join(", ")),
        };
        writeln!(
            std::io::stdout(),
            "their roles were {before}, and are {} from now on",
            roles.join(", ")
        )?;
    }
    writeln!(
        std::io::stdout(),
        "use it with `--credentials {}`",
        args.out.display()
    )?;
    Ok(())
}
