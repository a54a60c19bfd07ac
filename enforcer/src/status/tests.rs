use std::str::FromStr;

use agentca_identity::crypto::sha256;
use agentca_identity::name::Environment;
use agentca_identity::profile::RevocationReason;
use agentca_identity::scope::ScopeSet;
use agentca_identity::trust::TrustLevel;

use super::*;

/// An agent with one certificate.
struct Known {
    agent: SpiffeId,
    serial: Serial,
    certificate: Vec<u8>,
}

impl Known {
    fn new(name: &str) -> Self {
        let agent = SpiffeId::from_str(&format!("spiffe://example.org/prod/agent/{name}")).unwrap();
        let serial = Serial::generate();
        Self {
            agent,
            serial,
            certificate: format!("{name} {serial}").into_bytes(),
        }
    }

    fn again(&self) -> Self {
        Self {
            serial: Serial::generate(),
            agent: self.agent.clone(),
            ..Self::new("x")
        }
    }

    fn claim(&self) -> Claim<'_> {
        Claim {
            serial: self.serial,
            agent: &self.agent,
            fingerprint: sha256(&self.certificate),
            crl_uri: None,
            issuer_key: None,
        }
    }

    fn issued(&self) -> StatusEvent {
        StatusEvent::CertificateIssued {
            serial: self.serial,
            agent: self.agent.clone(),
            certificate: self.certificate.clone(),
            not_after: Timestamp::now() + Duration::from_secs(3_600),
            grant: 1,
        }
    }

    fn agent_revoked(&self) -> StatusEvent {
        StatusEvent::AgentRevoked {
            agent: self.agent.clone(),
            reason: RevocationReason::KeyCompromise,
        }
    }

    fn certificate_revoked(&self) -> StatusEvent {
        StatusEvent::CertificateRevoked {
            serial: self.serial,
            agent: self.agent.clone(),
            reason: RevocationReason::KeyCompromise,
        }
    }

    fn restricted(&self, trust: Option<TrustLevel>) -> StatusEvent {
        StatusEvent::AgentRestricted {
            agent: self.agent.clone(),
            trust,
            scopes: None,
        }
    }
}

fn registry() -> Arc<Registry> {
    Registry::for_feed(Duration::from_secs(30))
}

fn apply(registry: &Registry, events: impl IntoIterator<Item = StatusEvent>) {
    let first = registry.status_number() + 1;
    registry.apply(&records(first, events));
}

fn records(first: u64, events: impl IntoIterator<Item = StatusEvent>) -> Vec<StatusRecord> {
    events
        .into_iter()
        .zip(first..)
        .map(|(event, number)| StatusRecord {
            environment: Environment::from_str("prod").unwrap(),
            number,
            prev: [0; 32],
            seq: number,
            by: None,
            event,
        })
        .collect()
}

#[test]
fn only_the_announced_certificate_is_known() {
    let registry = registry();
    let (known, stranger) = (Known::new("a"), Known::new("b"));
    apply(&registry, [known.issued()]);
    assert_eq!(registry.handshake_verdict(&known.claim()), Verdict::Valid);
    assert_eq!(
        registry.handshake_verdict(&stranger.claim()),
        Verdict::Unknown
    );
    let forged = Claim {
        fingerprint: sha256(b"another key"),
        ..known.claim()
    };
    assert_eq!(registry.handshake_verdict(&forged), Verdict::Unknown);
    let renamed = Claim {
        agent: &stranger.agent,
        ..known.claim()
    };
    assert_eq!(registry.handshake_verdict(&renamed), Verdict::Unknown);
    assert_eq!(registry.status_number(), 1);
}

#[test]
fn revoking_an_agent_ends_what_was_issued_before() {
    let registry = registry();
    let (first, other) = (Known::new("a"), Known::new("b"));
    let second = first.again();
    apply(&registry, [first.issued(), other.issued(), second.issued()]);
    let watches = [&first, &second, &other].map(|known| registry.watch(&known.claim()));
    apply(&registry, [first.agent_revoked()]);
    let verdicts = watches.each_ref().map(Watch::verdict);
    assert_eq!(
        verdicts,
        [Verdict::Revoked, Verdict::Revoked, Verdict::Valid]
    );
    assert_eq!(
        watches.each_ref().map(Watch::is_cancelled),
        [true, true, false]
    );
    let third = first.again();
    apply(
        &registry,
        [
            StatusEvent::AgentReinstated {
                agent: first.agent.clone(),
            },
            third.issued(),
        ],
    );
    assert_eq!(registry.handshake_verdict(&third.claim()), Verdict::Valid);
    assert_eq!(registry.handshake_verdict(&first.claim()), Verdict::Revoked);
}

