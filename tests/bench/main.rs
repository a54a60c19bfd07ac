//! The benchmark: agentca's programs against nginx, haproxy and bare floors, one pinned core each.
//!
//! `tests/bench/run` builds everything and calls `agentca-bench run`; the other commands are what
//! it starts in processes of their own: the upstream, the floor proxy, and parts that need a
//! whole core.

mod authority;
mod bridge;
mod calls;
mod cli;
mod connections;
mod decisions;
mod floor;
mod idle;
mod issuance;
mod known;
mod latency;
mod lists;
mod load;
mod logs;
mod machine;
mod mcp;
mod mcp_upstream;
mod million;
mod paced;
mod part;
mod peers;
mod process;
mod proxies;
mod report;
mod revocation;
mod setup;
mod stats;
mod tls;
mod upstream;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

/// Both the floor and the load generator allocate with what the programs allocate with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What everything here returns: a benchmark that cannot go on says why and stops.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    match cli::dispatch(cli::Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agentca-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
