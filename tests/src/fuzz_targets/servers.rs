//! What MCP servers send: answers on their way to an agent, pages of lists that were read before, lines of programs.

use std::sync::{Arc, LazyLock};

use agentca_enforcer::stdio::{LineReader, RpcRequest};
use agentca_enforcer::{Asked, ServerReader};
use agentca_identity::crypto::{KeyKind, MacKey, PrivateKey};
use agentca_identity::scope::ScopeSet;
use agentca_identity::trust::TrustLevel;
use agentca_policy::json::{JsonLimits, check};
use agentca_policy::{
    Admitted, McpCatalogue, McpParts, McpServer, PinsFile, ToolDecl, ToolDefinition, UpstreamDecl,
    digest_text,
};
use bytes::Bytes;
use serde_json::{Value, json};

/// The one tool of the bank that the agent may use, as it was pinned.
const PINNED: &str = r#"{"name":"pay","inputSchema":{"type":"object"}}"#;

/// A bank whose tools are `pay`, which is pinned, and `look`, which is not.
static BANK: LazyLock<Arc<McpServer>> = LazyLock::new(|| {
    let tool = |name: &str| -> ToolDecl {
        let text = format!(
            "upstream = \"bank\"\nname = \"{name}\"\nmin_trust = \"L1\"\nrisk = \"read\"\n"
        );
        toml::from_str(&text).expect("a declaration")
    };
    let digest = ToolDefinition::parse(PINNED)
        .expect("a definition")
        .digest();
    let definition: Value = serde_json::from_str(PINNED).expect("JSON");
    let approved =
        json!({ "by": "scan", "at": "2026-11-21T00:00:00Z", "reason": "as it was found" });
    let pin = json!({ "upstream": "bank", "tool": "pay", "digest": digest_text(&digest),
        "definition": definition, "approved": approved });
    let file = json!({ "version": 1, "pins": [pin], "assessments": [] });
    let mut admitted = Admitted::default();
    let file = PinsFile::parse(&file.to_string()).expect("pins");
    admitted.add_unsigned(&file).expect("pins");
    let catalogue = McpCatalogue::compile(&McpParts {
        upstreams: &[UpstreamDecl {
            name: "bank".to_owned(),
        }],
        tools: &[tool("pay"), tool("look")],
        methods: &[],
        admitted: &admitted,
        ceiling: None,
        exceptions: &[],
        environment: &"prod".parse().expect("an environment"),
    });
    let catalogue = catalogue.expect("a catalogue");
    Arc::clone(catalogue.server("bank").expect("the bank"))
});

static KEY: LazyLock<MacKey> = LazyLock::new(|| {
    let key = PrivateKey::generate(KeyKind::Ed25519).expect("a key");
    MacKey::derive(&key, "fuzz").expect("a key")
});

fn reader() -> ServerReader {
    let scopes = ScopeSet::new(["mcp:bank:*".parse().expect("a scope")]).expect("one scope");
    ServerReader::new(Arc::clone(&BANK), scopes, TrustLevel::L2, KEY.clone())
}

/// A server's answer: the first line says what was asked, the rest is the answer. What is passed on has one reading,
/// and is what the server said but for what an agent may not see.
pub fn reply(data: &[u8]) {
    reply_is_passed_on(data);
}

/// The same, and whether there was an answer to pass on.
pub fn reply_is_passed_on(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let Some((asked, text)) = text.split_once('\n') else {
        return false;
    };
    let asked = match asked {
        "tools" => Asked::Tools,
        "prompts" => Asked::Prompts { all: true },
        "no prompts" => Asked::Prompts { all: false },
        "call" => Asked::Call,
        "initialize" => Asked::Initialize,
        "discover" => Asked::Discover,
        _ => return false,
    };
    let reader = reader();
    let Some(passed) = reader.read(asked, text) else {
        return false;
    };
    assert_eq!(check(passed.as_bytes(), LIMITS), Ok(passed.as_str()));
    let tree = |text: &str| -> Value { serde_json::from_str(text).expect("what was read is JSON") };
    let (mut said, mut passed) = (tree(text), tree(&passed));
    if passed["result"].is_object() {
        assert_eq!(passed["id"], 7);
        changed(&reader, asked, &mut said["result"], &mut passed["result"]);
    }
    assert_eq!(said, passed);
    true
}

