use std::time::Duration;

use super::*;
use crate::testing::Pki;

const DAY: Duration = Duration::from_secs(86_400);

fn folder() -> (Pki, tempfile::TempDir) {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    pki.write(dir.path(), DAY);
    (pki, dir)
}

fn load(dir: &Path) -> Result<Credentials, CredentialsError> {
    Credentials::load(dir, &"prod".parse().unwrap(), Timestamp::now())
}

fn refusal(dir: &Path) -> String {
    load(dir).unwrap_err().to_string()
}

#[test]
fn a_good_folder_loads() {
    let (pki, dir) = folder();
    let credentials = load(dir.path()).unwrap();
    assert_eq!(
        credentials.id().to_string(),
        "spiffe://example.org/prod/enforcer/edge-1"
    );
    assert_eq!(credentials.issuers, [pki.issuing.certificate().clone()]);
    assert_eq!(credentials.anchor.pen(), Some(pki.root.pen()));
    assert_eq!(credentials.witness_key.name(), "example.org/ca/witness");
}

#[test]
fn every_missing_file_is_named_with_what_to_run() {
    for name in FILES {
        let (_, dir) = folder();
        std::fs::remove_file(dir.path().join(name)).unwrap();
        let text = refusal(dir.path());
        assert!(
            text.contains(name) && text.contains("agentca enforcer add"),
            "{text}"
        );
    }
}

#[test]
fn expired_certificates_say_how_to_renew() {
    let (_, dir) = folder();
    let later = Timestamp::now() + DAY + DAY;
    let error = Credentials::load(dir.path(), &"prod".parse().unwrap(), later).unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("enforcer add") && told.contains("--force"),
        "{told}"
    );
    let origin: LogOrigin = "example.org/prod/enforcer/edge-1".parse().unwrap();
    for (name, origin) in [
        ("log", origin.clone()),
        ("response", origin.response().unwrap()),
    ] {
        let (mut pki, dir) = folder();
        pki.now = Timestamp::now() - DAY;
        pki.write_signer(dir.path(), name, &origin, Duration::from_secs(3_600));
        let text = refusal(dir.path());
        assert!(
            text.contains(&format!("{name}.crt")) && text.contains("renew"),
            "{text}"
        );
    }
}

#[test]
fn keys_and_certificates_must_fit() {
    for (from, to) in [
        ("tls", "log"),
        ("log", "response"),
        ("response", "log"),
        ("log", "tls"),
    ] {
        for end in ["key", "crt"] {
            let (_, dir) = folder();
            let at = |name: &str| dir.path().join(format!("{name}.{end}"));
            std::fs::copy(at(from), at(to)).unwrap();
            assert!(load(dir.path()).is_err(), "{from}.{end} as {to}.{end}");
        }
    }
}

#[test]
fn another_pki_or_environment_is_refused() {
    let (_, dir) = folder();
    let error = Credentials::load(dir.path(), &"dev".parse().unwrap(), Timestamp::now());
    let said = error.unwrap_err().to_string();
    for says in [
        "spiffe://example.org/prod/enforcer/edge-1",
        "environment = \"dev\"",
        "agentca enforcer add NAME --env dev",
    ] {
        assert!(said.contains(says), "{said}");
    }
    let (_, other) = folder();
    for name in ["ca.crt", "tls.crt", "log.crt", "feed.toml", "signers.pem"] {
        let (_, dir) = folder();
        std::fs::copy(other.path().join(name), dir.path().join(name)).unwrap();
        assert!(load(dir.path()).is_err(), "{name}");
    }
}
