use proptest::prelude::*;

use super::snapshot::{SnapshotAgent, SnapshotCertificate};
use super::*;
use crate::merkle::leaf_hash;
use crate::record::tests::canonical;

fn head() -> Head<'static> {
    Head::new(
        12,
        Timestamp::from_millis(1_763_707_760_123),
        "example.org/ca",
    )
}

fn agent() -> SpiffeId {
    "spiffe://example.org/prod/agent/support-01"
        .parse()
        .unwrap()
}

fn serial(last: u8) -> Serial {
    let mut bytes = [7; 16];
    bytes[15] = last;
    Serial::from_bytes(bytes).unwrap()
}

fn scopes() -> ScopeSet {
    ScopeSet::new(["a:*".parse().unwrap(), "payments:read".parse().unwrap()]).unwrap()
}

fn events() -> Vec<StatusEvent> {
    let agent = agent();
    let reason = RevocationReason::KeyCompromise;
    vec![
        StatusEvent::EnvironmentOpened {
            issuers: vec![vec![1, 2], vec![3]],
        },
        StatusEvent::CertificateIssued {
            serial: serial(1),
            agent: agent.clone(),
            certificate: vec![0x30, 1, 2],
            not_after: Timestamp::from_secs(1_800_000_000),
            grant: 4,
        },
        StatusEvent::AgentRevoked {
            agent: agent.clone(),
            reason,
        },
        StatusEvent::CertificateRevoked {
            serial: serial(1),
            agent: agent.clone(),
            reason,
        },
        StatusEvent::AgentRestricted {
            agent: agent.clone(),
            trust: None,
            scopes: None,
        },
        StatusEvent::AgentRestricted {
            agent: agent.clone(),
            trust: Some(TrustLevel::L1),
            scopes: Some(scopes()),
        },
        StatusEvent::AgentReinstated { agent },
        StatusEvent::Snapshot {
            digest: [9; 32],
            covers: (1 << 53) + 1,
        },
        StatusEvent::IssuerAdded {
            certificate: vec![4],
        },
    ]
}

fn record(event: StatusEvent) -> StatusRecord {
    StatusRecord {
        environment: "prod".parse().unwrap(),
        number: 5,
        prev: leaf_hash(b"before"),
        seq: 12,
        by: Some("spiffe://example.org/person/alice".parse().unwrap()),
        event,
    }
}

fn encoded(record: &StatusRecord) -> Vec<u8> {
    let mut out = Vec::new();
    record.encode(&head(), &mut out);
    out
}

#[test]
fn every_event_reads_back_and_is_canonical() {
    for event in events() {
        let record = record(event);
        let bytes = encoded(&record);
        assert_eq!(canonical(&bytes), bytes);
        assert_eq!(StatusRecord::parse(&bytes).unwrap(), record);
        assert!(is_status_kind(record.event.kind()));
    }
}

#[test]
fn the_form_is_the_documented_one() {
    let bytes = encoded(&record(events()[3].clone()));
    let expected = concat!(
        r#"{"agent":"spiffe://example.org/prod/agent/support-01","#,
        r#""by":"spiffe://example.org/person/alice","kind":"certificate-revoked","#,
        r#""log":"example.org/ca","reason":"key-compromise","seq":12,"#,
        r#""serial":"07070707070707070707070707070701","#,
        r#""status":{"environment":"prod","number":5,"#,
        r#""prev":"x3w4AKE6Zr2gXLD7ZYqdClc2ugqKahM+cSgErw/hkqg="},"#,
        r#""time":"2025-11-21T06:49:20.123Z","v":1}"#,
    );
    let text = String::from_utf8(bytes).unwrap();
    let prev = STANDARD.encode(leaf_hash(b"before"));
    assert_eq!(
        text,
        expected.replace("x3w4AKE6Zr2gXLD7ZYqdClc2ugqKahM+cSgErw/hkqg=", &prev)
    );
}

