//! `agentca-sidecar`: reads arguments, runs, exits.

use std::process::ExitCode;

fn main() -> ExitCode {
    agentca_sidecar::cli::main()
}
