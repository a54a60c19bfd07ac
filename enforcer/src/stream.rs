//! Answers of unknown or great length, passed on piece by piece.
//!
//! The decision's record is durable before the head leaves; the outcome's record follows the last
//! piece, over HTTP/2 once it has left. A stream that breaks off, from either side, never ends cleanly:
//! its body gives an error, on which HTTP/1 closes without the last chunk and HTTP/2 resets.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::body::Incoming;

use crate::gate::Call;
use crate::outflow::Piece;
use crate::record::{Ended, Ledger};
use crate::session::Running;
use crate::timers::Timer;
use crate::upstream::{Link, Pool, Target, UpstreamLimits};

/// A running stream.
#[derive(Debug)]
pub(crate) struct StreamBody {
    phase: Phase,
    /// Came from the upstream and is not handed over.
    rest: Bytes,
    length: Option<u64>,
    timer: Timer,
    pause: Duration,
    /// Its drop records how a stream ended that was cut.
    ledger: Ledger,
    call: Call,
    _running: Running,
}

#[derive(Debug)]
enum Phase {
    /// More may come from the upstream.
    Running(Source),
    /// Everything came; not all of it has left.
    Leaving,
    /// The outcome is recorded.
    Over,
}

#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) link: Link,
    pub(crate) body: Incoming,
    pub(crate) pool: Rc<Pool>,
    pub(crate) target: Arc<Target>,
    pub(crate) limits: UpstreamLimits,
}

/// The stream broke off.
#[derive(Debug, thiserror::Error)]
#[error("the upstream broke off")]
pub(crate) struct Broken;

impl StreamBody {
    pub(crate) fn new(
        source: Source,
        timer: Timer,
        pause: Duration,
        ledger: Ledger,
        (call, running): (Call, Running),
    ) -> Self {
        let length = http_body::Body::size_hint(&source.body).exact();
        Self {
            phase: Phase::Running(source),
            rest: Bytes::new(),
            length,
            timer,
            pause,
            ledger,
            call,
            _running: running,
        }
    }

    /// The whole length, when the upstream told it.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether it ended, and that was recorded.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// The next piece.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Piece, Broken>>> {
        loop {
            if !self.rest.is_empty() {
                return Poll::Ready(Some(Ok(self.hand_over())));
            }
            let Phase::Running(source) = &mut self.phase else {
                break;
            };
            match source.link.poll_frame(&mut source.body, cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers of plain HTTP are not passed on.
                    if let Ok(data) = frame.into_data() {
                        self.timer.restart(self.pause);
                        self.rest = data;
                    }
                }
                Poll::Ready(None) => self.upstream_ended(),
                Poll::Ready(Some(Err(_))) => return self.broken(Ended::UpstreamFailed),
                Poll::Pending => {
                    ready!(self.timer.poll(cx));
                    return self.broken(Ended::TimedOut);
                }
            }
        }
        if matches!(self.phase, Phase::Leaving) {
            ready!(self.call.poll_left(cx));
            self.end(Ended::Complete);
        }
        Poll::Ready(None)
    }

    fn hand_over(&mut self) -> Piece {
        let piece = self.call.piece(&mut self.rest);
        self.ledger.passed(piece.chunk());
        // After the last byte of an answer whose length was told HTTP/1 asks for no more.
        if self.rest.is_empty()
            && self
                .length
                .is_some_and(|length| length == self.ledger.length())
        {
            self.upstream_ended();
            if !self.call.is_watched() {
                self.end(Ended::Complete);
            }
        }
        piece
    }

    fn upstream_ended(&mut self) {
        if let Phase::Running(source) = std::mem::replace(&mut self.phase, Phase::Leaving) {
            let Source {
                link,
                body: _,
                pool,
                target,
                limits,
            } = source;
            pool.put_back(&target, link, &limits);
        }
    }

    fn broken(&mut self, ended: Ended) -> Poll<Option<Result<Piece, Broken>>> {
        self.end(ended);
        Poll::Ready(Some(Err(Broken)))
    }

    fn end(&mut self, ended: Ended) {
        self.phase = Phase::Over;
        self.ledger.end(ended);
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if self.call.stalled() && !self.is_over() {
            self.end(Ended::TimedOut);
        }
    }
}
