//! One connection: handshake, the protocol that ALPN chose, and everything that can end it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::Limits;
use crate::gate::{Gate, PhaseLimits, Protocol, Traffic};
use crate::live::Live;
use crate::outflow::watched;
use crate::peer::Peer;
use crate::record::Ended;
use crate::service::AgentService;
use crate::session::Session;
use crate::status::Readiness;
use crate::timers::{TICK, TimedOut, Timer};
use crate::tls::ALPN_H2;
use crate::worker::Worker;

/// Serves a connection from accept to close.
pub(crate) async fn run(worker: Rc<Worker>, stream: TcpStream, from: SocketAddr) {
    let live = worker.shared.live.load_full();
    // Boxed, so that an idle connection does not keep the room of its handshake.
    let handshake = Box::pin(handshake(
        Rc::clone(&worker),
        Arc::clone(&live),
        stream,
        from,
    ));
    let Some(stream) = handshake.await else {
        return;
    };
    let Some(serving) = serve(&worker, &live, stream) else {
        return;
    };
    drop(live);
    serving.await;
}

/// The protocol's own future, boxed: a connection has room for one protocol, and the stream is in it
/// once.
fn serve(
    worker: &Rc<Worker>,
    live: &Live,
    stream: TlsStream<TcpStream>,
) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
    let (session, stream) = open(worker, live, stream)?;
    let limits = live.config().limits.clone();
    let io = TokioIo::new(Gate::new(stream, Rc::clone(&session.traffic)));
    Some(match session.traffic.protocol() {
        Protocol::Http1 => {
            let connection = http1_connection(&session, io, &limits);
            Box::pin(serve_http1(session, connection, limits))
        }
        Protocol::Http2 => {
            let connection = http2_connection(&session, io, &limits);
            Box::pin(async move {
                supervise(&session, &limits, Http2(connection)).await;
            })
        }
    })
}

/// TLS, or an alert; a refusal is recorded once the alert is out.
async fn handshake(
    worker: Rc<Worker>,
    live: Arc<Live>,
    stream: TcpStream,
    from: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    stream.set_nodelay(true).ok()?;
    let accept = TlsAcceptor::from(Arc::clone(live.tls()))
        .accept(stream)
        .into_fallible();
    let timer = worker.timers.after(live.config().limits.handshake_timeout);
    let ready = || worker.shared.registry.readiness() == Readiness::Ready;
    match timer.limit(accept).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err((error, stream))) => {
            if ready() {
                worker.shared.handshakes.refused(&error, from);
            }
            // What the client already sent must be read, or its system discards our alert.
            timer.restart(LINGER);
            let _ended = timer.limit(drain(stream)).await;
            None
        }
        Err(TimedOut) => {
            if ready() {
                worker.shared.handshakes.timed_out(from);
            }
            None
        }
    }
}

