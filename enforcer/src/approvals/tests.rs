use std::path::Path;
use std::time::Duration;

use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::profile::{Template, Validity};
use agentca_identity::roles::{PersonRole, Roles};
use agentca_policy::{Action, Approval, Approved, Pin, PinsFile, Rule, Subject, ToolDefinition};

use super::*;
use crate::testing::{Pki, shard};

const ALICE: &str = "spiffe://example.org/person/alice";

const CONFIG: &str = r#"
environment = "prod"
listen = "127.0.0.1:8443"
authority = "https://127.0.0.1:7443"
identity_dir = "edge-1"
data_dir = "edge-1-data"
[[upstream]]
name = "tools"
kind = "mcp"
url = "http://127.0.0.1:9001/mcp"
[[tool]]
upstream = "tools"
name = "refund"
min_trust = "L2"
risk = "write"
"#;

fn refund() -> ToolDefinition {
    ToolDefinition::parse(r#"{"name":"refund"}"#).unwrap()
}

/// A pin of `refund` that Alice signed, in the file beside the configuration.
fn load(pki: &Pki, roles: &[PersonRole], dir: &Path) -> Config {
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let template = Template::person(
        ALICE.parse().unwrap(),
        roles.iter().copied().collect::<Roles>(),
        key.public_key(),
        Validity::starting(pki.now, Duration::from_secs(60)),
        shard(),
    );
    let leaf = pki.issuing.prepare(template).unwrap().sign().unwrap();
    let chain = [leaf.der(), pki.issuing.certificate().der()].map(<[u8]>::to_vec);
    let definition = refund();
    let subject = Subject {
        upstream: "tools",
        tool: "refund",
        digest: &definition.digest(),
    };
    let said = Approval::new(Action::Approve, subject, "looked at it", pki.now);
    let pin = Pin {
        upstream: "tools".to_owned(),
        definition,
        approved: Approved {
            by: ALICE.to_owned(),
            at: said.at,
            reason: said.reason.clone(),
            statement: Some(said.sign(&key, &chain).unwrap()),
        },
    };
    let file = PinsFile {
        pins: vec![pin],
        ..PinsFile::default()
    };
    std::fs::write(dir.join("enforcer.pins.json"), file.to_json().unwrap()).unwrap();
    std::fs::write(dir.join("enforcer.toml"), CONFIG).unwrap();
    Config::load(&dir.join("enforcer.toml")).unwrap()
}

fn anchor(pki: &Pki) -> TrustAnchor {
    TrustAnchor::from_root_der(pki.root.certificate().der()).unwrap()
}

fn rule(config: &Config, pki: &Pki) -> Option<Rule> {
    let server = config.mcp_catalogue.server("tools").unwrap();
    let tool = server.tool("refund").unwrap();
    let standing = tool.standing(Some(&refund().digest()), pki.now);
    standing.err().map(|refusal| refusal.rule)
}

#[test]
fn what_a_person_approved_counts_once_it_was_verified() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let config = load(&pki, &[PersonRole::Responder], dir.path());
    assert_eq!(rule(&config, &pki), Some(Rule::ToolChanged));
    let config = admit(config, &anchor(&pki)).unwrap();
    assert_eq!(rule(&config, &pki), None);
    // Again, as after a reload that changed nothing.
    let config = admit(config, &anchor(&pki)).unwrap();
    assert_eq!(rule(&config, &pki), None);
}

#[test]
fn a_statement_of_somebody_who_may_not_refuses_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let auditor = load(&pki, &[PersonRole::Auditor], dir.path());
    let admin = load(&pki, &[PersonRole::Admin], dir.path());
    for (config, anchor) in [(auditor, anchor(&pki)), (admin, anchor(&Pki::new()))] {
        let said = admit(config, &anchor).unwrap_err().to_string();
        let begins = format!(
            "{}: pins[1]: ",
            dir.path().join("enforcer.pins.json").display()
        );
        assert!(said.starts_with(&begins), "{said}");
    }
}
