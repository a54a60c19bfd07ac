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
