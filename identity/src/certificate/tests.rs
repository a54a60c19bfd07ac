use super::*;
use crate::certificate::encode::write_extension;
use crate::crypto::PrivateKey;
use crate::der::tag;
use crate::profile::oid::{self, Own};
use crate::scope::ScopeSet;
use crate::testing::{Files, Forge, Pki, agent, key, run};
use proptest::prelude::*;

const PEN: Pen = Pen::DOCUMENTATION;

/// A good agent, and its issuer's key to forge with.
fn forge() -> (Forge, PrivateKey) {
    let pki = Pki::new();
    let certificate = pki.agent(&key(KeyKind::P256));
    (Forge::from(&certificate), pki.issuing.key().clone())
}

fn refused(change: impl FnOnce(Forge) -> Forge) -> ReadError {
    let (forge, key) = forge();
    Certificate::parse(&change(forge).sign(&key)).unwrap_err()
}

fn value(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    fill(&mut writer);
    writer.finish()
}

fn texts(texts: &[&str]) -> Vec<u8> {
    value(|w| w.sequence(|w| texts.iter().for_each(|text| w.utf8(text))))
}

fn names(names: &[(u8, &[u8])]) -> Vec<u8> {
    value(|w| {
        w.sequence(|w| {
            names
                .iter()
                .for_each(|(kind, name)| w.tlv(tag::context(*kind), name))
        })
    })
}

const URI: &[u8] = b"spiffe://example.org/prod/agent/support-01";

#[test]
fn an_unchanged_forgery_is_read() {
    let (forge, key) = forge();
    let certificate = Certificate::parse(&forge.sign(&key)).unwrap();
    assert_eq!(certificate.subject(), &Subject::Agent(agent()));
    assert_eq!(certificate.agent().unwrap().grant, 200);
    assert_eq!(
        certificate.crl_uri().unwrap().as_str(),
        "http://127.0.0.1:7080/crl/0.crl"
    );
    assert_eq!(
        certificate.fingerprint(),
        crate::crypto::sha256(certificate.der())
    );
    certificate.verify_signature(key.public_key()).unwrap();
}

#[test]
fn each_extension_is_mandatory_and_unique() {
    for (id, name) in [
        (oid::AUTHORITY_KEY_ID, "authorityKeyIdentifier"),
        (oid::SUBJECT_KEY_ID, "subjectKeyIdentifier"),
        (oid::KEY_USAGE, "keyUsage"),
        (oid::EXTENDED_KEY_USAGE, "extKeyUsage"),
        (oid::SUBJECT_ALT_NAME, "subjectAltName"),
        (oid::BASIC_CONSTRAINTS, "basicConstraints"),
        (oid::CRL_DISTRIBUTION_POINTS, "cRLDistributionPoints"),
        (&Own::Scopes.oid(PEN), "scopes"),
        (&Own::Trust.oid(PEN), "trust level"),
        (&Own::Owner.oid(PEN), "owner"),
        (&Own::Grant.oid(PEN), "grant"),
        (&Own::Delegation.oid(PEN), "delegation"),
    ] {
        assert_eq!(refused(|forge| forge.without(id)), ReadError::Missing(name));
        assert_eq!(
            refused(|forge| forge.twice(id)),
            ReadError::Duplicate(oid::dotted(id))
        );
    }
}

#[test]
fn unknown_extensions_are_refused() {
    let unknown = [0x2a, 0x03, 0x04];
    let null = [0x05, 0x00];
    assert_eq!(
        refused(|forge| forge.with(&unknown, Some(0xff), &null)),
        ReadError::UnknownCritical("1.2.3.4".to_owned())
    );
    assert_eq!(
        refused(|forge| forge.with(&unknown, None, &null)),
        ReadError::Unknown("1.2.3.4".to_owned())
    );
    let seventh = [0x2b, 6, 1, 4, 1, 0x81, 0xfd, 0x59, 1, 7];
    assert_eq!(
        refused(|forge| forge.with(&seventh, None, &null)),
        ReadError::Unknown("1.3.6.1.4.1.32473.1.7".to_owned())
    );
    let roles = texts(&["admin"]);
    assert_eq!(
        refused(|forge| forge.with(&Own::Roles.oid(PEN), None, &roles)),
        ReadError::Unexpected("roles")
    );
}

