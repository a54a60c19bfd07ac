//! How a stream ended: what `/.well-known/agentca/outcome/<index>` says to the agent whose call it was.
//!
//! Memory has the newest streams of this process. About all others the log itself is asked, on a
//! thread that may wait: the record at the index is the decision and names the agent, one of those
//! after it is the outcome and names the decision. How far after nobody knows, so one request looks
//! through [`STEP`] records at most and says how far it came, and the next one goes on there.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentca_auditlog::decision::DECISION;
use agentca_auditlog::log::{Log, ReadError};
use agentca_identity::spiffe::SpiffeId;
use agentca_policy::Rule;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::Semaphore;

use crate::road::Denial;
use crate::worker::Shared;

/// The document about the stream whose decision is record `decision`.
pub(crate) async fn tell(
    shared: &Arc<Shared>,
    decision: u64,
    caller: &SpiffeId,
) -> Result<Bytes, Denial> {
    // Whether it never was or was another's: the same answer.
    let unknown = || Denial::new(Rule::NotInCatalogue, "no stream of yours has this index");
    let known = shared.outcomes.find(decision);
    if known.as_ref().is_some_and(|stream| stream.agent != *caller) {
        return Err(unknown());
    }
    let state = match known.and_then(|stream| stream.progress.state()) {
        Some(state) => Some(state),
        None => {
            let (of, caller) = (Arc::clone(shared), caller.clone());
            let look = move || of.outcomes.look(&of.log, decision, &caller);
            shared.outcomes.reading(look).await.flatten()
        }
    };
    let state = state.ok_or_else(unknown)?;
    Ok(state.document(decision).to_string().into())
}

/// What is known of a stream.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// It has not ended.
    Running,
    /// Its outcome is not durable yet.
    Ending,
    /// Its outcome is this record.
    Ended { index: u64, record: String },
    /// No record before this one is its outcome: the next request looks further.
    Searching { next: u64 },
    /// The enforcer ended before it recorded an outcome, or could not record it.
    Unrecorded,
    /// The log cannot be read there.
    Unreadable,
}

impl State {
    fn document(self, decision: u64) -> serde_json::Value {
        let state = |state: &str| serde_json::json!({ "decision": decision, "state": state });
        match self {
            Self::Running => state("running"),
            Self::Ending => state("ending"),
            Self::Unrecorded => state("unrecorded"),
            Self::Unreadable => state("unreadable"),
            Self::Searching { next } => serde_json::json!({
                "decision": decision,
                "state": "searching",
                "searched_to": next,
            }),
            Self::Ended { index, record } => serde_json::json!({
                "decision": decision,
                "state": "ended",
                "outcome": index,
                "record": record,
            }),
        }
    }
}

/// How streams ended, as far as it is remembered.
#[derive(Debug)]
pub(crate) struct Outcomes {
    /// Records from here on are this process's.
    since: u64,
    inner: Mutex<Remembered>,
    /// Reads of the log at one time.
    readers: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Remembered {
    streams: Newest<Stream>,
    /// Up to where the log was searched for an outcome, or where it is.
    searched: Newest<u64>,
}

/// One stream of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stream {
    /// Whose call it was.
    agent: SpiffeId,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Running,
    /// Its outcome is the record of this index.
    Recorded(u64),
    /// It ended, and the log did not take its outcome.
    Lost,
}

impl Progress {
    /// What is known without the log.
    fn state(self) -> Option<State> {
        match self {
            Self::Running => Some(State::Running),
            Self::Lost => Some(State::Unrecorded),
            Self::Recorded(_) => None,
        }
    }
}

