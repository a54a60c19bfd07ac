use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::CommandLine;
use crate::stdio::StdioLimits;

/// A request as a server sees it.
struct Seen {
    head: String,
    body: Value,
}

impl Seen {
    fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        let value = lines.find_map(|line| line.strip_prefix(&format!("{name}: ")))?;
        Some(value)
    }
}

/// Serves whatever `answer` says, one connection a request.
async fn serve(answer: impl Fn(&Seen) -> String + Send + 'static) -> McpClient {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            let seen = loop {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).await.unwrap();
                bytes.extend_from_slice(&piece[..read]);
                let text = String::from_utf8(bytes.clone()).unwrap();
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                let head = head.to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1);
                let length = length.map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
                if body.len() == length {
                    let body = serde_json::from_str(body).unwrap_or(Value::Null);
                    break Seen { head, body };
                }
            };
            stream.write_all(answer(&seen).as_bytes()).await.unwrap();
        }
    });
    let endpoint = HttpEndpoint {
        connect: connect_plainly(address.ip().to_string(), address.port()),
        authority: address.to_string(),
        path: "/mcp".to_owned(),
        headers: Box::new(|| Ok(::http::HeaderMap::new())),
    };
    let limits = ClientLimits {
        timeout: Duration::from_secs(5),
        ..ClientLimits::default()
    };
    McpClient::http(endpoint, limits)
}

fn http(status: &str, kind: &str, more: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n{more}\r\n{body}",
        body.len()
    )
}

fn result(result: &str) -> String {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
    http("200 OK", "application/json", "", &body)
}

fn error(status: &str, code: i64, data: &str) -> String {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"no","data":{data}}}}}"#
    );
    http(status, "application/json", "", &body)
}

const DISCOVERED: &str = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true},"prompts":{}},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"pay","version":"1.2"}}}"#;
const REFUND: &str = r#"{"name" : "refund",  "inputSchema":{"type":"object"}, "x":1.50}"#;

