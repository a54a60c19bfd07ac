//! One connection: handshake, the protocol that ALPN chose, and everything that can end it.

mod drivers;
mod supervise;

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::drivers::{Http1, Http1Connection, Http2, Io};
use self::supervise::{Over, supervise};
use crate::config::Limits;
use crate::gate::{Gate, Protocol, Traffic};
use crate::live::Live;
use crate::peer::Peer;
use crate::session::Session;
use crate::status::Readiness;
use crate::timers::TimedOut;
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
            let connection = Http1Connection::new(&session, io, &limits);
            Box::pin(serve_http1(session, connection, limits))
        }
        Protocol::Http2 => {
            let driver = Http2::new(&session, io, &limits);
            Box::pin(async move {
                supervise(&session, &limits, driver).await;
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
        Ok(Ok(stream)) => {
            worker.counters.shook_hands();
            Some(stream)
        }
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
    let most = live.config().limits.max_agent_connections;
    let agent = Arc::clone(peer.record().uri());
    let Some(place) = worker.shared.shares.enter(&agent, most) else {
        worker.turn_away(
            "too many connections of one agent: some were closed",
            &agent,
        );
        return None;
    };
    let sni = connection.server_name().map(str::to_owned);
    let protocol = match connection.alpn_protocol() {
        Some(ALPN_H2) => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let traffic = Traffic::new(protocol, Rc::clone(&worker.timers));
    let session = Session::new(Rc::clone(worker), peer, traffic, (sni, place));
    Some((session, stream))
}

async fn serve_http1(session: Rc<Session>, mut connection: Http1Connection, limits: Limits) {
    let driver = Http1::new(&mut connection, &session, &limits);
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

const LINGER: Duration = Duration::from_secs(1);
const DRAINED: usize = 4 << 20;
