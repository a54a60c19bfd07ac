use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod tools;

fn tool(value: &Value) -> ToolDefinition {
    ToolDefinition::parse(&value.to_string()).unwrap()
}

fn risk_of(name: &str) -> Risk {
    suggest(&tool(&json!({"name": name}))).risk
}

#[test]
fn names_are_split_into_words() {
    for (name, words) in [
        ("getAndDelete_all-items2go", "get and delete all items go"),
        ("HTTPServer", "http server"),
        ("runSQL", "run sql"),
        ("__x--Y", "x y"),
        ("", ""),
    ] {
        assert_eq!(words::split(name).join(" "), words, "{name}");
    }
}

#[test]
fn the_worst_word_of_a_name_decides() {
    for (name, risk) in [
        ("get_balance", Risk::Read),
        ("listAccounts", Risk::Read),
        ("search-issues", Risk::Read),
        ("get_and_delete_all", Risk::Destructive),
        ("getAndDeleteAll", Risk::Destructive),
        ("deleted_items_remover", Risk::Destructive),
        ("deletefile", Risk::Destructive),
        ("dropping", Risk::Destructive),
        ("create_issue", Risk::Write),
        ("update2", Risk::Write),
        ("get_and_obliterate_it", Risk::Destructive),
        ("get_and_frobnicate", Risk::Write),
        ("get_then_pay", Risk::Financial),
        ("list_files_and_folders", Risk::Read),
        ("create_or_update_file", Risk::Write),
        ("long_running_report", Risk::Write),
        ("list_deleted_items", Risk::Read),
        ("subscriber", Risk::Write),
        ("executive_summary", Risk::Read),
        ("payload_of_order", Risk::Financial),
        ("frobnicate", Risk::Write),
        ("run_query", Risk::Execute),
        ("execute_sql", Risk::Execute),
        ("refund", Risk::Financial),
        ("issueRefunds", Risk::Financial),
        ("delete_and_pay", Risk::Financial),
    ] {
        let suggestion = suggest(&tool(&json!({"name": name})));
        assert_eq!(suggestion.risk, risk, "{name}: {}", suggestion.reason);
        assert!(!suggestion.reason.is_empty());
    }
}

#[test]
fn a_reason_names_the_word() {
    let reason = suggest(&tool(&json!({"name": "get_and_delete_all"}))).reason;
    assert_eq!(reason, "the name says `delete`");
}

#[test]
fn schema_description_and_annotations_raise() {
    for (more, risk) in [
        (json!({}), Risk::Read),
        (
            json!({"description": "Reads and then deletes it"}),
            Risk::Destructive,
        ),
        (
            json!({"description": "Delete what is there"}),
            Risk::Destructive,
        ),
        (
            json!({"description": "Lists deleted items of a running system, to which nothing is added"}),
            Risk::Read,
        ),
        (
            json!({"description": "It never deletes, and does not write"}),
            Risk::Read,
        ),
        (
            json!({"inputSchema": {"properties": {"country_code": {}, "max_price": {}}}}),
            Risk::Read,
        ),
        (
            json!({"inputSchema": {"type": "object", "properties": {"sql": {}}}}),
            Risk::Execute,
        ),
        (
            json!({"inputSchema": {"properties": {"a": {"properties": {"amount": {}}}}}}),
            Risk::Financial,
        ),
        (json!({"annotations": {"readOnlyHint": false}}), Risk::Write),
        (
            json!({"annotations": {"destructiveHint": true}}),
            Risk::Destructive,
        ),
        (
            json!({"annotations": {"readOnlyHint": true, "destructiveHint": true}}),
            Risk::Destructive,
        ),
    ] {
        let mut value = json!({"name": "get_thing"});
        let members = value.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        assert_eq!(suggest(&tool(&value)).risk, risk, "{value}");
    }
}

#[test]
fn a_servers_word_lowers_nothing() {
    let with = |name: &str, description: &str, schema: Value| {
        let value = json!({
            "name": name,
            "description": description,
            "inputSchema": schema,
            "annotations": {"readOnlyHint": true, "destructiveHint": false},
        });
        suggest(&tool(&value)).risk
    };
    let plain = json!({"type": "object"});
    let sql = json!({"type": "object", "properties": {"sql": {}}});
    assert_eq!(
        with("list_things", "Lists things", plain.clone()),
        Risk::Read
    );
    assert_eq!(
        with("list_things", "Deletes things", plain.clone()),
        Risk::Destructive
    );
    assert_eq!(with("list_things", "Lists things", sql), Risk::Execute);
    assert_eq!(
        with("delete_things", "Lists things", plain.clone()),
        Risk::Destructive
    );
    assert_eq!(with("things", "Lists things", plain), Risk::Write);
}

