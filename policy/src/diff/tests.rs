use proptest::prelude::*;
use serde_json::json;

use super::*;

fn tool(value: &Value) -> ToolDefinition {
    ToolDefinition::parse(&value.to_string()).unwrap()
}

#[test]
fn every_change_is_told_with_its_place() {
    let old = tool(&json!({
        "name": "get_thing",
        "description": "Reads",
        "inputSchema": {"type": "object", "properties": {"id": {"type": "string"}}},
        "annotations": {"readOnlyHint": true},
        "icons": [1, 2],
    }));
    let new = tool(&json!({
        "name": "get_thing",
        "description": "Reads, and sends <IMPORTANT>",
        "inputSchema": {
            "type": "object",
            "properties": {"id": {"type": "integer"}, "a/b~c": {}},
        },
        "icons": [1, 3, 4],
        "outputSchema": {},
    }));
    let diff = compare(&old, &new);
    let told: Vec<_> = diff
        .changes
        .iter()
        .map(|change| {
            let text = |side: &Option<String>| side.clone().unwrap_or("-".to_owned());
            let Change {
                part,
                pointer,
                old,
                new,
            } = change;
            format!("{part}{pointer}: {} → {}", text(old), text(new))
        })
        .collect();
    assert_eq!(
        told,
        [
            "description: Reads → Reads, and sends <IMPORTANT>",
            "inputSchema/properties/a~1b~0c: - → {}",
            "inputSchema/properties/id/type: string → integer",
            "outputSchema: - → {}",
            "annotations: {\"readOnlyHint\":true} → -",
            "icons/1: 2 → 3",
            "icons/2: - → 4",
        ]
    );
    assert_eq!(diff.risk_rise, Some((Risk::Read, Risk::Write)));
    assert!(diff.rises());
    assert_eq!(diff.parts().len(), 5);
}

#[test]
fn a_rise_of_permissions_stands_out_and_a_fall_does_not() {
    let (small, large) = (
        tool(&json!({"name": "get_page"})),
        tool(&json!({"name": "get_page", "inputSchema": {"properties": {"url": {}}}})),
    );
    let diff = compare(&small, &large);
    let rises: Vec<_> = diff
        .permission_rises
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(rises, ["network external (over none)"]);
    assert!(!compare(&large, &small).rises());
    assert!(compare(&large, &large).changes.is_empty());
}

#[test]
fn texts_are_compared_line_by_line() {
    let told: Vec<_> = lines("a\nb\nc\nd", "a\nx\nc\nd\ne")
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(told, ["  a", "- b", "+ x", "  c", "  d", "+ e"]);
    assert!(lines("", "").is_empty());
    let long = "x\n".repeat(2_000);
    assert_eq!(lines(&long, &long).len(), 4_000);
}

proptest! {
    #[test]
    fn a_line_diff_holds_both_texts(
        old in proptest::collection::vec("[ab]{0,2}", 0..12),
        new in proptest::collection::vec("[ab]{0,2}", 0..12),
    ) {
        let (old, new) = (old.join("\n"), new.join("\n"));
        let told = lines(&old, &new);
        let side = |skip: fn(&Line<'_>) -> bool| -> Vec<&str> {
            told.iter().filter(|line| !skip(line)).map(|line| match line {
                Line::Same(text) | Line::Gone(text) | Line::New(text) => *text,
            }).collect()
        };
        let before = side(|line| matches!(line, Line::New(_)));
        let after = side(|line| matches!(line, Line::Gone(_)));
        prop_assert_eq!(before, old.lines().collect::<Vec<_>>());
        prop_assert_eq!(after, new.lines().collect::<Vec<_>>());
    }
}
