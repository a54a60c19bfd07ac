//! What the TLS layer says, asked with openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

use agentca_tests::clients::{openssl, python};
use agentca_tests::lab::{Enforcer, Lab};
use agentca_tests::program::Said;
use agentca_tests::{log, wait};

/// Everything openssl has to say about a connection that asks for one account.
fn s_client(lab: &Lab, enforcer: &Enforcer, options: &[&str]) -> Said {
    let mut command = lab.command("openssl");
    command
        .args([
            "s_client",
            "-connect",
            &enforcer.address().to_string(),
            "-servername",
            "localhost",
        ])
        .args([
            "-ign_eof",
            "-verify_return_error",
            "-verify_hostname",
            "localhost",
            "-CAfile",
        ])
        .arg(enforcer.root())
        .args(options);
    let request = b"GET /v1/accounts/7 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    Said::from_with_input(command, request)
}

fn credential(agent: &Path) -> [String; 6] {
    let file = |name: &str| agent.join(name).display().to_string();
    // openssl wants what follows the leaf in a file of its own.
    let chain = std::fs::read_to_string(agent.join("agent.crt")).unwrap();
    let issuer = chain.rfind("-----BEGIN").unwrap();
    std::fs::write(agent.join("issuer.crt"), &chain[issuer..]).unwrap();
    [
        "-cert".into(),
        file("agent.crt"),
        "-cert_chain".into(),
        file("issuer.crt"),
        "-key".into(),
        file("agent.key"),
    ]
}

fn as_agent(lab: &Lab, enforcer: &Enforcer, agent: &Path, options: &[&str]) -> Said {
    let credential = credential(agent);
    let credential: Vec<&str> = credential.iter().map(String::as_str).collect();
    s_client(lab, enforcer, &[&credential, options].concat())
}

#[track_caller]
fn must_be_alerted(said: &Said, alert: &str) {
    assert!(
        said.stderr.contains(&format!("SSL alert number {alert}\n")),
        "not alert {alert}: {said}"
    );
    assert!(
        !said.stdout.contains("HTTP/1.1"),
        "an answer besides the alert: {said}"
    );
}

#[test]
fn alerts_tell_why_and_are_recorded() {
    let lab = Lab::with_authority();
    let good = lab.agent("support-01");
    let expired = lab.agent_with("expired-01", &["--ttl", "1s"]);
    let revoked = lab.agent("revoked-01");
    let enforcer = lab.enforcer("edge-1");
    lab.revoke("revoked-01", "superseded");
    let foreign_lab = Lab::with_authority();
    let foreign = foreign_lab.agent("support-01");

    let said = as_agent(&lab, &enforcer, &good, &[]);
    assert!(said.stdout.contains("HTTP/1.1 200"), "{said}");
    assert!(said.stdout.contains("TLSv1.3"), "{said}");
    must_be_alerted(&as_agent(&lab, &enforcer, &revoked, &[]), "44");
    wait::until("the certificate expires", || {
        as_agent(&lab, &enforcer, &expired, &[])
            .stderr
            .contains("SSL alert number 45\n")
            .then_some(())
    });
    must_be_alerted(&as_agent(&lab, &enforcer, &foreign, &[]), "48");
    must_be_alerted(&s_client(&lab, &enforcer, &[]), "116");
    must_be_alerted(&as_agent(&lab, &enforcer, &good, &["-tls1_2"]), "70");
    wait::until("refused handshakes are recorded", || {
        let refused = log::of_kind(&enforcer.log(), "handshake-refused");
        let text = refused
            .iter()
            .map(ToString::to_string)
            .collect::<String>()
            .to_lowercase();
        ["revoked", "expired"]
            .iter()
            .all(|reason| text.contains(reason))
            .then_some(())
    });
}

#[test]
fn nobody_but_agents_may_call() {
    let lab = Lab::with_authority();
    let enforcer = lab.enforcer("edge-1");
    // The enforcer's own certificate, and a log signer's, in the form of an agent's credential.
    for (number, name) in ["tls", "log", "response"].iter().enumerate() {
        let folder = lab.path(&format!("impostor-{number}"));
        std::fs::create_dir(&folder).unwrap();
        for (from, to) in [("crt", "agent.crt"), ("key", "agent.key")] {
            std::fs::copy(lab.path(&format!("edge-1/{name}.{from}")), folder.join(to)).unwrap();
        }
        let said = as_agent(&lab, &enforcer, &folder, &[]);
        assert!(said.stderr.contains("SSL alert number"), "{said}");
        assert!(!said.stdout.contains("HTTP/1.1"), "{said}");
    }
}

