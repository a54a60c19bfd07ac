//! MCP servers that are programs, and what reaches them: nothing for who lost its rights or went away,
//! and nothing before its record is durable.

use std::path::PathBuf;
use std::time::Duration;

use agentca_auditlog::status::StatusEvent;
use agentca_identity::profile::RevocationReason;
use agentca_identity::trust::TrustLevel;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::{Answer, Http1};
use crate::disk::Mode;
use crate::fixture::Fixture;
use crate::pki::{Credential, Wish};

/// Writes what it is told into `told`, and answers with its process id. While there is a file `late` it
/// reads nothing, while there is one `slow` it answers nothing.
const PROGRAM: &str = r#"
import json, os, sys, time
home = sys.argv[1]
def wait(name):
    while os.path.exists(os.path.join(home, name)):
        time.sleep(0.01)
wait("late")
for line in sys.stdin:
    with open(os.path.join(home, "told"), "a") as told:
        told.write(line)
    message = json.loads(line)
    if "id" in message:
        wait("slow")
        contents = [{"uri": "file:///pid", "text": str(os.getpid())}]
        result = {"resultType": "complete", "contents": contents, "ttlMs": 0, "cacheScope": "private"}
        if message["method"] == "initialize":
            info = {"name": "files", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": info}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"#;

/// Far beyond what anything here takes.
const SOON: Duration = Duration::from_secs(20);
/// Long enough for anything that is not held back.
const A_WHILE: Duration = Duration::from_millis(300);

/// A program behind an enforcer, and its directory.
struct Program(TempDir);

impl Program {
    fn new() -> Self {
        let home = TempDir::new().unwrap();
        std::fs::write(home.path().join("server.py"), PROGRAM).unwrap();
        Self(home)
    }

    fn configuration(&self, more: &str) -> String {
        let home = self.0.path().display();
        server(&format!(
            "command = [\"python3\", \"{home}/server.py\", \"{home}\"]\n{more}"
        ))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn holds(&self, what: &str) {
        std::fs::write(self.path(what), "").unwrap();
    }

    fn lets_go(&self, what: &str) {
        std::fs::remove_file(self.path(what)).unwrap();
    }

    /// What makes it start only once `early` is gone. Each time that it is about to, a line of `starting` says so.
    fn starts_late(&self) -> String {
        let home = self.0.path().display();
        let wait = format!(
            "echo >> {home}/starting; while [ -e {home}/early ]; do sleep 0.01; done; echo key"
        );
        format!("env_from = {{ KEY = {{ command = [\"sh\", \"-c\", \"{wait}\"] }} }}")
    }

    fn told(&self) -> String {
        std::fs::read_to_string(self.path("told")).unwrap_or_default()
    }
}

/// An MCP server of which everything is a write.
pub(crate) fn server(place: &str) -> String {
    format!(
        r#"
[[upstream]]
name = "files"
kind = "mcp"
{place}
[[method]]
upstream = "files"
name = "resources/read"
scope = "payments:write"
min_trust = "L2"
risk = "write"
"#
    )
}

const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

fn post(method: &str, named: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /mcp/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: {method}\r\n{named}Content-Length: {length}\r\n\r\n{body}"
    )
}

pub(crate) fn reading(uri: &str) -> String {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"resources/read","params":{{"_meta":{META},"uri":"{uri}"}}}}"#
    );
    post("resources/read", &format!("Mcp-Name: {uri}\r\n"), &body)
}

/// More than a pipe takes.
fn long_notification() -> String {
    let text = "x".repeat(300_000);
    let body = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"_meta":{META},"progressToken":1,"progress":1,"message":"{text}"}}}}"#
    );
    post("notifications/progress", "", &body)
}

async fn read(client: &mut Http1, uri: &str) -> Answer {
    client.send(&reading(uri)).await;
    client.answer("POST").await.unwrap()
}

fn pid(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let message: Value = serde_json::from_slice(&answer.body).unwrap();
    let pid = message["result"]["contents"][0]["text"].as_str();
    pid.unwrap_or_else(|| panic!("{message}")).to_owned()
}

/// Until it is so.
pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    let looked = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, looked).await.expect(what);
}

fn is_alive(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    status.is_ok_and(|status| !status.contains(") Z "))
}

fn revoke_serial(fixture: &mut Fixture, agent: &Credential) {
    fixture.apply(StatusEvent::CertificateRevoked {
        serial: agent.certificate.serial(),
        agent: agent.id(),
        reason: RevocationReason::KeyCompromise,
    });
}

