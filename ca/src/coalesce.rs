//! Fewer, larger writes: what several calls answer at once leaves in one TLS record and one system
//! call.
//!
//! HTTP/2 flushes whenever one answer is ready. When a sync releases many calls, that is a write for
//! each of them, and a write costs more than signing a certificate. A flush here lets the runtime's
//! other tasks run once before it writes, so that their answers come along.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose flushes are coalesced.
#[derive(Debug)]
pub(crate) struct Coalesced<S> {
    stream: S,
    /// What was written and not passed on.
    held: Vec<u8>,
    flush: Flush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// The next one lets others run first.
    Defer,
    /// They had their turn.
    Write,
}

impl<S> Coalesced<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            held: Vec::new(),
            flush: Flush::Defer,
        }
    }
}

impl<S: AsyncWrite + Unpin> Coalesced<S> {
    fn pass_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.drain(..written);
        }
        self.held.shrink_to(KEPT);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalesced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalesced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() >= HELD {
            ready!(self.pass_on(cx))?;
        }
        self.held.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() && self.flush == Flush::Defer {
            self.flush = Flush::Write;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.pass_on(cx))?;
        self.flush = Flush::Defer;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.pass_on(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// One TLS record.
const HELD: usize = 16 << 10;
/// Capacity that is kept between bursts.
const KEPT: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn everything_arrives_in_order() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut near = Coalesced::new(near);
        let sent: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
        let reading = tokio::spawn(async move {
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.unwrap();
            received
        });
        for piece in sent.chunks(777) {
            near.write_all(piece).await.unwrap();
            if piece.len() < 777 || piece[0] % 8 == 0 {
                near.flush().await.unwrap();
            }
        }
        near.shutdown().await.unwrap();
        drop(near);
        assert_eq!(reading.await.unwrap(), sent);
    }

    #[tokio::test]
    async fn a_flush_waits_for_one_turn_and_no_longer() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut near = Coalesced::new(near);
        let polls = poll_fn(|cx| {
            let mut polls = 0;
            for piece in [b"one", b"two"] {
                assert!(Pin::new(&mut near).poll_write(cx, piece).is_ready());
                polls += usize::from(Pin::new(&mut near).poll_flush(cx).is_ready());
            }
            Poll::Ready(polls)
        });
        assert_eq!(polls.await, 1, "the first flush defers, the second writes");
        let mut both = [0; 6];
        far.read_exact(&mut both).await.unwrap();
        assert_eq!(&both, b"onetwo");
    }
}
