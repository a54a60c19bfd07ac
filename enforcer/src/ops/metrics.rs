//! What `/metrics` says, in the Prometheus text format.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use agentca_identity::time::Timestamp;

use super::Ops;
use super::counters::{OfUpstream, State};
use super::kinds::{Failure, McpKind};
use super::tally::{BOUNDS_US, Histogram};
use crate::status::Readiness;

/// Everything there is to know.
pub(super) fn render(ops: &Ops) -> String {
    let mut text = Text(String::with_capacity(16 << 10));
    text.head("build_info", "Which program this is", "gauge");
    let version = env!("CARGO_PKG_VERSION");
    text.line(format_args!("build_info{{version=\"{version}\"}} 1"));
    connections(&mut text, ops);
    status(&mut text, ops);
    log(&mut text, ops);
    certificates(&mut text, ops);
    let upstreams: Upstreams = ops.board.upstreams().into_iter().collect();
    requests(&mut text, &upstreams);
    let total = "Time until an answer may leave, or a stream's head";
    histogram(
        &mut text,
        &upstreams,
        ("request_duration_seconds", total),
        |of| &of.total,
    );
    let added = "The same without the time that the upstream took";
    histogram(
        &mut text,
        &upstreams,
        ("request_added_seconds", added),
        |of| &of.added,
    );
    failures(&mut text, ops, &upstreams);
    mcp(&mut text, ops, &upstreams);
    list_ages(&mut text, ops);
    programs(&mut text, ops);
    text.0
}

type Upstreams = Vec<(Arc<str>, Vec<Arc<OfUpstream>>)>;

/// Lines, each beginning with the program's name.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.write(format_args!(
            "# HELP {PREFIX}{name} {help}.\n# TYPE {PREFIX}{name} {kind}\n"
        ));
    }

    fn line(&mut self, what: std::fmt::Arguments<'_>) {
        self.write(format_args!("{PREFIX}{what}\n"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, help, "gauge");
        self.line(format_args!("{name} {value}"));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(format_args!("{name} {value}"));
    }

    fn write(&mut self, what: std::fmt::Arguments<'_>) {
        // Writing into a String does not fail.
        let _infallible = self.0.write_fmt(what);
    }
}

const PREFIX: &str = "agentca_enforcer_";

fn connections(text: &mut Text, ops: &Ops) {
    let threads = ops.board.threads();
    let open = ops.board.connections.load(Ordering::Relaxed);
    text.gauge("connections", "Open client connections", open);
    let streams: u64 = threads.iter().map(|own| own.streams.value()).sum();
    text.gauge("streams", "Answers that are being streamed", streams);
    let accepted = threads.iter().map(|own| own.handshakes.value()).sum();
    text.counter(
        "handshakes_accepted_total",
        "TLS handshakes that ended well",
        accepted,
    );
    let floods = threads.iter().map(|own| own.floods.value()).sum();
    text.counter(
        "connections_flooded_total",
        "Connections ended for resets or frames without end",
        floods,
    );
    let name = "handshakes_refused_total";
    text.head(name, "TLS handshakes that were refused", "counter");
    for (reason, count) in ops.board.refused() {
        text.line(format_args!("{name}{{reason=\"{reason}\"}} {count}"));
    }
}

fn status(text: &mut Text, ops: &Ops) {
    let registry = &ops.registry;
    let ready = u8::from(registry.readiness() == Readiness::Ready);
    text.gauge(
        "ready",
        "1 once feed and witness, or the CRLs, were heard",
        ready,
    );
    let fresh = u8::from(registry.freshness(Instant::now()).is_ok());
    text.gauge(
        "status_fresh",
        "1 while requests are decided, 0 while all are denied",
        fresh,
    );
    if let Some(age) = registry.feed_age(Instant::now()) {
        let help = "Age of the authority's newest heartbeat";
        text.gauge("feed_age_seconds", help, age.as_secs_f64());
    }
    text.gauge(
        "status_number",
        "The newest status record in force",
        registry.status_number(),
    );
    if let Some(at) = registry.witnessed() {
        let age = Timestamp::now().saturating_since(at).as_secs();
        text.gauge(
            "witness_age_seconds",
            "Time since the log was witnessed",
            age,
        );
    }
}