#[test]
fn exactly_one_uri_and_nothing_beside_it() {
    let id = oid::SUBJECT_ALT_NAME;
    let with = |value: Vec<u8>| refused(|forge| forge.replace(id, None, &value));
    assert_eq!(with(names(&[(6, URI), (6, URI)])), ReadError::UriCount(2));
    assert_eq!(with(names(&[(2, b"localhost")])), ReadError::UriCount(0));
    assert_eq!(with(names(&[])), ReadError::UriCount(0));
    assert_eq!(
        with(names(&[(6, URI), (2, b"localhost")])),
        ReadError::Value("subjectAltName")
    );
    assert_eq!(
        with(names(&[(6, URI), (1, b"a@b")])),
        ReadError::Value("subjectAltName")
    );
    assert_eq!(with(names(&[(6, b"https://example.org/")])), ReadError::Uri);
    assert_eq!(
        with(names(&[(6, b"spiffe://example.org/prod/agent/A")])),
        ReadError::Uri
    );
    assert_eq!(
        with(names(&[(6, b"spiffe://example.org/prod/agent/a\0")])),
        ReadError::Uri
    );
    assert_eq!(
        with(names(&[(6, b"\xff")])),
        ReadError::Value("subjectAltName")
    );
    // The common name repeats the URI, so another name there is another form.
    assert_eq!(
        with(names(&[(6, b"spiffe://example.org/prod/agent/b")])),
        ReadError::NotCanonical
    );
    // Another role than the extensions are for.
    let enforcer = names(&[(6, b"spiffe://example.org/prod/enforcer/support-01")]);
    assert_eq!(with(enforcer), ReadError::Unexpected("scopes"));
    let person = names(&[(6, b"spiffe://example.org/person/support-01")]);
    assert_eq!(with(person), ReadError::Unexpected("scopes"));
}

#[test]
fn enforcers_name_hosts_after_the_uri_each_once() {
    let pki = Pki::new();
    let good = pki.enforcer(&key(KeyKind::P256));
    let (dns, ip) = good.subject().hosts();
    assert_eq!((dns.len(), ip.len()), (2, 2));
    let uri: &[u8] = b"spiffe://example.org/prod/enforcer/edge-1";
    for (value, error) in [
        (
            names(&[(2, b"localhost"), (6, uri)]),
            ReadError::NotCanonical,
        ),
        (
            names(&[(6, uri), (7, &[127, 0, 0, 1]), (2, b"localhost")]),
            ReadError::NotCanonical,
        ),
        (
            names(&[(6, uri), (2, b"a"), (2, b"a")]),
            ReadError::Value("subjectAltName"),
        ),
        (
            names(&[(6, uri), (2, b"*.example.org")]),
            ReadError::Value("subjectAltName"),
        ),
        (
            names(&[(6, uri), (2, b"LOCALHOST")]),
            ReadError::Value("subjectAltName"),
        ),
        (
            names(&[(6, uri), (7, &[127, 0, 0])]),
            ReadError::Value("subjectAltName"),
        ),
    ] {
        let forge = Forge::from(&good).replace(oid::SUBJECT_ALT_NAME, None, &value);
        assert_eq!(
            Certificate::parse(&forge.sign(pki.issuing.key())),
            Err(error)
        );
    }
}