/// Takes out of both what may differ, and asserts that it is as it should be.
fn changed(reader: &ServerReader, asked: Asked, said: &mut Value, passed: &mut Value) {
    let take = |from: &mut Value, name: &str| from.as_object_mut().and_then(|all| all.remove(name));
    let list = match asked {
        Asked::Tools => "tools",
        Asked::Prompts { .. } => "prompts",
        Asked::Discover => "supportedVersions",
        Asked::Call => {
            let (own, sealed) = (take(said, "requestState"), take(passed, "requestState"));
            let opened = sealed.map(|sealed| reader.opened(sealed.as_str().expect("text")));
            assert_eq!(own, opened.map(|opened| opened.expect("its own").into()));
            return;
        }
        Asked::Initialize => {
            let version = passed["protocolVersion"].as_str();
            assert!(matches!(version, Some("2025-11-25" | "2025-06-18")));
            return;
        }
    };
    let (all, left) = (take(said, list), take(passed, list));
    if asked == (Asked::Prompts { all: true }) {
        assert_eq!(all, left);
        return changed_scope(said, passed);
    }
    let all = all.expect("a list");
    if asked == (Asked::Prompts { all: false }) {
        assert_eq!(left, Some(json!([])));
        return changed_scope(said, passed);
    }
    let all = all.as_array().expect("a list");
    let may = |one: &&Value| match asked {
        Asked::Tools => ToolDefinition::parse(&one.to_string())
            .is_ok_and(|tool| tool.canonical() == PINNED_CANONICAL),
        _ => ["2026-07-28", "2025-11-25", "2025-06-18"]
            .iter()
            .any(|spoken| *one == spoken),
    };
    let wanted: Vec<&Value> = all.iter().filter(may).collect();
    assert_eq!(left, Some(json!(wanted)));
    if asked == Asked::Tools {
        changed_scope(said, passed);
    }
}

/// What was filtered for one is not for others.
fn changed_scope(said: &mut Value, passed: &mut Value) {
    if let Some(scope) = said.get_mut("cacheScope") {
        *scope = "private".into();
        assert_eq!(passed["cacheScope"], "private");
    }
}

const PINNED_CANONICAL: &str = r#"{"inputSchema":{"type":"object"},"name":"pay"}"#;

/// Answers to `tools/list`, one after the other with a byte between them that is in no text: what was read before
/// makes no difference.
pub fn pages(data: &[u8]) {
    pages_are_read(data);
}

/// The same, and whether all of them could be read.
pub fn pages_are_read(data: &[u8]) -> bool {
    let (kept, mut fresh) = (reader(), reader());
    let mut all = true;
    for text in data.split(|byte| *byte == 0xff).take(16) {
        let Ok(text) = std::str::from_utf8(text) else {
            all = false;
            continue;
        };
        fresh.forget_pages();
        let (one, other) = (
            kept.read(Asked::Tools, text),
            fresh.read(Asked::Tools, text),
        );
        assert_eq!(one, other, "{text}");
        all &= one.is_some() || text.is_empty();
        for tool in ["pay", "look"] {
            assert_eq!(kept.seen(tool), fresh.seen(tool), "{tool}: {text}");
        }
    }
    all
}

/// Lines of a program that was asked three things: each goes to who asked, under the names it has there.
pub fn lines(data: &[u8]) {
    lines_are_taken(data);
}

/// The same, and whether a program with a session could say all of them.
pub fn lines_are_taken(data: &[u8]) -> bool {
    let mut all = true;
    let requests = ASKED.map(|text| RpcRequest::read(Bytes::from_static(text.as_bytes())));
    let requests = requests.map(|request| request.expect("a request"));
    for has_session in [false, true] {
        let mut reader = LineReader::new(has_session, &requests).expect("three are not too many");
        let mut answered = [false; 3];
        for line in data.split(|byte| *byte == b'\n') {
            let useful = reader.takes(line);
            all &= useful || !has_session;
            let delivered = reader.delivered();
            assert!(useful || delivered.is_empty(), "of no use, and passed on");
            for (place, message) in delivered {
                assert!(check(&message, LIMITS).is_ok(), "{message:?}");
                let message: Value = serde_json::from_slice(&message).expect("JSON");
                let Some(place) = place else {
                    assert!(has_session && message["method"].is_string(), "{message}");
                    continue;
                };
                must_be_for(place, &message);
                assert!(has_session || message["method"].is_null() || message["id"].is_null());
                let before = &mut answered[place];
                assert!(!*before, "more after its answer: {message}");
                *before = message["method"].is_null();
            }
        }
    }
    all
}

/// Two callers whose id and token are the same, and one that listens.
const ASKED: [&str; 3] = [
    r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"_meta":{"progressToken":"t"}}}"#,
    r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"_meta":{"progressToken":"t"}}}"#,
    r#"{"jsonrpc":"2.0","id":"b","method":"subscriptions/listen","params":{}}"#,
];

fn must_be_for(place: usize, message: &Value) {
    let subscription = "io.modelcontextprotocol/subscriptionId";
    let own = if place == 2 { "b" } else { "a" };
    if message["method"].is_null() {
        assert_eq!(message["id"], own, "{message}");
    }
    if message["method"] == "notifications/progress"
        && message["params"]["_meta"][subscription].is_null()
    {
        assert_eq!(message["params"]["progressToken"], "t", "{message}");
    }
    if place == 2 {
        let told =
            [&message["params"], &message["result"]].map(|part| &part["_meta"][subscription]);
        assert!(
            told.iter().all(|told| told.is_null() || *told == "b"),
            "{message}"
        );
    }
}

const LIMITS: JsonLimits = JsonLimits {
    depth: 64,
    values: 1_000_000,
};
