//! Witnessing by the rules of C2SP tlog-witness, over real sockets.

use crate::support::{Enforcer, Running, Site, add_enforcer};
use agentca_auditlog::checkpoint::{Checkpoint, verify_cosignature};
use agentca_auditlog::merkle::{CompactRange, Hash, leaf_hash, node_hash};
use agentca_auditlog::note::{NoteSigner, SignatureLine, SignatureType, VerifierKey};
use agentca_proto as proto;
use tonic::{Code, Status};

/// A head of a log whose records are `0`, `1`, `2`, …
fn head(origin: &str, size: u64) -> Checkpoint {
    let mut range = CompactRange::new();
    for record in 0..size {
        range.append(leaf(record), |_, _| {});
    }
    Checkpoint {
        origin: origin.to_owned(),
        size,
        root: range.root(),
    }
}

fn sign(enforcer: &Enforcer, checkpoint: &Checkpoint) -> String {
    let signer = NoteSigner::new(
        &checkpoint.origin,
        SignatureType::Ed25519,
        enforcer.log_key.clone(),
    );
    checkpoint.sign(&signer.unwrap()).unwrap()
}

async fn ask(
    site: &Site,
    running: &Running,
    enforcer: &Enforcer,
    old_size: u64,
    consistency: &[Hash],
    checkpoint: String,
) -> Result<proto::WitnessResponse, Status> {
    let request = proto::WitnessRequest {
        old_size,
        consistency: consistency.iter().map(|hash| hash.to_vec()).collect(),
        checkpoint,
        floor_checkpoint: enforcer.added.authority_checkpoint.clone(),
    };
    let mut client = site.feed(running, &enforcer.tls).await;
    client
        .witness(request)
        .await
        .map(tonic::Response::into_inner)
}

fn leaf(record: u64) -> Hash {
    leaf_hash(record.to_string().as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_co_signed_as_it_grows_and_never_when_it_went_back() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let enforcer = add_enforcer(&mut admin, "edge-1", false).await.unwrap();
    let origin = enforcer.added.log_origin.clone();
    let (two, three) = (head(&origin, 2), head(&origin, 3));
    let first = ask(&site, &running, &enforcer, 0, &[], sign(&enforcer, &two))
        .await
        .unwrap();
    let witness: VerifierKey = enforcer.added.witness_vkey.parse().unwrap();
    let line: SignatureLine = first.cosignature.trim_end().parse().unwrap();
    verify_cosignature(&two, &line, &witness).unwrap();
    assert_eq!(first.held_size, 2);

    // From 2 to 3 records the proof is the third leaf.
    let proof = [leaf(2)];
    let next = ask(
        &site,
        &running,
        &enforcer,
        2,
        &proof,
        sign(&enforcer, &three),
    )
    .await
    .unwrap();
    let line: SignatureLine = next.cosignature.trim_end().parse().unwrap();
    verify_cosignature(&three, &line, &witness).unwrap();

    // Back to 2 records, or from where it is not: refused, and it hears where it is held.
    let back = ask(&site, &running, &enforcer, 3, &[], sign(&enforcer, &two))
        .await
        .unwrap();
    assert_eq!((back.cosignature.as_str(), back.held_size), ("", 3));
    let off = ask(
        &site,
        &running,
        &enforcer,
        2,
        &proof,
        sign(&enforcer, &three),
    )
    .await
    .unwrap();
    assert_eq!((off.cosignature.as_str(), off.held_size), ("", 3));
    // Another history of the same length.
    let other = Checkpoint {
        root: node_hash(&leaf(7), &leaf(8)),
        ..three.clone()
    };
    let forked = ask(&site, &running, &enforcer, 3, &[], sign(&enforcer, &other))
        .await
        .unwrap();
    assert_eq!((forked.cosignature.as_str(), forked.held_size), ("", 3));

    // It holds over a restart, and over the loss of the index.
    running.stop().await;
    std::fs::remove_dir_all(site.data().join("index")).unwrap();
    let running = site.start().await;
    let back = ask(&site, &running, &enforcer, 0, &[], sign(&enforcer, &two))
        .await
        .unwrap();
    assert_eq!((back.cosignature.as_str(), back.held_size), ("", 3));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_callers_own_log_under_its_own_key() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let first = add_enforcer(&mut admin, "edge-1", false).await.unwrap();
    let second = add_enforcer(&mut admin, "edge-2", false).await.unwrap();
    let theirs = head(&second.added.log_origin, 1);
    let refused = ask(&site, &running, &first, 0, &[], sign(&second, &theirs)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    let mine = head(&first.added.log_origin, 1);
    let refused = ask(&site, &running, &first, 0, &[], sign(&second, &mine)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_log_goes_on_under_a_new_generation() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let old = add_enforcer(&mut admin, "edge-1", false).await.unwrap();
    let two = head(&old.added.log_origin, 2);
    ask(&site, &running, &old, 0, &[], sign(&old, &two))
        .await
        .unwrap();
    let exists = add_enforcer(&mut admin, "edge-1", false)
        .await
        .err()
        .unwrap();
    assert_eq!(exists.code(), Code::AlreadyExists);
    let new = add_enforcer(&mut admin, "edge-1", true).await.unwrap();
    assert_eq!(new.added.log_origin, format!("{}/2", old.added.log_origin));
    let one = head(&new.added.log_origin, 1);
    let held = ask(&site, &running, &new, 0, &[], sign(&new, &one))
        .await
        .unwrap();
    assert_eq!(held.held_size, 1);
    // The old credentials ended with the old log.
    let refused = ask(&site, &running, &old, 2, &[], sign(&old, &two)).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    running.stop().await;
}