#[test]
fn our_extensions_hold_only_what_they_may() {
    let with = |own: Own, value: &[u8]| refused(|f| f.replace(&own.oid(PEN), None, value));
    let many: Vec<String> = (100..=228).map(|number| format!("s{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for wrong in [
        texts(&["payments:read", "mcp:github:get_*"]),
        texts(&["payments:read", "payments:read"]),
        texts(&["*"]),
        texts(&["a b"]),
        texts(&many),
        vec![0x30, 0x03, 0x13, 0x01, b'a'],
        vec![0x31, 0x00],
        vec![],
        [texts(&["a"]), vec![0x05, 0x00]].concat(),
    ] {
        assert_eq!(
            with(Own::Scopes, &wrong),
            ReadError::Value("scopes"),
            "{wrong:?}"
        );
    }
    for wrong in [
        &[0x02, 0x01, 0x05][..],
        &[0x02, 0x01, 0xff],
        &[0x02, 0x02, 0, 2],
        &[0x0a, 1, 2],
    ] {
        assert_eq!(with(Own::Trust, wrong), ReadError::Value("trust level"));
    }
    for wrong in [
        value(|w| w.utf8("")),
        value(|w| w.utf8("a\nb")),
        vec![0x0c, 0x01, 0xff],
    ] {
        assert_eq!(with(Own::Owner, &wrong), ReadError::Value("owner"));
    }
    for wrong in [
        vec![0x02, 0x02, 0x00, 0x05],
        vec![0x02, 0x00],
        vec![0x02, 0x01, 0x80],
    ] {
        assert_eq!(with(Own::Grant, &wrong), ReadError::Value("grant"));
    }
    for wrong in [
        texts(&["spiffe://example.org/prod/enforcer/a"]),
        texts(&["spiffe://example.com/prod/agent/a"]),
        texts(&["support-01"]),
        texts(&["spiffe://example.org/prod/agent/a"; 33]),
    ] {
        assert_eq!(
            with(Own::Delegation, &wrong),
            ReadError::Value("delegation")
        );
    }
}

#[test]
fn a_leaf_is_never_a_ca() {
    let ca = [0x30, 0x03, 0x01, 0x01, 0xff];
    assert_eq!(
        refused(|forge| forge.replace(oid::BASIC_CONSTRAINTS, Some(0xff), &ca)),
        ReadError::Unexpected("subjectAltName")
    );
    let bare = |forge: Forge| {
        let mut forge = forge
            .without(oid::SUBJECT_ALT_NAME)
            .without(oid::CRL_DISTRIBUTION_POINTS)
            .replace(oid::BASIC_CONSTRAINTS, Some(0xff), &ca);
        for own in [
            Own::Scopes,
            Own::Trust,
            Own::Owner,
            Own::Grant,
            Own::Delegation,
        ] {
            forge = forge.without(&own.oid(PEN));
        }
        forge
    };
    assert_eq!(refused(bare), ReadError::CaName);
    assert_eq!(
        refused(|forge| forge.replace(oid::KEY_USAGE, Some(0xff), &[0x03, 0x02, 0x01, 0x86])),
        ReadError::Value("keyUsage")
    );
    let any_purpose = value(|w| w.sequence(|w| w.oid(&[0x55, 0x1d, 0x25, 0x00])));
    assert_eq!(
        refused(|forge| forge.replace(oid::EXTENDED_KEY_USAGE, None, &any_purpose)),
        ReadError::Value("extKeyUsage")
    );
}

#[test]
fn an_intermediate_certifies_leaves_only() {
    let pki = Pki::new();
    let forge = || Forge::from(pki.issuing.certificate());
    let path = |content: &[u8]| {
        let forge = forge().replace(oid::BASIC_CONSTRAINTS, Some(0xff), content);
        Certificate::parse(&forge.sign(pki.root.key()))
    };
    assert!(path(&[0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x00]).is_ok());
    for wrong in [
        &[0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x01][..],
        &[0x30, 0x03, 0x01, 0x01, 0xff],
        &[0x30, 0x06, 0x01, 0x01, 0x01, 0x02, 0x01, 0x00],
    ] {
        assert_eq!(path(wrong), Err(ReadError::Value("basicConstraints")));
    }
    let names = names(&[(6, URI)]);
    let with_uri = forge()
        .with(oid::SUBJECT_ALT_NAME, None, &names)
        .sign(pki.root.key());
    assert_eq!(
        Certificate::parse(&with_uri),
        Err(ReadError::Unexpected("subjectAltName"))
    );
}

#[test]
fn non_canonical_der_is_refused() {
    // Criticality written as a default, or where the profile has none.
    let owner = value(|w| w.utf8("alice@example.org"));
    for critical in [0x00, 0x01, 0xff] {
        let error = refused(|f| f.replace(&Own::Owner.oid(PEN), Some(critical), &owner));
        assert_eq!(error, ReadError::NotCanonical, "{critical}");
    }
    let constraints = [0x30, 0x00];
    assert_eq!(
        refused(|forge| forge.replace(oid::BASIC_CONSTRAINTS, None, &constraints)),
        ReadError::NotCanonical
    );
    // Another order.
    let swap = |mut forge: Forge| {
        forge.extensions.swap(0, 1);
        forge
    };
    assert_eq!(refused(swap), ReadError::NotCanonical);
    // A length in more bytes than needed, in an extension and outermost.
    let long = [&[0x0c, 0x81, 17][..], b"alice@example.org"].concat();
    assert_eq!(
        refused(|forge| forge.replace(&Own::Owner.oid(PEN), None, &long)),
        ReadError::Value("owner")
    );
    let (forge, key) = forge();
    let good = forge.sign(&key);
    let mut stretched = vec![0x30, 0x83, 0x00];
    stretched.extend(&good[2..]);
    assert!(matches!(
        Certificate::parse(&stretched),
        Err(ReadError::NotDer | ReadError::NotCanonical)
    ));
    // Times as GeneralizedTime where UTCTime belongs.
    let (mut forge, key) = (
        Forge {
            fields: forge.fields,
            extensions: forge.extensions,
        },
        key,
    );
    forge.fields[4] = value(|w| {
        w.sequence(|w| {
            w.tlv(tag::GENERALIZED_TIME, b"20270115075900Z");
            w.tlv(tag::GENERALIZED_TIME, b"20270115090000Z");
        });
    });
    assert_eq!(
        Certificate::parse(&forge.sign(&key)),
        Err(ReadError::NotCanonical)
    );
    let trailing = [&good[..], &[0]].concat();
    assert_eq!(Certificate::parse(&trailing), Err(ReadError::TrailingData));
    assert_eq!(
        Certificate::parse(&vec![0x30; MAX_LEN + 1]),
        Err(ReadError::TooLarge)
    );
}

#[test]
fn fields_hold_only_what_they_may() {
    let field = |at: usize, der: Vec<u8>| {
        refused(|mut forge| {
            forge.fields[at] = der;
            forge
        })
    };
    assert_eq!(
        field(0, vec![0xa0, 0x03, 0x02, 0x01, 0x01]),
        ReadError::Version
    );
    assert_eq!(field(1, vec![0x02, 0x01, 0x05]), ReadError::Serial);
    assert_eq!(
        field(1, [&[0x02, 0x10, 0x80][..], &[7; 15]].concat()),
        ReadError::Serial
    );
    let rsa = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
    assert_eq!(
        field(2, value(|w| w.sequence(|w| w.oid(&rsa)))),
        ReadError::Algorithm
    );
    assert_eq!(
        field(2, value(|w| w.sequence(|w| w.oid(oid::ED25519)))),
        ReadError::NotCanonical
    );
    assert_eq!(
        field(3, value(|w| w.sequence(|_| {}))),
        ReadError::NotCanonical
    );
    let backwards = value(|w| {
        w.sequence(|w| {
            w.time(Timestamp::from_secs(2_000_000_000));
            w.time(Timestamp::from_secs(1_900_000_000));
        });
    });
    assert_eq!(field(4, backwards), ReadError::Validity);
    let mut compressed = Writer::new();
    compressed.sequence(|w| {
        w.sequence(|w| {
            w.oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]);
            w.oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
        });
        w.bits(&[[2; 1].as_slice(), &[7; 32]].concat());
    });
    assert_eq!(field(6, compressed.finish()), ReadError::PublicKey);
    let other = crate::testing::key(KeyKind::P256)
        .public_key()
        .spki_der()
        .to_vec();
    assert_eq!(
        field(6, other),
        ReadError::NotCanonical,
        "the key identifier is another key's"
    );
}

