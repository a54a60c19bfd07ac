//! `agentca crl get`.

use std::fmt::Display;
use std::path::PathBuf;

use agentca_identity::certificate::Certificate;
use agentca_identity::chain::TrustAnchor;
use agentca_identity::profile::crl::Crl;
use agentca_identity::time::Timestamp;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::args::Connection;
use super::{Failure, existing};
use crate::credentials;
use crate::fetch::{self, FetchError};
use crate::output::{Format, write_pairs};
use crate::staging;

/// What can be done about CRLs.
#[derive(Debug, Subcommand)]
pub(super) enum CrlCommand {
    Get(GetArgs),
}

/// Fetch a CRL over plain HTTP and check its signature and dates under the root.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca crl get
  agentca crl get 3 --out shard-3.crl
  agentca crl get http://ca.example.org/crl/0.crl
  agentca crl get --certificate support-01/agent.crt --root support-01/ca.crt

Which CRL, and whose signature it must carry, is read from the certificate: your own unless another
is given. Exits 1 when the CRL does not verify or has not been renewed in time.")]
pub(super) struct GetArgs {
    /// A shard's number, or the URL of a CRL [default: the one that the certificate names].
    #[arg(value_name = "SHARD|URL")]
    which: Option<String>,
    /// Take the CRL's URL and signer from this certificate file (leaf, then issuer).
    #[arg(long, value_name = "FILE", requires = "root")]
    certificate: Option<PathBuf>,
    /// The root certificate to trust with it.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    root: Option<PathBuf>,
    /// Write the CRL here, in DER.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file if it is there.
    #[arg(long, requires = "out")]
    force: bool,
    #[command(flatten)]
    format: Format,
}

/// A CRL that verified.
#[derive(Debug, Serialize)]
struct Answer {
    url: String,
    number: u64,
    this_update: String,
    next_update: String,
    revoked: usize,
}

pub(super) async fn run(command: &CrlCommand, connection: &Connection) -> Result<(), Failure> {
    let CrlCommand::Get(args) = command;
    let signer = Signer::find(args, connection)?;
    let url = signer.url(args.which.as_deref())?;
    let der = fetch::get(&url).await?;
    let crl = Crl::parse_verified(&der, &signer.issuer)
        .map_err(|e| Failure::refused(format!("{url} does not verify: {e}")))?;
    if crl.next_update() <= Timestamp::now() {
        let ended = crl.next_update().rfc3339();
        return Err(Failure::refused(format!(
            "{url} was to be renewed by {ended}, so it says nothing about now"
        )));
    }
    // What was asked for by its place in the certificate must be what came.
    if !args.is_url() && crl.shard_uri().as_str() != url {
        let shard = crl.shard_uri();
        return Err(Failure::refused(format!(
            "{url} is the list for {shard}, not its own"
        )));
    }
    let file = args.out.as_deref().map(|path| (path, &der[..]));
    staging::write_files(file, existing(args.force))?;
    let answer = Answer {
        url,
        number: crl.number(),
        this_update: crl.this_update().rfc3339(),
        next_update: crl.next_update().rfc3339(),
        revoked: crl.len(),
    };
    args.format.print(&answer, |out| {
        write_pairs(
            out,
            &[
                ("CRL", answer.url.clone()),
                ("number", answer.number.to_string()),
                ("this update", answer.this_update.clone()),
                ("next update", answer.next_update.clone()),
                ("revoked", answer.revoked.to_string()),
                ("signature", "verified under the root".to_owned()),
            ],
        )
    })?;
    Ok(())
}

impl GetArgs {
    fn is_url(&self) -> bool {
        self.which
            .as_deref()
            .is_some_and(|which| which.contains(':'))
    }
}

/// Who must have signed the CRL, and where a certificate of theirs says that it is.
struct Signer {
    issuer: Certificate,
    uri: Option<String>,
}

impl Signer {
    fn find(args: &GetArgs, connection: &Connection) -> Result<Self, Failure> {
        let (chain, anchor) = match (&args.certificate, &args.root) {
            (Some(certificate), Some(root)) => (
                credentials::read_chain(certificate)?,
                credentials::read_anchor(root)?,
            ),
            _ => {
                let credential = connection.credential()?;
                (credential.chain, credential.anchor)
            }
        };
        Self::of(&chain, &anchor)
    }

    fn of(chain: &[Vec<u8>], anchor: &TrustAnchor) -> Result<Self, Failure> {
        let unusable = |e: &dyn Display| Failure::refused(format!("that certificate: {e}"));
        let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
        let leaf = Certificate::parse(leaf).map_err(|e| unusable(&e))?;
        let role = leaf.id().ok_or_else(|| unusable(&"it is nobody's"))?.role();
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        // A certificate that has ended still says where its CRL is, and who signs it.
        let peer = anchor
            .verify(&chain, leaf.not_before(), role)
            .map_err(|e| unusable(&e))?;
        let uri = leaf.crl_uri().map(ToString::to_string);
        Ok(Self {
            issuer: peer.issuer().clone(),
            uri,
        })
    }

    fn url(&self, which: Option<&str>) -> Result<String, Failure> {
        let own = || {
            self.uri
                .clone()
                .ok_or_else(|| Failure::usage("the certificate names no CRL, give a URL"))
        };
        match which {
            None => own(),
            Some(url) if url.contains(':') => Ok(url.to_owned()),
            Some(shard) => {
                let own = own()?;
                let (before, _) = own
                    .rsplit_once('/')
                    .ok_or_else(|| Failure::usage("give the whole URL of the CRL"))?;
                if shard.is_empty() || !shard.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(Failure::usage(format!(
                        "`{shard}` is neither a shard's number nor an http:// URL"
                    )));
                }
                Ok(format!("{before}/{shard}.crl"))
            }
        }
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Url(_) => Self::usage(error),
            FetchError::Unreachable { .. } => Self::Unreachable(error.to_string()),
            FetchError::Status { .. } | FetchError::Body { .. } => Self::refused(error),
        }
    }
}
