use std::path::Path;

use super::*;
use crate::config::{Config, pins_path};

const REFUND: &str = r#"{"name":"refund","description":"Refunds a payment\u001b[2J\nat once","inputSchema":{"type":"object","properties":{"amount":{"type":"number"}}}}"#;
const STATUS: &str = r#"{"name":"get_status","annotations":{"readOnlyHint":true}}"#;
const ODD: &str = r#"{"name":"say \"hi\"\n[[tool]]"}"#;

fn listed(definitions: &[&str]) -> Vec<ListedTool> {
    let one = |definition: &&str| ListedTool {
        name: serde_json::from_str::<serde_json::Value>(definition).unwrap()["name"]
            .as_str()
            .unwrap()
            .to_owned(),
        definition: (*definition).to_owned(),
    };
    definitions.iter().map(one).collect()
}

fn found(definitions: &[&str], capabilities: &[&str]) -> Found {
    let server = Server {
        revision: "2026-07-28",
        capabilities: capabilities.iter().map(ToString::to_string).collect(),
        ..Server::default()
    };
    Found::of("payments", server, &listed(definitions))
}

fn scan(dir: &Path, found: &Found) -> (Plan, usize) {
    let files = CatalogueFiles::read(&dir.join("catalogue.toml")).unwrap();
    let plan = Plan::make(found, &files, Timestamp::now());
    let written = files.write(&plan).unwrap();
    (plan, written.len())
}

fn states(plan: &Plan) -> Vec<(&str, State)> {
    let rows = plan.rows.iter();
    rows.map(|row| (row.tool.as_str(), row.state)).collect()
}

/// The configuration that names the catalogue.
fn config(dir: &Path) -> Config {
    let text = "environment = \"prod\"\nlisten = \"127.0.0.1:8443\"\nauthority = \"https://127.0.0.1:7443\"\n\
                identity_dir = \"e\"\ndata_dir = \"d\"\ncatalogue = [\"catalogue.toml\"]\n\
                [[upstream]]\nname = \"payments\"\nkind = \"mcp\"\nurl = \"http://127.0.0.1:9000/mcp\"\n";
    std::fs::write(dir.join("enforcer.toml"), text).unwrap();
    Config::load(&dir.join("enforcer.toml")).unwrap()
}

#[test]
fn what_a_scan_writes_is_a_catalogue_with_its_tools_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let found = found(
        &[REFUND, STATUS, ODD],
        &["tools", "prompts", "resources", "tools.listChanged"],
    );
    assert_eq!(found.refused.len(), 1);
    let (plan, written) = scan(dir.path(), &found);
    assert_eq!(written, 2);
    assert_eq!(
        states(&plan),
        [("refund", State::Added), ("get_status", State::Added)]
    );
    assert_eq!(
        plan.methods,
        ["resources/read", "subscriptions/listen", "prompts/get"]
    );
    let config = config(dir.path());
    let server = config.mcp_catalogue.server("payments").unwrap();
    assert_eq!(server.tools().len(), 2);
    let refund = server.tool("refund").unwrap();
    assert_eq!(refund.call.scope.as_str(), "mcp:payments:refund");
    assert_eq!(
        (refund.call.risk, refund.call.min_trust.to_string().as_str()),
        (Risk::Financial, "L3")
    );
    let seen = ToolDefinition::parse(REFUND).unwrap().digest();
    assert!(refund.standing(Some(&seen), Timestamp::now()).is_ok());
    let status = server.tool("get_status").unwrap();
    assert_eq!(
        (status.call.risk, status.call.min_trust.to_string().as_str()),
        (Risk::Read, "L1")
    );
    assert_eq!(
        server.method("prompts/get").unwrap().scope.as_str(),
        "mcp:payments:prompts:get"
    );
    let text = std::fs::read_to_string(dir.path().join("catalogue.toml")).unwrap();
    assert!(text.contains("# Refunds a payment [2J\n[[tool]]"), "{text}");
}

#[test]
fn a_later_scan_keeps_what_people_wrote_and_pins_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.toml");
    scan(dir.path(), &found(&[REFUND], &[]));
    let edited = std::fs::read_to_string(&path).unwrap();
    let edited = edited.replace(
        "min_trust = \"L3\"",
        "min_trust = \"L4\" # asked for by Bob",
    );
    std::fs::write(&path, edited.trim_end()).unwrap();
    let pins = std::fs::read_to_string(pins_path(&path)).unwrap();

    let (plan, written) = scan(dir.path(), &found(&[REFUND], &[]));
    assert_eq!(
        (states(&plan), written),
        (vec![("refund", State::Known)], 0)
    );

    let changed = REFUND.replace("number", "string");
    let (plan, written) = scan(dir.path(), &found(&[&changed, STATUS], &["completions"]));
    assert_eq!(written, 1);
    assert_eq!(
        states(&plan),
        [
            ("refund", State::Changed),
            ("get_status", State::Unapproved)
        ]
    );
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(edited.trim_end()), "{text}");
    assert_eq!(std::fs::read_to_string(pins_path(&path)).unwrap(), pins);
    let config = config(dir.path());
    let server = config.mcp_catalogue.server("payments").unwrap();
    assert!(server.method("completion/complete").is_some());
    let status = server.tool("get_status").unwrap();
    let seen = ToolDefinition::parse(STATUS).unwrap().digest();
    let refused = status.standing(Some(&seen), Timestamp::now()).unwrap_err();
    assert!(refused.detail.contains("nobody approved"), "{refused}");
}

#[test]
fn what_a_person_wrote_first_is_pinned_and_what_they_rejected_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let table = "[[tool]]\nupstream = \"payments\"\nname = \"refund\"\nmin_trust = \"L4\"\nrisk = \"financial\"\n";
    std::fs::write(dir.path().join("catalogue.toml"), table).unwrap();
    let (plan, written) = scan(dir.path(), &found(&[REFUND], &[]));
    assert_eq!(
        (states(&plan), written),
        (vec![("refund", State::Pinned)], 1)
    );

    let path = pins_path(&dir.path().join("catalogue.toml"));
    let mut pins = read_pins(&path).unwrap();
    let pin = pins.pins[0].clone();
    pins.reject(agentca_policy::Rejection {
        upstream: pin.upstream.clone(),
        tool: pin.tool().to_owned(),
        digest: digest_text(&pin.definition.digest()),
        rejected: pin.approved,
    });
    // What is in the file has no statement: nobody but this test would write that.
    let mut files = CatalogueFiles::read(&dir.path().join("catalogue.toml")).unwrap();
    files.pins = pins;
    let plan = Plan::make(&found(&[REFUND], &[]), &files, Timestamp::now());
    assert_eq!(states(&plan), [("refund", State::Rejected)]);
    assert!(!plan.has_new_pins);
}

#[test]
fn a_catalogue_that_cannot_be_read_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.toml");
    std::fs::write(&path, "[[tool]").unwrap();
    assert!(CatalogueFiles::read(&path).is_err());
    std::fs::write(&path, "").unwrap();
    std::fs::write(pins_path(&path), "{}").unwrap();
    assert!(CatalogueFiles::read(&path).is_err());
    assert!(CatalogueFiles::read(&dir.path().join("catalogue")).is_err());
}
