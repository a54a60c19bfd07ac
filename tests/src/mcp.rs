//! MCP in the lab: servers to stand behind an enforcer, catalogues with pins for them, bridges, SDK clients,
//! and raw messages over curl.

mod clients;
mod messages;
mod scripted;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agentca_identity::crypto::sha256;
use serde_json::{Value, json};

use crate::curl::Got;
use crate::lab::{Enforcer, Lab, ROUTES};
use crate::program::{Program, Said, ours};
use crate::wait;

pub use self::clients::{
    Conformance, conformance, everything_program, python_client, python_first_call,
    typescript_client, typescript_first_call,
};
use self::clients::{everything_script, node_program};
pub use self::messages::{
    MEDIA, META, Session, answer_in, call, headers, initialize, listed, listed_at, open_stream,
    post, post_at, read_until, request, text, tool_call,
};
pub use self::scripted::{Scene, Scripted, definition};

/// The revision without sessions.
pub const STATELESS: &str = "2026-07-28";
/// The newest revision with sessions.
pub const SESSIONS: &str = "2025-11-25";

/// A server that is running over HTTP.
pub struct Server {
    /// The process.
    pub program: Program,
    address: SocketAddr,
    calls: PathBuf,
}

impl Server {
    /// Starts `agentca-mcp-fixture --http` with more options; `name` tells its files from others'.
    pub fn start(lab: &Lab, name: &str, options: &[&str]) -> Self {
        Self::start_at(lab, name, lab.ip(), options)
    }

    /// The same, on another address: some clients insist on 127.0.0.1.
    pub fn start_at(lab: &Lab, name: &str, ip: std::net::IpAddr, options: &[&str]) -> Self {
        let calls = lab.path(&format!("{name}.calls"));
        let mut command = lab.command(ours("agentca-mcp-fixture"));
        command
            .args(["--http", &SocketAddr::from((ip, 0)).to_string()])
            .args(options)
            .arg("--calls")
            .arg(&calls);
        let mut program = Program::start(name, command, lab.path(&format!("{name}.txt")));
        let address = wait::until("the MCP server tells its address", || {
            program.must_be_running();
            program.printed().lines().next()?.parse().ok()
        });
        Self {
            program,
            address,
            calls,
        }
    }

    /// `server-everything`, the official sample, over HTTP.
    pub fn everything(lab: &Lab) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let mut command = lab.command(node_program());
        command
            .arg(everything_script())
            .arg("streamableHttp")
            .env("PORT", address.port().to_string());
        let mut program = Program::start("server-everything", command, lab.path("everything.txt"));
        wait::until("server-everything listens", || {
            program.must_be_running();
            std::net::TcpStream::connect(address).ok()
        });
        Self {
            program,
            address,
            calls: PathBuf::new(),
        }
    }

    /// Its endpoint.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// What reached it so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        let text = std::fs::read_to_string(&self.calls).unwrap_or_default();
        let read = |line: &str| Call(serde_json::from_str(line).expect("a line of JSON"));
        // What follows the last line end is still being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(read).collect()
    }

    /// The calls of a tool that reached it so far.
    pub fn calls_of(&self, tool: &str) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|call| {
            let message = call.message();
            message["method"] == "tools/call" && message["params"]["name"] == tool
        });
        calls
    }

    /// Changes the tool of a server that was started to do so.
    pub fn change(&self) {
        let mut command = Command::new("curl");
        command.args(["-sSf", "-X", "POST"]);
        command.arg(format!("http://{}/change", self.address));
        Said::from(command).must_succeed();
    }

    /// The definitions of its tools as it lists them.
    pub fn definitions(&self) -> Vec<Value> {
        let url = self.url();
        let mut headers = MEDIA.map(str::to_owned).to_vec();
        let opened = plain_post(&url, &headers, &initialize());
        let session = opened.header("mcp-session-id");
        headers.extend(session.map(|session| format!("Mcp-Session-Id: {session}")));
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        plain_post(&url, &headers, initialized);
        let list = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}"#;
        let listed = plain_post(&url, &headers, list);
        tools_of(&answer_in(&listed.body, 2))
    }
}

