//! Talks to the authority: gRPC over one TLS connection of our own.
//!
//! The authority is judged by its SPIFFE id under the root of the credential in use, never by a DNS
//! name. Protobuf types stop at this module.

mod answers;
mod calls;
mod stream;
mod url;

pub(crate) use answers::{
    Agent, CertificateStatus, EnforcerAdded, EnforcerState, Grant, Issued, Revoked,
};
pub(crate) use calls::{EnforcerOrder, GrantChange, IssueOrder, RevokeTarget, Signer};
pub(crate) use url::AuthorityUrl;

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentca_proto::authority_client::AuthorityClient;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::credentials::Credential;
use stream::{LastWord, Remembering, tls_error};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take; a revocation waits two seconds for its enforcers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the authority did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(
        "could not reach the authority at {url} ({detail}), start it with `agentca serve` or name \
         another with `--url`"
    )]
    Unreachable { url: AuthorityUrl, detail: String },
    #[error("lost the authority at {url} before its answer ({detail}), ask again")]
    Interrupted { url: AuthorityUrl, detail: String },
    #[error(
        "whoever answers at {url} is not the authority of this credential, {} ({detail}), check `--url`, or pick \
         another with `--credentials`",
        folder.display()
    )]
    Untrusted {
        url: AuthorityUrl,
        folder: PathBuf,
        detail: String,
    },
    #[error(
        "whoever answers at {url} is not the authority, it does not speak TLS; if that is the \
         authority's plain HTTP port, give the one of `agentca serve --listen` with `--url` (7443 \
         unless set)"
    )]
    NotTls { url: AuthorityUrl },
    #[error(
        "whoever answers at {url} is not the authority, its certificate is another's; if that is \
         an enforcer, give the address of `agentca serve --listen` with `--url` (port 7443 \
         unless set)"
    )]
    AnotherRole { url: AuthorityUrl },
    #[error("the authority at {url} does not accept this credential: {detail}")]
    Rejected {
        url: AuthorityUrl,
        detail: &'static str,
    },
    /// What the authority said.
    #[error("{message}")]
    Refused { message: String },
    #[error("could not use this credential: {0}")]
    Tls(String),
}

/// A connection to the authority as one person, agent or enforcer.
#[derive(Debug)]
pub(crate) struct Client {
    authority: AuthorityClient<Channel>,
    url: AuthorityUrl,
    /// The credential in use.
    folder: PathBuf,
    last_word: LastWord,
}

impl Client {
    /// Connects, and knows then that it is the authority.
    pub(crate) async fn connect(
        url: &AuthorityUrl,
        credential: &Credential,
    ) -> Result<Self, ClientError> {
        let inner = tokio::time::timeout(CONNECT_TIMEOUT, dial(url, credential))
            .await
            .unwrap_or_else(|_| Err(unreachable(url, "no answer in time")))?;
        let last_word = LastWord::default();
        let stream = Remembering {
            inner,
            last_word: last_word.clone(),
        };
        // The channel takes the one connection there is; when it ends, so does the channel.
        let stream = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
        let connector = tower::service_fn(move |_| {
            let stream = stream.lock().ok().and_then(|mut stream| stream.take());
            async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        let channel = Endpoint::from_shared(url.to_string())
            .map_err(|e| unreachable(url, e))?
            .timeout(ANSWER_TIMEOUT)
            .connect_with_connector(connector)
            .await
            .map_err(|e| lost(url, &credential.folder, &last_word, &e))?;
        let authority = AuthorityClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
        Ok(Self {
            authority,
            url: url.clone(),
            folder: credential.folder.clone(),
            last_word,
        })
    }

    fn explain(&self, status: &Status) -> ClientError {
        match (status.source(), status.code()) {
            (Some(source), _) => lost(&self.url, &self.folder, &self.last_word, source),
            (None, Code::DeadlineExceeded | Code::Cancelled) => ClientError::Interrupted {
                url: self.url.clone(),
                detail: status.message().to_owned(),
            },
            (None, _) => ClientError::Refused {
                message: crate::output::printable(status.message()),
            },
        }
    }
}

/// The largest answer; agents are streamed one by one.
const MESSAGE_MAX: usize = 4 << 20;

async fn dial(
    url: &AuthorityUrl,
    credential: &Credential,
) -> Result<TlsStream<TcpStream>, ClientError> {
    let tcp = TcpStream::connect((url.host(), url.port()))
        .await
        .map_err(|e| unreachable(url, e))?;
    tcp.set_nodelay(true).map_err(|e| unreachable(url, e))?;
    let config = credential
        .client_config()
        .map_err(|e| ClientError::Tls(e.to_string()))?;
    let name = url.server_name().map_err(|e| unreachable(url, e))?;
    TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(|e| match tls_error(&e) {
            Some(tls) => refused_handshake(url, &credential.folder, tls),
            None => unreachable(url, e),
        })
}

fn unreachable(url: &AuthorityUrl, detail: impl ToString) -> ClientError {
    ClientError::Unreachable {
        url: url.clone(),
        detail: detail.to_string(),
    }
}

/// What TLS said last, if it did; otherwise the innermost of a chain of errors.
fn lost(
    url: &AuthorityUrl,
    folder: &Path,
    last_word: &LastWord,
    error: &(dyn std::error::Error + 'static),
) -> ClientError {
    if let Some(tls) = last_word.heard() {
        return refused_handshake(url, folder, &tls);
    }
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    ClientError::Interrupted {
        url: url.clone(),
        detail: innermost.to_string(),
    }
}

fn refused_handshake(url: &AuthorityUrl, folder: &Path, error: &rustls::Error) -> ClientError {
    use rustls::{AlertDescription as Alert, CertificateError, Error};
    let detail = match error {
        Error::AlertReceived(Alert::CertificateExpired) => {
            "its certificate has expired, have a new one issued"
        }
        Error::AlertReceived(Alert::CertificateRevoked) => {
            "its certificate is revoked, have a new one issued"
        }
        Error::AlertReceived(Alert::UnknownCA) => {
            "it comes from another authority, check `--url` and `--credentials`"
        }
        Error::AlertReceived(_) => "its certificate is not admitted",
        Error::InvalidMessage(_) => return ClientError::NotTls { url: url.clone() },
        // Issued under our root, and not to the authority.
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            return ClientError::AnotherRole { url: url.clone() };
        }
        _ => {
            return ClientError::Untrusted {
                url: url.clone(),
                folder: folder.to_owned(),
                detail: error.to_string(),
            };
        }
    };
    ClientError::Rejected {
        url: url.clone(),
        detail,
    }
}
