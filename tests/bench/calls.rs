//! Calls of an MCP tool under load: the enforcer beside proxies that pass the same bytes.

use std::path::Path;
use std::time::Duration;

use crate::Outcome;
use crate::load::{Round, Shape, Window, round};
use crate::mcp::{Bank, EVERYTHING, await_answers, calls};
use crate::peers::{Peer, Shared, Side};
use crate::process::Core;
use crate::report::{Bar, Bound, Section, Table, number};
use crate::setup::Setup;
use crate::stats::{median_of, spread_percent};
use crate::tls::{Credential, Speaks, client};

/// How much of everything.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// Rounds of which medians are taken.
    pub(crate) rounds: usize,
    /// Of the main load.
    pub(crate) busy: Window,
    /// Of one connection alone.
    pub(crate) alone: Window,
}

/// Connections of the main load.
const CONNECTIONS: usize = 64;
/// Tools of the catalogue: calls do not depend on them.
const TOOLS: usize = 100;
/// Who is loaded, in the order of a round.
const SIDES: [Side; 4] = [Side::Nginx, Side::Enforcer, Side::Diskless, Side::Haproxy];
/// Linux's file system in memory (tmpfs).
const MEMORY: &str = "/dev/shm";

/// Everything measured of one side.
struct Measured {
    side: Side,
    busy: Vec<Round>,
    alone: Vec<Round>,
}

/// Runs the comparison.
pub(crate) async fn measure(work: &Path, programs: &Path, plan: Plan) -> Outcome<Section> {
    let setup = Setup::create(work, programs, Core::Load)?;
    let agent = setup.issue_with("calling-01", "prod", &[EVERYTHING])?;
    let bank = Bank::open(&setup, TOOLS)?;
    let enforcer_addr = bank.add_enforcer("edge-1", "prod", &setup.dir.join("edge-1-data"))?;
    let memory = tempfile::tempdir_in(MEMORY)?;
    let diskless = bank.add_enforcer("edge-2", "prod", &memory.path().join("data"))?;
    let shared = Shared {
        setup: &setup,
        enforcer: "edge-1",
        enforcer_addr,
        diskless: ("edge-2", diskless),
        upstream: bank.addr,
    };
    let mut all = Vec::new();
    for side in SIDES {
        let peer = shared.start(side)?;
        all.push((
            peer,
            Measured {
                side,
                busy: vec![],
                alone: vec![],
            },
        ));
    }
    for turn in 0..plan.rounds {
        for (peer, measured) in &mut all {
            eprintln!("calls, round {turn}: {}", measured.side.name());
            measured.load(peer, &agent, plan).await?;
        }
    }
    let mut done = Vec::new();
    for (peer, measured) in all {
        peer.process.stop()?;
        done.push(measured);
    }
    Ok(section(&done, plan))
}

impl Measured {
    async fn load(&mut self, peer: &Peer, agent: &Credential, plan: Plan) -> Outcome<()> {
        let tls = client(agent.clone(), Speaks::Http1)?;
        let target = await_answers(calls(peer.addr, Some(tls))).await?;
        let (server, kept) = (peer.process.id(), Shape::KeptAlive);
        let busy = round(&target, server, kept, CONNECTIONS, plan.busy).await?;
        self.busy.push(busy);
        let alone = round(&target, server, kept, 1, plan.alone).await?;
        self.alone.push(alone);
        Ok(())
    }

    fn rate(&self) -> f64 {
        median_of(&self.busy, |round| round.rate)
    }
}

fn section(all: &[Measured], plan: Plan) -> Section {
    let mut section = Section::new("MCP calls");
    section.say(format!(
        "`tools/call` of revision 2026-07-28 on a tool that reads, answered by the upstream with one \
         JSON message of about 200 bytes; HTTP/1.1, mutual TLS 1.3, {CONNECTIONS} kept-alive \
         connections unless stated, {} rounds. nginx and haproxy verify the client's chain and pass \
         the same bytes to the same upstream; the enforcer reads the message, judges the tool by \
         catalogue, pin and scope, writes a durable record and signs the answer.",
        plan.rounds
    ));
    let mut table = Table::new(&[
        "tools/call",
        "calls/s",
        "±",
        "× nginx",
        "CPU µs",
        "core",
        "p50 µs",
        "p99 µs",
        "1 conn. p50 µs",
        "1 conn. p99 µs",
    ]);
    let rate_of = |side| {
        let found = all.iter().find(|measured| measured.side == side);
        found.map_or(f64::NAN, Measured::rate)
    };
    let nginx = rate_of(Side::Nginx);
    for measured in all {
        let rates: Vec<f64> = measured.busy.iter().map(|round| round.rate).collect();
        let busy = |field: fn(&Round) -> f64| median_of(&measured.busy, field);
        let alone = |field: fn(&Round) -> f64| number(median_of(&measured.alone, field));
        table.row(&[
            measured.side.name().to_owned(),
            number(measured.rate()),
            format!("{:.0} %", spread_percent(&rates)),
            number(measured.rate() / nginx),
            number(busy(|round| round.cpu_us)),
            format!("{:.0} %", 100.0 * busy(|round| round.busy)),
            number(busy(|round| round.p50_us)),
            number(busy(|round| round.p99_us)),
            alone(|round| round.p50_us),
            alone(|round| round.p99_us),
        ]);
    }
    section.table(table);
    let ratio = rate_of(Side::Enforcer) / nginx;
    let what = "MCP tools/call, record and signature on, calls/s";
    let bar = Bar::new(what, ratio, Bound::AtLeast(0.35), "× nginx");
    section.bar(bar.aiming(0.5));
    section
}

/// The plan of the real run.
pub(crate) fn plan(rounds: usize, share: f64) -> Plan {
    let window = |warm: f64, measure: f64| Window {
        warm: Duration::from_secs_f64(warm * share),
        measure: Duration::from_secs_f64(measure * share),
    };
    Plan {
        rounds,
        busy: window(0.5, 3.0),
        alone: window(0.3, 1.7),
    }
}
