//! nginx, haproxy, the enforcer and the floors under the same load, in turns.

use std::thread;
use std::time::Duration;

use crate::Outcome;
use crate::connections::Target;
use crate::load::{Round, Shape, Window, await_serving, open_idle, round};
use crate::peers::{Peer, Shared, Side};
use crate::report::{Bar, Bound, Section, Table, number};
use crate::stats::{median, median_of, spread_percent};
use crate::tls::{Credential, Speaks, client};

/// How much of everything.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// Rounds of which medians are taken.
    pub(crate) rounds: usize,
    /// Of kept-alive requests.
    pub(crate) kept_alive: Window,
    /// Of new connections.
    pub(crate) connecting: Window,
    /// Idle connections for the memory figure.
    pub(crate) idle: usize,
}

/// Connections of the main load.
const CONNECTIONS: usize = 64;
/// Connections that are being made at a time.
const CONNECTING: usize = 32;

/// Everything measured of one side.
struct Measured {
    side: Side,
    busy: Vec<Round>,
    alone: Vec<Round>,
    handshakes: Vec<Round>,
    asking: Vec<Round>,
    resident_kib: Vec<f64>,
    per_idle_kib: Vec<f64>,
}

/// Runs the comparison.
pub(crate) async fn compare(
    shared: &Shared<'_>,
    agent: Credential,
    plan: Plan,
) -> Outcome<Section> {
    let tls = client(agent, Speaks::Http1)?;
    let mut all: Vec<Measured> = Side::ALL.into_iter().map(Measured::new).collect();
    for turn in 0..plan.rounds.min(3) {
        for measured in &mut all {
            eprintln!("memory, round {turn}: {}", measured.side.name());
            let peer = shared.start(measured.side)?;
            let target = Target::new(peer.addr, tls.clone());
            await_serving(&target).await?;
            measured.idle(&peer, &target, plan.idle).await?;
            peer.process.stop()?;
        }
    }
    let mut peers = Vec::new();
    for side in Side::ALL {
        let peer = shared.start(side)?;
        await_serving(&Target::new(peer.addr, tls.clone())).await?;
        peers.push(peer);
    }
    for turn in 0..plan.rounds {
        for (peer, measured) in peers.iter().zip(&mut all) {
            eprintln!("load, round {turn}: {}", peer.side.name());
            let target = Target::new(peer.addr, tls.clone());
            measured.load(peer, &target, plan).await?;
        }
    }
    for peer in peers {
        peer.process.stop()?;
    }
    Ok(section(&all, plan))
}

impl Measured {
    fn new(side: Side) -> Self {
        let (busy, alone, handshakes, asking) = (vec![], vec![], vec![], vec![]);
        let (resident_kib, per_idle_kib) = (vec![], vec![]);
        Self {
            side,
            busy,
            alone,
            handshakes,
            asking,
            resident_kib,
            per_idle_kib,
        }
    }

    /// Memory of a freshly started process before and with many idle connections.
    async fn idle(&mut self, peer: &Peer, target: &Target, count: usize) -> Outcome<()> {
        // What the first connections allocate once belongs to the program, not to a connection.
        drop(open_idle(target, CONNECTIONS).await?);
        thread::sleep(Duration::from_millis(300));
        let before = peer.process.resident_kib()? as f64;
        let idle = open_idle(target, count).await?;
        thread::sleep(Duration::from_millis(2500));
        let after = peer.process.resident_kib()? as f64;
        self.resident_kib.push(before);
        self.per_idle_kib.push((after - before) / idle.len() as f64);
        Ok(())
    }

    async fn load(&mut self, peer: &Peer, target: &Target, plan: Plan) -> Outcome<()> {
        let server = peer.process.id();
        let (kept, making) = (plan.kept_alive, plan.connecting);
        self.busy
            .push(round(target, server, Shape::KeptAlive, CONNECTIONS, kept).await?);
        self.alone
            .push(round(target, server, Shape::KeptAlive, 1, making).await?);
        self.handshakes
            .push(round(target, server, Shape::Handshake, CONNECTING, making).await?);
        self.asking
            .push(round(target, server, Shape::ConnectAndAsk, CONNECTING, making).await?);
        Ok(())
    }

    fn requests(&self) -> f64 {
        median_of(&self.busy, |round| round.rate)
    }

    fn handshakes(&self) -> f64 {
        median_of(&self.handshakes, |round| round.rate)
    }
}

