//! `agentca issue`.

use std::fs;
use std::path::{Path, PathBuf};

use agentca_identity::crypto::{KeyKind, PrivateKey, PublicKey};
use agentca_identity::name::{Environment, Owner};
use agentca_identity::pem;
use agentca_identity::profile::csr;
use agentca_identity::scope::{Scope, ScopeSet};
use agentca_identity::spiffe::{Role, SpiffeId};
use agentca_identity::trust::TrustLevel;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::args::{AgentRef, Connection, Span};
use super::{Failure, existing};
use crate::client::{Client, IssueOrder};
use crate::credentials::{self, Holder, ROOT};
use crate::output::Format;
use crate::staging::{Readers, Staging};

/// Certify an agent; the first time, also register it and grant it what is asked for.
#[derive(Debug, Args)]
#[command(
    override_usage = "agentca issue [OPTIONS] --out <DIR> <AGENT>",
    after_help = "\
Examples:
  agentca issue support-01 --owner alice@example.org --env prod --scope payments:read \\
      --trust L2 --ttl 1h --out ./support-01
  agentca issue staging/support-01 --owner alice@example.org --scope 'mcp:github:get_*' --out ./s
  agentca issue support-01 --out ./support-01 --force      # again, as granted
  agentca issue support-01 --csr request.pem --out ./certs # the key stays where it is

Writes agent.key (0600), agent.crt (the certificate, then its issuer's) and ca.crt (the root).
The key is made here and never sent. A wider re-issue than the grant is refused; `agentca agent
grant` widens it."
)]
pub(super) struct IssueArgs {
    /// The agent, NAME or ENV/NAME.
    agent: AgentRef,
    /// The accountable person or team; needed the first time.
    #[arg(long)]
    owner: Option<Owner>,
    /// The agent's environment [default: prod].
    #[arg(long)]
    env: Option<Environment>,
    /// What it may do, like payments:read or payments:*; repeat, or separate with commas.
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// Its trust level, L0 to L4.
    #[arg(long)]
    trust: Option<TrustLevel>,
    /// How long the certificate lives, like 30m or 1h [default: the authority's].
    #[arg(long)]
    ttl: Option<Span>,
    /// A group it belongs to; repeat, or separate with commas.
    #[arg(long = "group", value_name = "GROUP", value_delimiter = ',')]
    groups: Vec<String>,
    /// The folder to write to; needed every time.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A PKCS#10 request, PEM or DER; only its public key is taken, and no key is written.
    #[arg(long, value_name = "FILE", conflicts_with = "key_type")]
    csr: Option<PathBuf>,
    /// The kind of key to make.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = KeyType::P256)]
    key_type: KeyType,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    format: Format,
}

/// The kinds of keys that are certified.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeyType {
    P256,
    Ed25519,
}

/// What was issued.
#[derive(Debug, Serialize)]
struct Answer {
    uri: String,
    serial: String,
    not_after: String,
    record: u64,
    out: PathBuf,
}

pub(super) async fn run(args: &IssueArgs, connection: &Connection) -> Result<(), Failure> {
    let folder = args.out.as_deref();
    let folder = folder.ok_or_else(|| args.without_a_place())?;
    let environment = match args.agent.environment(args.env.as_ref())? {
        Some(environment) => environment,
        None => "prod".parse().map_err(Failure::usage)?,
    };
    let scopes = match args.scopes.as_slice() {
        [] => None,
        scopes => Some(ScopeSet::new(scopes.iter().cloned()).map_err(Failure::usage)?),
    };
    let key = Key::for_request(args)?;
    let staging = Staging::prepare(folder, key.files(), existing(args.force))?;
    let credential = connection.credential()?;
    let id = SpiffeId::Agent {
        trust_domain: credential.anchor.trust_domain().clone(),
        environment: environment.clone(),
        name: args.agent.name.clone(),
    };
    credentials::demand_own(folder, &id)?;
    let mut client = Client::connect(&connection.url, &credential).await?;
    let issued = client
        .issue(IssueOrder {
            environment: &environment,
            name: &args.agent.name,
            owner: args.owner.as_ref(),
            scopes: scopes.as_ref(),
            trust: args.trust,
            lifetime: args.ttl.map(|ttl| ttl.0),
            groups: &args.groups,
            csr: key.csr()?,
        })
        .await?;
    let anchor = &credential.anchor;
    let certificate = credentials::accept(anchor, &issued, Role::Agent, &id, &key.public()?)?;
    key.write(staging, &issued.chain, &credential.root_pem)?;
    let answer = Answer {
        uri: id.to_string(),
        serial: certificate.serial().to_string(),
        not_after: certificate.not_after().rfc3339(),
        record: issued.record,
        out: folder.to_owned(),
    };
    args.format.print(&answer, |out| {
        writeln!(out, "issued {} until {}", answer.uri, answer.not_after)?;
        writeln!(out, "serial {}, record {}", answer.serial, answer.record)?;
        writeln!(
            out,
            "wrote {} in {}",
            key.files().join(", "),
            folder.display()
        )
    })?;
    Ok(())
}

