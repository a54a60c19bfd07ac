//! The write gate: nothing leaves a connection but what our service answers (ARCHITECTURE.md, promise 4).
//!
//! The HTTP/1 library answers by itself what it cannot parse (400, 414, 431). Such an answer is
//! neither recorded nor signed, so it must not leave: [`Gate`] stands between the library and TLS,
//! is shut unless a call of our service is being answered, and a write against the shut gate ends
//! the connection. HTTP/2 has no such answers but the bare 431 of a head far above the limit; its gate is
//! always open and only watched.
//!
//! The gate also keeps the connection's timers: it alone sees the first byte of a head and a client
//! that stops reading. Of a client that leaves single streams unread [`Outflow`] tells.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::head_scan::{HeadScan, Shape};
use crate::outflow::{Outflow, Piece};
use crate::timers::Timers;

/// A connection's I/O with the gate in it.
#[derive(Debug)]
pub(crate) struct Gate<S> {
    io: S,
    traffic: Rc<Traffic>,
}

impl<S> Gate<S> {
    pub(crate) fn new(io: S, traffic: Rc<Traffic>) -> Self {
        Self { io, traffic }
    }

    pub(crate) fn into_inner(self) -> S {
        self.io
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.io
    }
}

/// What goes on on a connection: shared by its gate, its service and its bodies.
#[derive(Debug)]
pub(crate) struct Traffic {
    timers: Rc<Timers>,
    protocol: Protocol,
    door: Cell<Door>,
    /// Calls being answered: at most one in HTTP/1, the open streams in HTTP/2.
    calls: Cell<usize>,
    /// Since when the connection is in its present phase.
    since: Cell<Instant>,
    /// Since when the client takes nothing.
    stalled: Cell<Option<Instant>>,
    /// An answer was given before the request's body was read.
    unread: Cell<bool>,
    scan: RefCell<HeadScan>,
    /// The answer of the call that began last, until the library gives its stream to the runtime.
    begun: RefCell<Option<Rc<Outflow>>>,
    /// Short answers that are over for us, and of which the library still holds something.
    left_behind: RefCell<Vec<Rc<Outflow>>>,
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Shut,
    Open,
    /// The answer's body has ended; what is buffered still has to leave.
    Closing,
}

/// How long a connection may stay in a phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhaseLimits {
    /// Without a request.
    pub(crate) idle: Duration,
    /// From a head's first byte to its last.
    pub(crate) header: Duration,
    /// With a client that takes nothing of its answer.
    pub(crate) stall: Duration,
}

impl Traffic {
    pub(crate) fn new(protocol: Protocol, timers: Rc<Timers>) -> Rc<Self> {
        Rc::new(Self {
            since: Cell::new(timers.now()),
            timers,
            protocol,
            door: Cell::new(Door::Shut),
            calls: Cell::new(0),
            stalled: Cell::new(None),
            unread: Cell::new(false),
            scan: RefCell::default(),
            begun: RefCell::default(),
            left_behind: RefCell::default(),
        })
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The service was called: opens the gate until the answer that holds the returned [`Call`] is
    /// written. Says what the head looked like before the library read it.
    pub(crate) fn call(self: &Rc<Self>) -> (Call, Shape) {
        self.calls.set(self.calls.get() + 1);
        self.door.set(Door::Open);
        let (shape, outflow) = match self.protocol {
            Protocol::Http1 => (self.scan.borrow_mut().take(), None),
            Protocol::Http2 => (Shape::Plain, Some(Outflow::new(&self.timers))),
        };
        self.begun.borrow_mut().clone_from(&outflow);
        let call = Call {
            traffic: Rc::clone(self),
            outflow,
        };
        (call, shape)
    }

    /// What the call that began last sends; the library asks for its stream's runtime right after the
    /// call.
    pub(crate) fn begun(&self) -> Option<Rc<Outflow>> {
        self.begun.borrow_mut().take()
    }

    /// An answer is given while the request's body was not read to its end.
    pub(crate) fn leave_unread(&self) {
        self.unread.set(true);
    }

    /// Whether a body was left unread: the rest has to be drained before the connection closes, or
    /// the client's system throws the answer away.
    pub(crate) fn unread(&self) -> bool {
        self.unread.get()
    }

    /// Whether the connection can take no further request after the present one.
    pub(crate) fn closes(&self) -> bool {
        self.protocol == Protocol::Http1 && self.scan.borrow().closes()
    }

    /// Whether no call is being answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.calls.get() == 0
    }

