use super::*;
use crate::certificate::{AgentIdentity, Subject};
use crate::crypto::{KeyKind, PrivateKey};
use crate::grant::GrantViolation;
use crate::scope::ScopeSet;
use crate::testing::{Files, Forge, HOUR, Pki, agent, crl_uri, grant, key, origin, run, scopes};
use crate::time::Timestamp;
use crate::trust::TrustLevel;

#[test]
fn every_kind_of_certificate_is_issued_and_read_back() {
    for kind in [KeyKind::P256, KeyKind::Ed25519] {
        let pki = Pki::with(kind, Pen::new(54321).unwrap());
        let subject_key = key(kind);
        let certificate = pki.agent(&subject_key);
        assert_eq!(certificate.subject(), &Subject::Agent(agent()));
        assert_eq!(certificate.pen().unwrap().get(), 54321);
        assert_eq!(certificate.not_before(), pki.now - BACKDATE);
        for certificate in [
            pki.enforcer(&subject_key),
            pki.person(&subject_key),
            pki.authority(&subject_key),
            pki.log_signer(&subject_key),
        ] {
            assert_eq!(certificate.public_key(), subject_key.public_key());
        }
    }
}

fn prepare(change: impl FnOnce(&mut AgentIdentity)) -> Result<Prepared, ProfileError> {
    let pki = Pki::new();
    let mut identity = agent();
    change(&mut identity);
    let key = key(KeyKind::P256);
    let validity = Validity::starting(pki.now, HOUR);
    let template = Template::agent(identity, &grant(), key.public_key(), validity, crl_uri());
    pki.issuing.prepare(template)
}

#[test]
fn an_agent_stays_within_its_grant() {
    assert!(prepare(|_| {}).is_ok());
    let wide = prepare(|agent| agent.scopes = scopes(&["refunds:read"]));
    assert!(matches!(
        wide,
        Err(ProfileError::Grant(GrantViolation::Scope(_)))
    ));
    let high = prepare(|agent| agent.trust = TrustLevel::L4);
    assert!(matches!(
        high,
        Err(ProfileError::Grant(GrantViolation::Trust { .. }))
    ));

    let pki = Pki::new();
    let key = key(KeyKind::P256);
    let long = pki.agent_template(&key, Validity::starting(pki.now, HOUR + BACKDATE));
    assert!(matches!(
        pki.issuing.prepare(long),
        Err(ProfileError::Grant(GrantViolation::Lifetime { .. }))
    ));
    // Milliseconds of the clock make a lifetime neither longer nor shorter.
    let odd = Timestamp::from_millis(pki.now.millis() + 999);
    pki.issuing
        .prepare(pki.agent_template(&key, Validity::starting(odd, HOUR)))
        .unwrap();
}

#[test]
fn wrong_subjects_are_not_certified() {
    let wrong = prepare(|agent| agent.uri = "spiffe://example.org/person/a".parse().unwrap());
    assert!(matches!(wrong, Err(ProfileError::Profile(_))));
    let foreign = prepare(|agent| {
        agent.uri = "spiffe://example.com/prod/agent/a".parse().unwrap();
        agent.lineage.clear();
    });
    assert!(matches!(foreign, Err(ProfileError::TrustDomain)));
    let crossing =
        prepare(|agent| agent.uri = "spiffe://example.com/prod/agent/a".parse().unwrap());
    assert!(matches!(crossing, Err(ProfileError::Profile(_))));
    let many = prepare(|agent| {
        let one = |prefix: &'static str| (0..128).map(move |n| format!("{prefix}:{n}"));
        let set = |texts: Vec<String>| {
            ScopeSet::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
        };
        let left = set(one("mcp")
            .chain(["payments:*".to_owned()])
            .skip(1)
            .collect());
        let right = set(one("payments")
            .chain(["mcp:*".to_owned()])
            .skip(1)
            .collect());
        agent.scopes = left.intersect(&right);
        assert!(agent.scopes.len() > ScopeSet::MAX);
    });
    assert!(matches!(many, Err(ProfileError::Profile(_))));
}

#[test]
fn each_ca_certifies_its_own_kind() {
    let pki = Pki::new();
    let key = key(KeyKind::P256);
    let validity = Validity::starting(pki.now, HOUR);
    let agent = || pki.agent_template(&key, validity);
    let signer = || Template::log_signer(origin(), key.public_key(), validity);
    let below = || Template::issuing_ca("example.org".parse().unwrap(), key.public_key(), validity);
    for (issuer, template) in [
        (&pki.root, agent()),
        (&pki.signer, agent()),
        (&pki.root, signer()),
        (&pki.issuing, signer()),
        (&pki.issuing, below()),
        (&pki.signer, below()),
    ] {
        assert!(matches!(
            issuer.prepare(template),
            Err(ProfileError::WrongIssuer)
        ));
    }
    let own = pki.agent_template(pki.issuing.key(), validity);
    assert!(matches!(
        pki.issuing.prepare(own),
        Err(ProfileError::IssuersKey)
    ));
    let eternal = Validity::starting(pki.now, lifetime::ISSUING_CA + Duration::from_secs(1));
    let eternal = Template::log_signer(origin(), key.public_key(), eternal);
    assert!(matches!(
        pki.signer.prepare(eternal),
        Err(ProfileError::OutlivesIssuer)
    ));
    let capped = Validity::starting(pki.now, lifetime::ROOT)
        .until_at_most(pki.signer.certificate().not_after());
    let capped = Template::log_signer(origin(), key.public_key(), capped);
    assert!(pki.signer.prepare(capped).is_ok());
}

