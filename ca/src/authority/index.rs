//! The index: the state as rows in sled, so that a start need not replay the whole log.
//!
//! It is derived and disposable. One thread writes it, only from records that are durable, and each
//! batch carries the cursor: how many records are in, and the leaf hash of the last. A start loads the
//! rows and replays the log past the cursor; an index that is missing, damaged, or not this log's is
//! deleted and built again from record 0.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use agentca_auditlog::merkle::{Hash, leaf_hash};
use agentca_identity::name::TrustDomain;
use agentca_identity::time::Timestamp;
use serde::{Deserialize, Serialize};
use sled::{Batch, Db};

use super::sequencer::Applied;
use super::state::{RowKey, State};

/// The index on disk.
#[derive(Debug)]
pub struct Index {
    database: Db,
}

/// What a start found.
#[derive(Debug)]
pub enum Loaded {
    /// Rows that belong to this log: replay goes on behind them.
    Rows(Box<State>),
    /// There was none yet: replay begins at record 0.
    New,
    /// Nothing of use, and why: replay begins at record 0.
    Unusable(String),
}

/// The index cannot even be made anew.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// sled cannot make it.
    #[error("cannot make the index in `{path}`: {source}; delete it or make the folder writable")]
    Open {
        /// The directory.
        path: PathBuf,
        /// What sled said.
        source: sled::Error,
    },
    /// The damaged one cannot be deleted.
    #[error("cannot delete the damaged index `{path}`: {source}")]
    Delete {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread cannot be started.
    #[error("cannot start the index's thread: {0}")]
    Thread(std::io::Error),
}

/// How far the index is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    version: u32,
    /// How many records are in.
    applied: u64,
    /// The leaf hash of the last.
    leaf: Hash,
    /// The newest record's time.
    time: Timestamp,
}

impl Index {
    /// Opens the index in `path`. `record` gives a durable record of the log by index.
    pub fn open(
        path: &Path,
        trust_domain: &TrustDomain,
        record: impl Fn(u64) -> Option<Vec<u8>>,
    ) -> Result<(Self, Loaded), IndexError> {
        let existed = path.exists();
        let found = open(path).map_err(|e| e.to_string()).and_then(|database| {
            let state = load(&database, trust_domain, record)?;
            Ok((database, state))
        });
        match found {
            Ok((database, state)) => Ok((Self { database }, Loaded::Rows(Box::new(state)))),
            Err(why) => {
                if path.exists() {
                    std::fs::remove_dir_all(path).map_err(|source| IndexError::Delete {
                        path: path.to_owned(),
                        source,
                    })?;
                }
                let database = open(path).map_err(|source| IndexError::Open {
                    path: path.to_owned(),
                    source,
                })?;
                let loaded = if existed {
                    Loaded::Unusable(why)
                } else {
                    Loaded::New
                };
                Ok((Self { database }, loaded))
            }
        }
    }

    /// Starts the one thread that writes.
    pub fn start(self) -> Result<IndexWriter, IndexError> {
        let (queue, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("index".into())
            .spawn(move || write(&self.database, &inbox))
            .map_err(IndexError::Thread)?;
        Ok(IndexWriter {
            queue,
            thread: Some(thread),
        })
    }
}

/// The thread that writes the index.
#[derive(Debug)]
pub struct IndexWriter {
    queue: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told.
#[derive(Debug)]
pub enum Message {
    /// A record was staged and applied.
    Applied(Arc<Applied>),
    /// So many records are durable.
    Durable(u64),
    /// Nothing comes any more.
    Stop,
}

impl IndexWriter {
    /// Where to send what it is to know.
    pub fn queue(&self) -> Sender<Message> {
        self.queue.clone()
    }

    /// Writes what is durable, and ends.
    pub fn stop(&mut self) {
        // The thread may be gone already, with its database; then there is nothing to wait for.
        let _gone = self.queue.send(Message::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the index's thread failed; the index is rebuilt at the next start");
        }
    }
}

fn open(path: &Path) -> Result<Db, sled::Error> {
    sled::Config::new()
        .path(path)
        .cache_capacity(64 << 20)
        .flush_every_ms(Some(1000))
        .open()
}

fn load(
    database: &Db,
    trust_domain: &TrustDomain,
    record: impl Fn(u64) -> Option<Vec<u8>>,
) -> Result<State, String> {
    let text = |e: sled::Error| e.to_string();
    let cursor = database.get(CURSOR).map_err(text)?.ok_or("it is new")?;
    let cursor: Cursor = serde_json::from_slice(&cursor).map_err(|e| e.to_string())?;
    if cursor.version != FORMAT {
        return Err("another version of the program wrote it".into());
    }
    let last = cursor.applied.checked_sub(1).ok_or("its cursor is empty")?;
    let last = record(last).ok_or("it is ahead of the log")?;
    if leaf_hash(&last) != cursor.leaf {
        return Err("it belongs to another log".into());
    }
    let mut state = State::new(trust_domain.clone());
    for row in database.iter() {
        let (key, value) = row.map_err(text)?;
        if key == CURSOR {
            continue;
        }
        let key = RowKey::decode(&key).map_err(|e| e.to_string())?;
        state.insert_row(key, &value).map_err(|e| e.to_string())?;
    }
    state.derive().map_err(|e| e.to_string())?;
    state.applied = cursor.applied;
    state.time = cursor.time;
    Ok(state)
}

/// The thread: gathers what was applied, and writes it once it is durable.
fn write(database: &Db, inbox: &Receiver<Message>) {
    let mut waiting: std::collections::VecDeque<Arc<Applied>> = std::collections::VecDeque::new();
    let mut durable = 0;
    loop {
        let Ok(first) = inbox.recv() else { return };
        if !matches!(first, Message::Stop) {
            // Nobody waits for the index. A thread that were woken for every record, and sled's
            // threads with it, would cost issuance a fifth of its rate.
            std::thread::sleep(GATHER);
        }
        let mut stop = false;
        for message in std::iter::once(first).chain(inbox.try_iter()) {
            match message {
                Message::Applied(applied) => waiting.push_back(applied),
                Message::Durable(size) => durable = durable.max(size),
                Message::Stop => stop = true,
            }
        }
        let ready = waiting
            .iter()
            .take_while(|applied| applied.index < durable)
            .count();
        if let Err(error) = apply(database, waiting.drain(..ready)) {
            tracing::error!(%error, "the index failed; it is rebuilt at the next start");
            return;
        }
        if stop {
            if let Err(error) = database.flush() {
                tracing::warn!(%error, "the index was not flushed");
            }
            return;
        }
    }
}

fn apply(database: &Db, records: impl Iterator<Item = Arc<Applied>>) -> Result<(), sled::Error> {
    let mut batch = Batch::default();
    let mut cursor = None;
    for applied in records {
        for (key, value) in &applied.rows {
            match value {
                Some(value) => batch.insert(key.as_slice(), value.as_slice()),
                None => batch.remove(key.as_slice()),
            }
        }
        cursor = Some(Cursor {
            version: FORMAT,
            applied: applied.index + 1,
            leaf: applied.leaf,
            time: applied.time,
        });
    }
    let Some(cursor) = cursor else { return Ok(()) };
    let cursor = serde_json::to_vec(&cursor)
        .map_err(|e| sled::Error::Unsupported(format!("the cursor: {e}")))?;
    batch.insert(CURSOR, cursor);
    database.apply_batch(batch)
}

/// How long records are gathered for one write.
const GATHER: Duration = Duration::from_millis(50);
const CURSOR: &[u8] = b"\0cursor";
/// Raised with every change of the rows.
const FORMAT: u32 = 2;
