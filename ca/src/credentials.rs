//! The folders in which certificates and their keys lie, and the store of people's credentials.
//!
//! A folder is a person's (`person.crt`, `person.key`), an agent's (`agent.crt`, `agent.key`) or an
//! enforcer's (`tls.crt`, `tls.key` and two signers), each with the root as `ca.crt`. The store is
//! `$XDG_CONFIG_HOME/agentca` (default `~/.config/agentca`): one person's folder per root, named by
//! the root's SHA-256, and a file `default` that holds the name of the one to use.
//!
//! A key may be encrypted (PKCS#8). The file `passphrase-file` in its folder says where its
//! passphrase is, unless the command line does.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentca_identity::certificate::Certificate;
use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::{PrivateKey, PublicKey};
use agentca_identity::pem;
use agentca_identity::profile::csr;
use agentca_identity::spiffe::{LogOrigin, Role, SpiffeId};
use agentca_identity::time::Timestamp;
use zeroize::Zeroizing;

use crate::client::Issued;
use crate::keys::{KeyError, read_passphrase};
use crate::staging::{Existing, Readers, Staging, StagingError};

/// The root, in every folder.
pub(crate) const ROOT: &str = "ca.crt";
/// The issuing CAs, in an enforcer's folder.
pub(crate) const ISSUERS: &str = "issuers.pem";
/// Where the passphrase of a folder's key is.
const PASSPHRASE: &str = "passphrase-file";

/// Why a credential can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("could not read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is not usable: {detail}", path.display())]
    Unusable { path: PathBuf, detail: String },
    #[error(
        "the key {} is encrypted, give the file with its passphrase with `--passphrase-file`",
        .0.display()
    )]
    Locked(PathBuf),
    #[error(transparent)]
    Passphrase(#[from] KeyError),
    #[error(
        "{source}; {} names that file, `--passphrase-file` names another",
        noted.display()
    )]
    NotedPassphrase { noted: PathBuf, source: KeyError },
    #[error("{} does not belong to {}", key.display(), certificate.display())]
    Mismatch { key: PathBuf, certificate: PathBuf },
    #[error(
        "no credential in {}, give a folder with `--credentials` or make an authority with \
         `agentca init`",
        .0.display()
    )]
    NoDefault(PathBuf),
    #[error(
        "{} names no credential ({}); write the name of one of these into it, or give a folder with \
         `--credentials`",
        pointer.display(),
        if there.is_empty() { "there are none".to_owned() } else { format!("those there are: {}", there.join(", ")) }
    )]
    BrokenDefault {
        pointer: PathBuf,
        there: Vec<String>,
    },
    #[error("neither HOME nor XDG_CONFIG_HOME is set, give a folder with `--credentials`")]
    NoHome,
    #[error(
        "{} holds no certificate of an agent, a person or an enforcer (agent.crt, person.crt or \
         tls.crt), give a folder that `agentca` wrote",
        .0.display()
    )]
    NotAFolder(PathBuf),
    #[error("{} is a file, give the folder that it lies in", .0.display())]
    File(PathBuf),
    #[error("there is no folder {}, give one that `agentca` wrote", .0.display())]
    NoFolder(PathBuf),
    #[error("{} is no root certificate: {detail}; give the ca.crt of any folder that `agentca` wrote", path.display())]
    NotARoot { path: PathBuf, detail: String },
    #[error(
        "{} is the folder of {}, and only people administer: leave `--credentials` out, or give a \
         person's folder, that `agentca init` or `agentca person add` wrote",
        folder.display(),
        holder.described()
    )]
    NotAPerson { folder: PathBuf, holder: Holder },
    #[error(
        "there is no person.crt in {}: `--credentials` names a folder that `agentca init` or \
         `agentca person add` wrote",
        .0.display()
    )]
    Nobody(PathBuf),
    #[error("the authority answered with a certificate that does not verify: {0}")]
    Answer(String),
    #[error("could not make a key: {0}")]
    Key(String),
    #[error(
        "{} holds the keys of {there}, not of {wanted}, and nobody has them elsewhere: give another folder, or \
         move them away first",
        folder.display()
    )]
    Another {
        folder: PathBuf,
        there: String,
        wanted: String,
    },
}

/// Whose folder it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Holder {
    Person,
    Agent,
    Enforcer,
}

