use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::scope::ScopeSet;
use agentca_policy::{
    Admitted, McpCatalogue, McpParts, PinsFile, ToolDecl, ToolDefinition, UpstreamDecl, digest_text,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const PINNED: &str = r#"{"name":"pay","inputSchema":{"type":"object"}}"#;

/// For an agent that may use `pay`, which is pinned, and `look`, which is not.
fn reader() -> ServerReader {
    let tool = |name: &str| -> ToolDecl {
        let text = format!(
            "upstream = \"bank\"\nname = \"{name}\"\nmin_trust = \"L1\"\nrisk = \"read\"\n"
        );
        toml::from_str(&text).unwrap()
    };
    let digest = digest_text(&ToolDefinition::parse(PINNED).unwrap().digest());
    let definition: serde_json::Value = serde_json::from_str(PINNED).unwrap();
    let approved =
        json!({ "by": "scan", "at": "2026-11-21T00:00:00Z", "reason": "as it was found" });
    let pin = json!({ "upstream": "bank", "tool": "pay", "digest": digest, "definition": definition, "approved": approved });
    let file = json!({ "version": 1, "pins": [pin], "assessments": [] });
    let mut admitted = Admitted::default();
    let file = PinsFile::parse(&file.to_string()).unwrap();
    admitted.add_unsigned(&file).unwrap();
    let catalogue = McpCatalogue::compile(&McpParts {
        upstreams: &[UpstreamDecl {
            name: "bank".to_owned(),
        }],
        tools: &[tool("pay"), tool("look")],
        methods: &[],
        admitted: &admitted,
        ceiling: None,
        exceptions: &[],
        environment: &"prod".parse().unwrap(),
    })
    .unwrap();
    let server = Arc::clone(catalogue.server("bank").unwrap());
    let scopes = ScopeSet::new(["mcp:bank:*".parse().unwrap()]).unwrap();
    let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    let key = MacKey::derive(&key, "test").unwrap();
    ServerReader::new(server, scopes, TrustLevel::L2, key)
}

#[test]
fn a_list_is_filtered_alike_the_first_time_and_again() {
    let reader = reader();
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":7,"result":{{"tools":[{PINNED},{{"name":"look"}},{{"name":"x"}}],"cacheScope":"public"}}}}"#
    );
    let shown = format!(
        r#"{{"jsonrpc":"2.0","id":7,"result":{{"tools":[{PINNED}],"cacheScope":"private"}}}}"#
    );
    for _ in 0..2 {
        assert_eq!(reader.read(Asked::Tools, &text).as_ref(), Some(&shown));
    }
    let disguised = text.replace("\"cacheScope\"", "\"Prompts\":[],\"cacheScope\"");
    assert_eq!(reader.read(Asked::Tools, &disguised), None);
}

/// What may stand in a list.
fn element() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&[
        PINNED,
        r#"{"inputSchema":{"type":"object"},"name":"p\u0061y"}"#,
        r#"{"name":"pay","inputSchema":{"type":"object"},"description":"Pays "}"#,
        r#"{"name":"look","inputSchema":{}}"#,
        r#"{"name":"other","x":["\"tools\":["]}"#,
        r#"{"name":"look","name":"pay"}"#,
        r#"{"name":7}"#,
        "[]",
    ])
}

/// What may stand beside a list in a result, and in a message.
fn beside() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&[
        r#""nextCursor":"1""#,
        r#""cacheScope":"public""#,
        r#""cachescope":"public""#,
        r#""Tools":[]"#,
        r#""Prompts":[]"#,
        r#""PROMPTS":[]"#,
        r#""prompts":[{"name":"x"}]"#,
        r#""i\u017fError":true"#,
        r#""requestState":"s""#,
        r#""_meta":{"tools":[{"name":"pay"}]}"#,
        r#""\u0074ools":[]"#,
        r#""tool\u0073":[]"#,
        r#""resultType":"complete""#,
    ])
}

fn envelope() -> impl Strategy<Value = [&'static str; 2]> {
    prop::sample::select(&[
        [r#""jsonrpc":"2.0","id":7"#, ""],
        [r#""id":7"#, r#""jsonrpc":"2.0""#],
        ["", r#""jsonrpc":"2.0" , "id" : 7 "#],
        [r#""jsonrpc":"2.0","id":8"#, ""],
        [r#""jsonrpc":"2.0","id":"7""#, ""],
        [r#""jsonrpc":"2.0","id":7.0"#, ""],
        [r#""jsonrpc":"1.0","id":7"#, ""],
        [
            r#""jsonrpc":"2.0","id":7"#,
            r#""error":{"code":1,"message":""}"#,
        ],
        [r#""jsonrpc":"2.0","id":7"#, r#""method":"a""#],
        [r#""jsonrpc":"2.0","id":7"#, r#""id":7"#],
        [r#""jsonrpc":"2.0","id":7,"Result":{}"#, ""],
    ])
}

fn list() -> impl Strategy<Value = String> {
    let space = prop::sample::select(&["", " ", "\n"]);
    (prop::collection::vec(element(), 0..4), space)
        .prop_map(|(elements, space)| format!("[{space}{}]", elements.join(&format!("{space},"))))
}

fn answer(list: &str, around: &([&'static str; 2], Vec<&'static str>, usize)) -> String {
    let (envelope, beside, at) = around;
    let mut members: Vec<String> = beside.iter().map(|member| (*member).to_owned()).collect();
    members.insert((*at).min(members.len()), format!("\"tools\":{list}"));
    let result = format!("\"result\":{{{}}}", members.join(","));
    let parts = [envelope[0], &result, envelope[1]];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{{{}}}", parts.join(","))
}

proptest! {
    /// A page that was read before is no shortcut past anything: with and without it the same is passed on, and the
    /// same is known of the tools.
    #[test]
    fn a_page_that_was_kept_reads_as_a_fresh_one(
        lists in prop::collection::vec(list(), 1..3),
        around in prop::collection::vec((envelope(), prop::collection::vec(beside(), 0..3), 0_usize..3), 2..6),
    ) {
        let (kept, mut fresh) = (reader(), reader());
        // Read once under a form that is surely taken, so that it is kept if it can be.
        let plain = ([r#""jsonrpc":"2.0","id":7"#, ""], Vec::new(), 0);
        for (number, around) in std::iter::once(&plain).chain(&around).enumerate() {
            for list in &lists {
                let text = answer(list, around);
                fresh.forget_pages();
                let (one, other) = (kept.read(Asked::Tools, &text), fresh.read(Asked::Tools, &text));
                prop_assert_eq!(one, other, "{}: {}", number, text);
                for tool in ["pay", "look", "other"] {
                    prop_assert_eq!(kept.seen(tool), fresh.seen(tool), "{}: {}", tool, text);
                }
            }
        }
    }
}
