//! Answers that are not what the enforcer signed for this request: none is passed on.

use serde_json::json;

use crate::fake::{Fake, Reply, Twist};
use crate::program::{Program, call, folder_of, run};

const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"amount":"10.00"}}"#;
const REQUEST: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"refund"}}"#;

const HEADS: [Twist; 11] = [
    Twist::Body,
    Twist::Status,
    Twist::ContentType,
    Twist::Peer,
    Twist::Log,
    Twist::Nonce,
    Twist::Old,
    Twist::Unsigned,
    Twist::UnknownSigner,
    Twist::ExpiredSigner,
    Twist::None,
];

const STREAMS: [Twist; 7] = [
    Twist::Data,
    Twist::NoReceipt,
    Twist::Swapped,
    Twist::Dropped,
    Twist::Repeated,
    Twist::OtherStream,
    Twist::None,
];

fn messages() -> Vec<String> {
    let progress = |at: u32| json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": at, "a": "10.00"}});
    let answer: serde_json::Value = serde_json::from_str(ANSWER).unwrap();
    [progress(1), progress(2), answer]
        .iter()
        .map(ToString::to_string)
        .collect()
}

async fn answering(twist: Twist) -> Fake {
    Fake::start(move |_| Reply::json(ANSWER).twisted(twist)).await
}

async fn streaming(twist: Twist) -> Fake {
    Fake::start(move |_| Reply::events(&messages()).twisted(twist)).await
}

#[tokio::test]
async fn no_twisted_answer_reaches_a_stdio_client() {
    for twist in HEADS {
        let fake = answering(twist).await;
        let mut bridge = Program::stdio(&fake, &[]).await;
        bridge.say(REQUEST).await;
        let heard = bridge.hear().await;
        let passed = heard["result"]["amount"] == "10.00";
        assert_eq!(passed, twist == Twist::None, "{twist:?}: {heard}");
        if !passed {
            assert_eq!(heard["error"]["code"], -31_502, "{twist:?}: {heard}");
            assert_eq!(
                heard["error"]["data"]["kind"], "unverified",
                "{twist:?}: {heard}"
            );
        }
    }
}

#[tokio::test]
async fn no_twisted_answer_reaches_an_http_client() {
    for twist in HEADS {
        let fake = answering(twist).await;
        let bridge = Program::http(&fake, &[]).await;
        let heard = call("POST", &bridge.url, &[], REQUEST).await;
        let status = heard.status.as_u16();
        let text = heard.text().await.unwrap();
        match twist {
            Twist::None => assert_eq!((status, text.as_str()), (200, ANSWER)),
            _ => {
                assert_eq!(status, 502, "{twist:?}: {text}");
                assert!(
                    text.contains("urn:agentca:sidecar:unverified"),
                    "{twist:?}: {text}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_twisted_stream_ends_with_an_error_at_a_stdio_client() {
    for twist in STREAMS {
        let fake = streaming(twist).await;
        let mut bridge = Program::stdio(&fake, &[]).await;
        bridge.say(REQUEST).await;
        let mut heard = bridge.hear().await;
        while heard["method"] == "notifications/progress" {
            assert_eq!(heard["params"]["a"], "10.00", "{twist:?}");
            heard = bridge.hear().await;
        }
        let passed = heard["result"]["amount"] == "10.00";
        assert_eq!(passed, twist == Twist::None, "{twist:?}: {heard}");
        if !passed {
            assert_eq!(
                heard["error"]["data"]["kind"], "unverified",
                "{twist:?}: {heard}"
            );
        }
    }
}

#[tokio::test]
async fn a_twisted_stream_is_cut_at_an_http_client() {
    for twist in STREAMS {
        let fake = streaming(twist).await;
        let bridge = Program::http(&fake, &[]).await;
        let heard = call("POST", &bridge.url, &[], REQUEST).await;
        assert_eq!(heard.status, 200, "{twist:?}");
        let whole = heard.text().await;
        assert_eq!(
            whole.is_some(),
            twist == Twist::None,
            "{twist:?}: {whole:?}"
        );
    }
}

#[tokio::test]
async fn under_warn_it_is_passed_on_and_said_and_under_off_it_is_passed_on() {
    for (verify, said) in [("warn", true), ("off", false)] {
        let fake = answering(Twist::UnknownSigner).await;
        let mut bridge = Program::stdio(&fake, &["--verify", verify]).await;
        bridge.say(REQUEST).await;
        assert_eq!(bridge.hear().await["result"]["amount"], "10.00");
        assert_eq!(bridge.log().contains("does not verify"), said, "{verify}");
        let fake = streaming(Twist::Data).await;
        let mut bridge = Program::stdio(&fake, &["--verify", verify]).await;
        bridge.say(REQUEST).await;
        assert_eq!(bridge.hear().await["params"]["a"], "10.00");
        assert_eq!(bridge.hear().await["params"]["a"], "99.00");
        assert_eq!(bridge.log().contains("does not verify"), said, "{verify}");
    }
}

#[tokio::test]
async fn an_enforcer_of_another_name_or_authority_is_not_talked_to() {
    // The certificate has 127.0.0.1; by another name it is not the one that was dialled.
    let fake = Fake::start_as("edge-1", "edge-1.example.org", |_| Reply::json(ANSWER)).await;
    let folder = folder_of(&fake);
    let url = format!("https://localhost:{}/mcp/payments", fake.address.port());
    let (code, _, said) = run(folder.path(), &["check", &url, "--credentials", "agent"]).await;
    assert!(
        code == Some(1) && said.contains("another name than the URL"),
        "{said}"
    );

    let stranger = Fake::start(|_| Reply::json(ANSWER)).await;
    let (code, _, said) = run(
        folder.path(),
        &["check", &stranger.url(), "--credentials", "agent"],
    )
    .await;
    assert!(
        code == Some(1) && said.contains("another authority"),
        "{said}"
    );

    // Of the same authority, with a name that fits, and its answers signed for another enforcer's log.
    let other = Fake::start_as("edge-2", "localhost", |_| Reply::json(ANSWER)).await;
    let folder = folder_of(&other);
    let (code, _, said) = run(
        folder.path(),
        &["check", &other.url(), "--credentials", "agent"],
    )
    .await;
    assert!(code == Some(1) && said.contains("signers"), "{said}");
}
