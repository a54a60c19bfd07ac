use super::*;
use crate::crypto::{KeyKind, PrivateKey};
use crate::profile::{Template, Validity, lifetime};
use crate::testing::{Forge, HOUR, Pki, agent_id, crl_uri, key, origin};
use std::time::Duration;

fn verify(
    pki: &Pki,
    leaf: &Certificate,
    issuer: &Certificate,
    role: Role,
) -> Result<VerifiedPeer, PeerError> {
    pki.anchor()
        .verify(&[leaf.der(), issuer.der()], pki.now, role)
}

fn subject_key() -> PrivateKey {
    key(KeyKind::P256)
}

#[test]
fn each_role_is_taken_for_itself_only() {
    let pki = Pki::new();
    let key = subject_key();
    let leaves = [
        (pki.agent(&key), Role::Agent),
        (pki.enforcer(&key), Role::Enforcer),
        (pki.person(&key), Role::Person),
        (pki.authority(&key), Role::Authority),
    ];
    for (leaf, own) in &leaves {
        for role in [
            Role::Agent,
            Role::Enforcer,
            Role::Person,
            Role::Authority,
            Role::LogSigner,
        ] {
            let result = verify(&pki, leaf, pki.issuing.certificate(), role);
            if role == *own {
                let peer = result.unwrap();
                assert_eq!(
                    (peer.role(), peer.fingerprint()),
                    (role, leaf.fingerprint())
                );
                assert_eq!(peer.agent().is_some(), role == Role::Agent);
                assert_eq!(peer.person().is_some(), role == Role::Person);
            } else {
                assert_eq!(result.unwrap_err(), PeerError::WrongRole);
            }
        }
    }
}

#[test]
fn the_shape_is_fixed() {
    let pki = Pki::new();
    let leaf = pki.agent(&subject_key());
    let (root, issuing, signer) = (
        pki.root.certificate(),
        pki.issuing.certificate(),
        pki.signer.certificate(),
    );
    let chain = |chain: &[&Certificate]| {
        let chain: Vec<&[u8]> = chain.iter().map(|certificate| certificate.der()).collect();
        pki.anchor()
            .verify(&chain, pki.now, Role::Agent)
            .map(|_| ())
            .unwrap_err()
    };
    assert_eq!(chain(&[]), PeerError::Shape(0));
    assert_eq!(chain(&[&leaf]), PeerError::Shape(1));
    assert_eq!(chain(&[&leaf, issuing, root]), PeerError::Shape(3));
    assert_eq!(chain(&[&leaf, signer]), PeerError::WrongRole);
    assert_eq!(chain(&[&leaf, root]), PeerError::WrongRole);
    assert_eq!(chain(&[&leaf, &leaf]), PeerError::WrongRole);
    assert_eq!(chain(&[issuing, root]), PeerError::WrongRole);
    assert_eq!(chain(&[issuing, issuing]), PeerError::WrongRole);
    let log_signer = pki.log_signer(&subject_key());
    assert_eq!(chain(&[&log_signer, signer]), PeerError::WrongRole);
    assert_eq!(chain(&[&log_signer, issuing]), PeerError::WrongRole);
}

#[test]
fn a_leaf_cannot_issue() {
    let pki = Pki::new();
    let middle_key = subject_key();
    let middle = pki.agent(&middle_key);
    let leaf = Forge::from(&pki.agent(&subject_key()));
    let leaf = Certificate::parse(&leaf.sign(&middle_key)).unwrap();
    assert_eq!(
        verify(&pki, &leaf, &middle, Role::Agent).unwrap_err(),
        PeerError::WrongRole
    );
    // The right issuer's name and key identifier, somebody else's signature.
    let result = verify(&pki, &leaf, pki.issuing.certificate(), Role::Agent);
    assert_eq!(result.unwrap_err(), PeerError::BadSignature);
}

