//! The opening: an authority, certificates, tools that were looked at, an enforcer.

use std::net::SocketAddr;

use crate::Error;
use crate::agents::{Agent, Authority, CAST, CONFIGURATION, REVOKED};
use crate::place::Place;
use crate::programs::{Stage, free_ports};

pub(super) async fn open_authority(
    stage: &mut Stage,
    grpc: SocketAddr,
    http: SocketAddr,
) -> Result<(), Error> {
    println!("Making an authority for the trust domain example.org, and starting it ...");
    stage
        .agentca(&["init", "--trust-domain", "example.org", "--data", "pki"])
        .await?;
    let (grpc_text, http_text) = (grpc.to_string(), http.to_string());
    let arguments = [
        "serve",
        "--data",
        "pki",
        "--listen",
        &grpc_text,
        "--http-listen",
        &http_text,
    ];
    stage.start("authority", "agentca", &arguments)?;
    stage.wait_for(grpc).await?;
    stage.wait_for(http).await
}

pub(super) async fn issue_agents(stage: &mut Stage, url: &str) -> Result<(), Error> {
    println!("Issuing certificates:");
    for agent in CAST.iter().filter(|agent| agent.by == Authority::Ours) {
        issue(stage, url, agent, &[]).await?;
    }
    stage
        .agentca(&["revoke", REVOKED, "--reason", "superseded", "--url", url])
        .await?;
    issue_foreign_agents(stage).await
}

/// A second authority for the same trust domain name, only to issue the foreign agent.
async fn issue_foreign_agents(stage: &mut Stage) -> Result<(), Error> {
    let [grpc, http] = free_ports()?;
    // Its first person's credential stays apart from ours.
    let config = ["--credentials", "foreign/admin"];
    let init = [
        "init",
        "--trust-domain",
        "example.org",
        "--data",
        "foreign/pki",
    ];
    stage.agentca(&[&init[..], &config].concat()).await?;
    let (grpc_text, http_text) = (grpc.to_string(), http.to_string());
    let serve = [
        "serve",
        "--data",
        "foreign/pki",
        "--listen",
        &grpc_text,
        "--http-listen",
        &http_text,
    ];
    stage.start("foreign-authority", "agentca", &serve)?;
    stage.wait_for(grpc).await?;
    for agent in CAST.iter().filter(|agent| agent.by == Authority::Foreign) {
        issue(stage, &format!("https://{grpc}"), agent, &config).await?;
    }
    stage.end_one("foreign-authority").await
}

async fn issue(stage: &Stage, url: &str, agent: &Agent, more: &[&str]) -> Result<(), Error> {
    let Agent {
        name,
        environment,
        scope,
        trust,
        lifetime,
        about,
        by: _,
    } = agent;
    let agent = format!("{environment}/{name}");
    println!("  {agent:18}  {trust}  {scope:13}  {about}");
    let issue = [
        "issue",
        name,
        "--owner",
        "alice@example.org",
        "--env",
        environment,
    ];
    let grant = ["--scope", scope, "--trust", trust, "--ttl", lifetime];
    let place = ["--out", name, "--url", url];
    stage
        .agentca(&[&issue[..], &grant, &place, more].concat())
        .await?;
    Ok(())
}

/// Looks at what the MCP server has, and pins it as it is.
pub(super) async fn scan_tools(stage: &Stage, tickets: SocketAddr) -> Result<(), Error> {
    println!(
        "\nScanning a support desk's MCP server: what it has goes into the catalogue, pinned as it is ..."
    );
    let url = format!("http://{tickets}/mcp");
    let said = stage
        .enforcer(&["scan", "--mcp", &url, "--upstream", "tickets"])
        .await?;
    println!("  agentca-enforcer scan --mcp {url} --upstream tickets");
    said.stdout.lines().for_each(|line| println!("    {line}"));
    Ok(())
}

/// Where everybody listens.
pub(super) struct Addresses {
    pub(super) authority: String,
    pub(super) enforcer: SocketAddr,
    pub(super) payments: SocketAddr,
    pub(super) tickets: SocketAddr,
}

pub(super) async fn open_enforcer(
    place: &Place,
    stage: &mut Stage,
    addresses: &Addresses,
) -> Result<(), Error> {
    println!("\nAdding an enforcer, and starting it before a sample upstream and that server ...");
    let add = [
        "enforcer",
        "add",
        "edge-1",
        "--env",
        "prod",
        "--dns",
        "localhost",
    ];
    let url = addresses.authority.as_str();
    let rest = ["--ip", "127.0.0.1", "--out", "edge-1", "--url", url];
    stage.agentca(&[&add[..], &rest].concat()).await?;
    let configuration = CONFIGURATION
        .trim_start()
        .replace("LISTEN", &addresses.enforcer.to_string())
        .replace("AUTHORITY", url)
        .replace("PAYMENTS", &addresses.payments.to_string())
        .replace("TICKETS", &addresses.tickets.to_string());
    std::fs::write(place.path("enforcer.toml"), configuration)?;
    stage.start(
        "enforcer",
        "agentca-enforcer",
        &["run", "--config", "enforcer.toml"],
    )?;
    stage.wait_for(addresses.enforcer).await
}
