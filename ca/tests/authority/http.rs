//! What is public over plain HTTP: root, CRLs, checkpoint, tiles, health, metrics.

use std::time::{Duration, Instant};

use agentca_auditlog::checkpoint::Checkpoint;
use agentca_auditlog::merkle::proof;
use agentca_identity::certificate::Certificate;
use agentca_identity::pem;
use agentca_identity::profile::crl::Crl;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Running, Site, add_enforcer, issue, key, revoke_agent};

/// Status and body of one request.
async fn ask(running: &Running, head: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(running.http).await.unwrap();
    let request = format!("{head} HTTP/1.1\r\nhost: ca\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    let status = std::str::from_utf8(&answer[9..12])
        .unwrap()
        .parse()
        .unwrap();
    (status, answer[end + 4..].to_vec())
}

async fn get(running: &Running, path: &str) -> Vec<u8> {
    let (status, body) = ask(running, &format!("GET {path}")).await;
    assert_eq!(status, 200, "{path}");
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crl_is_there_from_the_start_and_follows_every_revocation() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let issuing = Certificate::parse(&site.admin.chain[1]).unwrap();
    let first = Crl::parse_verified(&get(&running, "/crl/0.crl").await, &issuing).unwrap();
    let issued = admin
        .issue(issue("support-01", &key()))
        .await
        .unwrap()
        .into_inner();
    let certificate = Certificate::parse(&issued.chain[0]).unwrap();
    let uri = certificate.crl_uri().unwrap().to_string();
    assert_eq!(uri, format!("http://{}/crl/0.crl", running.http));
    assert!(first.revoked(&certificate.serial()).is_none());
    let revoked = admin
        .revoke(revoke_agent("support-01"))
        .await
        .unwrap()
        .into_inner();
    let begun = Instant::now();
    let second = loop {
        let crl = Crl::parse_verified(&get(&running, "/crl/0.crl").await, &issuing).unwrap();
        if crl.revoked(&certificate.serial()).is_some() {
            break crl;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "it is not published"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(second.number() > first.number());
    assert!(second.number() > revoked.record);
    // Over a restart what was revoked stays so, and the number goes on.
    running.stop().await;
    let running = site.start().await;
    let third = Crl::parse_verified(&get(&running, "/crl/0.crl").await, &issuing);
    // Another port, another URI: the list names its own.
    let third = third.unwrap();
    assert!(third.revoked(&certificate.serial()).is_some());
    assert!(third.number() > second.number());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoint_and_tiles_prove_the_log() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let enforcer = add_enforcer(&mut admin, "edge-1", false).await.unwrap();
    let key = enforcer.added.authority_vkey.parse().unwrap();
    let note = get(&running, "/checkpoint").await;
    let checkpoint = Checkpoint::open(&note, &key).unwrap();
    assert!((1..256).contains(&checkpoint.size));
    let tile = get(&running, &format!("/tile/0/000.p/{}", checkpoint.size)).await;
    let leaves: Vec<[u8; 32]> = tile
        .chunks(32)
        .map(|hash| hash.try_into().unwrap())
        .collect();
    let root = proof::root(checkpoint.size, |height, index| {
        Ok::<_, ()>(node(&leaves, height, index))
    });
    assert_eq!(root.ok(), Some(checkpoint.root));
    running.stop().await;
}

/// A node of the tree from its leaves.
fn node(leaves: &[[u8; 32]], height: u32, index: u64) -> [u8; 32] {
    let index = usize::try_from(index).unwrap();
    match height {
        0 => leaves[index],
        _ => {
            let (left, right) = (index as u64 * 2, index as u64 * 2 + 1);
            let (left, right) = (
                node(leaves, height - 1, left),
                node(leaves, height - 1, right),
            );
            agentca_auditlog::merkle::node_hash(&left, &right)
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_and_nothing_else() {
    let site = Site::new();
    let running = site.start().await;
    let root = get(&running, "/ca.crt").await;
    let root = pem::decode_certs(std::str::from_utf8(&root).unwrap()).unwrap();
    assert_eq!(root, [site.anchor.root().der().to_vec()]);
    assert_eq!(get(&running, "/healthz").await, b"ok\n");
    let metrics = String::from_utf8(get(&running, "/metrics").await).unwrap();
    assert!(
        metrics.contains("agentca_crl_entries{shard=\"0\"} 0"),
        "{metrics}"
    );
    assert_eq!(ask(&running, "HEAD /ca.crt").await, (200, Vec::new()));
    assert_eq!(ask(&running, "POST /ca.crt").await.0, 405);
    for path in [
        "/",
        "/crl/1.crl",
        "/tile/0/000",
        "/tile/entries/000",
        "/keys/root.key",
        "/../",
    ] {
        assert_eq!(ask(&running, &format!("GET {path}")).await.0, 404, "{path}");
    }
    running.stop().await;
}
