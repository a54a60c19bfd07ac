use super::*;
use crate::testing::{ALICE, Pki, approval, definition};

#[test]
fn an_approval_counts_for_one_definition_of_one_tool() {
    let pki = Pki::new();
    let person = pki.person(ALICE, &[PersonRole::Responder]);
    let tool = definition("refund", "Pays back");
    let said = approval(Action::Approve, "payments", &tool, pki.now);
    let envelope = said.sign(&person.key, &person.chain).unwrap();
    let subject = Subject {
        upstream: "payments",
        tool: "refund",
        digest: &tool.digest(),
    };
    let verified = VerifiedApproval::verify(&envelope, &pki.anchor(), subject).unwrap();
    assert_eq!(verified.by().to_string(), ALICE);
    assert_eq!(*verified.approval(), said);
    let other = definition("refund", "Pays back!").digest();
    for wrong in [
        Subject {
            upstream: "billing",
            ..subject
        },
        Subject {
            tool: "charge",
            ..subject
        },
        Subject {
            digest: &other,
            ..subject
        },
    ] {
        assert!(matches!(
            VerifiedApproval::verify(&envelope, &pki.anchor(), wrong),
            Err(StatementError::About { .. })
        ));
    }
}

#[test]
fn only_admins_and_responders_approve() {
    let pki = Pki::new();
    let tool = definition("refund", "Pays back");
    let subject = Subject {
        upstream: "payments",
        tool: "refund",
        digest: &tool.digest(),
    };
    for (role, may) in [
        (PersonRole::Admin, true),
        (PersonRole::Responder, true),
        (PersonRole::Auditor, false),
        (PersonRole::Issuer, false),
    ] {
        let person = pki.person(ALICE, &[role]);
        let said = approval(Action::Approve, "payments", &tool, pki.now);
        let envelope = said.sign(&person.key, &person.chain).unwrap();
        let verified = VerifiedApproval::verify(&envelope, &pki.anchor(), subject);
        assert_eq!(verified.is_ok(), may, "{role}");
    }
}

#[test]
fn the_payload_has_the_documented_form() {
    let tool = definition("refund", "Pays back");
    let at = Timestamp::from_secs(1_800_000_000);
    let mut said = approval(Action::Reject, "payments", &tool, at);
    let text = serde_json_canonicalizer::to_string(&said).unwrap();
    let digest = digest_text(&tool.digest());
    assert_eq!(
        text,
        format!(
            "{{\"action\":\"reject\",\"at\":\"{at}\",\"digest\":\"{digest}\",\"reason\":\"looked at \
             it\",\"tool\":\"refund\",\"upstream\":\"payments\",\"v\":1}}"
        )
    );
    for (from, to) in [
        ("\"v\":1", "\"v\":1,\"x\":1"),
        ("\"v\":1", "\"v\":1,\"v\":1"),
        ("reject", "REJECT"),
    ] {
        let wrong = text.replace(from, to);
        assert!(
            read_payload::<Approval>(wrong.as_bytes()).is_err(),
            "{wrong}"
        );
    }
    said.v = 2;
    let key = crate::testing::key();
    let later = said.sign(&key, &[]).unwrap();
    assert!(matches!(
        Approval::read(&later),
        Err(StatementError::Version(2))
    ));
}
