//! Opening this enforcer's log, and saying in it whose signatures count.
//!
//! Record 0 holds the chains of the log signer and of the response signer, and the witness's; what
//! `agentca renew` brings later is announced before it is used.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentca_auditlog::log::{Log, LogError, LogSigner, OpenError, Reader};
use agentca_auditlog::note::VerifierKey;
use agentca_auditlog::record::{Opening, log_opened, read_opened, signer_announced};
use agentca_auditlog::store::{FileStore, StoreError};
use rustix::fs::Access;

use crate::config::{Config, RevocationMode};
use crate::credentials::Credentials;
use crate::journal::{self, JournalError};
use crate::witness::NamedWitness;

/// Opens the log, or makes it when there is none.
pub(super) fn open(config: &Config, credentials: &Credentials) -> Result<Arc<Log>, OpeningError> {
    let dir = config.log_dir();
    let failed = |reason: String| OpeningError::Log {
        dir: dir.clone(),
        reason,
    };
    refuse_other_origin(config, credentials)?;
    std::fs::create_dir_all(&config.data_dir).map_err(|error| failed(error.to_string()))?;
    let signer = signer(credentials);
    if is_missing(&dir).map_err(|error| failed(error.to_string()))? {
        create(config, credentials, &signer).map_err(|error| failed(error.to_string()))?;
        tracing::info!(log = %dir.display(), origin = %signer.origin, "new log");
    }
    let store = FileStore::open(&dir).map_err(|error| match error.source.kind() {
        std::io::ErrorKind::WouldBlock => OpeningError::InUse(config.data_dir.clone()),
        _ => failed(error.to_string()),
    })?;
    let (log, recovery) =
        Log::open(Arc::new(store), &signer).map_err(|error| failed(explain(&error)))?;
    if recovery.dropped > 0 {
        tracing::warn!(
            bytes = recovery.dropped,
            "a torn batch was cut off: nobody was answered on it"
        );
    }
    let opening = first_record(&log).map_err(failed)?;
    refuse_other_mode(config, &opening).map_err(|reason| failed(reason.to_owned()))?;
    tracing::info!(log = %dir.display(), size = recovery.size, "log opened");
    Ok(log)
}

/// Looks at what [`open`] would find, without opening or writing anything: an enforcer may run on it.
pub(crate) fn inspect(config: &Config, credentials: &Credentials) -> Result<(), OpeningError> {
    let dir = config.log_dir();
    let failed = |reason: String| OpeningError::Log {
        dir: dir.clone(),
        reason,
    };
    writable(&config.data_dir)?;
    if is_missing(&dir).map_err(|error| failed(error.to_string()))? {
        return Ok(());
    }
    refuse_other_origin(config, credentials)?;
    let first = Reader::new(&dir, 0)
        .batch()
        .map_err(|error| failed(error.to_string()))?;
    let Some((0, first)) = first.and_then(|batch| batch.into_iter().next()) else {
        return Err(failed("it has no first record".to_owned()));
    };
    let opening =
        read_opened(&first).map_err(|error| failed(format!("its first record: {error}")))?;
    refuse_other_mode(config, &opening).map_err(|reason| failed(reason.to_owned()))
}

/// Whether the folder, or the nearest there is above it, may be written to.
fn writable(dir: &Path) -> Result<(), OpeningError> {
    let Some(nearest) = dir.ancestors().find(|above| above.exists()) else {
        return Ok(());
    };
    rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        OpeningError::Data {
            dir: nearest.to_owned(),
            source: error.into(),
        }
    })
}

/// A log of another generation, or of another enforcer, is a common mistake.
fn refuse_other_origin(config: &Config, credentials: &Credentials) -> Result<(), OpeningError> {
    let checkpoint = std::fs::read_to_string(config.log_dir().join(CHECKPOINT)).unwrap_or_default();
    match checkpoint.lines().next() {
        Some(origin) if origin != credentials.log_origin.to_string() => Err(OpeningError::Origin {
            dir: config.data_dir.clone(),
            theirs: origin.to_owned(),
            ours: credentials.log_origin.to_string(),
        }),
        _ => Ok(()),
    }
}

/// The file in a log's directory whose first line is the log's name.
const CHECKPOINT: &str = "checkpoint";

/// A log has a witness from its first record on or never: another mode would leave it without one, or
/// with one that no verifier asks for.
fn refuse_other_mode(config: &Config, opening: &Opening) -> Result<(), &'static str> {
    match (&config.revocation, &opening.witness) {
        (RevocationMode::Feed { .. }, Some(_)) | (RevocationMode::Crl { .. }, None) => Ok(()),
        (RevocationMode::Crl { .. }, Some(_)) => Err(
            "its first record names a witness, and with `revocation = \"crl\"` there is none: \
             give that mode a data_dir of its own",
        ),
        (RevocationMode::Feed { .. }, None) => Err(
            "its first record names no witness, for it was begun with `revocation = \"crl\"`: \
             give the feed a data_dir of its own",
        ),
    }
}

