use proptest::prelude::*;

use super::*;

fn facts() -> ResponseFacts<'static> {
    ResponseFacts {
        status: 200,
        agent_audit: "log=\"example.org/prod/enforcer/edge-1\", index=7",
        method: "GET",
        target_uri: "https://localhost:8443/v1/accounts/7",
        content_digest: Some("sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"),
        content_type: Some("application/json"),
        content_encoding: None,
        location: None,
        request_content_digest: None,
        request_nonce: Some("n-1"),
    }
}

/// The test key of RFC 9421 appendix B.1.4.
fn known_key() -> PrivateKey {
    let der = "302e020100300506032b6570042204209f8362f87a484a954e6e740c5b4c0e84\
        229139a20aa8ab56ff66586f6a7d29c5";
    let der: Vec<u8> = (0..der.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&der[at..at + 2], 16).unwrap())
        .collect();
    PrivateKey::from_pkcs8_der(&der).unwrap()
}

const NOT_BEFORE: i64 = 1_700_000_000;
const NOT_AFTER: i64 = 1_710_000_000;

fn check(
    facts: &ResponseFacts<'_>,
    input: &str,
    signature: &str,
    key: &PrivateKey,
) -> Result<Timestamp, ResponseError> {
    let window = (
        Timestamp::from_secs(NOT_BEFORE),
        Timestamp::from_secs(NOT_AFTER),
    );
    verify_within(facts, input, signature, key.public_key(), window)
}

fn signer(key: &PrivateKey) -> ResponseSigner {
    ResponseSigner::new(key.clone(), Timestamp::from_secs(NOT_AFTER)).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_secs(NOT_BEFORE + 60)
}

#[test]
fn the_base_is_built_as_rfc_9421_says() {
    let signature = signer(&known_key()).sign_at(&facts(), now()).unwrap();
    let list = "(\"@status\" \"agent-audit\" \"@method\";req \"@target-uri\";req \"content-digest\" \
        \"content-type\" \"agent-nonce\";req)";
    let key_id: String = known_key()
        .public_key()
        .key_id()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let parameters = format!(
        "{list};created=1700000060;expires=1710000000;keyid=\"{key_id}\";alg=\"ed25519\";tag=\"agentca-response\""
    );
    assert_eq!(signature.input, format!("enf={parameters}"));
    let base = format!(
        "\"@status\": 200\n\
        \"agent-audit\": log=\"example.org/prod/enforcer/edge-1\", index=7\n\
        \"@method\";req: GET\n\
        \"@target-uri\";req: https://localhost:8443/v1/accounts/7\n\
        \"content-digest\": sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:\n\
        \"content-type\": application/json\n\
        \"agent-nonce\";req: n-1\n\
        \"@signature-params\": {parameters}"
    );
    // Ed25519 is deterministic: signing the base written out by hand gives the same bytes.
    let expected = STANDARD.encode(known_key().sign(base.as_bytes()).unwrap());
    assert_eq!(signature.signature, format!("enf=:{expected}:"));
}

#[test]
fn verifies_and_gives_the_time() {
    let key = known_key();
    let Signature { input, signature } = signer(&key).sign_at(&facts(), now()).unwrap();
    assert_eq!(check(&facts(), &input, &signature, &key).unwrap(), now());
}

#[test]
fn every_flipped_component_fails() {
    let key = known_key();
    let all = ResponseFacts {
        content_encoding: Some("gzip"),
        location: Some("/elsewhere"),
        request_content_digest: Some("sha-256=:AAAA:"),
        ..facts()
    };
    let Signature { input, signature } = signer(&key).sign_at(&all, now()).unwrap();
    check(&all, &input, &signature, &key).unwrap();
    let other = Some("other");
    let flipped = [
        ResponseFacts { status: 201, ..all },
        ResponseFacts {
            agent_audit: "other",
            ..all
        },
        ResponseFacts {
            method: "POST",
            ..all
        },
        ResponseFacts {
            target_uri: "https://localhost:8443/v1/accounts/8",
            ..all
        },
        ResponseFacts {
            content_digest: other,
            ..all
        },
        ResponseFacts {
            content_type: other,
            ..all
        },
        ResponseFacts {
            content_encoding: other,
            ..all
        },
        ResponseFacts {
            location: other,
            ..all
        },
        ResponseFacts {
            request_content_digest: other,
            ..all
        },
        ResponseFacts {
            request_nonce: other,
            ..all
        },
        ResponseFacts {
            content_digest: None,
            ..all
        },
        ResponseFacts {
            content_type: None,
            ..all
        },
        ResponseFacts {
            content_encoding: None,
            ..all
        },
        ResponseFacts {
            location: None,
            ..all
        },
        ResponseFacts {
            request_content_digest: None,
            ..all
        },
        ResponseFacts {
            request_nonce: None,
            ..all
        },
    ];
    for facts in flipped {
        assert!(
            check(&facts, &input, &signature, &key).is_err(),
            "{facts:?}"
        );
    }
}

