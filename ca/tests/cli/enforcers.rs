//! Enrolling, listing, renewing and removing enforcers.

use crate::lab::Lab;

const ADD: [&str; 10] = [
    "enforcer",
    "add",
    "edge-1",
    "--env",
    "prod",
    "--dns",
    "localhost",
    "--ip",
    "127.0.0.1",
    "--out",
];

#[test]
fn an_enforcer_gets_everything_it_needs() {
    let lab = Lab::serving();
    lab.agentca(&[&ADD[..], &["edge-1"]].concat()).done();
    assert_eq!(
        lab.files("edge-1"),
        [
            "ca.crt",
            "feed.toml",
            "issuers.pem",
            "log.crt",
            "log.key",
            "response.crt",
            "response.key",
            "signers.pem",
            "tls.crt",
            "tls.key",
        ]
    );
    // The one issuing CA there is: the second certificate of its own chain.
    let issuers = lab.read("edge-1/issuers.pem");
    assert_eq!(issuers.matches("BEGIN CERTIFICATE").count(), 1);
    assert!(lab.read("edge-1/tls.crt").ends_with(&issuers));
    assert_eq!(lab.mode("edge-1"), 0o700);
    for key in ["edge-1/tls.key", "edge-1/log.key", "edge-1/response.key"] {
        assert_eq!(lab.mode(key), 0o600);
    }
    let verify = [
        "verify",
        "-x509_strict",
        "-CAfile",
        "edge-1/ca.crt",
        "-untrusted",
    ];
    for certificate in ["edge-1/tls.crt", "edge-1/log.crt", "edge-1/response.crt"] {
        lab.tool(
            "openssl",
            &[&verify[..], &[certificate, certificate]].concat(),
        );
    }
    let feed = lab.read("edge-1/feed.toml");
    let feed: toml::Table = feed.parse().unwrap();
    assert_eq!(
        feed["enforcer"].as_str(),
        Some("spiffe://example.org/prod/enforcer/edge-1")
    );
    assert_eq!(feed["authority_origin"].as_str(), Some("example.org/ca"));
    assert_eq!(
        feed["log_origin"].as_str(),
        Some("example.org/prod/enforcer/edge-1")
    );
    assert!(
        feed["authority_vkey"]
            .as_str()
            .unwrap()
            .starts_with("example.org/ca+")
    );
    assert!(
        feed["witness_vkey"]
            .as_str()
            .unwrap()
            .starts_with("example.org/ca/witness+")
    );
    assert!(
        feed["checkpoint"]
            .as_str()
            .unwrap()
            .starts_with("example.org/ca\n")
    );
    assert_eq!(
        lab.read("edge-1/signers.pem")
            .matches("BEGIN CERTIFICATE")
            .count(),
        4
    );

    lab.agentca(&[&ADD[..], &["edge-1"]].concat())
        .fails(1, &["--force"]);
    lab.agentca(&[&ADD[..], &["other"]].concat())
        .fails(1, &["edge-1"]);
    assert!(!lab.path("other").exists());
}

#[test]
fn lists_say_who_is_there() {
    let lab = Lab::serving();
    assert_eq!(
        lab.agentca(&["enforcer", "list", "--json"]).json(),
        serde_json::json!([])
    );
    lab.agentca(&[&ADD[..], &["edge-1"]].concat()).done();
    let listed = lab.agentca(&["enforcer", "list", "--json"]).json();
    let enforcer = &listed[0];
    assert_eq!(enforcer["name"], "edge-1");
    assert_eq!(enforcer["environment"], "prod");
    assert_eq!(enforcer["status"], "active");
    assert_eq!(enforcer["connected"], false);
    assert_eq!(enforcer["last_seen"], serde_json::Value::Null);
    assert!(enforcer["newest"].as_u64() > Some(0));
    let table = lab.agentca(&["enforcer", "list"]).done();
    assert!(
        table.contains("edge-1") && table.contains("not since this start"),
        "{table}"
    );

    lab.agentca(&["enforcer", "remove", "edge-1"]).done();
    lab.agentca(&["renew", "edge-1"]).fails(1, &[]);
    lab.agentca(&["enforcer", "remove", "edge-1", "--env", "prod"])
        .fails(1, &["was removed already"]);
    let told = lab
        .agentca(&[&ADD[..], &["edge-1", "--force"]].concat())
        .done();
    assert!(told.contains("a new log: give it a new data_dir"), "{told}");
    lab.agentca(&["enforcer", "remove", "nobody"])
        .fails(1, &["nobody", "enforcer list"]);
}

#[test]
fn all_three_of_an_enforcer_are_renewed() {
    let lab = Lab::serving();
    lab.agentca(&[&ADD[..], &["edge-1"]].concat()).done();
    let read = |name: &str| lab.read(&format!("edge-1/{name}"));
    let names = [
        "tls.crt",
        "log.crt",
        "response.crt",
        "tls.key",
        "response.key",
    ];
    let before = names.map(read);
    let log_key = read("log.key");
    lab.agentca(&["renew", "edge-1"]).done();
    for (name, before) in names.iter().zip(before) {
        assert_ne!(read(name), before, "{name}");
    }
    // A log goes on under its key.
    assert_eq!(read("log.key"), log_key);
    assert_eq!(lab.files("edge-1").len(), 10);
    for name in ["tls", "log", "response"] {
        let (key, certificate) = (format!("edge-1/{name}.key"), format!("edge-1/{name}.crt"));
        assert_eq!(
            lab.tool("openssl", &["pkey", "-in", &key, "-pubout"]),
            lab.tool(
                "openssl",
                &["x509", "-in", &certificate, "-noout", "-pubkey"]
            )
        );
    }
    lab.agentca(&["renew", "edge-1"]).done();
}

#[test]
fn a_lost_log_goes_on_under_a_new_generation() {
    let lab = Lab::serving();
    lab.agentca(&[&ADD[..], &["edge-1"]].concat()).done();
    lab.agentca(&[&ADD[..], &["edge-1", "--new-log", "--force"]].concat())
        .done();
    let feed: toml::Table = lab.read("edge-1/feed.toml").parse().unwrap();
    assert_eq!(
        feed["log_origin"].as_str(),
        Some("example.org/prod/enforcer/edge-1/2")
    );
}

#[test]
fn a_revocation_that_lags_exits_4_and_names_who() {
    let lab = Lab::serving();
    lab.agentca(&[&ADD[..], &["edge-1"]].concat()).done();
    lab.issue("support-01", "out");
    // It was added and never came: nobody has to wait for an enforcer that can't have opened.
    let told = lab.agentca(&["revoke", "support-01", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    let lagging = answer["lagging"].as_array().unwrap();
    if lagging.is_empty() {
        assert_eq!(told.code, 0, "{told:?}");
    } else {
        told.fails(4, &["edge-1"]);
    }
}