impl Outcomes {
    /// Of streams whose decisions will have index `since` or a later one; older ones are in the log.
    pub(crate) fn since(since: u64) -> Self {
        Self {
            since,
            inner: Mutex::default(),
            readers: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// A stream begins whose decision has index `decision`.
    pub(crate) fn begin(&self, decision: u64, agent: SpiffeId) {
        let stream = Stream {
            agent,
            progress: Progress::Running,
        };
        self.lock().streams.put(decision, stream, REMEMBERED);
    }

    /// It ended, as record `outcome` says.
    pub(crate) fn end(&self, decision: u64, outcome: u64) {
        self.progress(decision, Progress::Recorded(outcome));
    }

    /// It ended, and no record says how.
    pub(crate) fn lose(&self, decision: u64) {
        self.progress(decision, Progress::Lost);
    }

    fn progress(&self, decision: u64, progress: Progress) {
        if let Some(stream) = self.lock().streams.values.get_mut(&decision) {
            stream.progress = progress;
        }
    }

    /// Reads the log on a thread that may wait, [`READERS`] at a time. Who asked may go away: the turn
    /// ends with the reading.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let turn = Arc::clone(&self.readers).acquire_owned().await.ok()?;
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            read()
        });
        reading.await.ok()
    }

    fn find(&self, decision: u64) -> Option<Stream> {
        self.lock().streams.values.get(&decision).cloned()
    }

    /// Reads the log; none when it has no such call of `caller`'s.
    fn look(&self, log: &Log, decision: u64, caller: &SpiffeId) -> Option<State> {
        if let Some(Progress::Recorded(outcome)) = self.find(decision).map(|it| it.progress) {
            return Some(ended(outcome, log.record(outcome)));
        }
        match log.record(decision) {
            Ok(Some(record)) if is_decision_of(&record, caller) => {}
            Ok(_) => return None,
            Err(error) => {
                tracing::error!(%error, record = decision, "a decision cannot be read");
                return None;
            }
        }
        Some(self.search(log, decision, STEP).unwrap_or_else(unreadable))
    }

    /// Goes on with the search for an outcome, through at most `step` records.
    fn search(&self, log: &Log, decision: u64, step: usize) -> Result<State, ReadError> {
        let beginning = format!("{{\"decision_index\":{decision},");
        let known = self.lock().searched.values.get(&decision).copied();
        let mut next = known.unwrap_or(decision + 1);
        // What was not recorded by the process that decided never will be.
        let ours = decision >= self.since;
        let end = if ours { log.durable() } else { self.since };
        for item in log.scan(next).take(step) {
            let (index, record) = item?;
            if index >= end {
                break;
            }
            if record.starts_with(beginning.as_bytes()) {
                self.remember(decision, index);
                return Ok(ended(index, Ok(Some(record))));
            }
            next = index + 1;
        }
        self.remember(decision, next);
        Ok(match (next >= end, ours) {
            (false, _) => State::Searching { next },
            (true, true) => State::Running,
            (true, false) => State::Unrecorded,
        })
    }

    fn remember(&self, decision: u64, place: u64) {
        self.lock().searched.put(decision, place, SEARCHES);
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ended(index: u64, record: Result<Option<Vec<u8>>, ReadError>) -> State {
    match record.map(|record| record.map(String::from_utf8)) {
        Ok(Some(Ok(record))) => State::Ended { index, record },
        Ok(Some(Err(_))) => State::Unreadable,
        Ok(None) => State::Ending,
        Err(error) => unreadable(error),
    }
}

fn unreadable(error: ReadError) -> State {
    tracing::error!(%error, "an outcome cannot be read");
    State::Unreadable
}

/// Whether a record is the decision on a call of `caller`'s whose outcome has a record of its own.
fn is_decision_of(record: &[u8], caller: &SpiffeId) -> bool {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        agent: Option<Agent<'a>>,
        result: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Agent<'a> {
        #[serde(borrow)]
        uri: Cow<'a, str>,
    }
    serde_json::from_slice::<Members<'_>>(record).is_ok_and(|members| {
        members.kind == DECISION
            && members.result.is_none()
            && members
                .agent
                .is_some_and(|agent| agent.uri == caller.to_string())
    })
}

/// What was put in last, by index.
#[derive(Debug)]
struct Newest<V> {
    values: HashMap<u64, V>,
    order: VecDeque<u64>,
}

