//! The folder that `agentca issue --out DIR` wrote: `agent.key`, `agent.crt` (leaf, then issuer) and
//! `ca.crt`, the root.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentca_identity::certificate::Certificate;
use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::PrivateKey;
use agentca_identity::pem;
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::time::Timestamp;
use zeroize::Zeroizing;

/// The certificates.
pub(crate) const CERTIFICATE: &str = "agent.crt";
/// The key.
pub(crate) const KEY: &str = "agent.key";
const ROOT: &str = "ca.crt";

/// An agent's certificate, its key and the root it is used under.
#[derive(Debug)]
pub(crate) struct Credential {
    /// The leaf, then its issuer; DER.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) certificate: Certificate,
    pub(crate) key: PrivateKey,
    pub(crate) anchor: TrustAnchor,
    pub(crate) folder: PathBuf,
}

/// Why a folder can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("there is no folder {}, give one that `agentca issue NAME --out DIR` wrote", .0.display())]
    NoFolder(PathBuf),
    #[error("{} is a file, give the folder that it lies in", .0.display())]
    File(PathBuf),
    #[error(
        "{} holds no agent's certificate (agent.crt), give a folder that `agentca issue NAME --out DIR` wrote",
        .0.display()
    )]
    NotAnAgents(PathBuf),
    #[error("could not read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is not usable: {detail}", path.display())]
    Unusable { path: PathBuf, detail: String },
    #[error("{path} can be read by others (mode {mode:04o}), keep it to yourself: `chmod 600 {path}`", path = path.display())]
    Readable { path: PathBuf, mode: u32 },
    #[error("{} does not belong to {}, have both written again", key.display(), certificate.display())]
    Mismatch { key: PathBuf, certificate: PathBuf },
    #[error("the certificate {} ended at {}, have it issued again: {how}", path.display(), at.rfc3339())]
    Expired {
        path: PathBuf,
        at: Timestamp,
        how: String,
    },
}

impl Credential {
    /// Reads a folder. Whoever renews it puts the key in its place first: a key and a certificate that
    /// differ are read again a few times.
    pub(crate) fn load(folder: &Path) -> Result<Self, CredentialError> {
        let mut tries = TRIES;
        loop {
            match Self::load_now(folder) {
                Err(CredentialError::Mismatch { .. }) if tries > 0 => tries -= 1,
                other => return other,
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Reads a folder as it is at this moment: whoever can look again does not wait.
    pub(crate) fn load_now(folder: &Path) -> Result<Self, CredentialError> {
        if folder.is_file() {
            return Err(CredentialError::File(folder.to_owned()));
        }
        if !folder.exists() {
            return Err(CredentialError::NoFolder(folder.to_owned()));
        }
        let certificate_path = folder.join(CERTIFICATE);
        if !certificate_path.exists() {
            return Err(CredentialError::NotAnAgents(folder.to_owned()));
        }
        let root = folder.join(ROOT);
        let anchor = TrustAnchor::from_pem(&read(&root)?).map_err(unusable(&root))?;
        let key = read_key(&folder.join(KEY))?;
        let chain =
            pem::decode_certs(&read(&certificate_path)?).map_err(unusable(&certificate_path))?;
        let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
        let certificate = Certificate::parse(leaf).map_err(unusable(&certificate_path))?;
        if certificate.agent().is_none() {
            return Err(CredentialError::NotAnAgents(folder.to_owned()));
        }
        if key.public_key() != certificate.public_key() {
            return Err(CredentialError::Mismatch {
                key: folder.join(KEY),
                certificate: certificate_path,
            });
        }
        Ok(Self {
            chain,
            certificate,
            key,
            anchor,
            folder: folder.to_owned(),
        })
    }

    /// Refuses a certificate that has ended, with what brings another.
    pub(crate) fn check_time(&self, now: Timestamp) -> Result<(), CredentialError> {
        let at = self.certificate.not_after();
        if now.truncate_to_secs() <= at {
            return Ok(());
        }
        Err(CredentialError::Expired {
            path: self.folder.join(CERTIFICATE),
            at,
            how: self.issued_again(),
        })
    }

    /// The command that brings what can't be renewed any more.
    fn issued_again(&self) -> String {
        let out = self.folder.display();
        match self.certificate.id() {
            Some(SpiffeId::Agent {
                environment, name, ..
            }) => format!("`agentca issue {environment}/{name} --out {out} --force`"),
            _ => format!("`agentca issue NAME --out {out} --force`"),
        }
    }
}

fn read(path: &Path) -> Result<String, CredentialError> {
    fs::read_to_string(path).map_err(|source| CredentialError::Io {
        path: path.to_owned(),
        source,
    })
}

/// A key that others can read is nobody's proof of anything.
fn read_key(path: &Path) -> Result<PrivateKey, CredentialError> {
    let found = fs::metadata(path).map_err(|source| CredentialError::Io {
        path: path.to_owned(),
        source,
    })?;
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(CredentialError::Readable { path, mode });
    }
    let text = Zeroizing::new(read(path)?);
    PrivateKey::from_pem(&text).map_err(unusable(path))
}

fn unusable<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> CredentialError {
    let path = path.to_owned();
    move |error| CredentialError::Unusable {
        path,
        detail: error.to_string(),
    }
}

const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);
