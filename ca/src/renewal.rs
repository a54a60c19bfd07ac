//! The authority's own certificates, for TLS, for its log and for the witness: renewed when a third of
//! their life is left, at start and while running, for the keys they have.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agentca_identity::certificate::{Certificate, ReadError};
use agentca_identity::crypto::PublicKey;
use agentca_identity::name::{DnsName, TrustDomain};
use agentca_identity::spiffe::{LogOrigin, OriginError};
use agentca_identity::time::Timestamp;

use crate::authority::change::{AnnounceSigner, RenewOwn, SignedCredential};
use crate::authority::core::Authority;
use crate::authority::refusal::Refusal;
use crate::keys::{Credential, KeyError, KeyFolder, KeyName};
use crate::mint::MintError;
use crate::rotation::{Means, Rotation};
use crate::tls::{ServerCertificate, TlsError};

/// The authority's own certificates.
#[derive(Debug)]
pub struct Own {
    /// The authority.
    pub authority: Arc<Authority>,
    /// What it serves with.
    pub certificate: Arc<ServerCertificate>,
    /// Where they lie.
    pub folder: KeyFolder,
    /// Of its TLS.
    pub server: Credential,
    /// Of its log.
    pub log: Credential,
    /// Of the witness.
    pub witness: Credential,
    /// The names in the next one of its TLS.
    pub hosts: (Vec<DnsName>, Vec<IpAddr>),
    /// Looks after the CAs above them.
    pub rotation: Rotation,
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
    /// The trust domain is too long for it.
    #[error(transparent)]
    Origin(#[from] OriginError),
}

impl Own {
    /// Renews for ever.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.rotate(Timestamp::now()).await;
            if let Err(error) = self.renew_if_near(Timestamp::now()).await {
                tracing::error!(%error, "a certificate of the authority's own was not renewed");
            }
        }
    }

    /// Prepares and takes into use the CAs that are due at `now`. What certifies goes on meanwhile.
    pub async fn rotate(&mut self, now: Timestamp) {
        let Authority {
            mint,
            sequencer,
            shelf,
            ..
        } = &*self.authority;
        let folder = &self.folder;
        let means = Means {
            mint,
            sequencer,
            shelf,
            folder,
        };
        if let Err(error) = self.rotation.look(means, now).await {
            tracing::error!(%error, "a CA of the authority has no successor yet");
        }
    }

    /// Renews what has a third of its life left at `now`.
    pub async fn renew_if_near(&mut self, now: Timestamp) -> Result<(), RenewalError> {
        if is_near(&self.log, now)? {
            self.renew_log().await?;
        }
        if is_near(&self.witness, now)? {
            self.renew_witness().await?;
        }
        if is_near(&self.server, now)? {
            self.renew_server().await?;
        }
        Ok(())
    }

    async fn renew_log(&mut self) -> Result<(), RenewalError> {
        let origin = LogOrigin::authority(self.trust_domain()?);
        let chain = self.announce(origin, self.log.key.public_key()).await?;
        self.folder.replace_chain(KeyName::Log, &chain)?;
        self.authority
            .signers
            .renew(|signers| signers.log.clone_from(&chain));
        self.log.chain = chain;
        Ok(())
    }

    /// Enforcers hear of it with the next cosignature, and announce it in their own logs.
    async fn renew_witness(&mut self) -> Result<(), RenewalError> {
        let origin = LogOrigin::witness(self.trust_domain()?)?;
        let chain = self.announce(origin, self.witness.key.public_key()).await?;
        self.folder.replace_chain(KeyName::Witness, &chain)?;
        self.authority
            .signers
            .renew(|signers| signers.witness.clone_from(&chain));
        self.witness.chain = chain;
        Ok(())
    }

    /// A signer goes on with its key; its next certificate is announced in the log itself.
    async fn announce(
        &self,
        origin: LogOrigin,
        key: &PublicKey,
    ) -> Result<Vec<Vec<u8>>, RenewalError> {
        let Authority {
            mint, sequencer, ..
        } = &*self.authority;
        let minted = mint.signer(origin.clone(), key)?;
        let chain = minted.chain();
        let change = AnnounceSigner {
            chain: chain.clone(),
        };
        let submitted = sequencer.submit(change)?;
        if let Some(index) = submitted.last() {
            sequencer.durable(index).await?;
        }
        tracing::info!(%origin, until = %minted.facts.not_after, "a signer's certificate was renewed");
        Ok(chain)
    }

    fn trust_domain(&self) -> Result<TrustDomain, Refusal> {
        let sequencer = &self.authority.sequencer;
        sequencer.read(|state, _| state.trust_domain().clone())
    }

    async fn renew_server(&mut self) -> Result<(), RenewalError> {
        let (dns, ip) = self.hosts.clone();
        let trust_domain = self.trust_domain()?;
        let key = self.server.key.public_key();
        let minted = self.authority.mint.authority(trust_domain, dns, ip, key)?;
        let subject = minted.certificate.id().ok_or(RenewalError::Empty)?;
        let credential = SignedCredential::new(subject, &minted, None);
        let submitted = self.authority.sequencer.submit(RenewOwn { credential })?;
        if let Some(index) = submitted.last() {
            self.authority.sequencer.durable(index).await?;
        }
        let chain = minted.chain();
        self.folder.replace_chain(KeyName::Server, &chain)?;
        self.certificate.replace(&chain, &self.server.key)?;
        self.server.chain = chain;
        tracing::info!(until = %minted.facts.not_after, "the authority's certificate was renewed");
        Ok(())
    }
}

/// Whether a third of its life, or less, is left at `now`.
fn is_near(credential: &Credential, now: Timestamp) -> Result<bool, RenewalError> {
    let der = credential.chain.first().ok_or(RenewalError::Empty)?;
    let present = Certificate::parse(der)?;
    let life = present.not_after().saturating_since(present.not_before());
    let left = present.not_after().saturating_since(now);
    Ok(left <= life / 3)
}

/// How often they are looked at.
const LOOK: Duration = Duration::from_secs(10);
