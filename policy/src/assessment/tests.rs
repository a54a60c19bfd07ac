use agentca_identity::roles::PersonRole;

use super::*;
use crate::digest::digest_text;
use crate::testing::{ALICE, Pki, definition, key};

fn assessment(score: u64, at: Timestamp) -> Assessment {
    Assessment {
        v: 1,
        upstream: None,
        tool: "refund".to_owned(),
        digest: digest_text(&definition("refund", "Pays back").digest()),
        score,
        at,
        assessor: "acme-labs".to_owned(),
        notes: None,
        manual_review: false,
    }
}

fn assessors(assessor: Assessor) -> Assessors {
    [("acme-labs".to_owned(), assessor)].into_iter().collect()
}

#[test]
fn an_assessment_counts_when_its_assessor_signed_it() {
    let (pki, signer) = (Pki::new(), key());
    let said = assessment(95, pki.now);
    let envelope = said.sign(&signer, &[]).unwrap();
    let trusted = assessors(Assessor::Key(signer.public_key().clone()));
    let verified = VerifiedAssessment::verify(&envelope, &trusted, &pki.anchor()).unwrap();
    assert_eq!(verified.assessment().tier(), Tier::Gold);
    let digest = definition("refund", "Pays back").digest();
    assert!(verified.is_about("payments", "refund", &digest));
    assert!(!verified.is_about("payments", "charge", &digest));
    assert!(!verified.is_about("payments", "refund", &[0; 32]));
    let stranger = assessors(Assessor::Key(key().public_key().clone()));
    assert!(VerifiedAssessment::verify(&envelope, &stranger, &pki.anchor()).is_err());
    assert!(matches!(
        VerifiedAssessment::verify(&envelope, &Assessors::new(), &pki.anchor()),
        Err(StatementError::UnknownAssessor(_))
    ));
}

#[test]
fn an_assessor_who_is_a_person_is_that_person() {
    let pki = Pki::new();
    let trusted = assessors(Assessor::Person(ALICE.parse().unwrap()));
    let said = assessment(95, pki.now);
    for (uri, counts) in [(ALICE, true), ("spiffe://example.org/person/bob", false)] {
        let person = pki.person(uri, &[PersonRole::Auditor]);
        let envelope = said.sign(&person.key, &person.chain).unwrap();
        let verified = VerifiedAssessment::verify(&envelope, &trusted, &pki.anchor());
        assert_eq!(verified.is_ok(), counts, "{uri}");
    }
}

#[test]
fn an_assessment_of_one_upstream_is_not_one_of_another() {
    let (pki, signer) = (Pki::new(), key());
    let mut said = assessment(95, pki.now);
    said.upstream = Some("payments".to_owned());
    let trusted = assessors(Assessor::Key(signer.public_key().clone()));
    let envelope = said.sign(&signer, &[]).unwrap();
    let verified = VerifiedAssessment::verify(&envelope, &trusted, &pki.anchor()).unwrap();
    let digest = *verified.digest();
    assert!(verified.is_about("payments", "refund", &digest));
    assert!(!verified.is_about("billing", "refund", &digest));
}

#[test]
fn scores_and_digests_are_checked() {
    let signer = key();
    let at = Timestamp::from_secs(1_800_000_000);
    let read = |said: Assessment| Assessment::read(&said.sign(&signer, &[]).unwrap());
    read(assessment(100, at)).unwrap();
    assert!(matches!(
        read(assessment(101, at)),
        Err(StatementError::Score(101))
    ));
    let mut wrong = assessment(1, at);
    wrong.digest = "sha256:".to_owned();
    assert!(matches!(read(wrong), Err(StatementError::Digest(_))));
}
