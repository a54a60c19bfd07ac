use super::*;
use crate::crypto::KeyKind;
use crate::testing::{Files, Pki, crl_uri, key, run};
use std::time::Duration;

type Revocation = (Serial, Timestamp, RevocationReason);

fn template(pki: &Pki, revoked: Vec<Revocation>) -> CrlTemplate<std::vec::IntoIter<Revocation>> {
    CrlTemplate {
        number: 77,
        this_update: pki.now,
        next_update: pki.now + Duration::from_secs(86_400),
        shard_uri: crl_uri(),
        revoked: revoked.into_iter(),
    }
}

fn list(pki: &Pki, revoked: Vec<Revocation>) -> Vec<u8> {
    sign_crl(&pki.issuing, template(pki, revoked)).unwrap()
}

#[test]
fn lists_round_trip() {
    for kind in [KeyKind::P256, KeyKind::Ed25519] {
        let pki = Pki::with(kind, crate::profile::Pen::DOCUMENTATION);
        let revoked: Vec<Revocation> = RevocationReason::ALL
            .into_iter()
            .map(|reason| (Serial::generate(), pki.now, reason))
            .collect();
        for revoked in [revoked, Vec::new()] {
            let der = list(&pki, revoked.clone());
            let crl = Crl::parse_verified(&der, pki.issuing.certificate()).unwrap();
            assert_eq!((crl.number(), crl.len()), (77, revoked.len()));
            assert_eq!(crl.is_empty(), revoked.is_empty());
            assert_eq!((crl.this_update(), crl.shard_uri()), (pki.now, &crl_uri()));
            assert_eq!(crl.next_update(), pki.now + Duration::from_secs(86_400));
            for (serial, since, reason) in revoked {
                assert_eq!(
                    crl.revoked(&serial),
                    Some(Revoked {
                        serial,
                        since,
                        reason
                    })
                );
            }
            assert_eq!(crl.revoked(&Serial::generate()), None);
            assert!(crl.iter().is_sorted_by_key(|revoked| revoked.serial));
        }
    }
}

#[test]
fn openssl_reads_and_applies_them() {
    let files = Files::new();
    let pki = Pki::new();
    let pem_of = |der: &[u8]| crate::pem::encode_certs([der]);
    let leaf = pki.agent(&key(KeyKind::P256));
    let root = files.write("root.pem", pem_of(pki.root.certificate().der()));
    let issuing = files.write("issuing.pem", pem_of(pki.issuing.certificate().der()));
    let leaf_path = files.write("leaf.pem", pem_of(leaf.der()));
    let other = (Serial::generate(), pki.now, RevocationReason::Unspecified);
    let own = (leaf.serial(), pki.now, RevocationReason::KeyCompromise);
    for (revoked, good) in [
        (vec![other], true),
        (vec![other, own], false),
        (vec![], true),
    ] {
        let der = list(&pki, revoked);
        let crl = files.write("crl.der", &der);
        let output = run(&format!(
            "crl -inform DER -in {crl} -CAfile {issuing} -noout"
        ));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("verify OK"), "{said}");
        let crl = files.write("crl.pem", crate::pem::encode("X509 CRL", &der));
        let at = pki.now.secs();
        let output = run(&format!(
            "verify -x509_strict -crl_check -attime {at} -CAfile {root} -untrusted {issuing} \
             -CRLfile {crl} {leaf_path}"
        ));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), good, "{said}");
        assert_eq!(said.contains("certificate revoked"), !good, "{said}");
    }
}

