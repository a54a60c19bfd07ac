//! A million revoked serials: what they cost a request, a handshake, a revocation.
//!
//! They are real: issued over gRPC by the running authority and revoked through it, in an
//! environment of their own. Two enforcers of one authority then serve the same load in turns: one
//! in an environment where nothing is revoked, one in that environment.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Outcome;
use crate::authority::{Applicant, Authority, connect, revoke};
use crate::connections::Target;
use crate::load::{Round, Shape, Window, await_serving, round};
use crate::process::Core;
use crate::report::{Bar, Bound, Section, Table, number};
use crate::setup::Setup;
use crate::stats::{P50, P99, median_of, percentile};
use crate::tls::{Speaks, client};

/// Where nothing is revoked.
const EMPTY: &str = "none";
/// Where everything is.
const FULL: &str = "many";
/// Certificates for each agent that is revoked.
const PER_AGENT: usize = 1000;
/// Connections to the authority while it issues.
const CHANNELS: usize = 4;
/// Revocations timed at either size.
const TIMED: usize = 100;

/// What was measured.
struct Measured {
    revoked: usize,
    filled_in: Duration,
    ack_before: Vec<f64>,
    ack_after: Vec<f64>,
    /// Of the empty and the full environment's enforcer.
    requests: [Vec<Round>; 2],
    handshakes: [Vec<Round>; 2],
    resident_kib: [f64; 2],
}

/// Issues and revokes `revoked` certificates and measures around them.
pub(crate) async fn measure(
    work: &Path,
    programs: &Path,
    rounds: usize,
    revoked: usize,
) -> Outcome<Section> {
    let setup = Setup::create(work, programs, Core::Any)?;
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        channels.push(connect(setup.authority_addr, setup.admin()?).await?);
    }
    let mut one = channels.first().cloned().ok_or("no connection")?;
    let ack_before = acknowledge(&mut one, "before").await?;
    let started = Instant::now();
    fill(&channels, revoked.div_ceil(PER_AGENT)).await?;
    let filled_in = started.elapsed();
    let ack_after = acknowledge(&mut one, "after").await?;
    let (requests, handshakes, resident_kib) = serve(&setup, rounds).await?;
    let measured = Measured {
        revoked,
        filled_in,
        ack_before,
        ack_after,
        requests,
        handshakes,
        resident_kib,
    };
    Ok(section(&measured))
}