/// Who connected: the watch is registered here, before the first request.
fn open(
    worker: &Rc<Worker>,
    live: &Live,
    stream: TlsStream<TcpStream>,
) -> Option<(Rc<Session>, TlsStream<TcpStream>)> {
    let (_, connection) = stream.get_ref();
    let verified = live.agents().peer(connection.peer_certificates()?)?;
    let peer = Peer::new(&verified, &worker.shared.registry)?;
    let sni = connection.server_name().map(str::to_owned);
    let protocol = match connection.alpn_protocol() {
        Some(ALPN_H2) => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let traffic = Traffic::new(protocol, Rc::clone(&worker.timers));
    Some((Session::new(Rc::clone(worker), peer, traffic, sni), stream))
}

fn http1_connection(session: &Rc<Session>, io: Io, limits: &Limits) -> Http1Connection {
    let mut builder = http1::Builder::new();
    // Twice our own limit, so that what is over ours is answered by us.
    builder.max_buf_size(limits.head_max.saturating_mul(2));
    if limits.headers_max != LIBRARY_HEADERS_MAX {
        builder.max_headers(limits.headers_max.saturating_add(1));
    }
    let service = AgentService {
        session: Rc::clone(session),
    };
    Http1Connection::Talking(Box::new(builder.serve_connection(io, service)))
}

async fn serve_http1(session: Rc<Session>, mut connection: Http1Connection, limits: Limits) {
    let driver = Http1 {
        connection: &mut connection,
        session: &session,
        limits: &limits,
        winding_down: false,
    };
    let over = supervise(&session, &limits, driver).await;
    let io = match connection {
        Http1Connection::Talking(connection) => connection.into_parts().io,
        Http1Connection::Resting(io) => *io,
        Http1Connection::Gone => return,
    };
    if over == Over::Cleanly {
        Box::pin(part(&session, io)).await;
    }
}

/// Says goodbye as TLS does, and reads what the client still sends when its body was not read.
async fn part(session: &Session, io: Io) {
    let mut stream = io.into_inner().into_inner();
    let timer = session.worker.timers.after(LINGER);
    let unread = session.traffic.unread();
    let _ended = timer
        .limit(async {
            if stream.shutdown().await.is_ok() && unread {
                drain(stream.into_inner().0).await;
            }
        })
        .await;
}

fn http2_connection(session: &Rc<Session>, io: Io, limits: &Limits) -> Http2Connection {
    let mut builder = http2::Builder::new(Streams {
        traffic: Rc::clone(&session.traffic),
        stall: limits.idle_timeout,
    });
    let head_max = u32::try_from(limits.head_max.saturating_mul(2)).unwrap_or(u32::MAX);
    builder
        .max_header_list_size(head_max)
        .max_concurrent_streams(limits.h2_max_streams)
        .initial_stream_window_size(H2_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buf_size(H2_SEND_BUFFER);
    let service = AgentService {
        session: Rc::clone(session),
    };
    Box::pin(builder.serve_connection(io, service))
}

/// A protocol's connection, as it is driven.
trait Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>>;
    /// Takes no new request; ends when the running ones are answered.
    fn wind_down(&mut self);
    /// Whether it has buffers that it could do without while nothing goes on.
    fn can_rest(&self) -> bool;
    /// Gives them back until the client sends something. Only while nothing goes on.
    fn rest(&mut self);
}

type Io = TokioIo<Gate<TlsStream<TcpStream>>>;
type Http2Connection = Pin<Box<http2::Connection<Io, AgentService, Streams>>>;

/// An HTTP/1 connection. The library keeps 16 KiB of buffers for each, more than all else together.
enum Http1Connection {
    /// With the library.
    Talking(Box<http1::Connection<Io, AgentService>>),
    /// Idle: TLS alone, until something comes.
    Resting(Box<Io>),
    /// Broken.
    Gone,
}

struct Http1<'a> {
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

impl Http1<'_> {
    fn wake(&mut self) {
        let before = std::mem::replace(self.connection, Http1Connection::Gone);
        *self.connection = match before {
            Http1Connection::Resting(io) => http1_connection(self.session, *io, self.limits),
            other => other,
        };
    }
}

struct Http2(Http2Connection);

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

/// How a connection was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// Everything that was begun was answered.
    Cleanly,
    /// It was cut, or broke.
    Cut,
}

/// Drives a connection until it is over, its agent loses rights, its certificate ends or it takes
/// too long. What still runs is dropped by the caller, and recorded by that drop.
async fn supervise(session: &Session, limits: &Limits, mut driver: impl Driver) -> Over {
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
            match driver.poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Over::Cleanly),
                Poll::Ready(Err(error)) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "connection ended");
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

/// Reads and forgets until the other side closes, up to [`DRAINED`].
async fn drain(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    // Not in the future itself, for which every connection has room.
    let mut scratch = vec![0; 4096];
    let mut drained = 0;
    while let Ok(read @ 1..) = stream.read(&mut scratch).await {
        drained += read;
        if drained > DRAINED {
            return;
        }
    }
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

/// How long an idle connection keeps its buffers.
const QUIET: Duration = Duration::from_secs(1);
const LINGER: Duration = Duration::from_secs(1);
const FAREWELL: Duration = Duration::from_secs(2);
const DRAINED: usize = 4 << 20;
const LIBRARY_HEADERS_MAX: usize = 100;
const H2_WINDOW: u32 = 64 << 10;
const H2_CONNECTION_WINDOW: u32 = 1 << 20;
const H2_SEND_BUFFER: usize = 64 << 10;
