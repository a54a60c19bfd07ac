//! A small PKI and small logs for tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::profile::{Issuer, Pen, Template, Validity, create_root};
use agentca_identity::time::Timestamp;

use crate::checkpoint::{Checkpoint, cosign};
use crate::decision::WitnessConfirmed;
use crate::log::{Log, LogOptions, LogSigner};
use crate::note::{NoteSigner, SignatureType};
use crate::record::{Chain, Head, Opening, Record, log_opened};
use crate::store::FileStore;

pub(crate) const LOG: &str = "example.org/prod/enforcer/edge-1";
pub(crate) const WITNESS: &str = "example.org/ca/witness";
pub(crate) const YEAR: Duration = Duration::from_secs(3600 * 24 * 365);

pub(crate) struct Pki {
    pub(crate) now: Timestamp,
    pub(crate) log: LogSigner,
    pub(crate) witness: LogSigner,
    root: Issuer,
    signer_ca: Issuer,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self::of(LOG)
    }

    /// With a log signer for `origin` whose certificate lives for a year.
    pub(crate) fn of(origin: &str) -> Self {
        let now = Timestamp::now();
        let domain = "example.org".parse().unwrap();
        let root = create_root(domain, Pen::DOCUMENTATION, &key(), now).unwrap();
        let key = key();
        let domain = "example.org".parse().unwrap();
        let template =
            Template::signer_ca(domain, key.public_key(), Validity::starting(now, 5 * YEAR));
        let certificate = root.prepare(template).unwrap().sign().unwrap();
        let signer_ca = Issuer::new(certificate, key, Pen::DOCUMENTATION).unwrap();
        let log = signer(&signer_ca, origin, now);
        let witness = signer(&signer_ca, WITNESS, now);
        Self {
            now,
            log,
            witness,
            root,
            signer_ca,
        }
    }

    pub(crate) fn anchor(&self) -> TrustAnchor {
        TrustAnchor::from_root_der(self.root.certificate().der()).unwrap()
    }

    pub(crate) fn signer(&self, origin: &str) -> LogSigner {
        signer(&self.signer_ca, origin, self.now)
    }

    pub(crate) fn cosigner(&self) -> NoteSigner {
        NoteSigner::new(
            WITNESS,
            SignatureType::Cosignature,
            self.witness.key.clone(),
        )
        .unwrap()
    }

    pub(crate) fn create(&self, parent: &Path) -> PathBuf {
        self.create_with(parent, Some(self.witness.chain.clone()))
    }

    /// As an enforcer without a feed makes its log.
    pub(crate) fn create_unwitnessed(&self, parent: &Path) -> PathBuf {
        self.create_with(parent, None)
    }

    fn create_with(&self, parent: &Path, witness: Option<Chain>) -> PathBuf {
        let directory = parent.join("log");
        let opening = Opening {
            signers: vec![self.log.chain.clone()],
            witness,
        };
        let store = Arc::new(FileStore::create(&directory).unwrap());
        Log::create(store, &self.log, |head, out| {
            log_opened(head, out, &opening)
        })
        .unwrap();
        directory
    }

    pub(crate) fn open(&self, directory: &Path) -> Arc<Log> {
        let options = LogOptions {
            segment_bytes: 4096,
            checkpoint_interval: Duration::from_secs(3600),
            ..LogOptions::default()
        };
        let store = Arc::new(FileStore::open(directory).unwrap());
        Log::open_with(store, &self.log, options).unwrap().0
    }

    /// A log of `size` records in several segments, shut down.
    pub(crate) fn written_log(&self, parent: &Path, size: u64) -> PathBuf {
        let directory = self.create(parent);
        let log = self.open(&directory);
        while log.durable() < size {
            stage(&log, (size - log.durable()).min(5));
        }
        drop(log);
        directory
    }

    /// Has everything co-signed at `time` and records that.
    pub(crate) fn confirm(&self, log: &Log, time: Timestamp) {
        let checkpoint = log.publish_now().unwrap().checkpoint.clone();
        self.confirm_checkpoint(log, &checkpoint, time);
    }

    pub(crate) fn confirm_checkpoint(&self, log: &Log, checkpoint: &Checkpoint, time: Timestamp) {
        let line = cosign(checkpoint, time, &self.cosigner())
            .unwrap()
            .to_string();
        let record = WitnessConfirmed {
            checkpoint,
            cosignature: &line,
        };
        let staged = log.stage(|head, out| record.write(head, out)).unwrap();
        log.wait_blocking(staged.index).unwrap();
    }
}

pub(crate) fn sample(head: &Head<'_>, out: &mut Vec<u8>) {
    let mut record = Record::begin(out, head, "sample");
    record.number("n", head.seq * 7);
    record.text("text", &"x".repeat(usize::try_from(head.seq % 90).unwrap()));
    record.finish();
}

/// Stages `count` records and waits until they are durable: the last one's index.
pub(crate) fn stage(log: &Log, count: u64) -> u64 {
    let mut last = 0;
    for _ in 0..count {
        last = log.stage(sample).unwrap().index;
    }
    log.wait_blocking(last).unwrap();
    last
}

fn key() -> PrivateKey {
    PrivateKey::generate(KeyKind::P256).unwrap()
}

fn signer(ca: &Issuer, origin: &str, now: Timestamp) -> LogSigner {
    let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    let origin: agentca_identity::spiffe::LogOrigin = origin.parse().unwrap();
    let validity = Validity::starting(now, YEAR);
    let template = Template::log_signer(origin.clone(), key.public_key(), validity);
    let leaf = ca.prepare(template).unwrap().sign().unwrap();
    let chain = vec![leaf.der().to_vec(), ca.certificate().der().to_vec()];
    LogSigner { origin, key, chain }
}
