//! Makes a new authority: its keys and certificates, the first record of its log, its first person.

use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentca_auditlog::log::{Log, LogSigner};
use agentca_auditlog::record::{Opening, log_opened};
use agentca_auditlog::store::{FileStore, Store};
use agentca_identity::crypto::{CryptoError, KeyKind, PrivateKey, PublicKey, random};
use agentca_identity::name::{DnsName, Name, TrustDomain};
use agentca_identity::profile::{Issuer, Pen, Prepared, Template, Validity, create_root, lifetime};
use agentca_identity::roles::Roles;
use agentca_identity::spiffe::{LogOrigin, SpiffeId};
use agentca_identity::time::Timestamp;
use zeroize::Zeroizing;

use crate::authority::change::SignedCredential;
use crate::authority::event::Event;
use crate::config::{self, ConfigError, DEFAULT_HTTP_LISTEN, Lifetimes, check_public_url};
use crate::keys::{Credential, KeyError, KeyFolder, KeyName, create_file};
use crate::line::{Generation, Line};
use crate::mint::{Mint, MintError, Minted};

/// What a new authority is to be.
#[derive(Debug)]
pub struct InitOptions {
    /// The tenant.
    pub trust_domain: TrustDomain,
    /// DNS names for the authority's own certificate.
    pub dns: Vec<String>,
    /// The URL that certificates name for their CRL; unset means the HTTP address in force.
    pub public_url: Option<String>,
    /// The private enterprise number of our OIDs; 32473 is reserved for documentation.
    pub pen: u32,
    /// The name of the first person, who gets every role.
    pub admin: Name,
    /// Encrypts the private keys in `keys/` when given.
    pub passphrase: Option<Zeroizing<String>>,
}

/// What was made, for the person who made it.
#[derive(Debug)]
pub struct Initialised {
    /// The root certificate, DER.
    pub root: Vec<u8>,
    /// The first person's id.
    pub admin: SpiffeId,
    /// The first person's certificate, then its issuing CA's, DER.
    pub admin_chain: Vec<Vec<u8>>,
    /// The first person's private key; kept nowhere else.
    pub admin_key: PrivateKey,
}

/// Why no authority was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The data directory has something in it already.
    #[error("`{0}` is not empty; an authority is never overwritten, choose another directory")]
    NotEmpty(PathBuf),
    /// A file cannot be written.
    #[error("could not write `{path}`: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An option does not hold what it should.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key cannot be made or written.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key cannot be made.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// A certificate cannot be made.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// The PEN is 0, or a name does not fit.
    #[error("{0}")]
    Option(String),
    /// The log cannot be made.
    #[error("the log cannot be made: {0}")]
    Log(String),
}

/// Creates the authority in `data`, which must be empty or absent. Everything is made beside it and
/// moved into place at the end, so that a crash leaves no half of an authority.
pub fn create(data: &Path, options: InitOptions) -> Result<Initialised, InitError> {
    let workshop = Workshop::open(data)?;
    let made = build(&workshop.path, options).map_err(|error| error.placed(&workshop, data))?;
    workshop.move_to(data)?;
    Ok(made)
}

impl InitError {
    /// What went wrong in the workshop, said of the place that people know.
    fn placed(self, Workshop { path: workshop }: &Workshop, data: &Path) -> Self {
        match self {
            Self::Io { path, source } | Self::Key(KeyError::Io { path, source }) => {
                let path = match path.strip_prefix(workshop) {
                    Ok(below) if below.as_os_str().is_empty() => data.to_owned(),
                    Ok(below) => data.join(below),
                    Err(_) => path,
                };
                Self::Io { path, source }
            }
            Self::Log(said) => {
                let (workshop, data) = (workshop.display(), data.display());
                Self::Log(said.replace(&workshop.to_string(), &data.to_string()))
            }
            other => other,
        }
    }
}

/// The directory in which an authority is made; gone with everything in it unless moved.
struct Workshop {
    path: PathBuf,
}

