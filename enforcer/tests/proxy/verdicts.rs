//! Every verdict, over both protocols: what the client is told and what is recorded.

use std::time::{Duration, Instant};

use agentca_auditlog::status::StatusEvent;
use agentca_identity::time::Timestamp;
use agentca_identity::trust::TrustLevel;

use crate::answers::{audit_index, check_signature};
use crate::client::{Answer, Http1, connect, connect_as};
use crate::fixture::Fixture;
use crate::pki::{Credential, Wish};

/// The same request over both protocols.
async fn both(fixture: &Fixture, agent: &Credential, path: &str) -> [Answer; 2] {
    [
        fixture.http1(agent).await.get(path).await,
        fixture.http2(agent).await.get(path).await,
    ]
}

#[track_caller]
fn denied(fixture: &Fixture, answer: &Answer, path: &str, status: u16, rule: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let problem = answer.problem();
    assert_eq!(problem["rule"], rule);
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], format!("urn:agentca:denied:{rule}"));
    assert!(problem["title"].is_string() && problem["detail"].is_string());
    check_signature(
        fixture,
        answer,
        "GET",
        &format!("https://localhost{path}"),
        None,
        None,
    );
    let record = fixture.record(audit_index(answer));
    assert_eq!(record["decision"], "deny", "{record}");
    assert_eq!(record["rule"], rule, "{record}");
    assert_eq!(record["result"]["status"], status, "{record}");
}

async fn check(fixture: &Fixture, agent: &Credential, path: &str, status: u16, rule: &str) {
    for answer in both(fixture, agent, path).await {
        denied(fixture, &answer, path, status, rule);
    }
    assert!(
        fixture.upstream.seen().is_empty(),
        "a denial reaches no upstream"
    );
}

const PATH: &str = "/v1/accounts/7";

#[tokio::test]
async fn an_allowed_call_is_answered_recorded_and_signed() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    for answer in both(&fixture, &agent, PATH).await {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body, "{\"path\":\"/v1/accounts/7\"}");
        check_signature(
            &fixture,
            &answer,
            "GET",
            "https://localhost/v1/accounts/7",
            None,
            None,
        );
        let record = fixture.record(audit_index(&answer));
        assert_eq!(record["kind"], "decision");
        assert_eq!(record["decision"], "allow");
        assert_eq!(
            record["agent"]["uri"],
            "spiffe://example.org/prod/agent/support-01"
        );
        assert_eq!(record["agent"]["trust"], "L2");
        assert_eq!(record["call"]["name"], "http:payments:/v1/accounts/{id}");
        assert_eq!(record["call"]["risk"], "read");
        assert_eq!(record["result"]["status"], 200);
        assert_eq!(record["result"]["ended"], "complete");
        assert!(
            !record.to_string().contains("accounts/7"),
            "a path appears as its template"
        );
    }
    let seen = fixture.upstream.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert_eq!(seen.path, PATH);
        let header = |name: &str| seen.headers.get(name).unwrap().to_str().unwrap();
        assert_eq!(
            header("agent-id"),
            "spiffe://example.org/prod/agent/support-01"
        );
        assert_eq!(header("agent-trust"), "L2");
        assert_eq!(header("agent-scopes"), "payments:read payments:write");
        assert_eq!(header("agent-owner"), "alice@example.org");
        assert_eq!(header("agent-request-id").len(), 32);
    }
}

#[tokio::test]
async fn a_stale_feed_denies_everything_first() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    fixture.registry.distrust();
    check(&fixture, &agent, PATH, 503, "stale").await;
    check(&fixture, &agent, "/nowhere", 503, "stale").await;
    fixture.registry.heartbeat(Timestamp::now(), Instant::now());
    assert_eq!(fixture.http1(&agent).await.get(PATH).await.status, 200);
}

#[tokio::test]
async fn a_clock_that_is_off_is_stale() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    fixture
        .registry
        .heartbeat(Timestamp::now() + Duration::from_secs(90), Instant::now());
    check(&fixture, &agent, PATH, 503, "stale").await;
}

#[tokio::test]
async fn another_environment() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish {
        environment: "staging",
        ..Wish::default()
    });
    check(&fixture, &agent, PATH, 403, "environment").await;
}

#[tokio::test]
async fn a_certificate_that_nobody_announced() {
    let fixture = Fixture::start().await;
    let agent = fixture.pki.agent(&Wish::default());
    check(&fixture, &agent, PATH, 403, "unknown-serial").await;
}

