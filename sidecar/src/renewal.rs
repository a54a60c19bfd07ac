//! Keeps the certificate alive: at two thirds of its life the authority is asked for the next one, for a
//! new key; then key and certificate are put in the place of the old ones, the key first. A reader that
//! finds them differing has come in between and reads again.
//!
//! An authority that is away is asked again, ever more slowly. What somebody else puts into the folder is
//! taken over like our own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentca_identity::crypto::{self, CryptoError, PrivateKey};
use agentca_identity::pem;
use agentca_identity::profile::BACKDATE;
use agentca_identity::profile::csr;
use agentca_identity::spiffe::Role;
use agentca_identity::time::Timestamp;

use crate::authority::{self, AuthorityError};
use crate::credentials::{CERTIFICATE, Credential, KEY};
use crate::holder::{Holder, HolderError};
use crate::url::AuthorityUrl;

/// Why nothing was renewed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Holder(#[from] HolderError),
    #[error("could not make a key: {0}")]
    Key(String),
    #[error("the authority answered with a certificate that does not verify: {0}")]
    Answer(String),
    #[error("could not write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Renews whenever it is due, for ever.
pub(crate) async fn keep(holder: &Holder, url: &AuthorityUrl) {
    let mut failures: u32 = 0;
    loop {
        let due = due(&holder.newest().credential, crypto::random());
        until(holder, due).await;
        // Meanwhile somebody else may have put another one there.
        if self::due(&holder.newest().credential, [0; 2]) > Timestamp::now() {
            continue;
        }
        let ends = holder.newest().credential.certificate.not_after();
        match renew(holder, url).await {
            Ok(()) => {
                failures = 0;
                // However short a life is, the authority is not asked without pause.
                tokio::time::sleep(retry_after(0)).await;
            }
            Err(error) => {
                let wait = retry_after(failures);
                failures = failures.saturating_add(1);
                let seconds = wait.as_secs().max(1);
                tracing::warn!(%error, ends = %ends.rfc3339(), "not renewed; trying again in {seconds} s");
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Renews now.
pub(crate) async fn renew(holder: &Holder, url: &AuthorityUrl) -> Result<(), RenewError> {
    holder.refresh()?;
    let held = holder.newest();
    let old = &held.credential;
    let unmade = |e: CryptoError| RenewError::Key(e.to_string());
    let key = PrivateKey::generate(old.key.kind()).map_err(unmade)?;
    let request = csr::make(&key).map_err(|e| RenewError::Key(e.to_string()))?;
    let chain = authority::renew(url, old, request).await?;
    accept(old, &chain, &key)?;
    let certificates = pem::encode_certs(&chain);
    replace(&old.folder, KEY, key.to_pem().as_bytes(), 0o600)?;
    replace(&old.folder, CERTIFICATE, certificates.as_bytes(), 0o644)?;
    holder.refresh()?;
    let ends = holder.newest().credential.certificate.not_after();
    tracing::info!(until = %ends.rfc3339(), "renewed the certificate");
    Ok(())
}

/// Takes what the authority issued for the same agent and the new key, or refuses it.
fn accept(old: &Credential, chain: &[Vec<u8>], key: &PrivateKey) -> Result<(), RenewError> {
    let wrong = |detail: &str| RenewError::Answer(detail.to_owned());
    let parts: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let peer = old
        .anchor
        .verify(&parts, Timestamp::now(), Role::Agent)
        .map_err(|e| wrong(&e.to_string()))?;
    if Some(peer.id()) != old.certificate.id().as_ref() {
        return Err(wrong("it is for another agent"));
    }
    if peer.certificate().public_key() != key.public_key() {
        return Err(wrong("it is for another key"));
    }
    Ok(())
}

/// Replaces one file, whole or not at all.
fn replace(folder: &Path, name: &str, contents: &[u8], mode: u32) -> Result<(), RenewError> {
    let random = u64::from_be_bytes(crypto::random());
    let (place, aside) = (
        folder.join(name),
        folder.join(format!(".{name}.tmp-{random:016x}")),
    );
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&aside)
        .and_then(|mut file| {
            file.write_all(contents)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&aside, &place))
        .and_then(|()| File::open(folder)?.sync_all());
    written.map_err(|source| {
        // Gone already when it was renamed.
        let _gone = fs::remove_file(&aside);
        RenewError::Write {
            path: place,
            source,
        }
    })
}

/// Sleeps in short steps: the clock may be set, a machine may have been suspended, the files replaced.
async fn until(holder: &Holder, due: Timestamp) {
    let before = holder.newest().credential.certificate.serial();
    loop {
        let left = due.saturating_since(Timestamp::now());
        if left.is_zero() || holder.newest().credential.certificate.serial() != before {
            return;
        }
        tokio::time::sleep(left.min(STEP)).await;
    }
}

/// Two thirds through a life, moved by up to a twentieth of it either way; `random` is uniform.
fn due(credential: &Credential, random: [u8; 2]) -> Timestamp {
    let certificate = &credential.certificate;
    let life = (certificate.not_before(), certificate.not_after());
    due_within(life, u16::from_be_bytes(random))
}

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

/// How long to wait after the `failures`th failure in a row: half of it for certain, half at random.
fn retry_after(failures: u32) -> Duration {
    let longest = RETRY.0.saturating_mul(1 << failures.min(10)).min(RETRY.1);
    let random = u32::from(u16::from_be_bytes(crypto::random()));
    longest / 2 + (longest / 2).saturating_mul(random) / u32::from(u16::MAX)
}

const STEP: Duration = Duration::from_secs(5);
/// The shortest and the longest wait before another attempt.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_around_two_thirds_of_its_life() {
        let start = Timestamp::from_secs(1_800_000_000);
        let life = (start - BACKDATE, start + Duration::from_secs(3600));
        let seconds = |random| due_within(life, random).saturating_since(start).as_secs();
        assert_eq!((seconds(0), seconds(u16::MAX)), (2220, 2580));
    }

    #[test]
    fn waits_grow_and_stay_bounded() {
        assert!(retry_after(0) <= RETRY.0);
        for failures in [6, 7, 31, 32, u32::MAX] {
            let wait = retry_after(failures);
            assert!(
                wait >= RETRY.1 / 2 && wait <= RETRY.1,
                "{failures}: {wait:?}"
            );
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "old").unwrap();
        replace(folder.path(), "a", b"new", 0o600).unwrap();
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"new");
        // A folder cannot be replaced by a file.
        fs::create_dir_all(folder.path().join("b/c")).unwrap();
        replace(folder.path(), "b", b"new", 0o600).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
