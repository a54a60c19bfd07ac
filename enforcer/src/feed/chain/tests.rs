use super::*;
use crate::feed::fake::Authority;

fn reinstated() -> StatusEvent {
    let agent = "spiffe://example.org/prod/agent/a".parse().unwrap();
    StatusEvent::AgentReinstated { agent }
}

fn chain() -> Chain {
    Chain::new("prod".parse().unwrap())
}

/// A chain that followed an authority for two records.
fn followed() -> (Authority, Chain) {
    let (mut authority, mut chain) = (Authority::new(), chain());
    let records = [
        authority.record(reinstated()),
        authority.record(reinstated()),
    ];
    let heartbeat = authority.heartbeat();
    let step = chain
        .update(&records, &heartbeat, None, authority.key())
        .unwrap()
        .unwrap();
    assert_eq!(step.records.len(), 2);
    assert_eq!(chain.position(), authority.position);
    (authority, chain)
}

/// What the chain says to an update, and that a refusal changes nothing.
fn refusal(
    chain: &mut Chain,
    records: &[Vec<u8>],
    heartbeat: &str,
    snapshot: Option<SnapshotClaim>,
    key: &VerifierKey,
) -> FeedFault {
    let before = chain.position();
    let fault = chain.update(records, heartbeat, snapshot, key).unwrap_err();
    assert_eq!(chain.position(), before);
    fault
}

#[test]
fn heartbeats_alone_go_on() {
    let (mut authority, mut chain) = followed();
    let step = chain.update(&[], &authority.heartbeat(), None, authority.key());
    let step = step.unwrap().unwrap();
    assert!(step.records.is_empty());
    assert_eq!(step.time, Timestamp::from_secs(authority.time));
}

#[test]
fn nothing_counts_before_a_heartbeat_covers_it() {
    let (mut authority, mut chain) = followed();
    let before = chain.position();
    let record = authority.record(reinstated());
    assert!(
        chain
            .update(&[record], "", None, authority.key())
            .unwrap()
            .is_none()
    );
    assert_eq!(chain.position(), before);
    let record = authority.record(reinstated());
    let heartbeat = authority.heartbeat();
    let step = chain
        .update(&[record], &heartbeat, None, authority.key())
        .unwrap()
        .unwrap();
    assert_eq!(step.records.len(), 2);
    assert_eq!(chain.position(), authority.position);
}

#[test]
fn a_new_connection_forgets_what_was_not_covered() {
    let (mut authority, mut chain) = followed();
    let record = authority.record(reinstated());
    assert!(
        chain
            .update(std::slice::from_ref(&record), "", None, authority.key())
            .unwrap()
            .is_none()
    );
    chain.restart();
    let heartbeat = authority.heartbeat();
    let step = chain
        .update(&[record], &heartbeat, None, authority.key())
        .unwrap()
        .unwrap();
    assert_eq!(step.records.len(), 1);
}

#[test]
fn gaps_and_forks_are_refused() {
    let (mut authority, mut chain) = followed();
    let at = authority.position;
    let skipped = authority.record_at(at.number + 2, at.hash, reinstated());
    let repeated = authority.record_at(at.number, at.hash, reinstated());
    let forked = authority.record_at(at.number + 1, [7; 32], reinstated());
    let heartbeat = authority.heartbeat();
    let key = authority.key();
    let gap = |found| FeedFault::Gap { expected: 3, found };
    assert_eq!(
        refusal(&mut chain, &[skipped], &heartbeat, None, key),
        gap(4)
    );
    assert_eq!(
        refusal(&mut chain, &[repeated], &heartbeat, None, key),
        gap(2)
    );
    let fork = FeedFault::Fork { number: 3 };
    assert_eq!(refusal(&mut chain, &[forked], &heartbeat, None, key), fork);
}

#[test]
fn a_heartbeat_covers_exactly_what_was_sent() {
    let (mut authority, mut chain) = followed();
    let old = authority.position;
    let record = authority.record(reinstated());
    let newer = authority.heartbeat();
    let older = authority.heartbeat_of(old);
    let other = authority.heartbeat_of(Position {
        hash: [1; 32],
        ..authority.position
    });
    let key = authority.key();
    for (records, heartbeat) in [
        (vec![], newer),
        (vec![record.clone()], older),
        (vec![record], other),
    ] {
        let fault = refusal(&mut chain, &records, &heartbeat, None, key);
        assert!(matches!(fault, FeedFault::Mismatch { .. }), "{fault}");
    }
}

