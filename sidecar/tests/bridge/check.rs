//! `check`: what it says of an endpoint.

use serde_json::{Value, json};

use crate::fake::{Fake, Reply, Seen};
use crate::program::{folder_of, run};

/// A server of these kinds of revision, with this many tools.
fn server(stateless: bool, sessions: bool, tools: usize) -> impl Fn(&Seen) -> Reply {
    move |seen| {
        let message = seen.json();
        let is_stateless = message["params"]["_meta"].is_object();
        let names = (0..tools).map(|n| json!({ "name": format!("tool_{n}\u{7}") }));
        let result = match message["method"].as_str() {
            Some("server/discover") if stateless => json!({ "supportedVersions": ["2026-07-28"] }),
            Some("initialize") if sessions => json!({ "protocolVersion": "2025-06-18" }),
            Some("tools/list") if message["params"]["cursor"] == "2" => {
                json!({ "tools": [{ "name": "last" }] })
            }
            Some("tools/list") if is_stateless == stateless => {
                json!({ "tools": names.collect::<Vec<_>>(), "nextCursor": "2" })
            }
            None | Some("notifications/initialized") => return Reply::empty(202),
            _ => {
                let error = json!({ "code": -32601, "message": "no such method" });
                let said = json!({ "jsonrpc": "2.0", "id": message["id"], "error": error });
                return Reply::json(said.to_string());
            }
        };
        let said = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
        Reply::json(said.to_string()).with("mcp-session-id", "s1")
    }
}

async fn check(fake: &Fake, more: &[&str]) -> (Option<i32>, String, String) {
    let folder = folder_of(fake);
    let url = fake.url();
    let words = [&["check", &url, "--credentials", "agent"], more].concat();
    run(folder.path(), &words).await
}

