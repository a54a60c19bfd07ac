//! Answers of unknown or great length, passed on piece by piece.
//!
//! The decision's record is durable before the head leaves; the outcome's record follows the last
//! piece. A stream that breaks off, from either side, never ends cleanly: its body gives an error,
//! on which HTTP/1 closes without the last chunk and HTTP/2 resets.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;

use crate::gate::Call;
use crate::record::{Ended, Ledger};
use crate::session::Running;
use crate::timers::Timer;
use crate::upstream::{Link, Pool, Target, UpstreamLimits};

/// A running stream.
#[derive(Debug)]
pub(crate) struct StreamBody {
    /// `None` once the upstream has ended.
    source: Option<Source>,
    length: Option<u64>,
    timer: Timer,
    pause: Duration,
    /// Its drop records how a stream ended that was cut.
    ledger: Ledger,
    _call: Call,
    _running: Running,
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
            source: Some(source),
            length,
            timer,
            pause,
            ledger,
            _call: call,
            _running: running,
        }
    }

    /// The whole length, when the upstream told it.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next piece.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            let Some(source) = &mut self.source else {
                return Poll::Ready(None);
            };
            match source.link.poll_frame(&mut source.body, cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers of plain HTTP are not passed on.
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    self.ledger.passed(&data);
                    self.timer.restart(self.pause);
                    return Poll::Ready(Some(Ok(data)));
                }
                Poll::Ready(None) => {
                    self.end(Ended::Complete);
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(_))) => {
                    self.end(Ended::UpstreamFailed);
                    return Poll::Ready(Some(Err(Broken)));
                }
                Poll::Pending => {
                    if self.timer.poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.end(Ended::TimedOut);
                    return Poll::Ready(Some(Err(Broken)));
                }
            }
        }
    }

    fn end(&mut self, ended: Ended) {
        let Some(source) = self.source.take() else {
            return;
        };
        if ended == Ended::Complete {
            source
                .pool
                .put_back(&source.target, source.link, &source.limits);
        }
        self.ledger.end(ended);
    }
}
