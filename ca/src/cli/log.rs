//! `agentca log verify|show|prove|verify-proof|verify-disclosure|vkey`: offline, from a directory.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Failure;
use crate::logcmd;
use crate::output::{Format, Style};

/// What can be asked of a log's directory.
#[derive(Debug, Subcommand)]
pub(super) enum LogCommand {
    Verify(VerifyArgs),
    Show(ShowArgs),
    Prove(ProveArgs),
    VerifyProof(VerifyProofArgs),
    VerifyDisclosure(VerifyDisclosureArgs),
    Vkey(VkeyArgs),
}

/// Check every byte of a log, the authority's or an enforcer's; it may be running.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca log verify ./edge-1-data/log --root support-01/ca.crt
  agentca log verify ./pki/log --root support-01/ca.crt --checkpoint yesterday.checkpoint

Reads the checkpoint first; every byte up to it is covered by hash, signature or re-derivation.
Whole batches behind it and one torn tail are reported. Exits 1, and says where, on anything else.")]
pub(super) struct VerifyArgs {
    /// The log's directory.
    dir: PathBuf,
    /// The root certificate to trust.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// A checkpoint of this log that was seen before: the log must extend it.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// Print records; nothing is verified.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca log show ./edge-1-data/log --from 10 --count 5
  agentca log show ./edge-1-data/log --json | jq 'select(.decision == \"deny\")'
  agentca log show ./edge-1-data/log --from 3 --count 1 --raw > 3.record
  agentca log show ./edge-1-data/log --follow")]
pub(super) struct ShowArgs {
    /// The log's directory.
    dir: PathBuf,
    /// The first record's index.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// How many records at most.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Wait for more.
    #[arg(long)]
    follow: bool,
    /// Print the bytes of records and nothing else: what hashes and proofs are over.
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    #[command(flatten)]
    format: Format,
}

/// Write the proof (C2SP tlog-proof) that a record is in a log.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca log prove ./edge-1-data/log 42 --root ca.crt --out 42.proof --record 42.json
  agentca log prove 42 --log ./edge-1-data/log --root ca.crt --out 42.proof

The proof and the record convince whoever has the root certificate: `agentca log verify-proof`.")]
pub(super) struct ProveArgs {
    /// The log's directory and the record's index, in either order.
    #[arg(value_name = "DIR|INDEX", required = true, num_args = 1..=2)]
    what: Vec<String>,
    /// The log's directory.
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// The root certificate to trust.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// Where to write the proof [default: standard output].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also write the record itself here, exactly as it is in the log.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

/// Check that a record is in a log, from a proof alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agentca log verify-proof 42.proof --record 42.json --root ca.crt")]
pub(super) struct VerifyProofArgs {
    /// The proof.
    proof: PathBuf,
    /// The record, exactly as it is in the log.
    #[arg(long, value_name = "FILE")]
    record: PathBuf,
    /// The root certificate to trust.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    #[command(flatten)]
    format: Format,
}

/// Check what a tool was called with against the record of the call.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentca log verify-disclosure WyJ… --log ./edge-1-data/log --index 42
  agentca log verify-disclosure WyJ… --record 42.json --json

A disclosure (RFC 9901) is one string that reveals one value; `agentca-enforcer disclose` prints
those that were kept, and the caller can make them. The record itself is not verified here:
`agentca log verify-proof` and `agentca log verify` are for that.")]
pub(super) struct VerifyDisclosureArgs {
    /// The disclosures.
    #[arg(required = true, value_name = "DISCLOSURE")]
    disclosures: Vec<String>,
    /// The record, exactly as it is in the log.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "log",
        required_unless_present = "log"
    )]
    record: Option<PathBuf>,
    /// The log's directory.
    #[arg(long, value_name = "DIR", requires = "index")]
    log: Option<PathBuf>,
    /// The record's index in it; that of the outcome does, too.
    #[arg(long, value_name = "INDEX", requires = "log")]
    index: Option<u64>,
    #[command(flatten)]
    format: Format,
}