/// Times the revocation of fresh agents, in ms; nobody else is asking and no enforcer is waited for.
async fn acknowledge(authority: &mut Authority, when: &str) -> Outcome<Vec<f64>> {
    let mut times = Vec::new();
    for number in 0..TIMED {
        let applicant = Applicant::new(format!("timed-{when}-{number}"))?;
        authority.issue(applicant.first(FULL)).await?;
        let sent = Instant::now();
        revoke(authority, FULL, &applicant.name).await?;
        times.push(sent.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(times)
}

/// Issues `agents` × [`PER_AGENT`] certificates and revokes their agents.
async fn fill(channels: &[Authority], agents: usize) -> Outcome<()> {
    let mut tasks = JoinSet::new();
    let mut next = 0;
    while next < agents || !tasks.is_empty() {
        while next < agents && tasks.len() < 64 {
            let channel = channels
                .get(next % channels.len())
                .cloned()
                .ok_or("no connection")?;
            tasks.spawn(one_agent(
                channel,
                Arc::new(Applicant::new(format!("gone-{next}"))?),
            ));
            next += 1;
        }
        if let Some(done) = tasks.join_next().await {
            done??;
        }
        if next % 100 == 0 {
            eprintln!("{next} of {agents} agents have their certificates or are getting them");
        }
    }
    Ok(())
}

async fn one_agent(mut channel: Authority, applicant: Arc<Applicant>) -> Outcome<()> {
    channel.issue(applicant.first(FULL)).await?;
    for _ in 1..PER_AGENT {
        channel.issue(applicant.again(FULL)).await?;
    }
    let answer = revoke(&mut channel, FULL, &applicant.name).await?;
    if answer.certificates != u64::try_from(PER_AGENT)? {
        return Err(format!("{} certificates were revoked", answer.certificates).into());
    }
    Ok(())
}

type Sides = ([Vec<Round>; 2], [Vec<Round>; 2], [f64; 2]);

async fn serve(setup: &Setup, rounds: usize) -> Outcome<Sides> {
    let (mut requests, mut handshakes) = ([vec![], vec![]], [vec![], vec![]]);
    let mut sides = Vec::new();
    for (name, environment) in [("edge-none", EMPTY), ("edge-many", FULL)] {
        let agent = setup.issue(&format!("asking-{environment}"), environment)?;
        let listen = setup.add_enforcer(name, environment)?;
        let enforcer = setup.start_enforcer(name, listen, Core::Server)?;
        let target = Target::new(listen, client(agent, Speaks::Http1)?);
        await_serving(&target).await?;
        sides.push((target, enforcer));
    }
    let mut resident_kib = [0.0; 2];
    for ((_, enforcer), resident) in sides.iter().zip(&mut resident_kib) {
        *resident = enforcer.resident_kib()? as f64;
    }
    let (warm, measure) = (Duration::from_millis(500), Duration::from_secs(2));
    let window = Window { warm, measure };
    for turn in 0..rounds {
        eprintln!("a million revoked, round {turn}");
        let figures = requests.iter_mut().zip(&mut handshakes);
        for ((target, enforcer), (requests, handshakes)) in sides.iter().zip(figures) {
            let server = enforcer.id();
            requests.push(round(target, server, Shape::KeptAlive, 64, window).await?);
            handshakes.push(round(target, server, Shape::Handshake, 32, window).await?);
        }
    }
    for (_, enforcer) in sides {
        enforcer.stop()?;
    }
    Ok((requests, handshakes, resident_kib))
}

fn section(measured: &Measured) -> Section {
    let mut section = Section::new("A million revoked serials");
    section.say(format!(
        "{} certificates of {} agents, issued over gRPC and revoked by the running authority in \
         {:.0} s. One enforcer serves an environment where nothing is revoked, the other that \
         one; both are loaded in turns.",
        number(measured.revoked as f64),
        measured.revoked.div_ceil(PER_AGENT),
        measured.filled_in.as_secs_f64(),
    ));
    let mut table = Table::new(&["revoked", "requests/s", "handshakes/s", "RSS MiB"]);
    let sides = measured
        .requests
        .iter()
        .zip(&measured.handshakes)
        .zip(measured.resident_kib);
    let labels = ["0".to_owned(), number(measured.revoked as f64)];
    let mut rates = Vec::new();
    for (label, ((requests, handshakes), resident)) in labels.into_iter().zip(sides) {
        let requests = median_of(requests, |round| round.rate);
        let handshakes = median_of(handshakes, |round| round.rate);
        let cells = [
            label,
            number(requests),
            number(handshakes),
            number(resident / 1024.0),
        ];
        table.row(&cells);
        rates.push((requests, handshakes));
    }
    section.table(table);
    acknowledgements(&mut section, measured);
    if let [empty, full] = rates.as_slice() {
        let slower = |empty: f64, full: f64| (1.0 - full / empty) * 100.0;
        let bound = Bound::AtMost(5.0);
        let what = "requests slower at 1,000,000 revoked";
        section.bar(Bar::new(what, slower(empty.0, full.0), bound, "%"));
        let what = "handshakes slower at 1,000,000 revoked";
        section.bar(Bar::new(what, slower(empty.1, full.1), bound, "%"));
    }
    section
}

fn acknowledgements(section: &mut Section, measured: &Measured) {
    let mut table = Table::new(&["revoke acknowledged, ms", "p50", "p99"]);
    let rows = [
        ("at 0 revoked", &measured.ack_before),
        ("at all revoked", &measured.ack_after),
    ];
    for (name, times) in rows {
        let (p50, p99) = (percentile(times, P50), percentile(times, P99));
        table.row(&[name.to_owned(), number(p50), number(p99)]);
    }
    section.table(table);
}