#[test]
fn two_pens_are_one_too_many() {
    let pki = Pki::new();
    let forge = Forge::from(&pki.agent(&key(KeyKind::P256)));
    let owner = value(|w| w.utf8("mallory"));
    let other = Own::Owner.oid(Pen::new(1).unwrap());
    let forge = forge.with(&other, None, &owner);
    assert_eq!(
        Certificate::parse(&forge.sign(pki.issuing.key())),
        Err(ReadError::TwoPens)
    );
}

#[test]
fn no_input_makes_the_reader_panic() {
    let (forge, key) = forge();
    let good = forge.sign(&key);
    for length in 0..good.len() {
        assert!(Certificate::parse(&good[..length]).is_err());
    }
    let tbs = forge.tbs().len();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            if let Ok(read) = Certificate::parse(&bytes) {
                assert_eq!(read.der(), bytes);
                let key = key.public_key();
                assert!(read.verify_signature(key).is_err(), "byte {at} of {tbs}");
            }
        }
    }
}

fn any_name() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9._-]{0,63}".prop_filter("reserved", |name| name != "ca" && name != "person")
}

fn any_id() -> impl Strategy<Value = SpiffeId> {
    (any_name(), any_name()).prop_map(|(environment, name)| {
        format!("spiffe://example.org/{environment}/agent/{name}")
            .parse()
            .unwrap()
    })
}

