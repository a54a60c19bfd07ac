//! The program as a process, and clients of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::fake::{Fake, PATIENCE};
use crate::pki::HOUR;

/// A running bridge; dropped, it is killed.
pub(crate) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    pub(crate) folder: tempfile::TempDir,
    /// What an HTTP client calls.
    pub(crate) url: String,
}

/// A folder with an agent's credential of the fake's PKI.
pub(crate) fn folder_of(fake: &Fake) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let agent = folder.path().join("agent");
    fake.pki
        .write_agent(&agent, "support-01", Duration::ZERO, HOUR);
    folder
}

/// The command, with nothing of the person's environment.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentca-sidecar"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AGENTCA_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(folder)
        .env("HOME", folder)
        .kill_on_drop(true);
    command
}

impl Program {
    pub(crate) async fn stdio(fake: &Fake, more: &[&str]) -> Self {
        let mut arguments = vec!["--stdio", "--no-renew"];
        arguments.extend(more);
        Self::start(fake, folder_of(fake), &arguments)
    }

    pub(crate) async fn http(fake: &Fake, more: &[&str]) -> Self {
        let mut arguments = vec!["--http", "127.0.0.1:0", "--no-renew"];
        arguments.extend(more);
        let mut program = Self::start(fake, folder_of(fake), &arguments);
        program.url = program.line().await;
        program
    }

    pub(crate) fn start(fake: &Fake, folder: tempfile::TempDir, arguments: &[&str]) -> Self {
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut child = command(folder.path())
            .args(["connect", &fake.url(), "--credentials", "agent"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            folder,
            url: String::new(),
        }
    }

    pub(crate) fn agent(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Waits until it has logged something.
    pub(crate) async fn logged(&self, words: &str) {
        let wait = async {
            while !self.log().contains(words) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(
            waited.is_ok(),
            "`{words}` is not in the log: {}",
            self.log()
        );
    }

    pub(crate) async fn say(&mut self, text: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(text.as_bytes()).await.unwrap();
        input.write_all(b"\n").await.unwrap();
        input.flush().await.unwrap();
    }

    /// The one line that a loopback forwarder prints.
    pub(crate) async fn printed(&mut self) -> String {
        self.line().await
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await;
        let line = line
            .unwrap_or_else(|_| panic!("no line: {}", self.log()))
            .unwrap();
        line.unwrap_or_else(|| panic!("it ended: {}", self.log()))
    }

    pub(crate) async fn hear(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    /// Ends the input: what is still said, and the exit code.
    pub(crate) async fn finish(mut self) -> (Vec<String>, Option<i32>) {
        drop(self.input.take());
        let mut rest = Vec::new();
        let reading = async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                rest.push(line);
            }
            self.child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(PATIENCE, reading).await.unwrap();
        (rest, status.code())
    }
}

/// Runs a command to its end: exit code, output and errors.
pub(crate) async fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut child = command(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    let (mut from_out, mut from_err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let all = async {
        from_out.read_to_string(&mut out).await.unwrap();
        from_err.read_to_string(&mut err).await.unwrap();
        child.wait().await.unwrap()
    };
    let status = tokio::time::timeout(PATIENCE, all).await.unwrap();
    (status.code(), out, err)
}

/// An HTTP answer.
pub(crate) struct Heard {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
}

impl Heard {
    /// The whole body; none when it was cut.
    pub(crate) async fn text(self) -> Option<String> {
        let body = tokio::time::timeout(PATIENCE, self.body.collect())
            .await
            .unwrap();
        Some(String::from_utf8(body.ok()?.to_bytes().to_vec()).unwrap())
    }
}

/// Calls an `http://` URL; a field given here replaces the usual one.
pub(crate) async fn call(method: &str, url: &str, fields: &[(&str, &str)], body: &str) -> Heard {
    let rest = url.strip_prefix("http://").unwrap();
    let (authority, path) = rest.split_at(rest.find('/').unwrap());
    let stream = TcpStream::connect(authority).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path);
    let headers = request.headers_mut().unwrap();
    headers.insert("host", authority.parse().unwrap());
    headers.insert("content-type", "application/json".parse().unwrap());
    for (name, value) in fields {
        let name: http::HeaderName = name.parse().unwrap();
        headers.insert(name, value.parse().unwrap());
    }
    let request = request
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    let response = tokio::time::timeout(PATIENCE, sender.send_request(request));
    let (head, body) = response.await.unwrap().unwrap().into_parts();
    Heard {
        status: head.status,
        headers: head.headers,
        body,
    }
}