#[test]
fn revoking_one_certificate_touches_no_other() {
    let registry = registry();
    let first = Known::new("a");
    let second = first.again();
    apply(&registry, [first.issued(), second.issued()]);
    let watch = registry.watch(&second.claim());
    apply(&registry, [first.certificate_revoked()]);
    assert_eq!(registry.handshake_verdict(&first.claim()), Verdict::Revoked);
    assert_eq!(watch.verdict(), Verdict::Valid);
    assert!(!watch.is_cancelled());
}

#[test]
fn restrictions_come_and_go_and_end_connections() {
    let registry = registry();
    let (known, other) = (Known::new("a"), Known::new("b"));
    apply(&registry, [known.issued(), other.issued()]);
    let (watch, untouched) = (
        registry.watch(&known.claim()),
        registry.watch(&other.claim()),
    );
    assert_eq!(watch.restriction(), None);
    apply(&registry, [known.restricted(Some(TrustLevel::L1))]);
    assert!(watch.is_cancelled());
    assert!(!untouched.is_cancelled());
    let next = registry.watch(&known.claim());
    assert!(
        !next.is_cancelled(),
        "a connection made under the restriction goes on"
    );
    assert_eq!(next.restriction().unwrap().trust, Some(TrustLevel::L1));
    assert_eq!(next.verdict(), Verdict::Valid);
    apply(&registry, [known.restricted(None)]);
    assert_eq!(registry.watch(&known.claim()).restriction(), None);
    let narrowed = StatusEvent::AgentRestricted {
        agent: known.agent.clone(),
        trust: None,
        scopes: Some(ScopeSet::new([]).unwrap()),
    };
    apply(&registry, [narrowed]);
    assert!(
        registry
            .watch(&known.claim())
            .restriction()
            .unwrap()
            .scopes
            .is_some()
    );
}

#[tokio::test]
async fn a_late_announcement_is_waited_for() {
    let registry = registry();
    let known = Known::new("a");
    let watch = registry.watch(&known.claim());
    assert_eq!(watch.verdict(), Verdict::Unknown);
    assert_eq!(
        watch.issued(Duration::from_millis(1)).await,
        Verdict::Unknown
    );
    let (verdict, ()) = tokio::join!(watch.issued(Duration::from_secs(60)), async {
        apply(&registry, [known.issued()]);
    });
    assert_eq!(verdict, Verdict::Valid);
    assert!(!watch.is_cancelled());
}

#[tokio::test]
async fn a_revocation_wakes_who_waits() {
    let registry = registry();
    let known = Known::new("a");
    apply(&registry, [known.issued()]);
    let watch = registry.watch(&known.claim());
    tokio::join!(watch.cancelled(), async {
        apply(&registry, [known.agent_revoked()])
    });
    assert_eq!(watch.verdict(), Verdict::Revoked);
}

#[test]
fn no_revocation_falls_between_registering_and_looking_up() {
    for _ in 0..200 {
        let registry = registry();
        let known = Known::new("a");
        apply(&registry, [known.issued()]);
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| registry.watch(&known.claim()));
            scope.spawn(|| apply(&registry, [known.agent_revoked()]));
            let watch = watching.join().unwrap();
            // Whoever was first: once the revocation is applied, the watch says so.
            while registry.status_number() < 2 {
                std::thread::yield_now();
            }
            assert_eq!(watch.verdict(), Verdict::Revoked);
            assert!(watch.is_cancelled());
        });
    }
}

#[test]
fn a_snapshot_replaces_everything_at_once() {
    let registry = registry();
    let (kept, gone, new) = (Known::new("a"), Known::new("b"), Known::new("c"));
    apply(&registry, [kept.issued(), gone.issued()]);
    let watches = [&kept, &gone, &new].map(|known| registry.watch(&known.claim()));
    let state = FeedState::default();
    for known in [&kept, &new] {
        let (agent, fingerprint) = (known.agent.to_string(), sha256(&known.certificate));
        state.issued(&known.serial, &agent, fingerprint, Timestamp::now(), 5);
    }
    registry.replace(state, 9, &[]);
    let verdicts = watches.each_ref().map(Watch::verdict);
    assert_eq!(verdicts, [Verdict::Valid, Verdict::Unknown, Verdict::Valid]);
    assert_eq!(
        watches.each_ref().map(Watch::is_cancelled),
        [false, true, false]
    );
    assert_eq!(registry.status_number(), 9);
}