impl<V> Default for Newest<V> {
    fn default() -> Self {
        Self {
            values: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<V> Newest<V> {
    fn put(&mut self, index: u64, value: V, most: usize) {
        if self.values.insert(index, value).is_some() {
            return;
        }
        self.order.push_back(index);
        if self.order.len() > most
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
    }
}

/// Streams remembered: at about 200 bytes each.
const REMEMBERED: usize = 65_536;
/// Searches remembered.
const SEARCHES: usize = 4_096;
/// Records that one request looks through: some tenths of a second.
const STEP: usize = 1 << 18;
/// Requests that read the log at one time; the others wait.
const READERS: usize = 2;

#[cfg(test)]
mod tests {
    use agentca_auditlog::decision::{CrlAccepted, OutcomeFields, ResultFields};
    use agentca_auditlog::record::Opening;

    use super::*;
    use crate::testing;

    /// A log whose record 1 stands for a decision, and record 5 is the outcome of record `of`.
    fn log(of: u64) -> (tempfile::TempDir, Arc<Log>) {
        let (dir, log) = testing::log(&Opening::default());
        for index in 1..=6 {
            let staged = log.stage(|head, out| match index {
                5 => OutcomeFields {
                    decision_index: of,
                    request_id: "r",
                    rule: None,
                    reason: None,
                    status_number: None,
                    result: ResultFields::default(),
                }
                .write(head, out),
                _ => CrlAccepted {
                    uri: "x",
                    number: 1,
                }
                .write(head, out),
            });
            log.wait_blocking(staged.unwrap().index).unwrap();
        }
        (dir, log)
    }

    #[test]
    fn a_search_goes_on_where_it_stopped() {
        let (_dir, log) = log(1);
        let outcomes = Outcomes::since(7);
        let search = || outcomes.search(&log, 1, 2).unwrap();
        assert_eq!(search(), State::Searching { next: 4 });
        for _again in 0..2 {
            let State::Ended { index: 5, record } = search() else {
                panic!("record 5 is the outcome");
            };
            assert_eq!(record.as_bytes(), log.record(5).unwrap().unwrap());
        }
    }

    #[test]
    fn what_has_no_outcome_still_runs_or_was_never_recorded() {
        // The decision's number alone is not the number's beginning.
        let (_dir, log) = log(12);
        assert_eq!(
            Outcomes::since(7).search(&log, 1, 100).unwrap(),
            State::Unrecorded
        );
        assert_eq!(
            Outcomes::since(1).search(&log, 1, 100).unwrap(),
            State::Running
        );
    }

    #[test]
    fn outcomes_are_bounded() {
        let outcomes = Outcomes::since(0);
        let agent: SpiffeId = "spiffe://example.org/prod/agent/a".parse().unwrap();
        let most = u64::try_from(REMEMBERED).unwrap();
        for index in 0..=most {
            outcomes.begin(index, agent.clone());
        }
        assert_eq!(outcomes.find(0), None);
        outcomes.end(0, 5);
        outcomes.end(1, 9);
        assert_eq!(outcomes.find(1).unwrap().progress, Progress::Recorded(9));
    }

    #[test]
    fn an_outcome_that_could_not_be_recorded_does_not_run_for_ever() {
        let outcomes = Outcomes::since(0);
        outcomes.begin(1, "spiffe://example.org/prod/agent/a".parse().unwrap());
        let state = || outcomes.find(1).unwrap().progress.state();
        assert_eq!(state(), Some(State::Running));
        outcomes.lose(1);
        assert_eq!(state(), Some(State::Unrecorded));
    }

    #[tokio::test]
    async fn a_reading_that_nobody_waits_for_keeps_its_turn() {
        let outcomes = Outcomes::since(0);
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let mut reading = Box::pin(outcomes.reading(move || {
            begin.send(()).unwrap();
            wait.recv().unwrap();
        }));
        tokio::select! {
            _ = &mut reading => panic!("it waits"),
            begun = begun => begun.unwrap(),
        }
        drop(reading);
        assert_eq!(outcomes.readers.available_permits(), READERS - 1);
        go_on.send(()).unwrap();
        let all = u32::try_from(READERS).unwrap();
        assert!(outcomes.readers.acquire_many(all).await.is_ok());
    }
}
