//! What a reload swaps: configuration, catalogue, certificates and signer, all or nothing.

use std::collections::HashMap;
use std::sync::Arc;

use agentca_auditlog::response::ResponseSigner;
use agentca_identity::certificate::{Certificate, Subject};
use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::PrivateKey;
use agentca_identity::peer::PeerVerifier;
use agentca_identity::spiffe::LogOrigin;
use bytes::Bytes;
use rustls::ServerConfig;

use crate::authorities::Authorities;
use crate::config::Config;
use crate::status::Registry;
use crate::tls;
use crate::upstream::{Target, TargetError, UpstreamLimits};
use crate::well_known;

/// Everything in force for new connections and requests.
#[derive(Debug)]
pub struct Live {
    config: Arc<Config>,
    tls: Arc<ServerConfig>,
    agents: Arc<PeerVerifier>,
    authorities: Authorities,
    signer: ResponseSigner,
    signers: Bytes,
    targets: HashMap<Arc<str>, Arc<Target>>,
}

/// What an enforcer serves with: the contents of its `identity_dir`.
#[derive(Debug)]
pub struct ServingIdentity {
    /// The root.
    pub anchor: TrustAnchor,
    /// The enforcer's certificate, leaf first, DER.
    pub chain: Vec<Vec<u8>>,
    /// Its key.
    pub key: PrivateKey,
    /// The response signer's certificate, leaf first, DER.
    pub response_chain: Vec<Vec<u8>>,
    /// Its key, Ed25519.
    pub response_key: PrivateKey,
    /// The log's name.
    pub log_origin: LogOrigin,
    /// The log signer's certificate, leaf first, DER.
    pub log_chain: Vec<Vec<u8>>,
}

/// Why nothing can be served with an identity.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// A certificate cannot be read.
    #[error("a certificate cannot be read")]
    Unreadable(#[source] agentca_identity::certificate::ReadError),
    /// `tls.crt` is no enforcer's.
    #[error("the TLS certificate is not an enforcer's: make one with `agentca enforcer add`")]
    NotAnEnforcer,
    /// The certificate and its key don't fit.
    #[error("the TLS certificate or its key cannot be used")]
    Tls(#[from] rustls::Error),
    /// The response signer's certificate or key can't be used.
    #[error("the response signer's key is not the Ed25519 key of its certificate")]
    ResponseSigner,
    /// An upstream can't be reached as the configuration says.
    #[error("upstream `{0}`: {1}")]
    Upstream(String, #[source] TargetError),
}

impl Live {
    /// Prepares everything; nothing is in force until it is stored in the server's cell.
    ///
    /// # Errors
    /// [`LiveError`]: the one before stays in force.
    pub fn new(
        config: Arc<Config>,
        identity: &ServingIdentity,
        registry: &Arc<Registry>,
    ) -> Result<Self, LiveError> {
        let leaf = identity.chain.first().ok_or(LiveError::NotAnEnforcer)?;
        let leaf = Certificate::parse(leaf).map_err(LiveError::Unreadable)?;
        let Subject::Enforcer(enforcer) = leaf.subject() else {
            return Err(LiveError::NotAnEnforcer);
        };
        let agents = tls::agent_verifier(identity.anchor.clone(), registry);
        Ok(Self {
            tls: tls::server_config(&identity.chain, &identity.key, Arc::clone(&agents))?,
            agents,
            authorities: Authorities::of(enforcer),
            signer: signer(identity)?,
            signers: well_known::signers_document(identity),
            targets: targets(&config)?,
            config,
        })
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn tls(&self) -> &Arc<ServerConfig> {
        &self.tls
    }

    pub(crate) fn agents(&self) -> &PeerVerifier {
        &self.agents
    }

    pub(crate) fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    pub(crate) fn signer(&self) -> &ResponseSigner {
        &self.signer
    }

    /// The document at `/.well-known/agentca/signers`.
    pub(crate) fn signers(&self) -> &Bytes {
        &self.signers
    }

    pub(crate) fn target(&self, upstream: &str) -> Option<Arc<Target>> {
        self.targets.get(upstream).map(Arc::clone)
    }

    pub(crate) fn upstream_limits(&self) -> UpstreamLimits {
        let limits = &self.config.limits;
        UpstreamLimits {
            connect_timeout: limits.upstream_connect_timeout,
            idle_timeout: limits.upstream_idle_timeout,
            idle_max: limits.upstream_idle_max,
            head_max: limits.head_max,
        }
    }
}

fn targets(config: &Config) -> Result<HashMap<Arc<str>, Arc<Target>>, LiveError> {
    let targets = config.upstreams.iter().filter_map(|upstream| {
        let name = upstream.name.clone();
        Some(match Target::of(upstream)? {
            Ok(target) => Ok((Arc::clone(&target.name), Arc::new(target))),
            Err(error) => Err(LiveError::Upstream(name, error)),
        })
    });
    targets.collect()
}

fn signer(identity: &ServingIdentity) -> Result<ResponseSigner, LiveError> {
    let leaf = identity
        .response_chain
        .first()
        .ok_or(LiveError::ResponseSigner)?;
    let leaf = Certificate::parse(leaf).map_err(LiveError::Unreadable)?;
    if *leaf.public_key() != *identity.response_key.public_key() {
        return Err(LiveError::ResponseSigner);
    }
    ResponseSigner::new(identity.response_key.clone(), leaf.not_after())
        .map_err(|_| LiveError::ResponseSigner)
}
