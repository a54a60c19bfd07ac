//! Streams: their receipts, their outcomes, and that they end at once when their agent is stopped.

use agentca_auditlog::receipt::Phase;
use agentca_auditlog::status::StatusEvent;
use agentca_identity::trust::TrustLevel;
use http::Request;
use http_body_util::{BodyExt, Full};

use crate::answers::{audit_index, check_signature};
use crate::client::{Answer, Http1};
use crate::fixture::Fixture;
use crate::pki::{Credential, Wish};
use crate::upstream::LAST_EVENT;

const URI: &str = "https://localhost/v1/stream";

/// Begins the stream and reads its first event; gives the index of its decision.
async fn begin(fixture: &Fixture, client: &mut Http1, method: &str) -> u64 {
    client
        .send(&format!(
            "{method} /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ))
        .await;
    let (status, headers) = client.head().await.unwrap();
    let answer = Answer {
        status,
        headers,
        body: Default::default(),
    };
    assert_eq!(answer.status, 200, "{answer:?}");
    let audit = check_signature(fixture, &answer, method, URI, None, None);
    assert_eq!(audit.phase, Phase::Open);
    assert!(
        fixture.log.durable() > audit.index,
        "the decision is durable before the head"
    );
    assert_eq!(client.chunk().await.unwrap().unwrap(), b"data: 0\n\n");
    let record = fixture.record(audit.index);
    assert_eq!(
        (&record["decision"], &record["result"]),
        (&"allow".into(), &serde_json::Value::Null)
    );
    audit.index
}

async fn outcome(fixture: &Fixture, decision: u64) -> serde_json::Value {
    fixture
        .find(decision + 1, |record| record["kind"] == "outcome")
        .await
}

#[tokio::test]
async fn a_stream_that_ends_has_an_outcome_that_its_caller_can_read() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    for method in ["GET", "POST"] {
        let mut client = fixture.http1(&agent).await;
        let decision = begin(&fixture, &mut client, method).await;
        let running = format!("/.well-known/agentca/outcome/{decision}");
        let mut other = fixture.http1(&agent).await;
        let document: serde_json::Value =
            serde_json::from_slice(&other.get(&running).await.body).unwrap();
        assert_eq!(document["state"], "running");
        for _ in 1..=LAST_EVENT {
            fixture.upstream.go.notify_one();
            client.chunk().await.unwrap().unwrap();
        }
        fixture.upstream.go.notify_one();
        assert_eq!(client.chunk().await.unwrap(), None, "a clean end");
        let record = outcome(&fixture, decision).await;
        assert_eq!(record["result"]["ended"], "complete", "{record}");
        assert_eq!(record["result"]["length"], 27);
        let document: serde_json::Value =
            serde_json::from_slice(&other.get(&running).await.body).unwrap();
        assert_eq!(document["state"], "ended", "{document}");
        let stranger = fixture.agent(&Wish {
            name: "other",
            ..Wish::default()
        });
        assert_eq!(
            fixture.http1(&stranger).await.get(&running).await.status,
            403
        );
    }
}

#[tokio::test]
async fn outcomes_are_found_in_the_log_after_a_restart() {
    let mut fixture = Fixture::with("limits = { drain_timeout = \"100ms\" }").await;
    let agent = fixture.agent(&Wish::default());
    let stranger = fixture.agent(&Wish {
        name: "other",
        ..Wish::default()
    });
    let mut cut = fixture.http1(&agent).await;
    let mut whole = fixture.http1(&agent).await;
    let cut_at = begin(&fixture, &mut cut, "GET").await;
    let decision = begin(&fixture, &mut whole, "POST").await;
    drop(cut);
    let before = [cut_at, decision];
    outcome(&fixture, cut_at).await;
    let fixture = fixture.restart().await;
    let mut client = fixture.http1(&agent).await;
    for (decision, ended) in before.into_iter().zip(["client-gone", "shutdown"]) {
        let path = format!("/.well-known/agentca/outcome/{decision}");
        let answer = client.get(&path).await;
        let uri = format!("https://localhost{path}");
        check_signature(&fixture, &answer, "GET", &uri, None, None);
        let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(document["state"], "ended", "{document}");
        let index = document["outcome"].as_u64().unwrap();
        let record = fixture.log.record(index).unwrap().unwrap();
        assert_eq!(document["record"].as_str().unwrap().as_bytes(), record);
        let record = fixture.record(index);
        assert_eq!(record["decision_index"], decision, "{record}");
        assert_eq!(record["result"]["ended"], ended, "{record}");
        let mut other = fixture.http1(&stranger).await;
        assert_eq!(other.get(&path).await.status, 403);
        // An outcome is no decision.
        let path = format!("/.well-known/agentca/outcome/{index}");
        assert_eq!(client.get(&path).await.status, 403);
    }
    // Nor has a call an outcome that was recorded with its decision.
    let whole = client.get("/v1/accounts/7").await;
    let path = format!("/.well-known/agentca/outcome/{}", audit_index(&whole));
    assert_eq!(client.get(&path).await.status, 403);
    // Streams of this process are told as before.
    let decision = begin(&fixture, &mut client, "GET").await;
    let path = format!("/.well-known/agentca/outcome/{decision}");
    let document = fixture.http1(&agent).await.get(&path).await.body;
    let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["state"], "running");
}

