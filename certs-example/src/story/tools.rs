//! Tools: what an agent is shown, what it may call, and what becomes of a tool that changes under its feet.

use std::time::Duration;

use hyper::{Method, Request};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::calls::record_of;
use super::opening::Addresses;
use crate::Error;
use crate::agents::DESK;
use crate::caller::Caller;
use crate::mcp_server::{Maker, REVISION};
use crate::place::Place;
use crate::programs::{PATIENCE, Stage};
use crate::table::Table;

/// An agent at the enforcer's endpoint of the support desk.
struct Desk(Caller);

/// What came back for one question.
struct Reply {
    result: Value,
    record: String,
}

pub(super) async fn tell(
    place: &Place,
    stage: &Stage,
    addresses: &Addresses,
    maker: &Maker,
) -> Result<(), Error> {
    let root = place.path(DESK).join("ca.crt");
    let desk = Desk(Caller::new(addresses.enforcer, &place.path(DESK), &root)?);
    println!("{DESK} works with the tools of the support desk, over MCP ...\n");
    let mut table = Table::new(HEAD);
    table.row(desk.list().await?.1);
    table.row(desk.call("find_ticket", "parcel").await?);
    table.row(desk.call("read_ticket", "7").await?);
    let denied = desk.call("refund_order", "1204").await?;
    let [.., record] = &denied;
    let record = record.clone();
    table.row(denied);
    table.row(desk.call("export_customers", "csv").await?);
    println!("{table}");
    println!(
        "  `export_customers` is withheld: nobody approved it. `refund_order` wants more trust than L2."
    );
    show_record(stage, &record).await?;

    println!("The server changes a tool under the agent's feet ...\n");
    maker.publish(3);
    let mut table = Table::new(HEAD);
    table.row(desk.list().await?.1);
    table.row(desk.call("read_ticket", "7").await?);
    println!("{table}");
    let digest = show_change(stage).await?;
    approve(stage, &digest).await?;
    let mut table = Table::new(HEAD);
    table.row(desk.wait_for("read_ticket").await?);
    table.row(desk.call("read_ticket", "7").await?);
    println!("\n{table}");
    cross_the_bridge(stage, addresses).await
}

impl Desk {
    async fn ask(&self, method: &str, mut params: Value) -> Result<Reply, Error> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri("/mcp/tickets")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", REVISION)
            .header("mcp-method", method);
        if let Some(name) = params.get("name").and_then(Value::as_str) {
            request = request.header("mcp-name", name);
        }
        if let Some(params) = params.as_object_mut() {
            params.insert("_meta".to_owned(), meta());
        }
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.0.ask(request, &body.to_string()).await?;
        let record = record_of(&answer)?;
        let mut body: Value = serde_json::from_slice(answer.body())?;
        let result = body.get_mut("result").map(Value::take);
        let result = result.ok_or_else(|| format!("{method} was answered with {body}"))?;
        Ok(Reply { result, record })
    }

    /// The names that it is shown, and the row that says so.
    async fn list(&self) -> Result<(Vec<String>, [String; 4]), Error> {
        let reply = self.ask("tools/list", json!({})).await?;
        let names = names(&reply.result);
        let row = [
            "tools/list".to_owned(),
            names.join(", "),
            "-".to_owned(),
            reply.record,
        ];
        Ok((names, row))
    }

    async fn call(&self, tool: &str, argument: &str) -> Result<[String; 4], Error> {
        let name = match tool {
            "find_ticket" => "words",
            "refund_order" => "order",
            "export_customers" => "format",
            _ => "ticket",
        };
        let params = json!({ "name": tool, "arguments": { name: argument } });
        let Reply { result, record } = self.ask("tools/call", params).await?;
        let text = |pointer: &str| result.pointer(pointer).and_then(Value::as_str);
        let said = text("/content/0/text").ok_or("a result without text")?;
        let rule = text("/_meta/org.agentca~1denied/rule").unwrap_or("-");
        // The rule has a column of its own, and what comes after the first sentence is for the model.
        let said = match (rule, said.split_once(": ")) {
            ("-", _) | (_, None) => said,
            (_, Some((_, why))) => why.split([':', '.']).next().unwrap_or(why),
        };
        let said = match result.get("isError") {
            Some(Value::Bool(true)) => format!("isError: {said}"),
            _ => said.to_owned(),
        };
        Ok([format!("tools/call {tool}"), said, rule.to_owned(), record])
    }

    /// A running enforcer takes up by itself what a person approved.
    async fn wait_for(&self, tool: &str) -> Result<[String; 4], Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (names, row) = self.list().await?;
            if names.iter().any(|name| name == tool) {
                return Ok(row);
            }
            if Instant::now() > deadline {
                return Err(format!("`{tool}` stays withheld, see enforcer.log").into());
            }
            sleep(AGAIN).await;
        }
    }
}