fn log(text: &mut Text, ops: &Ops) {
    text.gauge(
        "log_records",
        "Durable records of the log",
        ops.log.durable(),
    );
    let published = ops.log.checkpoint().checkpoint.size;
    text.gauge(
        "log_checkpoint_size",
        "Records under the checkpoint",
        published,
    );
    let blocked = u8::from(ops.log.blocked());
    text.gauge("log_blocked", "1 while the log cannot grow", blocked);
    let disclosures = &ops.board.disclosures;
    text.counter(
        "disclosures_kept_total",
        "Values that tools were called with, kept beside the log",
        disclosures.kept.load(Ordering::Relaxed),
    );
    text.counter(
        "disclosures_dropped_total",
        "Values that were to be kept and are not: no room, or the disk failed",
        disclosures.dropped.load(Ordering::Relaxed),
    );
}

fn certificates(text: &mut Text, ops: &Ops) {
    let name = "certificate_not_after_seconds";
    text.head(name, "End of a certificate, seconds since 1970", "gauge");
    for (usage, ends) in (ops.certificates)() {
        let ends = ends.secs();
        text.line(format_args!("{name}{{certificate=\"{usage}\"}} {ends}"));
    }
}

fn requests(text: &mut Text, upstreams: &Upstreams) {
    let name = "requests_total";
    text.head(name, "Requests decided, by the rule that denied", "counter");
    for (upstream, counts) in upstreams {
        let mut sums = std::collections::BTreeMap::new();
        for (key, count) in counts.iter().flat_map(|of| of.requests()) {
            *sums.entry(key).or_insert(0_u64) += count;
        }
        for ((rule, risk), count) in sums.into_iter().filter(|(_, count)| *count > 0) {
            let decision = if rule.is_some() { "deny" } else { "allow" };
            let rule = rule.map_or("", |rule| rule.as_str());
            let risk = risk.map_or("", |risk| risk.as_str());
            text.line(format_args!(
                "{name}{{upstream=\"{upstream}\",decision=\"{decision}\",rule=\"{rule}\",\
                 risk=\"{risk}\"}} {count}"
            ));
        }
    }
    let name = "answers_total";
    text.head(
        name,
        "Answers by status; none when there was no answer",
        "counter",
    );
    for (upstream, counts) in upstreams {
        for (place, class) in ["none", "1xx", "2xx", "3xx", "4xx", "5xx"]
            .iter()
            .enumerate()
        {
            let count = sum(counts, |of| {
                of.answers.get(place).map_or(0, |tally| tally.value())
            });
            if count > 0 {
                text.line(format_args!(
                    "{name}{{upstream=\"{upstream}\",class=\"{class}\"}} {count}"
                ));
            }
        }
    }
}

fn histogram(
    text: &mut Text,
    upstreams: &Upstreams,
    (name, help): (&str, &str),
    which: impl Fn(&OfUpstream) -> &Histogram,
) {
    text.head(name, help, "histogram");
    for (upstream, counts) in upstreams {
        let mut below = 0_u64;
        let mut sums = vec![0_u64; BOUNDS_US.len() + 1];
        for of in counts {
            for (sum, count) in sums.iter_mut().zip(which(of).counts()) {
                *sum += count;
            }
        }
        let bounds = BOUNDS_US.iter().map(|bound| seconds(*bound, 1_000_000));
        let bounds = bounds.chain(std::iter::once("+Inf".to_owned()));
        for (bound, count) in bounds.zip(sums) {
            below += count;
            text.line(format_args!(
                "{name}_bucket{{upstream=\"{upstream}\",le=\"{bound}\"}} {below}"
            ));
        }
        let nanos = sum(counts, |of| which(of).nanos());
        let took = seconds(nanos, 1_000_000_000);
        text.line(format_args!("{name}_sum{{upstream=\"{upstream}\"}} {took}"));
        text.line(format_args!(
            "{name}_count{{upstream=\"{upstream}\"}} {below}"
        ));
    }
}

