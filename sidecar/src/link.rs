//! Connections to the enforcer: HTTP/1.1 over mutual TLS, kept alive and used again.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentca_identity::spiffe::{LogOrigin, SpiffeId};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription as Alert, CertificateError};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::holder::{Held, HolderError};
use crate::url::Place;

/// Any error of a body.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;
/// The body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// One connection. Dropped, it is closed at once.
#[derive(Debug)]
pub(crate) struct Link {
    sender: SendRequest<Body>,
    driver: Driver,
    pub(crate) peer: Arc<Peer>,
    idle_since: Instant,
}

/// The two ends of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Ours.
    pub(crate) held: Arc<Held>,
    /// The enforcer's log in its first generation.
    pub(crate) origin: LogOrigin,
}

/// Why there is no connection, or no answer over it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Holder(#[from] HolderError),
    #[error(
        "could not reach the enforcer at {place} ({detail}), is it running, and is the address right"
    )]
    Unreachable { place: String, detail: String },
    #[error("the enforcer at {place} does not accept the certificate in {folder}: {detail}")]
    Rejected {
        place: String,
        folder: String,
        detail: &'static str,
    },
    #[error("whoever answers at {place} is not the enforcer: {detail}")]
    Untrusted { place: String, detail: String },
    #[error(
        "lost the enforcer at {place} before its answer ({detail}); it is not known whether it acted"
    )]
    Lost { place: String, detail: String },
    #[error("the enforcer at {place} did not answer within {} s", .after.as_secs())]
    TimedOut { place: String, after: Duration },
}

impl Link {
    /// Connects with a credential, and knows then which enforcer it is.
    pub(crate) async fn dial(place: &Place, held: Arc<Held>) -> Result<Self, LinkError> {
        let after = CONNECT_TIMEOUT;
        let (stream, origin) = tokio::time::timeout(after, connect(place, &held))
            .await
            .map_err(|_| LinkError::TimedOut {
                place: place.authority.clone(),
                after,
            })??;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| explain(place, &held, &e))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the enforcer ended");
            }
        });
        let peer = Arc::new(Peer { held, origin });
        Ok(Self {
            sender,
            driver: Driver(driver),
            peer,
            idle_since: Instant::now(),
        })
    }

    /// Sends one request. One that never left is given back.
    pub(crate) async fn send(
        &mut self,
        place: &Place,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, (Option<Request<Body>>, LinkError)> {
        if let Err(error) = self.sender.ready().await {
            let error = explain(place, &self.peer.held, &error);
            return Err((Some(request), error));
        }
        self.sender
            .try_send_request(request)
            .await
            .map_err(|mut error| {
                let back = error.take_message();
                (back, explain(place, &self.peer.held, error.error()))
            })
    }

    /// Whether it can be used for another request, with the credential in use by then.
    pub(crate) fn is_usable(&self, held: &Arc<Held>) -> bool {
        !self.sender.is_closed()
            && !self.driver.0.is_finished()
            && self.idle_since.elapsed() < IDLE
            && Arc::ptr_eq(&self.peer.held, held)
    }

    /// The same, idle from now on.
    pub(crate) fn rested(mut self) -> Self {
        self.idle_since = Instant::now();
        self
    }
}

/// Ends the connection with whoever holds it.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn connect(
    place: &Place,
    held: &Held,
) -> Result<(TlsStream<TcpStream>, LogOrigin), LinkError> {
    let unreachable = |detail: io::Error| LinkError::Unreachable {
        place: place.authority.clone(),
        detail: detail.to_string(),
    };
    let tcp = TcpStream::connect((place.host.as_str(), place.port))
        .await
        .map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let connector = TlsConnector::from(Arc::clone(&held.dialler.config));
    let stream = connector
        .connect(place.server_name.clone(), tcp)
        .await
        .map_err(|e| explain(place, held, &e))?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = held.dialler.verifier.peer(certificates);
    let origin = match peer.as_ref().map(|peer| peer.id()) {
        Some(SpiffeId::Enforcer {
            trust_domain,
            environment,
            name,
        }) => LogOrigin::enforcer(trust_domain.clone(), environment.clone(), name.clone()),
        _ => return Err(untrusted(place, "its certificate is not an enforcer's")),
    };
    Ok((stream, origin))
}

fn untrusted(place: &Place, detail: impl Into<String>) -> LinkError {
    LinkError::Untrusted {
        place: place.authority.clone(),
        detail: detail.into(),
    }
}

/// What went wrong with a connection, in words that say what to do.
pub(crate) fn explain(place: &Place, held: &Held, error: &(dyn Error + 'static)) -> LinkError {
    let Some(tls) = tls_error(error) else {
        return LinkError::Lost {
            place: place.authority.clone(),
            detail: innermost(error),
        };
    };
    let rejected = |detail| LinkError::Rejected {
        place: place.authority.clone(),
        folder: held.credential.folder.display().to_string(),
        detail,
    };
    match tls {
        rustls::Error::AlertReceived(alert) => rejected(match alert {
            Alert::CertificateExpired => "it has ended, have it renewed or issued again",
            Alert::CertificateRevoked => {
                "it is revoked; whoever administers the authority can issue another"
            }
            Alert::UnknownCA => "it comes from another authority than the enforcer's",
            // Whoever has no HTTP/1.1 looks no further.
            Alert::NoApplicationProtocol => {
                return untrusted(
                    place,
                    "it does not speak HTTP/1.1; is that another server, like the authority? Give the \
                     address that `agentca-enforcer` listens on",
                );
            }
            _ => {
                "it is not admitted; the enforcer may not be ready yet, its log says why, or is that \
                 another server, like the authority"
            }
        }),
        rustls::Error::InvalidMessage(_) => untrusted(
            place,
            "it does not speak TLS; give the address that `agentca-enforcer` listens on",
        ),
        rustls::Error::InvalidCertificate(error) => untrusted(place, judged(error)),
        other => untrusted(place, other.to_string()),
    }
}

/// What is wrong with the certificate that was shown.
fn judged(error: &CertificateError) -> String {
    match error {
        CertificateError::NotValidForName => {
            "its certificate has another name than the URL; use a name given with `agentca enforcer \
             add --dns` or `--ip`"
        }
        CertificateError::UnknownIssuer => {
            "its certificate comes from another authority than ca.crt in the credentials folder"
        }
        CertificateError::ApplicationVerificationFailure => {
            "its certificate is not an enforcer's; give the address that `agentca-enforcer` listens on"
        }
        CertificateError::Expired => "its certificate has ended",
        CertificateError::NotValidYet => "its certificate is not valid yet, is the clock right",
        other => return other.to_string(),
    }
    .to_owned()
}

/// What TLS said, if an error is about that.
pub(crate) fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(tls);
        }
        next = error.source();
    }
    None
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than the enforcer's idle timeout, so that no request meets a connection that is being closed.
const IDLE: Duration = Duration::from_secs(30);
/// What hyper reads at once; it grows only as far.
const BUFFER: usize = 64 << 10;
