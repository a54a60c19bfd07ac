//! The library's connections, HTTP/1 and HTTP/2, as they are driven.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::config::Limits;
use crate::gate::{Gate, Traffic};
use crate::outflow::watched;
use crate::service::AgentService;
use crate::session::Session;

/// A protocol's connection, as it is driven.
pub(super) trait Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>>;
    /// Takes no new request; ends when the running ones are answered.
    fn wind_down(&mut self);
    /// Whether it has buffers that it could do without while nothing goes on.
    fn can_rest(&self) -> bool;
    /// Gives them back until the client sends something. Only while nothing goes on.
    fn rest(&mut self);
}

pub(super) type Io = TokioIo<Gate<TlsStream<TcpStream>>>;
type Http2Connection = Pin<Box<http2::Connection<Io, AgentService, Streams>>>;

/// An HTTP/1 connection. The library keeps 16 KiB of buffers for each, more than all else together.
pub(super) enum Http1Connection {
    /// With the library.
    Talking(Box<http1::Connection<Io, AgentService>>),
    /// Idle: TLS alone, until something comes.
    Resting(Box<Io>),
    /// Broken.
    Gone,
}

impl Http1Connection {
    pub(super) fn new(session: &Rc<Session>, io: Io, limits: &Limits) -> Self {
        let mut builder = http1::Builder::new();
        // Twice our own limit, so that what is over ours is answered by us.
        builder.max_buf_size(limits.head_max.saturating_mul(2));
        if limits.headers_max != LIBRARY_HEADERS_MAX {
            builder.max_headers(limits.headers_max.saturating_add(1));
        }
        let service = AgentService {
            session: Rc::clone(session),
        };
        Self::Talking(Box::new(builder.serve_connection(io, service)))
    }
}

pub(super) struct Http1<'a> {
    connection: &'a mut Http1Connection,
    session: &'a Rc<Session>,
    limits: &'a Limits,
    winding_down: bool,
}

impl Driver for Http1<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        if let Http1Connection::Resting(io) = &self.connection {
            let tcp = io.inner().get_ref().get_ref().0;
            if self.winding_down {
                return Poll::Ready(Ok(()));
            }
            if tcp.poll_read_ready(cx).is_pending() {
                return Poll::Pending;
            }
            self.wake();
        }
        match &mut self.connection {
            Http1Connection::Talking(connection) => connection.poll_without_shutdown(cx),
            Http1Connection::Resting(_) | Http1Connection::Gone => Poll::Ready(Ok(())),
        }
    }

    fn wind_down(&mut self) {
        self.winding_down = true;
        if let Http1Connection::Talking(connection) = &mut self.connection {
            Pin::new(connection.as_mut()).graceful_shutdown();
        }
    }

    fn can_rest(&self) -> bool {
        matches!(self.connection, Http1Connection::Talking(_)) && !self.winding_down
    }

    fn rest(&mut self) {
        let before = std::mem::replace(self.connection, Http1Connection::Gone);
        *self.connection = match before {
            Http1Connection::Talking(connection) => {
                let parts = connection.into_parts();
                // Empty lines between requests mean nothing. Anything else would be part of a
                // request, during which nobody rests: it cannot be given back, so it ends here.
                if parts.read_buf.iter().all(|byte| b"\r\n".contains(byte)) {
                    Http1Connection::Resting(Box::new(parts.io))
                } else {
                    Http1Connection::Gone
                }
            }
            other => other,
        };
    }
}

impl<'a> Http1<'a> {
    pub(super) fn new(
        connection: &'a mut Http1Connection,
        session: &'a Rc<Session>,
        limits: &'a Limits,
    ) -> Self {
        Self {
            connection,
            session,
            limits,
            winding_down: false,
        }
    }

    fn wake(&mut self) {
        let before = std::mem::replace(self.connection, Http1Connection::Gone);
        *self.connection = match before {
            Http1Connection::Resting(io) => Http1Connection::new(self.session, *io, self.limits),
            other => other,
        };
    }
}

pub(super) struct Http2(Http2Connection);

impl Http2 {
    pub(super) fn new(session: &Rc<Session>, io: Io, limits: &Limits) -> Self {
        let mut builder = http2::Builder::new(Streams {
            traffic: Rc::clone(&session.traffic),
            stall: limits.idle_timeout,
        });
        let head_max = u32::try_from(limits.head_max.saturating_mul(2)).unwrap_or(u32::MAX);
        let resets = usize::try_from(limits.h2_max_resets).unwrap_or(usize::MAX);
        builder
            .max_header_list_size(head_max)
            .max_concurrent_streams(limits.h2_max_streams)
            .max_pending_accept_reset_streams(resets.min(H2_UNSEEN_RESETS))
            .max_local_error_reset_streams(resets)
            .max_frame_size(H2_FRAME)
            .initial_stream_window_size(H2_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_send_buf_size(H2_SEND_BUFFER);
        let service = AgentService {
            session: Rc::clone(session),
        };
        Self(Box::pin(builder.serve_connection(io, service)))
    }
}

impl Driver for Http2 {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.as_mut().poll(cx)
    }

    fn wind_down(&mut self) {
        self.0.as_mut().graceful_shutdown();
    }

    fn can_rest(&self) -> bool {
        false
    }

    fn rest(&mut self) {}
}

/// Spawns the streams of HTTP/2 onto the runtime they came from, each with its stall timer.
#[derive(Clone, Debug)]
struct Streams {
    traffic: Rc<Traffic>,
    stall: Duration,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        match self.traffic.begun() {
            Some(outflow) => tokio::task::spawn_local(watched(future, outflow, self.stall)),
            None => tokio::task::spawn_local(future),
        };
    }
}

const LIBRARY_HEADERS_MAX: usize = 100;
const H2_WINDOW: u32 = 64 << 10;
const H2_CONNECTION_WINDOW: u32 = 1 << 20;
const H2_SEND_BUFFER: usize = 64 << 10;
/// The least that the protocol knows: a head above `max_header_list_size` may come in a few of them.
const H2_FRAME: u32 = 16 << 10;
/// Streams that are reset before we saw them, and not yet forgotten: after so many the library ends the
/// connection (ENHANCE_YOUR_CALM).
const H2_UNSEEN_RESETS: usize = 20;