/// How long a certificate's announcement is waited for: the most that can be configured.
const ISSUED_WAIT: Duration = Duration::from_millis(250);

/// Calls with a certificate that is announced while the call waits for that.
async fn announced_meanwhile(fixture: &mut Fixture) -> Answer {
    for _ in 0..40 {
        let agent = fixture.pki.agent(&Wish::default());
        let mut client = fixture.http1(&agent).await;
        let asked = Instant::now();
        client
            .send("GET /v1/accounts/7 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        let early = tokio::time::timeout(ISSUED_WAIT / 5, client.head()).await;
        fixture.announce(&agent);
        // Were we later than that, nobody waited any longer, and whatever came says nothing.
        if asked.elapsed() < ISSUED_WAIT {
            assert!(early.is_err(), "denied at once");
            return client.answer("GET").await.unwrap();
        }
    }
    panic!("never within {ISSUED_WAIT:?}");
}

#[tokio::test]
async fn an_announcement_is_waited_for() {
    let mut fixture = Fixture::start().await;
    let answer = announced_meanwhile(&mut fixture).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // It is recorded with the status that allowed it.
    let record = fixture.record(audit_index(&answer));
    let number = fixture.status_number;
    assert_eq!(record["status_number"], number, "{record}");
}

#[tokio::test]
async fn an_announcement_is_waited_for_no_longer_than_250_ms() {
    let fixture = Fixture::start().await;
    let agent = fixture.pki.agent(&Wish::default());
    let (mut http1, mut http2) = (fixture.http1(&agent).await, fixture.http2(&agent).await);
    for over_http2 in [false, true] {
        let asked = Instant::now();
        let answer = match over_http2 {
            false => http1.get(PATH).await,
            true => http2.get(PATH).await,
        };
        let waited = asked.elapsed();
        assert_eq!(answer.problem()["rule"], "unknown-serial");
        assert!(waited >= ISSUED_WAIT, "{waited:?}");
        assert!(waited < Duration::from_secs(20), "{waited:?}");
    }
}

#[tokio::test]
async fn a_revoked_certificate_gets_an_alert_and_a_record() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    fixture.revoke(&agent);
    refused(&fixture, Some(&agent), "Revoked").await;
    let record = fixture
        .find(1, |record| record["kind"] == "handshake-refused")
        .await;
    assert_eq!(record["reason"], "revoked", "{record}");
}

#[tokio::test]
async fn an_expired_certificate_gets_an_alert() {
    let fixture = Fixture::start().await;
    let agent = fixture.pki.agent(&Wish {
        ends_in: 1,
        ..Wish::default()
    });
    // The registry's clock goes ahead instead of the test waiting.
    fixture
        .registry
        .heartbeat(Timestamp::now() + Duration::from_secs(3), Instant::now());
    refused(&fixture, Some(&agent), "Expired").await;
}

#[tokio::test]
async fn a_stranger_and_nobody_get_an_alert() {
    let fixture = Fixture::start().await;
    let other = crate::pki::Pki::new();
    refused(&fixture, Some(&other.agent(&Wish::default())), "UnknownCA").await;
    refused(&fixture, None, "CertificateRequired").await;
}

#[tokio::test]
async fn before_it_is_ready_everybody_gets_an_alert_and_nothing_is_recorded() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    fixture
        .registry
        .set_readiness(agentca_enforcer::status::Readiness::Refused);
    refused(&fixture, Some(&agent), "AccessDenied").await;
    assert_eq!(fixture.log.durable(), 1, "only record 0");
}

/// TLS 1.3: the client has finished before it is judged, so that the alert comes when it reads.
async fn refused(fixture: &Fixture, agent: Option<&Credential>, alert: &str) {
    let stream = connect(fixture.server.address(), &fixture.pki, agent, b"http/1.1").await;
    let error = match stream {
        Err(error) => error,
        Ok(stream) => {
            let mut client = Http1::new(stream);
            client.answer("GET").await.expect_err("an alert")
        }
    };
    assert!(error.to_string().contains(alert), "{error}");
}

#[tokio::test]
async fn not_in_the_catalogue() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    check(&fixture, &agent, "/v1/other", 403, "not-in-catalogue").await;
    check(
        &fixture,
        &agent,
        "/v1/accounts/7/8",
        403,
        "not-in-catalogue",
    )
    .await;
}