#[tokio::test]
async fn pages_are_followed_and_definitions_stay_as_they_were_written() {
    let client = serve(|seen| {
        assert_eq!(seen.header("mcp-protocol-version"), Some("2026-07-28"));
        assert_eq!(seen.header("mcp-method"), Some(seen.method()));
        let meta = &seen.body["params"]["_meta"];
        assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
        assert!(meta["io.modelcontextprotocol/clientCapabilities"].is_object());
        match (seen.method(), seen.body["params"]["cursor"].as_str()) {
            ("server/discover", _) => result(DISCOVERED),
            ("tools/list", None) => result(&format!(r#"{{"tools":[{REFUND}],"nextCursor":""}}"#)),
            ("tools/list", Some("")) => {
                let body = "event: message\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\r\n\r\n\
                            : still here\r\n\r\nid: 7\r\ndata:\r\n\r\n\
                            data: {\"jsonrpc\":\"2.0\",\"id\":1,\ndata: \"result\":{\"tools\":[{\"name\":\"pay\"}]}}\n\n";
                http("200 OK", "text/event-stream", "", body)
            }
            other => panic!("{other:?}"),
        }
    })
    .await;
    let tools = client.list_tools().await.unwrap();
    assert_eq!(tools[0].definition, REFUND);
    assert_eq!(tools[1].name, "pay");
    assert_eq!(tools.len(), 2);
    let server = client.server().await.unwrap();
    assert_eq!(server.name.as_deref(), Some("pay"));
    assert_eq!(server.revision, "2026-07-28");
    let offered: Vec<&str> = server.capabilities.iter().map(String::as_str).collect();
    assert_eq!(offered, ["prompts", "tools", "tools.listChanged"]);
}

#[tokio::test]
async fn an_older_server_is_spoken_to_as_it_speaks_and_a_lost_session_is_renewed() {
    let sessions = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let given = Arc::clone(&sessions);
    let client = serve(move |seen| {
        let current = given.load(std::sync::atomic::Ordering::Relaxed);
        match seen.method() {
            "server/discover" => http("400 Bad Request", "text/plain", "", "no session"),
            "initialize" => {
                assert_eq!(seen.body["params"]["protocolVersion"], "2025-11-25");
                let id = given.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                let body = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"old","version":"0"}}}"#;
                let session = format!("Mcp-Session-Id: s{id}\r\n");
                http("200 OK", "application/json", &session, body)
            }
            "notifications/initialized" => http("202 Accepted", "text/plain", "", ""),
            "tools/list" => {
                assert_eq!(seen.header("mcp-protocol-version"), Some("2025-06-18"));
                // The first session lives for one list.
                let wanted = format!("s{current}");
                if seen.header("mcp-session-id") != Some(wanted.as_str()) {
                    return error("404 Not Found", -32001, "null");
                }
                assert!(seen.body["params"].get("_meta").is_none());
                result(r#"{"tools":[{"name":"a"}]}"#)
            }
            other => panic!("{other}"),
        }
    })
    .await;
    assert_eq!(client.list_tools().await.unwrap().len(), 1);
    sessions.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(client.list_tools().await.unwrap().len(), 1);
    assert_eq!(client.server().await.unwrap().revision, "2025-06-18");
    assert_eq!(sessions.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_newer_server_is_not_taken_for_an_old_one() {
    for (answer, says) in [
        (
            error(
                "400 Bad Request",
                -32022,
                r#"{"supported":["2027-01-01"],"requested":"2026-07-28"}"#,
            ),
            "2027-01-01",
        ),
        (error("400 Bad Request", -32020, "null"), "-32020"),
        (http("503 Service Unavailable", "text/plain", "", ""), "503"),
        (
            http(
                "301 Moved Permanently",
                "text/plain",
                "location: /x\r\n",
                "",
            ),
            "301",
        ),
    ] {
        let client = serve(move |seen| {
            assert_eq!(seen.method(), "server/discover");
            answer.clone()
        })
        .await;
        let refused = client.list_tools().await.unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
}

#[tokio::test]
async fn a_list_that_may_be_read_in_two_ways_is_refused() {
    for (list, says) in [
        (
            r#"{"tools":[{"name":"a"},{"name":"a"}]}"#,
            "`a` is listed twice",
        ),
        (
            r#"{"tools":[{"name":"a","name":"b"}]}"#,
            "`name` appears twice",
        ),
        (r#"{"tools":[{"title":"a"}]}"#, "name"),
        (r#"{"tools":[["a"]]}"#, "no object"),
        (r#"{"tools":{}}"#, "sequence"),
        (r#"{}"#, "tools"),
        (r#"{"tools":[],"nextCursor":7}"#, "string"),
        (
            r#"{"tools":[],"resultType":"input_required"}"#,
            "not complete",
        ),
        (r#"{"tools":[],"nextCursor":"again"}"#, "leads to itself"),
    ] {
        let client = serve(move |seen| match seen.method() {
            "server/discover" => result(DISCOVERED),
            _ => result(list),
        })
        .await;
        let refused = client.list_tools().await.unwrap_err();
        assert!(matches!(refused, ClientError::Unreadable(_)), "{refused}");
        assert!(refused.to_string().contains(says), "{refused}");
    }
}

#[tokio::test]
async fn what_a_server_wrote_moves_no_cursor_and_has_an_end() {
    const HOSTILE: &str = r"x\r\u001b[2K\u001b]0;owned\u0007\u009b\u202e wrote catalogue.toml";
    let long = format!("{HOSTILE}{}", "y".repeat(5000));
    let name = format!(r#"{{"name":"{long}"}}"#);
    let revision = format!(r#"{{"protocolVersion":"{long}","capabilities":{{}}}}"#);
    let failed = format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":-5,"message":"{long}"}}}}"#);
    for (discovered, rest) in [
        (
            result(&format!(r#"{{"supportedVersions":["{long}"]}}"#)),
            String::new(),
        ),
        (
            error(
                "400 Bad Request",
                -32022,
                &format!(r#"{{"supported":["{long}"]}}"#),
            ),
            String::new(),
        ),
        (error("200 OK", -32601, "null"), result(&revision)),
        (
            result(DISCOVERED),
            result(&format!(r#"{{"tools":[{name},{name}]}}"#)),
        ),
        (
            result(DISCOVERED),
            result(&format!(r#"{{"tools":"{long}"}}"#)),
        ),
        (
            result(DISCOVERED),
            result(&format!(r#"{{"tools":[],"{long}":1,"{long}":2}}"#)),
        ),
        (
            result(DISCOVERED),
            http("200 OK", "application/json", "", &failed),
        ),
    ] {
        let client = serve(move |seen| match seen.method() {
            "server/discover" => discovered.clone(),
            _ => rest.clone(),
        })
        .await;
        let refused = client.list_tools().await.unwrap_err().to_string();
        let is_bare = |c: char| c.is_control() || c == '\u{202e}';
        assert!(!refused.contains(is_bare), "{refused:?}");
        assert!(refused.len() < 2000 && refused.contains("[2K"), "{refused}");
    }
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let count = std::sync::atomic::AtomicU64::new(0);
    let mut client = serve(move |seen| match seen.method() {
        "server/discover" => result(DISCOVERED),
        _ => {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            result(&format!(
                r#"{{"tools":[{{"name":"t{number}"}}],"nextCursor":"{number}"}}"#
            ))
        }
    })
    .await;
    let whole = client.limits;
    client.limits.pages = 3;
    let refused = client.list_tools().await.unwrap_err();
    assert_eq!(refused, ClientError::TooMuch("3 pages".to_owned()));
    client.limits = ClientLimits { tools: 4, ..whole };
    let refused = client.list_tools().await.unwrap_err();
    assert_eq!(refused, ClientError::TooMuch("4 tools".to_owned()));
    client.limits = ClientLimits { bytes: 50, ..whole };
    let refused = client.list_tools().await.unwrap_err();
    assert_eq!(refused, ClientError::TooMuch("50 bytes".to_owned()));
    client.limits = ClientLimits {
        answer_max: 20,
        ..whole
    };
    let refused = client.list_tools().await.unwrap_err();
    assert_eq!(refused, ClientError::TooMuch("20 bytes at once".to_owned()));
}

fn program(script: &str) -> McpClient {
    let command = CommandLine {
        program: "python3".to_owned(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        environment: BTreeMap::new(),
        secrets: BTreeMap::new(),
        max_processes: 64,
        idle: Duration::from_secs(300),
    };
    let handle = tokio::runtime::Handle::current();
    let processes = Stdio::new("files", command, StdioLimits::default(), handle);
    McpClient::program(processes, ClientLimits::default())
}

#[tokio::test]
async fn a_program_of_the_newest_revision_is_listed() {
    let client = program(
        r#"
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "server/discover":
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    else:
        assert message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
        result = {"tools": [{"name": "read"}]}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"#,
    );
    let tools = client.list_tools().await.unwrap();
    assert_eq!(tools[0].definition, r#"{"name": "read"}"#);
    client.close().await;
}

#[tokio::test]
async fn a_program_that_ends_at_the_unknown_is_asked_in_its_own_way() {
    let client = program(
        r#"
import json, sys
def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
begun = ready = pinged = False
for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method == "initialize":
        begun = True
        say({"id": message["id"], "result": {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "n", "version": "1"}}})
    elif not begun:
        sys.exit(1)
    elif method == "notifications/initialized":
        ready = True
    elif method == "tools/list":
        asked = message["id"]
        say({"id": "q", "method": "ping"})
    elif message.get("id") == "q" and message.get("result") == {} and ready:
        say({"id": asked, "result": {"tools": [{"name": "write"}]}})
"#,
    );
    let tools = client.list_tools().await.unwrap();
    assert_eq!(tools[0].name, "write");
    assert_eq!(client.server().await.unwrap().revision, "2025-11-25");
    client.close().await;
}
