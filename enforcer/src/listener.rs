//! Accepting connections, and letting them go.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::connection;
use crate::timers::TICK;
use crate::worker::Worker;

/// Accepts until `stop`, then waits for what is open, at most for `drain_timeout`.
pub(crate) async fn run(
    worker: Rc<Worker>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) {
    let mut stopping = std::pin::pin!(async move {
        // An error means that whoever could stop us is gone: stop as well.
        let _asked = stop.wait_for(|stop| *stop).await;
    });
    loop {
        tokio::select! {
            () = &mut stopping => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => take(&worker, stream, from),
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    drain(&worker).await;
}

fn take(worker: &Rc<Worker>, stream: TcpStream, from: std::net::SocketAddr) {
    let most = worker.shared.live.load().config().limits.max_connections;
    let most = most.min(worker.shared.connections_max);
    let Some(place) = Place::take(worker, most) else {
        worker.turn_away("too many connections: some were closed", &from);
        return;
    };
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let _place = place;
        connection::run(worker, stream, from).await;
    });
}

async fn drain(worker: &Worker) {
    let timeout = worker.shared.live.load().config().limits.drain_timeout;
    worker.draining.set(true);
    worker.timers.wake_all();
    let deadline = tokio::time::Instant::now() + timeout;
    while worker.connections.get() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(TICK).await;
    }
}

/// A connection's place among those that may be open.
struct Place {
    worker: Rc<Worker>,
}

impl Place {
    fn take(worker: &Rc<Worker>, most: usize) -> Option<Self> {
        let open = worker.shared.connections.fetch_add(1, Ordering::Relaxed);
        worker.connections.set(worker.connections.get() + 1);
        let place = Self {
            worker: Rc::clone(worker),
        };
        (open < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker
            .shared
            .connections
            .fetch_sub(1, Ordering::Relaxed);
        self.worker
            .connections
            .set(self.worker.connections.get().saturating_sub(1));
    }
}

const PAUSE: Duration = Duration::from_millis(50);
