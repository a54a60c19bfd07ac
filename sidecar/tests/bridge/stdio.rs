//! A client over standard input and output.

use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::fake::{Content, Fake, PATIENCE, Reply, Seen};
use crate::program::Program;

fn modern(id: u32, method: &str, params: &Value) -> String {
    let mut params = params.clone();
    params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

fn plain(id: u32, method: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method}).to_string()
}

fn echo(seen: &Seen) -> Reply {
    let message = seen.json();
    let result =
        json!({"jsonrpc": "2.0", "id": message["id"], "result": {"method": message["method"]}});
    Reply::json(result.to_string())
}

#[tokio::test]
async fn a_message_of_2026_07_28_is_posted_with_its_mirrored_fields() {
    let tools = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "pay", "inputSchema": {
        "type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}}]}});
    let fake = Fake::start(move |seen| match seen.json()["method"] == "tools/list" {
        true => Reply::json(format!("{tools:#}")),
        false => echo(seen),
    })
    .await;
    let mut bridge = Program::stdio(&fake, &[]).await;
    bridge.say(&modern(1, "tools/list", &json!({}))).await;
    // Pretty-printed there, one line here.
    assert_eq!(bridge.hear().await["result"]["tools"][0]["name"], "pay");
    let listed = fake.seen().await;
    assert_eq!(listed.field("mcp-method"), Some("tools/list"));
    assert_eq!(listed.field("mcp-name"), None);
    let params = json!({"name": "pay", "arguments": {"region": "zürich"}});
    let said = modern(2, "tools/call", &params);
    bridge.say(&said).await;
    assert_eq!(bridge.hear().await["id"], 2);
    let called = fake.seen().await;
    assert_eq!(
        called.body, said,
        "what is forwarded is what was said, byte for byte"
    );
    for (name, value) in [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "pay"),
        ("mcp-param-region", "=?base64?esO8cmljaA==?="),
        ("accept", "application/json, text/event-stream"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(called.field(name), Some(value), "{name}");
    }
    assert_eq!(called.field("mcp-session-id"), None);
    let (rest, code) = bridge.finish().await;
    assert_eq!((rest, code), (Vec::new(), Some(0)));
}

#[tokio::test]
async fn many_requests_run_at_once_and_each_gets_its_own_answer() {
    let (first, held) = mpsc::unbounded_channel::<String>();
    let held = Mutex::new(Some(held));
    let fake = Fake::start(move |seen| match seen.json()["id"] == 1 {
        true => Reply::stream(Content::Live(held.lock().unwrap().take().unwrap())),
        false => echo(seen),
    })
    .await;
    let mut bridge = Program::stdio(&fake, &[]).await;
    bridge
        .say(&modern(1, "tools/call", &json!({"name": "slow"})))
        .await;
    for id in 2..40 {
        bridge
            .say(&modern(id, "tools/call", &json!({"name": "fast"})))
            .await;
    }
    let mut ids: Vec<u64> = Vec::new();
    for _ in 2..40 {
        ids.push(bridge.hear().await["id"].as_u64().unwrap());
    }
    ids.sort_unstable();
    assert_eq!(ids, (2..40).collect::<Vec<_>>());
    first
        .send(json!({"jsonrpc": "2.0", "id": 1, "result": {}}).to_string())
        .unwrap();
    assert_eq!(bridge.hear().await["id"], 1);
}

#[tokio::test]
async fn an_id_is_not_taken_twice_before_its_answer() {
    let (sender, held) = mpsc::unbounded_channel::<String>();
    let held = Mutex::new(Some(held));
    let fake = Fake::start(move |seen| match seen.json()["params"]["name"] == "slow" {
        true => Reply::stream(Content::Live(held.lock().unwrap().take().unwrap())),
        false => echo(seen),
    })
    .await;
    let mut bridge = Program::stdio(&fake, &[]).await;
    let named = |name: &str| modern(1, "tools/call", &json!({"name": name}));
    bridge.say(&named("slow")).await;
    bridge.say(&named("second")).await;
    let refused = bridge.hear().await;
    assert_eq!(
        refused.get("id"),
        None,
        "the answer to the first is to come"
    );
    assert_eq!(refused["error"]["code"], -32600, "{refused}");
    let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {"first": true}});
    sender.send(answer.to_string()).unwrap();
    assert_eq!(bridge.hear().await, answer);
    drop(sender);
    // Answered, it is free again.
    bridge.say(&named("third")).await;
    assert_eq!(bridge.hear().await["id"], 1);
    for expected in ["slow", "third"] {
        assert_eq!(fake.seen().await.json()["params"]["name"], expected);
    }
}

