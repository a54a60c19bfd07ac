//! An agent's HTTP client over mutual TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::request;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Error;

/// An agent that can call.
pub(crate) struct Caller {
    enforcer: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// How a call ended.
pub(crate) enum Outcome {
    /// With an answer, whatever it says.
    Answered(Response<Bytes>),
    /// With a TLS alert instead of one.
    Alert(AlertDescription),
}

impl Caller {
    /// A caller with the credential in `folder`, who trusts `root` to name enforcers.
    pub(crate) fn new(enforcer: SocketAddr, folder: &Path, root: &Path) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(root)?)?;
        let chain =
            CertificateDer::pem_file_iter(folder.join("agent.crt"))?.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(folder.join("agent.key"))?;
        let tls = ClientConfig::builder_with_provider(agentca_identity::crypto::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Self {
            enforcer,
            tls: Arc::new(tls),
        })
    }

    /// One call on a connection of its own, answered whole.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: &str,
    ) -> Result<Outcome, Error> {
        let called = match self.open(method, path, body).await {
            Ok(response) => whole(response).await,
            Err(error) => Err(error),
        };
        match called {
            Ok(response) => Ok(Outcome::Answered(response)),
            Err(error) => alert_in(error.as_ref()).map(Outcome::Alert).ok_or(error),
        }
    }

    /// One call, whose body is still to come.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        body: &str,
    ) -> Result<Response<Incoming>, Error> {
        let request = Request::builder().method(method).uri(path);
        self.send(request, body).await
    }

    /// One call with more in its head, answered whole.
    pub(crate) async fn ask(
        &self,
        request: request::Builder,
        body: &str,
    ) -> Result<Response<Bytes>, Error> {
        whole(self.send(request, body).await?).await
    }

    async fn send(
        &self,
        request: request::Builder,
        body: &str,
    ) -> Result<Response<Incoming>, Error> {
        let stream = TcpStream::connect(self.enforcer).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = request
            .header(HOST, format!("localhost:{}", self.enforcer.port()))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        match sender.send_request(request).await {
            Ok(response) => Ok(response),
            // The connection knows more than the request that was lost with it.
            Err(error) => match connection.await? {
                Err(reason) if alert_in(&reason).is_some() => Err(reason.into()),
                _ => Err(error.into()),
            },
        }
    }
}

async fn whole(response: Response<Incoming>) -> Result<Response<Bytes>, Error> {
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

/// The TLS alert at the bottom of an error, when there is one.
fn alert_in(error: &(dyn std::error::Error + 'static)) -> Option<AlertDescription> {
    if let Some(rustls::Error::AlertReceived(alert)) = error.downcast_ref::<rustls::Error>() {
        return Some(*alert);
    }
    let below = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    match below {
        Some(below) => alert_in(below),
        None => alert_in(error.source()?),
    }
}
