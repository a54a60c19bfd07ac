//! Parts that measure a library on a whole core: run as a process of their own, pinned.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::profile::csr;

use crate::process::{Core, output, own_program, pinned};
use crate::{Outcome, logs};

/// How long a rate is taken over.
const MEASURE: Duration = Duration::from_secs(2);
/// About the size of a certificate's signed part.
const TBS_BYTES: usize = 700;

/// What can be measured alone. Each prints one number, per second.
#[derive(clap::Subcommand)]
pub(crate) enum Part {
    /// Verify a certificate request and sign once.
    Crypto,
    /// Append records durably from 32 threads to a log in `dir`.
    Appends {
        /// An empty or missing directory.
        dir: PathBuf,
    },
    /// Verify a log that `make-log` made.
    Verify {
        /// Where it lies.
        dir: PathBuf,
    },
    /// Write a log of `records` records and its root certificate; prints records appended.
    MakeLog {
        /// Where to.
        dir: PathBuf,
        /// How many.
        records: u64,
    },
}

impl Part {
    /// Measures and prints.
    pub(crate) fn run(self) -> Outcome<()> {
        let figure = match self {
            Self::Crypto => crypto()?,
            Self::Appends { dir } => logs::append_rate(&dir)?,
            Self::Verify { dir } => logs::verify_rate(&dir)?,
            Self::MakeLog { dir, records } => logs::make(&dir, records)?,
        };
        println!("{figure}");
        Ok(())
    }
}

/// Runs a part on the server's core and returns its figure.
pub(crate) fn run_pinned(arguments: &[&str]) -> Outcome<f64> {
    let mut command = pinned(Core::Server, &own_program()?);
    Ok(output(command.arg("part").args(arguments))?
        .trim()
        .parse()?)
}

fn crypto() -> Outcome<f64> {
    let request = csr::make(&PrivateKey::generate(KeyKind::P256)?)?;
    let issuer = PrivateKey::generate(KeyKind::P256)?;
    let tbs = [0x30_u8; TBS_BYTES];
    let (mut count, started) = (0.0, Instant::now());
    while started.elapsed() < MEASURE {
        std::hint::black_box(csr::read(std::hint::black_box(&request))?);
        std::hint::black_box(issuer.sign(std::hint::black_box(&tbs))?);
        count += 1.0;
    }
    Ok(count / started.elapsed().as_secs_f64())
}
