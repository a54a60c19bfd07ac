//! Load at a given rate: requests leave when they are due, whether or not earlier ones were answered.
//!
//! The runtime's timers count milliseconds, so a thread of its own keeps the time. A request's
//! latency counts from that thread's word, so that waiting for a free connection is part of it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::connections::{Connection, Target};
use crate::load::{Window, ask};
use crate::stats::{P50, P99, percentile};

/// One round at a given rate.
pub(crate) struct Paced {
    /// Answers a second.
    pub(crate) rate: f64,
    /// Median latency in µs.
    pub(crate) p50_us: f64,
    /// 99th percentile in µs.
    pub(crate) p99_us: f64,
}

/// Sends `rate` requests a second, evenly, over at most `connections` connections.
pub(crate) async fn paced(
    target: &Target,
    rate: f64,
    connections: usize,
    window: Window,
) -> Outcome<Paced> {
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut connection = Connection::open(target).await?;
        ask(&mut connection, target).await?;
        open.push(connection);
    }
    let (sender, due) = unbounded_channel();
    let due = Arc::new(Mutex::new(due));
    let from = Instant::now() + window.warm;
    let clock = thread::spawn(move || keep_time(&sender, rate, window));
    let mut tasks = JoinSet::new();
    for connection in open {
        tasks.spawn(worker(connection, target.clone(), Arc::clone(&due), from));
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    clock
        .join()
        .map_err(|_| "the thread that keeps the time failed")?;
    if latencies.is_empty() {
        return Err("no answer in a whole round".into());
    }
    Ok(Paced {
        rate: latencies.len() as f64 / window.measure.as_secs_f64(),
        p50_us: percentile(&latencies, P50),
        p99_us: percentile(&latencies, P99),
    })
}

/// Says when each request is to leave; late once, it catches up.
fn keep_time(sender: &UnboundedSender<Instant>, rate: f64, window: Window) {
    let (start, whole) = (Instant::now(), window.warm + window.measure);
    let mut sent = 0.0;
    loop {
        let at = Duration::from_secs_f64(sent / rate);
        if at >= whole {
            return;
        }
        thread::sleep(at.saturating_sub(start.elapsed()));
        if sender.send(Instant::now()).is_err() {
            return;
        }
        sent += 1.0;
    }
}

/// Takes what is due next, until nothing will be.
async fn worker(
    mut connection: Connection,
    target: Target,
    due: Arc<Mutex<UnboundedReceiver<Instant>>>,
    from: Instant,
) -> Outcome<Vec<f64>> {
    let mut latencies = Vec::with_capacity(1 << 12);
    loop {
        let next = due.lock().await.recv().await;
        let Some(left) = next else {
            return Ok(latencies);
        };
        ask(&mut connection, &target).await?;
        if left >= from {
            latencies.push(left.elapsed().as_secs_f64() * 1e6);
        }
    }
}
