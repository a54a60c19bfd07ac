//! Connections: kept alive, given up, drained; and the log that is left behind.

use std::sync::atomic::Ordering;
use std::time::Duration;

use agentca_auditlog::verify::{VerifyOptions, verify_directory};
use agentca_identity::time::Timestamp;
use http::Request;
use http_body_util::Full;

use crate::answers::audit_index;
use crate::client::{Answer, Http1, connect};
use crate::fixture::Fixture;
use crate::pki::Wish;

#[tokio::test]
async fn a_write_is_recorded_before_its_first_upstream_byte() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    let first = fixture.log.durable();
    client
        .send("POST /v1/held HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        .await;
    fixture.upstream.held.notified().await;
    assert!(
        fixture.log.durable() > first,
        "the upstream was reached after the record"
    );
    let decision = fixture.record(first);
    assert_eq!(
        (&decision["kind"], &decision["decision"]),
        (&"decision".into(), &"allow".into())
    );
    assert_eq!(decision["result"], serde_json::Value::Null);
    fixture.upstream.go.notify_one();
    let answer = client.answer("POST").await.unwrap();
    let outcome = fixture.record(audit_index(&answer));
    assert_eq!(outcome["kind"], "outcome", "{outcome}");
    assert_eq!(outcome["result"]["status"], 200);
}

#[tokio::test]
async fn connections_and_upstream_connections_are_kept() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    for _ in 0..20 {
        assert_eq!(client.get("/v1/accounts/7").await.status, 200);
    }
    client
        .send(&"GET /v1/accounts/7 HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(5))
        .await;
    for _ in 0..5 {
        assert_eq!(client.answer("GET").await.unwrap().status, 200);
    }
    let mut h2 = fixture.http2(&agent).await;
    let mut answers = tokio::task::JoinSet::new();
    for number in 0..50 {
        let request = Request::get(format!("https://localhost/v1/accounts/{number}"));
        let sent = h2
            .sender
            .send_request(request.body(Full::default()).unwrap());
        answers.spawn(async move { sent.await.unwrap().status() });
    }
    while let Some(status) = answers.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(h2.get("/v1/accounts/1").await.status, 200);
}

#[tokio::test]
async fn every_thread_serves_and_knows_what_the_others_do() {
    let mut fixture = Fixture::with("threads = 4").await;
    let agent = fixture.agent(&Wish::default());
    let mut clients = Vec::new();
    for _ in 0..64 {
        let mut client = fixture.http1(&agent).await;
        assert_eq!(client.get("/v1/accounts/7").await.status, 200);
        clients.push(client);
    }
    // One request at a time: each thread that had any made one connection, and kept it.
    let upstream = fixture.upstream.accepted.load(Ordering::Relaxed);
    assert!((2..=4).contains(&upstream), "{upstream}");
    assert_eq!(fixture.server.connections(), 64);
    let [mut streaming, mut asking] = [clients.remove(0), clients.remove(0)];
    streaming
        .send("GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    let (status, headers) = streaming.head().await.unwrap();
    let answer = Answer {
        status,
        headers,
        body: Default::default(),
    };
    streaming.chunk().await.unwrap();
    let path = format!("/.well-known/agentca/outcome/{}", audit_index(&answer));
    for client in clients.iter_mut().chain([&mut asking]) {
        let document = client.get(&path).await.body;
        let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
        assert_eq!(document["state"], "running");
    }
    fixture.revoke(&agent);
    assert!(streaming.chunk().await.is_err());
    for mut client in clients {
        assert!(client.rest().await.is_empty());
    }
}

#[tokio::test]
async fn one_agent_does_not_take_all_connections() {
    let mut fixture = Fixture::with("limits = { max_agent_connections = 1 }").await;
    let agent = fixture.agent(&Wish::default());
    let other = fixture.agent(&Wish {
        name: "other",
        ..Wish::default()
    });
    let mut one = fixture.http1(&agent).await;
    assert_eq!(one.get("/v1/accounts/7").await.status, 200);
    assert_eq!(fixture.http1(&agent).await.rest().await, b"");
    let mut theirs = fixture.http1(&other).await;
    assert_eq!(theirs.get("/v1/accounts/7").await.status, 200);
    assert_eq!(one.get("/v1/accounts/7").await.status, 200);
}

#[tokio::test]
async fn no_more_connections_are_open_than_may_be() {
    let mut fixture = Fixture::with("limits = { max_connections = 2 }").await;
    let agent = fixture.agent(&Wish::default());
    let (mut one, mut two) = (fixture.http1(&agent).await, fixture.http1(&agent).await);
    assert_eq!(two.get("/v1/accounts/7").await.status, 200);
    let open = || {
        let address = fixture.server.address();
        connect(address, &fixture.pki, Some(&agent), b"http/1.1")
    };
    let recorded = fixture.log.durable();
    assert!(open().await.is_err(), "one too many");
    assert_eq!(one.get("/v1/accounts/7").await.status, 200);
    assert_eq!(
        fixture.log.durable(),
        recorded + 1,
        "nothing is recorded of it"
    );
    drop(two);
    let freed = async {
        loop {
            if let Ok(stream) = open().await {
                return Http1::new(stream);
            }
        }
    };
    let freed = tokio::time::timeout(Duration::from_secs(10), freed).await;
    assert_eq!(freed.unwrap().get("/v1/accounts/7").await.status, 200);
}

#[tokio::test]
async fn an_upstream_connection_that_was_closed_is_not_used_again() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    for _ in 0..10 {
        assert_eq!(client.get("/v1/closing").await.status, 200);
        assert_eq!(client.get("/v1/accounts/7").await.status, 200);
    }
}

