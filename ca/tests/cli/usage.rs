//! What is wrong before anybody is asked: usage, overwriting, an authority that is not there.

use std::fs;
use std::net::TcpListener;
use std::process::Stdio;

use crate::lab::{Lab, said};

const INIT: [&str; 5] = ["init", "--trust-domain", "example.org", "--data", "pki"];

#[test]
fn init_makes_an_authority_and_its_first_person_and_overwrites_neither() {
    let lab = Lab::empty();
    let made = lab.agentca(&INIT);
    assert!(
        made.stderr.contains("warning") && made.stderr.contains("0600"),
        "{made:?}"
    );
    made.done();
    assert_eq!(
        lab.files(lab.admin().to_str().unwrap()),
        ["ca.crt", "person.crt", "person.key"]
    );
    let admin = lab.admin();
    let in_admin = |name: &str| admin.join(name).to_str().unwrap().to_owned();
    assert_eq!(lab.mode(&in_admin("")), 0o700);
    assert_eq!(lab.mode(&in_admin("person.key")), 0o600);
    let config = lab.read("pki/agentca.toml");

    lab.agentca(&INIT).fails(1, &["pki", "never overwritten"]);
    assert_eq!(lab.read("pki/agentca.toml"), config);
    assert_eq!(lab.admin(), admin);
}

#[test]
fn a_second_authority_becomes_the_default_and_says_how_to_go_back() {
    let lab = Lab::empty();
    lab.agentca(&INIT).done();
    let first = lab.admin();
    let second = ["init", "--trust-domain", "example.net", "--data", "pki2"];
    let told = lab.agentca(&second).done();
    assert_ne!(lab.admin(), first);
    assert!(first.join("person.key").exists());
    let name = first.file_name().unwrap().to_str().unwrap();
    assert!(told.contains(&format!("echo {name} >")), "{told}");
}

#[test]
fn init_can_keep_its_credential_elsewhere() {
    let lab = Lab::empty();
    let elsewhere = ["--credentials", "elsewhere", "--admin", "carol"];
    lab.agentca(&[&INIT[..], &elsewhere].concat()).done();
    assert_eq!(
        lab.files("elsewhere"),
        ["ca.crt", "person.crt", "person.key"]
    );
    assert!(!lab.path("config").exists());
    let shown = lab
        .agentca(&["inspect", "elsewhere/person.crt", "--json"])
        .json();
    assert_eq!(shown[0]["uri"], "spiffe://example.org/person/carol");
    assert_eq!(shown[0]["roles"].as_array().unwrap().len(), 4);
}

#[test]
fn nonsense_is_a_usage_error() {
    let lab = Lab::empty();
    for arguments in [
        &["frobnicate"][..],
        &["init", "--trust-domain", "Example.org", "--data", "pki"],
        &[
            "init",
            "--trust-domain",
            "example.org",
            "--data",
            "pki",
            "--pen",
            "0",
        ],
        &["issue", "Support", "--out", "out"],
        &["issue", "support", "--scope", "*", "--out", "out"],
        &["issue", "support", "--ttl", "soon", "--out", "out"],
        &["issue", "staging/support", "--env", "prod", "--out", "out"],
        &["issue", "support", "--trust", "L9", "--out", "out"],
        &["revoke"],
        &["revoke", "support", "--owner", "alice@example.org"],
        &["revoke", "support", "--reason", "boredom"],
        &["agent", "grant", "support"],
        &["enforcer", "add", "edge-1", "--out", "out"],
        &[
            "revoke",
            "--serial",
            "3f0a6c1d2b4e5f60718293a4b5c6d7e8",
            "--owner",
            "alice",
        ],
        &["agent", "list", "--url", "http://127.0.0.1:7443"],
        &[
            "crl",
            "get",
            "https://example.org/crl/0.crl",
            "--certificate",
            "x",
        ],
        &["log", "prove", "log", "--root", "ca.crt"],
    ] {
        let said = lab.agentca(arguments);
        assert_eq!(said.code, 2, "{arguments:?}: {said:?}");
        assert!(!said.stderr.is_empty(), "{arguments:?}");
    }
    assert!(lab.files("").is_empty());
}

#[test]
fn what_is_missing_is_listed_at_once() {
    let lab = Lab::empty();
    lab.agentca(&["enforcer", "add", "edge-1"])
        .fails(2, &["--out <DIR>", "--dns <NAME>|--ip <ADDRESS>"]);
    lab.agentca(&["revoke"])
        .fails(2, &["AGENT|--serial <HEX>|--owner <OWNER>"]);
    lab.agentca(&["person", "add", "bob"])
        .fails(2, &["--out <DIR>", "--role <ROLE>"]);
}

#[test]
fn every_command_has_help_with_examples() {
    let lab = Lab::empty();
    for command in [
        &["init"][..],
        &["serve"],
        &["issue"],
        &["renew"],
        &["revoke"],
        &["reinstate"],
        &["agent"],
        &["agent", "list"],
        &["agent", "show"],
        &["agent", "grant"],
        &["enforcer"],
        &["enforcer", "add"],
        &["enforcer", "list"],
        &["enforcer", "remove"],
        &["person"],
        &["person", "add"],
        &["inspect"],
        &["crl"],
        &["crl", "get"],
        &["log"],
        &["log", "verify"],
        &["log", "show"],
        &["log", "prove"],
        &["log", "verify-proof"],
        &["log", "verify-disclosure"],
        &["log", "vkey"],
        &["completions"],
        &[],
    ] {
        let help = lab.agentca(&[command, &["--help"]].concat()).done();
        let example = format!("agentca {}", command.join(" "));
        assert!(
            help.contains("Example") && help.contains(&example),
            "{command:?}: {help}"
        );
    }
    assert!(
        lab.agentca(&["completions", "bash"])
            .done()
            .contains("agentca")
    );
}