#[test]
fn time_and_log_never_go_back() {
    let (mut authority, mut chain) = followed();
    authority.time -= 1;
    let earlier = authority.heartbeat_of(authority.position);
    authority.time += 2;
    authority.size -= 1;
    let shorter = authority.heartbeat_of(authority.position);
    authority.size += 1;
    let key = authority.key();
    for heartbeat in [earlier, shorter] {
        assert_eq!(
            refusal(&mut chain, &[], &heartbeat, None, key),
            FeedFault::WentBack
        );
    }
    // The same size with another root.
    let heartbeat = authority.heartbeat_of(authority.position);
    let forked = Heartbeat {
        checkpoint_root: [9; 32],
        ..Heartbeat::open(heartbeat.as_bytes(), key).unwrap()
    };
    let forked = forked.sign(&authority.signer).unwrap();
    assert_eq!(
        refusal(&mut chain, &[], &forked, None, key),
        FeedFault::WentBack
    );
    assert!(chain.update(&[], &heartbeat, None, key).is_ok());
}

#[test]
fn another_signer_is_refused() {
    let (authority, mut chain) = followed();
    let stranger = Authority {
        position: authority.position,
        ..Authority::new()
    };
    let heartbeat = stranger.heartbeat_of(stranger.position);
    let fault = refusal(&mut chain, &[], &heartbeat, None, authority.key());
    assert!(matches!(fault, FeedFault::Heartbeat(_)), "{fault}");
}

#[test]
fn another_environment_is_refused() {
    let (mut authority, mut chain) = followed();
    authority.environment = "dev".parse().unwrap();
    let heartbeat = authority.heartbeat();
    let record = authority.record(reinstated());
    let environment = FeedFault::Environment {
        found: "dev".to_owned(),
    };
    assert_eq!(
        refusal(&mut chain, &[], &heartbeat, None, authority.key()),
        environment
    );
    let fault = refusal(&mut chain, &[record], "", None, authority.key());
    assert_eq!(fault, environment);
}

#[test]
fn what_cannot_be_read_is_refused() {
    let (mut authority, mut chain) = followed();
    let record = String::from_utf8(authority.record(reinstated())).unwrap();
    let unknown = record.replace("agent-reinstated", "agent-promoted");
    let wider = record.replace("\"kind\"", "\"extra\":1,\"kind\"");
    let heartbeat = authority.heartbeat();
    for bytes in [unknown, wider, "{}".to_owned(), String::new()] {
        let records = [bytes.into_bytes()];
        let fault = refusal(&mut chain, &records, &heartbeat, None, authority.key());
        assert!(matches!(fault, FeedFault::Unreadable(_)), "{fault}");
    }
}

#[test]
fn a_snapshot_needs_its_voucher() {
    let mut authority = Authority::new();
    for _ in 0..5 {
        authority.record(reinstated());
    }
    let claim = SnapshotClaim {
        covers: authority.position,
        digest: [4; 32],
    };
    let voucher = authority.record(StatusEvent::Snapshot {
        digest: [4; 32],
        covers: 5,
    });
    let heartbeat = authority.heartbeat();
    let key = authority.key();
    let mut fresh = chain();
    let others = [
        SnapshotClaim {
            digest: [5; 32],
            ..claim
        },
        SnapshotClaim {
            covers: Position {
                number: 4,
                ..claim.covers
            },
            ..claim
        },
    ];
    let records = [voucher];
    for other in others {
        let fault = refusal(&mut fresh, &records, &heartbeat, Some(other), key);
        assert_eq!(fault, FeedFault::Snapshot);
    }
    let forged = SnapshotClaim {
        covers: Position {
            hash: [1; 32],
            ..claim.covers
        },
        ..claim
    };
    let fault = refusal(&mut fresh, &records, &heartbeat, Some(forged), key);
    assert_eq!(fault, FeedFault::Fork { number: 6 });
    let fault = refusal(&mut fresh, &[], &heartbeat, Some(claim), key);
    assert_eq!(fault, FeedFault::Snapshot);
    let step = fresh
        .update(&records, &heartbeat, Some(claim), key)
        .unwrap()
        .unwrap();
    assert_eq!(step.records.len(), 1);
    assert_eq!(fresh.position(), authority.position);
    // An older one does not take back what is in force.
    let fault = refusal(&mut fresh, &records, &heartbeat, Some(claim), key);
    assert_eq!(fault, FeedFault::WentBack);
}
