//! What stays of calls of tools: what they were called with, by which exception, and what was withheld.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agentca_identity::crypto::sha256;
use agentca_tests::curl::Got;
use agentca_tests::lab::{Enforcer, Lab};
use agentca_tests::mcp::{self, Server};
use agentca_tests::program::{Said, ours};
use agentca_tests::{log, wait};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A bank behind an enforcer with these settings and tables, and an agent that may do anything there.
fn serve(lab: &Lab, server: &Server, settings: &str, tables: &str) -> (Enforcer, PathBuf) {
    mcp::write_catalogue(lab, "bank", &server.definitions(), &mcp::bank_risk, &[]);
    let upstream = mcp::upstream("bank", server, "watch = \"100ms\"");
    lab.add_enforcer("edge-1");
    let settings = format!("catalogue = [\"bank.toml\"]\n{settings}\n");
    let routes = format!("{}{upstream}{tables}", agentca_tests::lab::ROUTES);
    lab.write_configuration("edge-1", &settings, &routes);
    let enforcer = lab.start_enforcer("edge-1");
    let agent = lab.agent_with("support-01", &["--scope", "mcp:bank:*"]);
    (enforcer, agent)
}

fn call(enforcer: &Enforcer, agent: &Path, tool: &str, arguments: &str) -> Got {
    let body = mcp::tool_call(7, tool, arguments);
    let headers = mcp::headers("tools/call", Some(tool));
    let got = mcp::post(enforcer, agent, "bank", &headers, body.as_bytes());
    got.must_be_signed();
    got
}

fn record(enforcer: &Enforcer, index: u64) -> Value {
    log::records(&enforcer.log())[usize::try_from(index).unwrap()].clone()
}

/// `agentca-enforcer disclose`.
fn disclose(lab: &Lab, index: u64, options: &[&str]) -> Said {
    let mut command = lab.command(ours("agentca-enforcer"));
    let index = index.to_string();
    command.args(["disclose", "--config", "edge-1.toml", "--index", &index]);
    command.args(options);
    Said::from(command)
}

/// `agentca log verify-disclosure`.
fn verify(lab: &Lab, index: u64, disclosure: &str) -> Said {
    let index = index.to_string();
    lab.try_agentca(&[
        "log",
        "verify-disclosure",
        disclosure,
        "--log",
        "edge-1-data/log",
        "--index",
        &index,
    ])
}