#[test]
fn other_roots_are_foreign() {
    let (pki, foreign) = (Pki::new(), Pki::new());
    let leaf = foreign.agent(&subject_key());
    let issuing = foreign.issuing.certificate();
    assert_eq!(
        verify(&pki, &leaf, issuing, Role::Agent).unwrap_err(),
        PeerError::UnknownIssuer
    );
    let result = verify(&pki, &leaf, pki.issuing.certificate(), Role::Agent);
    assert_eq!(result.unwrap_err(), PeerError::UnknownIssuer);
    // An intermediate that claims our root, signed by another key.
    let forged = Forge::from(pki.issuing.certificate()).sign(foreign.root.key());
    let ours = pki.agent(&subject_key());
    let chain = [ours.der(), &forged];
    let result = pki.anchor().verify(&chain, pki.now, Role::Agent);
    assert_eq!(result.unwrap_err(), PeerError::BadSignature);
}

#[test]
fn an_anchor_is_a_root_with_its_own_signature() {
    let pki = Pki::new();
    let root = pki.root.certificate();
    let anchor = TrustAnchor::from_pem(&pem::encode_certs([root.der()])).unwrap();
    assert_eq!(anchor.fingerprint(), root.fingerprint());
    assert_eq!(anchor.trust_domain().as_str(), "example.org");
    let refused = |der: &[u8]| TrustAnchor::from_root_der(der).map(|_| ()).unwrap_err();
    assert_eq!(
        refused(pki.issuing.certificate().der()),
        PeerError::NotARoot
    );
    assert_eq!(
        refused(pki.agent(&subject_key()).der()),
        PeerError::NotARoot
    );
    assert_eq!(
        refused(&Forge::from(root).sign(&subject_key())),
        PeerError::BadSignature
    );
    let two = pem::encode_certs([root.der(), root.der()]);
    assert_eq!(
        TrustAnchor::from_pem(&two).unwrap_err(),
        PeerError::NotARoot
    );
}

#[test]
fn time_is_judged_to_the_second_both_included() {
    let pki = Pki::new();
    let anchor = pki.anchor();
    let leaf = pki.agent(&subject_key());
    let chain = [leaf.der(), pki.issuing.certificate().der()];
    let at = |at| anchor.verify(&chain, at, Role::Agent).map(|_| ());
    let (second, milli) = (Duration::from_secs(1), Duration::from_millis(1));
    assert_eq!(leaf.not_before(), pki.now - Duration::from_secs(60));
    assert_eq!(at(leaf.not_before()), Ok(()));
    assert_eq!(at(leaf.not_before() - milli), Err(PeerError::NotYetValid));
    assert_eq!(leaf.not_after(), pki.now + HOUR);
    assert_eq!(at(leaf.not_after() + milli), Ok(()));
    assert_eq!(at(leaf.not_after() + second), Err(PeerError::Expired));
}

#[test]
fn an_expired_issuer_ends_its_leaves() {
    let pki = Pki::new();
    let short = subject_key();
    let validity = Validity::starting(pki.now, HOUR);
    let template =
        Template::issuing_ca("example.org".parse().unwrap(), short.public_key(), validity);
    let issuing = pki.root.prepare(template).unwrap().sign().unwrap();
    // Nothing that outlives its issuer is issued, so this one is forged.
    let long = pki.person(&subject_key());
    let mut forge = Forge::from(&long);
    let position = forge.position(crate::profile::oid::AUTHORITY_KEY_ID);
    let aki = &mut forge.extensions[position];
    let start = aki.len() - 20;
    aki[start..].copy_from_slice(&short.public_key().short_id());
    let long = Certificate::parse(&forge.sign(&short)).unwrap();
    let chain = [long.der(), issuing.der()];
    let anchor = pki.anchor();
    assert!(anchor.verify(&chain, pki.now, Role::Person).is_ok());
    let later = pki.now + HOUR + Duration::from_secs(1);
    assert_eq!(
        anchor.verify(&chain, later, Role::Person).unwrap_err(),
        PeerError::Expired
    );
}