fn any_agent() -> impl Strategy<Value = AgentIdentity> {
    let scopes = prop::collection::vec("[A-Za-z0-9_.-]{1,20}(:[a-z]{1,9}){0,3}(:[*])?", 0..20);
    let scopes = scopes
        .prop_map(|texts| ScopeSet::new(texts.iter().map(|text| text.parse().unwrap())).unwrap());
    let owner = "[a-zéß@.-]{1,80}".prop_map(|owner| owner.parse().unwrap());
    let lineage = prop::collection::vec(any_id(), 0..4);
    (any_id(), scopes, 0..5_u8, owner, any::<u64>(), lineage).prop_map(
        |(uri, scopes, trust, owner, grant, lineage)| AgentIdentity {
            uri,
            scopes,
            trust: trust.try_into().unwrap(),
            owner,
            grant,
            lineage,
        },
    )
}

proptest! {
    #[test]
    fn facts_round_trip(
        agent in any_agent(),
        from in 0..Timestamp::MAX.secs(),
        secs in 0..10_000_000_000_i64,
        pen in 1..=u32::MAX,
        ed25519 in any::<bool>(),
    ) {
        let kind = if ed25519 { KeyKind::Ed25519 } else { KeyKind::P256 };
        let facts = Facts {
            serial: Serial::generate(),
            signed_with: kind,
            subject: Subject::Agent(agent),
            not_before: Timestamp::from_secs(from),
            not_after: Timestamp::from_secs(from + secs).truncate_to_secs(),
            public_key: key(kind).public_key().clone(),
            authority_key_id: Some([7; 20]),
            crl_uri: Some(crate::testing::crl_uri()),
            pen: Pen::new(pen).unwrap(),
        };
        prop_assert_eq!(Facts::read(&facts.encode()), Ok(facts));
    }

    #[test]
    fn other_readers_do_not_panic_either(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Facts::read(&bytes).is_err());
        prop_assert!(crate::profile::csr::read(&bytes).is_err());
        prop_assert!(PublicKey::from_spki_der(&bytes).is_err());
        prop_assert!(PrivateKey::from_pkcs8_der(&bytes).is_err());
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(pem::decode_certs(&text).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(Certificate::parse(&bytes).is_err());
    }
}

