//! An MCP server for the tests: the tools, resources and prompts that the official conformance suite asks
//! for; with `--business` a small bank; with `--misbehave` a server that no client should believe.
//!
//! It is a fixture, not an example: it stops where something is not as it must be, and trusts whoever calls.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fixture says what is wrong by stopping"
)]

mod arguments;
mod business;
mod calls;
mod http;
mod listeners;
mod misbehaviour;
mod stdio;
mod suite;
mod wire;

use std::process::ExitCode;
use std::sync::Arc;

use arguments::{Arguments, Place};
use calls::Calls;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprintln!("agentca-mcp-fixture: {wrong}\n\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let calls = Arc::new(Calls::open(arguments.calls.as_deref()));
    match arguments.place {
        Place::Http(address) => http::serve(address, &arguments.server, calls).await,
        Place::Stdio => stdio::serve(&arguments.server, calls).await,
    }
    ExitCode::SUCCESS
}