#[test]
fn the_pen_is_the_signer_cas() {
    let pki = Pki::with(KeyKind::P256, Pen::new(54321).unwrap());
    let anchor = pki.anchor();
    assert_eq!(anchor.pen(), None);
    assert_eq!(
        anchor.learn_pen(pki.issuing.certificate().der()),
        Err(PeerError::WrongRole)
    );
    let learnt = anchor
        .clone()
        .learn_pen(pki.signer.certificate().der())
        .unwrap();
    assert_eq!((learnt.get(), anchor.pen()), (54321, Some(learnt)));

    let leaf = pki.agent(&subject_key());
    let chain = [leaf.der(), pki.issuing.certificate().der()];
    assert!(anchor.verify(&chain, pki.now, Role::Agent).is_ok());

    // The same issuing CA, used under another PEN.
    let issuing = pki.issuing.clone();
    let other = crate::profile::Issuer::new(
        issuing.certificate().clone(),
        issuing.key().clone(),
        Pen::DOCUMENTATION,
    );
    let key = subject_key();
    let person = Template::person(
        "spiffe://example.org/person/mallory".parse().unwrap(),
        crate::roles::Roles::all(),
        key.public_key(),
        Validity::starting(pki.now, HOUR),
        crl_uri(),
    );
    let person = other.unwrap().prepare(person).unwrap().sign().unwrap();
    let chain = [person.der(), pki.issuing.certificate().der()];
    let result = anchor.verify(&chain, pki.now, Role::Person);
    assert_eq!(result.unwrap_err(), PeerError::PenMismatch);
}

#[test]
fn signers_count_for_their_origin_and_their_time_is_returned() {
    let pki = Pki::new();
    let key = key(KeyKind::Ed25519);
    let leaf = pki.log_signer(&key);
    let chain = [leaf.der(), pki.signer.certificate().der()];
    let anchor = pki.anchor();
    let signer = anchor.verify_signer(&chain, &origin()).unwrap();
    assert_eq!(signer.public_key(), key.public_key());
    assert_eq!(signer.not_after(), pki.now + lifetime::SIGNER);
    assert!(signer.is_valid_at(pki.now) && !signer.is_valid_at(pki.now + lifetime::ISSUING_CA));
    assert_eq!(anchor.pen(), Some(Pen::DOCUMENTATION));

    let other = origin().with_generation(2).unwrap();
    assert_eq!(
        anchor.verify_signer(&chain, &other),
        Err(PeerError::WrongOrigin)
    );
    let response = origin().response().unwrap();
    assert_eq!(
        anchor.verify_signer(&chain, &response),
        Err(PeerError::WrongOrigin)
    );
    let enforcer = pki.enforcer(&key);
    let enforcer = [enforcer.der(), pki.issuing.certificate().der()];
    assert_eq!(
        anchor.verify_signer(&enforcer, &origin()),
        Err(PeerError::WrongRole)
    );
    let under_issuing = [leaf.der(), pki.issuing.certificate().der()];
    assert_eq!(
        anchor.verify_signer(&under_issuing, &origin()),
        Err(PeerError::WrongRole)
    );
    assert_eq!(
        anchor.verify_signer(&chain[..1], &origin()),
        Err(PeerError::Shape(1))
    );
    let foreign = Pki::new();
    assert_eq!(
        foreign.anchor().verify_signer(&chain, &origin()),
        Err(PeerError::UnknownIssuer)
    );
}

#[test]
fn agents_know_their_lineage() {
    let pki = Pki::new();
    let leaf = pki.agent(&subject_key());
    let peer = verify(&pki, &leaf, pki.issuing.certificate(), Role::Agent).unwrap();
    assert_eq!(peer.id(), &agent_id("support-01"));
    assert_eq!(
        peer.agent().unwrap().lineage,
        [agent_id("root"), agent_id("parent")]
    );
}