/// The definitions of the tools of a server over standard input and output.
pub fn definitions_of_program(words: &[String]) -> Vec<Value> {
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{words:?}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut ask = |message: &str, id: u64| {
        writeln!(stdin, "{message}").expect("a server that reads");
        loop {
            let line = lines.next().expect("a server that answers").expect("text");
            let message: Value = serde_json::from_str(&line).expect("a line of JSON");
            if message["id"] == id {
                break message;
            }
        }
    };
    ask(&initialize(), 1);
    let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let list = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}"#;
    let listed = ask(&format!("{initialized}\n{list}"), 2);
    child.kill().expect("a child of ours");
    child.wait().expect("a child of ours");
    tools_of(&listed)
}

fn tools_of(listed: &Value) -> Vec<Value> {
    let tools = listed["result"]["tools"].as_array();
    tools
        .unwrap_or_else(|| panic!("no list of tools: {listed}"))
        .clone()
}

/// Something that reached a server.
#[derive(Debug)]
pub struct Call(Value);

impl Call {
    /// The body, or the line, as it came.
    pub fn body(&self) -> &str {
        self.0["body"].as_str().expect("a body")
    }

    /// The same, read; null when it is no JSON.
    pub fn message(&self) -> Value {
        serde_json::from_str(self.body()).unwrap_or_default()
    }

    /// The value of a field that occurs once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.0["headers"].as_array()?;
        let mut found = fields.iter().filter(|field| field[0] == name);
        let value = found.next()?[1].as_str();
        found.next().is_none().then_some(value)?
    }
}

/// An MCP upstream for an enforcer's configuration.
pub fn upstream(name: &str, server: &Server, settings: &str) -> String {
    upstream_at(name, &server.url(), settings)
}

/// The same by its URL.
pub fn upstream_at(name: &str, url: &str, settings: &str) -> String {
    format!("\n[[upstream]]\nname = \"{name}\"\nkind = \"mcp\"\nurl = \"{url}\"\n{settings}\n")
}

/// Who tells a program about progress.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sdk {
    /// It gives on every step.
    Python,
    /// It forgets the steps on whose heels the answer comes: on a busy machine any of the last. The streams themselves
    /// are looked at elsewhere.
    TypeScript,
}

/// Three steps were told in their order.
pub fn must_have_followed(progress: &serde_json::Value, by: Sdk) {
    let steps: Option<Vec<f64>> = progress
        .as_array()
        .and_then(|steps| steps.iter().map(serde_json::Value::as_f64).collect());
    let steps = steps.expect("a list of numbers");
    let all = [1.0, 2.0, 3.0];
    assert!(all.starts_with(&steps), "{progress}");
    assert!(by == Sdk::TypeScript || steps == all, "{progress}");
}

/// The same for a server over standard input and output.
pub fn program_upstream(name: &str, words: &[String], settings: &str) -> String {
    format!("\n[[upstream]]\nname = \"{name}\"\nkind = \"mcp\"\ncommand = {words:?}\n{settings}\n")
}

/// Adds the enforcer `edge-1` and writes its configuration: the usual routes, the catalogues of these upstreams,
/// and `tables`.
pub fn configure(lab: &Lab, catalogues: &[&str], tables: &str) {
    lab.add_enforcer("edge-1");
    let files: Vec<String> = catalogues
        .iter()
        .map(|name| format!("{name}.toml"))
        .collect();
    lab.write_configuration(
        "edge-1",
        &format!("catalogue = {files:?}\n"),
        &format!("{ROUTES}{tables}"),
    );
}

/// A tool as the enforcer `edge-1` last saw it and wrote it down, for whoever has to judge it.
pub fn shown(lab: &Lab, upstream: &str, tool: &str) -> Option<Value> {
    let file = lab.path(&format!("edge-1-data/tools/{upstream}.json"));
    let seen: Value = serde_json::from_slice(&std::fs::read(file).ok()?).expect("JSON");
    let mut tools = seen["tools"].as_array().expect("tools").iter();
    tools.find(|shown| shown["name"] == tool).cloned()
}

/// What the catalogue says of a tool: its risk and the least trust. None leaves the tool out.
pub type Judgement<'a> = &'a dyn Fn(&str) -> Option<(&'a str, &'a str)>;