fn first_record(log: &Log) -> Result<Opening, String> {
    let first = log.record(0).map_err(|error| error.to_string())?;
    let first = first.ok_or("it has no first record")?;
    read_opened(&first).map_err(|error| format!("its first record: {error}"))
}

/// Announces the chains that the log does not name yet. A chain that was announced too far back to be
/// found is announced again.
pub(super) async fn announce_missing(
    log: &Arc<Log>,
    credentials: &Credentials,
    announced: &[Vec<u8>],
) -> Result<(), OpeningError> {
    let opening = first_record(log).map_err(OpeningError::Record)?;
    for chain in [&credentials.log.chain, &credentials.response.chain] {
        let leaf = chain.first();
        let named = opening.signers.iter().any(|known| known.first() == leaf)
            || leaf.is_some_and(|leaf| announced.contains(leaf));
        if !named {
            journal::record(log, |head, out| signer_announced(head, out, chain)).await?;
        }
    }
    Ok(())
}

/// The witness's certificate, as the log names it. Without the first record, which was read when the log
/// was opened, it would only be named once more.
pub(super) fn named_witness(
    log: &Log,
    witness: &VerifierKey,
    announced: &[Vec<u8>],
) -> NamedWitness {
    let first = first_record(log).ok().and_then(|first| first.witness);
    let leaf = first.iter().flatten().take(1);
    NamedWitness::of(witness, leaf.chain(announced).map(Vec::as_slice))
}

/// Announces what a reload brings, before it is used.
pub(super) async fn announce_changed(
    log: &Arc<Log>,
    old: &Credentials,
    new: &Credentials,
) -> Result<(), OpeningError> {
    if new.response.chain != old.response.chain {
        let chain = &new.response.chain;
        journal::record(log, |head, out| signer_announced(head, out, chain)).await?;
    }
    if new.log.key.public_key() != old.log.key.public_key() {
        let (log, signer) = (Arc::clone(log), signer(new));
        let rotating = tokio::task::spawn_blocking(move || log.rotate_signer(&signer));
        rotating.await.map_err(|_| OpeningError::Stopped)??;
    } else if new.log.chain != old.log.chain {
        let chain = &new.log.chain;
        journal::record(log, |head, out| signer_announced(head, out, chain)).await?;
    }
    Ok(())
}

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// Opening or making it.
    #[error("the log in {} cannot be opened: {reason}", .dir.display())]
    Log {
        /// Its directory.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// The log is another's.
    #[error(
        "data_dir {} holds the log of {theirs}, identity_dir is for {ours}: give the new log a \
         data_dir of its own",
        .dir.display()
    )]
    Origin {
        /// The folder.
        dir: PathBuf,
        /// The name in it.
        theirs: String,
        /// The name that was expected.
        ours: String,
    },
    /// Nothing can be written there.
    #[error("data_dir: {} cannot be written to: {source}", .dir.display())]
    Data {
        /// It, or the nearest folder above it.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has the log open.
    #[error(
        "another process runs on {}, probably another agentca-enforcer: end that one first, or give \
         this one a `data_dir` and an `identity_dir` of its own",
        .0.display()
    )]
    InUse(PathBuf),
    /// A record was not taken.
    #[error("a signer could not be announced: {0}")]
    Record(String),
    /// The process is ending.
    #[error("stopping")]
    Stopped,
}

impl From<JournalError> for OpeningError {
    fn from(error: JournalError) -> Self {
        Self::Record(error.to_string())
    }
}

impl From<LogError> for OpeningError {
    fn from(error: LogError) -> Self {
        Self::Record(error.to_string())
    }
}

fn create(
    config: &Config,
    credentials: &Credentials,
    signer: &LogSigner,
) -> Result<(), CreateError> {
    // Without a feed nobody witnesses, which a verifier of the log is told by the absence.
    let witness = match config.revocation {
        RevocationMode::Feed { .. } => Some(credentials.witness_chain.clone()),
        RevocationMode::Crl { .. } => None,
    };
    let signers = vec![
        credentials.log.chain.clone(),
        credentials.response.chain.clone(),
    ];
    let opening = Opening { signers, witness };
    let store = FileStore::create(&config.log_dir())?;
    Log::create(Arc::new(store), signer, |head, out| {
        log_opened(head, out, &opening)
    })?;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum CreateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
}

fn signer(credentials: &Credentials) -> LogSigner {
    LogSigner {
        origin: credentials.log_origin.clone(),
        key: credentials.log.key.clone(),
        chain: credentials.log.chain.clone(),
    }
}

