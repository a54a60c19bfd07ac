//! How long a revoked agent goes on being served: 100 agents asking all the time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::Outcome;
use crate::authority::{Applicant, Authority, connect, revoke};
use crate::connections::{Connection, Target};
use crate::load::await_serving;
use crate::process::Core;
use crate::report::{Bar, Bound, Section, Table, number};
use crate::setup::Setup;
use crate::stats::{P50, P99, percentile};
use crate::tls::{Credential, Speaks, client};

/// Agents connected at any time.
const AGENTS: usize = 100;
/// Between two revocations.
const PAUSE: Duration = Duration::from_millis(50);
/// How long after the acknowledgement a revoked agent goes on trying.
const AFTERWARDS: Duration = Duration::from_millis(250);
/// Between the tries of an agent that was turned away.
const RETRY: Duration = Duration::from_millis(2);

/// What one revocation came to, in ms from when it was sent.
struct Revocation {
    acknowledged: f64,
    last_allowed: f64,
    /// From the acknowledgement on.
    allowed_afterwards: f64,
    in_force: f64,
}

/// Revokes `revocations` agents, one after the other, while all ask.
pub(crate) async fn measure(setup: &Setup, revocations: usize) -> Outcome<Section> {
    let listen = setup.add_enforcer("edge-revoke", "prod")?;
    let enforcer = setup.start_enforcer("edge-revoke", listen, Core::Server)?;
    let mut authority = connect(setup.authority_addr, setup.admin()?).await?;
    let (base, mut waiting, mut asking) = (Instant::now(), VecDeque::new(), VecDeque::new());
    for number in 0..AGENTS + revocations {
        let applicant = Applicant::new(format!("revoked-{number}"))?;
        let credential = applicant.enrol(&mut authority, "prod").await?;
        waiting.push_back((applicant.name, credential));
    }
    let (_, first) = waiting.front().ok_or("no agent")?;
    await_serving(&Target::new(listen, client(first.clone(), Speaks::Http1)?)).await?;
    for agent in waiting.drain(..AGENTS) {
        asking.push_back(Asking::start(agent, listen, base)?);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, started) = (enforcer.cpu_ns()?, Instant::now());
    let mut done = Vec::new();
    for agent in waiting {
        let Some(doomed) = asking.pop_front() else {
            break;
        };
        done.push(end_one(&mut authority, doomed, base).await?);
        asking.push_back(Asking::start(agent, listen, base)?);
        tokio::time::sleep(PAUSE).await;
    }
    let busy = (enforcer.cpu_ns()? - before) as f64 / 1e9 / started.elapsed().as_secs_f64();
    let mut others = 0;
    for agent in asking {
        others += agent.stop().await?.turned_away;
    }
    enforcer.stop()?;
    Ok(section(&done, others, busy))
}

async fn end_one(authority: &mut Authority, doomed: Asking, base: Instant) -> Outcome<Revocation> {
    let sent = base.elapsed();
    let answer = revoke(authority, "prod", &doomed.name).await?;
    let acknowledged = base.elapsed();
    tokio::time::sleep(AFTERWARDS).await;
    let last = Duration::from_nanos(doomed.stop().await?.last_allowed_ns);
    if answer.confirmed != answer.enforcers || answer.enforcers == 0 {
        return Err("a revocation was not confirmed by the enforcer".into());
    }
    Ok(Revocation {
        acknowledged: millis(acknowledged.saturating_sub(sent)),
        last_allowed: millis(last.saturating_sub(sent)),
        allowed_afterwards: millis(last.saturating_sub(acknowledged)),
        in_force: answer.in_force_ms,
    })
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// An agent that sends one request after the other until it is told to stop.
struct Asking {
    name: String,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// What an agent has seen so far.
#[derive(Default)]
struct Seen {
    last_allowed_ns: AtomicU64,
    turned_away: AtomicU64,
}

/// What an agent had seen when it stopped.
struct Summary {
    last_allowed_ns: u64,
    turned_away: u64,
}

impl Asking {
    fn start(
        (name, credential): (String, Credential),
        listen: std::net::SocketAddr,
        base: Instant,
    ) -> Outcome<Self> {
        let target = Target::new(listen, client(credential, Speaks::Http1)?);
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(ask_on(target, Arc::clone(&seen), Arc::clone(&stop), base));
        Ok(Self {
            name,
            seen,
            stop,
            task,
        })
    }

    async fn stop(self) -> Outcome<Summary> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?;
        Ok(Summary {
            last_allowed_ns: self.seen.last_allowed_ns.load(Ordering::Relaxed),
            turned_away: self.seen.turned_away.load(Ordering::Relaxed),
        })
    }
}

async fn ask_on(target: Target, seen: Arc<Seen>, stop: Arc<AtomicBool>, base: Instant) {
    while !stop.load(Ordering::Relaxed) {
        // Being turned away is what is measured; it is counted, and tried again.
        if let Ok(mut connection) = Connection::open(&target).await {
            while let Ok(200) = connection.ask(&target.request).await {
                let now = u64::try_from(base.elapsed().as_nanos()).unwrap_or(u64::MAX);
                seen.last_allowed_ns.store(now, Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
        seen.turned_away.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(RETRY).await;
    }
}

fn section(done: &[Revocation], others: u64, busy: f64) -> Section {
    let mut section = Section::new("Revocation");
    section.say(format!(
        "{AGENTS} agents send requests without a pause over kept-alive connections; {} of them \
         are revoked one after the other, each replaced by a new one. Times are from sending the \
         call to revoke. A revoked agent goes on trying, with new connections, for {} ms after \
         the acknowledgement. The enforcer has a core of its own ({:.0} % used), the authority \
         shares the other with the load.",
        done.len(),
        AFTERWARDS.as_millis(),
        100.0 * busy,
    ));
    let mut table = Table::new(&["ms", "p50", "p99", "worst"]);
    let of = |field: fn(&Revocation) -> f64| done.iter().map(field).collect::<Vec<_>>();
    let rows = [
        ("last allowed answer seen", of(|one| one.last_allowed)),
        (
            "the same, after the acknowledgement",
            of(|one| one.allowed_afterwards),
        ),
        ("acknowledged to the caller", of(|one| one.acknowledged)),
        (
            "durable to in force, by the authority",
            of(|one| one.in_force),
        ),
    ];
    for (name, values) in &rows {
        let worst = values.iter().copied().fold(0.0, f64::max);
        table.row(&[
            (*name).to_owned(),
            number(percentile(values, P50)),
            number(percentile(values, P99)),
            number(worst),
        ]);
    }
    section.table(table);
    section.say(format!(
        "Requests or connections of other agents that failed meanwhile: {others}."
    ));
    if let Some((_, last)) = rows.first() {
        let bar = Bound::AtMost(50.0);
        section.bar(Bar::new(
            "revoke → last allow, p99",
            percentile(last, P99),
            bar,
            "ms",
        ));
    }
    section
}
