//! What the enforcer adds to a call's latency when it has half of what it can do.

use std::path::Path;
use std::time::Duration;

use crate::Outcome;
use crate::connections::Target;
use crate::load::{Shape, Window, round};
use crate::mcp::{Bank, EVERYTHING, await_answers, calls};
use crate::paced::{Paced, paced};
use crate::peers::{Shared, Side};
use crate::process::Core;
use crate::report::{Bar, Bound, Section, Table, number};
use crate::setup::Setup;
use crate::stats::{median, median_of};
use crate::tls::{Speaks, client};

/// Connections of the load.
const CONNECTIONS: usize = 64;
/// Tools of the catalogue.
const TOOLS: usize = 100;
/// Behind which proxies the upstream is asked besides directly.
const SIDES: [Side; 3] = [Side::Enforcer, Side::Diskless, Side::Nginx];
/// Linux's file system in memory (tmpfs).
const MEMORY: &str = "/dev/shm";

/// The rounds of one way to the upstream.
struct Measured {
    name: &'static str,
    target: Target,
    rounds: Vec<Paced>,
}

/// Measures at half of the rate that the enforcer reaches in the same run.
pub(crate) async fn measure(
    work: &Path,
    programs: &Path,
    rounds: usize,
    share: f64,
) -> Outcome<Section> {
    let setup = Setup::create(work, programs, Core::Load)?;
    let agent = setup.issue_with("calling-01", "prod", &[EVERYTHING])?;
    let tls = client(agent, Speaks::Http1)?;
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
    let window = |warm: f64, measure: f64| Window {
        warm: Duration::from_secs_f64(warm * share),
        measure: Duration::from_secs_f64(measure * share),
    };
    let mut all = vec![Measured {
        name: "the upstream itself, no TLS",
        target: await_answers(calls(bank.addr, None)).await?,
        rounds: vec![],
    }];
    let mut peers = Vec::new();
    for side in SIDES {
        let peer = shared.start(side)?;
        all.push(Measured {
            name: side.name(),
            target: await_answers(calls(peer.addr, Some(tls.clone()))).await?,
            rounds: vec![],
        });
        peers.push(peer);
    }
    let enforcer = peers.first().ok_or("no enforcer")?;
    let (to_it, its_process) = (all.get(1).ok_or("no enforcer")?, enforcer.process.id());
    let (kept, busy) = (Shape::KeptAlive, window(0.5, 2.0));
    let mut most = Vec::new();
    for _ in 0..rounds.min(3) {
        most.push(round(&to_it.target, its_process, kept, CONNECTIONS, busy).await?);
    }
    let half = median_of(&most, |round| round.rate) / 2.0;
    for turn in 0..rounds {
        for measured in &mut all {
            eprintln!("latency, round {turn}: {}", measured.name);
            let done = paced(&measured.target, half, CONNECTIONS, window(1.0, 5.0)).await?;
            measured.rounds.push(done);
        }
    }
    for peer in peers {
        peer.process.stop()?;
    }
    Ok(section(&all, half))
}

fn section(all: &[Measured], half: f64) -> Section {
    let mut section = Section::new("Latency at half load");
    section.say(format!(
        "{} `tools/call` a second, half of what the enforcer reached in this run, sent evenly over \
         {CONNECTIONS} kept-alive connections; each leaves when it is due, and waiting for a free \
         connection counts. \"Added\" is the difference to asking the upstream itself in clear, taken \
         in each round; all is the median over the rounds.",
        number(half),
    ));
    let mut table = Table::new(&[
        "",
        "answers/s",
        "p50 µs",
        "p99 µs",
        "added p50 µs",
        "added p99 µs",
    ]);
    for measured in all {
        let rounds = &measured.rounds;
        table.row(&[
            measured.name.to_owned(),
            number(median_of(rounds, |round| round.rate)),
            number(median_of(rounds, |round| round.p50_us)),
            number(median_of(rounds, |round| round.p99_us)),
            number(added(all, measured, |round| round.p50_us)),
            number(added(all, measured, |round| round.p99_us)),
        ]);
    }
    section.table(table);
    if let Some(enforcer) = all.iter().find(|one| one.name == Side::Enforcer.name()) {
        let p99 = added(all, enforcer, |round| round.p99_us) / 1000.0;
        let what = "latency added to a tools/call at half load, p99";
        section.bar(Bar::new(what, p99, Bound::AtMost(1.0), "ms"));
    }
    section
}

/// What `measured` takes more than the first of all, the upstream itself.
fn added(all: &[Measured], measured: &Measured, field: fn(&Paced) -> f64) -> f64 {
    let direct = all.first().map(|direct| direct.rounds.as_slice());
    let pairs = measured.rounds.iter().zip(direct.unwrap_or_default());
    let differences: Vec<f64> = pairs.map(|(own, base)| field(own) - field(base)).collect();
    median(&differences)
}