#[tokio::test]
async fn a_program_ends_with_any_certificate_that_reached_it() {
    let program = Program::new();
    let mut fixture = Fixture::with(&program.configuration("")).await;
    for is_open in [false, true] {
        let (first, renewed) = (
            fixture.agent(&Wish::default()),
            fixture.agent(&Wish::default()),
        );
        let mut one = fixture.http1(&first).await;
        let began = pid(&read(&mut one, "file:///a").await);
        let mut other = fixture.http1(&renewed).await;
        let went_on = pid(&read(&mut other, "file:///b").await);
        assert_eq!(began, went_on, "a renewed certificate keeps its program");
        let others = fixture.agent(&Wish {
            name: "other",
            ..Wish::default()
        });
        let mut bystander = fixture.http1(&others).await;
        let stays = pid(&read(&mut bystander, "file:///c").await);
        let connections = is_open.then_some((one, other));
        until("the connections are closed", || {
            fixture.server.connections() == if is_open { 3 } else { 1 }
        })
        .await;
        revoke_serial(&mut fixture, &renewed);
        until("its program is gone", || !is_alive(&began)).await;
        assert_eq!(pid(&read(&mut bystander, "file:///d").await), stays);
        drop((connections, bystander));
        until("the connections are closed", || {
            fixture.server.connections() == 0
        })
        .await;
    }
}

#[tokio::test]
async fn what_waits_for_a_program_is_not_written_once_it_was_given_up() {
    let program = Program::new();
    program.holds("late");
    let mut fixture = Fixture::with(&program.configuration("")).await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    client.send(&long_notification()).await;
    assert_eq!(client.answer("POST").await.unwrap().status, 202);
    let before = fixture.log.durable();
    client.send(&reading("file:///given-up")).await;
    let decided = |record: &Value| record["call"]["method"] == "resources/read";
    fixture.find(before, decided).await;
    drop(client);
    let gone = |record: &Value| record["result"]["ended"] == "client-gone";
    fixture.find(before, gone).await;
    program.lets_go("late");
    let mut client = fixture.http1(&agent).await;
    pid(&read(&mut client, "file:///wanted").await);
    let told = program.told();
    assert!(told.contains("xxxx") && told.contains("file:///wanted"));
    assert!(
        !told.contains("given-up") && !told.contains("cancelled"),
        "{}",
        told.len()
    );
}

#[tokio::test]
async fn what_waits_for_a_program_is_not_written_once_its_agent_was_revoked() {
    let program = Program::new();
    program.holds("late");
    let mut fixture = Fixture::with(&program.configuration("")).await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    for _ in 0..3 {
        client.send(&long_notification()).await;
        assert_eq!(client.answer("POST").await.unwrap().status, 202);
    }
    drop(client);
    until("the connection is closed", || {
        fixture.server.connections() == 0
    })
    .await;
    let programs = fixture.programs();
    assert_eq!(programs()[0].alive, 1);
    fixture.revoke(&agent);
    program.lets_go("late");
    until("its program is gone", || programs()[0].alive == 0).await;
    // What the pipe had taken of the first is no message.
    let told = program.told();
    assert!(
        told.lines()
            .all(|line| serde_json::from_str::<Value>(line).is_err())
    );
    assert_eq!(programs()[0].events[1], ("died", 0), "it was asked to");
}

