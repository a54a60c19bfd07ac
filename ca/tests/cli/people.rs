//! People and what their roles allow.

use crate::lab::Lab;

#[test]
fn a_person_may_do_what_their_roles_allow() {
    let lab = Lab::serving();
    lab.agentca(&[
        "person",
        "add",
        "bob",
        "--role",
        "responder",
        "--out",
        "bob",
    ])
    .done();
    assert_eq!(lab.files("bob"), ["ca.crt", "person.crt", "person.key"]);
    assert_eq!(lab.mode("bob/person.key"), 0o600);
    lab.issue("support-01", "out");

    let bob = ["--credentials", "bob"];
    let issue = [
        "issue", "other", "--owner", "bob", "--scope", "a:b", "--trust", "L1",
    ];
    lab.agentca(&[&issue[..], &["--out", "x"], &bob].concat())
        .fails(1, &["role"]);
    assert!(!lab.path("x").exists());
    lab.agentca(&[&["revoke", "support-01"], &bob[..]].concat())
        .done();
    lab.agentca(&["person", "add", "eve", "--role", "owner", "--out", "eve"])
        .fails(2, &["owner"]);
    lab.agentca(&["person", "add", "eve", "--out", "eve"])
        .fails(2, &["--role"]);
}

#[test]
fn a_person_renews_their_own() {
    let lab = Lab::serving();
    let folder = lab.admin();
    let before = std::fs::read_to_string(folder.join("person.crt")).unwrap();
    lab.agentca(&["renew", folder.to_str().unwrap()]).done();
    assert_ne!(
        std::fs::read_to_string(folder.join("person.crt")).unwrap(),
        before
    );
    lab.agentca(&["agent", "list"]).done();
}

#[test]
fn an_agent_is_no_person_and_a_stranger_is_nobody() {
    let lab = Lab::serving();
    lab.issue("support-01", "out");
    // An agent's certificate in a person's clothes.
    for (from, to) in [("agent.crt", "person.crt"), ("agent.key", "person.key")] {
        std::fs::copy(lab.path("out").join(from), lab.path("out").join(to)).unwrap();
    }
    assert_eq!(
        lab.agentca(&["agent", "list", "--credentials", "out"]).code,
        1
    );

    let stranger = Lab::empty();
    stranger
        .agentca(&["init", "--trust-domain", "example.org", "--data", "pki"])
        .done();
    let credentials = stranger.admin();
    let theirs = [
        "agent",
        "list",
        "--credentials",
        credentials.to_str().unwrap(),
    ];
    lab.agentca(&theirs)
        .fails(1, &["is not the authority of this credential"]);
}

#[test]
fn a_folder_that_is_not_a_person_s_is_told_apart() {
    let lab = Lab::serving();
    lab.issue("support-01", "out");
    let list = |folder: &str| lab.agentca(&["agent", "list", "--credentials", folder]);
    list("out").fails(1, &["out is the folder of an agent", "agentca person add"]);
    list("out/agent.crt").fails(1, &["is a file", "folder"]);
    list("nowhere").fails(1, &["no folder nowhere"]);
    list("pki").fails(1, &["no person.crt in pki", "--credentials"]);
    lab.agentca(&["renew", "out/agent.crt"])
        .fails(1, &["is a file", "folder"]);
}

#[test]
fn an_expired_certificate_is_told_apart_from_an_authority_that_is_away() {
    let lab = Lab::serving();
    lab.issue("support-01", "grant");
    lab.agentca(&["issue", "support-01", "--ttl", "1s", "--out", "out"])
        .done();
    let inspect = ["inspect", "out/agent.crt", "--json"];
    lab.until("it has expired", || {
        lab.agentca(&inspect).json()[0]["validity"] == "expired"
    });
    lab.agentca(&["renew", "out"])
        .fails(1, &["ended at", "issued again"]);
    for (from, to) in [("agent.crt", "person.crt"), ("agent.key", "person.key")] {
        std::fs::copy(lab.path("out").join(from), lab.path("out").join(to)).unwrap();
    }
    lab.agentca(&["agent", "list", "--credentials", "out"])
        .fails(1, &["has expired"]);
}
