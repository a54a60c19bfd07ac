//! Keys stay where they are made, and may be encrypted.

use std::fs;

use crate::lab::Lab;

#[test]
fn with_a_request_the_key_stays_with_the_agent() {
    let lab = Lab::serving();
    lab.tool(
        "openssl",
        &["genpkey", "-algorithm", "ED25519", "-out", "mine.key"],
    );
    let make = [
        "req",
        "-new",
        "-key",
        "mine.key",
        "-subj",
        "/CN=ignored",
        "-out",
        "mine.csr",
    ];
    lab.tool("openssl", &make);
    let rights = [
        "--owner", "a", "--scope", "a:b", "--trust", "L1", "--csr", "mine.csr",
    ];
    lab.agentca(&[&["issue", "robot"], &rights[..], &["--out", "out"]].concat())
        .done();
    assert_eq!(lab.files("out"), ["agent.crt", "ca.crt"]);
    assert_eq!(
        lab.tool("openssl", &["pkey", "-in", "mine.key", "-pubout"]),
        lab.tool(
            "openssl",
            &["x509", "-in", "out/agent.crt", "-noout", "-pubkey"]
        )
    );
    lab.tool(
        "openssl",
        &[
            "req", "-in", "mine.csr", "-outform", "DER", "-out", "mine.der",
        ],
    );
    let der = ["issue", "robot", "--csr", "mine.der", "--out", "der"];
    lab.agentca(&der).done();
    let subject = lab.tool(
        "openssl",
        &["x509", "-in", "der/agent.crt", "-noout", "-subject"],
    );
    assert!(!subject.contains("ignored"), "{subject}");
}

#[test]
fn a_request_without_proof_of_possession_is_refused() {
    let lab = Lab::serving();
    lab.tool(
        "openssl",
        &["genpkey", "-algorithm", "ED25519", "-out", "mine.key"],
    );
    let make = [
        "req", "-new", "-key", "mine.key", "-subj", "/", "-outform", "DER", "-out", "r",
    ];
    lab.tool("openssl", &make);
    let mut request = fs::read(lab.path("r")).unwrap();
    *request.last_mut().unwrap() ^= 1;
    fs::write(lab.path("r"), request).unwrap();
    let rights = [
        "--owner", "a", "--scope", "a:b", "--trust", "L1", "--csr", "r", "--out", "o",
    ];
    lab.agentca(&[&["issue", "robot"], &rights[..]].concat())
        .fails(1, &["request"]);
    assert!(!lab.path("o").exists());
}

#[test]
fn ed25519_keys_can_be_asked_for() {
    let lab = Lab::serving();
    let rights = [
        "--owner",
        "a",
        "--scope",
        "a:b",
        "--trust",
        "L1",
        "--key-type",
        "ed25519",
    ];
    lab.agentca(&[&["issue", "robot"], &rights[..], &["--out", "out"]].concat())
        .done();
    let text = lab.tool(
        "openssl",
        &["pkey", "-in", "out/agent.key", "-noout", "-text"],
    );
    assert!(text.to_uppercase().contains("ED25519"), "{text}");
}

#[test]
fn encrypted_keys_need_their_passphrase() {
    let mut lab = Lab::empty();
    fs::write(lab.path("passphrase"), "correct horse\n").unwrap();
    fs::write(lab.path("wrong"), "battery staple\n").unwrap();
    let init = ["init", "--trust-domain", "example.org", "--data", "pki"];
    let made = lab.agentca(&[&init[..], &["--passphrase-file", "passphrase"]].concat());
    assert!(!made.stderr.contains("not encrypted"), "{made:?}");
    made.done();
    let key = lab.admin().join("person.key");
    assert!(
        fs::read_to_string(&key)
            .unwrap()
            .contains("BEGIN ENCRYPTED PRIVATE KEY")
    );
    for file in lab.files("pki/keys") {
        let text = lab.read(&format!("pki/keys/{file}"));
        assert!(!text.contains("BEGIN PRIVATE KEY"), "{file}");
    }

    lab.agentca(&["serve", "--data", "pki"])
        .fails(2, &["is encrypted", "--passphrase-file"]);
    lab.agentca(&["serve", "--data", "pki", "--passphrase-file", "wrong"])
        .fails(2, &[]);
    lab.serve_with(&["--passphrase-file", "passphrase"]);
    // The credential remembers where its passphrase is.
    lab.issue("support-01", "out");
    assert!(lab.read("out/agent.key").contains("BEGIN PRIVATE KEY"));
    lab.agentca(&["agent", "list", "--passphrase-file", "wrong"])
        .fails(1, &["person.key"]);

    let folder = lab.admin();
    lab.agentca(&["renew", folder.to_str().unwrap()]).done();
    assert!(
        fs::read_to_string(&key)
            .unwrap()
            .contains("BEGIN ENCRYPTED PRIVATE KEY")
    );
    lab.agentca(&["agent", "list"]).done();
    fs::rename(lab.path("passphrase"), lab.path("moved")).unwrap();
    lab.agentca(&["agent", "list"])
        .fails(1, &["cannot be read", "passphrase-file names that file"]);
    fs::rename(lab.path("moved"), lab.path("passphrase")).unwrap();
    fs::remove_file(folder.join("passphrase-file")).unwrap();
    lab.agentca(&["agent", "list"])
        .fails(1, &["encrypted", "--passphrase-file"]);
    lab.agentca(&["agent", "list", "--passphrase-file", "passphrase"])
        .done();
}

#[test]
fn a_passphrase_file_that_holds_none_is_refused() {
    let lab = Lab::empty();
    let init = ["init", "--trust-domain", "example.org", "--data"];
    lab.agentca(&[&init[..], &["plain"]].concat()).done();
    fs::write(lab.path("empty"), "").unwrap();
    fs::write(lab.path("blank"), "\ncorrect horse\n").unwrap();
    for (file, why) in [
        ("nowhere", "cannot be read (No such file"),
        ("empty", "is empty"),
        ("blank", "begins with an empty line"),
    ] {
        let says = [
            "the passphrase file",
            file,
            why,
            "its first line has to be the passphrase",
        ];
        let given = ["--passphrase-file", file];
        lab.agentca(&[&init[..], &["pki"], &given].concat())
            .fails(1, &says);
        lab.agentca(&[&["serve", "--data", "plain"], &given[..]].concat())
            .fails(2, &says);
        lab.agentca(&[&["agent", "list"], &given[..]].concat())
            .fails(1, &says);
    }
    assert!(!lab.path("pki").exists());
}
