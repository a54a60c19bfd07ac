//! Reloads that come while a call waits between its permit and its first upstream byte: what is in force then
//! decides.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::client::Http1;
use crate::disk::Mode;
use crate::fixture::Fixture;
use crate::pki::Wish;
use crate::programs::{reading, server, until};

/// A route of which everything is recorded before it goes on.
fn route(upstream: &str, path: &str, scope: &str, trust: &str, risk: &str) -> String {
    format!(
        "[[route]]\nupstream = \"{upstream}\"\nmethods = [\"POST\"]\npath = \"{path}\"\nscope = \"{scope}\"\n\
         min_trust = \"{trust}\"\nrisk = \"{risk}\"\n"
    )
}

/// Sends a call whose decision waits for the disk, and lets another configuration come in force meanwhile.
async fn overtaken(fixture: &Fixture, client: &mut Http1, call: &str, reload: &str) {
    fixture.disk.set(Mode::Held);
    client.send(call).await;
    until("its decision is written", || {
        fixture.disk.holds("\"decision\":\"allow\"")
    })
    .await;
    fixture.reload(reload);
    fixture.disk.set(Mode::Sound);
}

/// That a call was allowed first, and then denied by a rule.
async fn was_denied(fixture: &Fixture, from: u64, rule: &str) {
    let of = |kind: &'static str| move |record: &Value| record["kind"] == kind;
    let decision = fixture.find(from, of("decision")).await;
    assert_eq!(decision["decision"], "allow", "{decision}");
    let outcome = fixture.find(from, of("outcome")).await;
    assert_eq!(outcome["decision_index"], decision["seq"], "{outcome}");
    assert_eq!(outcome["rule"], rule, "{outcome}");
}

#[tokio::test]
async fn a_route_is_asked_again_after_a_reload_while_it_waited() {
    const PATH: &str = "/v1/moved";
    let before = route("payments", PATH, "payments:write", "L2", "write");
    let mut fixture = Fixture::with(&before).await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    let call = format!("POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    for (after, rule) in [
        (
            route("payments", PATH, "payments:write", "L4", "write"),
            "trust",
        ),
        (
            route("payments", PATH, "payments:secret", "L2", "write"),
            "scope",
        ),
        (
            route("payments", PATH, "payments:write", "L2", "financial"),
            "not-in-catalogue",
        ),
        (
            route("nowhere", PATH, "payments:write", "L2", "write"),
            "not-in-catalogue",
        ),
        (
            route("payments", "/v1/{any}", "payments:write", "L2", "write"),
            "not-in-catalogue",
        ),
        (String::new(), "not-in-catalogue"),
    ] {
        let from = fixture.log.durable();
        overtaken(&fixture, &mut client, &call, &after).await;
        let answer = client.answer("POST").await.unwrap();
        assert_eq!(answer.problem()["rule"], rule, "{after}");
        was_denied(&fixture, from, rule).await;
        assert!(fixture.upstream.seen().is_empty(), "{after}");
        fixture.reload(&before);
    }
    let other = route("payments", "/v1/other", "payments:write", "L2", "write");
    overtaken(&fixture, &mut client, &call, &(before + &other)).await;
    assert_eq!(client.answer("POST").await.unwrap().status, 200);
    assert_eq!(fixture.upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_method_is_asked_again_after_a_reload_while_it_waited() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = format!("url = \"http://{}/mcp\"", listener.local_addr().unwrap());
    let received: Arc<Mutex<Vec<u8>>> = Arc::default();
    let receives = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let receives = Arc::clone(&receives);
            tokio::spawn(async move {
                while let Ok(byte) = stream.read_u8().await {
                    receives.lock().unwrap().push(byte);
                }
            });
        }
    });
    let before = server(&place);
    let mut fixture = Fixture::with(&before).await;
    let agent = fixture.agent(&Wish::default());
    let method = before.split_once("[[method]]").unwrap().1;
    for (after, rule) in [
        (before.replace("L2", "L4"), "trust"),
        (before.replace("payments:write", "payments:secret"), "scope"),
        (
            before.replace("\"write\"", "\"financial\""),
            "not-in-catalogue",
        ),
        (
            before.replace("resources/read", "prompts/get"),
            "not-in-catalogue",
        ),
        // The same method, at another place.
        (before.replace("/mcp\"", "/moved\""), "not-in-catalogue"),
        (
            before.replace(&format!("[[method]]{method}"), ""),
            "not-in-catalogue",
        ),
    ] {
        let mut client = fixture.http1(&agent).await;
        let from = fixture.log.durable();
        overtaken(&fixture, &mut client, &reading("file:///a"), &after).await;
        let answer = client.answer("POST").await.unwrap();
        let said = String::from_utf8_lossy(&answer.body);
        assert!(said.contains(&format!("\"{rule}\"")), "{after}: {said}");
        was_denied(&fixture, from, rule).await;
        fixture.reload(&before);
    }
    // Only what is still as it was goes on.
    let mut client = fixture.http1(&agent).await;
    let other = route("payments", "/v1/other", "payments:write", "L2", "write");
    overtaken(
        &fixture,
        &mut client,
        &reading("file:///b"),
        &(before + &other),
    )
    .await;
    let told = || String::from_utf8_lossy(&received.lock().unwrap()).into_owned();
    until("the server is told", || told().ends_with("}}")).await;
    assert!(
        told().contains("file:///b") && !told().contains("file:///a"),
        "{}",
        told()
    );
}
