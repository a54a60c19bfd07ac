//! `agentca init`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use agentca_identity::certificate::Certificate;
use agentca_identity::name::{DnsName, Name, TrustDomain};
use agentca_identity::pem;
use agentca_identity::profile::Pen;
use clap::Args;

use super::Failure;
use super::args::Connection;
use crate::config::ConfigError;
use crate::credentials::{self, Holder, ROOT, Store};
use crate::init::{InitError, InitOptions, Initialised};
use crate::inspect::hex;
use crate::keys::read_passphrase;
use crate::staging::{Existing, Readers, Staging};

/// Make a new authority and its first person.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca init --trust-domain example.org --data ./pki
  agentca init --trust-domain example.org --data ./pki --dns ca.example.org \\
      --public-url http://ca.example.org --pen 12345 --passphrase-file ./passphrase

Never asks and never overwrites. Without --passphrase-file private keys are files that anybody who
reads them can use. The first person's credential goes where the other commands look for it,
~/.config/agentca, or into --credentials DIR.")]
pub(super) struct InitArgs {
    /// The tenant, like example.org; every identity begins with it.
    #[arg(long, value_name = "NAME")]
    trust_domain: TrustDomain,
    /// The folder for the authority's keys, log and index.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A DNS name for the authority's own certificate; repeat, or separate with commas.
    #[arg(long = "dns", value_name = "NAME", value_delimiter = ',')]
    dns: Vec<DnsName>,
    /// The URL where others find CRLs and the root [default: the --http-listen in force].
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Your IANA private enterprise number, for our extensions; the default is for documentation.
    #[arg(long, default_value_t = Pen::DOCUMENTATION, value_name = "NUMBER")]
    pen: Pen,
    /// The first person, who gets every role.
    #[arg(long, value_name = "NAME", default_value = "admin")]
    admin: Name,
}

pub(super) fn run(args: &InitArgs, connection: &Connection) -> Result<(), Failure> {
    let passphrase_file = connection.passphrase_file();
    let passphrase = passphrase_file
        .map(read_passphrase)
        .transpose()
        .map_err(Failure::refused)?;
    let place = Place::prepare(connection.credentials.as_deref(), passphrase_file)?;
    let made = crate::init::create(
        &args.data,
        InitOptions {
            trust_domain: args.trust_domain.clone(),
            dns: args.dns.iter().map(ToString::to_string).collect(),
            public_url: args.public_url.clone(),
            pen: args.pen.get(),
            admin: args.admin.clone(),
            passphrase: passphrase.clone(),
        },
    )
    .map_err(|error| match error {
        InitError::Config(ConfigError::Value {
            key: "public_url",
            why,
        }) => Failure::usage(format!("`--public-url` is refused: {why}")),
        other => Failure::refused(other),
    })?;
    let root = Certificate::parse(&made.root).map_err(Failure::refused)?;
    let fingerprint = hex(&root.fingerprint());
    let text = credentials::key_text(&made.admin_key, passphrase.as_ref().map(|p| p.as_str()))?;
    let kept = place.keep(&fingerprint, &made, &text)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "made the authority of {} in {}",
        args.trust_domain,
        args.data.display()
    )?;
    writeln!(out, "root {fingerprint}")?;
    writeln!(
        out,
        "{} may do everything, with {}",
        made.admin,
        kept.folder.display()
    )?;
    kept.tell_of_default(&mut out)?;
    writeln!(
        out,
        "start it with `agentca serve --data {}`",
        args.data.display()
    )?;
    drop(out);
    if passphrase_file.is_none() {
        writeln!(
            io::stderr(),
            "warning: the private keys in {} and {} are files of mode 0600, not encrypted; \
             `--passphrase-file` encrypts them",
            args.data.join("keys").display(),
            kept.folder.display()
        )?;
    }
    Ok(())
}

/// Where the first person's credential is going to be, known to be writable.
enum Place<'a> {
    Folder {
        folder: &'a Path,
        staging: Staging,
        passphrase_file: Option<&'a Path>,
    },
    Store {
        store: Store,
        passphrase_file: Option<&'a Path>,
    },
}

impl<'a> Place<'a> {
    fn prepare(
        folder: Option<&'a Path>,
        passphrase_file: Option<&'a Path>,
    ) -> Result<Self, Failure> {
        match folder {
            Some(folder) => {
                let files = credentials::person_files(passphrase_file.is_some());
                let staging = Staging::prepare(folder, &files, Existing::Refuse)?;
                Ok(Self::Folder {
                    folder,
                    staging,
                    passphrase_file,
                })
            }
            None => {
                let store = Store::open()?;
                store.make()?;
                Ok(Self::Store {
                    store,
                    passphrase_file,
                })
            }
        }
    }

    fn keep(self, fingerprint: &str, made: &Initialised, key: &str) -> Result<Kept, Failure> {
        match self {
            Self::Folder {
                folder,
                staging,
                passphrase_file,
            } => {
                write(staging, made, key, passphrase_file)?;
                Ok(Kept {
                    folder: folder.to_owned(),
                    pointer: Pointer::Untouched,
                })
            }
            Self::Store {
                store,
                passphrase_file,
            } => {
                let folder = store.folder(fingerprint);
                let files = credentials::person_files(passphrase_file.is_some());
                let staging = Staging::prepare(&folder, &files, Existing::Refuse)?;
                write(staging, made, key, passphrase_file)?;
                let former = store.default_name().filter(|name| name != fingerprint);
                store.set_default(fingerprint)?;
                let pointer = match former {
                    Some(former) => Pointer::Moved {
                        file: store.pointer(),
                        former,
                    },
                    None => Pointer::New,
                };
                Ok(Kept { folder, pointer })
            }
        }
    }
}

/// A person's files, as they were made beside the authority's.
pub(super) fn write(
    mut staging: Staging,
    made: &Initialised,
    key: &str,
    passphrase_file: Option<&Path>,
) -> Result<(), Failure> {
    staging.write(Holder::Person.key(), key.as_bytes(), Readers::Owner)?;
    let chain = pem::encode_certs(&made.admin_chain);
    staging.write(
        Holder::Person.certificate(),
        chain.as_bytes(),
        Readers::Everybody,
    )?;
    staging.write(
        ROOT,
        pem::encode_certs([&made.root]).as_bytes(),
        Readers::Everybody,
    )?;
    if let Some(file) = passphrase_file {
        credentials::note_passphrase(&mut staging, file)?;
    }
    Ok(staging.commit()?)
}

/// Where the credential is, and what became of the pointer to the default one.
struct Kept {
    folder: PathBuf,
    pointer: Pointer,
}

enum Pointer {
    Untouched,
    New,
    Moved { file: PathBuf, former: String },
}

impl Kept {
    fn tell_of_default(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.pointer {
            Pointer::Untouched => {
                writeln!(out, "use it with `--credentials {}`", self.folder.display())
            }
            Pointer::New => writeln!(out, "it is the default credential"),
            Pointer::Moved { file, former } => writeln!(
                out,
                "it is the default credential now; back to the former one with \
                 `echo {former} > {}`",
                file.display()
            ),
        }
    }
}
