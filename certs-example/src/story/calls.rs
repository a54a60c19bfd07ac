//! Plain HTTP: who calls what, and by which rule it was decided.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, Response};
use tokio::time::Instant;

use crate::Error;
use crate::agents::calls;
use crate::caller::{Caller, Outcome};
use crate::place::Place;
use crate::programs::{PATIENCE, Stage};
use crate::table::Table;

/// It serves once its feed is verified and its log witnessed; before that its port is shut, or handshakes end with an alert.
pub(super) async fn wait_until_serving(stage: &mut Stage, good: &Caller) -> Result<(), Error> {
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

pub(super) async fn everybody_calls(
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
    let record = record_of(answer)?;
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

/// Where the enforcer wrote down what it answered.
pub(super) fn record_of(answer: &Response<Bytes>) -> Result<String, Error> {
    let audit = answer
        .headers()
        .get("agent-audit")
        .ok_or("an answer without Agent-Audit")?
        .to_str()?;
    let index = audit
        .split(';')
        .chain(audit.split(','))
        .find_map(|part| part.trim().strip_prefix("index="));
    Ok(format!(
        "edge-1 #{}",
        index.ok_or("Agent-Audit without an index")?
    ))
}
