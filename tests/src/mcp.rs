//! MCP in the lab: servers to stand behind an enforcer, catalogues with pins for them, bridges, SDK clients,
//! and raw messages over curl.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agentca_identity::crypto::sha256;
use serde_json::{Value, json};

use crate::curl::{Got, curl};
use crate::lab::{Enforcer, Lab};
use crate::program::{Program, Said, ours};
use crate::wait;

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
        text.lines().map(read).collect()
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
        let opened = plain_post(&url, "", &initialize());
        let session = opened
            .header("mcp-session-id")
            .map_or_else(String::new, |session| format!("Mcp-Session-Id: {session}"));
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        plain_post(&url, &session, initialized);
        let list = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}"#;
        let listed = plain_post(&url, &session, list);
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
    let url = server.url();
    format!("\n[[upstream]]\nname = \"{name}\"\nkind = \"mcp\"\nurl = \"{url}\"\n{settings}\n")
}

/// The same for a server over standard input and output.
pub fn program_upstream(name: &str, words: &[String], settings: &str) -> String {
    format!("\n[[upstream]]\nname = \"{name}\"\nkind = \"mcp\"\ncommand = {words:?}\n{settings}\n")
}

/// What the catalogue says of a tool: its risk and the least trust. None leaves the tool out.
pub type Judgement<'a> = &'a dyn Fn(&str) -> Option<(&'a str, &'a str)>;

/// Writes `catalogue.toml` and its pins: these definitions, and these methods besides tools.
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
    std::fs::write(lab.path("catalogue.toml"), text).expect("a catalogue");
    std::fs::write(lab.path("catalogue.pins.json"), pins.to_string()).expect("pins");
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

/// The client of the official Python SDK; `words` as `tests/mcp/client.py` says.
pub fn python_client(lab: &Lab, words: &[&str]) -> Said {
    let python = tests().join(".venv/bin/python");
    assert!(
        python.is_file(),
        "no {}: run tests/run once",
        python.display()
    );
    let mut command = lab.command(python);
    command
        .arg("-B")
        .arg(tests().join("mcp/client.py"))
        .args(words);
    Said::from(command)
}

/// The client of the official TypeScript SDKs; `words` as `tests/mcp/client.mjs` says.
pub fn typescript_client(lab: &Lab, words: &[&str]) -> Said {
    let mut command = lab.command(node_program());
    command.arg(tests().join("mcp/client.mjs")).args(words);
    Said::from(command)
}

/// The official conformance suite against a URL, and what its checks said.
pub fn conformance(lab: &Lab, url: &str, revision: &str) -> Conformance {
    let out = lab.path(&format!("conformance-{revision}"));
    let mut command = lab.command(node_program());
    command
        .arg(package("conformance/dist/index.js"))
        .args(["server", "--url", url, "--requirements", revision])
        .arg("--expected-failures")
        .arg(tests().join("mcp/expected-failures.yaml"))
        .arg("-o")
        .arg(&out);
    let said = Said::from(command);
    let mut scenarios = Vec::new();
    for folder in std::fs::read_dir(&out).unwrap_or_else(|error| panic!("{error}: {said}")) {
        let folder = folder.expect("a folder").path();
        let text = std::fs::read_to_string(folder.join("checks.json")).expect("checks");
        let checks: Value = serde_json::from_str(&text).expect("JSON");
        let name = folder
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        scenarios.push((name, checks.as_array().expect("checks").clone()));
    }
    Conformance { said, scenarios }
}

/// What the suite found out.
pub struct Conformance {
    /// What it printed and how it ended: well, unless something failed that is not expected to.
    pub said: Said,
    scenarios: Vec<(String, Vec<Value>)>,
}

impl Conformance {
    /// How many scenarios checked something and found nothing wrong.
    pub fn passed(&self) -> usize {
        let passed = self.scenarios.iter().filter(|(_, checks)| {
            let any = |status: &str| checks.iter().any(|check| check["status"] == status);
            any("SUCCESS") && !any("FAILURE")
        });
        passed.count()
    }

    /// Everything that went wrong, outside the scenarios whose name begins with `but`.
    pub fn failures_but(&self, but: &str) -> Vec<String> {
        let but = format!("server-{but}");
        let mut failures = Vec::new();
        for (scenario, checks) in &self.scenarios {
            let failed = checks.iter().filter(|check| check["status"] == "FAILURE");
            if !scenario.starts_with(&but) {
                failures.extend(failed.map(|check| {
                    format!("{scenario}: {}: {}", check["id"], check["errorMessage"])
                }));
            }
        }
        failures
    }
}

/// The command line of `server-everything` over standard input and output.
pub fn everything_program() -> Vec<String> {
    [node_program(), everything_script(), "stdio".into()]
        .map(|word| word.display().to_string())
        .to_vec()
}

/// The node that `tests/run` chose.
fn node_program() -> PathBuf {
    let node = tests().join("mcp/node");
    assert!(node.is_file(), "no {}: run tests/run once", node.display());
    // By its real name: a program behind a link is looked for in other places.
    std::fs::canonicalize(node).expect("a program")
}

fn everything_script() -> PathBuf {
    package("server-everything/dist/index.js")
}

fn package(below: &str) -> PathBuf {
    let file = tests()
        .join("mcp/node_modules/@modelcontextprotocol")
        .join(below);
    assert!(file.is_file(), "no {}: run tests/run once", file.display());
    file
}

