//! The TLS configurations of this program: 1.3 only (upstreams may be older), no resumption, no tickets, no early
//! data. rustls skips the client's verification on resumption, so none may ever happen.

use std::sync::Arc;

use agentca_identity::chain::{TrustAnchor, VerifiedPeer};
use agentca_identity::crypto::{self, PrivateKey};
use agentca_identity::peer::PeerVerifier;
use agentca_identity::spiffe::Role;
use agentca_identity::time::Timestamp;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{CertificateError, ClientConfig, ServerConfig};

use crate::credentials::Credentials;
use crate::status::{Claim, Readiness, Registry, Verdict};

/// What agents connect to.
///
/// # Errors
/// When the key is not the certificate's.
pub(crate) fn server_config(
    chain: &[Vec<u8>],
    key: &PrivateKey,
    agents: Arc<PeerVerifier>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(agents)
        .with_single_cert(certificates(chain), pkcs8(key))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// What dials the authority: its peer must be the authority by its SPIFFE id, whatever its name.
///
/// # Errors
/// When the key is not the certificate's.
pub(crate) fn authority_client(
    credentials: &Credentials,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let anchor = TrustAnchor::clone(&credentials.anchor);
    let authority = PeerVerifier::new(anchor, &[Role::Authority], Arc::new(Timestamp::now), None);
    let mut config = ClientConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(authority))
        .with_client_auth_cert(
            certificates(&credentials.tls.chain),
            pkcs8(&credentials.tls.key),
        )?;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(Arc::new(config))
}

/// What dials a server that is not ours, and which `verifier` judges. TLS 1.2 besides 1.3: there are many that know
/// nothing newer. Every connection is verified anew, so nothing is resumed.
///
/// # Errors
/// When the key is not the certificate's.
pub(crate) fn upstream_client(
    verifier: Arc<dyn ServerCertVerifier>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(crypto::foreign_provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match client {
        Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
        None => config.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// Judges who connects: only agents, none that is known to be revoked, and nobody before this
/// enforcer is ready. Whether a certificate was issued at all is asked per request, where waiting
/// for the feed does no harm.
pub(crate) fn agent_verifier(anchor: TrustAnchor, registry: &Arc<Registry>) -> Arc<PeerVerifier> {
    let clock = Arc::clone(registry);
    let registry = Arc::clone(registry);
    let now = Arc::new(move || clock.now());
    let extra = Arc::new(move |peer: &VerifiedPeer| admit(&registry, peer));
    Arc::new(PeerVerifier::new(anchor, &[Role::Agent], now, Some(extra)))
}

fn admit(registry: &Registry, peer: &VerifiedPeer) -> Result<(), CertificateError> {
    if registry.readiness() != Readiness::Ready {
        return Err(CertificateError::ApplicationVerificationFailure);
    }
    let agent = peer
        .agent()
        .ok_or(CertificateError::ApplicationVerificationFailure)?;
    match registry.handshake_verdict(&Claim::of(peer.certificate(), &agent.uri)) {
        Verdict::Revoked => Err(CertificateError::Revoked),
        Verdict::Valid | Verdict::Unknown => Ok(()),
    }
}

/// A server for tests, which asks nobody who he is.
#[cfg(test)]
pub(crate) fn testing_server(chain: &[Vec<u8>], key: &PrivateKey) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates(chain), pkcs8(key));
    Arc::new(config.unwrap())
}

fn certificates(chain: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    chain
        .iter()
        .map(|der| CertificateDer::from(der.clone()))
        .collect()
}

fn pkcs8(key: &PrivateKey) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()).into()
}

/// HTTP/2 by its ALPN name.
pub(crate) const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";
