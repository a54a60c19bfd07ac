//! The life of agents: issue, list, grant, renew, revoke, reinstate.

use crate::lab::Lab;

#[test]
fn issued_files_are_what_other_programs_take() {
    let lab = Lab::serving();
    lab.issue("support-01", "support-01");
    assert_eq!(
        lab.files("support-01"),
        ["agent.crt", "agent.key", "ca.crt"]
    );
    assert_eq!(lab.mode("support-01/agent.key"), 0o600);
    assert_eq!(lab.mode("support-01"), 0o700);
    assert_eq!(
        lab.read("support-01/agent.crt")
            .matches("BEGIN CERTIFICATE")
            .count(),
        2
    );

    let verify = [
        "verify",
        "-x509_strict",
        "-CAfile",
        "support-01/ca.crt",
        "-untrusted",
    ];
    let certificate = ["support-01/agent.crt", "support-01/agent.crt"];
    lab.tool("openssl", &[&verify[..], &certificate].concat());
    let of = |args: &[&str]| lab.tool("openssl", args);
    assert_eq!(
        of(&["pkey", "-in", "support-01/agent.key", "-pubout"]),
        of(&["x509", "-in", "support-01/agent.crt", "-noout", "-pubkey"])
    );

    let shown = lab.agentca(&["inspect", "support-01", "--json"]).json();
    let agent = &shown[0];
    assert_eq!(agent["uri"], "spiffe://example.org/prod/agent/support-01");
    assert_eq!(agent["scopes"], serde_json::json!(["payments:read"]));
    assert_eq!(agent["trust"], "L2");
    assert_eq!(agent["owner"], "alice@example.org");
    assert!(agent["grant"].is_u64());
    assert_eq!(shown.as_array().unwrap().len(), 3);
    let words = lab.agentca(&["inspect", "support-01/agent.crt"]).done();
    assert!(
        words.contains("payments:read") && words.contains("alice@example.org"),
        "{words}"
    );
    lab.agentca(&["inspect", "support-01/agent.key"])
        .fails(1, &["agent.key"]);
}

#[test]
fn a_first_issue_names_everything_that_is_missing_at_once() {
    let lab = Lab::serving();
    let issue = ["issue", "support-01", "--out", "out"];
    lab.agentca(&issue).fails(
        1,
        &[
            "prod/support-01",
            "give `--owner`, `--scope` and `--trust` too",
        ],
    );
    lab.agentca(&["issue", "support-01", "--trust", "L2"])
        .fails(
            2,
            &["`--out`; an agent that is new also needs `--owner`, `--scope`"],
        );
    let owned = [&issue[..], &["--owner", "alice@example.org"]].concat();
    lab.agentca(&owned)
        .fails(1, &["give `--scope` and `--trust` too"]);
    assert!(!lab.path("out").exists());
}

#[test]
fn nothing_is_overwritten_unless_forced() {
    let lab = Lab::serving();
    lab.issue("support-01", "out");
    let before = lab.read("out/agent.crt");
    lab.agentca(&["issue", "support-01", "--out", "out"])
        .fails(1, &["agent.key", "--force"]);
    assert_eq!(lab.read("out/agent.crt"), before);
    // Again, as granted.
    lab.agentca(&["issue", "support-01", "--out", "out", "--force"])
        .done();
    assert_ne!(lab.read("out/agent.crt"), before);
    assert_eq!(lab.files("out"), ["agent.crt", "agent.key", "ca.crt"]);
    // Another's keys stay, even by force.
    let before = lab.read("out/agent.key");
    let other = [
        "issue",
        "other",
        "--owner",
        "o@example.org",
        "--scope",
        "a:b",
    ];
    lab.agentca(&[&other[..], &["--trust", "L1", "--out", "out", "--force"]].concat())
        .fails(1, &["out holds the keys of", "support-01", "agent/other"]);
    assert_eq!(lab.read("out/agent.key"), before);
    // And a failure leaves no folders.
    lab.agentca(&["issue", "nobody", "--out", "n1/n2/out"])
        .fails(1, &["--owner"]);
    assert!(!lab.path("n1").exists());
}

#[test]
fn a_wider_issue_needs_a_wider_grant() {
    let lab = Lab::serving();
    lab.issue("support-01", "a");
    let wider = [
        "issue",
        "support-01",
        "--scope",
        "payments:read,payments:refund",
        "--out",
        "b",
    ];
    lab.agentca(&wider).fails(1, &["payments:refund"]);
    assert!(!lab.path("b").exists());
    let grant = [
        "agent",
        "grant",
        "support-01",
        "--scope",
        "payments:*",
        "--trust",
        "L3",
    ];
    let told = lab.agentca(&grant).done();
    assert!(
        told.contains("issue it again to use wider rights"),
        "{told}"
    );
    lab.agentca(&wider).done();
    let narrower = ["agent", "grant", "support-01", "--trust", "L3"];
    let told = lab.agentca(&narrower).done();
    assert!(!told.contains("issue it again"), "{told}");
    let shown = lab
        .agentca(&["agent", "show", "prod/support-01", "--json"])
        .json();
    assert_eq!(shown["scopes"], serde_json::json!(["payments:*"]));
    assert_eq!(shown["trust"], "L3");
    assert_eq!(shown["certificates"].as_array().unwrap().len(), 2);
}

