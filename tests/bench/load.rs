//! The load generator: kept-alive requests, new connections, idle connections.
//!
//! It runs on one core beside the upstream and is made to cost far less than what it measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Outcome;
use crate::connections::{Connection, Target};
use crate::process::cpu_ns;
use crate::stats::{P50, P99, percentile};

/// How long to run before counting, and how long to count.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    /// Connections open and caches fill.
    pub(crate) warm: Duration,
    /// What is counted.
    pub(crate) measure: Duration,
}

/// One round of requests or connections against one server.
pub(crate) struct Round {
    /// Requests (or connections) a second.
    pub(crate) rate: f64,
    /// CPU of the server for each, in µs.
    pub(crate) cpu_us: f64,
    /// Share of its core that the server used.
    pub(crate) busy: f64,
    /// Median latency in µs.
    pub(crate) p50_us: f64,
    /// 99th percentile in µs.
    pub(crate) p99_us: f64,
}

/// What each connection of the load does over and over.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Shape {
    /// Requests, one after the other, on a connection kept alive.
    KeptAlive,
    /// A full handshake and a clean end, nothing else.
    Handshake,
    /// A full handshake, one request, a clean end.
    ConnectAndAsk,
}

const WARM: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

/// Runs `connections` loops of `shape` against the process `server` and counts inside the window.
pub(crate) async fn round(
    target: &Target,
    server: u32,
    shape: Shape,
    connections: usize,
    window: Window,
) -> Outcome<Round> {
    let phase = Arc::new(AtomicU8::new(WARM));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(worker(target.clone(), shape, Arc::clone(&phase)));
    }
    tokio::time::sleep(window.warm).await;
    let (cpu_before, start) = (cpu_ns(server)?, Instant::now());
    phase.store(MEASURE, Ordering::Relaxed);
    tokio::time::sleep(window.measure).await;
    phase.store(STOP, Ordering::Relaxed);
    let (cpu, elapsed) = (cpu_ns(server)? - cpu_before, start.elapsed());
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    summarise(&latencies, cpu, elapsed)
}

fn summarise(latencies: &[f64], cpu_ns: u64, elapsed: Duration) -> Outcome<Round> {
    if latencies.is_empty() {
        return Err("no answer in a whole round".into());
    }
    let count = latencies.len() as f64;
    Ok(Round {
        rate: count / elapsed.as_secs_f64(),
        cpu_us: cpu_ns as f64 / 1000.0 / count,
        busy: cpu_ns as f64 / 1e9 / elapsed.as_secs_f64(),
        p50_us: percentile(latencies, P50),
        p99_us: percentile(latencies, P99),
    })
}

async fn worker(target: Target, shape: Shape, phase: Arc<AtomicU8>) -> Outcome<Vec<f64>> {
    let mut latencies = Vec::with_capacity(1 << 12);
    let mut kept = match shape {
        Shape::KeptAlive => Some(Connection::open(&target).await?),
        Shape::Handshake | Shape::ConnectAndAsk => None,
    };
    let mut before = Instant::now();
    loop {
        step(&target, shape, kept.as_mut()).await?;
        let now = Instant::now();
        match phase.load(Ordering::Relaxed) {
            WARM => {}
            MEASURE => latencies.push((now - before).as_secs_f64() * 1e6),
            _ => return Ok(latencies),
        }
        before = now;
    }
}

async fn step(target: &Target, shape: Shape, kept: Option<&mut Connection>) -> Outcome<()> {
    match (shape, kept) {
        (Shape::KeptAlive, Some(connection)) => ask(connection, target).await,
        (Shape::Handshake, _) => Connection::open(target).await?.close_both_ways().await,
        (Shape::ConnectAndAsk | Shape::KeptAlive, _) => {
            let mut connection = Connection::open(target).await?;
            ask(&mut connection, target).await?;
            connection.close_both_ways().await
        }
    }
}

/// Opens `count` connections, asks once on each, and keeps them open and idle.
pub(crate) async fn open_idle(target: &Target, count: usize) -> Outcome<Vec<Connection>> {
    let mut idle = Vec::with_capacity(count);
    let mut opening = JoinSet::new();
    let mut left = count;
    while left > 0 || !opening.is_empty() {
        while left > 0 && opening.len() < 32 {
            left -= 1;
            let target = target.clone();
            opening.spawn(async move {
                let mut connection = Connection::open(&target).await?;
                ask(&mut connection, &target).await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(connection)
            });
        }
        if let Some(opened) = opening.join_next().await {
            idle.push(opened??);
        }
    }
    Ok(idle)
}

/// Asks, with new connections, until the server answers as it should: an enforcer listens before its
/// feed is verified.
pub(crate) async fn await_serving(target: &Target) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let tried = async {
            let mut connection = Connection::open(target).await?;
            ask(&mut connection, target).await
        };
        match tried.await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Asks and insists on the answer that is expected.
pub(crate) async fn ask(connection: &mut Connection, target: &Target) -> Outcome<()> {
    let status = connection.ask(&target.request).await?;
    if status != 200 {
        return Err(format!("{} answered {status}", target.addr).into());
    }
    let length = connection.body().len();
    match target.body_length {
        Some(expected) if expected != length => {
            let said: String = String::from_utf8_lossy(connection.body())
                .chars()
                .take(400)
                .collect();
            Err(format!("{} answered something else: {said}", target.addr).into())
        }
        _ => Ok(()),
    }
}
