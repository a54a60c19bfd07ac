//! Agents that an enforcer knows of: what their number costs a request and a handshake.
//!
//! They are real: issued over gRPC by the running authority. Two enforcers of one authority serve the
//! same load in turns: one in an environment of a few agents, one in an environment of many.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Outcome;
use crate::authority::{Applicant, Authority, connect};
use crate::connections::Target;
use crate::load::{Round, Shape, Window, await_serving, round};
use crate::process::{Core, Process};
use crate::report::{Bar, Bound, Section, Table, count, number};
use crate::setup::Setup;
use crate::stats::{median, median_of};
use crate::tls::{Speaks, client};

/// The environments.
const ENVIRONMENTS: [&str; 2] = ["few", "many"];
/// Agents of the first.
const FEW: usize = 10;
/// Connections to the authority while it issues.
const CHANNELS: usize = 4;
/// Calls in flight while it issues.
const IN_FLIGHT: usize = 64;

/// One environment's enforcer and what was measured of it.
struct Measured {
    agents: usize,
    target: Target,
    enforcer: Process,
    resident_kib: f64,
    busy: Vec<Round>,
    alone: Vec<Round>,
    handshakes: Vec<Round>,
}

/// Enrols `many` agents and measures.
pub(crate) async fn measure(
    work: &Path,
    programs: &Path,
    rounds: usize,
    share: f64,
    many: usize,
) -> Outcome<Section> {
    let setup = Setup::create(work, programs, Core::Any)?;
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        channels.push(connect(setup.authority_addr, setup.admin()?).await?);
    }
    let started = Instant::now();
    let [few_in, many_in] = ENVIRONMENTS;
    // The one that asks is one of them.
    enrol(&channels, few_in, FEW - 1).await?;
    enrol(&channels, many_in, many.saturating_sub(1)).await?;
    let filled_in = started.elapsed();
    drop(channels);
    let mut all = Vec::new();
    for (environment, agents) in ENVIRONMENTS.into_iter().zip([FEW, many]) {
        all.push(Measured::start(&setup, environment, agents).await?);
    }
    for turn in 0..rounds {
        for measured in &mut all {
            eprintln!("agents known, round {turn}: {}", measured.agents);
            measured.load(share).await?;
        }
    }
    let section = section(&all, filled_in);
    for measured in all {
        measured.enforcer.stop()?;
    }
    Ok(section)
}

/// Registers `count` agents, each with a certificate.
async fn enrol(channels: &[Authority], environment: &'static str, agents: usize) -> Outcome<()> {
    let mut tasks = JoinSet::new();
    let mut next = 0;
    while next < agents || !tasks.is_empty() {
        while next < agents && tasks.len() < IN_FLIGHT {
            let mut channel = channels
                .get(next % channels.len())
                .cloned()
                .ok_or("no connection")?;
            let applicant = Applicant::new(format!("known-{next}"))?;
            tasks.spawn(async move { channel.issue(applicant.first(environment)).await });
            next += 1;
            if next % 10_000 == 0 {
                eprintln!("{next} of {agents} agents are enrolled or about to be");
            }
        }
        if let Some(done) = tasks.join_next().await {
            done??;
        }
    }
    Ok(())
}

impl Measured {
    async fn start(setup: &Setup, environment: &str, agents: usize) -> Outcome<Self> {
        let name = format!("edge-{environment}");
        let agent = setup.issue(&format!("asking-{environment}"), environment)?;
        let listen = setup.add_enforcer(&name, environment)?;
        let enforcer = setup.start_enforcer(&name, listen, Core::Server)?;
        let target = Target::new(listen, client(agent, Speaks::Http1)?);
        await_serving(&target).await?;
        let resident_kib = enforcer.resident_kib()? as f64;
        let (busy, alone, handshakes) = (vec![], vec![], vec![]);
        Ok(Self {
            agents,
            target,
            enforcer,
            resident_kib,
            busy,
            alone,
            handshakes,
        })
    }

    async fn load(&mut self, share: f64) -> Outcome<()> {
        let window = Window {
            warm: Duration::from_secs_f64(0.5 * share),
            measure: Duration::from_secs_f64(2.0 * share),
        };
        let (target, server) = (&self.target, self.enforcer.id());
        self.busy
            .push(round(target, server, Shape::KeptAlive, 64, window).await?);
        self.alone
            .push(round(target, server, Shape::KeptAlive, 1, window).await?);
        self.handshakes
            .push(round(target, server, Shape::Handshake, 32, window).await?);
        Ok(())
    }
}

fn section(all: &[Measured], filled_in: Duration) -> Section {
    let mut section = Section::new("Agents known");
    section.say(format!(
        "An enforcer knows every agent of its environment. Here they were enrolled over gRPC by the \
         running authority, in {:.0} s; one enforcer serves an environment of a few, the other of many, \
         loaded in turns.",
        filled_in.as_secs_f64(),
    ));
    let mut table = Table::new(&[
        "agents known",
        "requests/s",
        "CPU µs",
        "p50 µs",
        "1 conn. p50 µs",
        "handshakes/s",
        "RSS MiB",
    ]);
    for measured in all {
        table.row(&[
            count(measured.agents),
            number(median_of(&measured.busy, |round| round.rate)),
            number(median_of(&measured.busy, |round| round.cpu_us)),
            number(median_of(&measured.busy, |round| round.p50_us)),
            number(median_of(&measured.alone, |round| round.p50_us)),
            number(median_of(&measured.handshakes, |round| round.rate)),
            number(measured.resident_kib / 1024.0),
        ]);
    }
    section.table(table);
    if let [few, many] = all {
        let at = count(many.agents);
        let bound = Bound::AtMost(5.0);
        let slower = growth(&few.busy, &many.busy, |round| 1.0 / round.rate);
        let what = format!("a request's time longer at {at} agents known, 64 connections");
        section.bar(Bar::new(&what, slower, bound, "%"));
        let later = growth(&few.alone, &many.alone, |round| round.p50_us);
        let what = format!("the same, one connection, p50 at {at}");
        section.bar(Bar::new(&what, later, bound, "%"));
    }
    section
}

/// By how many percent `field` grew, taken in each round.
fn growth(few: &[Round], many: &[Round], field: fn(&Round) -> f64) -> f64 {
    let pairs = few.iter().zip(many);
    let grown: Vec<f64> = pairs
        .map(|(few, many)| (field(many) / field(few) - 1.0) * 100.0)
        .collect();
    median(&grown)
}