#[tokio::test]
async fn what_waits_behind_a_slow_call_is_not_written_once_its_agent_was_restricted() {
    let program = Program::new();
    program.holds("slow");
    let mut fixture = Fixture::with(&program.configuration("")).await;
    let agent = fixture.agent(&Wish::default());
    let other = fixture.agent(&Wish {
        name: "other",
        ..Wish::default()
    });
    let mut slow = fixture.http1(&agent).await;
    slow.send(&reading("file:///slow")).await;
    until("the program is at the slow call", || {
        program.told().contains("file:///slow")
    })
    .await;
    // More than its pipe takes while it is busy: what follows waits here.
    let mut client = fixture.http1(&agent).await;
    client.send(&long_notification()).await;
    assert_eq!(client.answer("POST").await.unwrap().status, 202);
    let before = fixture.log.durable();
    client.send(&reading("file:///queued")).await;
    let decided = |record: &Value| record["call"]["method"] == "resources/read";
    fixture.find(before, decided).await;
    let mut bystander = fixture.http1(&other).await;
    bystander.send(&reading("file:///other")).await;
    until("the other's program is at its call", || {
        program.told().contains("file:///other")
    })
    .await;

    let programs = fixture.programs();
    assert_eq!(programs()[0].alive, 2);
    fixture.apply(StatusEvent::AgentRestricted {
        agent: agent.id(),
        trust: Some(TrustLevel::L1),
        scopes: None,
    });
    program.lets_go("slow");
    until("its program is gone", || programs()[0].alive == 1).await;
    client.rest().await;
    let told = program.told();
    assert!(!told.contains("queued"), "{}", told.len());
    assert_eq!(bystander.answer("POST").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_program_whose_call_was_given_up_while_it_started_ends_with_its_agent() {
    let program = Program::new();
    let more = program.starts_late();
    let mut fixture = Fixture::with(&program.configuration(&more)).await;
    // Revoked once it runs, and while it still starts.
    for runs in [true, false] {
        program.holds("early");
        let agent = fixture.agent(&Wish {
            name: if runs { "one" } else { "two" },
            ..Wish::default()
        });
        let before = fixture.log.durable();
        let mut client = fixture.http1(&agent).await;
        client.send(&reading("file:///given-up")).await;
        until("it starts", || program.path("starting").exists()).await;
        drop(client);
        let gone = |record: &Value| record["result"]["ended"] == "client-gone";
        fixture.find(before, gone).await;
        program.lets_go("starting");
        let (programs, started) = (fixture.programs(), fixture.programs());
        let so_far = started()[0].events[0].1;
        if !runs {
            fixture.revoke(&agent);
        }
        program.lets_go("early");
        until("it runs", || started()[0].events[0].1 == so_far + 1).await;
        if runs {
            until("it is counted", || programs()[0].alive == 1).await;
            fixture.revoke(&agent);
        }
        until("it is gone", || programs()[0].alive == 0).await;
    }
    assert_eq!(program.told(), "");
}

#[tokio::test]
async fn calls_given_up_while_a_program_starts_start_no_other() {
    let program = Program::new();
    program.holds("early");
    let more = format!("{}\nmax_processes = 1", program.starts_late());
    let mut fixture = Fixture::with(&program.configuration(&more)).await;
    let agent = fixture.agent(&Wish::default());
    let other = fixture.agent(&Wish {
        name: "other",
        ..Wish::default()
    });
    for (one, uri) in [
        (&agent, "file:///a"),
        (&agent, "file:///b"),
        (&other, "file:///c"),
    ] {
        let before = fixture.log.durable();
        let mut client = fixture.http1(one).await;
        client.send(&reading(uri)).await;
        until("it starts", || program.path("starting").exists()).await;
        nothing_comes(&mut client).await;
        drop(client);
        let gone = |record: &Value| record["result"]["ended"] == "client-gone";
        fixture.find(before, gone).await;
    }
    let starts = || std::fs::read_to_string(program.path("starting")).unwrap();
    assert_eq!(starts(), "\n", "the first start is not over");
    program.lets_go("early");
    let mut client = fixture.http1(&agent).await;
    let began = pid(&read(&mut client, "file:///d").await);
    assert_eq!(
        starts(),
        "\n",
        "it was started for the call that was given up"
    );
    assert_eq!(fixture.programs()()[0].events[0], ("started", 1));
    assert!(!program.told().contains("file:///a"));
    // Nothing of it is left that nobody knows of.
    let ended = tokio::time::timeout(SOON, fixture.end_programs()).await;
    ended.expect("all programs end");
    assert!(!is_alive(&began));
}

#[tokio::test]
async fn a_program_has_secrets_from_elsewhere_and_starts_with_none_missing() {
    let program = Program::new();
    let key = program.path("api.key");
    let more = format!("env_from = {{ KEY = \"file:{}\" }}", key.display());
    let shown = PROGRAM.replace("str(os.getpid())", "os.environ[\"KEY\"]");
    std::fs::write(program.path("server.py"), shown).unwrap();
    let mut fixture = Fixture::with(&program.configuration(&more)).await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    assert_eq!(read(&mut client, "file:///a").await.status, 502);
    std::fs::write(&key, "open sesame\n").unwrap();
    let answer = read(&mut client, "file:///a").await;
    assert_eq!(pid(&answer), "open sesame");
}

/// Whether nothing of an answer comes for a while.
async fn nothing_comes(client: &mut Http1) {
    let early = tokio::time::timeout(A_WHILE, client.head()).await;
    assert!(early.is_err(), "{early:?}");
}

#[tokio::test]
async fn nothing_reaches_a_program_and_nothing_leaves_before_it_is_recorded() {
    let program = Program::new();
    program.holds("slow");
    let mut fixture = Fixture::with(&program.configuration("")).await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    fixture.disk.set(Mode::Held);
    client.send(&reading("file:///a")).await;
    nothing_comes(&mut client).await;
    assert_eq!(program.told(), "", "a write is recorded first");
    fixture.disk.set(Mode::Sound);
    until("the program was told", || {
        program.told().contains("file:///a")
    })
    .await;
    fixture.disk.set(Mode::Held);
    program.lets_go("slow");
    nothing_comes(&mut client).await;
    fixture.disk.set(Mode::Sound);
    assert_eq!(client.answer("POST").await.unwrap().status, 200);
    fixture.disk.set(Mode::Full);
    client.send(&reading("file:///b")).await;
    assert_eq!(client.rest().await, b"");
    assert!(!program.told().contains("file:///b"));
    fixture.disk.set(Mode::Sound);
}

#[tokio::test]
async fn nothing_reaches_a_server_and_nothing_leaves_before_it_is_recorded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("url = \"http://{}/mcp\"", listener.local_addr().unwrap());
    let mut fixture = Fixture::with(&server(&url)).await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    fixture.disk.set(Mode::Held);
    client.send(&reading("file:///a")).await;
    let early = tokio::time::timeout(A_WHILE, listener.accept()).await;
    assert!(early.is_err(), "a write is recorded first");
    fixture.disk.set(Mode::Sound);
    let (mut upstream, _) = listener.accept().await.unwrap();
    let mut received = Vec::new();
    while !String::from_utf8_lossy(&received).ends_with("}}") {
        assert!(upstream.read_buf(&mut received).await.unwrap() > 0);
    }
    fixture.disk.set(Mode::Held);
    let body = r#"{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","contents":[],"ttlMs":0,"cacheScope":"private"}}"#;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    upstream.write_all(answer.as_bytes()).await.unwrap();
    nothing_comes(&mut client).await;
    fixture.disk.set(Mode::Sound);
    assert_eq!(client.answer("POST").await.unwrap().status, 200);
    fixture.disk.set(Mode::Full);
    client.send(&reading("file:///b")).await;
    assert_eq!(client.rest().await, b"");
    let early = tokio::time::timeout(A_WHILE, upstream.read_u8()).await;
    assert!(
        !matches!(early, Ok(Ok(_))),
        "nothing of a call that has no record"
    );
    fixture.disk.set(Mode::Sound);
}

#[tokio::test]
async fn who_only_listens_sees_that_the_stream_lives() {
    let program = Program::new();
    let limits = "limits = { keep_alive = \"100ms\" }";
    let mut fixture = Fixture::with(&format!("{limits}{}", program.configuration(""))).await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    let begin = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
    let head = "HTTP/1.1\r\nHost: localhost\r\nAccept: application/json, text/event-stream\r\n";
    let length = begin.len();
    let message = "Content-Type: application/json\r\nContent-Length";
    client
        .send(&format!(
            "POST /mcp/files {head}{message}: {length}\r\n\r\n{begin}"
        ))
        .await;
    let begun = client.answer("POST").await.unwrap();
    let session = begun
        .header("mcp-session-id")
        .expect("a session")
        .to_owned();
    let session = format!("MCP-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: {session}\r\n\r\n");
    let before = fixture.log.durable();
    client
        .send(&format!("GET /mcp/files {head}{session}"))
        .await;
    assert_eq!(client.head().await.unwrap().0, 200);
    let mut length = 0;
    for _ in 0..3 {
        let chunk = client.chunk().await.unwrap().expect("it goes on");
        assert_eq!(chunk, b":\n\n");
        length += chunk.len();
    }
    let mut other = fixture.http1(&agent).await;
    other
        .send(&format!("DELETE /mcp/files {head}{session}"))
        .await;
    assert_eq!(other.answer("DELETE").await.unwrap().status, 200);
    while let Ok(Some(chunk)) = client.chunk().await {
        length += chunk.len();
    }
    let ended = |record: &Value| record["kind"] == "outcome";
    let outcome = fixture.find(before, ended).await;
    assert_eq!(outcome["result"]["length"], length, "{outcome}");
}
