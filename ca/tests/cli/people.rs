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
    lab.agentca(&["renew", "out"]).fails(
        1,
        &[
            "ended at",
            "`agentca issue prod/support-01 --out out --force`",
        ],
    );
    for (from, to) in [("agent.crt", "person.crt"), ("agent.key", "person.key")] {
        std::fs::copy(lab.path("out").join(from), lab.path("out").join(to)).unwrap();
    }
    lab.agentca(&["agent", "list", "--credentials", "out"])
        .fails(1, &["has expired"]);
}

#[test]
fn whoever_holds_the_data_comes_back_in() {
    let mut lab = Lab::serving();
    let recover = [
        "person", "recover", "admin", "--data", "pki", "--out", "back",
    ];
    lab.agentca(&recover)
        .fails(1, &["another process runs", "end that one"]);
    assert!(!lab.path("back").exists());
    lab.stop();
    // Everybody's credential is gone.
    std::fs::remove_dir_all(lab.path("config")).unwrap();
    lab.agentca(&recover).done();
    assert_eq!(lab.files("back"), ["ca.crt", "person.crt", "person.key"]);
    assert_eq!(lab.mode("back/person.key"), 0o600);
    lab.agentca(&["log", "verify", "pki/log", "--root", "back/ca.crt"])
        .done();
    lab.serve();
    let add = ["person", "add", "bob", "--role", "issuer", "--out", "bob"];
    lab.agentca(&[&add[..], &["--credentials", "back"]].concat())
        .done();
    let said = lab.agentca(&["log", "show", "pki/log", "--json"]).done();
    let recovered = said.lines().filter(|line| {
        line.contains("person-added") && line.contains("\"by\":\"spiffe://example.org/ca\"")
    });
    assert_eq!(recovered.count(), 2, "at init, and now: {said}");
}

#[test]
fn the_last_admin_stays_until_there_is_another() {
    let lab = Lab::serving();
    let folder = lab.admin();
    let file = folder.join("person.crt");
    let inspect = ["inspect", file.to_str().unwrap(), "--json"];
    let serial = |lab: &Lab| {
        let said = lab.agentca(&inspect).json();
        said[0]["serial"].as_str().unwrap().to_owned()
    };
    let first = serial(&lab);
    lab.agentca(&["revoke", "--serial", &first])
        .fails(1, &["nobody could administer", "agentca renew"]);
    lab.agentca(&["person", "remove", "admin"])
        .fails(1, &["nobody could administer"]);
    lab.agentca(&["renew", folder.to_str().unwrap()]).done();
    lab.agentca(&["revoke", "--serial", &first]).done();
    lab.agentca(&["agent", "list"]).done();
}

#[test]
fn people_are_listed_changed_and_removed() {
    let lab = Lab::serving();
    let add = [
        "person",
        "add",
        "bob",
        "--role",
        "responder",
        "--out",
        "bob",
    ];
    let told = lab.agentca(&add).done();
    assert!(!told.contains("their roles were"), "{told}");
    let wider = ["person", "add", "bob", "--role", "issuer,auditor"];
    let told = lab
        .agentca(&[&wider[..], &["--out", "bob", "--force"]].concat())
        .done();
    let says = "their roles were responder, and are auditor, issuer from now on";
    assert!(told.contains(says), "{told}");
    let listed = lab.agentca(&["person", "list", "--json"]).json();
    assert_eq!(listed[0]["name"], "admin");
    assert_eq!(listed[1]["roles"], serde_json::json!(["auditor", "issuer"]));
    assert_eq!(listed[1]["certificates"].as_array().unwrap().len(), 2);
    let table = lab.agentca(&["person", "list"]).done();
    assert!(table.contains("bob") && table.contains("2 of 2"), "{table}");

    lab.agentca(&["revoke", "bob"])
        .fails(1, &["no agent bob", "agentca person remove bob"]);
    lab.agentca(&["person", "remove", "admin", "--credentials", "bob"])
        .fails(1, &["role"]);
    lab.agentca(&["person", "remove", "bob"]).done();
    assert_eq!(
        lab.agentca(&["person", "list", "--credentials", "bob"])
            .code,
        1
    );
    lab.agentca(&["renew", "bob"]).fails(1, &[]);
    let shown = lab.agentca(&["person", "show", "bob", "--json"]).json();
    assert_eq!(shown["status"], "removed");
    let certificates = shown["certificates"].as_array().unwrap();
    assert!(certificates.iter().all(|it| it["status"] == "revoked"));
    lab.agentca(&["person", "remove", "bob"])
        .fails(1, &["was removed already"]);
    lab.agentca(&["person", "show", "nobody"])
        .fails(1, &["nobody", "person list"]);
    let again = ["person", "add", "bob", "--role", "responder"];
    lab.agentca(&[&again[..], &["--out", "bob", "--force"]].concat())
        .done();
    lab.agentca(&["person", "list", "--credentials", "bob"])
        .done();
}
