use agentca_identity::roles::PersonRole;

use super::*;
use crate::assessment::Assessors;
use crate::testing::{ALICE, Person, Pki, approval, approved, definition, scanned};

fn keys(json: &str) -> Vec<String> {
    let errors = PinsFile::parse(json).unwrap_err();
    errors.into_iter().map(|error| error.key).collect()
}

/// A pin and a rejection of another definition, both by Alice.
fn signed(pki: &Pki, person: &Person) -> PinsFile {
    let (good, bad) = (
        definition("refund", "Pays back"),
        definition("refund", "Pays me"),
    );
    let yes = approval(Action::Approve, "payments", &good, pki.now);
    let no = approval(Action::Reject, "payments", &bad, pki.now);
    PinsFile {
        pins: vec![Pin {
            upstream: "payments".to_owned(),
            definition: good,
            approved: approved(ALICE, person, &yes),
        }],
        rejections: vec![Rejection {
            upstream: "payments".to_owned(),
            tool: "refund".to_owned(),
            digest: digest_text(&bad.digest()),
            rejected: approved(ALICE, person, &no),
        }],
        assessments: Vec::new(),
    }
}

fn admit(file: &PinsFile, pki: &Pki) -> Result<Admitted, Vec<PinsError>> {
    let (mut admitted, assessors) = (Admitted::default(), Assessors::new());
    let signers = Signers {
        anchor: &pki.anchor(),
        assessors: &assessors,
    };
    admitted.add(file, signers).map(|()| admitted)
}

#[test]
fn what_is_written_is_read_again_and_has_one_form() {
    let pki = Pki::new();
    let person = pki.person(ALICE, &[PersonRole::Admin]);
    let mut file = signed(&pki, &person);
    file.pins.push(scanned("a", definition("z", "")));
    file.pins.push(scanned("a", definition("b", "")));
    let text = file.to_json().unwrap();
    let read = PinsFile::parse(&text).unwrap();
    assert_eq!(read.to_json().unwrap(), text);
    let names: Vec<_> = read
        .pins
        .iter()
        .map(|pin| (pin.upstream.as_str(), pin.tool()))
        .collect();
    assert_eq!(names, [("a", "b"), ("a", "z"), ("payments", "refund")]);
    file.pins.reverse();
    assert_eq!(file.to_json().unwrap(), text);
    assert!(text.ends_with("}\n"));
}

#[test]
fn a_file_that_was_changed_by_hand_is_refused() {
    let file = PinsFile {
        pins: vec![scanned("payments", definition("refund", "Pays back"))],
        ..PinsFile::default()
    };
    let text = file.to_json().unwrap();
    for (from, to, key) in [
        ("Pays back", "Pays me", "pins[1].digest"),
        ("sha256:", "sha256:0", "pins[1].digest"),
        (
            "\"tool\": \"refund\"",
            "\"tool\": \"charge\"",
            "pins[1].tool",
        ),
        ("\"scan\"", "\"alice\"", "pins[1].approved.by"),
        (
            "\"scan\"",
            "\"spiffe://example.org/person/alice\"",
            "pins[1].approved.statement",
        ),
        ("\"version\": 1", "\"version\": 2", "version"),
        ("\"version\": 1", "\"version\": 1, \"x\": 1", ""),
        ("\"upstream\"", "\"upstream\": \"a\", \"upstream\"", ""),
        (
            "\"type\": \"object\"",
            "\"type\": \"object\", \"type\": \"object\"",
            "pins[1].definition",
        ),
        ("00.000Z\"", "00.000\"", ""),
    ] {
        let wrong = text.replacen(from, to, 1);
        assert_ne!(wrong, text, "{from}");
        assert_eq!(keys(&wrong), [key], "{to}");
    }
}

#[test]
fn no_tool_is_pinned_twice() {
    let mut file = PinsFile {
        pins: vec![
            scanned("payments", definition("refund", "one")),
            scanned("payments", definition("refund", "two")),
            scanned("billing", definition("refund", "two")),
        ],
        ..PinsFile::default()
    };
    // Written in order: billing comes first.
    assert_eq!(keys(&file.to_json().unwrap()), ["pins[3]"]);
    file.approve(scanned("payments", definition("refund", "three")));
    let read = PinsFile::parse(&file.to_json().unwrap()).unwrap();
    assert_eq!(read.pins.len(), 2);
    let pin = read.pin("payments", "refund").unwrap();
    assert_eq!(pin.definition.description(), Some("three"));
    // Nor in two files.
    let mut admitted = Admitted::default();
    admitted.add_unsigned(&read).unwrap();
    let errors = admitted.add_unsigned(&read).unwrap_err();
    assert_eq!(errors.len(), 2);
}

