//! An authority in a folder, without sockets, for tests.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use agentca_auditlog::log::{Log, LogSigner};
use agentca_auditlog::note::{NoteSigner, SignatureType};
use agentca_auditlog::store::{FileId, FileStore, Store, StoreError};
use agentca_identity::certificate::Certificate;
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::authority::change::Caller;
use crate::authority::core::{Alarm, Authority, SignerChains, Signers};
use crate::authority::replay::replay;
use crate::authority::sequencer::{Applied, Listener, Means, Sequencer};
use crate::authority::state::State;
use crate::config::{Config, Lifetimes};
use crate::feed::{Followers, Hub, Snapshots};
use crate::init::{InitOptions, create};
use crate::keys::{Credential, KeyFolder, Keys};
use crate::metrics::Metrics;
use crate::mint::Mint;
use crate::pace::Pace;
use crate::room::Room;
use crate::witness::WitnessQueue;

/// What `init` made, with its log open and replayed.
pub(crate) struct Made {
    pub(crate) admin: Caller,
    pub(crate) keys: Keys,
    pub(crate) state: State,
    pub(crate) log: Arc<Log>,
    /// Where the log lies.
    pub(crate) disk: Arc<Disk>,
    /// Gone with everything in it when dropped, so last.
    pub(crate) folder: TempDir,
}

impl Made {
    /// `applied` sees what `init` recorded.
    pub(crate) fn new(applied: impl FnMut(Applied)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("pki");
        let options = InitOptions {
            trust_domain: "example.org".parse().unwrap(),
            dns: Vec::new(),
            public_url: None,
            pen: 32473,
            admin: "admin".parse().unwrap(),
            passphrase: None,
        };
        let made = create(&data, options).unwrap();
        let admin = Certificate::parse(&made.admin_chain[0]).unwrap();
        let admin = Caller {
            id: made.admin,
            serial: admin.serial(),
        };
        let keys = KeyFolder::new(&data, None).load(Timestamp::now()).unwrap();
        let log_signer = LogSigner {
            origin: LogOrigin::authority("example.org".parse().unwrap()),
            key: keys.log.key.clone(),
            chain: keys.log.chain.clone(),
        };
        let disk = Arc::new(Disk {
            store: FileStore::open(&data.join("log")).unwrap(),
            full: AtomicBool::new(false),
        });
        let store: Arc<dyn Store> = Arc::<Disk>::clone(&disk);
        let (log, _) = Log::open(store, &log_signer).unwrap();
        let mut state = State::new("example.org".parse().unwrap());
        replay(&mut state, &log, applied).unwrap();
        Self {
            admin,
            keys,
            state,
            log,
            disk,
            folder,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("pki")
    }

    pub(crate) fn mint(&self, crl_shards: u16) -> Mint {
        Mint {
            issuing: Arc::clone(&self.keys.issuing),
            signer: Arc::clone(&self.keys.signer),
            crl_base: "http://127.0.0.1:7080".to_owned(),
            crl_shards,
            lifetimes: Lifetimes::default(),
        }
    }

    pub(crate) fn sequencer(&self, listeners: Vec<Listener>) -> Sequencer {
        self.sequencer_with(listeners, Room::of(&self.data(), 0)).0
    }

    /// Everything that a service asks, with nothing running behind it.
    pub(crate) fn authority(&self) -> Authority {
        let sequencer = Arc::new(self.sequencer(Vec::new()));
        let key = |credential: &Credential| credential.key.clone();
        let signer = || {
            let log = key(&self.keys.log);
            NoteSigner::new(self.log.origin(), SignatureType::Ed25519, log).unwrap()
        };
        let witness = NoteSigner::new(
            "example.org/ca/witness",
            SignatureType::Cosignature,
            key(&self.keys.witness),
        )
        .unwrap();
        let signers = Signers {
            log_origin: self.log.origin().to_owned(),
            log_vkey: signer().verifier().to_string(),
            witness_vkey: witness.verifier().to_string(),
            chains: RwLock::new(SignerChains {
                log: self.keys.log.chain.clone(),
                witness: self.keys.witness.chain.clone(),
            }),
        };
        let config = Config::load(&self.data()).unwrap();
        Authority {
            witness: WitnessQueue::new(Arc::clone(&sequencer), witness).0,
            mint: Arc::new(self.mint(1)),
            root: self.keys.root.der().to_vec(),
            hub: Arc::new(Hub::new(Arc::clone(&self.log), signer(), &self.state)),
            followers: Followers::default(),
            snapshots: Snapshots::new().0,
            shelf: Arc::default(),
            metrics: Metrics::default(),
            signers,
            lifetimes: config.lifetimes,
            limits: config.limits,
            pace: Pace::new(16, 60),
            alarm: Alarm::new().0,
            sequencer,
        }
    }

    /// With what is left for the log, and where the alarm rings.
    pub(crate) fn sequencer_with(
        &self,
        listeners: Vec<Listener>,
        room: Room,
    ) -> (Sequencer, mpsc::UnboundedReceiver<String>) {
        let (state, log) = (self.state.clone(), Arc::clone(&self.log));
        let (alarm, ear) = Alarm::new();
        let means = Means {
            durable_timeout: Duration::from_secs(10),
            room: Arc::new(room),
            alarm,
        };
        (Sequencer::new(state, log, listeners, means), ear)
    }
}

/// A disk that can be filled.
#[derive(Debug)]
pub(crate) struct Disk {
    store: FileStore,
    full: AtomicBool,
}

impl Disk {
    pub(crate) fn fill(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }
}

impl Store for Disk {
    fn files(&self) -> Result<Vec<FileId>, StoreError> {
        self.store.files()
    }

    fn create(&self, file: FileId) -> Result<(), StoreError> {
        self.store.create(file)
    }

    fn len(&self, file: FileId) -> Result<u64, StoreError> {
        self.store.len(file)
    }

    fn read_at(&self, file: FileId, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        self.store.read_at(file, offset, buffer)
    }

    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(StoreError {
                action: "write",
                file: file.to_string(),
                source: io::ErrorKind::StorageFull.into(),
            });
        }
        self.store.write_at(file, offset, bytes)
    }

    fn sync(&self, file: FileId) -> Result<(), StoreError> {
        self.store.sync(file)
    }

    fn truncate(&self, file: FileId, length: u64) -> Result<(), StoreError> {
        self.store.truncate(file, length)
    }

    fn checkpoint(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.checkpoint()
    }

    fn replace_checkpoint(&self, note: &[u8]) -> Result<(), StoreError> {
        self.store.replace_checkpoint(note)
    }

    fn publish(&self) -> Result<(), StoreError> {
        self.store.publish()
    }
}