#[tokio::test]
async fn a_cancellation_closes_the_stream_of_a_request_that_stands_alone() {
    let (sender, held) = mpsc::unbounded_channel::<String>();
    let held = Mutex::new(Some(held));
    let fake = Fake::start(move |seen| match seen.json()["id"] == "slow" {
        true => Reply::stream(Content::Live(held.lock().unwrap().take().unwrap())),
        false => echo(seen),
    })
    .await;
    let mut bridge = Program::stdio(&fake, &[]).await;
    bridge
        .say(&modern(0, "tools/call", &json!({"name": "x"})).replace("\"id\":0", "\"id\":\"slow\""))
        .await;
    sender
        .send(json!({"jsonrpc": "2.0", "method": "notifications/progress"}).to_string())
        .unwrap();
    assert_eq!(bridge.hear().await["method"], "notifications/progress");
    // The same id in another spelling.
    bridge
        .say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"s\u006cow"}}"#)
        .await;
    tokio::time::timeout(PATIENCE, sender.closed())
        .await
        .unwrap();
    bridge
        .say(&modern(2, "tools/call", &json!({"name": "y"})))
        .await;
    assert_eq!(
        bridge.hear().await["id"],
        2,
        "nothing more is said for a cancelled request"
    );
    fake.seen().await;
    assert_eq!(
        fake.seen().await.json()["id"],
        2,
        "the cancellation itself is not posted"
    );
}

/// A server of the session revisions whose sessions are called `s1`, `s2` and so on, and of which only
/// those that `lives` names are known.
fn session(lives: fn(&str, usize) -> bool) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let begun = Mutex::new(0_usize);
    move |seen| {
        let message = seen.json();
        let mut begun = begun.lock().unwrap();
        if message["method"] == "initialize" {
            *begun += 1;
            let result = json!({"protocolVersion": "2025-11-25", "capabilities": {}});
            let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
            return Reply::json(answer.to_string()).with("mcp-session-id", &format!("s{begun}"));
        }
        let id = seen.field("mcp-session-id").unwrap_or_default();
        if !lives(id, *begun) {
            let problem =
                json!({"type": "urn:agentca:denied:session", "rule": "session", "detail": "gone"});
            return Reply {
                status: 404,
                ..Reply::json(problem.to_string())
            };
        }
        match (seen.method.as_str(), message.get("id").is_some()) {
            ("POST", true) => echo(seen),
            ("POST", false) => Reply::empty(202),
            ("GET", _) => Reply::empty(405),
            _ => Reply::empty(204),
        }
    }
}