#[test]
fn without_a_credential_the_next_step_is_said() {
    let lab = Lab::empty();
    lab.agentca(&["agent", "list"])
        .fails(1, &["agentca init", "--credentials"]);
    // A pointer to nothing is something else.
    lab.agentca(&INIT).done();
    let folder = lab.admin();
    let name = folder.file_name().unwrap().to_str().unwrap();
    for broken in ["nonsense", &"0".repeat(64)] {
        std::fs::write(lab.path("config/agentca/default"), broken).unwrap();
        lab.agentca(&["agent", "list"])
            .fails(1, &["config/agentca/default names no credential", name]);
    }
}

#[test]
fn a_configuration_that_is_wrong_is_a_usage_error() {
    let lab = Lab::empty();
    lab.agentca(&[&INIT[..], &["--public-url", "nonsense"]].concat())
        .fails(2, &["--public-url"]);
    lab.agentca(&["serve", "--data", "pki"])
        .fails(2, &["pki/agentca.toml", "agentca init"]);
    lab.agentca(&INIT).done();
    let key = lab.path("pki/keys/issuing.key");
    std::fs::rename(&key, lab.path("away")).unwrap();
    lab.agentca(&["serve", "--data", "pki"])
        .fails(2, &["issuing.key"]);
    std::fs::rename(lab.path("away"), &key).unwrap();
    std::fs::write(lab.path("pki/agentca.toml"), "lissten = 1").unwrap();
    lab.agentca(&["serve", "--data", "pki"])
        .fails(2, &["lissten"]);
}

#[test]
fn nobody_there_exits_3_and_says_where_and_what_to_start() {
    let lab = Lab::empty();
    lab.agentca(&INIT).done();
    lab.agentca(&["agent", "list"])
        .fails(3, &[&lab.url(), "agentca serve"]);
    let crl = format!("http://{}/crl/0.crl", lab.http());
    lab.agentca(&["crl", "get", &crl])
        .fails(3, &["could not reach"]);
    // Nothing is left of what could not be asked for.
    lab.agentca(&["issue", "support", "--owner", "a", "--out", "deep/out"])
        .fails(3, &[]);
    assert!(!lab.path("deep").exists());
}

#[test]
fn somebody_else_there_is_not_the_authority() {
    let lab = Lab::empty();
    lab.agentca(&INIT).done();
    let listener = TcpListener::bind(lab.grpc()).unwrap();
    let answering = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
    });
    lab.agentca(&["agent", "list"])
        .fails(1, &["is not the authority"]);
    answering.join().unwrap();
}

#[test]
fn the_plain_http_port_is_told_apart_from_the_authority_s() {
    let lab = Lab::serving();
    let url = format!("https://{}", lab.http());
    lab.agentca(&["agent", "list", "--url", &url]).fails(
        1,
        &[
            &url,
            "does not speak TLS",
            "`agentca serve --listen`",
            "7443",
        ],
    );
}

#[test]
fn a_folder_in_use_and_an_address_in_use_are_told_apart() {
    let lab = Lab::serving();
    let serve = ["serve", "--data", "pki", "--listen"];
    let (grpc, free) = (lab.grpc().to_string(), "127.0.0.1:0");
    lab.agentca(&[&serve[..], &[free, "--http-listen", free]].concat())
        .fails(1, &["another process runs on `pki`", "agentca serve"]);
    lab.agentca(&[&serve[..], &[&grpc, "--http-listen", free]].concat())
        .fails(1, &[&grpc, "--listen"]);
}

#[test]
fn what_is_logged_is_understood_or_refused() {
    let lab = Lab::empty();
    lab.agentca(&INIT).done();
    let mut serve = lab.command(&["serve", "--data", "pki"]);
    said(serve.env("AGENTCA_LOG", "agentca=loud")).fails(2, &["AGENTCA_LOG", "agentca=debug"]);
}

#[test]
fn what_cannot_be_written_is_named_as_it_was_given() {
    let lab = Lab::empty();
    // Nobody makes folders there.
    let init = [
        "init",
        "--trust-domain",
        "example.org",
        "--data",
        "/proc/pki",
    ];
    lab.agentca(&init)
        .fails(1, &["could not write `/proc/pki`"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let lab = Lab::empty();
    let mut child = lab
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn without_a_home_it_says_so() {
    let lab = Lab::empty();
    let mut command = lab.command(&["agent", "list"]);
    said(command.env_remove("HOME").env_remove("XDG_CONFIG_HOME")).fails(1, &["--credentials"]);
}

#[test]
fn files_are_checked_before_anybody_is_asked() {
    let lab = Lab::empty();
    lab.agentca(&INIT).done();
    fs::create_dir(lab.path("out")).unwrap();
    fs::write(lab.path("out/ca.crt"), "mine").unwrap();
    // There is no authority, and still the answer is about the file.
    let issue = [
        "issue", "support", "--owner", "a", "--scope", "a:b", "--trust", "L1",
    ];
    lab.agentca(&[&issue[..], &["--out", "out"]].concat())
        .fails(1, &["ca.crt", "--force"]);
    let add = [
        "enforcer",
        "add",
        "edge-1",
        "--dns",
        "localhost",
        "--out",
        "out",
    ];
    lab.agentca(&add).fails(1, &["ca.crt", "--force"]);
    assert_eq!(lab.files("out"), ["ca.crt"]);
    assert_eq!(lab.read("out/ca.crt"), "mine");
}
