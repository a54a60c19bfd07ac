//! What `/healthz` and `/readyz` say, for whoever starts and stops this program.

use std::collections::BTreeMap;
use std::time::Instant;

use agentca_identity::time::Timestamp;
use http::StatusCode;
use serde::Serialize;

use super::Ops;
use super::counters::State;
use crate::status::Readiness;

/// Whether this process does what it can: restarting one that does not may help.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    log: &'static str,
}

/// Whether requests are answered here, and if not why.
#[derive(Serialize)]
struct Ready {
    ready: bool,
    status: &'static str,
    /// Why every request is denied.
    stale: Option<String>,
    feed_age_seconds: Option<f64>,
    status_number: u64,
    log: LogState,
    witness_age_seconds: Option<u64>,
    /// What the last call to each found; one that was not called yet is not here.
    upstreams: BTreeMap<String, &'static str>,
    /// How long ago the tools of each MCP server were listed.
    tools_age_seconds: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct LogState {
    blocked: bool,
    records: u64,
}

pub(super) fn healthz(ops: &Ops) -> (StatusCode, String) {
    let (status, log) = match ops.log.blocked() {
        false => ("ok", "grows"),
        true => ("blocked", "cannot grow: free some space"),
    };
    let code = match status {
        "ok" => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, json(&Health { status, log }))
}

pub(super) fn readyz(ops: &Ops) -> (StatusCode, String) {
    let (registry, now) = (&ops.registry, Instant::now());
    let stale = registry.freshness(now).err();
    let blocked = ops.log.blocked();
    let readiness = registry.readiness();
    let ready = readiness == Readiness::Ready && stale.is_none() && !blocked;
    let states = ops.board.states().into_iter();
    let upstreams = states.filter_map(|(name, state)| match state {
        State::Unknown => None,
        State::Answers => Some((name.to_string(), "answers")),
        State::Fails => Some((name.to_string(), "fails")),
    });
    let ages = ops.board.list_ages().into_iter();
    let answer = Ready {
        ready,
        status: match readiness {
            Readiness::Starting => "starting",
            Readiness::Ready if ready => "ready",
            Readiness::Ready => "not-serving",
            Readiness::Refused => "refused",
        },
        stale: stale.map(|reason| reason.to_string()),
        feed_age_seconds: registry.feed_age(now).map(|age| age.as_secs_f64()),
        status_number: registry.status_number(),
        log: LogState {
            blocked,
            records: ops.log.durable(),
        },
        witness_age_seconds: registry
            .witnessed()
            .map(|at| Timestamp::now().saturating_since(at).as_secs()),
        upstreams: upstreams.collect(),
        tools_age_seconds: ages
            .map(|(name, age)| (name.to_string(), age.as_secs()))
            .collect(),
    };
    let code = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, json(&answer))
}

fn json(value: &impl Serialize) -> String {
    // Plain structs of numbers and text.
    serde_json::to_string(value).unwrap_or_default()
}
