//! The story, in order: authority, agents, enforcer, calls, a revocation in the middle of a stream, the logs.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, Response};

use crate::Error;
use crate::agents::{Agent, Authority, CAST, GOOD, REVOKED, ROUTES, SHORT_LIFETIME, calls};
use crate::caller::{Caller, Outcome};
use crate::place::Place;
use crate::programs::{PATIENCE, Stage, asked_to_stop, free_ports};
use crate::table::Table;
use crate::upstream::Upstream;

/// A story that was told to its end: where it happened.
pub(crate) struct Told {
    url: String,
    enforcer: SocketAddr,
}

/// Tells it all; with `stay`, comes back only when asked to stop.
pub(crate) async fn tell(place: &Place, stage: &mut Stage, stay: bool) -> Result<Told, Error> {
    let [authority, http, enforcer] = free_ports()?;
    let url = format!("https://{authority}");
    println!("Everything lies in {}\n", place.root().display());

    open_authority(stage, authority, http).await?;
    issue_agents(stage, &url).await?;
    let issued = Instant::now();
    let upstream = Upstream::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let payments = upstream.address();
    let serving = tokio::spawn(upstream.serve());
    open_enforcer(place, stage, &url, enforcer, payments).await?;
    // The short-lived certificate ends while the rest is prepared, or a moment later.
    tokio::time::sleep_until((issued + SHORT_LIFETIME + Duration::from_secs(1)).into()).await;
    let root = place.path(GOOD).join("ca.crt");
    let good = Caller::new(enforcer, &place.path(GOOD), &root)?;
    wait_until_serving(stage, &good).await?;

    println!("Agents call ...\n");
    println!("{}", everybody_calls(place, enforcer, &root).await?);
    revoke_in_mid_stream(stage, &good, &url).await?;
    verify_logs(stage).await?;
    let told = Told { url, enforcer };
    if stay {
        told.go_on_by_hand(place, stage);
        tokio::select! {
            stopped = asked_to_stop() => stopped?,
            failed = watch(stage) => failed?,
        }
    }
    serving.abort();
    Ok(told)
}

async fn open_authority(
    stage: &mut Stage,
    grpc: SocketAddr,
    http: SocketAddr,
) -> Result<(), Error> {
    println!("Making an authority for the trust domain example.org, and starting it ...");
    stage
        .agentca(&["init", "--trust-domain", "example.org", "--data", "pki"])
        .await?;
    let (grpc_text, http_text) = (grpc.to_string(), http.to_string());
    let arguments = [
        "serve",
        "--data",
        "pki",
        "--listen",
        &grpc_text,
        "--http-listen",
        &http_text,
    ];
    stage.start("authority", "agentca", &arguments)?;
    stage.wait_for(grpc).await?;
    stage.wait_for(http).await
}

async fn issue_agents(stage: &mut Stage, url: &str) -> Result<(), Error> {
    println!("Issuing certificates:");
    for agent in CAST.iter().filter(|agent| agent.by == Authority::Ours) {
        issue(stage, url, agent, &[]).await?;
    }
    stage
        .agentca(&["revoke", REVOKED, "--reason", "superseded", "--url", url])
        .await?;
    issue_foreign_agents(stage).await
}

/// A second authority for the same trust domain name, only to issue the foreign agent.
async fn issue_foreign_agents(stage: &mut Stage) -> Result<(), Error> {
    let [grpc, http] = free_ports()?;
    // Its first person's credential stays apart from ours.
    let config = ["--credentials", "foreign/admin"];
    let init = [
        "init",
        "--trust-domain",
        "example.org",
        "--data",
        "foreign/pki",
    ];
    stage.agentca(&[&init[..], &config].concat()).await?;
    let (grpc_text, http_text) = (grpc.to_string(), http.to_string());
    let serve = [
        "serve",
        "--data",
        "foreign/pki",
        "--listen",
        &grpc_text,
        "--http-listen",
        &http_text,
    ];
    stage.start("foreign-authority", "agentca", &serve)?;
    stage.wait_for(grpc).await?;
    for agent in CAST.iter().filter(|agent| agent.by == Authority::Foreign) {
        issue(stage, &format!("https://{grpc}"), agent, &config).await?;
    }
    stage.end_one("foreign-authority").await
}

async fn issue(stage: &Stage, url: &str, agent: &Agent, more: &[&str]) -> Result<(), Error> {
    let Agent {
        name,
        environment,
        trust,
        lifetime,
        about,
        by: _,
    } = agent;
    let agent = format!("{environment}/{name}");
    println!("  {agent:18}  {trust}  payments:read  {about}");
    let issue = [
        "issue",
        name,
        "--owner",
        "alice@example.org",
        "--env",
        environment,
    ];
    let grant = [
        "--scope",
        "payments:read",
        "--trust",
        trust,
        "--ttl",
        lifetime,
    ];
    let place = ["--out", name, "--url", url];
    stage
        .agentca(&[&issue[..], &grant, &place, more].concat())
        .await?;
    Ok(())
}