#[test]
fn what_expired_long_ago_is_forgotten() {
    let state = FeedState::default();
    let old = Timestamp::from_secs(1_000_000);
    for _ in 0..100 {
        state.issued(&Serial::generate(), "a", [0; 32], old, 1);
    }
    let recent = Serial::generate();
    state.issued(&recent, "a", [0; 32], old + Duration::from_secs(10), 2);
    for _ in 0..64 {
        state.forget_expired(old + Duration::from_secs(3_605));
    }
    assert_eq!(state.len(), 1);
}

#[test]
fn a_dropped_watch_is_forgotten() {
    let registry = registry();
    let known = Known::new("a");
    let (first, second) = (
        registry.watch(&known.claim()),
        registry.watch(&known.claim()),
    );
    assert_eq!(registry.watchers.len(), 2);
    drop(first);
    assert_eq!(registry.watchers.len(), 1);
    drop(second);
    assert_eq!(registry.watchers.len(), 0);
}

#[test]
fn a_refusal_is_final() {
    let registry = registry();
    assert_eq!(registry.readiness(), Readiness::Starting);
    registry.set_readiness(Readiness::Ready);
    assert_eq!(registry.readiness(), Readiness::Ready);
    registry.set_readiness(Readiness::Refused);
    registry.set_readiness(Readiness::Ready);
    assert_eq!(registry.readiness(), Readiness::Refused);
}

#[test]
fn nothing_is_fresh_before_the_first_heartbeat() {
    let registry = registry();
    assert_eq!(
        registry.freshness(Instant::now()),
        Err(StaleReason::Unverified)
    );
    registry.heartbeat(Timestamp::now(), Instant::now());
    assert_eq!(registry.freshness(Instant::now()), Ok(()));
    registry.distrust();
    assert_eq!(
        registry.freshness(Instant::now()),
        Err(StaleReason::Unverified)
    );
    assert_eq!(
        Registry::for_crl().freshness(Instant::now()),
        Err(StaleReason::Unverified)
    );
}

#[test]
fn a_snapshot_and_its_tail_are_judged_by_together() {
    let registry = registry();
    let (kept, revoked) = (Known::new("a"), Known::new("b"));
    apply(&registry, [kept.issued(), revoked.issued()]);
    let watches = [&kept, &revoked].map(|known| registry.watch(&known.claim()));
    // Both certificates are only in the tail.
    let events = [kept.issued(), revoked.issued(), revoked.agent_revoked()];
    registry.replace(FeedState::default(), 0, &records(1, events));
    let [kept, revoked] = watches;
    assert!(!kept.is_cancelled(), "it was valid all the time");
    assert_eq!(kept.verdict(), Verdict::Valid);
    assert!(revoked.is_cancelled());
    assert_eq!(registry.status_number(), 3);
}

#[test]
fn a_verdict_is_told_with_the_number_that_it_follows_from() {
    let registry = registry();
    for round in 0..500 {
        let known = Known::new("a");
        let watch = registry.watch(&known.claim());
        let issued = round * 2 + 1;
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                loop {
                    let Standing {
                        verdict,
                        status_number,
                    } = watch.standing();
                    let fits = match verdict {
                        Verdict::Unknown => status_number < issued,
                        Verdict::Valid => status_number == issued,
                        Verdict::Revoked => status_number == issued + 1,
                    };
                    assert!(fits, "{verdict:?} at {status_number}");
                    if verdict == Verdict::Revoked {
                        break;
                    }
                }
            });
            apply(&registry, [known.issued()]);
            apply(&registry, [known.agent_revoked()]);
            looking.join().unwrap();
        });
    }
}

#[test]
fn what_expired_is_forgotten_a_little_each_second() {
    let registry = registry();
    let Source::Feed(state) = &registry.source else {
        panic!("a feed")
    };
    let long_ago = Timestamp::from_secs(1_000_000_000);
    for number in 1..=1_000 {
        let serial = Serial::generate();
        state.load().issued(&serial, "a", [0; 32], long_ago, number);
    }
    for _ in 0..200 {
        registry.heartbeat(Timestamp::now(), Instant::now());
    }
    let left = state.load().len();
    assert!((700..1_000).contains(&left), "{left}");
}
