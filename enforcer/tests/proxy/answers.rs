//! What answers look like: signatures, digests, bodies, and what the library must not say.

use agentca_auditlog::receipt::{AgentAudit, Phase};
use agentca_auditlog::response::{self, ResponseFacts, content_digest};
use agentca_identity::crypto::sha256;
use http::Request;
use http_body_util::Full;

use crate::client::Answer;
use crate::fixture::Fixture;
use crate::pki::{Wish, origin};

/// Verifies an answer as its caller would.
#[track_caller]
pub(crate) fn check_signature<'a>(
    fixture: &Fixture,
    answer: &'a Answer,
    method: &str,
    uri: &str,
    request_content_digest: Option<&str>,
    request_nonce: Option<&str>,
) -> AgentAudit<'a> {
    let chain: Vec<&[u8]> = fixture
        .identity
        .response_chain
        .iter()
        .map(Vec::as_slice)
        .collect();
    let response_origin = origin().response().unwrap();
    let signer = fixture
        .pki
        .anchor()
        .verify_signer(&chain, &response_origin)
        .unwrap();
    let facts = ResponseFacts {
        status: answer.status.as_u16(),
        agent_audit: answer
            .header("agent-audit")
            .expect("every answer has a receipt"),
        method,
        target_uri: uri,
        content_digest: answer.header("content-digest"),
        content_type: answer.header("content-type"),
        content_encoding: answer.header("content-encoding"),
        location: answer.header("location"),
        request_content_digest,
        request_nonce,
    };
    let input = answer
        .header("signature-input")
        .expect("every answer is signed");
    let signature = answer.header("signature").expect("every answer is signed");
    response::verify(&facts, input, signature, &signer).unwrap();
    let audit = AgentAudit::parse(answer.header("agent-audit").unwrap()).unwrap();
    assert_eq!(audit.log, origin().to_string());
    let bodyless = method == "HEAD" || answer.status == 204 || answer.status == 304;
    match audit.phase {
        Phase::Closed if !bodyless => {
            let digest = content_digest::parse(facts.content_digest.unwrap());
            assert_eq!(digest, Some(sha256(&answer.body)));
        }
        _ => assert_eq!(facts.content_digest, None),
    }
    audit
}

/// The record that an answer names.
pub(crate) fn audit_index(answer: &Answer) -> u64 {
    AgentAudit::parse(answer.header("agent-audit").unwrap())
        .unwrap()
        .index
}

const GET: &str = "GET /v1/accounts/7 HTTP/1.1\r\nHost: localhost\r\n";

#[tokio::test]
async fn the_record_holds_the_salted_digest_of_the_body() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let answer = fixture.http1(&agent).await.get("/v1/accounts/7").await;
    let uri = "https://localhost/v1/accounts/7";
    let audit = check_signature(&fixture, &answer, "GET", uri, None, None);
    assert_eq!(audit.peer, agent.certificate.fingerprint());
    let record = fixture.record(audit.index);
    let digest = agentca_auditlog::receipt::salted_digest(&audit.salt, &sha256(&answer.body));
    use base64::Engine;
    let digest = base64::engine::general_purpose::STANDARD.encode(digest);
    assert_eq!(record["result"]["digest"], digest, "{record}");
    assert_eq!(record["result"]["length"], answer.body.len());
}

#[tokio::test]
async fn the_signature_covers_nonce_and_digest_of_the_request() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    let digest = content_digest::format(&sha256(b"pay"));
    client
        .send(&format!(
            "POST /v1/pay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\
             Content-Digest: {digest}\r\nAgent-Nonce: n-42\r\n\r\npay"
        ))
        .await;
    let answer = client.answer("POST").await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, &b"pay"[..])
    );
    let seen = fixture.upstream.seen().remove(0);
    assert_eq!(
        (seen.method.as_str(), &seen.body[..]),
        ("POST", &b"pay"[..])
    );
    let uri = "https://localhost/v1/pay";
    check_signature(&fixture, &answer, "POST", uri, Some(&digest), Some("n-42"));
}

#[tokio::test]
async fn a_wrong_digest_is_malformed_and_never_forwarded() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    let digest = content_digest::format(&sha256(b"other"));
    for digest in [digest.as_str(), "sha-512=:AAAA:", "nonsense"] {
        client
            .send(&format!(
                "POST /v1/pay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\
                 Content-Digest: {digest}\r\n\r\npay"
            ))
            .await;
        let answer = client.answer("POST").await.unwrap();
        assert_eq!(answer.status, 400, "{digest}");
        check_signature(
            &fixture,
            &answer,
            "POST",
            "https://localhost/v1/pay",
            Some(digest),
            None,
        );
    }
    assert!(fixture.upstream.seen().is_empty());
}

#[tokio::test]
async fn answers_without_a_body() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    client
        .send("HEAD /v1/accounts/7 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    let head = client.answer("HEAD").await.unwrap();
    assert_eq!(
        head.header("content-length"),
        Some("25"),
        "what GET would have"
    );
    check_signature(
        &fixture,
        &head,
        "HEAD",
        "https://localhost/v1/accounts/7",
        None,
        None,
    );
    let empty = client.get("/v1/empty").await;
    assert_eq!(empty.status, 204);
    let audit = check_signature(
        &fixture,
        &empty,
        "GET",
        "https://localhost/v1/empty",
        None,
        None,
    );
    assert_eq!(audit.phase, Phase::Closed);
    client
        .send("HEAD /v1/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    let denied = client.answer("HEAD").await.unwrap();
    assert_eq!(denied.status, 403);
    check_signature(
        &fixture,
        &denied,
        "HEAD",
        "https://localhost/v1/nothing",
        None,
        None,
    );
    assert_eq!(
        client.get("/v1/accounts/1").await.status,
        200,
        "the connection goes on"
    );
}

#[tokio::test]
async fn an_upstream_cannot_speak_for_the_enforcer() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let answer = fixture.http2(&agent).await.get("/v1/liar").await;
    check_signature(
        &fixture,
        &answer,
        "GET",
        "https://localhost/v1/liar",
        None,
        None,
    );
    assert_eq!(answer.headers.get_all("signature").iter().count(), 1);
    assert_eq!(answer.header("x-other"), Some("kept"));
}

