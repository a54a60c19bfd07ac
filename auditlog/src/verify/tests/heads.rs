//! Signed heads: the log's, those kept elsewhere, those the witness co-signed, and the keys of all.

use super::*;
use crate::decision::CrlAccepted;
use crate::testing::YEAR;

#[test]
fn a_log_must_extend_the_given_checkpoint() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    stage(&log, 10);
    let early = log.publish_now().unwrap().note.clone();
    stage(&log, 10);
    let late = log.publish_now().unwrap().note.clone();
    drop(log);
    let with_floor = |note: &str| with_floor(&directory, &pki, note);
    with_floor(&early).unwrap();
    with_floor(&late).unwrap();
    let signer = pki.log.note_signer().unwrap();
    let forged = |size, root| {
        Checkpoint {
            origin: LOG.into(),
            size,
            root,
        }
        .sign(&signer)
        .unwrap()
    };
    let longer = with_floor(&forged(22, [1; 32])).unwrap_err();
    assert!(
        matches!(
            longer.reason,
            Reason::Shorter {
                size: 22,
                found: 21
            }
        ),
        "{longer}"
    );
    let forked = with_floor(&forged(7, [1; 32])).unwrap_err();
    assert!(
        matches!(forked.reason, Reason::Root { size: 7 }),
        "{forked}"
    );
    let stranger = Checkpoint {
        origin: LOG.into(),
        size: 0,
        root: crate::merkle::empty_root(),
    };
    let stranger = stranger
        .sign(&pki.signer(LOG).note_signer().unwrap())
        .unwrap();
    assert!(matches!(
        with_floor(&stranger).unwrap_err().reason,
        Reason::AnotherKey
    ));
}

#[test]
fn cosignatures_are_verified_and_the_newest_is_reported() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    let time = pki.now.truncate_to_secs();
    for minute in 0..3 {
        stage(&log, 10);
        pki.confirm(&log, time + Duration::from_secs(60 * minute));
    }
    drop(log);
    let report = verify(&directory, &pki).unwrap();
    let newest = Cosigned {
        witness: WITNESS.into(),
        size: 33,
        time: time + Duration::from_secs(120),
    };
    assert_eq!((report.cosigned, report.cosignatures), (Some(newest), 3));
    // The last cosignature's own record.
    assert_eq!((report.size, report.uncosigned), (34, 1));
    let log = pki.open(&directory);
    stage(&log, 5);
    drop(log);
    assert_eq!(verify(&directory, &pki).unwrap().uncosigned, 6);
}

#[test]
fn cosignatures_outside_the_witnesss_certificate_do_not_count() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    pki.confirm(&log, pki.now);
    pki.confirm(&log, pki.now + 2 * YEAR);
    drop(log);
    let report = verify(&directory, &pki).unwrap();
    assert_eq!(report.cosigned.unwrap().size, 1);
    assert_eq!((report.cosignatures, report.cosignatures_uncounted), (2, 1));
    assert_eq!(report.uncosigned, 2);
}

fn crl_accepted(log: &Log, number: u64) {
    let accepted = CrlAccepted {
        uri: "http://ca.example.org/crl/0.crl",
        number,
    };
    put(log, |head, out| accepted.write(head, out));
}

#[test]
fn a_log_without_a_witness_is_one_of_crl_mode() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create_unwitnessed(temp.path());
    let mode = |accepted| Some(Revocation::Crl { accepted });
    let report = verify(&directory, &pki).unwrap();
    assert_eq!((report.revocation, report.witness), (mode(0), None));
    let log = pki.open(&directory);
    crl_accepted(&log, 7);
    stage(&log, 4);
    log.publish_now().unwrap();
    crl_accepted(&log, 8);
    // Not under the checkpoint yet.
    assert_eq!(verify(&directory, &pki).unwrap().revocation, mode(1));
    drop(log);
    let report = verify(&directory, &pki).unwrap();
    assert_eq!((report.revocation, report.uncosigned), (mode(2), 7));
    // The authority's own log has no feed and no CRLs to follow.
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::of("example.org/ca");
    let directory = pki.create_unwitnessed(temp.path());
    assert_eq!(verify(&directory, &pki).unwrap().revocation, None);
}

#[test]
fn a_cosignature_over_another_history_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    stage(&log, 10);
    log.publish_now().unwrap();
    let other = Checkpoint {
        origin: LOG.into(),
        size: 5,
        root: [3; 32],
    };
    pki.confirm_checkpoint(&log, &other, pki.now);
    drop(log);
    let error = verify(&directory, &pki).unwrap_err();
    assert!(
        matches!(error.reason, Reason::CosignedRoot { size: 5 }),
        "{error}"
    );
    assert_eq!(error.place, Place::Record { index: 11 });
}

#[test]
fn after_expiry_only_what_was_cosigned_before_counts() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    stage(&log, 10);
    let later = VerifyOptions {
        floor: None,
        now: pki.now + 2 * YEAR,
    };
    log.publish_now().unwrap();
    let error = verify_directory(&directory, &pki.anchor(), &later).unwrap_err();
    assert!(matches!(error.reason, Reason::Expired { .. }), "{error}");
    pki.confirm(&log, pki.now);
    stage(&log, 10);
    drop(log);
    let report = verify_directory(&directory, &pki.anchor(), &later).unwrap();
    assert_eq!((report.size, report.counted), (22, 11));
    let early = VerifyOptions {
        floor: None,
        now: pki.now - YEAR,
    };
    let error = verify_directory(&directory, &pki.anchor(), &early).unwrap_err();
    assert!(
        matches!(error.reason, Reason::NotYetValid { .. }),
        "{error}"
    );
}

#[test]
fn an_announced_key_signs_and_the_old_one_no_longer() {
    let temp = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let directory = pki.create(temp.path());
    let log = pki.open(&directory);
    stage(&log, 10);
    let (second, third) = (pki.signer(LOG), pki.signer(LOG));
    log.rotate_signer(&second).unwrap();
    let index = log.rotate_signer(&third).unwrap();
    drop(log);
    let report = verify(&directory, &pki).unwrap();
    assert_eq!(report.signer.announced, index);
    let head = Checkpoint {
        origin: LOG.into(),
        size: report.size,
        root: report.root,
    };
    let first = head.sign(&pki.log.note_signer().unwrap()).unwrap();
    fs::write(directory.join("checkpoint"), first).unwrap();
    assert!(matches!(
        verify(&directory, &pki).unwrap_err().reason,
        Reason::AnotherKey
    ));
    let handing_over = head.sign(&second.note_signer().unwrap()).unwrap();
    fs::write(directory.join("checkpoint"), handing_over).unwrap();
    verify(&directory, &pki).unwrap();
}
