//! The authority's own certificates, for TLS and for its log: renewed when a third of their life is
//! left, at start and while running, for the keys they have.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agentca_identity::certificate::{Certificate, ReadError};
use agentca_identity::name::DnsName;
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;

use crate::authority::change::{AnnounceSigner, RenewOwn, SignedCredential};
use crate::authority::core::Authority;
use crate::authority::refusal::Refusal;
use crate::keys::{Credential, KeyError, KeyFolder, KeyName};
use crate::mint::MintError;
use crate::tls::{ServerCertificate, TlsError};

/// The authority's own certificate.
#[derive(Debug)]
pub struct Own {
    /// The authority.
    pub authority: Arc<Authority>,
    /// What it serves with.
    pub certificate: Arc<ServerCertificate>,
    /// Where it lies.
    pub folder: KeyFolder,
    /// What it is now.
    pub credential: Credential,
    /// The key of its log, and that key's certificate.
    pub signer: Credential,
    /// The names in the next one.
    pub hosts: (Vec<DnsName>, Vec<IpAddr>),
}

/// Why it was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The present one is not readable.
    #[error("a certificate of the authority's own in `keys/` is not readable: {0}")]
    Unreadable(#[from] ReadError),
    /// There is none.
    #[error("a certificate of the authority's own in `keys/` is missing")]
    Empty,
    /// It cannot be made.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// It cannot be recorded.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It cannot be written.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Own {
    /// Renews for ever.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.renew_if_near().await {
                tracing::error!(%error, "the authority's own certificate was not renewed");
            }
        }
    }

    /// Renews what has a third of its life left.
    pub async fn renew_if_near(&mut self) -> Result<(), RenewalError> {
        if is_near(&self.signer)? {
            self.renew_signer().await?;
        }
        if is_near(&self.credential)? {
            self.renew_server().await?;
        }
        Ok(())
    }

    /// The log's signer goes on with its key; its next certificate is announced in the log itself.
    async fn renew_signer(&mut self) -> Result<(), RenewalError> {
        let trust_domain = self
            .authority
            .sequencer
            .read(|state, _| state.trust_domain().clone())?;
        let origin = LogOrigin::authority(trust_domain);
        let key = self.signer.key.public_key();
        let minted = self.authority.mint.signer(origin, key)?;
        let chain = self.authority.mint.chain(&minted);
        let change = AnnounceSigner {
            chain: chain.clone(),
        };
        let submitted = self.authority.sequencer.submit(change)?;
        if let Some(index) = submitted.last() {
            self.authority.sequencer.durable(index).await?;
        }
        self.folder.replace_chain(KeyName::Log, &chain)?;
        self.signer.chain = chain;
        tracing::info!(until = %minted.facts.not_after, "the log's certificate was renewed");
        Ok(())
    }

    async fn renew_server(&mut self) -> Result<(), RenewalError> {
        let (dns, ip) = self.hosts.clone();
        let trust_domain = self
            .authority
            .sequencer
            .read(|state, _| state.trust_domain().clone())?;
        let key = self.credential.key.public_key();
        let minted = self.authority.mint.authority(trust_domain, dns, ip, key)?;
        let subject = minted.certificate.id().ok_or(RenewalError::Empty)?;
        let credential = SignedCredential::new(subject, &minted, None);
        let submitted = self.authority.sequencer.submit(RenewOwn { credential })?;
        if let Some(index) = submitted.last() {
            self.authority.sequencer.durable(index).await?;
        }
        let chain = self.authority.mint.chain(&minted);
        self.folder.replace_chain(KeyName::Server, &chain)?;
        self.certificate.replace(&chain, &self.credential.key)?;
        self.credential.chain = chain;
        tracing::info!(until = %minted.facts.not_after, "the authority's certificate was renewed");
        Ok(())
    }
}

/// Whether a third of its life, or less, is left.
fn is_near(credential: &Credential) -> Result<bool, RenewalError> {
    let der = credential.chain.first().ok_or(RenewalError::Empty)?;
    let present = Certificate::parse(der)?;
    let life = present.not_after().saturating_since(present.not_before());
    let left = present.not_after().saturating_since(Timestamp::now());
    Ok(left <= life / 3)
}

/// How often they are looked at.
const LOOK: Duration = Duration::from_secs(60);
