//! `agentca inspect`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use agentca_identity::certificate::Certificate;
use agentca_identity::pem;
use agentca_identity::time::Timestamp;
use clap::Args;

use super::Failure;
use crate::inspect::Description;
use crate::output::{Format, write_pairs};

/// Show what certificates say, our extensions in words.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca inspect support-01/agent.crt
  agentca inspect ./edge-1
  agentca inspect ca.crt --json

Reads as strictly as an enforcer does: what is not exactly one of our certificates is refused.
Nothing is verified; a certificate without its root proves nothing.")]
pub(super) struct InspectArgs {
    /// A certificate or several, PEM or DER, or a folder of them.
    file: PathBuf,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(args: &InspectArgs) -> Result<(), Failure> {
    let now = Timestamp::now();
    let mut found = Vec::new();
    for file in files(&args.file)? {
        for der in certificates(&file)? {
            let certificate = Certificate::parse(&der).map_err(|e| {
                Failure::refused(format!(
                    "{} is not a certificate of ours: {e}",
                    file.display()
                ))
            })?;
            found.push(Description::of(
                &file.display().to_string(),
                &certificate,
                now,
            ));
        }
    }
    args.format.print(&found, |out| tell(&found, out))?;
    Ok(())
}

fn tell(found: &[Description], out: &mut dyn Write) -> io::Result<()> {
    for (number, description) in found.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        write_pairs(out, &description.pairs())?;
    }
    Ok(())
}

/// The file itself, or the `.crt` and `.pem` files of a folder in order.
fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable =
        |e: io::Error| Failure::refused(format!("could not read {}: {e}", path.display()));
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|e| e == "crt" || e == "pem") {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::refused(format!(
            "there is no certificate in {}",
            path.display()
        )));
    }
    Ok(files)
}

/// DER as it is, or what is in the PEM.
fn certificates(file: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let shown = file.display();
    let bytes =
        fs::read(file).map_err(|e| Failure::refused(format!("could not read {shown}: {e}")))?;
    // A DER certificate is a SEQUENCE.
    if bytes.first() == Some(&0x30) {
        return Ok(vec![bytes]);
    }
    let text = String::from_utf8_lossy(&bytes);
    pem::decode_certs(&text).map_err(|e| Failure::refused(format!("{shown} is not usable: {e}")))
}
