//! The authority's own log, read offline.

use std::fs;

use crate::lab::Lab;

#[test]
fn a_running_log_verifies_and_a_changed_one_does_not() {
    let mut lab = Lab::serving();
    lab.issue("support-01", "out");
    let verify = ["log", "verify", "pki/log", "--root", "out/ca.crt"];
    lab.agentca(&verify).done();
    lab.stop();
    let report = lab.agentca(&[&verify[..], &["--json"]].concat()).json();
    assert_eq!(report["origin"], "example.org/ca");
    assert!(report["size"].as_u64() > Some(3), "{report}");

    fs::copy(lab.path("pki/log/checkpoint"), lab.path("seen")).unwrap();
    lab.serve();
    lab.issue("support-02", "out2");
    lab.stop();
    lab.agentca(&[&verify[..], &["--checkpoint", "seen"]].concat())
        .done();

    let segment = lab
        .path("pki/log/segments")
        .join(&lab.files("pki/log/segments")[0]);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[200] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let refused = lab.agentca(&verify);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(!refused.stderr.is_empty());
}

#[test]
fn another_root_verifies_nothing() {
    let lab = Lab::serving();
    lab.issue("support-01", "out");
    let other = Lab::empty();
    other
        .agentca(&["init", "--trust-domain", "example.org", "--data", "pki"])
        .done();
    let root = other.admin().join("ca.crt");
    let verify = ["log", "verify", "pki/log", "--root", root.to_str().unwrap()];
    assert_eq!(lab.agentca(&verify).code, 1);
    for no_root in ["out", "out/agent.crt", "nowhere.crt"] {
        lab.agentca(&["log", "verify", "pki/log", "--root", no_root])
            .fails(1, &["is no root certificate", no_root, "give the ca.crt"]);
    }
    let vkey = ["log", "vkey", "pki/log", "--root", root.to_str().unwrap()];
    assert_eq!(lab.agentca(&vkey).code, 1);
}

#[test]
fn a_folder_that_is_no_log_is_told_from_a_damaged_one() {
    let lab = Lab::empty();
    lab.agentca(&["init", "--trust-domain", "example.org", "--data", "pki"])
        .done();
    let root = lab.admin().join("ca.crt");
    let root = ["--root", root.to_str().unwrap()];
    for command in [
        &["log", "show", "pki/keys"][..],
        &[&["log", "verify", "pki/keys"], &root[..]].concat(),
        &[&["log", "vkey", "pki/keys"], &root[..]].concat(),
        &[&["log", "prove", "1", "--log", "pki/keys"], &root[..]].concat(),
    ] {
        let refused = lab.agentca(command);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(
            refused.stderr.contains("is not the directory of a log"),
            "{refused:?}"
        );
    }
}

#[test]
fn records_can_be_shown() {
    let mut lab = Lab::serving();
    lab.issue("support-01", "out");
    lab.stop();
    let all = lab.agentca(&["log", "show", "pki/log", "--json"]).done();
    let records: Vec<serde_json::Value> = all
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record["seq"], index);
    }
    assert_eq!(records[0]["kind"], "log-opened");
    assert!(records.iter().any(|r| r["kind"] == "certificate-issued"));
    let two = lab
        .agentca(&["log", "show", "pki/log", "--from", "1", "--count", "2"])
        .done();
    assert_eq!(two.lines().count(), 2, "{two}");
    assert!(two.starts_with("1 "), "{two}");
}

#[test]
fn beyond_the_end_the_size_is_said_or_more_is_waited_for() {
    let mut lab = Lab::serving();
    lab.issue("support-01", "out");
    lab.stop();
    let all = lab.agentca(&["log", "show", "pki/log"]).done();
    let size = all.lines().count();
    let show = |from: &str| lab.agentca(&["log", "show", "pki/log", "--from", from]);
    let says = format!("has {size} records, 0 to {}", size - 1);
    for from in [size.to_string(), "1000000".to_owned()] {
        let none = format!("none from {from} on");
        show(&from).fails(1, &[&says, &none, "--follow"]);
    }
    let newest = show(&(size - 1).to_string()).done();
    assert_eq!(newest.lines().count(), 1, "{newest}");
    // Whoever waits gets the record when it is there.
    let from = size.to_string();
    let follow = [
        "log", "show", "pki/log", "--follow", "--count", "1", "--from", &from,
    ];
    let waiting = lab
        .command(&follow)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    lab.serve();
    lab.issue("support-02", "out2");
    let waited = waiting.wait_with_output().unwrap();
    assert!(waited.status.success(), "{waited:?}");
    assert!(waited.stdout.starts_with(from.as_bytes()), "{waited:?}");
}

#[test]
fn a_record_is_proven_to_whoever_has_the_root() {
    let mut lab = Lab::serving();
    lab.issue("support-01", "out");
    lab.stop();
    let root = ["--root", "out/ca.crt"];
    let files = ["--out", "1.proof", "--record", "1.json"];
    lab.agentca(&[&["log", "prove", "pki/log", "1"], &root[..], &files].concat())
        .done();
    let other_order = [
        "log",
        "prove",
        "1",
        "--log",
        "pki/log",
        "--out",
        "again.proof",
    ];
    lab.agentca(&[&other_order[..], &root].concat()).done();
    assert_eq!(lab.read("1.proof"), lab.read("again.proof"));

    let verify = ["log", "verify-proof", "1.proof", "--record", "1.json"];
    lab.agentca(&[&verify[..], &root].concat()).done();
    fs::write(
        lab.path("1.json"),
        lab.read("1.json").replace("\"seq\":1", "\"seq\":2"),
    )
    .unwrap();
    lab.agentca(&[&verify[..], &root].concat())
        .fails(1, &["1.proof proves nothing about 1.json"]);
    let beyond = ["log", "prove", "pki/log", "1000000"];
    assert_eq!(lab.agentca(&[&beyond[..], &root].concat()).code, 1);

    let vkey = lab
        .agentca(&[&["log", "vkey", "pki/log"], &root[..]].concat())
        .done();
    assert!(vkey.starts_with("example.org/ca+"), "{vkey}");
    assert_eq!(vkey.lines().count(), 1);
}