fn is_missing(dir: &std::path::Path) -> std::io::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// A checkpoint that another key signed.
fn explain(error: &OpenError) -> String {
    match error {
        OpenError::Checkpoint(_) => {
            format!(
                "{error}; it is not of identity_dir's key: give a new log a data_dir of its own"
            )
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use agentca_auditlog::record::read_announced;
    use agentca_identity::time::Timestamp;

    use super::*;
    use crate::journal::Floors;
    use crate::testing::Pki;

    const FEED: &str = "authority = \"https://127.0.0.1:1\"\n";
    const CRL: &str = "revocation = \"crl\"\ncrl = [\"0.crl\"]\n";

    struct Bench {
        credentials: Credentials,
        pki: Pki,
        dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
            pki.write(dir.path(), HOUR);
            let credentials = load(&dir);
            Self {
                credentials,
                pki,
                dir,
            }
        }

        fn open(&self, mode: &str, data: &str) -> Result<Arc<Log>, OpeningError> {
            open(&self.config(mode, data), &self.credentials)
        }

        fn config(&self, mode: &str, data: &str) -> Config {
            let text = format!(
                "environment = \"prod\"\nlisten = \"127.0.0.1:0\"\nidentity_dir = \".\"\n\
                 data_dir = \"{data}\"\n{mode}{}",
                crate::testing::ROUTES
            );
            Config::parse(&text, self.dir.path()).unwrap()
        }
    }

    fn load(dir: &tempfile::TempDir) -> Credentials {
        let environment = "prod".parse().unwrap();
        Credentials::load(dir.path(), &environment, Timestamp::now()).unwrap()
    }

    #[test]
    fn a_log_stays_with_its_mode() {
        let bench = Bench::new();
        for (own, other, reason) in [
            (
                FEED,
                CRL,
                "names a witness, and with `revocation = \"crl\"` there is none",
            ),
            (CRL, FEED, "names no witness"),
        ] {
            let data = if own == FEED { "fed" } else { "listed" };
            bench.open(own, data).unwrap().shutdown();
            let refused = bench.open(other, data).unwrap_err().to_string();
            assert!(refused.contains(reason), "{refused}");
            bench.open(own, data).unwrap().shutdown();
        }
    }

    #[test]
    fn a_check_finds_what_a_start_would() {
        let bench = Bench::new();
        inspect(&bench.config(FEED, "data"), &bench.credentials).unwrap();
        assert!(!bench.dir.path().join("data").exists(), "nothing was made");
        // Also while it runs.
        let running = bench.open(FEED, "data").unwrap();
        inspect(&bench.config(FEED, "data"), &bench.credentials).unwrap();
        let mode = inspect(&bench.config(CRL, "data"), &bench.credentials).unwrap_err();
        assert!(mode.to_string().contains("names a witness"), "{mode}");
        running.shutdown();
        let mut other = load(&bench.dir);
        other.log_origin = "example.org/prod/enforcer/edge-1/2".parse().unwrap();
        let config = bench.config(FEED, "data");
        let told = inspect(&config, &other).unwrap_err();
        assert!(matches!(told, OpeningError::Origin { .. }), "{told}");
        let started = open(&config, &other).unwrap_err();
        assert_eq!(started.to_string(), told.to_string());
    }

    #[tokio::test]
    async fn signers_that_were_renewed_meanwhile_are_announced_once() {
        let mut bench = Bench::new();
        let log = bench.open(FEED, "data").unwrap();
        announce_missing(&log, &bench.credentials, &[])
            .await
            .unwrap();
        assert_eq!(log.durable(), 1, "record 0 has them");
        drop(log);
        // What a renewal brings: the log keeps its key, answers get another.
        let (at, origin) = (bench.dir.path(), bench.credentials.log_origin.clone());
        let log_key = bench.credentials.log.key.clone();
        bench.pki.renew_signer(at, "log", &origin, &log_key, HOUR);
        bench
            .pki
            .write_signer(at, "response", &origin.response().unwrap(), HOUR);
        bench.credentials = load(&bench.dir);
        for _restart in 0..2 {
            let log = bench.open(FEED, "data").unwrap();
            let announced = Floors::find(&log, 0).unwrap().announced;
            announce_missing(&log, &bench.credentials, &announced)
                .await
                .unwrap();
            assert_eq!(log.durable(), 3);
            let (ours, chains) = (
                &bench.credentials,
                [1, 2].map(|index| read_announced(&log.record(index).unwrap().unwrap()).unwrap()),
            );
            assert_eq!(
                chains,
                [ours.log.chain.clone(), ours.response.chain.clone()]
            );
            drop(log);
        }
    }

    const HOUR: Duration = Duration::from_secs(3_600);
}