/// The disclosure as the caller makes it, who has the salt of the answer: nothing is shared with the enforcer.
fn by_the_caller(lab: &Lab, got: &Got, key: &str, value: &str) -> String {
    let audit = got.header("agent-audit").unwrap();
    let (_, salt) = audit.split_once("salt=:").unwrap();
    let salt = STANDARD.decode(salt.split(':').next().unwrap()).unwrap();
    let hex: String = salt.iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(lab.path("key"), format!("argument:{key}")).unwrap();
    let option = format!("hexkey:{hex}");
    let said = agentca_tests::clients::openssl(
        lab,
        &["dgst", "-sha256", "-mac", "HMAC", "-macopt", &option, "key"],
    )
    .must_succeed();
    let code = said.stdout.trim().rsplit(' ').next().unwrap();
    let salt: Vec<u8> = (0..16)
        .map(|at| u8::from_str_radix(&code[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let salt = URL_SAFE_NO_PAD.encode(salt);
    URL_SAFE_NO_PAD.encode(format!("[\"{salt}\",\"{key}\",{value}]"))
}

fn commitment(disclosure: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(disclosure.as_bytes()))
}

#[test]
fn what_a_tool_was_called_with_can_be_revealed_and_erased() {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--business"]);
    let (enforcer, agent) = serve(&lab, &server, "disclosures = \"keep\"", "");
    wait::until("the enforcer has seen the tools", || {
        (mcp::listed(&enforcer, &agent, "bank").len() == 6).then_some(())
    });
    // A call that changes something has a record for its decision and another for its outcome.
    // No record has the like by chance: neither a number, nor a time, nor base64.
    let arguments = r#"{"payment":"p 4711 of nobody","amount": "twelve and a half" ,"pin":[1, 2],"a memo":null}"#;
    let got = call(&enforcer, &agent, "payments_refund", arguments);
    let outcome = got.record();
    let index = record(&enforcer, outcome)["decision_index"]
        .as_u64()
        .unwrap();
    let args = record(&enforcer, index)["request"]["args"].clone();
    let names: Vec<&String> = args.as_object().unwrap().keys().collect();
    assert_eq!(names, ["...", "amount", "payment"]);
    let raw = log::raw_records(&enforcer.log()).concat();
    for value in ["p 4711", "twelve and", "a memo"] {
        assert!(
            !raw.windows(value.len())
                .any(|part| part == value.as_bytes())
        );
    }
    let own = by_the_caller(&lab, &got, "amount", r#""twelve and a half""#);
    assert_eq!(args["amount"], commitment(&own));
    // The enforcer kept the same, byte for byte.
    let kept: BTreeMap<String, String> = wait::until("the values are kept", || {
        let said = disclose(&lab, outcome, &["--json"]);
        let told: Value = serde_json::from_str(&said.stdout).ok()?;
        let rows = told["disclosures"].as_array()?.iter();
        let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        Some(
            rows.map(|row| (text(row, "argument"), text(row, "disclosure")))
                .collect(),
        )
    });
    assert_eq!(kept["amount"], own);
    assert_eq!(
        disclose(&lab, index, &["--argument", "amount"])
            .must_succeed()
            .stdout
            .trim(),
        own
    );
    for (name, value) in [
        ("amount", r#""twelve and a half""#),
        ("payment", r#""p 4711 of nobody""#),
        ("...", r#"{"pin":[1, 2],"a memo":null}"#),
    ] {
        let said = verify(&lab, outcome, &kept[name]).must_succeed();
        assert_eq!(said.stdout, format!("{name}  {value}\n"));
    }
    let twisted = by_the_caller(&lab, &got, "amount", r#""thirteen and a half""#);
    let refused = verify(&lab, index, &twisted).must_end_with(1);
    assert!(
        refused.stderr.contains("`amount` was something else"),
        "{refused}"
    );
    // Erased, it is gone here, and the log is none the worse.
    disclose(&lab, index, &["--argument", "amount", "--erase"]).must_succeed();
    disclose(&lab, index, &["--argument", "amount"]).must_end_with(1);
    disclose(&lab, index, &["--argument", "payment"]).must_succeed();
    disclose(&lab, index, &["--erase"]).must_succeed();
    let gone = disclose(&lab, index, &[]).must_end_with(1);
    assert!(gone.stderr.contains("nothing is kept"), "{gone}");
    let root = lab.root().display().to_string();
    lab.agentca(&["log", "verify", "edge-1-data/log", "--root", &root]);
    // Who still has the string can reveal it.
    verify(&lab, index, &own).must_succeed();
    let shown = lab.agentca(&[
        "log",
        "show",
        "edge-1-data/log",
        "--from",
        &index.to_string(),
    ]);
    assert!(
        shown
            .stdout
            .contains(" tools/call mcp:bank:payments_refund allow"),
        "{shown}"
    );
}

#[test]
fn values_are_kept_only_where_the_operator_says_so() {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--business"]);
    let (enforcer, _) = serve(&lab, &server, "", "");
    // Denied calls have their arguments, too: what was tried is evidence.
    let agent = lab.agent_with("other-01", &["--scope", "mcp:bank:echo"]);
    wait::until("the enforcer has seen the tools", || {
        (mcp::listed(&enforcer, &agent, "bank").len() == 1).then_some(())
    });
    for (tool, key, decision) in [("echo", "text", "allow"), ("run_report", "query", "deny")] {
        let got = call(&enforcer, &agent, tool, &format!("{{\"{key}\":\"a\"}}"));
        let record = record(&enforcer, got.record());
        assert_eq!(record["decision"], decision, "{record}");
        let own = by_the_caller(&lab, &got, key, "\"a\"");
        assert_eq!(record["request"]["args"], json!({ key: commitment(&own) }));
        disclose(&lab, got.record(), &[]).must_end_with(1);
    }
    let got = call(&enforcer, &agent, "echo", "{}");
    assert!(record(&enforcer, got.record())["request"]["args"].is_null());
    assert!(!lab.path("edge-1-data/disclosures").exists());
}

#[test]
fn a_call_under_an_exception_says_so() {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--business"]);
    let tables = "[ceiling]\nmin_tier = \"verified\"\n[[exception]]\nupstream = \"bank\"\ntool = \"echo\"\n\
                  owner = \"alice\"\njustification = \"needed\"\ncompensating_control = \"watched\"\n\
                  ends = \"2999-01-01T00:00:00Z\"\n";
    let (enforcer, agent) = serve(&lab, &server, "", tables);
    wait::until("the enforcer has seen the tools", || {
        (mcp::listed(&enforcer, &agent, "bank") == ["echo"]).then_some(())
    });
    for (tool, decision, rule) in [
        ("echo", "allow", "scope-excepted"),
        ("account_balance", "deny", "tool-unverified"),
    ] {
        let got = call(&enforcer, &agent, tool, "{}");
        let record = record(&enforcer, got.record());
        assert_eq!(record["decision"], decision, "{record}");
        assert_eq!(record["rule"], rule, "{record}");
    }
}

#[test]
fn a_withheld_tool_is_recorded_and_counted() {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--misbehave", "changed-tool"]);
    let ops = format!("ops_listen = \"{}:9464\"", lab.ip());
    let (enforcer, _) = serve(&lab, &server, &ops, "");
    let counted = |state: &str| {
        let mut curl = lab.command("curl");
        curl.args(["-sSf", &format!("http://{}:9464/metrics", lab.ip())]);
        let said = Said::from(curl).must_succeed();
        let series = format!("agentca_enforcer_mcp_tools{{upstream=\"bank\",state=\"{state}\"}} ");
        let found = said
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix(&series));
        found.map(str::to_owned)
    };
    wait::until("all tools are callable", || {
        (counted("callable")? == "6").then_some(())
    });
    assert!(log::of_kind(&enforcer.log(), "tool-withheld").is_empty());
    server.change();
    wait::until("one tool is withheld", || {
        (counted("withheld")? == "1").then_some(())
    });
    assert_eq!(counted("callable").as_deref(), Some("5"));
    let withheld = wait::until("that is recorded", || {
        log::of_kind(&enforcer.log(), "tool-withheld").pop()
    });
    assert_eq!(withheld["tool"], "account_balance", "{withheld}");
    assert_eq!(withheld["upstream"], "bank", "{withheld}");
    assert_eq!(withheld["reason"], "changed", "{withheld}");
    assert_ne!(withheld["digest"], withheld["pinned"], "{withheld}");
    let recorded = STANDARD
        .decode(withheld["digest"].as_str().unwrap())
        .unwrap();
    let hex: String = recorded.iter().map(|byte| format!("{byte:02x}")).collect();
    // Written once that record is durable.
    wait::until("what was recorded is there to be looked at", || {
        let shown = mcp::shown(&lab, "bank", "account_balance")?;
        (mcp::digest(&shown["definition"]) == format!("sha256:{hex}")).then_some(())
    });
}

#[test]
fn a_catalogue_is_on_record_before_it_is_in_force() {
    let lab = Lab::with_authority();
    let server = Server::start(&lab, "bank", &["--business"]);
    let tables = "[[exception]]\nupstream = \"bank\"\ntool = \"echo\"\nowner = \"alice\"\njustification = \"needed\"\n\
                  compensating_control = \"watched\"\nends = \"2999-01-01T00:00:00Z\"\n";
    let (enforcer, agent) = serve(&lab, &server, "", tables);
    let loaded = || log::of_kind(&enforcer.log(), "catalogue-loaded");
    let first = loaded().remove(0);
    let files = first["files"].as_array().unwrap();
    let names: Vec<&str> = files
        .iter()
        .map(|file| file["name"].as_str().unwrap())
        .collect();
    for name in ["edge-1.toml", "bank.toml", "bank.pins.json"] {
        let place = names.iter().position(|other| *other == name).unwrap();
        let digest = sha256(&std::fs::read(lab.path(name)).unwrap());
        assert_eq!(files[place]["digest"], STANDARD.encode(digest), "{first}");
    }
    let changes = first["changes"].as_array().unwrap();
    let (excepted, pinned): (Vec<&Value>, Vec<&Value>) = changes
        .iter()
        .partition(|change| change["action"] == "except");
    assert_eq!((excepted.len(), pinned.len()), (1, 6), "{first}");
    assert!(pinned.iter().all(|pin| pin["action"] == "pin"), "{first}");
    let excepted = excepted[0];
    assert_eq!(excepted["by"], "alice", "{first}");
    assert_eq!(excepted["tool"], "echo", "{first}");
    assert_eq!(excepted["ends"], "2999-01-01T00:00:00.000Z", "{first}");
    // A pin goes: that is recorded before anybody is denied for it.
    let file = lab.path("bank.pins.json");
    let mut pins: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let list = pins["pins"].as_array_mut().unwrap();
    list.retain(|pin| pin["tool"] != "run_report");
    std::fs::write(&file, pins.to_string()).unwrap();
    wait::until("the pin is gone", || {
        (mcp::listed(&enforcer, &agent, "bank").len() == 5).then_some(())
    });
    let second = loaded().remove(1);
    let changes = second["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1, "{second}");
    assert_eq!(changes[0]["action"], "withdraw", "{second}");
    assert_eq!(second["previous"], first["seq"], "{second}");
}
