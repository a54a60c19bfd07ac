//! Ten thousand agents' connections that nobody uses at the moment: what they keep of the memory.

use std::path::Path;
use std::time::Duration;

use crate::Outcome;
use crate::connections::Target;
use crate::load::{ask, open_idle};
use crate::mcp::{Bank, EVERYTHING, await_answers, calls};
use crate::peers::{Peer, Shared, Side};
use crate::process::Core;
use crate::report::{Bar, Bound, Section, Table, count, number};
use crate::setup::Setup;
use crate::stats::median;
use crate::tls::{Speaks, client};

/// Connections of each agent: an enforcer allows one 4,096 unless told otherwise.
const PER_AGENT: usize = 4000;
/// Tools of the catalogue.
const TOOLS: usize = 100;
/// Opened and closed first: what they allocate belongs to the program.
const FIRST: usize = 64;
/// Of the idle connections one in so many is asked again afterwards: it has to be open still.
const EVERY: usize = 50;

/// Descriptors that an enforcer keeps for itself before it reckons with two for each connection, and
/// connections that are left free here.
const RESERVE: usize = 256;
const LEFT_FREE: usize = 64;

/// KiB of each fresh process, before and with the connections.
struct Measured {
    side: Side,
    before: Vec<f64>,
    with: Vec<f64>,
}

/// Measures with `count` connections.
pub(crate) async fn measure(
    work: &Path,
    programs: &Path,
    rounds: usize,
    wanted: usize,
) -> Outcome<Section> {
    let held = wanted.min(that_fit()?);
    let setup = Setup::create(work, programs, Core::Load)?;
    let bank = Bank::open(&setup, TOOLS)?;
    let enforcer_addr = bank.add_enforcer("edge-1", "prod", &setup.dir.join("edge-1-data"))?;
    let shared = Shared {
        setup: &setup,
        enforcer: "edge-1",
        enforcer_addr,
        diskless: ("edge-1", enforcer_addr),
        upstream: bank.addr,
    };
    let mut agents = Vec::new();
    for number in 0..held.div_ceil(PER_AGENT) {
        let agent = setup.issue_with(&format!("idle-{number}"), "prod", &[EVERYTHING])?;
        agents.push(client(agent, Speaks::Http1)?);
    }
    let sides = [Side::Enforcer, Side::Nginx];
    let mut all = sides.map(|side| Measured {
        side,
        before: vec![],
        with: vec![],
    });
    for turn in 0..rounds.min(3) {
        for measured in &mut all {
            eprintln!("idle, round {turn}: {}", measured.side.name());
            let peer = shared.start(measured.side)?;
            let mut targets = Vec::new();
            for tls in &agents {
                let target = calls(peer.addr, Some(tls.clone()));
                targets.push(await_answers(target).await?);
            }
            measured.hold(&peer, &targets, held).await?;
            peer.process.stop()?;
        }
    }
    Ok(section(&all, held, wanted))
}

impl Measured {
    async fn hold(&mut self, peer: &Peer, targets: &[Target], held: usize) -> Outcome<()> {
        let first = targets.first().ok_or("no agent")?;
        drop(open_idle(first, FIRST).await?);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = peer.process.shown_resident_kib()?;
        let (mut left, mut idle) = (held, Vec::new());
        for target in targets {
            let some = left.min(PER_AGENT);
            left -= some;
            idle.push((target, open_idle(target, some).await?));
        }
        tokio::time::sleep(Duration::from_millis(2500)).await;
        self.before.push(before as f64);
        self.with.push(peer.process.shown_resident_kib()? as f64);
        for (target, connections) in &mut idle {
            for connection in connections.iter_mut().step_by(EVERY) {
                ask(connection, target).await?;
            }
        }
        Ok(())
    }
}

/// Connections that an enforcer has descriptors for on this machine.
fn that_fit() -> Outcome<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let hard = line
        .and_then(|line| line.split_whitespace().nth(1))
        .ok_or("no limit on open files in /proc/self/limits")?;
    let descriptors: usize = if hard == "unlimited" {
        usize::MAX
    } else {
        hard.parse()?
    };
    Ok((descriptors.saturating_sub(RESERVE) / 2).saturating_sub(LEFT_FREE))
}

fn section(all: &[Measured], held: usize, wanted: usize) -> Section {
    let mut section = Section::new("Idle connections");
    section.say(format!(
        "{} mutual TLS connections of {} agents to a fresh process. Each had one `tools/call` \
         answered, the last one 2.5 s ago, and is still open: one in {EVERY} is asked again \
         afterwards. Resident memory as `ps` shows it, of nginx both processes.",
        count(held),
        held.div_ceil(PER_AGENT),
    ));
    if held < wanted {
        section.say(format!(
            "This machine's limit on open files allows no more; the memory of {} is what was measured, \
             and for the rest what each connection took.",
            count(wanted),
        ));
    }
    let at_wanted = format!("RSS MB at {}", count(wanted));
    let mut table = Table::new(&[
        "",
        "RSS MiB before",
        "RSS MiB with them",
        "KiB each",
        &at_wanted,
    ]);
    for measured in all {
        let (before, with) = (median(&measured.before), median(&measured.with));
        let each = (with - before) / held as f64;
        let megabytes = (with + each * (wanted - held) as f64) * 1024.0 / 1e6;
        table.row(&[
            measured.side.name().to_owned(),
            number(before / 1024.0),
            number(with / 1024.0),
            number(each),
            number(megabytes),
        ]);
        if measured.side == Side::Enforcer {
            let what = format!("enforcer's memory with {} idle connections", count(wanted));
            section.bar(Bar::new(&what, megabytes, Bound::AtMost(300.0), "MB"));
        }
    }
    section.table(table);
    section
}
