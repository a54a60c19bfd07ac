//! What the HTTP/2 library holds of an answer, and what becomes of one that its client does not take.
//!
//! Over HTTP/1 there is one answer at a time, and the gate sees a client that takes nothing of it. Over
//! HTTP/2 a client may keep the window of one stream shut and go on with others (RFC 9113 §5.2), of
//! which the gate sees nothing. So an answer is handed to the library in pieces; its [`Outflow`] counts
//! those that have not left, and [`watched`] resets a stream of which none leaves in time.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};

use crate::timers::Timers;

/// The pieces of one answer that are with the library.
#[derive(Debug)]
pub(crate) struct Outflow {
    timers: Rc<Timers>,
    held: Cell<usize>,
    /// When a piece left last, or the first was handed over.
    since: Cell<Instant>,
    /// Waits until none is held.
    waker: RefCell<Option<Waker>>,
    stalled: Cell<bool>,
}

impl Outflow {
    pub(crate) fn new(timers: &Rc<Timers>) -> Rc<Self> {
        Rc::new(Self {
            since: Cell::new(timers.now()),
            timers: Rc::clone(timers),
            held: Cell::new(0),
            waker: RefCell::new(None),
            stalled: Cell::new(false),
        })
    }

    /// Takes a piece off `bytes`: it is held until it is dropped.
    pub(crate) fn piece(self: &Rc<Self>, bytes: &mut Bytes) -> Piece {
        if self.held.get() == 0 {
            self.since.set(self.timers.now());
        }
        self.held.set(self.held.get().saturating_add(1));
        Piece {
            bytes: bytes.split_to(bytes.len().min(PIECE)),
            outflow: Some(Rc::clone(self)),
        }
    }

    /// Ready once every piece has left.
    pub(crate) fn poll_left(&self, cx: &Context<'_>) -> Poll<()> {
        if self.held.get() == 0 {
            return Poll::Ready(());
        }
        self.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Since when pieces are held of which none has left.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        (self.held.get() > 0).then(|| self.since.get())
    }

    /// Whether the stream was given up because its client took nothing.
    pub(crate) fn stalled(&self) -> bool {
        self.stalled.get()
    }

    fn left(&self) {
        self.held.set(self.held.get().saturating_sub(1));
        self.since.set(self.timers.now());
        if self.held.get() == 0
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }
}

/// Some bytes of an answer on their way to the client.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Bytes,
    outflow: Option<Rc<Outflow>>,
}

impl Piece {
    /// Over HTTP/1, where the gate watches.
    pub(crate) fn unwatched(bytes: Bytes) -> Self {
        Self {
            bytes,
            outflow: None,
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(outflow) = &self.outflow {
            outflow.left();
        }
    }
}

/// Drives the library's side of a stream, and drops it, which resets the stream, when for `stall`
/// pieces of its answer were held of which none has left.
pub(crate) async fn watched(
    stream: impl Future<Output = ()>,
    outflow: Rc<Outflow>,
    stall: Duration,
) {
    let mut stream = pin!(stream);
    let mut timer = None;
    std::future::poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = outflow.waits_since() else {
            return Poll::Pending;
        };
        let timer = timer.get_or_insert_with(|| outflow.timers.timer());
        timer.set(since.checked_add(stall));
        timer.poll(cx).map(|()| outflow.stalled.set(true))
    })
    .await;
}

/// At most this much leaves at once: with the time that a piece has, the least that a client must take.
/// HTTP/2 frames are not larger unless a client asks for it.
const PIECE: usize = 16 << 10;

/// Whether an answer of `length` bytes is more than one piece.
pub(crate) fn is_long(length: usize) -> bool {
    length > PIECE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(outflow: &Outflow) -> bool {
        outflow
            .poll_left(&Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn bytes_are_held_until_their_pieces_are_gone() {
        let outflow = Outflow::new(&Timers::new());
        let mut bytes = Bytes::from(vec![7; PIECE + 1]);
        assert!(left(&outflow) && outflow.waits_since().is_none());
        let (first, mut second) = (outflow.piece(&mut bytes), outflow.piece(&mut bytes));
        assert_eq!((first.remaining(), second.remaining()), (PIECE, 1));
        assert!(bytes.is_empty());
        drop(first);
        second.advance(1);
        assert!(!left(&outflow) && outflow.waits_since().is_some());
        drop(second);
        assert!(left(&outflow) && outflow.waits_since().is_none());
    }
}
