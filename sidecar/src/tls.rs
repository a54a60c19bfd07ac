//! The one place that builds rustls configurations: TLS 1.3 only, no resumption, no early data. Peers
//! are judged by their SPIFFE ids under the root of the credential in use; an enforcer has to have the
//! name that was dialled besides.

use std::net::IpAddr;
use std::sync::Arc;

use agentca_identity::certificate::Subject;
use agentca_identity::chain::VerifiedPeer;
use agentca_identity::crypto;
use agentca_identity::peer::{Extra, PeerVerifier};
use agentca_identity::spiffe::Role;
use agentca_identity::time::Timestamp;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{CertificateError, ClientConfig};

use crate::credentials::Credential;
use crate::url::Place;

/// What dials an enforcer, and tells who it was.
#[derive(Clone, Debug)]
pub(crate) struct Dialler {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) verifier: Arc<PeerVerifier>,
}

/// Dials the enforcer at `place` with this credential.
pub(crate) fn enforcer(credential: &Credential, place: &Place) -> Result<Dialler, rustls::Error> {
    let (host, address) = (place.host.clone(), place.address());
    let named: Extra = Arc::new(move |peer| check_name(peer, &host, address));
    dialler(credential, Role::Enforcer, Some(named), b"http/1.1")
}

/// Dials the authority with this credential: its SPIFFE id is enough, whatever its name.
pub(crate) fn authority(credential: &Credential) -> Result<Dialler, rustls::Error> {
    dialler(credential, Role::Authority, None, b"h2")
}

fn dialler(
    credential: &Credential,
    role: Role,
    extra: Option<Extra>,
    protocol: &[u8],
) -> Result<Dialler, rustls::Error> {
    let clock = Arc::new(Timestamp::now);
    let verifier = PeerVerifier::new(credential.anchor.clone(), &[role], clock, extra);
    let verifier = Arc::new(verifier);
    let chain = credential.chain.iter().cloned().map(CertificateDer::from);
    let key = PrivatePkcs8KeyDer::from(credential.key.pkcs8_der().to_vec());
    let mut config = ClientConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
        .with_client_auth_cert(chain.collect(), PrivateKeyDer::from(key))?;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Dialler {
        config: Arc::new(config),
        verifier,
    })
}

fn check_name(
    peer: &VerifiedPeer,
    host: &str,
    address: Option<IpAddr>,
) -> Result<(), CertificateError> {
    let Subject::Enforcer(enforcer) = peer.certificate().subject() else {
        return Err(CertificateError::ApplicationVerificationFailure);
    };
    let named = match address {
        Some(address) => enforcer.ip.contains(&address),
        None => enforcer
            .dns
            .iter()
            .any(|name| name.as_str().eq_ignore_ascii_case(host)),
    };
    if named {
        Ok(())
    } else {
        Err(CertificateError::NotValidForName)
    }
}
