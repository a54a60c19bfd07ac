//! Everything that can end a connection.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::drivers::Driver;
use crate::config::Limits;
use crate::gate::PhaseLimits;
use crate::record::Ended;
use crate::session::Session;
use crate::timers::{TICK, Timer};

/// How a connection was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Everything that was begun was answered.
    Cleanly,
    /// It was cut, or broke.
    Cut,
}

/// Drives a connection until it is over, its agent loses rights, its certificate ends or it takes
/// too long. What still runs is dropped by the caller, and recorded by that drop.
pub(super) async fn supervise(session: &Session, limits: &Limits, driver: impl Driver) -> Over {
    let over = drive(session, limits, driver).await;
    session.is_over();
    over
}

async fn drive(session: &Session, limits: &Limits, mut driver: impl Driver) -> Over {
    let mut cancelled = pin!(session.peer.watch().cancelled());
    let mut clock = Deadlines::new(session, limits);
    let mut winding_down = false;
    let mut staleness = session.worker.staleness();
    poll_fn(move |cx| {
        if staleness != session.worker.staleness() {
            // Calls that have not begun are denied on their road; what runs cannot go on.
            staleness = session.worker.staleness();
            if session.has_streams() {
                session.cut(Ended::Stale);
                return Poll::Ready(Over::Cut);
            }
        }
        if cancelled.as_mut().poll(cx).is_ready() {
            session.cut_by_status();
            return Poll::Ready(Over::Cut);
        }
        loop {
            if session.is_flooded() {
                return Poll::Ready(Over::Cut);
            }
            match driver.poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Over::Cleanly),
                Poll::Ready(Err(error)) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "connection ended");
                    if is_flood(&error) {
                        session.flooded("frames without end, or streams reset at once");
                    }
                    return Poll::Ready(Over::Cut);
                }
                Poll::Pending => {}
            }
            let wind_down = match clock.poll(session, driver.can_rest(), cx) {
                Poll::Ready(Late::Quiet) => {
                    driver.rest();
                    continue;
                }
                Poll::Ready(Late::Cut(why)) => {
                    session.cut(why);
                    return Poll::Ready(Over::Cut);
                }
                Poll::Ready(Late::Idle) => true,
                Poll::Pending => session.worker.draining.get(),
            };
            if !wind_down || winding_down {
                return Poll::Pending;
            }
            winding_down = true;
            driver.wind_down();
        }
    })
    .await
}

/// Whether the library ended the connection for what its client did.
fn is_flood(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &h2::Error| {
        cause.is_library() && cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
    })
}

/// The deadlines of a connection on one timer.
struct Deadlines {
    timer: Timer,
    phases: PhaseLimits,
    /// Given to an idle connection to say goodbye.
    farewell: Option<Instant>,
}

enum Late {
    /// Nothing goes on, but not for long enough to end it.
    Quiet,
    Idle,
    Cut(Ended),
}

impl Deadlines {
    fn new(session: &Session, limits: &Limits) -> Self {
        Self {
            timer: session.worker.timers.timer(),
            phases: PhaseLimits {
                idle: limits.idle_timeout,
                header: limits.header_timeout,
                stall: limits.idle_timeout,
            },
            farewell: None,
        }
    }

    fn poll(&mut self, session: &Session, can_rest: bool, cx: &mut Context<'_>) -> Poll<Late> {
        let now = session.worker.timers.now();
        let expires = session.expires();
        let phase = self
            .farewell
            .or_else(|| session.traffic.deadline(&self.phases));
        let quiet = Some(QUIET).filter(|_| can_rest);
        let quiet = quiet.and_then(|quiet| session.traffic.quiet_since()?.checked_add(quiet));
        let next = [phase, quiet]
            .into_iter()
            .flatten()
            .fold(expires, Instant::min);
        self.timer.set(Some(next));
        if self.timer.poll(cx).is_pending() {
            return Poll::Pending;
        }
        if quiet.is_some_and(|quiet| quiet <= now) {
            return Poll::Ready(Late::Quiet);
        }
        if expires <= now && session.is_expired() {
            return Poll::Ready(Late::Cut(Ended::Expired));
        }
        if phase.is_none_or(|phase| phase > now) {
            // The clocks differ by less than a tick: look again then.
            self.timer.set(now.checked_add(TICK));
            return self.timer.poll(cx).map(|()| Late::Cut(Ended::Expired));
        }
        if self.farewell.is_none() && session.traffic.is_idle() && !session.traffic.is_in_head() {
            self.farewell = now.checked_add(FAREWELL);
            self.timer.set(self.farewell);
            let _later = self.timer.poll(cx);
            return Poll::Ready(Late::Idle);
        }
        Poll::Ready(Late::Cut(Ended::TimedOut))
    }
}

/// How long an idle connection keeps its buffers.
const QUIET: Duration = Duration::from_secs(1);
const FAREWELL: Duration = Duration::from_secs(2);
