//! Calls to the running authority, over mutual TLS, as the programs make them.

use std::net::SocketAddr;
use std::sync::Arc;

use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::profile::csr;
use agentca_proto::authority_client::AuthorityClient;
use agentca_proto::revoke_request::Target;
use agentca_proto::{AgentSelector, IssueRequest, RevokeRequest, RevokeResponse};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::Outcome;
use crate::tls::{Credential, Speaks, client};

/// keyCompromise, RFC 5280 section 5.3.1.
const KEY_COMPROMISE: u32 = 1;

/// A connection to the authority.
pub(crate) type Authority = AuthorityClient<Channel>;

/// Connects as the holder of `credential`.
pub(crate) async fn connect(addr: SocketAddr, credential: Credential) -> Outcome<Authority> {
    let tls = client(credential, Speaks::Grpc)?;
    // The scheme is tonic's word for "no TLS of tonic's": the connector below brings its own.
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))?.tcp_nodelay(true);
    let connector = service_fn(move |_: Uri| dial(addr, Arc::clone(&tls)));
    Ok(AuthorityClient::new(
        endpoint.connect_with_connector(connector).await?,
    ))
}

async fn dial(
    addr: SocketAddr,
    tls: Arc<ClientConfig>,
) -> std::io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let tcp = TcpStream::connect(addr).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::from(addr.ip());
    Ok(TokioIo::new(
        TlsConnector::from(tls).connect(name, tcp).await?,
    ))
}

/// An agent's key and its request for a certificate.
pub(crate) struct Applicant {
    /// The agent's name in its environment.
    pub(crate) name: String,
    key: PrivateKey,
    csr: Vec<u8>,
}

impl Applicant {
    /// With a new P-256 key.
    pub(crate) fn new(name: String) -> Outcome<Self> {
        let key = PrivateKey::generate(KeyKind::P256)?;
        let csr = csr::make(&key)?;
        Ok(Self { name, key, csr })
    }

    /// A first request: registers the agent and grants what it will be issued.
    pub(crate) fn first(&self, environment: &str) -> IssueRequest {
        IssueRequest {
            owner: "bench@bench.example".to_owned(),
            scopes: vec!["payments:read".to_owned()],
            trust: 2,
            lifetime_seconds: 6 * 3600,
            owner_given: true,
            scopes_given: true,
            trust_given: true,
            ..self.again(environment)
        }
    }

    /// A further request under the standing grant.
    pub(crate) fn again(&self, environment: &str) -> IssueRequest {
        IssueRequest {
            environment: environment.to_owned(),
            name: self.name.clone(),
            csr: self.csr.clone(),
            ..IssueRequest::default()
        }
    }

    /// Asks for the first certificate and returns it with its key.
    pub(crate) async fn enrol(
        &self,
        authority: &mut Authority,
        environment: &str,
    ) -> Outcome<Credential> {
        let issued = authority.issue(self.first(environment)).await?.into_inner();
        let chain = issued.chain.into_iter().map(Into::into).collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.pkcs8_der().to_vec()));
        Ok(Credential { chain, key })
    }
}

/// Revokes an agent and returns what the authority answered.
pub(crate) async fn revoke(
    authority: &mut Authority,
    environment: &str,
    name: &str,
) -> Outcome<RevokeResponse> {
    let selector = AgentSelector {
        environment: environment.to_owned(),
        name: name.to_owned(),
    };
    let request = RevokeRequest {
        target: Some(Target::Agent(selector)),
        reason: KEY_COMPROMISE,
    };
    Ok(authority.revoke(request).await?.into_inner())
}