impl Holder {
    /// The holder whose certificate lies in `folder`.
    pub(crate) fn of(folder: &Path) -> Result<Self, CredentialError> {
        if folder.is_file() {
            return Err(CredentialError::File(folder.to_owned()));
        }
        if !folder.exists() {
            return Err(CredentialError::NoFolder(folder.to_owned()));
        }
        [Self::Person, Self::Agent, Self::Enforcer]
            .into_iter()
            .find(|holder| folder.join(holder.certificate()).exists())
            .ok_or_else(|| CredentialError::NotAFolder(folder.to_owned()))
    }

    fn described(self) -> &'static str {
        match self {
            Self::Person => "a person",
            Self::Agent => "an agent",
            Self::Enforcer => "an enforcer",
        }
    }

    pub(crate) fn certificate(self) -> &'static str {
        match self {
            Self::Person => "person.crt",
            Self::Agent => "agent.crt",
            Self::Enforcer => "tls.crt",
        }
    }

    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Person => "person.key",
            Self::Agent => "agent.key",
            Self::Enforcer => "tls.key",
        }
    }

    pub(crate) fn role(self) -> Role {
        match self {
            Self::Person => Role::Person,
            Self::Agent => Role::Agent,
            Self::Enforcer => Role::Enforcer,
        }
    }
}

/// A certificate, its key and the root it is used under.
#[derive(Debug)]
pub(crate) struct Credential {
    /// The leaf, then its issuer; DER.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) certificate: Certificate,
    pub(crate) key: PrivateKey,
    pub(crate) anchor: TrustAnchor,
    /// The root as it was read.
    pub(crate) root_pem: String,
    /// What the key is encrypted with.
    pub(crate) passphrase: Option<Zeroizing<String>>,
    /// Where it lies.
    pub(crate) folder: PathBuf,
}

impl Credential {
    /// The person's credential that the command line, the environment or the store names.
    pub(crate) fn person(
        folder: Option<&Path>,
        passphrase_file: Option<&Path>,
    ) -> Result<Self, CredentialError> {
        let folder = match folder {
            Some(folder) => folder.to_owned(),
            None => Store::open()?.default_folder()?,
        };
        match Holder::of(&folder) {
            Ok(Holder::Person) => {}
            Ok(holder) => return Err(CredentialError::NotAPerson { folder, holder }),
            Err(CredentialError::NotAFolder(folder)) => {
                return Err(CredentialError::Nobody(folder));
            }
            Err(error) => return Err(error),
        }
        Self::load(&folder, Holder::Person, passphrase_file)
    }

    /// Reads a folder. The certificate is judged by whom it is shown to.
    pub(crate) fn load(
        folder: &Path,
        holder: Holder,
        passphrase_file: Option<&Path>,
    ) -> Result<Self, CredentialError> {
        let root = folder.join(ROOT);
        let root_pem = read(&root)?;
        let anchor = TrustAnchor::from_pem(&root_pem).map_err(unusable(&root))?;
        let certificate_path = folder.join(holder.certificate());
        let chain = read_chain(&certificate_path)?;
        let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
        let certificate = Certificate::parse(leaf).map_err(unusable(&certificate_path))?;
        let key_path = folder.join(holder.key());
        let (key, passphrase) = read_key(&key_path, passphrase_file)?;
        if key.public_key() != certificate.public_key() {
            return Err(CredentialError::Mismatch {
                key: key_path,
                certificate: certificate_path,
            });
        }
        Ok(Self {
            chain,
            certificate,
            key,
            anchor,
            root_pem,
            passphrase,
            folder: folder.to_owned(),
        })
    }

    /// Whose it is.
    pub(crate) fn id(&self) -> Result<SpiffeId, CredentialError> {
        self.certificate
            .id()
            .ok_or_else(|| CredentialError::Answer("it names nobody".to_owned()))
    }

    /// TLS towards the authority: shows this credential, takes nobody else for it.
    pub(crate) fn client_config(&self) -> Result<Arc<rustls::ClientConfig>, crate::tls::TlsError> {
        crate::tls::client_config(&self.anchor, &self.chain, &self.key, Role::Authority)
    }
}