#[tokio::test]
async fn the_revisions_and_the_tools_are_said() {
    let fake = Fake::start(server(true, true, 2)).await;
    let (code, said, wrong) = check(&fake, &[]).await;
    assert_eq!(code, Some(0), "{said}{wrong}");
    for line in [
        "endpoint     answers MCP 2026-07-28, 2025-06-18\n",
        "tools        3: tool_0\u{fffd}, tool_1\u{fffd}, last\n",
        "all is well\n",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let (code, said, wrong) = check(&fake, &["--json"]).await;
    assert_eq!(code, Some(0), "{wrong}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["revisions"], json!(["2026-07-28", "2025-06-18"]));
    assert_eq!(said["tools"][2], "last");
    assert_eq!(said["all_tools"], true);
}

#[tokio::test]
async fn a_server_with_sessions_alone_is_asked_in_one_which_is_ended() {
    let fake = Fake::start(server(false, true, 100)).await;
    let (code, said, wrong) = check(&fake, &[]).await;
    assert_eq!(code, Some(0), "{said}{wrong}");
    assert!(said.contains("answers MCP 2025-06-18\n"), "{said}");
    assert!(said.contains("tools        101: tool_0"), "{said}");
    assert!(said.contains("tool_19\u{fffd}, …\n"), "{said}");
    let mut asked = Vec::new();
    for _ in 0..6 {
        let seen = fake.seen().await;
        let method = seen.json()["method"].as_str().map(str::to_owned);
        asked.push(method.unwrap_or_else(|| seen.method.to_string()));
        let is_within =
            !["server/discover", "initialize"].contains(&asked.last().unwrap().as_str());
        assert_eq!(
            seen.field("mcp-session-id").is_some(),
            is_within,
            "{asked:?}"
        );
    }
    assert_eq!(
        asked,
        [
            "server/discover",
            "initialize",
            "notifications/initialized",
            "tools/list",
            "tools/list",
            "DELETE"
        ]
    );
}

#[tokio::test]
async fn an_endpoint_that_speaks_nothing_of_it_is_no_endpoint() {
    let fake = Fake::start(server(false, false, 0)).await;
    let (code, _, wrong) = check(&fake, &[]).await;
    assert_eq!(code, Some(1), "{wrong}");
    assert!(
        wrong.contains("answers neither 2026-07-28 nor 2025-11-25"),
        "{wrong}"
    );
    let fake = Fake::start(|_| Reply::empty(404)).await;
    let (code, _, wrong) = check(&fake, &[]).await;
    assert_eq!(code, Some(1), "{wrong}");
    assert!(wrong.contains("404 Not Found and no MCP"), "{wrong}");
}

#[tokio::test]
async fn what_mends_a_denial_depends_on_where_it_was() {
    let denied = |_: &Seen| {
        let problem =
            json!({ "title": "Denied", "rule": "not-in-catalogue", "detail": "nothing is here" });
        let mut reply = Reply::json(problem.to_string());
        reply.status = 403;
        reply
    };
    let fake = Fake::start(denied).await;
    let (code, _, wrong) = check(&fake, &[]).await;
    assert_eq!(code, Some(1), "{wrong}");
    assert!(wrong.contains("`kind = \"mcp\"` of this name"), "{wrong}");
    let folder = folder_of(&fake);
    let shared = fake.url().replace("/mcp/payments", "/mcp");
    let (code, _, wrong) = run(folder.path(), &["check", &shared, "--credentials", "agent"]).await;
    assert_eq!(code, Some(1), "{wrong}");
    assert!(wrong.contains("`shared = true`"), "{wrong}");
}

/// What no terminal should be shown.
const HOSTILE: &str = "x\r\u{1b}[2K\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}all is well";

fn is_bare(c: char) -> bool {
    (c.is_control() && c != '\n') || c == '\u{202e}'
}

/// A server that answers everything with an error.
async fn fails(error: Value) -> String {
    let fake = Fake::start(move |seen| {
        let id = &seen.json()["id"];
        Reply::json(json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string())
    })
    .await;
    let (code, said, wrong) = check(&fake, &[]).await;
    assert_eq!(code, Some(1), "{said}{wrong}");
    wrong
}

#[tokio::test]
async fn what_a_server_says_moves_no_cursor_and_has_an_end() {
    let long = format!("{HOSTILE}{}", "y".repeat(9000));
    for error in [
        json!({ "code": -5, "message": long }),
        json!({ "code": -5, "message": "", "data": { "rule": long, "detail": long } }),
        json!({ "code": -5, "message": "", "data": { "title": long } }),
    ] {
        let wrong = fails(error).await;
        assert!(!wrong.contains(is_bare), "{wrong:?}");
        assert!(wrong.len() < 1000 && wrong.contains("[2K"), "{wrong}");
    }
    let settle = move |seen: &Seen| {
        let message = seen.json();
        let result = match message["method"].as_str() {
            Some("initialize") => json!({ "protocolVersion": long }),
            Some("tools/list") => json!({ "tools": [] }),
            _ => return Reply::empty(202),
        };
        Reply::json(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }).to_string())
    };
    let fake = Fake::start(settle).await;
    let (_, said, wrong) = check(&fake, &[]).await;
    assert!(said.contains("answers MCP x\u{fffd}"), "{said}{wrong}");
    assert!(!said.contains(is_bare) && said.len() < 1000, "{said:?}");
}

#[tokio::test]
async fn no_server_talks_anybody_into_giving_an_agent_more() {
    for rule in [
        "revoked",
        "expired",
        "scope",
        "trust",
        "environment",
        "restricted",
    ] {
        let data =
            json!({ "type": format!("urn:agentca:denied:{rule}"), "rule": rule, "detail": "d" });
        let wrong = fails(json!({ "code": -31403, "message": "No", "data": data })).await;
        let says = format!("the answer says: denied by the rule `{rule}`: d");
        assert!(wrong.contains(&says), "{wrong}");
        assert!(
            wrong.contains("the server behind it may have said so"),
            "{wrong}"
        );
        for advice in ["reinstate", "grant", "agentca issue", "--env", "--trust"] {
            assert!(!wrong.contains(advice), "{wrong}");
        }
    }
}
