//! The authority's keys and certificates on disk: `keys/<name>.key` (PKCS#8 PEM, 0600, optionally
//! encrypted) and `keys/<name>.crt` (PEM, leaf first).
//!
//! `root` `issuing` `signer` (the CA of log and response signers) `log` `witness` `server`; the CAs
//! that came after the first are `issuing-2`, `issuing-3`, … and `signer-2`, …

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentca_identity::certificate::{Certificate, ReadError};
use agentca_identity::crypto::{CryptoError, PrivateKey};
use agentca_identity::pem::{self, PemError};
use agentca_identity::profile::{Issuer, Pen, ProfileError};
use agentca_identity::time::Timestamp;
use zeroize::Zeroizing;

use crate::line::{Generation, Line, MOST, Number};

/// The folder of keys.
#[derive(Debug)]
pub struct KeyFolder {
    path: PathBuf,
    passphrase: Option<Zeroizing<String>>,
}

/// Which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyName {
    /// The trust anchor; needed only to make the two CAs below it.
    Root,
    /// The CA of agents, enforcers, people and the authority, by its place in its line.
    Issuing(Number),
    /// The CA of log and response signers, by its place in its line.
    Signer(Number),
    /// Signs the authority's log.
    Log,
    /// Co-signs enforcers' logs.
    Witness,
    /// The authority's TLS.
    Server,
}

/// A key with its certificate, leaf first.
#[derive(Clone, Debug)]
pub struct Credential {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The key of the leaf.
    pub key: PrivateKey,
}

/// Everything that `serve` needs. The root's key is not among it.
#[derive(Debug)]
pub struct Keys {
    /// The trust anchor.
    pub root: Certificate,
    /// The CAs of agents, enforcers, people and the authority.
    pub issuing: Arc<Line>,
    /// The CAs of log and response signers.
    pub signer: Arc<Line>,
    /// The private enterprise number of this PKI.
    pub pen: Pen,
    /// Signs the authority's log.
    pub log: Credential,
    /// Co-signs enforcers' logs.
    pub witness: Credential,
    /// The authority's TLS.
    pub server: Credential,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file cannot be read or written.
    #[error("`{path}`: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold a key, or the passphrase is wrong.
    #[error("`{path}`: {source}")]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: CryptoError,
    },
    /// A key is encrypted, and nobody said with what.
    #[error(
        "the key `{0}` is encrypted; give the file with its passphrase with `--passphrase-file`"
    )]
    Locked(PathBuf),
    /// What `--passphrase-file` names holds no passphrase.
    #[error("the passphrase file `{path}` {why}; its first line has to be the passphrase")]
    Passphrase {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file does not hold certificates.
    #[error("`{path}`: {source}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: PemError,
    },
    /// A certificate is not of our profile.
    #[error("`{path}`: {source}")]
    Certificate {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: ReadError,
    },
    /// A file holds no certificate.
    #[error("`{0}` holds no certificate")]
    Empty(PathBuf),
    /// A CA's certificate and key do not go together.
    #[error("`{path}`: {source}")]
    Issuer {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: ProfileError,
    },
    /// The signer CA does not say which PEN this PKI has.
    #[error("`{0}` names no private enterprise number")]
    NoPen(PathBuf),
}

impl KeyName {
    fn stem(self) -> String {
        let name = match self {
            Self::Root => "root",
            Self::Issuing(_) => "issuing",
            Self::Signer(_) => "signer",
            Self::Log => "log",
            Self::Witness => "witness",
            Self::Server => "server",
        };
        match self {
            Self::Issuing(number) | Self::Signer(number) if number > 1 => {
                format!("{name}-{number}")
            }
            _ => name.to_owned(),
        }
    }
}

impl KeyFolder {
    /// The folder `keys/` of a data directory; nothing is read yet.
    pub fn new(data: &Path, passphrase: Option<Zeroizing<String>>) -> Self {
        Self {
            path: data.join("keys"),
            passphrase,
        }
    }

