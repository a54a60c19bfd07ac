//! What the parts about MCP share: a bank's tools, their catalogue and pins, and the messages of the load.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentca_identity::time::Timestamp;
use agentca_policy::{Approved, Pin, PinsFile, SCAN, ToolDefinition};
use rustls::ClientConfig;

use crate::Outcome;
use crate::connections::{Connection, Target};
use crate::process::{Core, Process, free_address, own_program};
use crate::setup::Setup;

/// The upstream's name.
pub(crate) const BANK: &str = "bank";
/// Its endpoint at the enforcer.
pub(crate) const ENDPOINT: &str = "/mcp/bank";
/// A scope for all its tools.
pub(crate) const EVERYTHING: &str = "mcp:bank:*";
/// A scope for every other tool.
pub(crate) const EVERY_OTHER: &str = "mcp:bank:even:use";
/// A scope for what is no tool: enough to ask for the list, and see nothing in it.
pub(crate) const NO_TOOL: &str = "mcp:bank:resources:read";
/// Where the upstream gives its list over plain HTTP.
pub(crate) const PLAIN_LIST: &str = "/v1/tools";
/// The cursor for which the upstream writes the same tools into a page as it never wrote one before.
pub(crate) const REWRITTEN: &str = "rewritten";
/// The cursor for which it writes each of them as it never wrote it before.
pub(crate) const RESPELLED: &str = "respelled";

/// The revision that the load speaks.
const REVISION: &str = "2026-07-28";
/// The tool that is called: the first one.
const CALLED: &str = "ledger_0000_find";

/// An MCP server with many tools, running.
pub(crate) struct Bank<'a> {
    setup: &'a Setup,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    tools: usize,
    _process: Process,
}

impl<'a> Bank<'a> {
    /// Opens one with so many tools.
    pub(crate) fn open(setup: &'a Setup, tools: usize) -> Outcome<Self> {
        let addr = free_address()?;
        let program = own_program()?;
        let mut process = Process::start("bank", Core::Load, &program, &setup.dir, |command| {
            command.args(["mcp-upstream", "--listen", &addr.to_string()]);
            command.args(["--tools", &tools.to_string()]);
        })?;
        process.await_listening(addr)?;
        Ok(Self {
            setup,
            addr,
            tools,
            _process: process,
        })
    }

    /// Adds an enforcer before it, with everything in the catalogue and pinned.
    pub(crate) fn add_enforcer(
        &self,
        name: &str,
        environment: &str,
        data_dir: &Path,
    ) -> Outcome<SocketAddr> {
        let pins = self.setup.dir.join(format!("{name}.pins.json"));
        fs::write(pins, pins_of(self.tools)?)?;
        let tables = self.tables()?;
        self.setup
            .add_enforcer_of(name, environment, data_dir, &tables)
    }

    /// The upstream twice: as what it is, and as a server of plain HTTP that has the same list.
    fn tables(&self) -> Outcome<String> {
        let addr = self.addr;
        let mut tables = format!(
            r#"[limits]
buffer_max = "16MiB"
[[upstream]]
name = "{BANK}"
kind = "mcp"
url = "http://{addr}/mcp"
watch = "1h"
[[upstream]]
name = "plain"
url = "http://{addr}"
[[route]]
upstream = "plain"
methods = ["GET"]
path = "{PLAIN_LIST}"
scope = "{NO_TOOL}"
min_trust = "L1"
risk = "read"
[[method]]
upstream = "{BANK}"
name = "resources/read"
min_trust = "L1"
risk = "read"
"#
        );
        for number in 0..self.tools {
            let half = if number % 2 == 0 { "even" } else { "odd" };
            write!(
                tables,
                "[[tool]]\nupstream = \"{BANK}\"\nname = \"{}\"\nscope = \"mcp:{BANK}:{half}:use\"\n\
                 min_trust = \"L1\"\nrisk = \"read\"\nclassification = \"personal-data\"\n",
                tool_name(number),
            )?;
        }
        Ok(tables)
    }
}

/// What the upstream lists: definitions of about 400 bytes.
pub(crate) fn definitions(tools: usize) -> impl Iterator<Item = String> {
    (0..tools).map(|number| {
        let name = tool_name(number);
        format!(
            r#"{{"name":"{name}","title":"Find entries","description":"Finds entries of ledger {number}, the newest first; none is no error.","inputSchema":{{"type":"object","properties":{{"account":{{"type":"string","description":"The account's number"}},"from":{{"type":"string","format":"date"}},"limit":{{"type":"integer","maximum":100}}}},"required":["account"]}},"annotations":{{"readOnlyHint":true}}}}"#
        )
    })
}

