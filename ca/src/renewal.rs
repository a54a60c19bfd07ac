//! The authority's own certificates, for TLS, for its log and for the witness: renewed when a third of
//! their life is left, at start and while running, for the keys they have.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agentca_identity::certificate::{Certificate, ReadError};
use agentca_identity::crypto::PublicKey;
use agentca_identity::name::{DnsName, TrustDomain};
use agentca_identity::spiffe::{LogOrigin, OriginError, SpiffeId};
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
    pub folder: Arc<KeyFolder>,
    /// Of its TLS.
    pub server: Credential,
    /// Of its log.
    pub log: Credential,
    /// Of the witness.
    pub witness: Credential,
    /// The names in the next one of its TLS.
    pub hosts: (Vec<DnsName>, Vec<IpAddr>),
    /// What is recorded and could not be written: it is not made again for that.
    pub unwritten: Unwritten,
    /// Looks after the CAs above them.
    pub rotation: Rotation,
}

/// Renewed certificates that are recorded, and not yet in their files.
#[derive(Debug, Default)]
pub struct Unwritten {
    server: Option<Chain>,
    log: Option<Chain>,
    witness: Option<Chain>,
}

/// Leaf, then intermediate, DER.
type Chain = Vec<Vec<u8>>;

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
            self.look(Timestamp::now()).await;
        }
    }

    /// Renews what is due at `now`. What fails is said, and tried again at the next look.
    pub async fn look(&mut self, now: Timestamp) {
        self.rotate(now).await;
        for error in self.renew_if_near(now).await {
            tracing::error!(%error, "a certificate of the authority's own was not renewed");
        }
    }

    /// Prepares and takes into use the CAs that are due at `now`. What certifies goes on meanwhile.
    async fn rotate(&mut self, now: Timestamp) {
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
        for error in self.rotation.look(means, now).await {
            tracing::error!(%error, "a CA of the authority has no successor yet");
        }
    }

    /// Renews what has a third of its life left at `now`, each whatever becomes of the others.
    async fn renew_if_near(&mut self, now: Timestamp) -> Vec<RenewalError> {
        let mut failed = Vec::new();
        failed.extend(self.renew_log(now).await.err());
        failed.extend(self.renew_witness(now).await.err());
        failed.extend(self.renew_server(now).await.err());
        failed
    }

    async fn renew_log(&mut self, now: Timestamp) -> Result<(), RenewalError> {
        if !is_near(&self.log, now)? {
            return Ok(());
        }
        let chain = match self.unwritten.log.clone() {
            Some(chain) => chain,
            None => {
                let origin = LogOrigin::authority(self.trust_domain()?);
                self.announce(origin, self.log.key.public_key()).await?
            }
        };
        self.unwritten.log = Some(chain.clone());
        self.folder.replace_chain(KeyName::Log, &chain)?;
        self.unwritten.log = None;
        self.authority
            .signers
            .renew(|signers| signers.log.clone_from(&chain));
        self.log.chain = chain;
        Ok(())
    }

    /// Enforcers hear of it with the next cosignature, and announce it in their own logs.
    async fn renew_witness(&mut self, now: Timestamp) -> Result<(), RenewalError> {
        if !is_near(&self.witness, now)? {
            return Ok(());
        }
        let chain = match self.unwritten.witness.clone() {
            Some(chain) => chain,
            None => {
                let origin = LogOrigin::witness(self.trust_domain()?)?;
                self.announce(origin, self.witness.key.public_key()).await?
            }
        };
        self.unwritten.witness = Some(chain.clone());
        self.folder.replace_chain(KeyName::Witness, &chain)?;
        self.unwritten.witness = None;
        self.authority
            .signers
            .renew(|signers| signers.witness.clone_from(&chain));
        self.witness.chain = chain;
        Ok(())
    }

    /// A signer goes on with its key; its next certificate is announced in the log itself.
    async fn announce(&self, origin: LogOrigin, key: &PublicKey) -> Result<Chain, RenewalError> {
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

    async fn renew_server(&mut self, now: Timestamp) -> Result<(), RenewalError> {
        if !is_near(&self.server, now)? {
            return Ok(());
        }
        let chain = match self.unwritten.server.clone() {
            Some(chain) => chain,
            None => self.certify_server().await?,
        };
        self.unwritten.server = Some(chain.clone());
        self.folder.replace_chain(KeyName::Server, &chain)?;
        self.unwritten.server = None;
        self.certificate.replace(&chain, &self.server.key)?;
        self.server.chain = chain;
        tracing::info!("the authority's certificate was renewed");
        Ok(())
    }

    async fn certify_server(&self) -> Result<Chain, RenewalError> {
        let (dns, ip) = self.hosts.clone();
        let trust_domain = self.trust_domain()?;
        let key = self.server.key.public_key();
        let subject = SpiffeId::Authority {
            trust_domain: trust_domain.clone(),
        };
        let minted = self.authority.mint.authority(trust_domain, dns, ip, key)?;
        let credential = SignedCredential::new(subject, &minted, None);
        let submitted = self.authority.sequencer.submit(RenewOwn { credential })?;
        if let Some(index) = submitted.last() {
            self.authority.sequencer.durable(index).await?;
        }
        Ok(minted.chain())
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

#[cfg(test)]
mod tests {
    use agentca_identity::chain::TrustAnchor;

    use super::*;
    use crate::testing::Made;
    use crate::tls;

    fn own(made: &Made) -> Own {
        let authority = Arc::new(made.authority());
        let keys = &made.keys;
        let anchor = TrustAnchor::from_root_der(keys.root.der()).unwrap();
        anchor
            .learn_pen(keys.signer.current().certificate().der())
            .unwrap();
        let server = tls::server_config(anchor, &keys.server.chain, &keys.server.key).unwrap();
        Own {
            authority,
            certificate: server.certificate,
            folder: Arc::new(KeyFolder::new(&made.data(), None)),
            server: keys.server.clone(),
            log: keys.log.clone(),
            witness: keys.witness.clone(),
            hosts: crate::init::server_hosts(&[]),
            unwritten: Unwritten::default(),
            rotation: Rotation {
                pen: keys.pen,
                root_end: keys.root.not_after(),
                warned: [None; 2],
            },
        }
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_recorded_once_and_keeps_nothing_waiting() {
        let made = Made::new(drop);
        let mut own = own(&made);
        let before = (own.log.chain.clone(), own.witness.chain.clone());
        // A file cannot take the place of a folder with something in it.
        let path = made.data().join("keys/log.crt");
        let aside = made.data().join("keys/aside");
        std::fs::rename(&path, &aside).unwrap();
        std::fs::create_dir_all(path.join("in-the-way")).unwrap();
        let near = Certificate::parse(&own.log.chain[0]).unwrap().not_after();
        let records = |own: &Own| {
            let read = own.authority.sequencer.read(|state, _| state.applied());
            read.unwrap()
        };
        let first = records(&own);
        let failed = own.renew_if_near(near).await;
        assert!(matches!(failed[..], [RenewalError::Key(_)]), "{failed:?}");
        assert_eq!(own.log.chain, before.0);
        assert_ne!(own.witness.chain, before.1);
        assert_eq!(records(&own), first + 3, "all three are recorded");
        // At that time they are all due again; of the log only the writing is.
        let failed = own.renew_if_near(near).await;
        assert_eq!((failed.len(), records(&own)), (1, first + 5));
        std::fs::remove_dir_all(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
        assert!(own.renew_if_near(near).await.is_empty());
        assert_eq!(records(&own), first + 7);
        assert_ne!(own.log.chain, before.0);
    }
}
