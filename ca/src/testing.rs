//! An authority in a folder, without sockets, for tests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agentca_auditlog::log::{Log, LogSigner};
use agentca_auditlog::store::FileStore;
use agentca_identity::certificate::Certificate;
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;
use tempfile::TempDir;

use crate::authority::change::Caller;
use crate::authority::replay::replay;
use crate::authority::sequencer::{Applied, Listener, Sequencer};
use crate::authority::state::State;
use crate::config::Lifetimes;
use crate::init::{InitOptions, create};
use crate::keys::{KeyFolder, Keys};
use crate::mint::Mint;

/// What `init` made, with its log open and replayed.
pub(crate) struct Made {
    pub(crate) admin: Caller,
    pub(crate) keys: Keys,
    pub(crate) state: State,
    pub(crate) log: Arc<Log>,
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
        let store = Arc::new(FileStore::open(&data.join("log")).unwrap());
        let (log, _) = Log::open(store, &log_signer).unwrap();
        let mut state = State::new("example.org".parse().unwrap());
        replay(&mut state, &log, applied).unwrap();
        Self {
            admin,
            keys,
            state,
            log,
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
        let (state, log) = (self.state.clone(), Arc::clone(&self.log));
        Sequencer::new(state, log, listeners, Duration::from_secs(10))
    }
}