fn tool_name(number: usize) -> String {
    format!("ledger_{number:04}_find")
}

fn pins_of(tools: usize) -> Outcome<String> {
    let at = Timestamp::now();
    let pin = |definition: String| -> Outcome<Pin> {
        Ok(Pin {
            upstream: BANK.to_owned(),
            definition: ToolDefinition::parse(&definition)?,
            approved: Approved {
                by: SCAN.to_owned(),
                at,
                reason: "the benchmark's own".to_owned(),
                statement: None,
            },
        })
    };
    let file = PinsFile {
        pins: definitions(tools).map(pin).collect::<Outcome<_>>()?,
        ..PinsFile::default()
    };
    Ok(file.to_json()?)
}

/// The message that calls the tool.
pub(crate) fn call_message() -> String {
    let arguments = r#"{"account":"7","from":"2026-11-01","limit":20}"#;
    message(
        "tools/call",
        &format!(r#""name":"{CALLED}","arguments":{arguments},"#),
    )
}

/// The request that calls the tool, posted to `path` of whoever listens on `addr`.
pub(crate) fn call(addr: SocketAddr, path: &str) -> Vec<u8> {
    post(addr, path, ("tools/call", Some(CALLED)), &call_message())
}

/// The request for the list; with a cursor for one that nobody has read yet.
pub(crate) fn list(addr: SocketAddr, cursor: Option<&str>) -> Vec<u8> {
    let cursor = cursor.map(|cursor| format!(r#""cursor":"{cursor}","#));
    let message = message("tools/list", cursor.as_deref().unwrap_or_default());
    post(addr, ENDPOINT, ("tools/list", None), &message)
}

/// The request for the same list on the route of plain HTTP.
pub(crate) fn plain_list(addr: SocketAddr) -> Vec<u8> {
    let port = addr.port();
    format!("GET {PLAIN_LIST} HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n").into_bytes()
}

/// A message of the revision, its other parameters before what each has to have.
fn message(method: &str, parameters: &str) -> String {
    let meta = format!(
        r#"{{"io.modelcontextprotocol/protocolVersion":"{REVISION}","io.modelcontextprotocol/clientCapabilities":{{}}}}"#
    );
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{parameters}"_meta":{meta}}}}}"#
    )
}

fn post(
    addr: SocketAddr,
    path: &str,
    (method, name): (&str, Option<&str>),
    message: &str,
) -> Vec<u8> {
    let name = name.map(|name| format!("mcp-name: {name}\r\n"));
    let (port, length) = (addr.port(), message.len());
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost:{port}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-protocol-version: {REVISION}\r\n\
         mcp-method: {method}\r\n{}content-length: {length}\r\n\r\n{message}",
        name.unwrap_or_default(),
    )
    .into_bytes()
}

/// The load's target: the tool, at an enforcer or whoever stands for it.
pub(crate) fn calls(addr: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Target {
    Target::asking(addr, tls, call(addr, ENDPOINT))
}

/// What is in every answer of the tool, and in no refusal.
const ANSWERED: &str = r#""text":"account 7"#;

/// Waits until the tool answers; from then on every answer has to be as long as this one: a refusal
/// of MCP has the status of an answer.
pub(crate) async fn await_answers(target: Target) -> Outcome<Target> {
    await_text(target, ANSWERED).await
}

/// The same for any answer that holds `text`.
pub(crate) async fn await_text(mut target: Target, text: &str) -> Outcome<Target> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let tried = ask_once(&target).await;
        let why = match tried {
            Ok(body) if body.contains(text) => {
                target.body_length = Some(body.len());
                return Ok(target);
            }
            Ok(body) => body.chars().take(400).collect(),
            Err(error) => error.to_string(),
        };
        if Instant::now() > deadline {
            return Err(format!("{} does not serve: {why}", target.addr).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One answer's body, whatever it says.
pub(crate) async fn ask_once(target: &Target) -> Outcome<String> {
    let mut connection = Connection::open(target).await?;
    connection.ask(&target.request).await?;
    Ok(String::from_utf8(connection.body().to_vec())?)
}