    /// Whether a head has begun and not ended.
    pub(crate) fn is_in_head(&self) -> bool {
        self.protocol == Protocol::Http1 && self.scan.borrow().is_in_head()
    }

    /// Since when nothing goes on: no call, no head, nothing left to write. HTTP/1 only.
    pub(crate) fn quiet_since(&self) -> Option<Instant> {
        let quiet = self.is_idle() && !self.is_in_head() && self.door.get() == Door::Shut;
        quiet.then(|| self.since.get())
    }

    /// When the present phase has lasted too long.
    pub(crate) fn deadline(&self, limits: &PhaseLimits) -> Option<Instant> {
        let stalled = [self.stalled.get(), self.left_behind_since()];
        let stall = stalled.into_iter().flatten().min();
        let stall = stall.and_then(|since| since.checked_add(limits.stall));
        let phase = if self.calls.get() > 0 {
            None
        } else if self.is_in_head() {
            self.since.get().checked_add(limits.header)
        } else {
            self.since.get().checked_add(limits.idle)
        };
        match (stall, phase) {
            (Some(stall), Some(phase)) => Some(stall.min(phase)),
            (one, other) => one.or(other),
        }
    }

    fn left_behind_since(&self) -> Option<Instant> {
        let mut left_behind = self.left_behind.borrow_mut();
        left_behind.retain(|outflow| outflow.waits_since().is_some());
        left_behind
            .iter()
            .filter_map(|outflow| outflow.waits_since())
            .min()
    }

    fn answered(&self, outflow: Option<Rc<Outflow>>) {
        if let Some(outflow) = outflow.filter(|outflow| outflow.waits_since().is_some()) {
            self.left_behind.borrow_mut().push(outflow);
        }
        self.calls.set(self.calls.get().saturating_sub(1));
        self.since.set(self.timers.now());
        if self.protocol == Protocol::Http1 {
            self.door.set(Door::Closing);
        }
    }

    fn received(&self, bytes: &[u8]) {
        if self.protocol == Protocol::Http2 || bytes.is_empty() {
            return;
        }
        let mut scan = self.scan.borrow_mut();
        let begins = !scan.is_in_head();
        scan.feed(bytes);
        if begins && self.calls.get() == 0 {
            self.since.set(self.timers.now());
        }
    }

    fn may_write(&self) -> bool {
        self.protocol == Protocol::Http2 || self.door.get() != Door::Shut
    }

    fn wrote(&self, stalled: bool) {
        match (stalled, self.stalled.get()) {
            (true, None) => self.stalled.set(Some(self.timers.now())),
            (false, Some(_)) => self.stalled.set(None),
            _ => {}
        }
    }

    fn flushed(&self) {
        if self.door.get() == Door::Closing {
            self.door.set(Door::Shut);
        }
    }
}

/// One call of our service; dropped when its answer's body has ended or was given up.
#[derive(Debug)]
pub(crate) struct Call {
    traffic: Rc<Traffic>,
    outflow: Option<Rc<Outflow>>,
}

impl Call {
    /// Takes off `bytes` what is handed to the library at once.
    pub(crate) fn piece(&self, bytes: &mut Bytes) -> Piece {
        match &self.outflow {
            None => Piece::unwatched(std::mem::take(bytes)),
            Some(outflow) => outflow.piece(bytes),
        }
    }

    /// Ready once everything handed over has left; over HTTP/1 at once.
    pub(crate) fn poll_left(&self, cx: &Context<'_>) -> Poll<()> {
        self.outflow
            .as_ref()
            .map_or(Poll::Ready(()), |outflow| outflow.poll_left(cx))
    }

    /// Whether the library's hold on the answer is watched: its end is told apart, once it has left.
    pub(crate) fn is_watched(&self) -> bool {
        self.outflow.is_some()
    }

    /// Whether the stream was given up because its client took nothing.
    pub(crate) fn stalled(&self) -> bool {
        self.outflow
            .as_ref()
            .is_some_and(|outflow| outflow.stalled())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.traffic.answered(self.outflow.take());
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = &result {
            self.traffic
                .received(buf.filled().get(before..).unwrap_or_default());
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.traffic.may_write() {
            return Poll::Ready(Err(shut()));
        }
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.traffic.wrote(result.is_pending());
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.traffic.may_write() {
            return Poll::Ready(Err(shut()));
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.traffic.wrote(result.is_pending());
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.traffic.wrote(result.is_pending());
        if let Poll::Ready(Ok(())) = &result {
            self.traffic.flushed();
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn shut() -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        "not an answer of our service",
    )
}

#[cfg(test)]
mod tests;