/// Refuses to replace what belongs to another than `wanted`, even by force. A certificate that cannot be
/// read belongs to nobody.
pub(crate) fn demand_own(folder: &Path, wanted: &SpiffeId) -> Result<(), CredentialError> {
    let Ok(holder) = Holder::of(folder) else {
        return Ok(());
    };
    let there = read_leaf(&folder.join(holder.certificate()));
    match there.ok().and_then(|certificate| certificate.id()) {
        Some(there) if there != *wanted => Err(CredentialError::Another {
            folder: folder.to_owned(),
            there: there.to_string(),
            wanted: wanted.to_string(),
        }),
        _ => Ok(()),
    }
}

/// Certificates in PEM, DER inside.
pub(crate) fn read_chain(path: &Path) -> Result<Vec<Vec<u8>>, CredentialError> {
    let text = read(path)?;
    pem::decode_certs(&text).map_err(unusable(path))
}

/// The root certificate of a file.
pub(crate) fn read_anchor(path: &Path) -> Result<TrustAnchor, CredentialError> {
    let refused = |detail: String| CredentialError::NotARoot {
        path: path.to_owned(),
        detail,
    };
    let text = fs::read_to_string(path).map_err(|e| refused(e.to_string()))?;
    TrustAnchor::from_pem(&text).map_err(|e| refused(e.to_string()))
}

/// The first certificate of a file.
pub(crate) fn read_leaf(path: &Path) -> Result<Certificate, CredentialError> {
    let chain = read_chain(path)?;
    let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
    Certificate::parse(leaf).map_err(unusable(path))
}

/// Reads a private key; when it is encrypted, also the passphrase that opened it.
pub(crate) fn read_key(
    path: &Path,
    passphrase_file: Option<&Path>,
) -> Result<(PrivateKey, Option<Zeroizing<String>>), CredentialError> {
    let given = passphrase_file.map(read_passphrase).transpose()?;
    let text = Zeroizing::new(read(path)?);
    if !text.contains("BEGIN ENCRYPTED PRIVATE KEY") {
        return Ok((PrivateKey::from_pem(&text).map_err(unusable(path))?, None));
    }
    let noted = path.with_file_name(PASSPHRASE);
    let passphrase = match given {
        Some(passphrase) => passphrase,
        None => match fs::read_to_string(&noted) {
            Ok(file) => read_passphrase(Path::new(file.trim_end_matches('\n')))
                .map_err(|source| CredentialError::NotedPassphrase { noted, source })?,
            Err(_) => return Err(CredentialError::Locked(path.to_owned())),
        },
    };
    let key =
        PrivateKey::from_encrypted_pem(&text, passphrase.as_bytes()).map_err(unusable(path))?;
    Ok((key, Some(passphrase)))
}

/// The PEM text of a key, encrypted when there is a passphrase.
pub(crate) fn key_text(
    key: &PrivateKey,
    passphrase: Option<&str>,
) -> Result<Zeroizing<String>, CredentialError> {
    match passphrase {
        Some(passphrase) => key
            .to_encrypted_pem(passphrase)
            .map_err(|e| CredentialError::Key(e.to_string())),
        None => Ok(key.to_pem()),
    }
}

/// The request for a certificate over a key of ours: the only thing that leaves this machine.
pub(crate) fn request(key: &PrivateKey) -> Result<Vec<u8>, CredentialError> {
    csr::make(key).map_err(|e| CredentialError::Key(e.to_string()))
}

/// Takes what the authority issued for a certificate of `id` over `key`, or refuses it.
pub(crate) fn accept(
    anchor: &TrustAnchor,
    issued: &Issued,
    role: Role,
    id: &SpiffeId,
    key: &PublicKey,
) -> Result<Certificate, CredentialError> {
    let chain: Vec<&[u8]> = issued.chain.iter().map(Vec::as_slice).collect();
    let peer = anchor
        .verify(&chain, Timestamp::now(), role)
        .map_err(|e| CredentialError::Answer(e.to_string()))?;
    let certificate = peer.certificate();
    if certificate.id().as_ref() != Some(id) {
        return Err(CredentialError::Answer(format!("it is not for {id}")));
    }
    if certificate.public_key() != key {
        return Err(CredentialError::Answer("it is for another key".to_owned()));
    }
    Ok(certificate.clone())
}

/// Takes a chain (leaf, then intermediate) for the signer of `origin` over `key`, or refuses it.
pub(crate) fn accept_signer(
    anchor: &TrustAnchor,
    chain: &[Vec<u8>],
    origin: &LogOrigin,
    key: &PublicKey,
) -> Result<(), CredentialError> {
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let signer = anchor
        .verify_signer(&chain, origin)
        .map_err(|e| CredentialError::Answer(e.to_string()))?;
    if signer.public_key() == key {
        Ok(())
    } else {
        Err(CredentialError::Answer(format!(
            "the signer of {origin} has another key"
        )))
    }
}

