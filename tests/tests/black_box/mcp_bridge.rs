//! The bridge before an enforcer and an authority as they are: who may use it, and what keeps it going.

use std::path::Path;
use std::time::Duration;

use agentca_tests::curl::Got;
use agentca_tests::mcp::{self, Bridge};
use agentca_tests::wait;

use crate::mcp_clients::{Bank, SCOPES, bank};

/// Lives that end while a test waits, and last while a busy machine is slow.
const LIFE: &str = "45s";
/// Before two thirds of it, and so late that the enforcer's feed is not stale when the authority is back.
const NEARLY_DUE: Duration = Duration::from_secs(15);
const LONGER_THAN_LIFE: Duration = Duration::from_secs(90);

fn ask_balance(url: &str, more: &[&str]) -> Got {
    let mut headers = mcp::headers("tools/call", Some("account_balance"));
    headers.extend(more.iter().map(|&field| field.to_owned()));
    let body = mcp::tool_call(1, "account_balance", r#"{"account":"7"}"#);
    mcp::plain_post(url, &headers, &body)
}

#[track_caller]
fn must_tell_balance(bridge: &Bridge) {
    let got = ask_balance(bridge.url(), &[]);
    assert_eq!(got.status, 200, "{got:?}");
    let result = &mcp::answer_in(&got.body, 1)["result"];
    assert_eq!(mcp::text(result), "the balance of 7 is 12.50", "{got:?}");
}

#[test]
fn nobody_who_guesses_or_comes_from_elsewhere_gets_through_the_bridge() {
    let Bank {
        lab,
        server,
        enforcer,
        agent,
    } = bank("");
    let bridge = Bridge::start(&lab, &enforcer, "bank", &agent);
    let (base, secret) = bridge.url().trim_end_matches('/').rsplit_once('/').unwrap();
    let here = base.strip_prefix("http://").unwrap();
    let port = here.rsplit_once(':').unwrap().1;
    let mut guessed = secret.to_owned();
    guessed.replace_range(..1, if secret.starts_with('A') { "B" } else { "A" });
    let guessed = format!("{base}/{guessed}/");
    let (root, url) = (format!("{base}/"), bridge.url().to_owned());
    let token = format!("Authorization: Bearer {secret}");
    let wrong_token = format!("{token}x");
    let local = format!("Host: localhost:{port}");
    let rebound = format!("Host: evil.example.com:{port}");
    let other_port = "Host: 127.0.0.1:1".to_owned();
    let own_origin = format!("Origin: http://{here}");
    let refused: [(&str, &[&str], u16, &str); 9] = [
        (&guessed, &[], 403, "secret"),
        (&root, &[], 403, "secret"),
        (&root, &[&wrong_token], 403, "secret"),
        (&guessed, &[&token], 403, "secret"),
        (&url, &[&rebound], 403, "host"),
        (&url, &[&other_port], 403, "host"),
        (&url, &["Origin: http://evil.example.com"], 403, "origin"),
        (&url, &["Origin: null"], 403, "origin"),
        (&root, &[&token, "Origin: https://localhost"], 403, "origin"),
    ];
    for (url, fields, status, kind) in refused {
        let got = ask_balance(url, fields);
        assert_eq!(got.status, status, "{url} {fields:?}: {got:?}");
        let said = got.json()["type"].to_string();
        assert!(said.contains(kind), "{url} {fields:?}: {got:?}");
        assert!(!got.body.contains(secret), "the secret is told to nobody");
    }
    assert!(server.calls_of("account_balance").is_empty());
    let admitted: [(&str, &[&str]); 4] = [
        (&url, &[]),
        (&root, &[&token]),
        (&url, &[&local]),
        (&url, &[&own_origin]),
    ];
    for (url, fields) in admitted {
        let got = ask_balance(url, fields);
        assert_eq!(got.status, 200, "{url} {fields:?}: {got:?}");
    }
    assert_eq!(server.calls_of("account_balance").len(), admitted.len());
}

/// Calls without a break until a newer certificate lies in the folder.
fn call_until_renewed(bridge: &Bridge, agent: &Path) {
    let certificate = || std::fs::read(agent.join("agent.crt")).unwrap();
    let before = certificate();
    wait::within(LONGER_THAN_LIFE, "the certificate is renewed", || {
        must_tell_balance(bridge);
        (certificate() != before).then_some(())
    });
    // The connection is a new one from here on.
    must_tell_balance(bridge);
}

#[test]
fn the_bridge_renews_in_time_and_outlasts_an_authority_that_is_away() {
    let Bank {
        mut lab,
        server: _running,
        enforcer,
        ..
    } = bank("");
    let agent = lab.agent_with("brief-01", &["--scope", SCOPES, "--ttl", LIFE]);
    let bridge = Bridge::start(&lab, &enforcer, "bank", &agent);
    call_until_renewed(&bridge, &agent);
    wait::within(LONGER_THAN_LIFE, "the certificate is due soon", || {
        must_tell_balance(&bridge);
        let written = std::fs::metadata(agent.join("agent.crt"))
            .unwrap()
            .modified();
        (written.unwrap().elapsed().unwrap() > NEARLY_DUE).then_some(())
    });
    let authority = lab.take_authority();
    assert!(authority.terminate().success());
    wait::within(LONGER_THAN_LIFE, "the bridge misses the authority", || {
        must_tell_balance(&bridge);
        bridge
            .program
            .printed()
            .contains("not renewed")
            .then_some(())
    });
    lab.start_authority();
    call_until_renewed(&bridge, &agent);
}