#[tokio::test]
async fn validity_is_asked_again_before_the_first_upstream_byte() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    let first = fixture.log.durable();
    client
        .send(
            "POST /v1/pay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\
             Expect: 100-continue\r\n\r\n",
        )
        .await;
    assert_eq!(client.head().await.unwrap().0, 100, "the head was allowed");
    fixture.registry.distrust();
    client.send("pay").await;
    let answer = client.answer("POST").await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.problem()["rule"], "stale");
    let outcome = fixture.record(audit_index(&answer));
    assert_eq!(outcome["decision_index"], first, "{outcome}");
    assert_eq!(outcome["rule"], "stale", "{outcome}");
    assert!(fixture.upstream.seen().is_empty());
}

#[tokio::test]
async fn idle_and_slow_connections_are_closed() {
    let mut patient = Fixture::with("limits = { idle_timeout = \"1s\" }").await;
    let agent = patient.agent(&Wish::default());
    let mut idle = patient.http1(&agent).await;
    assert_eq!(idle.get("/v1/accounts/7").await.status, 200);
    let mut impatient = Fixture::with("limits = { header_timeout = \"150ms\" }").await;
    let agent = impatient.agent(&Wish::default());
    let mut slow = impatient.http1(&agent).await;
    slow.send("GET /v1/accounts/7 HTTP/1.1\r\nHost: loc").await;
    let closed = async { tokio::join!(idle.rest(), slow.rest()) };
    let closed = tokio::time::timeout(Duration::from_secs(20), closed).await;
    let (idle, slow) = closed.expect("both are closed");
    assert!(idle.is_empty() && slow.is_empty());
}

#[tokio::test]
async fn draining_lets_running_requests_end_and_leaves_a_log_that_verifies() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    assert_eq!(client.get("/v1/accounts/7").await.status, 200);
    assert_eq!(client.get("/v1/secret").await.status, 403);
    client
        .send("GET /v1/held HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    fixture.upstream.held.notified().await;
    let go = std::sync::Arc::clone(&fixture.upstream.go);
    let (end, answer) = tokio::join!(fixture.end(), async {
        go.notify_one();
        client.answer("GET").await.unwrap()
    });
    assert_eq!(answer.body, "held");
    let (directory, pki) = end;
    let log = directory.path().join("log");
    let options = VerifyOptions {
        floor: None,
        now: Timestamp::now(),
    };
    let report = verify_directory(&log, &pki.anchor(), &options).unwrap();
    assert_eq!(report.size, 4);
}

#[tokio::test]
async fn draining_cuts_what_does_not_end_and_records_it() {
    let mut fixture = Fixture::with("limits = { drain_timeout = \"100ms\" }").await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    client
        .send("GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    client.head().await.unwrap();
    client.chunk().await.unwrap();
    let log = std::sync::Arc::clone(&fixture.log);
    let (directory, _) = fixture.end().await;
    assert!(client.chunk().await.is_err());
    let record = log.record(2).unwrap().unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["result"]["ended"], "shutdown", "{record}");
    drop(directory);
}

/// Longer than an idle connection keeps its buffers.
const RESTED: Duration = Duration::from_millis(1300);

#[tokio::test]
async fn a_connection_that_rested_is_as_good_as_before() {
    let mut fixture = Fixture::with("limits = { idle_timeout = \"6s\" }").await;
    let agent = fixture.agent(&Wish::default());
    let whole = "GET /v1/accounts/7 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (begin, end) = whole.split_at(30);
    let mut rested = fixture.http1(&agent).await;
    assert_eq!(rested.get("/v1/accounts/7").await.status, 200);
    // A head that has begun is no rest: none of it may get lost.
    let mut half = fixture.http1(&agent).await;
    half.send(&format!("{whole}{begin}")).await;
    assert_eq!(half.answer("GET").await.unwrap().status, 200);
    let mut unused = fixture.http1(&agent).await;
    tokio::time::sleep(RESTED).await;
    rested.send(begin).await;
    unused.send(whole).await;
    half.send(end).await;
    rested.send(end).await;
    for client in [&mut rested, &mut half, &mut unused] {
        assert_eq!(client.answer("GET").await.unwrap().status, 200);
        assert_eq!(client.get("/v1/secret").await.status, 403);
    }
    let over = tokio::join!(rested.rest(), half.rest(), unused.rest());
    assert!(over.0.is_empty() && over.1.is_empty() && over.2.is_empty());
}

#[tokio::test]
async fn a_resting_connection_ends_with_its_agent_and_its_enforcer() {
    let mut fixture = Fixture::start().await;
    let agents = [(); 2].map(|()| fixture.agent(&Wish::default()));
    let [mut revoked, mut drained] = [
        fixture.http1(&agents[0]).await,
        fixture.http1(&agents[1]).await,
    ];
    tokio::time::sleep(RESTED).await;
    fixture.revoke(&agents[0]);
    assert!(revoked.rest().await.is_empty());
    let (_ended, rest) = tokio::join!(fixture.end(), drained.rest());
    assert!(rest.is_empty());
}
