//! A connection to the authority: gRPC over our own TLS stream, both sides proven.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::config::AuthorityUrl;
use crate::credentials::Credentials;
use crate::tls;

/// Connects with the credentials as they are now. The peer must be the authority by its SPIFFE id.
pub(crate) async fn connect(
    authority: &AuthorityUrl,
    credentials: &Credentials,
) -> Result<Channel, LinkError> {
    let connector = TlsConnector::from(tls::authority_client(credentials).map_err(LinkError::Tls)?);
    let name = ServerName::try_from(authority.host.clone())
        .map_err(|_| LinkError::Name(authority.host.clone()))?;
    let address: Arc<(String, u16)> = Arc::new((authority.host.clone(), authority.port));
    let dial = move |_: http::Uri| {
        let (connector, name, address) = (connector.clone(), name.clone(), Arc::clone(&address));
        async move {
            let tcp = TcpStream::connect((address.0.as_str(), address.1)).await?;
            tcp.set_nodelay(true)?;
            let stream = connector.connect(name, tcp).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    };
    // The scheme is tonic's affair: the stream it is given is TLS already.
    let authority = authority
        .uri
        .authority()
        .map(ToString::to_string)
        .unwrap_or_default();
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(LinkError::Connect)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true);
    let connecting = endpoint.connect_with_connector(tower::service_fn(dial));
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(channel) => channel.map_err(LinkError::Connect),
        Err(_) => Err(LinkError::TimedOut),
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("our TLS credentials: {0}")]
    Tls(rustls::Error),
    #[error("`{0}` is neither a DNS name nor an address")]
    Name(String),
    #[error("could not connect: {}", chain(.0))]
    Connect(tonic::transport::Error),
    #[error("could not connect in time")]
    TimedOut,
}

impl LinkError {
    /// What to look at.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Tls(_) => "our own certificate or key cannot be used",
            Self::Name(_) => "`authority` has no host that could be called",
            Self::TimedOut => UNREACHABLE,
            Self::Connect(error) => advice_on(error),
        }
    }
}

/// Nobody there, or somebody else than the authority.
fn advice_on(error: &(dyn std::error::Error + 'static)) -> &'static str {
    let mut next = Some(error);
    while let Some(error) = next {
        let error_of_tls = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match error_of_tls {
            Some(rustls::Error::InvalidMessage(_)) => {
                return "what listens there speaks no TLS: `authority` is the gRPC address \
                        (`--listen` of `agentca serve`), not the plain HTTP one";
            }
            Some(rustls::Error::AlertReceived(_)) => {
                return "the authority refuses our certificate: it ended, was revoked, or is of \
                        another authority";
            }
            Some(_) => {
                return "who listens there is not our authority: its certificate is another's";
            }
            None => next = error.source(),
        }
    }
    UNREACHABLE
}

const UNREACHABLE: &str =
    "nobody listens there: is the authority running, and `authority` its address?";

/// An error with its sources, which tonic keeps from its own text.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(error: rustls::Error) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }

    #[test]
    fn reasons_are_told_apart() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(advice_on(&refused), UNREACHABLE);
        let plain = rustls::InvalidMessage::InvalidContentType;
        let plain = wrapped(rustls::Error::InvalidMessage(plain));
        assert!(advice_on(&plain).contains("no TLS"));
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRevoked);
        assert!(advice_on(&wrapped(alert)).contains("refuses our certificate"));
        let other = rustls::CertificateError::UnknownIssuer;
        let other = wrapped(rustls::Error::InvalidCertificate(other));
        assert!(advice_on(&other).contains("not our authority"));
    }
}