#[test]
fn an_issuer_is_a_ca_with_its_key() {
    let pki = Pki::new();
    let pen = Pen::DOCUMENTATION;
    let subject_key = key(KeyKind::P256);
    let leaf = pki.agent(&subject_key);
    assert_eq!(
        Issuer::new(leaf, subject_key, pen).unwrap_err(),
        ProfileError::NotACa
    );
    let issuing = pki.issuing.certificate().clone();
    let stranger = key(KeyKind::P256);
    assert_eq!(
        Issuer::new(issuing, stranger, pen).unwrap_err(),
        ProfileError::WrongKey
    );
    let signer = pki.signer.certificate().clone();
    let other = Issuer::new(signer, pki.signer.key().clone(), Pen::new(1).unwrap());
    assert!(matches!(other, Err(ProfileError::Differs(_))));
}

#[test]
fn bytes_from_another_road_are_judged_the_same() {
    let pki = Pki::new();
    let key = key(KeyKind::P256);
    let template = pki.agent_template(&key, Validity::starting(pki.now, HOUR));
    let certificate = pki.issue(template.clone());
    let issuer = pki.issuing.certificate();
    let pen = Pen::DOCUMENTATION;
    let tbs = Forge::from(&certificate).tbs();
    assert_eq!(judge(&tbs, &template, issuer, pen), Ok(()));

    let mut other_serial = Forge::from(&certificate);
    other_serial.fields[1][3] ^= 1;
    let result = judge(&other_serial.tbs(), &template, issuer, pen);
    assert_eq!(result, Err(ProfileError::Differs("serial number")));
    let trusted =
        Forge::from(&certificate).replace(&oid::Own::Trust.oid(pen), None, &[0x02, 0x01, 0x03]);
    let result = judge(&trusted.tbs(), &template, issuer, pen);
    assert_eq!(result, Err(ProfileError::Differs("subject")));
    let result = judge(&tbs, &template, issuer, Pen::new(1).unwrap());
    assert_eq!(
        result,
        Err(ProfileError::Differs("private enterprise number"))
    );
    let result = judge(&tbs, &template, Pki::new().issuing.certificate(), pen);
    assert_eq!(result, Err(ProfileError::WrongIssuer));
    assert!(matches!(
        judge(&tbs[1..], &template, issuer, pen),
        Err(ProfileError::Profile(_))
    ));
}

#[test]
fn requests_prove_possession() {
    for kind in [KeyKind::P256, KeyKind::Ed25519] {
        let key = key(kind);
        let request = csr::make(&key).unwrap();
        assert_eq!(csr::read(&request).unwrap(), *key.public_key());
        let files = Files::new();
        let path = files.write("request.pem", csr::to_pem(&request));
        let output = run(&format!("req -verify -noout -in {path}"));
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(csr::from_pem(&csr::to_pem(&request)).unwrap(), request);
        for at in 0..request.len() {
            let mut bytes = request.clone();
            bytes[at] ^= 1;
            assert!(csr::read(&bytes).is_err(), "byte {at}");
            assert!(csr::read(&request[..at]).is_err());
        }
    }
}

#[test]
fn only_the_key_leaves_openssls_requests() {
    let files = Files::new();
    for algorithm in ["EC -pkeyopt ec_paramgen_curve:P-256", "ED25519"] {
        let key_path = files.path("key.pem");
        assert!(
            run(&format!("genpkey -algorithm {algorithm} -out {key_path}"))
                .status
                .success()
        );
        let text = std::fs::read_to_string(&key_path).unwrap();
        let key = PrivateKey::from_pem(&text).unwrap();
        let output = run(&format!(
            "req -new -key {key_path} -subj /CN=mallory/O=evil -addext subjectAltName=DNS:evil.example \
             -addext basicConstraints=critical,CA:TRUE"
        ));
        let request = csr::from_pem(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
        assert_eq!(csr::read(&request).unwrap(), *key.public_key());
    }
    let rsa = run("req -new -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=a");
    let request = csr::from_pem(std::str::from_utf8(&rsa.stdout).unwrap()).unwrap();
    assert!(matches!(csr::read(&request), Err(csr::CsrError::Crypto(_))));
    assert_eq!(
        csr::read(&[0x30; csr::MAX_LEN + 1]),
        Err(csr::CsrError::TooLarge)
    );
}

#[test]
fn pens_are_numbers_from_one() {
    assert_eq!("32473".parse(), Ok(Pen::DOCUMENTATION));
    assert!(Pen::default().is_documentation());
    for wrong in ["0", "", "-1", "4294967296", "x"] {
        assert_eq!(wrong.parse::<Pen>(), Err(PenError), "{wrong}");
    }
}
