//! Asks the authority for the next certificate: gRPC over our own TLS stream, both sides proven. Protobuf
//! types stop here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use agentca_proto as proto;
use agentca_proto::authority_client::AuthorityClient;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use crate::credentials::Credential;
use crate::link::tls_error;
use crate::tls;
use crate::url::{AuthorityUrl, Place};

/// Why there is no next certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error(
        "could not reach the authority at {url} ({detail}), is it running, and is `--authority` its address"
    )]
    Unreachable { url: String, detail: String },
    #[error("whoever answers at {url} is not the authority ({detail}), check `--authority`")]
    Untrusted { url: String, detail: String },
    #[error("the authority at {url} does not accept the certificate: {detail}")]
    Rejected { url: String, detail: &'static str },
    #[error("the authority refused: {0}")]
    Refused(String),
    #[error("TLS cannot use the credential: {0}")]
    Tls(#[from] rustls::Error),
}

/// The chain (leaf, then issuer; DER) for the key of a request, as the authority sent it.
pub(crate) async fn renew(
    url: &AuthorityUrl,
    credential: &Credential,
    request: Vec<u8>,
) -> Result<Vec<Vec<u8>>, AuthorityError> {
    let asking = ask(url, credential, request);
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(unreachable(url, "no answer in time")),
    }
}

async fn ask(
    url: &AuthorityUrl,
    credential: &Credential,
    csr: Vec<u8>,
) -> Result<Vec<Vec<u8>>, AuthorityError> {
    let channel = connect(url, credential).await?;
    let request = proto::RenewRequest {
        csr,
        signer: proto::SignerUse::Unspecified.into(),
    };
    let answer = AuthorityClient::new(channel).renew(request).await;
    let credential = answer.map_err(|status| refused(url, &status))?.into_inner();
    Ok(credential.chain)
}

async fn connect(url: &AuthorityUrl, credential: &Credential) -> Result<Channel, AuthorityError> {
    let Place {
        host,
        port,
        authority,
        server_name,
    } = &url.place;
    let tcp = TcpStream::connect((host.as_str(), *port))
        .await
        .map_err(|e| unreachable(url, e))?;
    tcp.set_nodelay(true).map_err(|e| unreachable(url, e))?;
    let connector = TlsConnector::from(tls::authority(credential)?.config);
    let stream = connector
        .connect(server_name.clone(), tcp)
        .await
        .map_err(|e| explain(url, &e))?;
    // The scheme is tonic's affair: the stream it is given is TLS already.
    let endpoint = Endpoint::from_shared(format!("http://{authority}"));
    endpoint
        .map_err(|e| unreachable(url, e))?
        .connect_with_connector(Once(Some(stream)))
        .await
        .map_err(|e| explain(url, &e))
}

/// Gives the one connection there is; when it ends, so does the channel.
struct Once(Option<TlsStream<TcpStream>>);

impl Service<Uri> for Once {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take();
        Box::pin(async move {
            stream
                .map(TokioIo::new)
                .ok_or_else(|| io::ErrorKind::NotConnected.into())
        })
    }
}

fn unreachable(url: &AuthorityUrl, detail: impl ToString) -> AuthorityError {
    AuthorityError::Unreachable {
        url: url.to_string(),
        detail: detail.to_string(),
    }
}

fn refused(url: &AuthorityUrl, status: &Status) -> AuthorityError {
    match std::error::Error::source(status) {
        Some(source) => explain(url, source),
        None => AuthorityError::Refused(status.message().to_owned()),
    }
}

fn explain(url: &AuthorityUrl, error: &(dyn std::error::Error + 'static)) -> AuthorityError {
    use rustls::{AlertDescription as Alert, CertificateError, Error};
    let untrusted = |detail: String| AuthorityError::Untrusted {
        url: url.to_string(),
        detail,
    };
    match tls_error(error) {
        None => unreachable(url, error),
        Some(Error::AlertReceived(alert)) => AuthorityError::Rejected {
            url: url.to_string(),
            detail: match alert {
                Alert::CertificateExpired => "it has ended, have it issued again",
                Alert::CertificateRevoked => "it is revoked",
                Alert::UnknownCA => "it comes from another authority",
                _ => "it is not admitted",
            },
        },
        Some(Error::InvalidMessage(_)) => untrusted("it does not speak TLS".to_owned()),
        Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
            untrusted("its certificate is another's".to_owned())
        }
        Some(other) => untrusted(other.to_string()),
    }
}

/// Connecting and answering together.
const PATIENCE: Duration = Duration::from_secs(30);
