//! Plain HTTP/1.1: what is public. The root, CRLs, checkpoint and hash tiles (C2SP tlog-tiles),
//! health and metrics. GET and HEAD only; nothing here changes anything.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use agentca_identity::pem;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::authority::core::Authority;
use crate::metrics;

/// Serves until `stop` changes and every connection has ended.
pub async fn serve(
    listener: TcpListener,
    authority: Arc<Authority>,
    mut stop: watch::Receiver<()>,
) {
    let slots = Arc::new(Semaphore::new(authority.limits.max_connections));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            break;
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "no HTTP connection could be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            _ = stop.changed() => break,
        };
        let (authority, stop) = (Arc::clone(&authority), stop.clone());
        connections.spawn(async move {
            connection(stream, authority, stop).await;
            drop(slot);
        });
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, authority: Arc<Authority>, mut stop: watch::Receiver<()>) {
    // Only slower without it.
    let _slow = stream.set_nodelay(true);
    let timeout = authority.limits.handshake_timeout;
    let service = service_fn(move |request: Request<Incoming>| {
        let authority = Arc::clone(&authority);
        async move { Ok::<_, Infallible>(answer(request, authority).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_buf_size(MAX_HEAD);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = tokio::time::timeout(CONNECTION_TIME, connection.as_mut()) => ended,
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(timeout, connection).await
        }
    };
    if let Ok(Err(error)) = ended {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

async fn answer(request: Request<Incoming>, authority: Arc<Authority>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let path = request.uri().path().to_owned();
    // hyper sends no body for HEAD, but its length.
    match path.as_str() {
        "/ca.crt" => {
            let text = pem::encode_certs([&authority.root]);
            found("application/x-pem-file", "max-age=3600", Bytes::from(text))
        }
        "/checkpoint" => {
            let note = authority.sequencer.log().checkpoint().note.clone();
            found("text/plain; charset=utf-8", "no-cache", Bytes::from(note))
        }
        "/healthz" => health(&authority),
        "/metrics" => {
            let text = metrics::render(&authority);
            found("text/plain; version=0.0.4", "no-store", Bytes::from(text))
        }
        path => match (crl_shard(path), tile(path)) {
            (Some(shard), _) => match authority.shelf.find(shard) {
                Some(crl) => found("application/pkix-crl", "max-age=60", crl.der),
                None => nothing(),
            },
            (None, Some(tile)) => hash_tile(authority, tile).await,
            (None, None) => nothing(),
        },
    }
}

fn health(authority: &Authority) -> Response<Full<Bytes>> {
    if authority.sequencer.log().blocked() {
        plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "the log cannot grow: free some space\n",
        )
    } else {
        plain(StatusCode::OK, "ok\n")
    }
}

async fn hash_tile(authority: Arc<Authority>, tile: Tile) -> Response<Full<Bytes>> {
    let log = Arc::clone(authority.sequencer.log());
    let read =
        tokio::task::spawn_blocking(move || log.hash_tile(tile.level, tile.index, tile.width));
    match read.await {
        Ok(Ok(Some(bytes))) => found("application/octet-stream", IMMUTABLE, Bytes::from(bytes)),
        Ok(Ok(None)) => nothing(),
        Ok(Err(error)) => {
            tracing::error!(%error, "a hash tile cannot be read");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the tile cannot be read\n",
            )
        }
        Err(_) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the tile cannot be read\n",
        ),
    }
}

/// Which hash tile is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

fn crl_shard(path: &str) -> Option<u16> {
    let shard = path.strip_prefix("/crl/")?.strip_suffix(".crl")?;
    shard
        .parse()
        .ok()
        .filter(|number: &u16| number.to_string() == shard)
}

/// `/tile/<L>/<N>[.p/<W>]` with N as `x001/x234/067`.
fn tile(path: &str) -> Option<Tile> {
    let rest = path.strip_prefix("/tile/")?;
    let (level, rest) = rest.split_once('/')?;
    let (number, width) = match rest.split_once(".p/") {
        Some((number, width)) => (
            number,
            decimal::<u16>(width).filter(|w| (1..256).contains(w))?,
        ),
        None => (rest, 256),
    };
    let level = decimal::<u8>(level).filter(|level| *level < 64)?;
    Some(Tile {
        level,
        index: tile_number(number)?,
        width,
    })
}

fn tile_number(text: &str) -> Option<u64> {
    let mut groups: Vec<&str> = text.split('/').collect();
    let last = groups.pop()?;
    let digits = |group: &str| {
        let plain = group.len() == 3 && group.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| group.parse::<u64>().ok()).flatten()
    };
    let mut number: u64 = 0;
    for (position, group) in groups.iter().enumerate() {
        let value = digits(group.strip_prefix('x')?)?;
        if position == 0 && value == 0 {
            return None;
        }
        number = number.checked_mul(1000)?.checked_add(value)?;
    }
    number.checked_mul(1000)?.checked_add(digits(last)?)
}

fn decimal<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    text.parse()
        .ok()
        .filter(|value: &T| value.to_string() == text)
}

fn found(kind: &'static str, cache: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

fn nothing() -> Response<Full<Bytes>> {
    plain(StatusCode::NOT_FOUND, "nothing is here\n")
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = found(
        "text/plain; charset=utf-8",
        "no-store",
        Bytes::from_static(text.as_bytes()),
    );
    *response.status_mut() = status;
    response
}

const IMMUTABLE: &str = "max-age=604800, immutable";
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// A connection's longest life, so that slow readers do not stay for ever.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_have_one_spelling() {
        let tile_of = |level, index, width| {
            Some(Tile {
                level,
                index,
                width,
            })
        };
        assert_eq!(tile("/tile/0/000"), tile_of(0, 0, 256));
        assert_eq!(tile("/tile/1/x001/x234/067"), tile_of(1, 1_234_067, 256));
        assert_eq!(tile("/tile/0/x001/000.p/7"), tile_of(0, 1000, 7));
        for wrong in [
            "/tile/0/0",
            "/tile/00/000",
            "/tile/64/000",
            "/tile/0/x000/000",
            "/tile/0/001/000",
            "/tile/0/x01/000",
            "/tile/0/000.p/0",
            "/tile/0/000.p/256",
            "/tile/0/000.p/07",
            "/tile/entries/000",
            "/tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(tile(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn shards_have_one_spelling() {
        assert_eq!(crl_shard("/crl/0.crl"), Some(0));
        assert_eq!(crl_shard("/crl/17.crl"), Some(17));
        for wrong in [
            "/crl/00.crl",
            "/crl/+1.crl",
            "/crl/.crl",
            "/crl/99999.crl",
            "/crl/0",
        ] {
            assert_eq!(crl_shard(wrong), None, "{wrong}");
        }
    }
}
