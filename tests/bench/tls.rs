//! The rustls configurations of the benchmark: the load generator's side and the floor's side.

use std::path::Path;
use std::sync::Arc;

use agentca_identity::crypto::provider;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
};

use crate::Outcome;

/// A chain (leaf first) and its key.
pub(crate) struct Credential {
    /// Leaf, then intermediate.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// PKCS#8.
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Credential {
    /// Reads `<stem>.crt` and `<stem>.key`.
    pub(crate) fn read(stem: &Path) -> Outcome<Self> {
        let (chain, key) = (stem.with_extension("crt"), stem.with_extension("key"));
        let unreadable = |path: &Path, e| format!("{}: {e}", path.display());
        let chain = CertificateDer::pem_file_iter(&chain)
            .and_then(Iterator::collect)
            .map_err(|e| unreadable(&chain, e))?;
        let key = PrivateKeyDer::from_pem_file(&key).map_err(|e| unreadable(&key, e))?;
        Ok(Self { chain, key })
    }
}

impl Clone for Credential {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// What a connection speaks inside TLS.
#[derive(Clone, Copy)]
pub(crate) enum Speaks {
    /// The load.
    Http1,
    /// Calls to the authority.
    Grpc,
}

/// The load generator's configuration: full TLS 1.3 handshakes, no resumption.
///
/// It does not check the server, so that its core is spent on asking; what the server checks is
/// what is measured.
pub(crate) fn client(credential: Credential, speaks: Speaks) -> Outcome<Arc<ClientConfig>> {
    let provider = provider();
    let unchecked = Arc::new(Unchecked {
        schemes: provider
            .signature_verification_algorithms
            .supported_schemes(),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(unchecked)
        .with_client_auth_cert(credential.chain, credential.key)?;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = match speaks {
        Speaks::Http1 => vec![b"http/1.1".to_vec()],
        Speaks::Grpc => vec![b"h2".to_vec()],
    };
    Ok(Arc::new(config))
}

/// The floor's configuration: what any rustls server would do for mutual TLS, no tickets.
pub(crate) fn floor_server(credential: Credential, root: &Path) -> Outcome<Arc<ServerConfig>> {
    let provider = provider();
    let mut roots = RootCertStore::empty();
    for anchor in CertificateDer::pem_file_iter(root)? {
        roots.add(anchor?)?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credential.chain, credential.key)?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Takes any server at its word.
#[derive(Debug)]
struct Unchecked {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
