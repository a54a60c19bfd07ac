//! A way back for whoever holds the data directory: a new credential for a person, when nobody has one
//! that is still in force.
//!
//! It needs the issuing key and the log's own, and the authority must not be running. What it does is in
//! the log like everything else, in the authority's own name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentca_auditlog::log::{Log, LogSigner, OpenError};
use agentca_auditlog::store::{FileStore, StoreError};
use agentca_identity::crypto::{CryptoError, KeyKind, PrivateKey};
use agentca_identity::name::{Name, TrustDomain};
use agentca_identity::roles::Roles;
use agentca_identity::spiffe::{LogOrigin, SpiffeId};
use agentca_identity::time::Timestamp;
use zeroize::Zeroizing;

use crate::authority::change::{RecoverPerson, SignedCredential};
use crate::authority::core::Alarm;
use crate::authority::refusal::Refusal;
use crate::authority::replay::{ReplayError, replay};
use crate::authority::sequencer::{Means, Sequencer};
use crate::authority::state::State;
use crate::config::{Config, ConfigError};
use crate::init::Initialised;
use crate::keys::{KeyError, KeyFolder};
use crate::mint::{Mint, MintError};
use crate::room::Room;

/// Why nobody was let back in.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key cannot be made.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The authority runs.
    #[error(
        "another process runs on `{0}`, probably `agentca serve`: end that one first, and start it again \
         afterwards"
    )]
    InUse(PathBuf),
    /// The log's folder cannot be used.
    #[error("the log cannot be used: {0}")]
    Store(StoreError),
    /// The log is damaged or not ours.
    #[error("the log cannot be opened: {0}")]
    Log(#[from] OpenError),
    /// The log holds what this program does not understand.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The certificate cannot be made.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// The change was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is not on disk.
    #[error("the record did not become durable: {0}")]
    NotDurable(String),
}

/// The tenant of the authority in `data`.
pub fn trust_domain(data: &Path) -> Result<TrustDomain, RecoverError> {
    Ok(Config::load(data)?.trust_domain)
}

/// Gives `name` every role and a new certificate, whoever that was before.
pub fn recover(
    data: &Path,
    name: Name,
    passphrase: Option<Zeroizing<String>>,
) -> Result<Initialised, RecoverError> {
    let config = Config::load(data)?;
    let keys = KeyFolder::new(data, passphrase).load(Timestamp::now())?;
    let trust_domain = config.trust_domain.clone();
    let signer = LogSigner {
        origin: LogOrigin::authority(trust_domain.clone()),
        key: keys.log.key.clone(),
        chain: keys.log.chain.clone(),
    };
    let store = FileStore::open(&data.join("log")).map_err(|error| match error.source.kind() {
        io::ErrorKind::WouldBlock => RecoverError::InUse(data.to_owned()),
        _ => RecoverError::Store(error),
    })?;
    let (log, _) = Log::open(Arc::new(store), &signer)?;
    let mut state = State::new(trust_domain.clone());
    replay(&mut state, &log, drop)?;
    let means = Means {
        durable_timeout: config.limits.durable_timeout,
        // This may be what the reserve is needed for.
        room: Arc::new(Room::of(data, 0)),
        alarm: Alarm::new().0,
    };
    let sequencer = Sequencer::new(state, Arc::clone(&log), Vec::new(), means);
    let crl_base = config.crl_base(config.http_listen);
    let mint = Mint {
        issuing: keys.issuing,
        signer: keys.signer,
        crl_base,
        crl_shards: config.crl_shards,
        lifetimes: config.lifetimes,
    };
    let person = SpiffeId::Person { trust_domain, name };
    let key = PrivateKey::generate(KeyKind::P256)?;
    let minted = mint.person(person.clone(), Roles::all(), key.public_key())?;
    let credential = SignedCredential::new(person.clone(), &minted, Some(Roles::all()));
    let recorded = sequencer.submit(RecoverPerson { credential })?;
    if let Some(index) = recorded.last() {
        log.wait_blocking(index)
            .map_err(|error| RecoverError::NotDurable(error.to_string()))?;
    }
    log.shutdown();
    Ok(Initialised {
        root: keys.root.der().to_vec(),
        admin: person,
        admin_chain: minted.chain(),
        admin_key: key,
    })
}
