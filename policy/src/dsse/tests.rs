use agentca_identity::crypto::KeyKind;
use agentca_identity::roles::PersonRole;

use super::*;
use crate::testing::{ALICE, Pki};

const TYPE: &str = "application/vnd.example+json";

fn keys() -> [PrivateKey; 2] {
    [KeyKind::P256, KeyKind::Ed25519].map(|kind| PrivateKey::generate(kind).unwrap())
}

#[test]
fn the_encoding_is_that_of_the_protocol() {
    // The example of the DSSE specification.
    let encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
    assert_eq!(
        encoded,
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}

#[test]
fn a_statement_counts_for_its_key_and_its_kind_alone() {
    let [p256, ed25519] = keys();
    for (key, other) in [(&p256, &ed25519), (&ed25519, &p256)] {
        let envelope = Envelope::sign(TYPE, b"{}", key, &[]).unwrap();
        let text = serde_json::to_string(&envelope).unwrap();
        let read = Envelope::parse(&text).unwrap();
        assert_eq!(read, envelope);
        assert_eq!(read.verify(TYPE, key.public_key()).unwrap(), b"{}");
        assert!(matches!(
            read.verify(TYPE, other.public_key()),
            Err(EnvelopeError::Signature)
        ));
        assert!(matches!(
            read.verify("application/other", key.public_key()),
            Err(EnvelopeError::Type(_))
        ));
        let moved = Envelope {
            payload: STANDARD.encode(b"[]"),
            ..envelope
        };
        assert!(matches!(
            moved.verify(TYPE, key.public_key()),
            Err(EnvelopeError::Signature)
        ));
    }
}

#[test]
fn only_one_form_of_an_envelope_is_read() {
    let [key, _] = keys();
    let envelope = Envelope::sign(TYPE, b"{}", &key, &[]).unwrap();
    let text = serde_json::to_string(&envelope).unwrap();
    for (from, to) in [
        ("{\"payloadType\"", "{\"x\":1,\"payloadType\""),
        ("{\"payloadType\"", "{\"payload\":\"\",\"payloadType\""),
        ("\"sig\"", "\"Sig\""),
        ("\"signatures\":[", "\"signatures\":[1,"),
    ] {
        let wrong = text.replace(from, to);
        assert_ne!(wrong, text);
        assert!(Envelope::parse(&wrong).is_err(), "{wrong}");
    }
    let mut two = envelope.clone();
    two.signatures.extend(envelope.signatures.clone());
    for other in [
        two,
        Envelope {
            signatures: Vec::new(),
            ..envelope.clone()
        },
    ] {
        assert!(matches!(
            other.verify(TYPE, key.public_key()),
            Err(EnvelopeError::Signatures(_))
        ));
    }
    let broken = Envelope {
        payload: "%".to_owned(),
        ..envelope
    };
    assert!(matches!(broken.payload(TYPE), Err(EnvelopeError::Base64)));
}

#[test]
fn a_person_is_judged_by_their_chain_at_that_time() {
    let pki = Pki::new();
    let person = pki.person(ALICE, &[PersonRole::Admin]);
    let envelope = Envelope::sign(TYPE, b"{}", &person.key, &person.chain).unwrap();
    let (payload, peer) = envelope
        .verify_person(TYPE, &pki.anchor(), pki.now)
        .unwrap();
    assert_eq!(
        (payload.as_slice(), peer.id().to_string()),
        (&b"{}"[..], ALICE.to_owned())
    );
    let late = pki.now + std::time::Duration::from_secs(90_000);
    let foreign = Pki::new().anchor();
    for (anchor, at) in [(&pki.anchor(), late), (&foreign, pki.now)] {
        assert!(matches!(
            envelope.verify_person(TYPE, anchor, at),
            Err(EnvelopeError::Chain(_))
        ));
    }
    let other = pki.person("spiffe://example.org/person/bob", &[]);
    let borrowed = Envelope::sign(TYPE, b"{}", &other.key, &person.chain).unwrap();
    assert!(matches!(
        borrowed.verify_person(TYPE, &pki.anchor(), pki.now),
        Err(EnvelopeError::Signature)
    ));
    let bare = Envelope::sign(TYPE, b"{}", &person.key, &[]).unwrap();
    assert!(matches!(
        bare.verify_person(TYPE, &pki.anchor(), pki.now),
        Err(EnvelopeError::Chain(_))
    ));
}