#[test]
fn what_shows_secrets_is_no_mere_reading() {
    for (name, shows) in [
        ("get-env", true),
        ("printenv", true),
        ("get_api_key", true),
        ("list_secrets", true),
        ("read_environment_variables", true),
        ("list_environments", false),
        ("get_envelope", false),
        ("browser_press_key", false),
        ("secretary_lookup", false),
    ] {
        let suggestion = suggest(&tool(&json!({"name": name})));
        assert_eq!(suggestion.shows_secrets, shows, "{name}");
        assert!(!shows || suggestion.risk > Risk::Read, "{name}");
    }
}

#[test]
fn permissions_follow_words_class_and_hints() {
    let of = |value: Value| suggest(&tool(&value)).permissions;
    let read = of(json!({"name": "get_balance"}));
    assert_eq!(
        read,
        Permissions {
            data_access: DataAccess::Read,
            ..Permissions::NONE
        }
    );
    let path = json!({"properties": {"path": {"type": "string"}}});
    let reads = of(json!({"name": "read_file", "inputSchema": path}));
    assert_eq!(reads.filesystem, Filesystem::Read);
    let writes = of(json!({"name": "write_file", "inputSchema": path}));
    assert_eq!(writes.filesystem, Filesystem::Write);
    let fetch = of(json!({"name": "fetch", "inputSchema": {"properties": {"url": {}}}}));
    assert_eq!(fetch.network, Network::External);
    let open = of(json!({"name": "get_balance", "annotations": {"openWorldHint": true}}));
    assert_eq!(open.network, Network::External);
    let told =
        of(json!({"name": "get_balance", "description": "Asks the server for a file by its path"}));
    assert_eq!(told, read);
    let runs = of(json!({"name": "run_tests"}));
    assert_eq!(runs.code_execution, CodeExecution::Unrestricted);
}

const WORDS: [&str; 12] = [
    "get", "list", "things", "delete", "run", "pay", "create", "purge", "all", "sql", "and", "x",
];

proptest! {
    #[test]
    fn a_worse_verb_never_lowers_the_class(
        words in proptest::collection::vec(proptest::sample::select(&WORDS[..]), 1..5),
        at in 0..5_usize,
        worse in proptest::sample::select(&["delete", "exec", "pay", "execute", "wipe"][..]),
    ) {
        let name = words.join("_");
        let mut more = words.clone();
        more.insert(at.min(words.len()), worse);
        let more = more.join("_");
        prop_assert!(risk_of(&more) >= risk_of(&name).min(Risk::Destructive), "{} {}", name, more);
        prop_assert!(risk_of(&more) >= risk_of(worse));
    }

    #[test]
    fn what_is_done_besides_never_lowers_the_class(
        words in proptest::collection::vec(proptest::sample::select(&WORDS[..]), 1..5),
        worse in proptest::sample::select(&["refund", "order", "run", "update", "drop"][..]),
    ) {
        let name = words.join("_");
        let more = format!("{name}_and_{worse}");
        prop_assert!(risk_of(&more) >= risk_of(&name), "{} {}", name, more);
        prop_assert!(risk_of(&more) >= risk_of(worse), "{}", more);
    }

    #[test]
    fn a_worse_annotation_never_lowers_class_or_permissions(
        words in proptest::collection::vec(proptest::sample::select(&WORDS[..]), 1..5),
        text in "[a-z ]{0,30}",
        read_only in any::<Option<bool>>(),
        open_world in any::<Option<bool>>(),
    ) {
        let with = |annotations: Value| suggest(&tool(&json!({
            "name": words.join("_"), "description": text, "annotations": annotations,
        })));
        let mut hints = serde_json::Map::new();
        if let Some(read_only) = read_only {
            hints.insert("readOnlyHint".to_owned(), read_only.into());
        }
        if let Some(open_world) = open_world {
            hints.insert("openWorldHint".to_owned(), open_world.into());
        }
        let before = with(hints.clone().into());
        for (hint, value) in
            [("destructiveHint", true), ("readOnlyHint", false), ("openWorldHint", true)]
        {
            let mut more = hints.clone();
            more.insert(hint.to_owned(), value.into());
            let after = with(more.into());
            prop_assert!(after.risk >= before.risk, "{}", hint);
            prop_assert!(before.permissions.rises_over(&after.permissions).is_empty());
        }
        prop_assert!(before.reason.lines().count() == 1);
    }

    #[test]
    fn a_name_without_a_known_verb_is_at_least_write(name in "[b-dq-z]{1,4}") {
        prop_assume!(words::verb(&name).is_none() && !words::is_told(&name));
        prop_assert!(risk_of(&name) >= Risk::Write);
    }
}
