//! Durable issuance over gRPC against the bare cryptography of the same machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Outcome;
use crate::authority::{Applicant, Authority, connect};
use crate::part::run_pinned;
use crate::report::{Bar, Bound, Section, Table, number};
use crate::setup::Setup;
use crate::stats::{median, spread_percent};

/// Connections to the authority.
const CHANNELS: usize = 4;
/// Calls in flight on each.
const CALLS: usize = 32;

/// How much of everything.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// Rounds of which medians are taken.
    pub(crate) rounds: usize,
    /// Of each round.
    pub(crate) measure: Duration,
}

/// Measures issuance; the authority has to run alone on the server's core.
pub(crate) async fn measure(setup: &Setup, plan: Plan) -> Outcome<Section> {
    let admin = setup.admin()?;
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        channels.push(connect(setup.authority_addr, admin.clone()).await?);
    }
    let (mut bare, mut first, mut again, mut busy) = (vec![], vec![], vec![], vec![]);
    for turn in 0..plan.rounds {
        eprintln!("issuance, round {turn}");
        bare.push(run_pinned(&["crypto"])?);
        let applicants = applicants(turn)?;
        let started = Instant::now();
        let calls = issue_all(&channels, &applicants).await?;
        first.push(calls / started.elapsed().as_secs_f64());
        let before = setup.authority.cpu_ns()?;
        let started = Instant::now();
        let calls = issue_again(&channels, applicants, plan.measure).await?;
        let elapsed = started.elapsed().as_secs_f64();
        again.push(calls / elapsed);
        busy.push((setup.authority.cpu_ns()? - before) as f64 / 1e9 / elapsed);
    }
    Ok(section(&bare, &first, &again, &busy))
}

fn applicants(turn: usize) -> Outcome<Vec<Arc<Applicant>>> {
    let name = |number: usize| format!("issued-{turn}-{number}");
    let all = 0..CHANNELS * CALLS * 4;
    all.map(|number| Ok(Arc::new(Applicant::new(name(number))?)))
        .collect()
}

/// Registers, grants and certifies each applicant once.
async fn issue_all(channels: &[Authority], applicants: &[Arc<Applicant>]) -> Outcome<f64> {
    let mut tasks = JoinSet::new();
    let workers = CHANNELS * CALLS;
    for (channel, worker) in channels.iter().cycle().zip(0..workers) {
        let mut channel = channel.clone();
        let mine: Vec<_> = applicants
            .iter()
            .skip(worker)
            .step_by(workers)
            .cloned()
            .collect();
        tasks.spawn(async move {
            for applicant in mine {
                channel.issue(applicant.first("prod")).await?;
            }
            Ok::<_, tonic::Status>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(applicants.len() as f64)
}

/// Issues under standing grants for as long as a round takes; returns how many.
async fn issue_again(
    channels: &[Authority],
    applicants: Vec<Arc<Applicant>>,
    measure: Duration,
) -> Outcome<f64> {
    let count = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + measure;
    let mut tasks = JoinSet::new();
    let workers = channels
        .iter()
        .cycle()
        .zip(applicants)
        .take(CHANNELS * CALLS);
    for (channel, applicant) in workers {
        let (mut channel, count) = (channel.clone(), Arc::clone(&count));
        tasks.spawn(async move {
            let request = applicant.again("prod");
            while Instant::now() < until {
                channel.issue(request.clone()).await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, tonic::Status>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(count.load(Ordering::Relaxed) as f64)
}

fn section(bare: &[f64], first: &[f64], again: &[f64], busy: &[f64]) -> Section {
    let mut section = Section::new("Issuance");
    section.say(format!(
        "Certificates a second from `agentca serve` on one core, over {CHANNELS} mutual TLS \
         connections with {CALLS} calls in flight on each; every certificate's record is durable \
         before it leaves. The base is what the same core does of bare cryptography: verify the \
         request's proof of possession, sign once with P-256."
    ));
    let mut table = Table::new(&["", "per second", "±", "× bare crypto"]);
    let base = median(bare);
    let rows = [
        ("bare CSR verification + P-256 signature", bare),
        ("issue under a standing grant", again),
        ("first issue: register, grant, certify", first),
    ];
    for (name, rounds) in rows {
        let spread = format!("{:.0} %", spread_percent(rounds));
        table.row(&[
            name.to_owned(),
            number(median(rounds)),
            spread,
            number(median(rounds) / base),
        ]);
    }
    section.table(table);
    section.say(format!(
        "The authority used {:.0} % of its core.",
        100.0 * median(busy)
    ));
    let ratio = median(again) / base;
    section.bar(Bar::new(
        "issuance, durable",
        ratio,
        Bound::AtLeast(0.4),
        "× bare crypto",
    ));
    section
}
