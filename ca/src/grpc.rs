//! gRPC over our own TLS (tonic's is not used): accept, shake hands within a time, serve.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use agentca_proto::authority_server::AuthorityServer;
use agentca_proto::feed_server::FeedServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use crate::config::Limits;
use crate::service::{AuthorityService, FeedService};
use crate::tls::{PeerStream, Server};

/// Serves until `stop` changes and running requests are done.
pub async fn serve(
    listener: TcpListener,
    server: Server,
    service: AuthorityService,
    feed: FeedService,
    mut stop: watch::Receiver<()>,
) -> Result<(), tonic::transport::Error> {
    let limits = service.0.limits;
    let metrics_owner = service.clone();
    let (ready, connections) = mpsc::channel(64);
    let accepting = tokio::spawn(accept(listener, server, limits, ready, metrics_owner));
    let stopped = async move {
        // An error means that nobody is left to say stop, which is as good.
        let _gone = stop.changed().await;
        accepting.abort();
    };
    let authority = AuthorityServer::new(service)
        .max_decoding_message_size(limits.message_max)
        .max_encoding_message_size(usize::MAX);
    let feed = FeedServer::new(feed)
        .max_decoding_message_size(limits.message_max)
        .max_encoding_message_size(usize::MAX);
    tonic::transport::Server::builder()
        .concurrency_limit_per_connection(
            usize::try_from(limits.requests_per_connection).unwrap_or(usize::MAX),
        )
        .max_concurrent_streams(limits.requests_per_connection)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(authority)
        .add_service(feed)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stopped)
        .await
}

async fn accept(
    listener: TcpListener,
    server: Server,
    limits: Limits,
    ready: mpsc::Sender<io::Result<PeerStream>>,
    service: AuthorityService,
) {
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    // Handshakes end with the task that accepts.
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (server, ready, service) = (server.clone(), ready.clone(), service.clone());
        handshakes.spawn(async move {
            match shake(stream, slot, &server, limits.handshake_timeout).await {
                Ok(stream) => {
                    // The server may be stopping.
                    let _stopping = ready.send(Ok(stream)).await;
                }
                Err(error) => {
                    service.0.metrics.handshakes_failed.increment();
                    tracing::debug!(%error, "a handshake failed");
                }
            }
        });
    }
}

async fn shake(
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
    server: &Server,
    patience: Duration,
) -> io::Result<PeerStream> {
    stream.set_nodelay(true)?;
    tokio::time::timeout(patience, server.accept(stream, slot)).await?
}

const KEEPALIVE: Duration = Duration::from_secs(20);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
