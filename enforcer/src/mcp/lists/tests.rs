use std::time::Duration;

use agentca_identity::scope::ScopeSet;
use agentca_identity::trust::TrustLevel;
use agentca_policy::{
    Admitted, Approved, CeilingDecl, ExceptionDecl, McpCatalogue, McpParts, Pin, PinsFile,
    Restriction, SCAN, ToolDecl, ToolDefinition, UpstreamDecl,
};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::mcp::reply::{Answer, Expected};
use crate::mcp::seen::SeenTools;
use crate::mcp::splice::changed;

/// `e` is over the ceiling and has an exception until then.
const ENDS: Timestamp = Timestamp::from_secs(1_800_000_000);

fn definition(name: &str, description: &str) -> Value {
    json!({
        "name": name,
        "description": description,
        "inputSchema": {"type": "object", "properties": {"b": {"maximum": 9}, "a": {}}},
    })
}

/// Tools `a` to `f`: all are pinned but `f`.
fn server() -> Arc<McpServer> {
    let tool = |name: &str, trust: &str| -> ToolDecl {
        let network = if name == "e" { "external" } else { "none" };
        let decl = json!({
            "upstream": "bank", "name": name, "min_trust": trust, "risk": "read",
            "permissions": {
                "network": network, "filesystem": "none", "code_execution": "none", "data_access": "read",
            },
        });
        serde_json::from_value(decl).unwrap()
    };
    let pin = |name: &str| Pin {
        upstream: "bank".to_owned(),
        definition: ToolDefinition::parse(&definition(name, "d").to_string()).unwrap(),
        approved: Approved {
            by: SCAN.to_owned(),
            at: Timestamp::MIN,
            reason: "first scan".to_owned(),
            statement: None,
        },
    };
    let pins = PinsFile {
        pins: ["a", "b", "c", "d", "e"].map(pin).into(),
        ..PinsFile::default()
    };
    let mut admitted = Admitted::default();
    admitted.add_unsigned(&pins).unwrap();
    let ceiling = CeilingDecl {
        permissions: serde_json::from_value(json!({"network": "internal"})).unwrap(),
        ..CeilingDecl::default()
    };
    let exception = ExceptionDecl {
        upstream: "bank".to_owned(),
        tool: Some("e".to_owned()),
        route: None,
        owner: "alice".to_owned(),
        justification: "needed".to_owned(),
        compensating_control: "watched".to_owned(),
        ends: ENDS,
    };
    let tools = [
        ("a", "L1"),
        ("b", "L1"),
        ("c", "L3"),
        ("d", "L1"),
        ("e", "L1"),
        ("f", "L1"),
    ];
    let catalogue = McpCatalogue::compile(&McpParts {
        upstreams: &[UpstreamDecl {
            name: "bank".to_owned(),
        }],
        tools: &tools.map(|(name, trust)| tool(name, trust)),
        methods: &[],
        admitted: &admitted,
        ceiling: Some(&ceiling),
        exceptions: &[exception],
        environment: &"prod".parse().unwrap(),
    })
    .unwrap();
    Arc::clone(catalogue.server("bank").unwrap())
}

fn scopes(scopes: &[&str]) -> ScopeSet {
    ScopeSet::new(scopes.iter().map(|scope| scope.parse().unwrap())).unwrap()
}

/// All kinds of rights that differ in one thing.
fn rights() -> Vec<Rights> {
    let all = || scopes(&["mcp:bank:*"]);
    let restricted = |trust, scopes| Some(Restriction { trust, scopes });
    vec![
        Rights::new(all(), TrustLevel::L3, None),
        Rights::new(all(), TrustLevel::L2, None),
        Rights::new(scopes(&["mcp:bank:b", "mcp:bank:e"]), TrustLevel::L3, None),
        Rights::new(
            all(),
            TrustLevel::L3,
            restricted(Some(TrustLevel::L2), None),
        ),
        Rights::new(
            all(),
            TrustLevel::L3,
            restricted(None, Some(scopes(&["mcp:bank:a"]))),
        ),
        Rights::new(scopes(&["mcp:other:*"]), TrustLevel::L3, None),
    ]
}

