use super::server::{Named, environment, named, words};
use super::*;
use crate::scan::State;

#[test]
fn a_command_line_is_split_into_words() {
    for (line, expected) in [
        ("", &[][..]),
        ("  npx  -y server ", &["npx", "-y", "server"]),
        (r#"a "b c" 'd "e' ''"#, &["a", "b c", "d \"e", ""]),
        (r#"a\ b "c\"d" 'e\f'"#, &["a b", "c\"d", "e\\f"]),
        ("--root=\"/my files\"/x", &["--root=/my files/x"]),
    ] {
        assert_eq!(words(line).unwrap(), expected, "{line}");
    }
    assert!(words("a \"b").is_err() && words("a\\").is_err());
}

#[test]
fn an_environment_variable_has_a_name() {
    let given = |pair: &str| environment(&[pair.to_owned()]);
    assert_eq!(given("A=b=c").unwrap().get("A").unwrap(), "b=c");
    assert!(given("A").is_err() && given("=b").is_err());
}

#[test]
fn a_server_is_a_url_or_a_command() {
    assert_eq!(
        named(Some("https://a.example/mcp"), None),
        Ok(Named::Url("https://a.example/mcp"))
    );
    let npx = ["npx", "-y", "server"].map(str::to_owned).to_vec();
    assert_eq!(
        named(Some("npx -y server"), None),
        Ok(Named::Command(npx.clone()))
    );
    assert_eq!(named(None, Some("npx -y server")), Ok(Named::Command(npx)));
    for wrong in ["localhost:9000/mcp", "ftp://a.example", "", "a 'b"] {
        let refused = named(Some(wrong), None).unwrap_err();
        assert!(matches!(refused, Failure::Usage(_)), "{wrong}");
    }
}

#[test]
fn a_scan_says_what_will_be_denied() {
    let row = |tool: &str, state, review| Row {
        tool: tool.to_owned(),
        digest: String::new(),
        risk: agentca_policy::Risk::Read,
        reason: String::new(),
        state,
        review,
    };
    let good = [row("get", State::Added, None)];
    assert!(meaning("files", &good, "e.toml").is_empty());
    let rows = [
        row("get", State::Known, None),
        row("run", State::Added, Some("it runs code")),
        row("new", State::Unapproved, None),
    ];
    let lines = meaning("files", &rows, "e.toml").join("\n");
    for part in [
        "`tool-unverified`",
        "`run` (it runs code)",
        "catalogue approve files:run --config e.toml --manual-review",
        "`tool-changed`",
        "`new` (unapproved)",
    ] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
}
