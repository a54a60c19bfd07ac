//! The sequencer: the one road by which anything changes.
//!
//! Under one mutex a change is decided against the state that includes everything staged so far, its
//! records are staged in the log, and the state moves on. Whoever asked then waits for the records to
//! be durable, outside of the lock. So nothing is decided on what an earlier change has already
//! undone, and nothing is acknowledged that a crash could take back.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use agentca_auditlog::log::{Log, StageError};
use agentca_auditlog::merkle::{Hash, leaf_hash};
use agentca_auditlog::record::{Head, signer_announced};
use agentca_auditlog::status::StatusRecord;
use agentca_identity::name::Environment;
use agentca_identity::time::Timestamp;
use bytes::Bytes;

use super::change::{Change, Clock};
use super::core::Alarm;
use super::event::{Body, Draft, Entry, What};
use super::refusal::Refusal;
use super::state::{EndedCertificate, State};
use crate::room::Room;

/// The sequencer; shared by every task.
pub struct Sequencer {
    state: Mutex<State>,
    log: Arc<Log>,
    listeners: Vec<Listener>,
    means: Means,
    /// Whether a record was staged that the state did not take: log and state differ from then on.
    failed: AtomicBool,
}

/// What the sequencer works with besides log and state.
#[derive(Debug)]
pub struct Means {
    /// How long a record may take to become durable.
    pub durable_timeout: Duration,
    /// What is left for the log.
    pub room: Arc<Room>,
    /// Rung when the state no longer says what the log says.
    pub alarm: Alarm,
}

/// Called under the lock for each record that was applied, in order; must not block.
pub type Listener = Box<dyn Fn(&Arc<Applied>) + Send + Sync>;

/// A record that was staged and applied; not necessarily durable.
#[derive(Debug)]
pub struct Applied {
    /// The record's index.
    pub index: u64,
    /// Its leaf hash.
    pub leaf: Hash,
    /// The newest record's time.
    pub time: Timestamp,
    /// Rows of the index: key, and the value or a deletion.
    pub rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// When it is a status record.
    pub status: Option<StatusEntry>,
    /// Certificates that it ended.
    pub ended: Vec<EndedCertificate>,
}

/// A status record on its way to enforcers.
#[derive(Clone, Debug)]
pub struct StatusEntry {
    /// Whose chain.
    pub environment: Environment,
    /// Its number there.
    pub number: u64,
    /// The record's bytes.
    pub bytes: Bytes,
}

/// What a change became.
#[derive(Debug)]
pub struct Submitted<T> {
    /// What was decided.
    pub outcome: T,
    /// The records that were staged, by index in order.
    pub records: Vec<u64>,
    /// The newest status number of each environment that the change wrote to.
    pub statuses: Vec<(Environment, u64)>,
}

impl<T> Submitted<T> {
    /// The last record, if any was needed.
    pub fn last(&self) -> Option<u64> {
        self.records.last().copied()
    }
}

impl Sequencer {
    /// A sequencer that goes on from `state`, which holds every record of `log`.
    pub fn new(state: State, log: Arc<Log>, listeners: Vec<Listener>, means: Means) -> Self {
        Self {
            state: Mutex::new(state),
            log,
            listeners,
            means,
            failed: AtomicBool::new(false),
        }
    }

    /// Decides a change and stages its records. They are not durable yet: see
    /// [`Sequencer::durable`].
    pub fn submit<C: Change>(&self, change: C) -> Result<Submitted<C::Outcome>, Refusal> {
        let mut state = self.lock()?;
        self.decide(&mut state, change)
    }

    /// Makes a change from the state while everybody else waits, and decides it. For what must follow
    /// at once on what it was made from.
    pub fn submit_after<C: Change>(
        &self,
        make: impl FnOnce(&State) -> Result<Option<C>, Refusal>,
    ) -> Result<Option<Submitted<C::Outcome>>, Refusal> {
        let mut state = self.lock()?;
        match make(&state)? {
            Some(change) => self.decide(&mut state, change).map(Some),
            None => Ok(None),
        }
    }