/// What `openssl asn1parse` says about each of our extensions.
#[test]
fn extension_bytes_are_as_openssl_reads_them() {
    let files = Files::new();
    let pki = Pki::new();
    let agent = files.write("agent.der", pki.agent(&key(KeyKind::P256)).der());
    let person = files.write("person.der", pki.person(&key(KeyKind::P256)).der());
    let dump = |path: &str| {
        let output = run(&format!("asn1parse -inform DER -in {path}"));
        String::from_utf8(output.stdout).unwrap()
    };
    // Each OID is followed by its value, with no `BOOLEAN` (critical) between.
    for (dump, expected) in [
        (
            dump(&agent),
            &[
                (
                    1,
                    "30210C106D63703A6769746875623A6765745F2A0C0D7061796D656E74733A72656164",
                ),
                (2, "020102"),
                (3, "0C11616C696365406578616D706C652E6F7267"),
                (4, "020200C8"),
                (
                    5,
                    "304E0C247370696666653A2F2F6578616D706C652E6F72672F70726F642F6167656E742F726F6F74\
                     0C267370696666653A2F2F6578616D706C652E6F72672F70726F642F6167656E742F706172656E74",
                ),
            ][..],
        ),
        (
            dump(&person),
            &[(
                6,
                "30230C0561646D696E0C0761756469746F720C066973737565720C09726573706F6E646572",
            )][..],
        ),
    ] {
        let lines: Vec<&str> = dump.lines().collect();
        for (arc, hex) in expected {
            let oid = format!("1.3.6.1.4.1.32473.1.{arc}");
            let at = lines.iter().position(|line| line.ends_with(&oid)).unwrap();
            let hex: String = hex.split_whitespace().collect();
            assert!(
                lines[at + 1].ends_with(&format!("OCTET STRING      [HEX DUMP]:{hex}")),
                "{}",
                lines[at + 1]
            );
        }
    }
}

#[test]
fn openssl_accepts_every_certificate_strictly() {
    for kind in [KeyKind::P256, KeyKind::Ed25519] {
        let files = Files::new();
        let pki = Pki::with(kind, PEN);
        let pem_of = |certificate: &Certificate| pem::encode_certs([certificate.der()]);
        let root = files.write("root.pem", pem_of(pki.root.certificate()));
        let issuing = files.write("issuing.pem", pem_of(pki.issuing.certificate()));
        let signer = files.write("signer.pem", pem_of(pki.signer.certificate()));
        let at = pki.now.secs();
        let subject = key(kind);
        for (certificate, intermediate, purpose) in [
            (pki.agent(&subject), &issuing, "-purpose sslclient"),
            (pki.agent(&subject), &issuing, "-purpose sslserver"),
            (
                pki.enforcer(&subject),
                &issuing,
                "-purpose sslserver -verify_hostname localhost",
            ),
            (
                pki.enforcer(&subject),
                &issuing,
                "-purpose sslclient -verify_ip 127.0.0.1",
            ),
            (pki.person(&subject), &issuing, "-purpose sslclient"),
            (
                pki.authority(&subject),
                &issuing,
                "-purpose sslserver -verify_hostname localhost",
            ),
            (pki.log_signer(&subject), &signer, ""),
        ] {
            let leaf = files.write("leaf.pem", pem_of(&certificate));
            let output = run(&format!(
                "verify -x509_strict -attime {at} {purpose} -CAfile {root} -untrusted {intermediate} {leaf}"
            ));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{kind:?} {purpose}: {said}");
        }
        let leaf = files.write("leaf.pem", pem_of(&pki.log_signer(&subject)));
        let output = run(&format!(
            "verify -x509_strict -attime {at} -purpose sslserver -CAfile {root} -untrusted {signer} {leaf}"
        ));
        assert!(!output.status.success(), "a log signer is no TLS server");
    }
}

#[test]
fn write_extension_is_what_openssl_calls_one() {
    let der = value(|w| {
        write_extension(w, oid::KEY_USAGE, true, |w| {
            w.raw(&[0x03, 0x02, 0x07, 0x80])
        })
    });
    assert_eq!(
        der,
        [
            0x30, 0x0e, 6, 3, 0x55, 0x1d, 0x0f, 1, 1, 0xff, 4, 4, 3, 2, 7, 0x80
        ]
    );
}
