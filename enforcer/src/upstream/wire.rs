//! The bytes of a connection to an upstream: none leaves for an agent that has lost its rights.
//!
//! The library writes when it is polled, whoever polls it. So the last look is taken here, under it:
//! every write is on behalf of the session whose request is being sent, and fails once that one is cut.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::session::Session;

/// A connection's I/O as the library has it.
#[derive(Debug)]
pub(super) struct Wire {
    tcp: TcpStream,
    sending: Rc<Sending>,
}

/// For whom a connection is used, and how far it came.
#[derive(Debug, Default)]
pub(super) struct Sending {
    session: RefCell<Option<Rc<Session>>>,
    /// The library has bytes that the system did not take.
    behind: Cell<bool>,
}

impl Wire {
    pub(super) fn new(tcp: TcpStream) -> (Self, Rc<Sending>) {
        let sending = Rc::default();
        let theirs = Rc::clone(&sending);
        (
            Self {
                tcp,
                sending: theirs,
            },
            sending,
        )
    }

    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.sending.behind.set(polled.is_pending());
        polled
    }
}

impl Sending {
    /// From here on bytes leave for `session`.
    pub(super) fn begin(&self, session: &Rc<Session>) {
        self.session.replace(Some(Rc::clone(session)));
    }

    /// From here on for nobody.
    pub(super) fn end(&self) {
        self.session.replace(None);
    }

    /// Whether bytes are left that were to leave.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.get()
    }

    fn may_write(&self) -> io::Result<()> {
        match &*self.session.borrow() {
            Some(session) if session.is_cut() => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.sending.may_write()?;
        let polled = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.sending.may_write()?;
        let polled = Pin::new(&mut self.tcp).poll_write_vectored(cx, bytes);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
