//! The ending: a revocation in the middle of a stream, and both logs verified.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::Method;

use crate::Error;
use crate::agents::GOOD;
use crate::caller::{Caller, Outcome};
use crate::programs::{PATIENCE, Stage};

pub(super) async fn revoke_in_mid_stream(
    stage: &Stage,
    good: &Caller,
    url: &str,
) -> Result<(), Error> {
    let response = good.open(Method::GET, "/v1/stream", "").await?;
    if !response.status().is_success() {
        return Err(format!("the stream was answered with {}", response.status()).into());
    }
    let mut body = response.into_body();
    for _ in 0..3 {
        body.frame().await.ok_or("the stream ended by itself")??;
    }
    println!("{GOOD} is in the middle of a stream; it is revoked now ...");
    let began = Instant::now();
    let listen = async {
        while let Some(Ok(_)) = body.frame().await {}
        began.elapsed()
    };
    let revoke = async {
        let revoke = ["revoke", GOOD, "--reason", "key-compromise", "--url", url];
        (stage.agentca(&revoke).await, began.elapsed())
    };
    let (ended, (said, returned)) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(listen, revoke) })
            .await
            .map_err(|_| "the stream went on after the revocation")?;
    println!("  agentca revoke {GOOD} --reason key-compromise");
    said?.stdout.lines().for_each(|line| println!("    {line}"));
    println!(
        "  the stream ended {} ms after the command was started (the command took {} ms)",
        ended.as_millis(),
        returned.as_millis()
    );
    match good.call(Method::GET, "/v1/accounts/7", "").await? {
        Outcome::Alert(alert) => println!("  its next call: TLS alert {alert:?}\n"),
        Outcome::Answered(answer) => {
            return Err(format!("a revoked agent was answered with {}", answer.status()).into());
        }
    }
    Ok(())
}

pub(super) async fn verify_logs(stage: &Stage) -> Result<(), Error> {
    println!("Verifying both logs with nothing but the root certificate ...");
    for log in ["pki/log", "edge-1-data/log"] {
        let root = format!("{GOOD}/ca.crt");
        let verify = ["log", "verify", log, "--root", &root];
        let said = settled(async || Ok(stage.agentca(&verify).await?.stdout)).await?;
        println!("  agentca log verify {log} --root {root}");
        said.lines().for_each(|line| println!("    {line}"));
    }
    println!();
    Ok(())
}

/// A running log may be a second ahead of its checkpoint: verifies until that covers everything, so that nobody has to
/// wonder about a tail under no signature.
async fn settled(mut verify: impl AsyncFnMut() -> Result<String, Error>) -> Result<String, Error> {
    let deadline = tokio::time::Instant::now() + CATCHING_UP;
    loop {
        let said = verify().await?;
        if !has_tail(&said) || tokio::time::Instant::now() > deadline {
            return Ok(said);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether `log verify` found something behind the checkpoint.
fn has_tail(said: &str) -> bool {
    said.lines()
        .any(|line| line.starts_with("beyond ") || line.starts_with("torn "))
}

/// How long a checkpoint may take to cover everything.
const CATCHING_UP: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::{has_tail, settled};

    #[test]
    fn a_tail_is_seen() {
        assert!(!has_tail("verified  example.org/ca\nsize      9 records"));
        assert!(has_tail("verified  a\nbeyond    2 records, whole"));
        assert!(has_tail("verified  a\ntorn      7 bytes of a batch"));
    }
    #[tokio::test]
    async fn a_log_is_verified_until_nothing_is_behind_its_checkpoint() {
        let mut tails = 3;
        let said = settled(async || {
            tails -= 1;
            Ok(format!(
                "verified  a\n{}",
                ["", "beyond    1 record"][usize::from(tails > 0)]
            ))
        });
        assert_eq!(said.await.unwrap(), "verified  a\n");
        assert_eq!(tails, 0);
    }
}