#[tokio::test]
async fn clients_cannot_speak_for_the_enforcer() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    client
        .send(&format!(
            "{GET}Agent-Id: boss\r\nAgent-Trust: L4\r\nAgent-Nonce: n\r\n\r\n"
        ))
        .await;
    assert_eq!(client.answer("GET").await.unwrap().status, 200);
    let seen = fixture.upstream.seen().remove(0);
    assert_eq!(
        seen.headers["agent-id"],
        "spiffe://example.org/prod/agent/support-01"
    );
    assert_eq!(seen.headers["agent-trust"], "L2");
    assert_eq!(seen.headers["agent-nonce"], "n");
    assert_eq!(seen.headers["host"], fixture.upstream.address.to_string());
    client.send(&format!("{GET}Agent_Id: boss\r\n\r\n")).await;
    assert_eq!(client.answer("GET").await.unwrap().status, 400);
}

#[tokio::test]
async fn what_the_library_would_say_never_leaves() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    for bad in [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
    ] {
        let mut client = fixture.http1(&agent).await;
        client.send(bad).await;
        assert_eq!(client.rest().await, b"", "{bad:?}");
        let mut client = fixture.http1(&agent).await;
        assert_eq!(client.get("/v1/accounts/7").await.status, 200);
        client.send(bad).await;
        assert_eq!(client.rest().await, b"", "{bad:?} after a good one");
    }
}

#[tokio::test]
async fn protocols_that_are_not_spoken() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    for (request, status) in [
        ("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", 505),
        (
            "CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n",
            501,
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            501,
        ),
        (
            "GET https://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
            400,
        ),
        (
            "POST /v1/pay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
    ] {
        let mut client = fixture.http1(&agent).await;
        client.send(request).await;
        let answer = client.answer("GET").await.unwrap();
        assert_eq!(answer.status, status, "{request:?} {answer:?}");
        assert!(answer.header("signature").is_some(), "{request:?}");
    }
    assert!(fixture.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_is_too_large_closes_the_connection_after_the_answer() {
    let mut fixture = Fixture::with("limits = { request_max = 1000 }").await;
    let agent = fixture.agent(&Wish::default());
    let body = "x".repeat(1001);
    for request in [
        format!("POST /v1/pay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n{body}"),
        format!(
            "POST /v1/pay HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
             3e9\r\n{body}\r\n0\r\n\r\n"
        ),
    ] {
        let mut client = fixture.http1(&agent).await;
        client.send(&request).await;
        let answer = client.answer("POST").await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.problem()["rule"].as_str()),
            (413, Some("too-large"))
        );
        check_signature(
            &fixture,
            &answer,
            "POST",
            "https://localhost/v1/pay",
            None,
            None,
        );
        assert_eq!(client.rest().await, b"");
    }
    let mut client = fixture.http2(&agent).await;
    let request = Request::post("https://localhost/v1/pay")
        .body(Full::from(body))
        .unwrap();
    assert_eq!(client.request(request).await.unwrap().status, 413);
    assert!(fixture.upstream.seen().is_empty());
}

#[tokio::test]
async fn continue_comes_only_for_what_is_not_denied() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\
             Expect: 100-continue\r\n\r\n"
        )
    };
    let mut client = fixture.http1(&agent).await;
    client.send(&head("/v1/pay")).await;
    assert_eq!(client.head().await.unwrap().0, 100);
    client.send("pay").await;
    assert_eq!(client.answer("POST").await.unwrap().status, 200);
    client.send(&head("/v1/other")).await;
    let answer = client.answer("POST").await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.header("connection")),
        (403, Some("close"))
    );
}

#[tokio::test]
async fn well_known_documents_are_signed_and_recorded() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    let path = "/.well-known/agentca/signers";
    let answer = client.get(path).await;
    assert_eq!(answer.status, 200);
    let uri = format!("https://localhost{path}");
    let audit = check_signature(&fixture, &answer, "GET", &uri, None, None);
    assert_eq!(fixture.record(audit.index)["decision"], "allow");
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(document["log"], origin().to_string());
    assert_eq!(document["signers"].as_array().unwrap().len(), 2);
    for path in [
        "/.well-known/agentca/other",
        "/.well-known/agentca/outcome/9",
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, 403);
        check_signature(
            &fixture,
            &answer,
            "GET",
            &format!("https://localhost{path}"),
            None,
            None,
        );
    }
}

#[tokio::test]
async fn the_head_has_a_limit_that_is_told() {
    let mut fixture = Fixture::with("limits = { head_max = \"8KiB\" }").await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    client
        .send(&format!("{GET}X: {}\r\n\r\n", "x".repeat(9000)))
        .await;
    let answer = client.answer("GET").await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.problem()["rule"].as_str()),
        (431, Some("too-large"))
    );
    client
        .send(&format!("{GET}X: {}\r\n\r\n", "x".repeat(40_000)))
        .await;
    assert_eq!(
        client.rest().await,
        b"",
        "beyond twice the limit there is no answer"
    );
}