fn section(all: &[Measured], plan: Plan) -> Section {
    let mut section = Section::new("Proxies");
    section.say(format!(
        "Mutual TLS 1.3 with the same certificates, no resumption, HTTP/1.1 to the same upstream, \
         a GET answered with 1 KB. {CONNECTIONS} kept-alive connections unless stated, \
         {CONNECTING} connections being made at a time, {} rounds. nginx and haproxy verify the \
         client's chain and log nothing; the enforcer does everything: verdicts, a durable record \
         for each request, a signature on each answer; with its log in memory (tmpfs) it does the same \
         but for the disk. An idle connection has answered one \
         request, 2.5 s ago. \"Core\" is the share of its core that the \
         server used; \"±\" is half the distance between the best and the worst round.",
        plan.rounds
    ));
    let nginx = find(all, Side::Nginx);
    section.table(requests(all, nginx));
    section.table(connecting(all, nginx));
    bars(&mut section, all);
    section
}

fn find(all: &[Measured], side: Side) -> Option<&Measured> {
    all.iter().find(|measured| measured.side == side)
}

fn requests(all: &[Measured], nginx: Option<&Measured>) -> Table {
    let mut table = Table::new(&[
        "kept alive",
        "requests/s",
        "±",
        "× nginx",
        "CPU µs",
        "core",
        "p50 µs",
        "p99 µs",
        "1 conn. p50 µs",
        "1 conn. p99 µs",
    ]);
    let base = nginx.map_or(f64::NAN, Measured::requests);
    for side in all {
        let rates: Vec<f64> = side.busy.iter().map(|round| round.rate).collect();
        table.row(&[
            side.side.name().to_owned(),
            number(side.requests()),
            format!("{:.0} %", spread_percent(&rates)),
            number(side.requests() / base),
            number(median_of(&side.busy, |round| round.cpu_us)),
            format!("{:.0} %", 100.0 * median_of(&side.busy, |round| round.busy)),
            number(median_of(&side.busy, |round| round.p50_us)),
            number(median_of(&side.busy, |round| round.p99_us)),
            number(median_of(&side.alone, |round| round.p50_us)),
            number(median_of(&side.alone, |round| round.p99_us)),
        ]);
    }
    table
}

fn connecting(all: &[Measured], nginx: Option<&Measured>) -> Table {
    let mut table = Table::new(&[
        "connections",
        "handshakes/s",
        "± ",
        "× nginx",
        "CPU µs",
        "core",
        "with one request/s",
        "RSS MiB",
        "KiB per idle connection",
    ]);
    let base = nginx.map_or(f64::NAN, Measured::handshakes);
    for side in all {
        let rates: Vec<f64> = side.handshakes.iter().map(|round| round.rate).collect();
        table.row(&[
            side.side.name().to_owned(),
            number(side.handshakes()),
            format!("{:.0} %", spread_percent(&rates)),
            number(side.handshakes() / base),
            number(median_of(&side.handshakes, |round| round.cpu_us)),
            format!(
                "{:.0} %",
                100.0 * median_of(&side.handshakes, |round| round.busy)
            ),
            number(median_of(&side.asking, |round| round.rate)),
            number(median(&side.resident_kib) / 1024.0),
            number(median(&side.per_idle_kib)),
        ]);
    }
    table
}

fn bars(section: &mut Section, all: &[Measured]) {
    let sides = (
        find(all, Side::Enforcer),
        find(all, Side::Nginx),
        find(all, Side::Signing),
    );
    let (Some(ours), Some(nginx), Some(signing)) = sides else {
        return;
    };
    let against_nginx = ours.requests() / nginx.requests();
    let what = "enforcer, everything on, requests/s";
    let bar = Bar::new(what, against_nginx, Bound::AtLeast(0.45), "× nginx");
    section.bar(bar.aiming(0.6));
    let against_floor = ours.requests() / signing.requests();
    let bar = Bar::new(what, against_floor, Bound::AtLeast(0.7), "× signing floor");
    section.bar(bar.aiming(0.9));
    let handshakes = ours.handshakes() / nginx.handshakes();
    let what = "enforcer, full handshakes/s";
    section.bar(Bar::new(what, handshakes, Bound::AtLeast(3.0), "× nginx"));
    let idle = median(&ours.per_idle_kib);
    section.bar(Bar::new(
        "enforcer, idle connection",
        idle,
        Bound::AtMost(30.0),
        "KiB",
    ));
}