#[tokio::test]
async fn a_route_above_the_ceiling_is_called_by_an_exception_alone() {
    let route = |path: &str, network: &str| {
        format!(
            "[[route]]\nupstream = \"payments\"\nmethods = [\"GET\"]\npath = \"{path}\"\nscope = \"payments:read\"\n\
             min_trust = \"L2\"\nrisk = \"read\"\npublisher = \"Example Ltd\"\nversion = \"1.2\"\n\
             [route.permissions]\nnetwork = \"{network}\"\n"
        )
    };
    let exception = "[[exception]]\nupstream = \"payments\"\nroute = \"/v3/excepted\"\nowner = \"alice\"\n\
                     justification = \"x\"\ncompensating_control = \"y\"\nends = \"2200-01-01T00:00:00Z\"\n";
    let tables = [
        "[ceiling]\nnetwork = \"internal\"\n",
        &route("/v3/within", "internal"),
        &route("/v3/above", "external"),
        &route("/v3/excepted", "external"),
        exception,
    ];
    let mut fixture = Fixture::with(&tables.concat()).await;
    let agent = fixture.agent(&Wish::default());
    check(&fixture, &agent, "/v3/above", 403, "ceiling").await;
    // With a ceiling, what nobody declared is above it.
    check(&fixture, &agent, PATH, 403, "ceiling").await;
    for (path, rule) in [("/v3/within", "scope"), ("/v3/excepted", "scope-excepted")] {
        for answer in both(&fixture, &agent, path).await {
            let record = fixture.record(audit_index(&answer));
            assert_eq!(record["rule"], rule, "{record}");
            assert_eq!(record["decision"], "allow", "{record}");
            assert_eq!(record["call"]["publisher"], "Example Ltd", "{record}");
            assert_eq!(record["call"]["tool_version"], "1.2", "{record}");
        }
    }
}

#[tokio::test]
async fn a_restriction_is_named_only_when_the_certificate_would_have_allowed() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let trust = Some(TrustLevel::L1);
    fixture.apply(StatusEvent::AgentRestricted {
        agent: agent.id(),
        trust,
        scopes: None,
    });
    check(&fixture, &agent, PATH, 403, "restricted").await;
    check(&fixture, &agent, "/v1/trusted", 403, "trust").await;
}

#[tokio::test]
async fn too_little_trust_and_a_missing_scope() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    check(&fixture, &agent, "/v1/trusted", 403, "trust").await;
    check(&fixture, &agent, "/v1/secret", 403, "scope").await;
}

#[tokio::test]
async fn malformed_paths() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    check(&fixture, &agent, "/v1//accounts", 400, "malformed").await;
    check(&fixture, &agent, "/v1/accounts/%2e%2e", 400, "malformed").await;
}

#[tokio::test]
async fn another_authority_is_misdirected() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    for host in ["example.org", "127.0.0.1"] {
        client
            .send(&format!("GET {PATH} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        let answer = client.answer("GET").await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), &answer.problem()["rule"]),
            (421, &"misdirected".into())
        );
    }
    let address = fixture.server.address();
    let stream = connect_as(
        address,
        &fixture.pki,
        Some(&agent),
        b"http/1.1",
        "127.0.0.1",
    )
    .await;
    let mut client = Http1::new(stream.unwrap());
    client
        .send(&format!(
            "GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:99\r\n\r\n"
        ))
        .await;
    assert_eq!(client.answer("GET").await.unwrap().status, 200);
}

#[tokio::test]
async fn an_upstream_that_fails() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    for path in ["/v1/broken", "/v1/nowhere"] {
        for answer in both(&fixture, &agent, path).await {
            assert_eq!(answer.status, 502, "{answer:?}");
            assert_eq!(answer.problem()["rule"], "upstream");
            let uri = format!("https://localhost{path}");
            check_signature(&fixture, &answer, "GET", &uri, None, None);
            let record = fixture.record(audit_index(&answer));
            assert_eq!(record["result"]["status"], 502, "{record}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_is_slow() {
    let mut fixture = Fixture::with("limits = { upstream_timeout = \"100ms\" }").await;
    let agent = fixture.agent(&Wish::default());
    for answer in both(&fixture, &agent, "/v1/held").await {
        assert_eq!(answer.status, 504, "{answer:?}");
        assert_eq!(answer.problem()["rule"], "upstream");
    }
}