    fn decide<C: Change>(
        &self,
        state: &mut State,
        change: C,
    ) -> Result<Submitted<C::Outcome>, Refusal> {
        if !change.uses_reserve() {
            self.demand_room()?;
        }
        let decision = change.decide(state, clock(state))?;
        let mut records = Vec::with_capacity(decision.drafts.len());
        let mut statuses: Vec<(Environment, u64)> = Vec::new();
        for draft in decision.drafts {
            let applied = self.stage(state, draft)?;
            records.push(applied.index);
            if let Some(StatusEntry {
                environment,
                number,
                ..
            }) = &applied.status
            {
                statuses.retain(|(other, _)| other != environment);
                statuses.push((environment.clone(), *number));
            }
            self.listeners
                .iter()
                .for_each(|listener| listener(&applied));
        }
        Ok(Submitted {
            outcome: decision.outcome,
            records,
            statuses,
        })
    }

    /// Refuses while only the reserve is left.
    pub fn demand_room(&self) -> Result<(), Refusal> {
        let room = &self.means.room;
        if room.is_short() {
            return Err(Refusal::Reserved(room.reserve()));
        }
        Ok(())
    }

    /// Reads the state.
    pub fn read<T>(&self, read: impl FnOnce(&State, Clock) -> T) -> Result<T, Refusal> {
        let state = self.lock()?;
        let clock = clock(&state);
        Ok(read(&state, clock))
    }

    /// Completes when the record at `index` is durable.
    pub async fn durable(&self, index: u64) -> Result<(), Refusal> {
        tokio::time::timeout(self.means.durable_timeout, self.log.durable_at(index))
            .await
            .map_err(|_| Refusal::NotDurable)?
            .map_err(|_| Refusal::NotDurable)
    }

    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    fn stage(&self, state: &mut State, draft: Draft) -> Result<Arc<Applied>, Refusal> {
        let Draft { what, facts } = draft;
        let mut written = None;
        let staged = self.log.stage(|head, out| {
            let from = out.len();
            let body = write(state, what, head, out);
            let bytes = Bytes::copy_from_slice(out.get(from..).unwrap_or_default());
            written = Some((body, head.time, bytes));
        });
        let staged = staged.map_err(|error| match error {
            StageError::TooLarge { length, limit } => Refusal::RecordTooLarge { length, limit },
            _ => Refusal::LogFull(error.to_string()),
        })?;
        let (body, time, bytes) =
            written.ok_or_else(|| Refusal::Internal("the record was not written".into()))?;
        let leaf = staged.leaf;
        debug_assert_eq!(leaf, leaf_hash(&bytes));
        let status = match &body {
            Body::Status(record) => Some(StatusEntry {
                environment: record.environment.clone(),
                number: record.number,
                bytes,
            }),
            Body::Own(_) | Body::Log => None,
        };
        let entry = Entry {
            index: staged.index,
            time,
            body,
        };
        let effects = state
            .apply(&entry, &leaf, facts)
            .map_err(|e| self.fail(e.to_string()))?;
        let rows = effects
            .rows
            .iter()
            .map(|key| (key.encode(), state.row(key)))
            .collect();
        let (index, time) = (entry.index, state.time());
        Ok(Arc::new(Applied {
            index,
            leaf,
            time,
            rows,
            status,
            ended: effects.ended,
        }))
    }

    /// The record is in the log and not in the state: nothing more may be decided on it.
    fn fail(&self, why: String) -> Refusal {
        self.failed.store(true, Ordering::Release);
        self.means.alarm.raise(why.clone());
        Refusal::Internal(why)
    }

    fn lock(&self) -> Result<MutexGuard<'_, State>, Refusal> {
        let failed = || Refusal::Internal("restart it, an earlier change failed".into());
        // A change that failed half-way leaves a state that nothing may be decided on.
        let state = self.state.lock().map_err(|_| failed())?;
        if self.failed.load(Ordering::Acquire) {
            return Err(failed());
        }
        Ok(state)
    }
}