/// The issuing CAs whose CRLs an enforcer takes, as they are written; each hangs from the root.
pub(crate) fn issuers_text(
    anchor: &TrustAnchor,
    issued: &Issued,
) -> Result<String, CredentialError> {
    for issuer in &issued.issuers {
        anchor
            .issuing_ca(issuer)
            .map_err(|e| CredentialError::Answer(e.to_string()))?;
    }
    Ok(pem::encode_certs(&issued.issuers))
}

/// Where people's credentials are kept.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    pub(crate) fn open() -> Result<Self, CredentialError> {
        let absolute = |name| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        let config = absolute("XDG_CONFIG_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".config")))
            .ok_or(CredentialError::NoHome)?;
        Ok(Self {
            folder: config.join("agentca"),
        })
    }

    /// Makes the store when there is none; fails when it can't be written to.
    pub(crate) fn make(&self) -> Result<(), StagingError> {
        if !self.folder.exists() {
            return Staging::prepare(&self.folder, &[], Existing::Refuse)?.commit();
        }
        Staging::prepare(&self.folder, &[], Existing::Replace).map(drop)
    }

    /// The folder that the pointer names.
    fn default_folder(&self) -> Result<PathBuf, CredentialError> {
        let name = self.default_name().ok_or_else(|| self.no_default())?;
        let folder = self.folder.join(name);
        if folder.is_dir() {
            Ok(folder)
        } else {
            Err(self.no_default())
        }
    }

    /// What the pointer holds, when it is the name of a folder of ours.
    pub(crate) fn default_name(&self) -> Option<String> {
        let name = fs::read_to_string(self.pointer()).ok()?;
        let name = name.trim_end_matches('\n');
        let named = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        named.then(|| name.to_owned())
    }

    /// Makes the credential under `root` the default.
    pub(crate) fn set_default(&self, root: &str) -> Result<(), StagingError> {
        let mut pointer = Staging::prepare(&self.folder, &["default"], Existing::Replace)?;
        pointer.write("default", format!("{root}\n").as_bytes(), Readers::Owner)?;
        pointer.commit()
    }

    pub(crate) fn folder(&self, root: &str) -> PathBuf {
        self.folder.join(root)
    }

    pub(crate) fn pointer(&self) -> PathBuf {
        self.folder.join("default")
    }

    /// A pointer to nothing is told apart from a store in which there never was one.
    fn no_default(&self) -> CredentialError {
        let pointer = self.pointer();
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut there: Vec<String> = entries
            .filter(|entry| entry.path().join(Holder::Person.certificate()).exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        there.sort();
        if pointer.exists() || !there.is_empty() {
            CredentialError::BrokenDefault { pointer, there }
        } else {
            CredentialError::NoDefault(self.folder.clone())
        }
    }
}

/// A person's files, as `init` and `person add` write them.
pub(crate) fn person_files(protected: bool) -> Vec<&'static str> {
    let mut names = vec![Holder::Person.key(), Holder::Person.certificate(), ROOT];
    if protected {
        names.push(PASSPHRASE);
    }
    names
}

/// The file that says where the passphrase of a folder's key is.
pub(crate) fn note_passphrase(staging: &mut Staging, file: &Path) -> Result<(), StagingError> {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let line = format!("{}\n", absolute.display());
    staging.write(PASSPHRASE, line.as_bytes(), Readers::Owner)
}

fn read(path: &Path) -> Result<String, CredentialError> {
    fs::read_to_string(path).map_err(|source| CredentialError::Io {
        path: path.to_owned(),
        source,
    })
}

