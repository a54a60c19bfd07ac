//! `agentca-enforcer`: reads arguments, runs, exits.

use std::process::ExitCode;

use agentca_enforcer::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
