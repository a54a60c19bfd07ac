//! Records that break the rules under a proper signature.

use super::*;
use crate::record::Record;
use crate::status::{StatusEvent, StatusRecord};
use crate::testing::sample;

/// What a writer that breaks the rules, but signs properly, gets for it.
fn judged<T>(write: impl Fn(&Log) -> T) -> Reason {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::of("example.org/ca");
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    stage(&log, 3);
    write(&log);
    drop(log);
    let error = verify(&directory, &pki).unwrap_err();
    assert!(matches!(error.place, Place::Record { .. }), "{error}");
    error.reason
}

#[test]
fn records_must_be_records_of_this_place() {
    let elsewhere = judged(|log| {
        put(log, |_, out| {
            let head = crate::record::Head::new(9, Timestamp::MAX, "example.org/ca");
            sample(&head, out);
        });
    });
    assert!(matches!(elsewhere, Reason::Elsewhere { found: 9, .. }));
    let other_log = judged(|log| {
        put(log, |head, out| {
            let head = crate::record::Head::new(head.seq, head.time, "example.org/prod/enforcer/x");
            sample(&head, out);
        });
    });
    assert!(matches!(other_log, Reason::Elsewhere { found: 4, .. }));
    let back = judged(|log| {
        put(log, |head, out| {
            let head = crate::record::Head::new(head.seq, Timestamp::MIN, head.log);
            sample(&head, out);
        });
    });
    assert!(matches!(back, Reason::TimeGoesBack));
    let form = judged(|log| {
        put(log, |head, out| {
            sample(head, out);
            out.push(b' ');
        });
    });
    assert!(matches!(form, Reason::Record(_)));
    let opened = judged(|log| {
        put(log, |head, out| {
            Record::begin(out, head, crate::record::LOG_OPENED).finish()
        });
    });
    assert!(matches!(opened, Reason::Announcement(_)));
    let announced = judged(|log| {
        let chain = Pki::new().signer("example.org/ca").chain;
        put(log, |head, out| {
            crate::record::signer_announced(head, out, &chain)
        });
    });
    assert!(matches!(announced, Reason::Chain(_)));
}

fn status(number: u64, prev: Hash) -> StatusRecord {
    StatusRecord {
        environment: "prod".parse().unwrap(),
        number,
        prev,
        seq: 0,
        by: None,
        event: StatusEvent::EnvironmentOpened {
            issuers: Vec::new(),
        },
    }
}

#[test]
fn the_status_chain_has_no_gap_and_no_fork() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::of("example.org/ca");
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    let mut prev = [0; 32];
    for number in 1..5 {
        let staged = log
            .stage(|head, out| status(number, prev).encode(head, out))
            .unwrap();
        prev = staged.leaf;
    }
    drop(log);
    verify(&directory, &pki).unwrap();
    let gap = judged(|log| put(log, |head, out| status(2, [0; 32]).encode(head, out)));
    assert!(matches!(gap, Reason::StatusChain { number: 0, .. }));
    let fork = judged(|log| {
        put(log, |head, out| status(1, [0; 32]).encode(head, out));
        put(log, |head, out| status(2, [7; 32]).encode(head, out));
    });
    assert!(matches!(fork, Reason::StatusChain { number: 1, .. }));
    let unknown = judged(|log| {
        put(log, |head, out| {
            let mut record = Record::begin(out, head, "agent-forgiven");
            record.object("status", |_| ());
            record.finish();
        });
    });
    assert!(matches!(unknown, Reason::Status(_)));
}