/// Stops an agent in the middle of a stream, which must end at once and not cleanly.
async fn stop(stop: impl FnOnce(&mut Fixture, &Credential), ended: &str) {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let bystander = fixture.agent(&Wish {
        name: "bystander",
        ..Wish::default()
    });
    let mut client = fixture.http1(&agent).await;
    let decision = begin(&fixture, &mut client, "GET").await;
    let mut idle = fixture.http1(&agent).await;
    assert_eq!(idle.get("/v1/accounts/7").await.status, 200);
    let mut h2 = fixture.http2(&agent).await;
    let request = Request::get(URI).body(Full::default()).unwrap();
    let mut body = h2.sender.send_request(request).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    let mut apart = fixture.http1(&bystander).await;
    let apart_decision = begin(&fixture, &mut apart, "GET").await;
    stop(&mut fixture, &agent);
    assert!(
        client.chunk().await.is_err(),
        "an aborted stream never ends cleanly"
    );
    assert!(body.frame().await.unwrap().is_err(), "nor over HTTP/2");
    assert_eq!(idle.rest().await, b"", "idle connections end as well");
    let record = outcome(&fixture, decision).await;
    assert_eq!(record["result"]["ended"], ended, "{record}");
    for _ in 1..=LAST_EVENT {
        fixture.upstream.go.notify_waiters();
    }
    fixture.upstream.go.notify_one();
    assert!(
        apart.chunk().await.unwrap().is_some(),
        "another agent's stream goes on"
    );
    assert!(apart_decision > decision);
}

#[tokio::test]
async fn revocation_ends_streams_and_connections() {
    stop(Fixture::revoke, "revoked").await;
}

#[tokio::test]
async fn restriction_ends_streams_and_connections() {
    let restrict = |fixture: &mut Fixture, agent: &Credential| {
        let trust = Some(TrustLevel::L1);
        fixture.apply(StatusEvent::AgentRestricted {
            agent: agent.id(),
            trust,
            scopes: None,
        });
    };
    stop(restrict, "restricted").await;
}

#[tokio::test]
async fn expiry_ends_streams() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish {
        ends_in: 30,
        ..Wish::default()
    });
    let mut client = fixture.http1(&agent).await;
    let decision = begin(&fixture, &mut client, "GET").await;
    // The authority's clock goes ahead instead of the test waiting.
    let ahead = agentca_identity::time::Timestamp::now() + std::time::Duration::from_secs(32);
    fixture.registry.heartbeat(ahead, std::time::Instant::now());
    assert!(client.chunk().await.is_err());
    assert_eq!(
        outcome(&fixture, decision).await["result"]["ended"],
        "expired"
    );
}

#[tokio::test]
async fn staleness_ends_streams() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    let decision = begin(&fixture, &mut client, "GET").await;
    fixture.registry.distrust();
    assert!(client.chunk().await.is_err());
    assert_eq!(
        outcome(&fixture, decision).await["result"]["ended"],
        "stale"
    );
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_an_outcome() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    let decision = begin(&fixture, &mut client, "GET").await;
    drop(client);
    let record = outcome(&fixture, decision).await;
    assert_eq!(record["result"]["ended"], "client-gone", "{record}");
}

#[tokio::test]
async fn so_does_one_that_does_not_wait_for_its_answer() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    let before = fixture.log.durable();
    client
        .send("POST /v1/held HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        .await;
    fixture.upstream.held.notified().await;
    drop(client);
    let record = outcome(&fixture, before).await;
    assert_eq!(record["decision_index"], before, "{record}");
    assert_eq!(record["result"]["ended"], "client-gone", "{record}");
    assert_eq!(record["result"]["status"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_long_answer_is_a_stream() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let answer = fixture.http1(&agent).await.get("/v1/big").await;
    assert_eq!(answer.body.len(), 3 << 20);
    let audit = check_signature(
        &fixture,
        &answer,
        "GET",
        "https://localhost/v1/big",
        None,
        None,
    );
    assert_eq!(audit.phase, Phase::Open);
    let record = outcome(&fixture, audit.index).await;
    assert_eq!(record["result"]["length"], 3 << 20);
    assert_eq!(record["result"]["ended"], "complete", "{record}");
}