struct Asked {
    server: Arc<McpServer>,
    pages: Arc<Pages>,
    seen: Arc<Seen>,
}

impl Asked {
    fn new(server: &Arc<McpServer>) -> Self {
        Self {
            server: Arc::clone(server),
            pages: Arc::default(),
            seen: SeenTools::default().of("bank"),
        }
    }

    fn filter(&self, rights: &Rights, now: Timestamp) -> Filter {
        Filter {
            member: "tools",
            judge: Judge::Tools(ToolJudge {
                server: Arc::clone(&self.server),
                seen: Arc::clone(&self.seen),
                pages: Arc::clone(&self.pages),
                now,
                rights: rights.clone(),
            }),
        }
    }

    /// What is passed on of an answer, with all that was learnt before.
    fn answer(&self, text: &str, rights: &Rights, now: Timestamp) -> Option<String> {
        let filter = self.filter(rights, now);
        let changes = filter.changes(text.as_bytes(), "7")?;
        let done = changed(Bytes::from(text.to_owned().into_bytes()), &changes).unwrap();
        assert_eq!(
            filter.known(text, "7").unwrap(),
            done,
            "another answer to the same"
        );
        Some(String::from_utf8(done.to_vec()).unwrap())
    }
}

/// The same, by who has read nothing yet and reads all of it.
fn reference(
    asked: &Asked,
    text: &str,
    rights: &Rights,
    now: Timestamp,
) -> Result<String, &'static str> {
    json::check(text.as_bytes(), LIMITS).map_err(|_| "no strict JSON")?;
    let members = Members::of(text).ok_or("no message")?;
    if members.raw("id") != Some("7") || members.text("jsonrpc").as_deref() != Some("2.0") {
        return Err("no answer");
    }
    if members.raw("error").is_some() || members.raw("method").is_some() {
        return Err("no result");
    }
    let result = members.members("result").ok_or("no result")?;
    if result.disguised(RESULT).is_some() {
        return Err("disguised");
    }
    let forgetful = Asked {
        seen: Arc::clone(&asked.seen),
        ..Asked::new(&asked.server)
    };
    let Filtered(told) = forgetful.filter(rights, now).apply(text, &result)?;
    told.ok_or("no list")
}

/// What has to be left of an answer, by its tree.
fn left(asked: &Asked, text: &str, rights: &Rights, now: Timestamp) -> Value {
    let mut tree: Value = serde_json::from_str(text).unwrap();
    let tools = tree["result"]["tools"].as_array_mut().unwrap();
    tools.retain(|listed| {
        let Some(tool) = asked.server.tool(listed["name"].as_str().unwrap()) else {
            return false;
        };
        let digest = ToolDefinition::parse(&listed.to_string()).map(|read| read.digest());
        // As it is shown, and as a call of it is judged.
        let judged = asked.seen.digest(&tool.name);
        digest.is_ok_and(|digest| tool.standing(Some(&digest), now).is_ok())
            && tool.standing(judged.as_ref(), now).is_ok()
            && rights.cover(&tool.call)
    });
    if let Some(scope) = tree["result"].get_mut("cacheScope") {
        *scope = json!("private");
    }
    tree
}

fn message(tools: &str, before: &str, after: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{{before}"tools":{tools}{after}}}}}"#)
}

