//! Disclosures of what tools were called with, kept beside the log: a file a day in
//! `<data_dir>/disclosures`, `{"index":N,"disclosures":["…"]}` a line.
//!
//! One thread writes what calls hand over; no call ever waits for it. What there is no room for, or
//! the disk does not take, is counted and gone: the log has its commitments all the same.

mod files;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::files::Files;
pub(crate) use self::files::{erase, find};
use crate::config::{Config, DisclosedValues, DisclosureOptions};

/// How many were kept, and how many were not.
#[derive(Debug, Default)]
pub(crate) struct DisclosureCounts {
    pub(crate) kept: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// Takes the disclosures of calls; where none are kept any more, deletes those that grow too old.
pub(crate) struct Disclosures {
    keeps: bool,
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Between calls and the writer.
#[derive(Debug)]
struct Shared {
    /// Bytes of what was handed over and not written.
    waiting: AtomicUsize,
    counts: Arc<DisclosureCounts>,
}

enum Message {
    Kept(Kept),
    /// Nothing comes after.
    End,
}

/// The disclosures of one record.
#[derive(Debug)]
struct Kept {
    index: u64,
    disclosures: Vec<String>,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.disclosures.iter().map(String::len).sum()
    }

    fn count(&self) -> u64 {
        u64::try_from(self.disclosures.len()).unwrap_or(u64::MAX)
    }
}

/// The folder of an enforcer's disclosures.
pub(crate) fn dir(config: &Config) -> PathBuf {
    config.data_dir.join("disclosures")
}

impl Disclosures {
    /// Starts the writer.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub(crate) fn start(config: &Config, counts: Arc<DisclosureCounts>) -> std::io::Result<Self> {
        let DisclosureOptions { values, max_age } = config.disclosures;
        let shared = Arc::new(Shared {
            waiting: AtomicUsize::new(0),
            counts,
        });
        let (queue, receiver) = sync_channel(QUEUE);
        let writer = Writer {
            files: Files::new(dir(config), max_age),
            shared: Arc::clone(&shared),
            said: None,
            dropped: 0,
        };
        let thread = std::thread::Builder::new()
            .name("disclosures".to_owned())
            .spawn(move || writer.run(&receiver))?;
        Ok(Self {
            keeps: values == DisclosedValues::Keep,
            queue,
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Whether calls hand theirs over.
    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }

    /// Has the disclosures of record `index` written, or counts that there was no room.
    pub(crate) fn keep(&self, index: u64, disclosures: Vec<String>) {
        let kept = Kept { index, disclosures };
        let (bytes, count) = (kept.bytes(), kept.count());
        let waiting = &self.shared.waiting;
        let before = waiting.fetch_add(bytes, Ordering::Relaxed);
        let room = MOST_WAITING.checked_sub(bytes);
        let fits = room.is_some_and(|room| before <= room);
        if !fits || self.queue.try_send(Message::Kept(kept)).is_err() {
            waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.shared
                .counts
                .dropped
                .fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Writes what was handed over and ends the writer.
    pub(crate) fn close(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = thread.take() else { return };
        // Fails only when the writer has ended.
        let _ended = self.queue.send(Message::End);
        if thread.join().is_err() {
            tracing::error!("the writer of disclosures panicked");
        }
    }
}

impl fmt::Debug for Disclosures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disclosures").finish_non_exhaustive()
    }
}

/// The thread that writes.
struct Writer {
    files: Files,
    shared: Arc<Shared>,
    /// When it was last said that disclosures were dropped, and how many were by then.
    said: Option<Instant>,
    dropped: u64,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Message>) {
        self.files.sweep();
        loop {
            match queue.recv_timeout(SWEEP) {
                Ok(Message::Kept(first)) => {
                    if !self.batch(first, queue) {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.files.sweep(),
                Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.say();
        }
        self.say();
    }

    /// Writes what is there at once; whether more may come.
    fn batch(&mut self, first: Kept, queue: &Receiver<Message>) -> bool {
        let (mut lines, mut count, mut next) = (Vec::new(), 0, Some(first));
        let mut goes_on = true;
        while let Some(kept) = next.take() {
            files::push_line(&mut lines, kept.index, &kept.disclosures);
            count += kept.count();
            self.shared
                .waiting
                .fetch_sub(kept.bytes(), Ordering::Relaxed);
            if lines.len() >= BATCH {
                break;
            }
            match queue.try_recv() {
                Ok(Message::Kept(kept)) => next = Some(kept),
                Ok(Message::End) | Err(TryRecvError::Disconnected) => goes_on = false,
                Err(TryRecvError::Empty) => {}
            }
        }
        let counted = match self.files.append(&lines) {
            Ok(()) => &self.shared.counts.kept,
            Err(error) => {
                if self.may_say() {
                    tracing::error!(%error, "disclosures cannot be written: they are dropped");
                }
                &self.shared.counts.dropped
            }
        };
        counted.fetch_add(count, Ordering::Relaxed);
        goes_on
    }

    fn say(&mut self) {
        let dropped = self.shared.counts.dropped.load(Ordering::Relaxed);
        if dropped > self.dropped && self.may_say() {
            self.said = Some(Instant::now());
            let more = dropped.saturating_sub(self.dropped);
            tracing::warn!(dropped = more, "disclosures were dropped, not kept");
            self.dropped = dropped;
        }
    }

    fn may_say(&self) -> bool {
        self.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN)
    }
}

/// Calls whose disclosures wait to be written.
const QUEUE: usize = 4_096;
/// And their bytes.
const MOST_WAITING: usize = 16 << 20;
/// Bytes written at once.
const BATCH: usize = 1 << 20;
/// How often it is looked for files that are too old.
const SWEEP: Duration = Duration::from_secs(600);
const SAY_AGAIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