#[tokio::test]
async fn a_session_is_kept_and_ended() {
    let fake = Fake::start(session(|_, _| true)).await;
    let mut bridge = Program::stdio(&fake, &[]).await;
    bridge.say(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#).await;
    // Said without waiting: it must not overtake the beginning.
    bridge
        .say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
        .await;
    bridge.say(&plain(1, "tools/list")).await;
    assert_eq!(
        bridge.hear().await["result"]["protocolVersion"],
        "2025-11-25"
    );
    assert_eq!(bridge.hear().await["result"]["method"], "tools/list");
    let opening = fake.seen().await;
    assert_eq!(
        (
            opening.field("mcp-session-id"),
            opening.field("mcp-protocol-version")
        ),
        (None, None)
    );
    let ready = fake.seen().await;
    assert_eq!(ready.json()["method"], "notifications/initialized");
    assert_eq!(ready.field("mcp-session-id"), Some("s1"));
    assert_eq!(ready.field("mcp-protocol-version"), Some("2025-11-25"));
    let mut others = [fake.seen().await, fake.seen().await].map(|seen| seen.method.to_string());
    others.sort();
    assert_eq!(
        others,
        ["GET", "POST"],
        "the list, and the session's own stream"
    );
    // A notification of the client's, and an answer to what the server asked.
    bridge
        .say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":99}}"#)
        .await;
    assert_eq!(
        fake.seen().await.json()["method"],
        "notifications/cancelled"
    );
    bridge.say(r#"{"jsonrpc":"2.0","id":5,"result":{}}"#).await;
    assert_eq!(fake.seen().await.json()["result"], json!({}));
    let (rest, code) = bridge.finish().await;
    assert_eq!((rest, code), (Vec::new(), Some(0)));
    let ended = fake.seen().await;
    assert_eq!(
        (ended.method.as_str(), ended.field("mcp-session-id")),
        ("DELETE", Some("s1"))
    );
}

#[tokio::test]
async fn a_session_that_is_over_begins_again_unseen_by_the_client() {
    // The first session dies as soon as it was opened.
    let fake = Fake::start(session(|id, _| id != "s1")).await;
    let mut bridge = Program::stdio(&fake, &[]).await;
    bridge.say(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#).await;
    assert_eq!(bridge.hear().await["id"], 0);
    bridge.say(&plain(1, "tools/list")).await;
    assert_eq!(bridge.hear().await["result"]["method"], "tools/list");
    bridge.say(&plain(2, "tools/list")).await;
    assert_eq!(bridge.hear().await["id"], 2);
    let mut asked = Vec::new();
    for _ in 0..5 {
        let seen = fake.seen().await;
        let id = seen.field("mcp-session-id").unwrap_or("-").to_owned();
        asked.push((seen.json()["method"].as_str().unwrap().to_owned(), id));
    }
    let expected = [
        ("initialize", "-"),
        ("tools/list", "s1"),
        ("initialize", "-"),
        ("tools/list", "s2"),
        ("tools/list", "s2"),
    ];
    assert_eq!(
        asked,
        expected.map(|(method, id)| (method.to_owned(), id.to_owned()))
    );
}

#[tokio::test]
async fn a_session_that_can_not_begin_again_is_an_error_with_its_rule() {
    let fake = Fake::start(session(|_, _| false)).await;
    let mut bridge = Program::stdio(&fake, &[]).await;
    bridge
        .say(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#)
        .await;
    bridge.hear().await;
    bridge.say(&plain(1, "tools/list")).await;
    let heard = bridge.hear().await;
    assert_eq!(heard["error"]["code"], -31_404, "{heard}");
    assert_eq!(heard["error"]["data"]["rule"], "session", "{heard}");
}

#[tokio::test]
async fn a_stream_of_a_session_that_breaks_off_is_taken_up_after_its_last_event() {
    let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {"at": "last"}}).to_string();
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress"}).to_string();
    let begin = session(|_, _| true);
    let fake = Fake::start(
        move |seen| match (seen.method.as_str(), seen.json()["id"] == 1) {
            ("POST", true) => {
                // As 2025-11-25 says: an id and no data first; then it ends without the answer.
                let events = vec![
                    ("id: e0\nretry: 1\n", String::new()),
                    ("id: e1\n", progress.clone()),
                ];
                Reply::stream(Content::Events(events))
            }
            ("GET", _) if seen.field("last-event-id") == Some("e1") => {
                Reply::events(std::slice::from_ref(&answer))
            }
            _ => begin(seen),
        },
    )
    .await;
    let mut bridge = Program::stdio(&fake, &[]).await;
    bridge
        .say(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#)
        .await;
    bridge.hear().await;
    bridge.say(&plain(1, "tools/call")).await;
    assert_eq!(bridge.hear().await["method"], "notifications/progress");
    assert_eq!(bridge.hear().await["result"]["at"], "last");
}

#[tokio::test]
async fn what_the_server_says_by_itself_is_heard() {
    let (sender, held) = mpsc::unbounded_channel::<String>();
    let held = Mutex::new(Some(held));
    let begin = session(|_, _| true);
    let fake = Fake::start(move |seen| match seen.method.as_str() {
        "GET" => match held.lock().unwrap().take() {
            Some(held) => Reply::stream(Content::Live(held)),
            None => Reply::empty(405),
        },
        _ => begin(seen),
    })
    .await;
    let mut bridge = Program::stdio(&fake, &[]).await;
    bridge
        .say(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#)
        .await;
    bridge.hear().await;
    bridge
        .say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
        .await;
    let said = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    sender.send(said).unwrap();
    assert_eq!(bridge.hear().await["method"], "ping");
    let (_, code) = bridge.finish().await;
    assert_eq!(code, Some(0));
    tokio::time::timeout(PATIENCE, sender.closed())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_denial_is_an_error_that_says_rule_and_detail() {
    let fake = Fake::start(|_| {
        let problem = json!({"type": "urn:agentca:denied:scope", "title": "t", "status": 403,
            "rule": "scope", "detail": "needs `mcp:payments:refund`"});
        Reply {
            status: 403,
            ..Reply::json(problem.to_string())
        }
        .with("content-language", "en")
    })
    .await;
    let mut bridge = Program::stdio(&fake, &[]).await;
    bridge
        .say(&modern(3, "tools/call", &json!({"name": "refund"})))
        .await;
    let heard = bridge.hear().await;
    assert_eq!(
        (&heard["id"], &heard["error"]["code"]),
        (&json!(3), &json!(-31_403))
    );
    assert_eq!(
        heard["error"]["message"],
        "denied by the rule `scope`: needs `mcp:payments:refund`"
    );
}

#[tokio::test]
async fn what_is_no_message_or_too_long_is_answered_and_the_rest_goes_on() {
    let fake = Fake::start(echo).await;
    let mut bridge = Program::stdio(&fake, &["--max-message", "1000"]).await;
    bridge.say("nonsense").await;
    assert_eq!(bridge.hear().await["error"]["code"], -32_700);
    bridge.say("[]").await;
    assert_eq!(bridge.hear().await["error"]["code"], -32_600);
    bridge.say(&"x".repeat(5000)).await;
    assert_eq!(bridge.hear().await["error"]["code"], -32_600);
    bridge.say(&modern(1, "tools/list", &json!({}))).await;
    assert_eq!(bridge.hear().await["id"], 1);
}

#[tokio::test]
async fn requests_follow_each_other_over_one_connection() {
    let fake = Fake::start(echo).await;
    let mut bridge = Program::stdio(&fake, &[]).await;
    bridge.logged("connected to the enforcer").await;
    for id in 0..20 {
        bridge.say(&modern(id, "tools/list", &json!({}))).await;
        bridge.hear().await;
    }
    assert_eq!(fake.connections(), 1);
}