/// A whole number of parts, as seconds: exact, and without needless zeros.
fn seconds(parts: u64, per_second: u64) -> String {
    let (whole, rest) = (parts / per_second, parts % per_second);
    let digits = per_second.ilog10() as usize;
    let text = format!("{whole}.{rest:0digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn failures(text: &mut Text, ops: &Ops, upstreams: &Upstreams) {
    let name = "upstream_failures_total";
    text.head(name, "Calls that their upstream failed", "counter");
    for (upstream, counts) in upstreams {
        for (place, failure) in Failure::ALL.into_iter().enumerate() {
            let count = sum(counts, |of| {
                of.failures.get(place).map_or(0, |tally| tally.value())
            });
            if count > 0 {
                let reason = failure.as_str();
                text.line(format_args!(
                    "{name}{{upstream=\"{upstream}\",reason=\"{reason}\"}} {count}"
                ));
            }
        }
    }
    let name = "upstream_up";
    text.head(
        name,
        "Whether the last call was answered by its upstream",
        "gauge",
    );
    for (upstream, state) in ops.board.states() {
        let up = match state {
            State::Answers => 1,
            State::Fails => 0,
            State::Unknown => continue,
        };
        text.line(format_args!("{name}{{upstream=\"{upstream}\"}} {up}"));
    }
}

fn mcp(text: &mut Text, ops: &Ops, upstreams: &Upstreams) {
    let name = "mcp_messages_total";
    text.head(name, "MCP messages decided", "counter");
    for (upstream, counts) in upstreams {
        for (place, kind) in McpKind::ALL.into_iter().enumerate() {
            let count = sum(counts, |of| {
                of.mcp.get(place).map_or(0, |tally| tally.value())
            });
            if count > 0 {
                let kind = kind.as_str();
                text.line(format_args!(
                    "{name}{{upstream=\"{upstream}\",kind=\"{kind}\"}} {count}"
                ));
            }
        }
    }
    let name = "mcp_tools";
    text.head(name, "Tools of an MCP upstream", "gauge");
    for (upstream, tools) in ops.board.all_tools() {
        let states = [
            ("callable", tools.callable),
            ("withheld", tools.withheld),
            ("unknown", tools.unknown),
        ];
        for (state, count) in states {
            text.line(format_args!(
                "{name}{{upstream=\"{upstream}\",state=\"{state}\"}} {count}"
            ));
        }
    }
}

fn list_ages(text: &mut Text, ops: &Ops) {
    let name = "mcp_list_age_seconds";
    text.head(
        name,
        "Time since an MCP upstream's tools were listed",
        "gauge",
    );
    for (upstream, age) in ops.board.list_ages() {
        let age = age.as_secs_f64();
        text.line(format_args!("{name}{{upstream=\"{upstream}\"}} {age}"));
    }
}

fn programs(text: &mut Text, ops: &Ops) {
    let programs = (ops.programs)();
    let name = "program_processes";
    text.head(name, "Processes of a server that is a program", "gauge");
    for counts in &programs {
        let (upstream, alive) = (&counts.upstream, counts.alive);
        text.line(format_args!("{name}{{upstream=\"{upstream}\"}} {alive}"));
    }
    let name = "program_events_total";
    text.head(
        name,
        "What happened to processes, and to what they wrote",
        "counter",
    );
    for counts in &programs {
        let upstream = &counts.upstream;
        for (event, count) in counts.events {
            text.line(format_args!(
                "{name}{{upstream=\"{upstream}\",event=\"{event}\"}} {count}"
            ));
        }
    }
}

fn sum(counts: &[Arc<OfUpstream>], of: impl Fn(&OfUpstream) -> u64) -> u64 {
    counts.iter().map(|counts| of(counts)).sum()
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn seconds_are_exact() {
        for (parts, per_second, text) in [
            (100, 1_000_000, "0.0001"),
            (2_500_000, 1_000_000, "2.5"),
            (10_000_000, 1_000_000, "10"),
            (0, 1_000_000_000, "0"),
            (20_000_202_000, 1_000_000_000, "20.000202"),
        ] {
            assert_eq!(seconds(parts, per_second), text);
        }
    }
}
