//! The whole of agentca in one command: a small PKI with good, expired, revoked, low-trust, wrong-environment and
//! foreign agents, the authority, an enforcer, a sample upstream and a sample MCP server, and every agent calling
//! through all of it.
//!
//! Everything it makes lies in `certs-example/out/`, credentials included, and it ends only what it started.

mod agents;
mod caller;
mod mcp_server;
mod place;
mod programs;
mod story;
mod table;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Shows agentca at work: certificates, denials, tools, a live revocation, verified logs.
#[derive(Parser)]
#[command(
    name = "certs-example",
    version,
    after_help = "\
Examples:
  cargo run --release -p certs-example
  cargo run --release -p certs-example -- --stay
  cargo run --release -p certs-example -- upstream
  cargo run --release -p certs-example -- mcp"
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
    /// Serve the sample MCP server and nothing else.
    #[command(after_help = "\
Examples:
  cargo run --release -p certs-example -- mcp --listen 127.0.0.1:9001
  cargo run --release -p certs-example -- mcp --release 3")]
    Mcp {
        /// Where to listen; the endpoint is `/mcp` there.
        #[arg(long, default_value = "127.0.0.1:9001")]
        listen: SocketAddr,
        /// Which release of its tools: the second has one more, in the third one has changed.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
        release: u8,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let told = match arguments.command {
        Some(Command::Upstream { listen }) => serve_upstream(listen).await,
        Some(Command::Mcp { listen, release }) => serve_mcp(listen, release).await,
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

async fn serve_mcp(listen: SocketAddr, release: u8) -> Result<(), Error> {
    let server = mcp_server::McpServer::bind(listen, release).await?;
    println!(
        "sample MCP server, release {release}, on http://{}/mcp (Ctrl-C ends it)",
        server.address()
    );
    tokio::select! {
        () = server.serve() => Ok(()),
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