#[test]
fn a_shorter_list_with_a_right_signature_is_refused() {
    // An enforcer that left out the digest and signed the rest properly.
    let key = known_key();
    let without = ResponseFacts {
        content_digest: None,
        ..facts()
    };
    let Signature { input, signature } = signer(&key).sign_at(&without, now()).unwrap();
    let error = check(&facts(), &input, &signature, &key).unwrap_err();
    assert!(matches!(error, ResponseError::Components));
}

#[test]
fn parameters_are_the_signers() {
    let key = known_key();
    let Signature { input, signature } = signer(&key).sign_at(&facts(), now()).unwrap();
    for (from, to) in [
        ("alg=\"ed25519\"", "alg=\"hmac-sha256\""),
        ("tag=\"agentca-response\"", "tag=\"other\""),
        ("expires=1710000000", "expires=1810000000"),
        ("enf=", "sig1="),
        ("created=1700000060", "created=01700000060"),
        ("created=1700000060", "created=1700000061"),
        ("created=1700000060", "created=-1"),
        (";created=1700000060", ""),
    ] {
        let changed = input.replacen(from, to, 1);
        assert_ne!(changed, input, "{from}");
        assert!(check(&facts(), &changed, &signature, &key).is_err(), "{to}");
    }
    let stranger = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    assert!(check(&facts(), &input, &signature, &stranger).is_err());
}

#[test]
fn outside_the_certificate_nothing_counts() {
    let key = known_key();
    for seconds in [NOT_BEFORE - 1, NOT_AFTER + 1] {
        let created = Timestamp::from_secs(seconds);
        let Signature { input, signature } = signer(&key).sign_at(&facts(), created).unwrap();
        let error = check(&facts(), &input, &signature, &key).unwrap_err();
        assert!(matches!(error, ResponseError::OutsideValidity));
    }
}

#[test]
fn a_line_break_cannot_add_a_component() {
    let bad = ResponseFacts {
        content_type: Some("a\n\"location\": /x"),
        ..facts()
    };
    let error = signer(&known_key()).sign_at(&bad, now()).unwrap_err();
    assert!(matches!(error, ResponseError::Value));
}

#[test]
fn other_kinds_of_keys_do_not_sign_responses() {
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    assert!(ResponseSigner::new(key, now()).is_err());
}

proptest! {
    #[test]
    fn whatever_is_signed_verifies(
        status in 100u16..600, method in "[A-Z]{1,9}", target in "https://[a-z]{1,9}/[ -~]{0,40}",
        digest in prop::option::of("[ -~]{1,60}"), kind in prop::option::of("[ -~]{0,40}"),
        location in prop::option::of("[ -~]{0,40}"), nonce in prop::option::of("[ -~]{0,40}"),
    ) {
        let key = known_key();
        let facts = ResponseFacts {
            status, method: &method, target_uri: &target,
            content_digest: digest.as_deref(), content_type: kind.as_deref(),
            location: location.as_deref(), request_nonce: nonce.as_deref(),
            ..facts()
        };
        let signed = signer(&key).sign_at(&facts, now()).unwrap();
        prop_assert!(check(&facts, &signed.input, &signed.signature, &key).is_ok());
    }

    #[test]
    fn no_input_panics(input in "(enf=)?.{0,90}", signature in "(enf=:)?.{0,90}") {
        let _ = check(&facts(), &input, &signature, &known_key());
    }
}