async fn open_enforcer(
    place: &Place,
    stage: &mut Stage,
    url: &str,
    listen: SocketAddr,
    payments: SocketAddr,
) -> Result<(), Error> {
    println!("\nAdding an enforcer, and starting it before a sample upstream ...");
    let add = [
        "enforcer",
        "add",
        "edge-1",
        "--env",
        "prod",
        "--dns",
        "localhost",
    ];
    let rest = ["--ip", "127.0.0.1", "--out", "edge-1", "--url", url];
    stage.agentca(&[&add[..], &rest].concat()).await?;
    let configuration = format!(
        r#"environment = "prod"
listen = "{listen}"
authority = "{url}"
identity_dir = "edge-1"
data_dir = "edge-1-data"
stale_after = "30s"

[[upstream]]
name = "payments"
url = "http://{payments}"
{ROUTES}"#
    );
    std::fs::write(place.path("enforcer.toml"), configuration)?;
    stage.start(
        "enforcer",
        "agentca-enforcer",
        &["run", "--config", "enforcer.toml"],
    )?;
    stage.wait_for(listen).await
}

/// It serves once its feed is verified and its log witnessed; before that its port is shut, or handshakes end with an alert.
async fn wait_until_serving(stage: &mut Stage, good: &Caller) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let knocked = good
            .call(Method::GET, "/.well-known/agentca/signers", "")
            .await;
        if matches!(&knocked, Ok(Outcome::Answered(answer)) if answer.status().is_success()) {
            return Ok(());
        }
        stage.check()?;
        if Instant::now() > deadline {
            return Err("the enforcer does not begin to serve, see enforcer.log".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn everybody_calls(
    place: &Place,
    enforcer: SocketAddr,
    root: &Path,
) -> Result<Table<5>, Error> {
    let mut table = Table::new(["agent", "call", "verdict", "rule", "record"]);
    for (name, method, path, body) in calls() {
        let caller = Caller::new(enforcer, &place.path(name), root)?;
        let call = format!("{method} {path}");
        let [verdict, rule, record] = match caller.call(method, path, body).await? {
            Outcome::Answered(answer) => verdict(&answer)?,
            Outcome::Alert(alert) => [
                "no connection".into(),
                format!("TLS alert: {alert:?}"),
                "-".into(),
            ],
        };
        table.row([name.to_owned(), call, verdict, rule, record]);
    }
    Ok(table)
}

/// What the enforcer decided, by which rule, and where it wrote that down.
fn verdict(answer: &Response<Bytes>) -> Result<[String; 3], Error> {
    let audit = answer
        .headers()
        .get("agent-audit")
        .ok_or("an answer without Agent-Audit")?
        .to_str()?;
    let index = audit
        .split(';')
        .chain(audit.split(','))
        .find_map(|part| part.trim().strip_prefix("index="));
    let record = format!("edge-1 #{}", index.ok_or("Agent-Audit without an index")?);
    let status = answer.status().as_u16();
    if answer.status().is_success() {
        return Ok([format!("allow {status}"), "-".into(), record]);
    }
    let problem: serde_json::Value = serde_json::from_slice(answer.body())?;
    let rule = problem
        .get("rule")
        .and_then(|rule| rule.as_str())
        .unwrap_or("(the upstream's answer)");
    Ok([format!("deny {status}"), rule.to_owned(), record])
}

async fn revoke_in_mid_stream(stage: &Stage, good: &Caller, url: &str) -> Result<(), Error> {
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

async fn verify_logs(stage: &Stage) -> Result<(), Error> {
    println!("Verifying both logs with nothing but the root certificate ...");
    for log in ["pki/log", "edge-1-data/log"] {
        let root = format!("{GOOD}/ca.crt");
        let verify = ["log", "verify", log, "--root", &root];
        let said = settled(async || Ok(stage.agentca(&verify).await?.stdout)).await?;
        println!("  agentca log verify {log}");
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

impl Told {
    /// While everything is still running.
    fn go_on_by_hand(&self, place: &Place, stage: &Stage) {
        println!(
            "Everything is still running; Ctrl-C ends it. Go on by hand, in another terminal:\n"
        );
        self.print_surroundings(place, stage);
        self.print_live_commands();
        print_offline_commands();
    }

    /// When everything has ended: what was left behind can be looked at.
    pub(crate) fn go_on_without_it(&self, place: &Place, stage: &Stage) {
        println!(
            "Everything has ended; `--stay` leaves it running. What is left can be looked at by hand:\n"
        );
        self.print_surroundings(place, stage);
        print_offline_commands();
        println!("With `--stay`, which prints them with its own ports, also:\n");
        self.print_live_commands();
    }

    fn print_surroundings(&self, place: &Place, stage: &Stage) {
        let root = place.root().display();
        println!("  cd {root}");
        println!(
            "  export PATH=\"{}:$PATH\" XDG_CONFIG_HOME=\"{root}/config\" AGENTCA_URL={}",
            stage.programs().display(),
            self.url
        );
    }

    fn print_live_commands(&self) {
        println!("  agentca agent list");
        println!("  agentca reinstate {GOOD}");
        println!("  agentca issue {GOOD} --out {GOOD} --force");
        println!(
            "  curl -i --cert {GOOD}/agent.crt --key {GOOD}/agent.key --cacert {GOOD}/ca.crt https://localhost:{}/v1/accounts/7",
            self.enforcer.port()
        );
        println!();
    }
}

/// These need nobody but the files.
fn print_offline_commands() {
    println!("  agentca inspect {GOOD}");
    println!("  agentca log show edge-1-data/log");
    println!("  agentca log verify edge-1-data/log --root {GOOD}/ca.crt\n");
}

/// Comes back only when a program has ended.
async fn watch(stage: &mut Stage) -> Result<(), Error> {
    loop {
        stage.check()?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
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
