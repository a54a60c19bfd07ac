use std::collections::HashMap;

use agentca_policy::{Approved, Pin, SCAN, ToolDefinition};

use super::*;
use crate::config::{Config, FilePlace};

const MAIN: &str = r#"
catalogue = ["catalogue.toml", "more/other.toml"]
environment = "prod"
listen = "127.0.0.1:8443"
authority = "https://127.0.0.1:7443"
identity_dir = "edge-1"
data_dir = "edge-1-data"
[[upstream]]
name = "tools"
kind = "mcp"
url = "http://127.0.0.1:9001/mcp"
[[upstream]]
name = "payments"
url = "http://127.0.0.1:9000"
"#;

fn tool(name: &str) -> String {
    format!(
        "[[tool]]\nupstream = \"tools\"\nname = \"{name}\"\nmin_trust = \"L2\"\nrisk = \"write\"\n"
    )
}

fn pins(upstream: &str, name: &str) -> String {
    let pin = Pin {
        upstream: upstream.to_owned(),
        definition: ToolDefinition::parse(&format!(r#"{{"name":"{name}"}}"#)).unwrap(),
        approved: Approved {
            by: SCAN.to_owned(),
            at: agentca_policy::parse_moment("2026-11-21T00:00:00Z").unwrap(),
            reason: "first scan".to_owned(),
            statement: None,
        },
    };
    let file = PinsFile {
        pins: vec![pin],
        ..PinsFile::default()
    };
    file.to_json().unwrap()
}

/// Loads `enforcer.toml` of a folder that has these files.
fn load(main: &str, files: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let files: HashMap<PathBuf, &str> = files
        .iter()
        .map(|(name, text)| (Path::new("/etc/agentca").join(name), *text))
        .collect();
    let own = Path::new("/etc/agentca/enforcer.toml");
    let place = FilePlace {
        file: Some(own),
        base: Path::new("/etc/agentca"),
        read: &|path| {
            let text = files.get(path).map(ToString::to_string);
            text.ok_or_else(|| io::ErrorKind::NotFound.into())
        },
    };
    Config::parse_at(main, &place).map_err(|errors| errors.in_file(own))
}

/// The beginnings of the lines that are told.
fn told(main: &str, files: &[(&str, &str)]) -> Vec<String> {
    let said = load(main, files).unwrap_err().to_string();
    let begin = |line: &str| {
        let line = line.strip_prefix("/etc/agentca/").unwrap_or(line);
        line.split(": ").take(2).collect::<Vec<_>>().join(": ")
    };
    said.lines().map(begin).collect()
}

const OTHER: (&str, &str) = ("more/other.toml", "");

#[test]
fn tables_of_all_files_and_their_pins_are_one_catalogue() {
    let route = "[[route]]\nupstream = \"payments\"\nmethods = [\"GET\"]\npath = \"/a\"\nscope = \
                 \"a\"\nmin_trust = \"L2\"\nrisk = \"read\"\n";
    let first = format!("{}{route}", tool("refund"));
    let second = format!(
        "{}[[method]]\nupstream = \"tools\"\nname = \"resources/read\"\nmin_trust = \"L1\"\nrisk = \
         \"read\"\n[ceiling]\nnetwork = \"none\"\n",
        tool("charge")
    );
    let main = format!("{MAIN}{}", tool("get"));
    let config = load(
        &main,
        &[
            ("catalogue.toml", &first),
            ("catalogue.pins.json", &pins("tools", "refund")),
            ("more/other.toml", &second),
            ("more/other.pins.json", &pins("tools", "charge")),
            ("enforcer.pins.json", &pins("tools", "get")),
        ],
    )
    .unwrap();
    assert_eq!(config.catalogue.routes().len(), 1);
    let server = config.mcp_catalogue.server("tools").unwrap();
    assert_eq!(server.tools().len(), 3);
    assert!(server.tools().iter().all(|tool| tool.pinned.is_some()));
    assert!(server.method("resources/read").is_some());
    assert!(config.mcp_catalogue.server("payments").is_none());
    let own = Path::new("/etc/agentca/enforcer.toml");
    let beside = |tool| config.pins_file_of(own, "tools", tool);
    let path = |name: &str| Some(Path::new("/etc/agentca").join(name));
    assert_eq!(beside("get"), path("enforcer.pins.json"));
    assert_eq!(beside("charge"), path("more/other.pins.json"));
    assert_eq!(beside("nothing"), None);
    let files: Vec<_> = config
        .catalogue_files
        .iter()
        .map(|file| file.strip_prefix("/etc/agentca").unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        files,
        [
            "enforcer.pins.json",
            "catalogue.toml",
            "catalogue.pins.json",
            "more/other.toml",
            "more/other.pins.json",
        ]
    );
}

#[test]
fn errors_name_the_file_and_the_key() {
    let broken = format!(
        "{}[[tool]]\nupstream = \"tools\"\n{}",
        tool("a b"),
        tool("refund").replace("L2", "L7").replace("risk", "rsik")
    );
    assert_eq!(
        told(MAIN, &[("catalogue.toml", &broken), OTHER]),
        [
            "catalogue.toml: tool[2].name",
            "catalogue.toml: tool[2].min_trust",
            "catalogue.toml: tool[2].risk",
            "catalogue.toml: tool[3].risk",
            "catalogue.toml: tool[3].rsik",
            "catalogue.toml: tool[1].name",
        ]
    );
    let second = tool("refund").replace("tools", "payments");
    let first = tool("refund");
    assert_eq!(
        told(
            MAIN,
            &[("catalogue.toml", &first), ("more/other.toml", &second)]
        ),
        ["more/other.toml: tool[1].upstream"]
    );
    assert_eq!(
        told(
            MAIN,
            &[("catalogue.toml", &first), ("more/other.toml", &first)]
        ),
        ["more/other.toml: tool[1].name"]
    );
    assert_eq!(
        told(MAIN, &[("catalogue.toml", "x = 1\nlisten = 2"), OTHER]),
        ["catalogue.toml: listen", "catalogue.toml: x"]
    );
    assert_eq!(
        told(MAIN, &[("catalogue.toml", "x"), OTHER]),
        ["catalogue.toml: line 1"]
    );
    assert_eq!(told(MAIN, &[OTHER]), ["catalogue.toml: cannot be read"]);
    let main = format!("{MAIN}{}", tool("a b"));
    assert_eq!(
        told(&main, &[("catalogue.toml", ""), OTHER]),
        ["enforcer.toml: tool[1].name"]
    );
}

#[test]
fn pins_that_are_wrong_or_in_two_files_are_told_by_file() {
    let good = pins("tools", "refund");
    let bad = good.replace("sha256:", "sha256:0");
    let files = |first: &'static str, second: &str| {
        told(
            MAIN,
            &[
                ("catalogue.toml", ""),
                (first, &good),
                OTHER,
                ("more/other.pins.json", second),
            ],
        )
    };
    assert_eq!(
        files("unread.json", &bad),
        ["more/other.pins.json: pins[1].digest"]
    );
    assert_eq!(
        files("catalogue.pins.json", &good),
        ["more/other.pins.json: pins[1]"]
    );
    assert_eq!(
        files("catalogue.pins.json", "{"),
        ["more/other.pins.json: pins"]
    );
}

#[test]
fn a_ceiling_stands_once_and_a_file_is_named_once() {
    let ceiling = "[ceiling]\nnetwork = \"none\"\n";
    assert_eq!(
        told(
            MAIN,
            &[("catalogue.toml", ceiling), ("more/other.toml", ceiling)]
        ),
        ["more/other.toml: ceiling"]
    );
    let twice = MAIN.replace("more/other.toml", "catalogue.toml");
    assert_eq!(
        told(&twice, &[("catalogue.toml", "")]),
        ["enforcer.toml: catalogue[2]"]
    );
    let other = MAIN.replace("more/other.toml", "other.json");
    assert_eq!(
        told(&other, &[("catalogue.toml", "")]),
        ["enforcer.toml: catalogue[2]"]
    );
}

#[test]
fn an_exception_is_for_one_tool_or_route_that_there_is() {
    let exception = |what: &str| {
        format!(
            "[[exception]]\nupstream = \"payments\"\n{what}\nowner = \"alice\"\njustification = \"x\"\n\
             compensating_control = \"y\"\nends = \"2200-01-01T00:00:00Z\"\n"
        )
    };
    let route = "[[route]]\nupstream = \"payments\"\nmethods = [\"GET\"]\npath = \"/a\"\nscope = \
                 \"a\"\nmin_trust = \"L2\"\nrisk = \"read\"\n[route.permissions]\nnetwork = \"external\"\n\
                 [route.data_flow]\ninput = \"a number\"\n";
    let good = format!("{route}{}", exception("route = \"/a\""));
    let config = load(MAIN, &[("catalogue.toml", &good), OTHER]).unwrap();
    let flow = config.catalogue.routes()[0].data_flow.as_deref().unwrap();
    assert_eq!(flow.input.as_deref(), Some("a number"));
    for (what, key) in [
        ("route = \"/b\"", "route"),
        ("", "tool"),
        ("route = \"/a\"\ntool = \"refund\"", "tool"),
    ] {
        let wrong = format!("{route}{}", exception(what));
        let said = told(MAIN, &[("catalogue.toml", &wrong), OTHER]);
        let wanted = format!("catalogue.toml: exception[1].{key}");
        assert!(said.contains(&wanted), "{what}: {said:?}");
    }
}

#[test]
fn ceilings_exceptions_and_assessors_are_checked() {
    let text = r#"
        [ceiling]
        network = "intranet"
        min_tier = "golden"
        max_age = "90"
        unverified = "allow"
        [[exception]]
        upstream = "tools"
        tool = "refund"
        owner = "alice"
        justification = "x"
        compensating_control = "y"
        ends = "tomorrow"
        [[assessor]]
        name = "a"
        [[assessor]]
        name = "b"
        public_key = "missing.pem"
        [[assessor]]
        name = "c"
        person = "alice"
        [[assessor]]
        name = "d"
        person = "spiffe://example.org/person/alice"
        [[assessor]]
        name = "d"
        person = "spiffe://example.org/person/bob"
    "#;
    assert_eq!(
        told(MAIN, &[("catalogue.toml", text), OTHER]),
        [
            "catalogue.toml: exception[1].ends",
            "catalogue.toml: ceiling.network",
            "catalogue.toml: ceiling.min_tier",
            "catalogue.toml: ceiling.max_age",
            "catalogue.toml: ceiling.unverified",
            "catalogue.toml: assessor[1].public_key",
            "catalogue.toml: assessor[2].public_key",
            "catalogue.toml: assessor[3].person",
            "catalogue.toml: assessor[5].name",
        ]
    );
    let mark = "[ceiling]\nunverified = \"mark\"\n";
    assert_eq!(
        told(MAIN, &[("catalogue.toml", mark), OTHER]),
        ["catalogue.toml: ceiling.unverified"]
    );
    let dev = MAIN.replace("prod", "dev");
    load(&dev, &[("catalogue.toml", mark), OTHER]).unwrap();
}

#[test]
fn tools_alone_are_enough() {
    let bare = MAIN.replace("catalogue = ", "# catalogue = ");
    let config = load(&format!("{bare}{}", tool("refund")), &[]).unwrap();
    assert_eq!(config.mcp_catalogue.len(), 1);
    assert!(config.catalogue.routes().is_empty());
}

#[test]
fn more_files_than_a_record_has_room_for_are_refused() {
    let names = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("{n}.toml")).collect();
        let listed = format!("catalogue = {names:?}");
        (
            MAIN.replacen(
                r#"catalogue = ["catalogue.toml", "more/other.toml"]"#,
                &listed,
                1,
            ),
            names,
        )
    };
    let load_all = |count| {
        let (main, names) = names(count);
        let table = |name: &String| tool(name.strip_suffix(".toml").unwrap());
        let tables: Vec<String> = names.iter().map(table).collect();
        let files = names.iter().zip(&tables);
        let files: Vec<(&str, &str)> = files.map(|(name, text)| (&**name, &**text)).collect();
        load(&main, &files)
    };
    assert!(load_all(MAX_CATALOGUES).is_ok());
    let refused = load_all(MAX_CATALOGUES + 1).unwrap_err().to_string();
    assert!(refused.contains("names 32 files: 31 at most"), "{refused}");
}