impl IssueArgs {
    /// The folder is always needed; whether the rest is, only the authority knows.
    fn without_a_place(&self) -> Failure {
        let first = [
            ("`--owner`", self.owner.is_none()),
            ("`--scope`", self.scopes.is_empty()),
            ("`--trust`", self.trust.is_none()),
        ];
        let missing: Vec<&str> = first
            .iter()
            .filter(|(_, missing)| *missing)
            .map(|(option, _)| *option)
            .collect();
        let rest = match missing.as_slice() {
            [] => String::new(),
            missing => format!("; an agent that is new also needs {}", missing.join(", ")),
        };
        Failure::usage(format!("give the folder to write to with `--out`{rest}"))
    }
}

/// The key to certify: made here, or known by a request alone.
enum Key {
    Ours(PrivateKey),
    Theirs { csr: Vec<u8>, public: PublicKey },
}

impl Key {
    fn for_request(args: &IssueArgs) -> Result<Self, Failure> {
        if let Some(path) = &args.csr {
            let csr = read_csr(path)?;
            let public = csr::read(&csr).map_err(|e| {
                Failure::refused(format!("{} is not a usable request: {e}", path.display()))
            })?;
            return Ok(Self::Theirs { csr, public });
        }
        let kind = match args.key_type {
            KeyType::P256 => KeyKind::P256,
            KeyType::Ed25519 => KeyKind::Ed25519,
        };
        Ok(Self::Ours(
            PrivateKey::generate(kind).map_err(Failure::refused)?,
        ))
    }

    fn files(&self) -> &'static [&'static str] {
        match self {
            Self::Ours(_) => &["agent.key", "agent.crt", ROOT],
            Self::Theirs { .. } => &["agent.crt", ROOT],
        }
    }

    fn csr(&self) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Ours(key) => Ok(credentials::request(key)?),
            Self::Theirs { csr, .. } => Ok(csr.clone()),
        }
    }

    fn public(&self) -> Result<PublicKey, Failure> {
        match self {
            Self::Ours(key) => Ok(key.public_key().clone()),
            Self::Theirs { public, .. } => Ok(public.clone()),
        }
    }

    fn write(&self, mut staging: Staging, chain: &[Vec<u8>], root: &str) -> Result<(), Failure> {
        if let Self::Ours(key) = self {
            let text = credentials::key_text(key, None)?;
            staging.write(Holder::Agent.key(), text.as_bytes(), Readers::Owner)?;
        }
        let certificates = pem::encode_certs(chain);
        staging.write(
            Holder::Agent.certificate(),
            certificates.as_bytes(),
            Readers::Everybody,
        )?;
        staging.write(ROOT, root.as_bytes(), Readers::Everybody)?;
        Ok(staging.commit()?)
    }
}

/// A PKCS#10 request, out of its PEM armour when it has one.
fn read_csr(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let bytes =
        fs::read(path).map_err(|e| Failure::refused(format!("could not read {shown}: {e}")))?;
    if !bytes.starts_with(b"-----BEGIN") {
        return Ok(bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    csr::from_pem(&text)
        .map_err(|e| Failure::refused(format!("{shown} is not a usable request: {e}")))
}
