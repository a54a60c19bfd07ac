//! The commands as people type them: files, exit codes, what they print.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use agentca_tests::lab::{Lab, ROUTES};
use agentca_tests::program::ours;
use agentca_tests::wait;
use serde_json::Value;

#[test]
fn init_makes_an_authority_once() {
    let lab = Lab::new();
    for path in private_keys(&lab.path("pki")) {
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            path.display()
        );
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .contains("BEGIN PRIVATE KEY"),
            "{}",
            path.display()
        );
    }
    for part in ["agentca.toml", "keys", "log"] {
        assert!(lab.path("pki").join(part).exists(), "{part}");
    }
    let again = lab.try_agentca(&["init", "--trust-domain", "example.org", "--data", "pki"]);
    assert!(again.code != Some(0), "never overwrites: {again}");
    assert!(
        lab.path("config/agentca").is_dir(),
        "the first person's credential"
    );
}

fn private_keys(data: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(data.join("keys"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let keys: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|e| e == "key"))
        .collect();
    assert!(keys.len() >= 4, "root, issuing, signer, log: {keys:?}");
    keys
}

#[test]
fn keys_can_be_encrypted() {
    let mut lab = Lab::new();
    std::fs::write(lab.path("passphrase"), "correct horse\n").unwrap();
    lab.agentca(&[
        "init",
        "--trust-domain",
        "example.org",
        "--data",
        "pki2",
        "--passphrase-file",
        "passphrase",
    ]);
    for path in private_keys(&lab.path("pki2")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("BEGIN ENCRYPTED PRIVATE KEY"),
            "{}",
            path.display()
        );
    }
    std::fs::remove_dir_all(lab.path("pki")).unwrap();
    std::fs::rename(lab.path("pki2"), lab.path("pki")).unwrap();
    let mut without = lab.launch_authority();
    assert!(!without.wait().success(), "{}", without.printed());
    let (grpc, http) = (lab.grpc().to_string(), lab.http().to_string());
    let mut serve = lab.command(ours("agentca"));
    serve.args([
        "serve",
        "--data",
        "pki",
        "--listen",
        &grpc,
        "--http-listen",
        &http,
        "--passphrase-file",
        "passphrase",
    ]);
    lab.start_authority_by(serve);
}

