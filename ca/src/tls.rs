//! TLS of the authority and of its clients (RFC 8446): the one place that builds rustls
//! configurations. TLS 1.3 only; no resumption, no tickets, no early data, since a resumed session
//! would skip the verifier. Peers are judged by their SPIFFE ids.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use agentca_identity::chain::{TrustAnchor, VerifiedPeer};
use agentca_identity::crypto::{PrivateKey, provider};
use agentca_identity::peer::PeerVerifier;
use agentca_identity::spiffe::Role;
use agentca_identity::time::Timestamp;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::coalesce::Coalesced;

/// Who may connect to the authority.
pub const CALLERS: [Role; 3] = [Role::Agent, Role::Enforcer, Role::Person];

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refuses it.
    #[error("the TLS credential cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
}

/// What the authority serves with.
#[derive(Clone, Debug)]
pub struct Server {
    acceptor: Acceptor,
    /// The certificate in use; it can be replaced while running.
    pub certificate: Arc<ServerCertificate>,
}

/// Accepts connections of [`CALLERS`].
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    verifier: Arc<PeerVerifier>,
}

/// The authority's certificate, replaceable.
pub struct ServerCertificate(RwLock<Arc<CertifiedKey>>);

/// What an authority with this certificate serves with.
pub fn server_config(
    anchor: TrustAnchor,
    chain: &[Vec<u8>],
    key: &PrivateKey,
) -> Result<Server, TlsError> {
    let verifier = Arc::new(PeerVerifier::new(
        anchor,
        &CALLERS,
        Arc::new(Timestamp::now),
        None,
    ));
    let certificate = Arc::new(ServerCertificate(RwLock::new(certified(chain, key)?)));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::clone(&verifier) as _)
        .with_cert_resolver(Arc::clone(&certificate) as _);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = Acceptor {
        tls: TlsAcceptor::from(Arc::new(config)),
        verifier,
    };
    Ok(Server {
        acceptor,
        certificate,
    })
}

/// What a client with this credential dials with; the peer must play `role`.
pub fn client_config(
    anchor: &TrustAnchor,
    chain: &[Vec<u8>],
    key: &PrivateKey,
    role: Role,
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = PeerVerifier::new(anchor.clone(), &[role], Arc::new(Timestamp::now), None);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(certificates(chain), private_key(key))?;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

impl Server {
    /// Shakes hands, and knows the peer. The connection counts against `slot`'s limit as long as it lives.
    pub async fn accept(
        &self,
        stream: TcpStream,
        slot: OwnedSemaphorePermit,
    ) -> io::Result<PeerStream> {
        let stream = self.acceptor.tls.accept(stream).await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = self
            .acceptor
            .verifier
            .peer(certificates)
            .ok_or_else(|| io::Error::other("the peer's certificate was not verified"))?;
        Ok(PeerStream {
            stream: Coalesced::new(Box::new(stream)),
            peer: ConnectedPeer(peer),
            _slot: slot,
        })
    }
}

impl ServerCertificate {
    /// Serves new connections with this certificate.
    pub fn replace(&self, chain: &[Vec<u8>], key: &PrivateKey) -> Result<(), TlsError> {
        let fresh = certified(chain, key)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.0.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").finish_non_exhaustive()
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("verifier", &self.verifier)
            .finish_non_exhaustive()
    }
}

/// A TLS connection whose peer is known.
#[derive(Debug)]
pub struct PeerStream {
    stream: Coalesced<Box<TlsStream<TcpStream>>>,
    peer: ConnectedPeer,
    _slot: OwnedSemaphorePermit,
}

/// The peer of a connection, as requests carry it.
#[derive(Clone, Debug)]
pub struct ConnectedPeer(pub Arc<VerifiedPeer>);

impl Connected for PeerStream {
    type ConnectInfo = ConnectedPeer;

    fn connect_info(&self) -> ConnectedPeer {
        self.peer.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn certified(chain: &[Vec<u8>], key: &PrivateKey) -> Result<Arc<CertifiedKey>, TlsError> {
    let key = provider().key_provider.load_private_key(private_key(key))?;
    Ok(Arc::new(CertifiedKey::new(certificates(chain), key)))
}

fn certificates(chain: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    chain
        .iter()
        .map(|der| CertificateDer::from(der.clone()))
        .collect()
}

fn private_key(key: &PrivateKey) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()).into()
}