/// Print a log's verifier key in C2SP form, for verifiers that are not ours.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agentca log vkey ./edge-1-data/log --root ca.crt")]
pub(super) struct VkeyArgs {
    /// The log's directory.
    dir: PathBuf,
    /// The root certificate to trust.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
}

impl ShowArgs {
    fn form(&self) -> logcmd::Form {
        match (self.raw, self.format.style()) {
            (true, _) => logcmd::Form::Bytes,
            (false, Style::Machines) => logcmd::Form::Json,
            (false, Style::People) => logcmd::Form::Lines,
        }
    }
}

pub(super) fn run(command: &LogCommand) -> Result<(), Failure> {
    match command {
        LogCommand::Verify(args) => {
            let VerifyArgs {
                dir,
                root,
                checkpoint,
                format,
            } = args;
            logcmd::verify(dir, root, checkpoint.as_deref(), *format)
        }
        LogCommand::Show(args) => {
            let range = logcmd::Range {
                from: args.from,
                count: args.count,
            };
            let end = if args.follow {
                logcmd::AtEnd::Wait
            } else {
                logcmd::AtEnd::Stop
            };
            logcmd::show(&args.dir, range, end, args.form())
        }
        LogCommand::Prove(args) => prove(args),
        LogCommand::VerifyProof(args) => {
            let VerifyProofArgs {
                proof,
                record,
                root,
                format,
            } = args;
            logcmd::verify_proof(proof, record, root, *format)
        }
        LogCommand::VerifyDisclosure(args) => {
            let VerifyDisclosureArgs {
                disclosures,
                record,
                log,
                index,
                format,
            } = args;
            let record = match (record, log, index) {
                (Some(file), _, _) => logcmd::read(file)?,
                (None, Some(dir), Some(index)) => logcmd::call_record(dir, *index)?,
                _ => return Err(Failure::usage("give a record, or a log and an index")),
            };
            logcmd::verify_disclosures(disclosures, &record, *format)
        }
        LogCommand::Vkey(args) => logcmd::vkey(&args.dir, &args.root),
    }
}

fn prove(args: &ProveArgs) -> Result<(), Failure> {
    let (dir, index) = args.dir_and_index()?;
    let files = logcmd::ProofFiles {
        proof: args.out.as_deref(),
        record: args.record.as_deref(),
        existing: super::existing(args.force),
    };
    logcmd::prove(&dir, index, &args.root, &files)
}

impl ProveArgs {
    /// The index is what reads as a number; of two numbers, the second, unless only that is a folder.
    fn dir_and_index(&self) -> Result<(PathBuf, u64), Failure> {
        let missing = || Failure::usage("give the log's directory and the index of a record");
        match (self.what.as_slice(), &self.log) {
            ([index], Some(dir)) => Ok((dir.clone(), number(index).ok_or_else(missing)?)),
            ([first, second], None) => match (number(first), number(second)) {
                (Some(index), Some(_)) if PathBuf::from(second).is_dir() => {
                    Ok((PathBuf::from(second), index))
                }
                (_, Some(index)) => Ok((PathBuf::from(first), index)),
                (Some(index), None) => Ok((PathBuf::from(second), index)),
                (None, None) => Err(missing()),
            },
            _ => Err(missing()),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(what: &[&str], log: Option<&str>) -> Option<(PathBuf, u64)> {
        let args = ProveArgs {
            what: what.iter().map(ToString::to_string).collect(),
            log: log.map(PathBuf::from),
            root: PathBuf::new(),
            out: None,
            record: None,
            force: false,
        };
        args.dir_and_index().ok()
    }

    #[test]
    fn either_order() {
        let wanted = Some((PathBuf::from("log"), 42));
        assert_eq!(asked(&["log", "42"], None), wanted);
        assert_eq!(asked(&["42", "log"], None), wanted);
        assert_eq!(asked(&["42"], Some("log")), wanted);
        for (what, log) in [
            (&["42"][..], None),
            (&["a", "b"], None),
            (&["1", "2"], Some("log")),
        ] {
            assert_eq!(asked(what, log), None);
        }
    }
}
