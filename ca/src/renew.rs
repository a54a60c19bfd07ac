//! Renews the certificates of a folder with the certificate in hand, once or for as long as it lives.
//!
//! A renewal makes a new key for every certificate but one: a log goes on under the key it has.
//! Nothing is replaced before everything has been issued and verified; then each key and its
//! certificate are renamed into place one right after the other, the key first. A reader that finds
//! them differing has come in between and reads again.

use std::path::PathBuf;
use std::time::Duration;

use agentca_identity::certificate::{Certificate, Subject};
use agentca_identity::crypto::{self, PrivateKey};
use agentca_identity::pem;
use agentca_identity::profile::BACKDATE;
use agentca_identity::spiffe::{LogOrigin, SpiffeId};
use agentca_identity::time::Timestamp;

use crate::client::{AuthorityUrl, Client, ClientError, Issued, Signer};
use crate::credentials::{self, Credential, CredentialError, Holder, ISSUERS};
use crate::staging::{Existing, Readers, Staging, StagingError};

/// The shortest and the longest wait before another attempt.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why nothing was renewed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    #[error("the certificate ended at {}, have it issued again: {how}", at.rfc3339())]
    Expired { at: Timestamp, how: String },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Staging(#[from] StagingError),
}

impl RenewError {
    /// True when trying again can't help.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Expired { .. } | Self::Client(ClientError::Rejected { .. })
        )
    }
}

/// A folder to keep alive.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) url: AuthorityUrl,
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// What a renewal brought.
#[derive(Debug)]
pub(crate) struct Renewed {
    pub(crate) id: String,
    pub(crate) not_after: Timestamp,
    pub(crate) record: u64,
}

impl Folder {
    /// Renews everything in the folder.
    pub(crate) async fn renew(&self) -> Result<Renewed, RenewError> {
        let holder = Holder::of(&self.path)?;
        let credential = Credential::load(&self.path, holder, self.passphrase_file.as_deref())?;
        let not_after = credential.certificate.not_after();
        if not_after <= Timestamp::now() {
            return Err(RenewError::Expired {
                at: not_after,
                how: self.issued_again(&credential),
            });
        }
        let mut staging = Staging::prepare(&self.path, &[], Existing::Replace)?;
        let mut client = Client::connect(&self.url, &credential).await?;
        let renewed = leaf(&mut client, &credential, holder, &mut staging).await?;
        if holder == Holder::Enforcer {
            self.signer(&mut client, &credential, Signer::Response, &mut staging)
                .await?;
            self.signer(&mut client, &credential, Signer::Log, &mut staging)
                .await?;
        }
        staging.commit()?;
        Ok(renewed)
    }

    /// The command that brings what can no longer be renewed.
    fn issued_again(&self, credential: &Credential) -> String {
        let out = self.path.display();
        match credential.certificate.id() {
            Some(SpiffeId::Agent {
                environment, name, ..
            }) => format!("`agentca issue {environment}/{name} --out {out} --force`"),
            Some(SpiffeId::Enforcer {
                environment, name, ..
            }) => format!(
                "`agentca enforcer add {environment}/{name} --dns HOST --out {out} --force`"
            ),
            Some(SpiffeId::Person { name, .. }) => format!(
                "`agentca person add {name} --role ROLE --out {out} --force` by an admin, or \
                 `agentca person recover {name} --data DIR --out {out} --force` on the authority's machine"
            ),
            _ => "it names nobody".to_owned(),
        }
    }

    /// When the folder is due: at two thirds of its shortest life, give or take a twentieth.
    pub(crate) fn due(&self) -> Result<Timestamp, RenewError> {
        let holder = Holder::of(&self.path)?;
        let mut names = vec![holder.certificate()];
        if holder == Holder::Enforcer {
            names.extend([Signer::Log.certificate(), Signer::Response.certificate()]);
        }
        let mut due = Timestamp::MAX;
        for name in names {
            let certificate = self.certificate(name)?;
            let life = (certificate.not_before(), certificate.not_after());
            due = due.min(due_within(life, u16::from_be_bytes(crypto::random())));
        }
        Ok(due)
    }

    /// How long to wait after the `failures`th failure in a row.
    pub(crate) fn retry_after(failures: u32) -> Duration {
        let longest = RETRY.0.saturating_mul(1 << failures.min(10)).min(RETRY.1);
        // Half of it for certain, the other half at random.
        let random = u32::from(u16::from_be_bytes(crypto::random()));
        longest / 2 + (longest / 2).saturating_mul(random) / u32::from(u16::MAX)
    }