#[test]
fn what_is_not_understood_is_refused() {
    let good = String::from_utf8(encoded(&record(events()[2].clone()))).unwrap();
    for (from, to) in [
        ("agent-revoked", "agent-forgiven"),
        ("agent-revoked", "agent-reinstated"),
        ("key-compromise", "keyCompromise"),
        ("key-compromise", "boredom"),
        ("\"number\":5", "\"number\":0"),
        ("\"number\":5", "\"number\":\"5\""),
        ("prod\",\"number", "Prod\",\"number"),
        ("/agent/", "/person/"),
        ("\"v\":1", "\"v\":1,\"w\":1"),
        ("\"reason\":\"key-compromise\",", ""),
        ("},\"time\"", ",\"x\":1},\"time\""),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        assert!(StatusRecord::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    let unknown = good.replace("agent-revoked", "agent-forgiven");
    assert!(matches!(
        StatusRecord::parse(unknown.as_bytes()),
        Err(StatusError::UnknownKind(kind)) if kind == "agent-forgiven"
    ));
    let mut plain = Vec::new();
    Record::begin(&mut plain, &head(), "agent-revoked").finish();
    assert_eq!(StatusRecord::parse(&plain), Err(StatusError::NotStatus));
}

fn snapshot() -> Snapshot {
    let agent = |name: &str| {
        format!("spiffe://example.org/prod/agent/{name}")
            .parse()
            .unwrap()
    };
    let certificate = |number: u64, agent: u32| SnapshotCertificate {
        number,
        serial: serial(u8::try_from(number).unwrap()),
        agent,
        not_after: Timestamp::from_millis(1_763_707_760_123),
        fingerprint: [u8::try_from(number).unwrap(); 32],
        revoked: number == 3,
    };
    Snapshot {
        environment: "prod".parse().unwrap(),
        number: 9,
        hash: [8; 32],
        issuers: vec![vec![1, 2, 3], Vec::new()],
        agents: vec![
            SnapshotAgent {
                uri: agent("a"),
                revoked_before: 4,
                trust: None,
                scopes: None,
            },
            SnapshotAgent {
                uri: agent("b"),
                revoked_before: 0,
                trust: Some(TrustLevel::L2),
                scopes: Some(scopes()),
            },
            SnapshotAgent {
                uri: agent("c"),
                revoked_before: 0,
                trust: None,
                scopes: Some(scopes()),
            },
        ],
        certificates: vec![certificate(2, 1), certificate(3, 0), certificate(9, 2)],
    }
}

#[test]
fn snapshots_read_back_with_their_digest() {
    for snapshot in [
        snapshot(),
        Snapshot {
            agents: vec![],
            certificates: vec![],
            ..snapshot()
        },
    ] {
        let mut bytes = Vec::new();
        let (digest, length) = snapshot.write(&mut bytes).unwrap();
        assert_eq!(digest, agentca_identity::crypto::sha256(&bytes));
        assert_eq!(length, u64::try_from(bytes.len()).unwrap());
        assert_eq!(Snapshot::read(&bytes).unwrap(), snapshot);
        for cut in 0..bytes.len() {
            assert!(Snapshot::read(&bytes[..cut]).is_err());
        }
        bytes.push(0);
        assert!(matches!(
            Snapshot::read(&bytes),
            Err(snapshot::SnapshotError::Trailing)
        ));
    }
}

#[test]
fn a_snapshot_out_of_order_is_not_written() {
    let mut swapped = snapshot();
    swapped.agents.swap(0, 1);
    assert!(swapped.write(Vec::new()).is_err());
    let mut swapped = snapshot();
    swapped.certificates.swap(0, 1);
    assert!(swapped.write(Vec::new()).is_err());
    let mut stray = snapshot();
    stray.certificates[0].agent = 3;
    assert!(stray.write(Vec::new()).is_err());
    let mut later = snapshot();
    later.number = 8;
    assert!(later.write(Vec::new()).is_err());
}

proptest! {
    #[test]
    fn one_form_for_one_state(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = Vec::new();
        snapshot().write(&mut bytes).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(read) = Snapshot::read(&bytes) {
            let mut again = Vec::new();
            read.write(&mut again).unwrap();
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = StatusRecord::parse(&bytes);
        let _ = Snapshot::read(&bytes);
        let _ = Snapshot::read(&[b"agcsnap\x01\x04prod", &bytes[..]].concat());
    }
}