impl Workshop {
    fn open(data: &Path) -> Result<Self, InitError> {
        match std::fs::read_dir(data).map(Iterator::count) {
            Ok(0) => {}
            Ok(_) => return Err(InitError::NotEmpty(data.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(data)(error)),
        }
        let absolute = std::path::absolute(data).map_err(io_error(data))?;
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Err(InitError::NotEmpty(data.to_owned()));
        };
        std::fs::create_dir_all(parent).map_err(io_error(parent))?;
        let draw = u64::from_be_bytes(random::<8>());
        let path = parent.join(format!(".{}.{draw:016x}", name.to_string_lossy()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(io_error(data))?;
        Ok(Self { path })
    }

    /// An empty directory in its place is replaced; anything else is left alone.
    fn move_to(self, data: &Path) -> Result<(), InitError> {
        std::fs::rename(&self.path, data).map_err(|source| match source.kind() {
            io::ErrorKind::DirectoryNotEmpty => InitError::NotEmpty(data.to_owned()),
            _ => InitError::Io {
                path: data.to_owned(),
                source,
            },
        })
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // Gone already when it was moved into place.
        let _moved = std::fs::remove_dir_all(&self.path);
    }
}

fn build(path: &Path, options: InitOptions) -> Result<Initialised, InitError> {
    let InitOptions {
        trust_domain,
        dns,
        public_url,
        pen,
        admin,
        passphrase,
    } = options;
    let pen = Pen::new(pen).map_err(|e| InitError::Option(e.to_string()))?;
    let public_url = public_url.map(|url| check_public_url(&url)).transpose()?;
    let folder = KeyFolder::new(path, passphrase);
    folder.create()?;
    let mint = make_cas(&folder, &trust_domain, pen, public_url.as_deref())?;
    let server_names = dns
        .iter()
        .map(|name| name.parse())
        .collect::<Result<Vec<DnsName>, _>>();
    let server_names = server_names.map_err(|e| InitError::Option(e.to_string()))?;
    let (log, witness) = make_signers(&folder, &mint, &trust_domain)?;
    let server_key = PrivateKey::generate(KeyKind::P256)?;
    let (names, addresses) = server_hosts(&server_names);
    let server = mint.authority(
        trust_domain.clone(),
        names,
        addresses,
        server_key.public_key(),
    )?;
    let credential = Credential {
        chain: server.chain(),
        key: server_key,
    };
    folder.write(KeyName::Server, &credential)?;
    let admin_key = PrivateKey::generate(KeyKind::P256)?;
    let admin = SpiffeId::Person {
        trust_domain: trust_domain.clone(),
        name: admin,
    };
    let person = mint.person(admin.clone(), Roles::all(), admin_key.public_key())?;
    let text = config::new_file(&trust_domain, &dns, public_url.as_deref());
    create_file(&path.join(config::FILE), 0o644, text.as_bytes())?;
    let admin_chain = person.chain();
    let by = SpiffeId::Authority {
        trust_domain: trust_domain.clone(),
    };
    let added = Event::PersonAdded {
        person: admin.clone(),
        roles: Roles::all(),
        by: by.clone(),
    };
    let events = vec![
        issued(by.clone(), by.clone(), server),
        added,
        issued(admin.clone(), by, person),
    ];
    write_log(path, trust_domain, log, witness, events)?;
    Ok(Initialised {
        root: root_of(&folder)?,
        admin,
        admin_chain,
        admin_key,
    })
}

/// The root and the two CAs below it.
fn make_cas(
    folder: &KeyFolder,
    trust_domain: &TrustDomain,
    pen: Pen,
    public_url: Option<&str>,
) -> Result<Mint, InitError> {
    let now = Timestamp::now();
    let root_key = PrivateKey::generate(KeyKind::P256)?;
    let root = create_root(trust_domain.clone(), pen, &root_key, now).map_err(MintError::from)?;
    let validity = Validity::starting(now, lifetime::ISSUING_CA);
    let below = |name, template: fn(TrustDomain, &PublicKey, Validity) -> Template| {
        let key = PrivateKey::generate(KeyKind::P256)?;
        let template = template(trust_domain.clone(), key.public_key(), validity);
        let certificate = root
            .prepare(template)
            .and_then(Prepared::sign)
            .map_err(MintError::from)?;
        let credential = Credential {
            chain: vec![certificate.der().to_vec()],
            key: key.clone(),
        };
        folder.write(name, &credential)?;
        let issuer = Issuer::new(certificate, key, pen).map_err(MintError::from)?;
        let first = Generation { number: 1, issuer };
        Ok::<_, InitError>(Arc::new(Line::new(first, [])))
    };
    let issuing = below(KeyName::Issuing(1), Template::issuing_ca)?;
    let signer = below(KeyName::Signer(1), Template::signer_ca)?;
    let chain = vec![root.certificate().der().to_vec()];
    folder.write(
        KeyName::Root,
        &Credential {
            chain,
            key: root_key,
        },
    )?;
    let crl_base = match public_url {
        Some(url) => url.to_owned(),
        None => format!("http://{DEFAULT_HTTP_LISTEN}"),
    };
    let lifetimes = Lifetimes::default();
    Ok(Mint {
        issuing,
        signer,
        crl_base,
        crl_shards: 1,
        lifetimes,
    })
}

/// The keys of the log and of the witness.
fn make_signers(
    folder: &KeyFolder,
    mint: &Mint,
    trust_domain: &TrustDomain,
) -> Result<(Credential, Credential), InitError> {
    let make = |name, origin| -> Result<Credential, InitError> {
        let key = PrivateKey::generate(KeyKind::Ed25519)?;
        let minted = mint.signer(origin, key.public_key())?;
        let credential = Credential {
            chain: minted.chain(),
            key,
        };
        folder.write(name, &credential)?;
        Ok(credential)
    };
    let witness =
        LogOrigin::witness(trust_domain.clone()).map_err(|e| InitError::Option(e.to_string()))?;
    let log = make(KeyName::Log, LogOrigin::authority(trust_domain.clone()))?;
    Ok((log, make(KeyName::Witness, witness)?))
}

/// Record 0 and what the authority begins with.
fn write_log(
    path: &Path,
    trust_domain: TrustDomain,
    log: Credential,
    witness: Credential,
    events: Vec<Event>,
) -> Result<(), InitError> {
    fn refuse(e: impl std::fmt::Display) -> InitError {
        InitError::Log(e.to_string())
    }
    let opening = Opening {
        signers: vec![log.chain.clone()],
        witness: Some(witness.chain),
    };
    let origin = LogOrigin::authority(trust_domain);
    let signer = LogSigner {
        origin,
        key: log.key,
        chain: log.chain,
    };
    let path = path.join("log");
    let store: Arc<dyn Store> = Arc::new(FileStore::create(&path).map_err(refuse)?);
    Log::create(store, &signer, |head, out| log_opened(head, out, &opening)).map_err(refuse)?;
    let store: Arc<dyn Store> = Arc::new(FileStore::open(&path).map_err(refuse)?);
    let (log, _) = Log::open(store, &signer).map_err(refuse)?;
    let mut last = 0;
    for event in events {
        let staged = log
            .stage(|head, out| event.write_whole(head, out))
            .map_err(refuse)?;
        last = staged.index;
    }
    log.wait_blocking(last).map_err(refuse)?;
    log.shutdown();
    Ok(())
}

fn issued(subject: SpiffeId, by: SpiffeId, minted: Minted) -> Event {
    SignedCredential::new(subject, &minted, None).event(by)
}

fn root_of(folder: &KeyFolder) -> Result<Vec<u8>, InitError> {
    let mut chain = folder.read(KeyName::Root)?.chain;
    chain
        .pop()
        .ok_or_else(|| InitError::Option("the root was not written".into()))
}

/// The names in the authority's own certificate.
pub(crate) fn server_hosts(dns: &[DnsName]) -> (Vec<DnsName>, Vec<IpAddr>) {
    let mut names = dns.to_vec();
    if let Ok(localhost) = "localhost".parse()
        && !names.contains(&localhost)
    {
        names.push(localhost);
    }
    names.sort();
    names.dedup();
    (
        names,
        vec![
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ],
    )
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> InitError {
    let path = path.to_owned();
    move |source| InitError::Io {
        path: path.clone(),
        source,
    }
}