    async fn signer(
        &self,
        client: &mut Client,
        credential: &Credential,
        signer: Signer,
        staging: &mut Staging,
    ) -> Result<(), RenewError> {
        let origin = self.origin(signer)?;
        let (old, passphrase) = credentials::read_key(
            &self.path.join(signer.key()),
            self.passphrase_file.as_deref(),
        )?;
        let key = match signer {
            Signer::Log => old,
            Signer::Response => fresh(&old)?,
        };
        let issued = client
            .renew(credentials::request(&key)?, Some(signer))
            .await?;
        credentials::accept_signer(&credential.anchor, &issued.chain, &origin, key.public_key())?;
        if let Signer::Response = signer {
            let text = credentials::key_text(&key, passphrase.as_ref().map(|p| p.as_str()))?;
            staging.write(signer.key(), text.as_bytes(), Readers::Owner)?;
        }
        write_chain(staging, signer.certificate(), &issued)?;
        Ok(())
    }

    fn origin(&self, signer: Signer) -> Result<LogOrigin, RenewError> {
        match self.certificate(signer.certificate())?.subject() {
            Subject::LogSigner { origin } => Ok(origin.clone()),
            _ => Err(CredentialError::NotAFolder(self.path.clone()).into()),
        }
    }

    fn certificate(&self, name: &str) -> Result<Certificate, RenewError> {
        Ok(credentials::read_leaf(&self.path.join(name))?)
    }
}

async fn leaf(
    client: &mut Client,
    credential: &Credential,
    holder: Holder,
    staging: &mut Staging,
) -> Result<Renewed, RenewError> {
    let key = fresh(&credential.key)?;
    let issued = client.renew(credentials::request(&key)?, None).await?;
    let id = credential.id()?;
    let certificate = credentials::accept(
        &credential.anchor,
        &issued,
        holder.role(),
        &id,
        key.public_key(),
    )?;
    let passphrase = credential.passphrase.as_ref().map(|p| p.as_str());
    let text = credentials::key_text(&key, passphrase)?;
    staging.write(holder.key(), text.as_bytes(), Readers::Owner)?;
    write_chain(staging, holder.certificate(), &issued)?;
    if holder == Holder::Enforcer {
        let issuers = credentials::issuers_text(&credential.anchor, &issued)?;
        staging.write(ISSUERS, issuers.as_bytes(), Readers::Everybody)?;
    }
    Ok(Renewed {
        id: id.to_string(),
        not_after: certificate.not_after(),
        record: issued.record,
    })
}

fn fresh(old: &PrivateKey) -> Result<PrivateKey, RenewError> {
    PrivateKey::generate(old.kind()).map_err(|e| CredentialError::Key(e.to_string()).into())
}

fn write_chain(staging: &mut Staging, name: &str, issued: &Issued) -> Result<(), StagingError> {
    staging.write(
        name,
        pem::encode_certs(&issued.chain).as_bytes(),
        Readers::Everybody,
    )
}

/// Two thirds through a life, moved by up to a twentieth of it either way; `random` is uniform.
fn due_within((not_before, not_after): (Timestamp, Timestamp), random: u16) -> Timestamp {
    let backdated = not_before + BACKDATE;
    let from = if backdated < not_after {
        backdated
    } else {
        not_before
    };
    let life = not_after.saturating_since(from);
    let earliest = from + life * 2 / 3 - life / 20;
    earliest + (life / 10).saturating_mul(u32::from(random)) / u32::from(u16::MAX)
}

impl Signer {
    fn certificate(self) -> &'static str {
        match self {
            Self::Log => "log.crt",
            Self::Response => "response.crt",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Log => "log.key",
            Self::Response => "response.key",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_around_two_thirds() {
        let start = Timestamp::from_secs(1_800_000_000);
        let life = (start - BACKDATE, start + Duration::from_secs(3600));
        let seconds = |random| due_within(life, random).saturating_since(start).as_secs();
        assert_eq!(seconds(0), 2220);
        assert_eq!(seconds(u16::MAX), 2580);
    }

    #[test]
    fn a_life_shorter_than_the_backdating_still_has_a_middle() {
        let start = Timestamp::from_secs(1_800_000_000);
        let due = due_within((start, start + Duration::from_secs(30)), 0);
        assert!(due > start && due < start + Duration::from_secs(30));
    }

    #[test]
    fn waits_grow_and_stay_bounded() {
        assert!(Folder::retry_after(0) <= RETRY.0);
        for failures in [6, 7, 31, 32, u32::MAX] {
            let wait = Folder::retry_after(failures);
            assert!(
                wait >= RETRY.1 / 2 && wait <= RETRY.1,
                "{failures}: {wait:?}"
            );
        }
    }
}
