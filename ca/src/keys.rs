//! The authority's keys and certificates on disk: `keys/<name>.key` (PKCS#8 PEM, 0600, optionally
//! encrypted) and `keys/<name>.crt` (PEM, leaf first).
//!
//! `root` `issuing` `signer` (the CA of log and response signers) `log` `witness` `server`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use agentca_identity::certificate::{Certificate, ReadError};
use agentca_identity::crypto::{CryptoError, PrivateKey};
use agentca_identity::pem::{self, PemError};
use agentca_identity::profile::{Issuer, Pen, ProfileError};
use zeroize::Zeroizing;

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
    /// The CA of agents, enforcers, people and the authority.
    Issuing,
    /// The CA of log and response signers.
    Signer,
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
    /// The CA of agents, enforcers, people and the authority.
    pub issuing: Issuer,
    /// The CA of log and response signers.
    pub signer: Issuer,
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
    fn stem(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuing => "issuing",
            Self::Signer => "signer",
            Self::Log => "log",
            Self::Witness => "witness",
            Self::Server => "server",
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

    /// Reads everything that `serve` needs.
    pub fn load(&self) -> Result<Keys, KeyError> {
        let root_path = self.certificate_path(KeyName::Root);
        let root = first(&root_path, &self.read_chain(KeyName::Root)?)?;
        let signer_path = self.certificate_path(KeyName::Signer);
        let pen = first(&signer_path, &self.read_chain(KeyName::Signer)?)?
            .pen()
            .ok_or(KeyError::NoPen(signer_path))?;
        Ok(Keys {
            root,
            issuing: self.read_issuer(KeyName::Issuing, pen)?,
            signer: self.read_issuer(KeyName::Signer, pen)?,
            log: self.read(KeyName::Log)?,
            witness: self.read(KeyName::Witness)?,
            server: self.read(KeyName::Server)?,
        })
    }

    /// Writes a new key with its certificate; refuses to overwrite.
    pub fn write(&self, name: KeyName, credential: &Credential) -> Result<(), KeyError> {
        let path = self.key_path(name);
        let text = match &self.passphrase {
            Some(passphrase) => credential
                .key
                .to_encrypted_pem(passphrase.as_bytes())
                .map_err(|source| KeyError::Key {
                    path: path.clone(),
                    source,
                })?,
            None => credential.key.to_pem(),
        };
        create_file(&path, 0o600, text.as_bytes())?;
        let certificates = pem::encode_certs(&credential.chain);
        create_file(&self.certificate_path(name), 0o644, certificates.as_bytes())
    }

    /// Replaces a certificate in one step.
    pub fn replace_chain(&self, name: KeyName, chain: &[Vec<u8>]) -> Result<(), KeyError> {
        let path = self.certificate_path(name);
        let fresh = path.with_extension("crt.new");
        // Left over from a crash, if it is there at all.
        let _stale = std::fs::remove_file(&fresh);
        create_file(&fresh, 0o644, pem::encode_certs(chain).as_bytes())?;
        std::fs::rename(&fresh, &path).map_err(|source| KeyError::Io { path, source })
    }

    /// Reads a key with its certificate.
    pub fn read(&self, name: KeyName) -> Result<Credential, KeyError> {
        Ok(Credential {
            chain: self.read_chain(name)?,
            key: self.read_key(name)?,
        })
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

fn first(path: &Path, chain: &[Vec<u8>]) -> Result<Certificate, KeyError> {
    let der = chain
        .first()
        .ok_or_else(|| KeyError::Empty(path.to_owned()))?;
    Certificate::parse(der).map_err(|source| KeyError::Certificate {
        path: path.to_owned(),
        source,
    })
}