    /// Makes the folder, for its owner alone.
    pub fn create(&self) -> Result<(), KeyError> {
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.path)
            .map_err(|source| KeyError::Io {
                path: self.path.clone(),
                source,
            })
    }

    /// Reads everything that `serve` needs at `now`. Keys of CAs that have ended are not.
    pub fn load(&self, now: Timestamp) -> Result<Keys, KeyError> {
        let root = self.read_certificate(KeyName::Root)?;
        let signer = KeyName::Signer(1);
        let pen = self.read_certificate(signer)?.pen();
        let pen = pen.ok_or_else(|| KeyError::NoPen(self.certificate_path(signer)))?;
        Ok(Keys {
            root,
            issuing: Arc::new(self.read_line(KeyName::Issuing, pen, now)?),
            signer: Arc::new(self.read_line(KeyName::Signer, pen, now)?),
            pen,
            log: self.read(KeyName::Log)?,
            witness: self.read(KeyName::Witness)?,
            server: self.read(KeyName::Server)?,
        })
    }

    /// Writes a new key with its certificate; refuses to overwrite.
    pub fn write(&self, name: KeyName, credential: &Credential) -> Result<(), KeyError> {
        let path = self.key_path(name);
        let text = self.key_text(&path, &credential.key)?;
        create_file(&path, 0o600, text.as_bytes())?;
        let certificates = pem::encode_certs(&credential.chain);
        create_file(&self.certificate_path(name), 0o644, certificates.as_bytes())
    }

    /// Writes a CA that follows the first of its line. The certificate comes last: without it there is
    /// no such CA, and what a crash left of one is replaced.
    pub fn write_next(&self, name: KeyName, credential: &Credential) -> Result<(), KeyError> {
        let key = self.key_text(&self.key_path(name), &credential.key)?;
        let certificates = pem::encode_certs(&credential.chain);
        let path = self.certificate_path(name);
        if path.exists() {
            let source = io::ErrorKind::AlreadyExists.into();
            return Err(KeyError::Io { path, source });
        }
        replace_file(&self.key_path(name), 0o600, key.as_bytes())?;
        replace_file(&path, 0o644, certificates.as_bytes())
    }

    /// The root with its key; none while the key is kept elsewhere.
    pub fn read_root(&self, pen: Pen) -> Result<Option<Issuer>, KeyError> {
        if !self.key_path(KeyName::Root).exists() {
            return Ok(None);
        }
        self.read_issuer(KeyName::Root, pen).map(Some)
    }

    /// Replaces a certificate in one step.
    pub fn replace_chain(&self, name: KeyName, chain: &[Vec<u8>]) -> Result<(), KeyError> {
        let certificates = pem::encode_certs(chain);
        replace_file(&self.certificate_path(name), 0o644, certificates.as_bytes())
    }

    /// Reads a key with its certificate.
    pub fn read(&self, name: KeyName) -> Result<Credential, KeyError> {
        Ok(Credential {
            chain: self.read_chain(name)?,
            key: self.read_key(name)?,
        })
    }

    /// From the first on, as far as there are certificates without a gap.
    fn read_line(
        &self,
        name: impl Fn(Number) -> KeyName,
        pen: Pen,
        now: Timestamp,
    ) -> Result<Line, KeyError> {
        let is_there = |number: &Number| self.certificate_path(name(*number)).exists();
        let last = (2..=MOST).take_while(is_there).last().unwrap_or(1);
        let mut standing = Vec::new();
        for number in 1..last {
            if self.read_certificate(name(number))?.not_after() >= now {
                standing.push(number);
            }
        }
        let read = |number| {
            let issuer = self.read_issuer(name(number), pen)?;
            Ok::<_, KeyError>(Generation { number, issuer })
        };
        let mut all = standing.into_iter().chain([last]).map(read);
        let first = all.next().unwrap_or_else(|| read(last))?;
        let later = all.collect::<Result<Vec<_>, _>>()?;
        Ok(Line::new(first, later))
    }

    fn read_certificate(&self, name: KeyName) -> Result<Certificate, KeyError> {
        first(&self.certificate_path(name), &self.read_chain(name)?)
    }

    fn key_text(&self, path: &Path, key: &PrivateKey) -> Result<Zeroizing<String>, KeyError> {
        match &self.passphrase {
            Some(passphrase) => key
                .to_encrypted_pem(passphrase.as_bytes())
                .map_err(|source| KeyError::Key {
                    path: path.to_owned(),
                    source,
                }),
            None => Ok(key.to_pem()),
        }
    }

    fn read_issuer(&self, name: KeyName, pen: Pen) -> Result<Issuer, KeyError> {
        let Credential { chain, key } = self.read(name)?;
        let path = self.certificate_path(name);
        Issuer::new(first(&path, &chain)?, key, pen)
            .map_err(|source| KeyError::Issuer { path, source })
    }

    fn read_key(&self, name: KeyName) -> Result<PrivateKey, KeyError> {
        let path = self.key_path(name);
        let text = std::fs::read_to_string(&path).map(Zeroizing::new);
        let text = text.map_err(|source| KeyError::Io {
            path: path.clone(),
            source,
        })?;
        let encrypted = pem::first_label(&text) == Some("ENCRYPTED PRIVATE KEY");
        match &self.passphrase {
            Some(passphrase) if encrypted => {
                PrivateKey::from_encrypted_pem(&text, passphrase.as_bytes())
            }
            None if encrypted => return Err(KeyError::Locked(path)),
            _ => PrivateKey::from_pem(&text),
        }
        .map_err(|source| KeyError::Key { path, source })
    }

    fn read_chain(&self, name: KeyName) -> Result<Vec<Vec<u8>>, KeyError> {
        let path = self.certificate_path(name);
        let text = std::fs::read_to_string(&path).map_err(|source| KeyError::Io {
            path: path.clone(),
            source,
        })?;
        pem::decode_certs(&text).map_err(|source| KeyError::Pem { path, source })
    }

    fn key_path(&self, name: KeyName) -> PathBuf {
        self.path.join(format!("{}.key", name.stem()))
    }

    fn certificate_path(&self, name: KeyName) -> PathBuf {
        self.path.join(format!("{}.crt", name.stem()))
    }
}

/// The passphrase in the first line of a file; an empty one is none.
pub fn read_passphrase(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let refused = |why: String| KeyError::Passphrase {
        path: path.to_owned(),
        why,
    };
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|source| refused(format!("cannot be read ({source})")))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        Some(_) => Err(refused("begins with an empty line".to_owned())),
        None => Err(refused("is empty".to_owned())),
    }
}

/// Writes a file that must not exist yet, and syncs it.
pub fn create_file(path: &Path, mode: u32, content: &[u8]) -> Result<(), KeyError> {
    let write = || -> io::Result<()> {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|source| KeyError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Puts a file in its place in one step, whatever was there.
fn replace_file(path: &Path, mode: u32, content: &[u8]) -> Result<(), KeyError> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    // Left over from a crash, if it is there at all.
    let _stale = std::fs::remove_file(&fresh);
    create_file(&fresh, mode, content)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::rename(&fresh, path)
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|source| KeyError::Io {
            path: path.to_owned(),
            source,
        })
}

fn first(path: &Path, chain: &[Vec<u8>]) -> Result<Certificate, KeyError> {
    let der = chain
        .first()
        .ok_or_else(|| KeyError::Empty(path.to_owned()))?;
    Certificate::parse(der).map_err(|source| KeyError::Certificate {
        path: path.to_owned(),
        source,
    })
}