/// Writes `<upstream>.toml` and its pins: these definitions, and these methods besides tools.
pub fn write_catalogue(
    lab: &Lab,
    upstream: &str,
    definitions: &[Value],
    judge: Judgement<'_>,
    methods: &[&str],
) {
    let mut text = String::new();
    let mut pins = Vec::new();
    for definition in definitions {
        let name = definition["name"].as_str().expect("a tool has a name");
        let Some((risk, min_trust)) = judge(name) else {
            continue;
        };
        text += &format!(
            "[[tool]]\nupstream = \"{upstream}\"\nname = \"{name}\"\nmin_trust = \"{min_trust}\"\nrisk = \"{risk}\"\n\n"
        );
        pins.push(json!({
            "upstream": upstream,
            "tool": name,
            "digest": digest(definition),
            "definition": definition,
            "approved": { "by": "scan", "at": "2026-11-21T00:00:00Z", "reason": "as it was found" },
        }));
    }
    for method in methods {
        text += &format!(
            "[[method]]\nupstream = \"{upstream}\"\nname = \"{method}\"\nmin_trust = \"L1\"\nrisk = \"read\"\n\n"
        );
    }
    let pins = json!({ "version": 1, "pins": pins, "assessments": [] });
    std::fs::write(lab.path(&format!("{upstream}.toml")), text).expect("a catalogue");
    let file = lab.path(&format!("{upstream}.pins.json"));
    std::fs::write(file, pins.to_string()).expect("pins");
}

/// The usual judgement of the bank's tools: everything is in the catalogue.
pub fn bank_risk(tool: &str) -> Option<(&'static str, &'static str)> {
    Some(match tool {
        "payments_refund" => ("financial", "L2"),
        "get_and_delete_all" => ("destructive", "L2"),
        "run_report" => ("execute", "L2"),
        _ => ("read", "L1"),
    })
}

/// The digest of a tool's definition: SHA-256 over its canonical form (RFC 8785).
pub fn digest(definition: &Value) -> String {
    let mut text = String::new();
    canonical(definition, &mut text);
    let hex: String = sha256(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// Our own writer: nothing is shared with what is tested. It knows no fractions.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| name.encode_utf16().collect::<Vec<_>>());
            out.push('{');
            for (number, (name, value)) in members.into_iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                *out += &Value::from(name.as_str()).to_string();
                out.push(':');
                canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        other => {
            assert!(
                !other.is_f64(),
                "a fraction has a form we do not write: {other}"
            );
            *out += &other.to_string();
        }
    }
}

/// `agentca-sidecar connect --http`, running.
pub struct Bridge {
    /// The process.
    pub program: Program,
    url: String,
}

impl Bridge {
    /// Starts it as an agent, in front of an enforcer's upstream.
    pub fn start(lab: &Lab, enforcer: &Enforcer, upstream: &str, agent: &Path) -> Self {
        let mut command = lab.command(ours("agentca-sidecar"));
        command
            .args(["connect", "--http", "127.0.0.1:0"])
            .args(bridge_arguments(enforcer, upstream, agent));
        let mut program = Program::start("bridge", command, lab.path("bridge.txt"));
        let url = wait::until("the bridge tells its URL", || {
            program.must_be_running();
            let printed = program.printed();
            let mut words = printed.split_whitespace();
            // Only of a line that is whole.
            let url = words.find(|word| word.starts_with("http://127.0.0.1:"))?;
            printed.contains('\n').then(|| url.to_owned())
        });
        Self { program, url }
    }

    /// Its endpoint, secret and all.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// The command line of a bridge over standard input and output.
pub fn stdio_bridge(enforcer: &Enforcer, upstream: &str, agent: &Path) -> Vec<String> {
    let program = ours("agentca-sidecar").display().to_string();
    let mut words = vec![program, "connect".to_owned(), "--stdio".to_owned()];
    words.extend(bridge_arguments(enforcer, upstream, agent));
    words
}

fn bridge_arguments(enforcer: &Enforcer, upstream: &str, agent: &Path) -> [String; 5] {
    [
        format!("https://{}/mcp/{upstream}", enforcer.address()),
        "--credentials".to_owned(),
        agent.display().to_string(),
        "--verify".to_owned(),
        "require".to_owned(),
    ]
}

/// POSTs in clear: to a server without anybody between, or to a bridge.
pub fn plain_post(url: &str, headers: &[String], body: &str) -> Got {
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "--max-time", "30", "--data-binary", body]);
    for header in headers {
        command.args(["-H", header]);
    }
    let said = Said::from({
        command.arg(url);
        command
    })
    .must_succeed();
    let (head, body) = said.stdout.split_once("\r\n\r\n").unwrap_or_default();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Got {
        status: status.unwrap_or_default(),
        version: "1.1".to_owned(),
        connects: 1,
        headers: head.lines().filter_map(field).collect(),
        body: body.to_owned(),
    }
}
