//! A person's folder, as `agentca init` and `agentca person add` write it: `person.crt`, `person.key`
//! and `ca.crt`; the key may be encrypted.

use std::fs;
use std::path::{Path, PathBuf};

use agentca_identity::certificate::Certificate;
use agentca_identity::crypto::PrivateKey;
use agentca_identity::pem;
use agentca_identity::spiffe::SpiffeId;
use zeroize::Zeroizing;

/// Somebody who approves.
#[derive(Debug)]
pub struct Person {
    /// Who they are.
    pub id: SpiffeId,
    /// Their certificate and its issuer, DER.
    pub chain: Vec<Vec<u8>>,
    /// Their key.
    pub key: PrivateKey,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PersonError {
    /// A file.
    #[error("{}: {message}; `--person` names a folder that `agentca init` or `agentca person add` wrote", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// An encrypted key.
    #[error("the key {} is encrypted, give the file with its passphrase with `--passphrase-file`", .0.display())]
    Locked(PathBuf),
    /// There is no default one.
    #[error("`--person` is not given, and there is no default credential in {}", .0.display())]
    NoDefault(PathBuf),
    /// The passphrase.
    #[error("the passphrase file {}: {message}", path.display())]
    Passphrase {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

impl Person {
    /// The folder of whoever uses this machine: the one that `agentca` uses by default.
    ///
    /// # Errors
    /// [`PersonError::NoDefault`].
    pub fn default_folder() -> Result<PathBuf, PersonError> {
        let absolute = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let config = absolute("XDG_CONFIG_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".config")))
            .unwrap_or_default()
            .join("agentca");
        let name = fs::read_to_string(config.join("default")).unwrap_or_default();
        let name = name.trim_end_matches('\n');
        let is_name = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_name {
            Ok(config.join(name))
        } else {
            Err(PersonError::NoDefault(config))
        }
    }

    /// Reads a folder; whose certificate counts is judged by whoever reads the statement.
    ///
    /// # Errors
    /// [`PersonError`].
    pub fn load(folder: &Path, passphrase_file: Option<&Path>) -> Result<Self, PersonError> {
        let path = folder.join("person.crt");
        let wrong = |message: String| PersonError::File {
            path: path.clone(),
            message,
        };
        let text = fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        let chain = pem::decode_certs(&text).map_err(|error| wrong(error.to_string()))?;
        let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
        let certificate = Certificate::parse(leaf).map_err(|error| wrong(error.to_string()))?;
        let id = match certificate.id() {
            Some(id @ SpiffeId::Person { .. }) => id,
            _ => return Err(wrong("it is no person's".to_owned())),
        };
        let key = read_key(&folder.join("person.key"), passphrase_file)?;
        if key.public_key() != certificate.public_key() {
            return Err(wrong("it does not belong to person.key".to_owned()));
        }
        Ok(Self { id, chain, key })
    }
}

fn read_key(path: &Path, passphrase_file: Option<&Path>) -> Result<PrivateKey, PersonError> {
    let wrong = |message: String| PersonError::File {
        path: path.to_owned(),
        message,
    };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let text = Zeroizing::new(text);
    if pem::first_label(&text) != Some("ENCRYPTED PRIVATE KEY") {
        return PrivateKey::from_pem(&text).map_err(|error| wrong(error.to_string()));
    }
    // The folder may say where its passphrase is.
    let noted = fs::read_to_string(path.with_file_name("passphrase-file")).ok();
    let noted = noted.map(|text| PathBuf::from(text.trim_end_matches('\n')));
    let file = passphrase_file.map(Path::to_owned).or(noted);
    let file = file.ok_or_else(|| PersonError::Locked(path.to_owned()))?;
    let passphrase = read_passphrase(&file)?;
    PrivateKey::from_encrypted_pem(&text, passphrase.as_bytes())
        .map_err(|error| wrong(error.to_string()))
}

/// The first line of a file.
fn read_passphrase(path: &Path) -> Result<Zeroizing<String>, PersonError> {
    let refused = |message: String| PersonError::Passphrase {
        path: path.to_owned(),
        message,
    };
    let text = fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    let text = Zeroizing::new(text);
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(refused("it has no first line".to_owned())),
    }
}