fn unusable<E: ToString>(path: &Path) -> impl FnOnce(E) -> CredentialError {
    let path = path.to_owned();
    move |detail| CredentialError::Unusable {
        path,
        detail: detail.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentca_identity::crypto::KeyKind;
    use agentca_identity::profile::{self, Issuer, Pen, Prepared, Template, Validity, lifetime};
    use agentca_identity::roles::Roles;

    struct Pki {
        root: Issuer,
        issuing: Issuer,
    }

    fn key() -> PrivateKey {
        PrivateKey::generate(KeyKind::P256).unwrap()
    }

    fn person(name: &str) -> SpiffeId {
        SpiffeId::Person {
            trust_domain: "example.org".parse().unwrap(),
            name: name.parse().unwrap(),
        }
    }

    fn validity() -> Validity {
        Validity::starting(Timestamp::now(), lifetime::PERSON)
    }

    impl Pki {
        fn new() -> Self {
            let domain = || "example.org".parse().unwrap();
            let now = Timestamp::now();
            let root = profile::create_root(domain(), Pen::DOCUMENTATION, &key(), now).unwrap();
            let key = key();
            let lasting = Validity::starting(now, lifetime::ISSUING_CA);
            let template = Template::issuing_ca(domain(), key.public_key(), lasting);
            let certificate = root.prepare(template).and_then(Prepared::sign).unwrap();
            let issuing = Issuer::new(certificate, key, Pen::DOCUMENTATION).unwrap();
            Self { root, issuing }
        }

        fn anchor(&self) -> TrustAnchor {
            TrustAnchor::from_root_der(self.root.certificate().der()).unwrap()
        }

        fn issue(&self, name: &str, key: &PublicKey) -> Issued {
            let crl = "http://127.0.0.1:7080/crl/0.crl".parse().unwrap();
            let template = Template::person(person(name), Roles::all(), key, validity(), crl);
            let leaf = self
                .issuing
                .prepare(template)
                .and_then(Prepared::sign)
                .unwrap();
            let issuer = self.issuing.certificate();
            Issued {
                chain: vec![leaf.der().to_vec(), issuer.der().to_vec()],
                record: 1,
                issuers: Vec::new(),
            }
        }
    }

    #[test]
    fn only_what_was_asked_for_is_accepted() {
        let (pki, other, key) = (Pki::new(), Pki::new(), key());
        let issued = pki.issue("alice", key.public_key());
        let take = |pki: &Pki, role, name, key: &PrivateKey| {
            accept(
                &pki.anchor(),
                &issued,
                role,
                &person(name),
                key.public_key(),
            )
        };
        assert!(take(&pki, Role::Person, "alice", &key).is_ok());
        assert!(take(&other, Role::Person, "alice", &key).is_err());
        assert!(take(&pki, Role::Agent, "alice", &key).is_err());
        assert!(take(&pki, Role::Person, "bob", &key).is_err());
        let stranger = PrivateKey::generate(KeyKind::P256).unwrap();
        assert!(take(&pki, Role::Person, "alice", &stranger).is_err());
    }

    #[test]
    fn a_folder_is_read_back_whole_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("alice");
        let (pki, mine) = (Pki::new(), key());
        let issued = pki.issue("alice", mine.public_key());
        let root_pem = pem::encode_certs([pki.root.certificate().der()]);
        let passphrase = home.path().join("passphrase");
        fs::write(&passphrase, "correct horse\nnot this\n").unwrap();
        let write = |key: &PrivateKey, secret: Option<&str>| {
            let mut staging = Staging::prepare(&folder, &[], Existing::Replace).unwrap();
            let text = key_text(key, secret).unwrap();
            staging
                .write("person.key", text.as_bytes(), Readers::Owner)
                .unwrap();
            let chain = pem::encode_certs(&issued.chain);
            staging
                .write("person.crt", chain.as_bytes(), Readers::Everybody)
                .unwrap();
            staging
                .write(ROOT, root_pem.as_bytes(), Readers::Everybody)
                .unwrap();
            staging.commit().unwrap();
        };
        let load = |file: Option<&Path>| Credential::load(&folder, Holder::Person, file);

        write(&mine, None);
        assert_eq!(load(None).unwrap().id().unwrap(), person("alice"));
        write(&mine, Some("correct horse"));
        assert!(matches!(load(None), Err(CredentialError::Locked(_))));
        assert!(load(Some(&passphrase)).unwrap().passphrase.is_some());
        fs::write(
            folder.join("passphrase-file"),
            format!("{}\n", passphrase.display()),
        )
        .unwrap();
        assert!(load(None).is_ok());
        write(&key(), None);
        assert!(matches!(load(None), Err(CredentialError::Mismatch { .. })));
        fs::remove_file(folder.join(ROOT)).unwrap();
        assert!(matches!(load(None), Err(CredentialError::Io { .. })));
    }
}