#[test]
fn any_change_is_refused() {
    let pki = Pki::new();
    let der = list(
        &pki,
        vec![(Serial::generate(), pki.now, RevocationReason::Superseded)],
    );
    let issuer = pki.issuing.certificate();
    for at in 0..der.len() {
        assert!(Crl::parse_verified(&der[..at], issuer).is_err());
        for bit in 0..8 {
            let mut bytes = der.clone();
            bytes[at] ^= 1 << bit;
            assert!(Crl::parse_verified(&bytes, issuer).is_err(), "byte {at}");
        }
    }
    let trailing = [&der[..], &[0]].concat();
    assert_eq!(
        Crl::parse_verified(&trailing, issuer).unwrap_err(),
        CrlError::NotDer
    );
    let foreign = Pki::new();
    let result = Crl::parse_verified(&der, foreign.issuing.certificate());
    assert_eq!(result.unwrap_err(), CrlError::Issuer);
    let result = Crl::parse_verified(&der, pki.signer.certificate());
    assert_eq!(result.unwrap_err(), CrlError::Issuer);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(0_u8.., 0..200)) {
        proptest::prop_assert!(Walked::read(&bytes).is_err());
        let _ = read_entries(&bytes);
    }
}

/// What the issuing key signed is held to the form as well.
#[test]
fn other_forms_are_refused_even_when_signed() {
    let pki = Pki::new();
    let (low, high) = {
        let (one, other) = (Serial::generate(), Serial::generate());
        if one < other {
            (one, other)
        } else {
            (other, one)
        }
    };
    let entry = |serial| Entry {
        serial,
        since: pki.now.secs(),
        code: 1,
    };
    let head = Head {
        trust_domain: "example.org".parse().unwrap(),
        signed_with: KeyKind::P256,
        authority_key_id: pki.issuing.key().public_key().short_id(),
        number: 1,
        this_update: pki.now,
        next_update: pki.now + Duration::from_secs(1),
        shard_uri: crl_uri(),
    };
    let read = |head: &Head, entries: &[Entry]| {
        let tbs = head.encode(entries);
        let der = assemble(&tbs, KeyKind::P256, &pki.issuing.key().sign(&tbs).unwrap());
        Crl::parse_verified(&der, pki.issuing.certificate()).map(|crl| crl.len())
    };
    assert_eq!(read(&head, &[entry(low), entry(high)]), Ok(2));
    assert_eq!(
        read(&head, &[entry(high), entry(low)]),
        Err(CrlError::NotCanonical)
    );
    assert_eq!(
        read(&head, &[entry(low), entry(low)]),
        Err(CrlError::Duplicate)
    );
    let odd = Entry {
        code: 7,
        ..entry(low)
    };
    assert_eq!(read(&head, &[odd]), Err(CrlError::NotDer));
    let backwards = Head {
        next_update: pki.now,
        ..head.clone()
    };
    assert_eq!(read(&backwards, &[]), Err(CrlError::Times));
    let foreign = Head {
        trust_domain: "example.com".parse().unwrap(),
        ..head
    };
    assert_eq!(read(&foreign, &[]), Err(CrlError::NotCanonical));
}

#[test]
fn wrong_lists_are_not_signed() {
    let pki = Pki::new();
    let twice = (Serial::generate(), pki.now, RevocationReason::KeyCompromise);
    let result = sign_crl(&pki.issuing, template(&pki, vec![twice, twice]));
    assert_eq!(result, Err(CrlError::Duplicate));
    assert_eq!(
        sign_crl(&pki.root, template(&pki, vec![])),
        Err(CrlError::Issuer)
    );
    let stale = CrlTemplate {
        next_update: pki.now,
        ..template(&pki, vec![])
    };
    assert_eq!(sign_crl(&pki.issuing, stale), Err(CrlError::Times));
}

#[test]
fn a_million_entries_are_workable() {
    let pki = Pki::new();
    let serial = |number: u32| {
        let mut bytes = [1; 16];
        bytes[12..].copy_from_slice(&number.to_be_bytes());
        Serial::from_bytes(bytes).unwrap()
    };
    let revoked = (0..1_000_000)
        .map(|number| (serial(number * 2), pki.now, RevocationReason::KeyCompromise))
        .collect();
    let der = list(&pki, revoked);
    let crl = Crl::parse_verified(&der, pki.issuing.certificate()).unwrap();
    assert_eq!(crl.len(), 1_000_000);
    assert!(crl.revoked(&serial(1_999_998)).is_some() && crl.revoked(&serial(1_999_997)).is_none());
}
