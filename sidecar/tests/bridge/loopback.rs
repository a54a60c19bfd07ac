//! HTTP clients on this machine.

use std::sync::Mutex;

use http_body_util::BodyExt as _;
use tokio::sync::mpsc;

use crate::fake::{Content, Fake, PATIENCE, Reply};
use crate::program::{Program, call, folder_of, run};

const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;

/// URL, fields, status.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);

#[tokio::test]
async fn only_who_knows_the_secret_and_comes_from_here_is_let_in() {
    let fake = Fake::start(|_| Reply::json(ANSWER)).await;
    let bridge = Program::http(&fake, &[]).await;
    let base = bridge.url.trim_end_matches('/').rsplit_once('/').unwrap();
    let (root, secret) = (format!("{}/", base.0), base.1);
    let port = base.0.rsplit_once(':').unwrap().1.to_owned();
    assert_eq!(secret.len(), 22, "128 bits");
    let (bearer, here) = (
        format!("Bearer {secret}"),
        format!("http://localhost:{port}"),
    );
    let evil = format!("evil.example.com:{port}");
    let cases: [Case<'_>; 9] = [
        (&bridge.url, &[], 200),
        (&root, &[("authorization", &bearer)], 200),
        (&bridge.url, &[("origin", &here)], 200),
        (&root, &[], 403),
        (&root, &[("authorization", "Bearer guessed")], 403),
        (&format!("{root}guessed/"), &[], 403),
        (&format!("{}more", bridge.url), &[], 404),
        (&bridge.url, &[("host", &evil)], 403),
        (&bridge.url, &[("origin", "http://evil.example.com")], 403),
    ];
    for (url, fields, expected) in cases {
        let heard = call("POST", url, fields, "{}").await;
        assert_eq!(heard.status.as_u16(), expected, "{url} {fields:?}");
        if expected != 200 {
            assert_eq!(heard.headers["content-type"], "application/problem+json");
        }
    }
    for _ in 0..3 {
        let seen = fake.seen().await;
        assert_eq!(seen.path, "/mcp/payments");
        assert_eq!(seen.field("authorization"), None, "the secret stays here");
        assert_eq!(seen.field("origin"), None);
        assert_eq!(
            seen.field("host"),
            Some(&*format!("127.0.0.1:{}", fake.address.port()))
        );
    }
}

#[tokio::test]
async fn a_secret_can_be_kept_in_a_file_and_an_address_of_the_network_is_refused() {
    let fake = Fake::start(|_| Reply::json(ANSWER)).await;
    let folder = folder_of(&fake);
    std::fs::write(folder.path().join("secret"), "abcdefghijklmnopqrstuvwxyz\n").unwrap();
    let arguments = [
        "--http",
        "127.0.0.1:0",
        "--no-renew",
        "--secret-file",
        "secret",
    ];
    let mut bridge = Program::start(&fake, folder, &arguments);
    let url = bridge.printed().await;
    assert!(url.ends_with("/abcdefghijklmnopqrstuvwxyz/"), "{url}");
    let folder = folder_of(&fake);
    let url = fake.url();
    let connect = ["connect", &url, "--credentials", "agent", "--http"];
    let (code, _, said) = run(folder.path(), &[&connect[..], &["0.0.0.0:7900"]].concat()).await;
    assert!(code == Some(2) && said.contains("other machines"), "{said}");
}

#[tokio::test]
async fn a_stream_reaches_the_client_event_by_event_and_ends_with_it() {
    let (sender, held) = mpsc::unbounded_channel::<String>();
    let held = Mutex::new(Some(held));
    let fake =
        Fake::start(move |_| Reply::stream(Content::Live(held.lock().unwrap().take().unwrap())))
            .await;
    let bridge = Program::http(&fake, &[]).await;
    let mut heard = call(
        "GET",
        &bridge.url,
        &[("last-event-id", "e7"), ("te", "trailers")],
        "",
    )
    .await;
    assert_eq!(heard.headers["content-type"], "text/event-stream");
    assert!(heard.headers.contains_key("agent-audit"));
    for number in 0..3 {
        sender.send(format!("{{\"number\":{number}}}")).unwrap();
        let frame = tokio::time::timeout(PATIENCE, heard.body.frame())
            .await
            .unwrap();
        let data = frame.unwrap().unwrap().into_data().unwrap();
        let text = String::from_utf8(data.to_vec()).unwrap();
        assert!(
            text.starts_with(&format!(": agent-receipt seq={number},")),
            "{text}"
        );
        assert!(
            text.ends_with(&format!("data: {{\"number\":{number}}}\n\n")),
            "{text}"
        );
    }
    let seen = fake.seen().await;
    assert_eq!(
        (seen.field("last-event-id"), seen.field("te")),
        (Some("e7"), None)
    );
    // The client goes away, and so does the stream.
    drop(heard);
    tokio::time::timeout(PATIENCE, sender.closed())
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_too_long_is_refused_before_it_is_forwarded() {
    let fake = Fake::start(|_| Reply::json(ANSWER)).await;
    let bridge = Program::http(&fake, &["--max-message", "1000"]).await;
    let heard = call("POST", &bridge.url, &[], &"x".repeat(1001)).await;
    assert_eq!(heard.status, 413);
    let heard = call("POST", &bridge.url, &[], &"x".repeat(1000)).await;
    assert_eq!(heard.status, 200);
}

#[tokio::test]
async fn an_enforcer_that_is_away_is_said_so_and_used_when_it_is_there() {
    let fake = Fake::start(|_| Reply::json(ANSWER)).await;
    let folder = folder_of(&fake);
    let nowhere = "https://127.0.0.1:1/mcp/payments";
    let (code, _, said) = run(folder.path(), &["check", nowhere, "--credentials", "agent"]).await;
    assert!(
        code == Some(3) && said.contains("could not reach the enforcer"),
        "{said}"
    );
}