/// A tool as a server may write it.
fn written(name: &str, way: usize) -> String {
    let plain = definition(name, "d");
    match way {
        0..=4 => plain.to_string(),
        5 => format!(
            r#"{{ "name":"{name}", "inputSchema":{{"properties":{{"b":{{"maximum":9}},"a":{{}}}},"type":"object"}},"description":"\u0064" }}"#
        ),
        // A number that takes the long way, the same as 9.
        6 => plain.to_string().replace(":9", ":9.0"),
        7 => definition(name, "changed").to_string(),
        8 => plain.to_string().replace(":9", ":1e300"),
        9 => format!(r#"{{"name":"{name}","annotations":[]}}"#),
        _ => format!(r#"{{"n\u0061me":"{name}"}}"#),
    }
}

#[test]
fn a_page_is_read_once_and_judged_each_time() {
    let (server, rights) = (server(), rights());
    let asked = Asked::new(&server);
    let all = ["a", "b", "c", "d", "e", "f", "unknown"].map(|name| written(name, 0));
    let text = message(
        &format!("[ {} ]", all.join(" , ")),
        r#""cacheScope":"public","#,
        "",
    );
    let names = |rights, now| {
        let told: Value = serde_json::from_str(&asked.answer(&text, rights, now).unwrap()).unwrap();
        let tools = told["result"]["tools"].as_array().unwrap().clone();
        let names = tools.iter().map(|tool| tool["name"].as_str().unwrap());
        names.collect::<String>()
    };
    let before = ENDS - Duration::from_millis(1);
    let expected = ["abcde", "abde", "be", "abde", "a", ""];
    for _ in 0..2 {
        for (rights, expected) in rights.iter().zip(expected) {
            assert_eq!(names(rights, before), expected);
            assert_eq!(names(rights, ENDS), expected.replace('e', ""));
        }
    }
    // What was decided later says nothing of before.
    assert_eq!(names(&rights[0], before), "abcde");
    let page = asked
        .pages
        .find(&text.as_bytes()[text.find('[').unwrap()..]);
    assert!(page.is_some(), "the page is not kept");
}

#[test]
fn a_tool_that_changed_is_seen_on_a_page_of_tools_that_did_not() {
    let (server, rights) = (server(), rights());
    let asked = Asked::new(&server);
    let tools = |b: usize| [written("a", 0), written("b", b), written("d", 0)].join(",");
    let answer = |b: usize| {
        let text = message(&format!("[{}]", tools(b)), "", "");
        asked.answer(&text, &rights[0], ENDS).unwrap()
    };
    assert!(answer(0).contains(r#""name":"b""#));
    let pinned = server.tool("b").unwrap().pinned.as_ref().unwrap().digest;
    assert_eq!(asked.seen.digest("b"), Some(pinned));
    assert!(!answer(7).contains(r#""name":"b""#));
    assert!(
        asked
            .seen
            .digest("b")
            .is_some_and(|digest| digest != pinned)
    );
}

#[test]
fn what_agents_were_shown_otherwise_is_not_listed() {
    let (server, rights) = (server(), rights());
    let asked = Asked::new(&server);
    let tools = [written("a", 0), written("b", 0)].join(",");
    let text = message(&format!("[{tools}]"), "", "");
    let shown = || {
        let answer = asked.answer(&text, &rights[0], ENDS).unwrap();
        ["a", "b"].map(|name| answer.contains(&format!(r#""name":"{name}""#)))
    };
    assert_eq!(shown(), [true, true]);
    asked.seen.distrust("b", [9; 32], None);
    assert_eq!(shown(), [true, false]);
    // What was shown is what counts, be it by now what was approved.
    let pinned = server.tool("b").unwrap().pinned.as_ref().unwrap().digest;
    asked.seen.distrust("b", pinned, None);
    assert_eq!(shown(), [true, true]);
    asked.seen.distrust("a", [9; 32], None);
    assert_eq!(shown(), [false, true]);
    asked.seen.judge_anew(|tool, _| tool == "a");
    assert_eq!(shown(), [true, true]);
}

#[test]
fn what_surrounds_a_list_is_read_as_ever() {
    let (server, rights) = (server(), rights());
    let asked = Asked::new(&server);
    let list = format!("[{}]", written("a", 0));
    let good = message(&list, "", "");
    let read = |text: &str| {
        let mut expected = Expected {
            id: Some("7".to_owned()),
            kind: Answer::List(asked.filter(&rights[0], ENDS)),
            server_asks: false,
            states: None,
        };
        expected.read_whole(Bytes::from(text.to_owned())).map(drop)
    };
    for _ in 0..2 {
        read(&good).unwrap();
        for wrong in [
            good.replace(":7", ":8"),
            good.replace("2.0", "1.0"),
            good.replace(r#""id":7"#, r#""id":7,"method":"x""#),
            good.replace(r#""id":7"#, r#""id":7,"error":{"code":1,"message":""}"#),
            good.replace(r#""id":7"#, r#""id":7,"id":7"#),
            format!("{good}{good}"),
            good.replace("]}}", "]}"),
            message(&list, r#""tools":[],"#, ""),
            message(&list, "", r#","tools":[]"#),
            message(&list, r#""Tools":[],"#, ""),
            message(&list, r#""x":{"tools":[]},"#, r#","tools":[]"#),
            message("{}", &format!(r#""x":{list},"#), ""),
            message(&format!("[{0},{0}]", written("a", 0)), "", ""),
            message(&format!("[{},]", written("a", 0)), "", ""),
            message("[{}]", "", ""),
            message("[1]", "", ""),
            message(&list, "", &format!(r#","x":[0{}]"#, ",0".repeat(1_000_000))),
        ] {
            assert!(read(&wrong).is_err(), "{wrong:.200}");
        }
    }
    // As deep as a message may be, and one deeper.
    let deep = |depth: usize| {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        message(&format!(r#"[{{"name":"a","x":{nested}}}]"#), "", "")
    };
    assert!(read(&deep(60)).is_ok() && read(&deep(61)).is_err());
}

proptest! {
    #[test]
    fn what_is_known_says_what_reading_all_says(
        asks in prop::collection::vec((
            prop::collection::vec((prop::sample::select(vec!["a", "b", "c", "d", "e", "f", "g"]), 0usize..11), 0..7),
            0usize..6,
            0usize..3,
            prop::sample::select(vec!["", " ", "\n\t"]),
            prop::option::of((0usize..400, prop::sample::select(vec!["", "\"", "{", "}", "[", "]", ",", "\\", "0"]))),
            0usize..4,
            prop::option::of(0usize..8),
        ), 1..12),
    ) {
        let (server, rights) = (server(), rights());
        let asked = Asked::new(&server);
        let mut texts: Vec<(String, bool)> = Vec::new();
        for (tools, who, when, space, damage, around, again) in asks {
            let now = [ENDS - Duration::from_secs(1), ENDS, ENDS + Duration::from_secs(1)][when];
            let tools: Vec<_> = tools.iter().map(|(name, way)| written(name, *way)).collect();
            let list = format!("[{space}{}{space}]", tools.join(&format!("{space},{space}")));
            let (before, after) = [
                ("", ""),
                (r#""cacheScope":"public","#, ""),
                (r#""ttlMs":0,"#, r#","cacheScope":"public""#),
                (r#""x":{"tools":[]},"#, ""),
            ][around];
            let mut text = message(&list, before, after);
            if let Some((at, with)) = damage.filter(|(at, _)| *at < text.len()) {
                text.replace_range(at..=at, with);
            }
            let new = (text, damage.is_none() && around != 3);
            // Most servers list the same again.
            let (text, is_plain) = again.and_then(|again| texts.get(again)).cloned().unwrap_or(new);
            texts.push((text.clone(), is_plain));
            let told = reference(&asked, &text, &rights[who], now);
            let known = asked.answer(&text, &rights[who], now);
            match (&known, &told) {
                (Some(known), told) => prop_assert_eq!(Ok(known), told.as_ref(), "{}", text),
                (None, Ok(_)) => prop_assert!(!is_plain, "not known: {}", text),
                (None, Err(_)) => {}
            }
            if let Ok(told) = told {
                let told: Value = serde_json::from_str(&told).unwrap();
                prop_assert_eq!(told, left(&asked, &text, &rights[who], now));
            }
        }
    }
}
