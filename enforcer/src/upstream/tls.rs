//! How a server is known that we dial over TLS, and we to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentca_identity::crypto::{self, Sha256, sha256};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use zeroize::Zeroizing;

use crate::config::{ClientFiles, TlsOptions, Verify};
use crate::tls;

/// Ready to dial one server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
    /// Two clients with the same may use each other's connections.
    pub(super) identity: [u8; 32],
}

/// Why a server cannot be dialled over TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("{} cannot be read: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file without what is wanted.
    #[error("{} has no {what} in PEM", .path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// No CA.
    #[error(
        "the system trusts no CA: install the package ca-certificates, or name a file with `ca`"
    )]
    NoRoots,
    /// The host.
    #[error("`{0}` can be in no certificate: name what is with `server_name`")]
    Name(String),
    /// A certificate and key that don't fit, or a CA that is none.
    #[error("its certificates or keys cannot be used: {0}")]
    Unusable(String),
}

impl Client {
    /// Reads the files that `options` name.
    pub(crate) fn new(host: &str, options: &TlsOptions) -> Result<Self, TlsError> {
        let name = options.server_name.as_deref().unwrap_or(host);
        let name =
            ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        let mut identity = Sha256::new();
        let mut distinguish = |part: &[u8]| {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            identity.update(&length.to_be_bytes());
            identity.update(part);
        };
        distinguish(name.to_str().as_bytes());
        distinguish(options.pin.as_ref().map_or(&[], |pin| pin.as_slice()));
        let chain = match options.verify {
            Verify::DangerouslyOff => {
                distinguish(b"off");
                None
            }
            Verify::Full => {
                let roots = roots(options.ca.as_deref())?;
                roots.iter().for_each(|root| distinguish(root));
                Some(verifier(&roots)?)
            }
        };
        let verifier = Arc::new(Judge {
            pin: options.pin,
            chain,
            algorithms: crypto::foreign_provider().signature_verification_algorithms,
        });
        distinguish(b"client");
        let client = options.client.as_ref().map(client_files).transpose()?;
        for certificate in client.iter().flat_map(|(chain, _)| chain) {
            distinguish(certificate);
        }
        Ok(Self {
            config: tls::upstream_client(verifier, client)
                .map_err(|error| TlsError::Unusable(error.to_string()))?,
            name,
            identity: identity.finish(),
        })
    }
}

/// Those of the file alone, or those that the system trusts.
fn roots(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    if let Some(file) = file {
        return certificates(file);
    }
    // What could not be read of the system's is not trusted, and that is all.
    let roots = rustls_native_certs::load_native_certs().certs;
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    Ok(roots)
}

fn verifier(roots: &[CertificateDer<'static>]) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    let provider = crypto::foreign_provider();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
    verifier.map_err(|error| TlsError::Unusable(error.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::Pem {
            path: path.to_owned(),
            what: "certificate",
        }),
    }
}

type ClientAuth = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_files(files: &ClientFiles) -> Result<ClientAuth, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(|_| TlsError::Pem {
        path: files.key.clone(),
        what: "private key",
    })?;
    Ok((chain, key))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let read = std::fs::read(path).map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(Zeroizing::new(read))
}

/// Judges a server. Whatever else is asked, it has the key of its certificate.
#[derive(Debug)]
struct Judge {
    /// The certificate must have this key.
    pin: Option<[u8; 32]>,
    /// What judges chain and name; nothing does in environment `dev`, when somebody wrote so.
    chain: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(pin) = self.pin {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            if sha256(&parsed.subject_public_key_info()) != pin {
                return Err(CertificateError::ApplicationVerificationFailure.into());
            }
        }
        match &self.chain {
            Some(chain) => {
                chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