#[test]
fn sessions_are_never_resumed() {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    let enforcer = lab.enforcer("edge-1");
    let session = lab.path("session").display().to_string();
    let said = as_agent(&lab, &enforcer, &agent, &["-sess_out", &session]);
    assert!(said.stdout.contains("HTTP/1.1 200"), "{said}");
    assert!(!said.stdout.contains("Session Ticket arrived"), "{said}");
    assert!(!lab.path("session").exists(), "nothing to resume with");
}

#[test]
fn certificates_are_what_openssl_calls_valid() {
    let lab = Lab::with_authority();
    let agent = lab.agent_with("support-01", &["--scope", "payments:read,mcp:github:get_*"]);
    lab.add_enforcer("edge-1");
    let root = lab.root().display().to_string();
    for (file, purpose) in [
        (agent.join("agent.crt"), "sslclient"),
        (lab.path("edge-1/tls.crt"), "sslserver"),
        (lab.path("edge-1/log.crt"), "any"),
        (lab.path("edge-1/response.crt"), "any"),
    ] {
        let chain = file.display().to_string();
        let said = openssl(
            &lab,
            &[
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-CAfile",
                &root,
                "-untrusted",
                &chain,
                &chain,
            ],
        );
        assert!(
            said.code == Some(0) && said.stdout.contains(": OK"),
            "{chain}: {said}"
        );
    }
    let text = openssl(
        &lab,
        &[
            "x509",
            "-in",
            &agent.join("agent.crt").display().to_string(),
            "-noout",
            "-text",
        ],
    )
    .must_succeed();
    for part in [
        "URI:spiffe://example.org/prod/agent/support-01",
        "Digital Signature",
        "TLS Web Client Authentication",
        "1.3.6.1.4.1.32473.1.1",
        "1.3.6.1.4.1.32473.1.5",
        &format!("URI:http://{}/crl/", lab.http()),
    ] {
        assert!(text.stdout.contains(part), "no {part}: {text}");
    }
    // And the CRL that the certificate names is one for openssl, signed by the issuer in its chain.
    let crl = text
        .stdout
        .split("URI:")
        .find(|part| part.contains("/crl/"))
        .unwrap();
    let crl = crl.split_whitespace().next().unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-sSf", crl, "-o"]).arg(lab.path("shard.crl"));
    Said::from(curl).must_succeed();
    lab.revoke("support-01", "key-compromise");
    let (crl_file, chain) = (
        lab.path("shard.crl").display().to_string(),
        agent.join("agent.crt").display().to_string(),
    );
    let before = openssl(
        &lab,
        &[
            "verify",
            "-crl_check",
            "-CRLfile",
            &crl_file,
            "-CAfile",
            &root,
            "-untrusted",
            &chain,
            &chain,
        ],
    );
    assert!(
        before.code == Some(0),
        "the old list does not have it yet: {before}"
    );
    wait::until("the certificate is in the CRL", || {
        let mut curl = Command::new("curl");
        curl.args(["-sSf", crl, "-o"]).arg(&crl_file);
        Said::from(curl).must_succeed();
        let said = openssl(
            &lab,
            &[
                "verify",
                "-crl_check",
                "-CRLfile",
                &crl_file,
                "-CAfile",
                &root,
                "-untrusted",
                &chain,
                &chain,
            ],
        );
        said.stderr.contains("certificate revoked").then_some(())
    });
}

/// A certificate made with the authority's own issuing key behind its back.
pub(crate) fn forge_with_stolen_issuing_key(lab: &Lab, name: &str) -> PathBuf {
    let model = lab.agent("model-01").display().to_string();
    let forged = lab.path(name);
    let out = forged.display().to_string();
    let key = lab.path("pki/keys/issuing.key").display().to_string();
    python(lab, "forge.py", &[&key, &model, &out]).must_succeed();
    forged
}