#[test]
fn lists_have_the_promised_shape() {
    let lab = Lab::serving();
    assert_eq!(
        lab.agentca(&["agent", "list", "--json"]).json(),
        serde_json::json!([])
    );
    lab.issue("support-01", "a");
    lab.issue("staging/support-02", "b");
    lab.agentca(&["revoke", "support-02", "--reason", "keyCompromise"])
        .done();
    let agents = lab.agentca(&["agent", "list", "--json"]).json();
    let [first, second] = agents.as_array().unwrap().as_slice() else {
        panic!("{agents}")
    };
    assert_eq!(first["name"], "support-01");
    assert_eq!(first["environment"], "prod");
    assert_eq!(first["owner"], "alice@example.org");
    assert_eq!(first["scopes"], serde_json::json!(["payments:read"]));
    assert_eq!(first["trust"], "L2");
    assert_eq!(first["status"], "active");
    let certificate = &first["certificates"][0];
    assert_eq!(certificate["status"], "active");
    assert_eq!(certificate["serial"].as_str().unwrap().len(), 32);
    assert!(certificate["not_after"].as_str().unwrap().ends_with('Z'));
    assert!(certificate.get("reason").is_none());
    assert_eq!(second["status"], "revoked");
    let certificate = &second["certificates"][0];
    assert_eq!(certificate["status"], "revoked");
    assert!(
        certificate["reason"]
            .as_str()
            .unwrap()
            .to_lowercase()
            .contains("key")
    );
    let table = lab.agentca(&["agent", "list", "--env", "staging"]).done();
    assert!(
        table.contains("support-02") && !table.contains("support-01"),
        "{table}"
    );
    let table = lab.agentca(&["agent", "show", "support-02"]).done();
    assert!(table.contains("revoked"), "{table}");
}

#[test]
fn an_ambiguous_name_exits_2_and_lists_the_candidates() {
    let lab = Lab::serving();
    lab.issue("support-01", "a");
    lab.issue("staging/support-01", "b");
    for command in [&["revoke"][..], &["reinstate"], &["agent", "show"]] {
        let arguments = [command, &["support-01"]].concat();
        lab.agentca(&arguments)
            .fails(2, &["prod/support-01", "staging/support-01"]);
    }
    lab.agentca(&["revoke", "support-01", "--env", "staging"])
        .done();
    let agents = lab.agentca(&["agent", "list", "--json"]).json();
    let status = |name: &str| {
        let agents = agents.as_array().unwrap();
        agents.iter().find(|a| a["environment"] == name).unwrap()["status"].clone()
    };
    assert_eq!(status("staging"), "revoked");
    assert_eq!(status("prod"), "active");
    lab.agentca(&["revoke", "nobody"])
        .fails(1, &["nobody", "agentca agent list"]);
}

#[test]
fn a_revoked_agent_is_refused_until_it_is_reinstated() {
    let lab = Lab::serving();
    lab.issue("support-01", "out");
    let told = lab
        .agentca(&["revoke", "support-01", "--reason", "key-compromise"])
        .done();
    let revoked = "revoked spiffe://example.org/prod/agent/support-01, 1 certificate, record ";
    let [first, last] = told.lines().collect::<Vec<_>>()[..] else {
        panic!("{told}")
    };
    let record: u64 = first.strip_prefix(revoked).unwrap().parse().unwrap();
    assert!(last.starts_with("in force at 0 of 0 enforcers, "), "{told}");
    assert!(last.ends_with(" ms"), "{told}");
    // Nothing new is written the second time.
    let again = lab.agentca(&["revoke", "support-01"]).done();
    let already = "spiffe://example.org/prod/agent/support-01 was revoked already, record ";
    assert!(
        again.starts_with(&format!("{already}{record}\n")),
        "{again}"
    );
    assert!(
        again.contains("\nin force at 0 of 0 enforcers, "),
        "{again}"
    );
    let again = lab.agentca(&["revoke", "support-01", "--json"]).json();
    assert_eq!(again["already"], again["agents"]);
    assert_eq!(again["record"], record);
    lab.agentca(&["renew", "out"]).fails(1, &["revoked"]);
    let again = ["issue", "support-01", "--out", "out", "--force"];
    let before = lab.read("out/agent.crt");
    lab.agentca(&again).fails(1, &["revoked", "reinstate"]);
    assert_eq!(lab.read("out/agent.crt"), before);

    lab.agentca(&["reinstate", "support-01"]).done();
    lab.agentca(&again).done();
    lab.agentca(&["renew", "out"]).done();
    lab.agentca(&["reinstate", "support-01"])
        .fails(1, &["support-01"]);
}

