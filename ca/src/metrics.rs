//! What `/metrics` says, in the Prometheus text format. No name of an agent is ever in it.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use agentca_identity::time::Timestamp;

use crate::authority::core::Authority;

/// Counters of what was done.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Certificates issued for the first time or again.
    pub issued: Counter,
    /// Certificates renewed.
    pub renewed: Counter,
    /// Certificates ended.
    pub revoked: Counter,
    /// Requests refused.
    pub refused: Counter,
    /// Heads co-signed.
    pub witnessed: Counter,
    /// TLS handshakes that failed.
    pub handshakes_failed: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, many: u64) {
        self.0.fetch_add(many, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything there is to know.
pub fn render(authority: &Authority) -> String {
    let mut text = String::with_capacity(4096);
    let Metrics {
        issued,
        renewed,
        revoked,
        refused,
        witnessed,
        handshakes_failed,
    } = &authority.metrics;
    for (name, help, counter) in [
        ("issued_total", "Certificates issued", issued),
        ("renewed_total", "Certificates renewed", renewed),
        ("revoked_total", "Certificates revoked", revoked),
        ("refused_total", "Requests refused", refused),
        (
            "witnessed_total",
            "Heads of enforcers' logs co-signed",
            witnessed,
        ),
        (
            "handshakes_failed_total",
            "TLS handshakes that failed",
            handshakes_failed,
        ),
    ] {
        metric(&mut text, name, help, "counter", counter.value());
    }
    let log = authority.sequencer.log();
    metric(
        &mut text,
        "log_records",
        "Durable records of the log",
        "gauge",
        log.durable(),
    );
    let published = log.checkpoint().checkpoint.size;
    metric(
        &mut text,
        "log_checkpoint_size",
        "Records under the checkpoint",
        "gauge",
        published,
    );
    let blocked = u64::from(log.blocked());
    metric(
        &mut text,
        "log_blocked",
        "1 while the log cannot grow",
        "gauge",
        blocked,
    );
    let followers = u64::try_from(authority.hub.subscribers()).unwrap_or(u64::MAX);
    metric(
        &mut text,
        "feed_followers",
        "Connections that follow the feed",
        "gauge",
        followers,
    );
    let remembered = authority
        .sequencer
        .read(|state, _| state.certificate_count())
        .unwrap_or_default();
    let remembered = u64::try_from(remembered).unwrap_or(u64::MAX);
    metric(
        &mut text,
        "certificates",
        "Certificates remembered",
        "gauge",
        remembered,
    );
    cas(&mut text, authority);
    crls(&mut text, authority);
    text
}

fn cas(text: &mut String, authority: &Authority) {
    let name = "ca_not_after_seconds";
    head(text, name, "End of a CA, seconds since 1970", "gauge");
    let now = Timestamp::now();
    let mint = &authority.mint;
    for (kind, standing) in [
        ("issuing", mint.issuing.standing(now)),
        ("signer", mint.signer.standing(now)),
    ] {
        for ca in standing {
            let (number, end) = (ca.number, ca.certificate().not_after().secs());
            line(
                text,
                format_args!("agentca_{name}{{ca=\"{kind}\",number=\"{number}\"}} {end}\n"),
            );
        }
    }
}

fn crls(text: &mut String, authority: &Authority) {
    let crls = authority.shelf.all();
    let now = Timestamp::now();
    for (name, help) in [
        ("crl_entries", "Revoked certificates in the shard's CRL"),
        ("crl_number", "Number of the shard's CRL"),
        ("crl_age_seconds", "Age of the shard's CRL"),
    ] {
        head(text, name, help, "gauge");
        for (shard, crl) in &crls {
            let value = match name {
                "crl_entries" => crl.entries,
                "crl_number" => crl.number,
                _ => now.saturating_since(crl.this_update).as_secs(),
            };
            line(
                text,
                format_args!("agentca_{name}{{shard=\"{shard}\"}} {value}\n"),
            );
        }
    }
}

fn metric(text: &mut String, name: &str, help: &str, kind: &str, value: u64) {
    head(text, name, help, kind);
    line(text, format_args!("agentca_{name} {value}\n"));
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    line(
        text,
        format_args!("# HELP agentca_{name} {help}.\n# TYPE agentca_{name} {kind}\n"),
    );
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing into a String does not fail.
    let _infallible = text.write_fmt(what);
}