#[test]
fn issued_files_are_complete_private_and_not_overwritten() {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    assert_eq!(
        agent
            .join("agent.key")
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    let chain = std::fs::read_to_string(agent.join("agent.crt")).unwrap();
    assert_eq!(
        chain.matches("BEGIN CERTIFICATE").count(),
        2,
        "the leaf, then its issuer"
    );
    let root = std::fs::read_to_string(agent.join("ca.crt")).unwrap();
    assert_eq!(root.matches("BEGIN CERTIFICATE").count(), 1);
    assert_eq!(
        root.trim(),
        std::fs::read_to_string(lab.root()).unwrap().trim()
    );
    let again = lab.try_agentca(&["issue", "support-01", "--out", "support-01"]);
    assert!(again.code != Some(0), "{again}");
    assert_eq!(
        std::fs::read_to_string(agent.join("agent.crt")).unwrap(),
        chain
    );
    lab.agentca(&["issue", "support-01", "--out", "support-01", "--force"]);
    assert_ne!(
        std::fs::read_to_string(agent.join("agent.crt")).unwrap(),
        chain
    );
    lab.add_enforcer("edge-1");
    for file in [
        "tls.crt",
        "tls.key",
        "log.crt",
        "log.key",
        "response.crt",
        "response.key",
        "feed.toml",
        "ca.crt",
    ] {
        let path = lab.path("edge-1").join(file);
        let mode = path
            .metadata()
            .unwrap_or_else(|error| panic!("{file}: {error}"))
            .permissions()
            .mode();
        assert!(
            !file.ends_with(".key") || mode & 0o777 == 0o600,
            "{file} {mode:o}"
        );
    }
}

#[test]
fn a_grant_bounds_what_is_issued() {
    let lab = Lab::with_authority();
    lab.agent("support-01");
    for wider in [
        ["--scope", "payments:write"],
        ["--trust", "L3"],
        ["--ttl", "3000h"],
    ] {
        let issue = ["issue", "support-01", "--out", "wider", wider[0], wider[1]];
        lab.try_agentca(&issue).must_end_with(1);
        assert!(!lab.path("wider/agent.crt").exists());
    }
    lab.agentca(&["agent", "grant", "support-01", "--scope", "payments:*"]);
    lab.agentca(&[
        "issue",
        "support-01",
        "--out",
        "wider",
        "--scope",
        "payments:write",
    ]);
}

#[test]
fn a_csr_keeps_the_key_with_the_agent() {
    let lab = Lab::with_authority();
    let mut openssl = lab.command("openssl");
    openssl.args([
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "own.key",
        "-subj",
        "/CN=admin/O=root",
        "-addext",
        "basicConstraints=CA:TRUE",
        "-out",
        "own.csr",
    ]);
    agentca_tests::program::Said::from(openssl).must_succeed();
    let agent = lab.agent_with("support-01", &["--csr", "own.csr"]);
    assert!(!agent.join("agent.key").exists());
    let said = lab.agentca(&["inspect", "support-01/agent.crt"]);
    assert!(
        said.stdout.contains("payments:read") && said.stdout.contains("L2"),
        "{said}"
    );
    std::fs::copy(lab.path("own.key"), agent.join("agent.key")).unwrap();
    let enforcer = lab.enforcer("edge-1");
    assert_eq!(
        enforcer
            .connect(&agent)
            .unwrap()
            .get("/v1/accounts/7")
            .unwrap()
            .status,
        200
    );
    // A revoked key is never certified again, for nobody.
    lab.revoke("support-01", "key-compromise");
    let other = [
        "issue",
        "other-01",
        "--owner",
        "o@example.org",
        "--scope",
        "payments:read",
        "--trust",
        "L1",
        "--csr",
        "own.csr",
        "--out",
        "other-01",
    ];
    lab.try_agentca(&other).must_end_with(1);
}

#[test]
fn lists_are_json_and_names_are_unambiguous() {
    let lab = Lab::with_authority();
    lab.agent("support-01");
    lab.agent_with("both-01", &[]);
    lab.agent_with("both-01", &["--env", "staging", "--out", "both-staging"]);
    lab.revoke("support-01", "cessationOfOperation");
    let said = lab.agentca(&["agent", "list", "--json"]);
    let list: Vec<Value> = serde_json::from_str(&said.stdout).unwrap();
    let found = list
        .iter()
        .find(|agent| agent["name"] == "support-01")
        .unwrap();
    assert_eq!(found["environment"], "prod");
    assert_eq!(found["owner"], "alice@example.org");
    assert_eq!(found["scopes"], serde_json::json!(["payments:read"]));
    assert_eq!(found["trust"], "L2");
    assert_eq!(found["status"], "revoked");
    assert_eq!(found["certificates"].as_array().unwrap().len(), 1);
    let said = lab
        .try_agentca(&["revoke", "both-01", "--reason", "superseded"])
        .must_end_with(2);
    assert!(
        said.stderr.contains("prod/both-01") && said.stderr.contains("staging/both-01"),
        "{said}"
    );
    lab.revoke("staging/both-01", "superseded");
    let said = lab.agentca(&["agent", "show", "prod/both-01", "--json"]);
    let shown: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(shown["status"], "active", "the one in prod is untouched");
}

#[test]
fn exit_codes_say_what_happened() {
    let mut lab = Lab::with_authority();
    lab.agent("support-01");
    lab.try_agentca(&["nonsense"]).must_end_with(2);
    lab.try_agentca(&["issue", "UPPER", "--out", "x"])
        .must_end_with(2);
    lab.try_agentca(&["revoke", "nobody-01", "--reason", "superseded"])
        .must_end_with(1);
    lab.try_agentca(&["agent", "list", "--url", &format!("https://{}:1", lab.ip())])
        .must_end_with(3);
    // Not in force everywhere: the enforcer is there and does not confirm.
    let enforcer = lab.enforcer("edge-1");
    enforcer.program.signal("STOP");
    let said = lab
        .try_agentca(&["revoke", "support-01", "--reason", "superseded"])
        .must_end_with(4);
    assert!(
        format!("{said}").contains("edge-1"),
        "names who lags: {said}"
    );
    enforcer.program.signal("CONT");
    assert!(lab.take_authority().terminate().success());
    lab.try_agentca(&["agent", "list"]).must_end_with(3);
}

#[test]
fn an_enforcer_is_told_apart_from_the_authority() {
    let lab = Lab::with_authority();
    let enforcer = lab.enforcer("edge-1");
    let listed = lab.agentca(&["enforcer", "list"]);
    assert!(listed.stdout.contains("connected"), "{listed}");
    let url = format!("https://{}", enforcer.address());
    let said = lab
        .try_agentca(&["agent", "list", "--url", &url])
        .must_end_with(1);
    assert!(
        said.stderr.contains("is not the authority") && said.stderr.contains("an enforcer"),
        "{said}"
    );
}

#[test]
fn a_second_enforcer_on_the_same_folder_says_so() {
    let lab = Lab::with_authority();
    let _first = lab.enforcer("edge-1");
    let mut second = lab.launch_enforcer("edge-1");
    assert!(!second.program.wait().success());
    let said = second.program.printed();
    assert!(said.contains("another process runs on"), "{said}");
}

#[test]
fn renewal_is_by_the_certificate_in_hand() {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    let before = std::fs::read(agent.join("agent.crt")).unwrap();
    lab.agentca(&["renew", "support-01"]);
    assert_ne!(std::fs::read(agent.join("agent.crt")).unwrap(), before);
    let enforcer = lab.enforcer("edge-1");
    assert_eq!(
        enforcer
            .connect(&agent)
            .unwrap()
            .get("/v1/accounts/7")
            .unwrap()
            .status,
        200
    );
    lab.agentca(&["renew", "edge-1"]);
    enforcer.program.signal("HUP");
    wait::until("it serves with its new certificates", || {
        (enforcer
            .connect(&agent)
            .ok()?
            .get("/v1/accounts/7")
            .ok()?
            .status
            == 200)
            .then_some(())
    });
    lab.revoke("support-01", "superseded");
    lab.try_agentca(&["renew", "support-01"]).must_end_with(1);
    let (log, root) = (
        enforcer.log().display().to_string(),
        lab.root().display().to_string(),
    );
    assert!(enforcer.program.terminate().success());
    lab.agentca(&["log", "verify", &log, "--root", &root]);
}

#[test]
fn a_reload_is_all_or_nothing() {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    let mut enforcer = lab.enforcer("edge-1");
    let rule = |path: &str| enforcer.connect(&agent).unwrap().get(path).unwrap().rule();
    assert_eq!(rule("/v3/new"), "not-in-catalogue");
    let new = "[[route]]\nupstream = \"payments\"\nmethods = [\"GET\"]\npath = \"/v3/new\"\nscope = \"payments:read\"\nmin_trust = \"L4\"\nrisk = \"read\"\n";
    lab.write_configuration("edge-1", "", &format!("{ROUTES}{new}"));
    // The change of the file is enough.
    wait::until("the new route is known", || {
        (rule("/v3/new") == "trust").then_some(())
    });
    lab.write_configuration("edge-1", "", &format!("{ROUTES}{new}nonsense = 1\n"));
    enforcer.program.signal("HUP");
    let said =
        |enforcer: &agentca_tests::lab::Enforcer| enforcer.program.printed().contains("nonsense");
    wait::until("the refusal is loud", || said(&enforcer).then_some(()));
    assert_eq!(rule("/v3/new"), "trust", "the last good one stays in force");
    enforcer.program.must_be_running();
    drop(enforcer);
    let mut refused = lab.launch_enforcer("edge-1");
    assert!(
        !refused.program.wait().success(),
        "with none at start, it refuses to start"
    );
}

#[test]
fn the_authority_s_health_is_public_and_its_records_are_not() {
    let lab = Lab::with_authority();
    lab.agent("support-01");
    let get = |path: &str| {
        let mut curl = lab.command("curl");
        curl.args([
            "-s",
            "-o",
            "got",
            "-w",
            "%{http_code}",
            &format!("http://{}{path}", lab.http()),
        ]);
        agentca_tests::program::Said::from(curl).stdout
    };
    for path in [
        "/healthz",
        "/metrics",
        "/ca.crt",
        "/checkpoint",
        "/crl/0.crl",
    ] {
        assert_eq!(get(path), "200", "{path}");
    }
    for path in [
        "/tile/entries/000",
        "/log/segments",
        "/keys/root.key",
        "/../pki/keys/root.key",
    ] {
        assert_ne!(get(path), "200", "{path}");
    }
}
