//! The whole of agentca in one command: a small PKI with good, expired, revoked, low-trust, wrong-environment and
//! foreign agents, the authority, an enforcer and a sample upstream, and every agent calling through all of it.
//!
//! Everything it makes lies in `certs-example/out/`, credentials included, and it ends only what it started.

mod agents;
mod caller;
mod place;
mod programs;
mod story;
mod table;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Shows agentca at work: certificates, denials, a live revocation, verified logs.
#[derive(Parser)]
#[command(
    name = "certs-example",
    version,
    after_help = "\
Examples:
  cargo run --release -p certs-example
  cargo run --release -p certs-example -- --stay
  cargo run --release -p certs-example -- upstream"
)]
struct Arguments {
    /// Leave everything running, until Ctrl-C, to go on by hand.
    #[arg(long)]
    stay: bool,
    /// The folder for everything that is made; it is emptied first.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/out"))]
    out: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the sample upstream and nothing else.
    #[command(after_help = "\
Example:
  cargo run --release -p certs-example -- upstream --listen 127.0.0.1:9000")]
    Upstream {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:9000")]
        listen: SocketAddr,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let told = match arguments.command {
        Some(Command::Upstream { listen }) => serve_upstream(listen).await,
        None => tell(arguments.out, arguments.stay).await,
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("certs-example: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What can go wrong: always told to a person, who needs to know where and why.
type Error = Box<dyn std::error::Error + Send + Sync>;

async fn serve_upstream(listen: SocketAddr) -> Result<(), Error> {
    let upstream = upstream::Upstream::bind(listen).await?;
    println!(
        "sample upstream on http://{} (Ctrl-C ends it)",
        upstream.address()
    );
    tokio::select! {
        () = upstream.serve() => Ok(()),
        stopped = programs::asked_to_stop() => stopped,
    }
}

async fn tell(out: PathBuf, stay: bool) -> Result<(), Error> {
    let place = place::Place::make(out)?;
    let mut stage = programs::Stage::build(&place)?;
    let told = tokio::select! {
        told = story::tell(&place, &mut stage, stay) => told.map(Some),
        stopped = programs::asked_to_stop() => stopped.map(|()| None),
    };
    stage.end().await;
    if let Some(told) = told?
        && !stay
    {
        told.go_on_without_it(&place, &stage);
    }
    Ok(())
}