/// What the enforcer wrote down of a denied call.
async fn show_record(stage: &Stage, record: &str) -> Result<(), Error> {
    let (_, index) = record.split_once('#').ok_or("a record without an index")?;
    let show = [
        "log",
        "show",
        "edge-1-data/log",
        "--from",
        index,
        "--count",
        "1",
    ];
    print_command("agentca", &show, &stage.agentca(&show).await?.stdout);
    println!();
    Ok(())
}

/// Gives the digest of what changed.
async fn show_change(stage: &Stage) -> Result<String, Error> {
    let diff = ["catalogue", "diff", "--config", "enforcer.toml"];
    let deadline = Instant::now() + PATIENCE;
    // What an agent was listed is looked at again before it is written down.
    let said = loop {
        let said = stage.enforcer(&diff).await?.stdout;
        if said.contains("read_ticket  changed") || Instant::now() > deadline {
            break said;
        }
        sleep(AGAIN).await;
    };
    print_command("agentca-enforcer", &diff, &said);
    let changed = said.split("read_ticket  changed").nth(1);
    let digest = changed.and_then(|text| text.split_once("digest ")?.1.split_whitespace().next());
    Ok(digest.ok_or("no tool changed")?.to_owned())
}

async fn approve(stage: &Stage, digest: &str) -> Result<(), Error> {
    println!("A person looks into it and approves it ...");
    let approve = [
        "catalogue",
        "approve",
        "tickets:read_ticket",
        "--config",
        "enforcer.toml",
        "--digest",
        digest,
        "--reason",
        "archive.example.org is ours",
    ];
    let said = stage.enforcer(&approve).await?.stdout;
    print_command("agentca-enforcer", &approve, &said);
    Ok(())
}

/// A program that knows nothing of certificates asks over standard input and output.
async fn cross_the_bridge(stage: &Stage, addresses: &Addresses) -> Result<(), Error> {
    println!("The bridge makes the enforcer a local MCP server for any client ...");
    let url = format!(
        "https://localhost:{}/mcp/tickets",
        addresses.enforcer.port()
    );
    let authority = addresses.authority.as_str();
    let connect = ["connect", "--stdio", &url, "--credentials", DESK];
    let arguments = [&connect[..], &["--authority", authority]].concat();
    let params = json!({ "_meta": meta() });
    let question = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params });
    let said = stage
        .ask("agentca-sidecar", &arguments, &format!("{question}\n"))
        .await?;
    let answer: Value = serde_json::from_str(said.stdout.lines().next().unwrap_or_default())?;
    let names = answer.get("result").map(names).unwrap_or_default();
    print_command(
        "agentca-sidecar",
        &connect,
        &format!("tools/list: {}", names.join(", ")),
    );
    println!();
    Ok(())
}

fn print_command(program: &str, arguments: &[&str], said: &str) {
    let words = arguments.iter().map(|word| match word.contains(' ') {
        true => format!("\"{word}\""),
        false => (*word).to_owned(),
    });
    println!("  {program} {}", words.collect::<Vec<_>>().join(" "));
    said.lines().for_each(|line| println!("    {line}"));
}

fn names(result: &Value) -> Vec<String> {
    let tools = result.get("tools").and_then(Value::as_array);
    let names = tools.into_iter().flatten().filter_map(|tool| {
        let name = tool.get("name")?.as_str()?;
        Some(name.to_owned())
    });
    names.collect()
}

fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": REVISION,
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

const HEAD: [&str; 4] = ["asks", "answer", "rule", "record"];
const AGAIN: Duration = Duration::from_millis(100);