impl fmt::Debug for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequencer").finish_non_exhaustive()
    }
}

/// Appends the record; a status record gets its place in its chain only now.
fn write(state: &State, what: What, head: &Head<'_>, out: &mut Vec<u8>) -> Body {
    match what {
        What::Own(event) => {
            event.write_whole(head, out);
            Body::Own(event)
        }
        What::Signer(chain) => {
            signer_announced(head, out, &chain);
            Body::Log
        }
        What::Status {
            environment,
            by,
            event,
        } => {
            let chain = state.chain(&environment);
            let record = StatusRecord {
                number: chain.map_or(0, |chain| chain.number) + 1,
                prev: chain.map_or([0; 32], |chain| chain.hash),
                seq: head.seq,
                environment,
                by,
                event,
            };
            record.encode(head, out);
            Body::Status(record)
        }
    }
}

fn clock(state: &State) -> Clock {
    let wall = Timestamp::now();
    let newest = state.time();
    Clock {
        now: wall.max(newest),
        behind: wall + MAX_BEHIND < newest,
    }
}

/// How far the clock may stand before the newest record.
const MAX_BEHIND: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::change::{AnnounceSigner, Decision};
    use crate::authority::event::Event;
    use crate::authority::handle::Handle;
    use crate::testing::Made;

    /// Any records.
    struct Write(Vec<Draft>);

    impl Change for Write {
        type Outcome = ();

        fn decide(self, _: &State, _: Clock) -> Result<Decision<()>, Refusal> {
            Ok(Decision {
                drafts: self.0,
                outcome: (),
            })
        }
    }

    fn upkeep() -> AnnounceSigner {
        AnnounceSigner {
            chain: vec![vec![1; 40], vec![2; 40]],
        }
    }

    #[test]
    fn after_a_record_that_does_not_apply_nothing_more_is_decided() {
        let made = Made::new(drop);
        let room = Room::of(&made.data(), 0);
        let (sequencer, mut alarm) = made.sequencer_with(Vec::new(), room);
        let nobody = Handle {
            environment: "prod".parse().unwrap(),
            name: "nobody".parse().unwrap(),
        };
        let domain = made.state.trust_domain();
        let removed = Event::EnforcerRemoved {
            enforcer: nobody.enforcer(domain),
            by: made.admin.id.clone(),
        };
        let refused = sequencer.submit(Write(vec![Draft::own(removed)]));
        assert!(matches!(refused, Err(Refusal::Internal(_))), "{refused:?}");
        assert!(alarm.try_recv().is_ok());
        let staged = made.state.applied();
        made.log.wait_blocking(staged).unwrap();
        let refused = sequencer.submit(upkeep()).unwrap_err();
        assert!(refused.to_string().contains("restart it"), "{refused}");
        assert!(sequencer.read(|state, _| state.applied()).is_err());
        made.log.shutdown();
        assert_eq!(made.log.durable(), staged + 1, "no other was staged");
    }

    #[test]
    fn the_reserve_is_for_what_asks_for_it() {
        let made = Made::new(drop);
        let room = Room::of(&made.data(), u64::MAX);
        let (sequencer, _alarm) = made.sequencer_with(Vec::new(), room);
        let refused = sequencer.submit(Write(Vec::new())).unwrap_err();
        assert!(matches!(refused, Refusal::Reserved(_)), "{refused}");
        sequencer.submit(upkeep()).unwrap();
    }

    #[test]
    fn a_record_that_is_too_long_is_no_full_disk() {
        let made = Made::new(drop);
        let sequencer = made.sequencer(Vec::new());
        let chain = vec![vec![1; 80_000]];
        let refused = sequencer.submit(AnnounceSigner { chain }).unwrap_err();
        assert!(
            matches!(refused, Refusal::RecordTooLarge { .. }),
            "{refused}"
        );
        sequencer.submit(upkeep()).unwrap();
    }
}