#[test]
fn what_stands_beside_a_statement_is_what_it_says() {
    let pki = Pki::new();
    let person = pki.person(ALICE, &[PersonRole::Admin]);
    let file = signed(&pki, &person);
    PinsFile::parse(&file.to_json().unwrap()).unwrap();
    let change = |change: fn(&mut PinsFile)| {
        let mut other = file.clone();
        change(&mut other);
        keys(&other.to_json().unwrap())
    };
    let key = ["pins[1].approved.statement"];
    assert_eq!(change(|file| file.pins[0].approved.reason.push('!')), key);
    assert_eq!(change(|file| file.pins[0].upstream.push('s')), key);
    assert_eq!(change(|file| file.pins[0].approved.statement = None), key);
    assert_eq!(
        change(|file| file.pins[0].approved.at = Timestamp::from_secs(1)),
        key
    );
    // A rejection is no approval.
    assert_eq!(
        change(|file| file.pins[0].approved = file.rejections[0].rejected.clone()),
        key
    );
    assert_eq!(
        change(|file| file.rejections[0].rejected.by = SCAN.to_owned()),
        ["rejections[1].rejected.by"]
    );
}

#[test]
fn rejecting_takes_the_pin_and_approving_the_rejection() {
    let pki = Pki::new();
    let person = pki.person(ALICE, &[PersonRole::Admin]);
    let mut file = signed(&pki, &person);
    let tool = definition("refund", "Pays back");
    let no = approval(Action::Reject, "payments", &tool, pki.now);
    let rejection = Rejection {
        upstream: "payments".to_owned(),
        tool: "refund".to_owned(),
        digest: digest_text(&tool.digest()),
        rejected: approved(ALICE, &person, &no),
    };
    let mut both = file.clone();
    both.rejections.push(rejection.clone());
    assert_eq!(keys(&both.to_json().unwrap()), ["rejections[2]"]);
    let before = file.clone();
    file.reject(rejection);
    assert!(file.pins.is_empty());
    assert_eq!(file.rejections.len(), 2);
    PinsFile::parse(&file.to_json().unwrap()).unwrap();
    file.approve(before.pins[0].clone());
    assert_eq!(file.rejections, before.rejections);
}

#[test]
fn only_verified_statements_pin() {
    let pki = Pki::new();
    let person = pki.person(ALICE, &[PersonRole::Admin]);
    let file = signed(&pki, &person);
    let admitted = admit(&file, &pki).unwrap();
    let pin = admitted.pin("payments", "refund").unwrap();
    assert_eq!(pin.definition.approved_by, ALICE);
    assert!(!pin.manual_review);
    assert_eq!(admitted.rejected("payments", "refund").len(), 1);
    // Nobody there to verify with: no pin, but the rejection counts.
    let mut unsigned = Admitted::default();
    unsigned.add_unsigned(&file).unwrap();
    assert!(unsigned.pin("payments", "refund").is_none());
    assert_eq!(unsigned.rejected("payments", "refund").len(), 1);
    // Another PKI's person, and another person's name.
    let errors = admit(&file, &Pki::new()).unwrap_err();
    assert_eq!(errors.len(), 2, "{errors:?}");
    let mut stolen = file.clone();
    stolen.pins[0].approved.by = "spiffe://example.org/person/bob".to_owned();
    let errors = admit(&stolen, &pki).unwrap_err();
    assert_eq!(errors[0].key, "pins[1]");
}

#[test]
fn assessments_of_nobody_trusted_are_refused() {
    let pki = Pki::new();
    let said = Assessment {
        v: 1,
        upstream: None,
        tool: "refund".to_owned(),
        digest: digest_text(&[7; 32]),
        score: 99,
        at: pki.now,
        assessor: "nobody".to_owned(),
        notes: None,
        manual_review: true,
    };
    let envelope = said.sign(&crate::testing::key(), &[]).unwrap();
    let file = PinsFile {
        assessments: vec![envelope],
        ..PinsFile::default()
    };
    PinsFile::parse(&file.to_json().unwrap()).unwrap();
    let errors = admit(&file, &pki).unwrap_err();
    assert_eq!(errors[0].key, "assessments[1]");
}