#[test]
fn one_certificate_or_a_whole_owner_can_be_revoked() {
    let lab = Lab::serving();
    lab.issue("support-01", "a");
    lab.issue("support-02", "b");
    let serial = lab.agentca(&["inspect", "a/agent.crt", "--json"]).json()[0]["serial"].clone();
    // As openssl prints it.
    let printed = serial.as_str().unwrap().to_uppercase();
    let told = lab
        .agentca(&["revoke", "--serial", &printed, "--json"])
        .json();
    assert_eq!(told["certificates"], 1);
    assert_eq!(told["lagging"], serde_json::json!([]));
    let shown = lab
        .agentca(&["agent", "show", "support-01", "--json"])
        .json();
    assert_eq!(shown["status"], "active");
    assert_eq!(shown["certificates"][0]["status"], "revoked");

    let again = lab.agentca(&["revoke", "--serial", &printed]).done();
    assert!(again.contains("was revoked already, record "), "{again}");

    lab.agentca(&["revoke", "support-02"]).done();
    let told = lab
        .agentca(&["revoke", "--owner", "alice@example.org"])
        .done();
    assert!(
        told.contains("revoked spiffe://example.org/prod/agent/support-01\n"),
        "{told}"
    );
    assert!(
        told.contains("/prod/agent/support-02 was revoked already\n"),
        "{told}"
    );
    assert!(
        told.contains("ended 0 certificates, newest record "),
        "{told}"
    );
    let agents = lab.agentca(&["agent", "list", "--json"]).json();
    assert!(
        agents
            .as_array()
            .unwrap()
            .iter()
            .all(|a| a["status"] == "revoked"),
        "{agents}"
    );
}

#[test]
fn the_crl_names_what_was_revoked() {
    let lab = Lab::serving();
    lab.issue("support-01", "out");
    let names = ["--certificate", "out/agent.crt", "--root", "out/ca.crt"];
    let get = [&["crl", "get", "--json"], &names[..]].concat();
    let before = lab.agentca(&get).json();
    assert_eq!(before["revoked"], 0);
    lab.agentca(&["revoke", "support-01"]).done();
    lab.until("the CRL is signed again", || {
        lab.agentca(&get).json()["revoked"] == 1
    });
    let after = lab.agentca(&get).json();
    assert!(after["number"].as_u64() > before["number"].as_u64());

    lab.agentca(&[&["crl", "get", "--out", "list.crl"], &names[..]].concat())
        .done();
    let crl = [
        "crl", "-inform", "DER", "-in", "list.crl", "-noout", "-text",
    ];
    assert!(lab.tool("openssl", &crl).contains("Revoked Certificates"));
    let foreign = Lab::empty();
    foreign
        .agentca(&["init", "--trust-domain", "example.org", "--data", "pki"])
        .done();
    let root = foreign.admin().join("ca.crt");
    let other = [
        "--certificate",
        "out/agent.crt",
        "--root",
        root.to_str().unwrap(),
    ];
    assert_eq!(lab.agentca(&[&["crl", "get"], &other[..]].concat()).code, 1);
}

#[test]
fn renewal_replaces_key_and_certificate_and_runs_the_command() {
    let lab = Lab::serving();
    lab.issue("support-01", "out");
    let (key, certificate) = (lab.read("out/agent.key"), lab.read("out/agent.crt"));
    let hook = "cp out/agent.crt seen.crt";
    lab.agentca(&["renew", "out", "--exec", hook]).done();
    assert_ne!(lab.read("out/agent.key"), key);
    assert_ne!(lab.read("out/agent.crt"), certificate);
    assert_eq!(lab.read("seen.crt"), lab.read("out/agent.crt"));
    assert_eq!(lab.files("out"), ["agent.crt", "agent.key", "ca.crt"]);
    assert_eq!(lab.mode("out/agent.key"), 0o600);
    lab.agentca(&["renew", "out", "--exec", "exit 3"])
        .fails(1, &["renewed", "exit 3"]);
    lab.agentca(&["renew", "pki"]).fails(1, &["pki"]);
}

#[test]
fn the_daemon_renews_before_the_end_and_ends_when_told() {
    let lab = Lab::serving();
    lab.issue("support-01", "grant");
    lab.agentca(&["issue", "support-01", "--ttl", "6s", "--out", "out"])
        .done();
    let first = lab.read("out/agent.crt");
    let said = std::fs::File::create(lab.path("said")).unwrap();
    let mut daemon = lab
        .command(&["renew", "out", "--daemon", "--exec", "echo >> runs"])
        .stdout(said)
        .spawn()
        .unwrap();
    lab.until("renewed twice", || {
        std::fs::read_to_string(lab.path("runs")).is_ok_and(|runs| runs.lines().count() >= 2)
    });
    assert_ne!(lab.read("out/agent.crt"), first);
    lab.tool("kill", &["-TERM", &daemon.id().to_string()]);
    assert!(daemon.wait().unwrap().success());
    let said = lab.read("said");
    let mut lines = said.lines();
    for begins in [
        "next renewal of out at 20",
        "renewed spiffe://",
        "next renewal of out at 20",
    ] {
        assert!(lines.next().unwrap().starts_with(begins), "{said}");
    }
}