/// The headers that go with a `tools/call` of the revision without sessions.
pub fn headers(method: &str, name: Option<&str>) -> Vec<String> {
    let mut headers = vec![
        "Content-Type: application/json".to_owned(),
        "Accept: application/json, text/event-stream".to_owned(),
        format!("MCP-Protocol-Version: {STATELESS}"),
        format!("Mcp-Method: {method}"),
    ];
    headers.extend(name.map(|name| format!("Mcp-Name: {name}")));
    headers
}

/// The `_meta` of that revision, as text.
pub const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

/// A request of that revision, as text; `more` are more members of `params`, each after a comma.
pub fn request(id: u64, method: &str, more: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"_meta":{META}{more}}}}}"#
    )
}

/// A `tools/call` of that revision, as text.
pub fn tool_call(id: u64, tool: &str, arguments: &str) -> String {
    request(
        id,
        "tools/call",
        &format!(r#","name":"{tool}","arguments":{arguments}"#),
    )
}

/// POSTs a body as it is to an enforcer's upstream.
pub fn post(
    enforcer: &Enforcer,
    agent: &Path,
    upstream: &str,
    headers: &[String],
    body: &[u8],
) -> Got {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), body).expect("a file");
    let data = format!("@{}", file.path().display());
    let mut options = vec!["--data-binary", &data, "-H", "Expect:"];
    for header in headers {
        options.extend(["-H", header]);
    }
    curl(enforcer, agent, &options, &[&format!("/mcp/{upstream}")]).remove(0)
}

/// Calls a tool in the revision without sessions; the answer's `result`, or null.
pub fn call(
    enforcer: &Enforcer,
    agent: &Path,
    upstream: &str,
    tool: &str,
    arguments: &str,
) -> Value {
    let body = tool_call(7, tool, arguments);
    let headers = headers("tools/call", Some(tool));
    let got = post(enforcer, agent, upstream, &headers, body.as_bytes());
    answer_in(&got.body, 7)["result"].clone()
}

/// The names of the tools that an agent is shown, sorted.
pub fn listed(enforcer: &Enforcer, agent: &Path, upstream: &str) -> Vec<String> {
    let body = request(8, "tools/list", "");
    let headers = headers("tools/list", None);
    let got = post(enforcer, agent, upstream, &headers, body.as_bytes());
    names(&answer_in(&got.body, 8))
}

fn names(answer: &Value) -> Vec<String> {
    let name = |tool: &Value| tool["name"].as_str().expect("a name").to_owned();
    let mut names: Vec<String> = tools_of(answer).iter().map(name).collect();
    names.sort();
    names
}

/// The text of a tool's result.
pub fn text(result: &Value) -> String {
    let items = result["content"].as_array().into_iter().flatten();
    items.filter_map(|item| item["text"].as_str()).collect()
}

/// A session of the older revisions.
pub struct Session<'a> {
    enforcer: &'a Enforcer,
    agent: &'a Path,
    upstream: &'a str,
    /// Its id, when the server gave one.
    pub id: Option<String>,
}

impl<'a> Session<'a> {
    /// Shakes hands.
    pub fn open(enforcer: &'a Enforcer, agent: &'a Path, upstream: &'a str) -> Self {
        let mut session = Self {
            enforcer,
            agent,
            upstream,
            id: None,
        };
        let opened = session.post(&initialize());
        assert_eq!(opened.status, 200, "{opened:?}");
        session.id = opened.header("mcp-session-id").map(str::to_owned);
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert_eq!(session.post(initialized).status, 202);
        session
    }

    /// POSTs a message in it.
    pub fn post(&self, body: &str) -> Got {
        let headers = self.headers();
        post(
            self.enforcer,
            self.agent,
            self.upstream,
            &headers,
            body.as_bytes(),
        )
    }

    /// The names of the tools it shows, sorted.
    pub fn listed(&self) -> Vec<String> {
        let list = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}"#;
        names(&answer_in(&self.post(list).body, 2))
    }

    /// Calls a tool; the answer's `result`, or null.
    pub fn call(&self, tool: &str, arguments: &str) -> Value {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
        );
        answer_in(&self.post(&body).body, 3)["result"].clone()
    }

    fn headers(&self) -> Vec<String> {
        let mut headers = vec![
            "Content-Type: application/json".to_owned(),
            "Accept: application/json, text/event-stream".to_owned(),
        ];
        if let Some(id) = &self.id {
            headers.push(format!("Mcp-Session-Id: {id}"));
            headers.push(format!("MCP-Protocol-Version: {SESSIONS}"));
        }
        headers
    }
}

/// The handshake's first message.
pub fn initialize() -> String {
    let client = json!({ "name": "tests", "version": "1" });
    let params = json!({ "protocolVersion": SESSIONS, "capabilities": {}, "clientInfo": client });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }).to_string()
}

/// The answer to a request, in a body that is JSON or a stream of events; null when it is not there.
pub fn answer_in(body: &str, id: u64) -> Value {
    let data = body.lines().filter_map(|line| line.strip_prefix("data:"));
    let mut messages = std::iter::once(body)
        .chain(data)
        .filter_map(|text| serde_json::from_str::<Value>(text.trim()).ok());
    let answer = messages.find(|message| message["id"] == id && message["method"].is_null());
    answer.unwrap_or_default()
}

/// POSTs to a server without anybody between.
fn plain_post(url: &str, header: &str, body: &str) -> Got {
    let mut command = Command::new("curl");
    command.args([
        "-sS",
        "-i",
        "--max-time",
        "30",
        "-H",
        header,
        "--data-binary",
        body,
    ]);
    for header in [
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
    ] {
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

fn tests() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
