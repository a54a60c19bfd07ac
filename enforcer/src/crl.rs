//! CRL mode: revocation from certificate revocation lists alone (RFC 5280 §5), for where no feed can
//! reach. Weaker than the feed: nobody says what was issued, and news are as old as the list.
//!
//! A list counts when its signature and issuer are right, when it is fresh, and when its number did
//! not go back: each accepted number is a record of this enforcer's log, its floor after a restart.

mod fetch;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentca_auditlog::decision::CrlAccepted;
use agentca_auditlog::log::Log;
use agentca_identity::certificate::Certificate;
use agentca_identity::profile::crl::{Crl, CrlError};
use agentca_identity::time::Timestamp;
use http::StatusCode;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::fetch::FetchError;
use crate::config::CrlSource;
use crate::journal::{self, Floors, JournalError};
use crate::setting::Settings;
use crate::status::{CrlSet, MAX_SKEW, Readiness, Registry};

/// The task's means.
#[derive(Debug)]
pub(crate) struct CrlFollower {
    slots: Vec<Slot>,
    refresh: Duration,
    settings: Arc<Settings>,
    registry: Arc<Registry>,
    log: Arc<Log>,
    /// What the log says of the highest number of each shard.
    floors: Floors,
    /// When this process recorded a shard's number last.
    recorded: HashMap<String, Instant>,
    /// Lists that requests are judged by.
    in_force: usize,
}

/// A source, and what came of it.
#[derive(Debug)]
struct Slot {
    source: CrlSource,
    held: Held,
    /// When it is asked again.
    due: Instant,
}

#[derive(Clone, Debug)]
enum Held {
    /// Nothing yet.
    Missing,
    List(Arc<Crl>),
    /// Its CA has ended, and every certificate of it: nothing is needed any more.
    Ended,
    /// The server has no such list. What it would be for is unknown, and denied.
    Gone,
}

/// What came of asking.
#[derive(Debug, Default)]
struct Turn {
    /// Something new was accepted.
    changed: bool,
    faults: Vec<CrlFault>,
}

impl CrlFollower {
    pub(crate) fn new(
        (sources, refresh): (Vec<CrlSource>, Duration),
        settings: Arc<Settings>,
        registry: Arc<Registry>,
        log: Arc<Log>,
        floors: Floors,
    ) -> Self {
        let due = Instant::now();
        let slot = |source| Slot {
            source,
            held: Held::Missing,
            due,
        };
        Self {
            slots: sources.into_iter().map(slot).collect(),
            refresh,
            settings,
            registry,
            log,
            floors,
            recorded: HashMap::new(),
            in_force: 0,
        }
    }

    /// Fetches for ever.
    pub(crate) async fn run(mut self) -> Infallible {
        loop {
            let _said = self.turn().await;
            let next = self.slots.iter().map(|slot| slot.due).min();
            let pause = next.map(|due| due.saturating_duration_since(Instant::now()));
            tokio::time::sleep(pause.unwrap_or(self.refresh)).await;
        }
    }

    /// Asks every source that is due, and puts into force what came.
    async fn turn(&mut self) -> Turn {
        let mut turn = Turn::default();
        let mut asked = self.ask().await;
        // In their order, whoever answered first.
        asked.sort_by_key(|(place, _)| *place);
        for (place, answer) in asked {
            let Some(slot) = self.slots.get(place) else {
                continue;
            };
            let (source, held) = (slot.source.clone(), slot.held.clone());
            let before = std::mem::discriminant(&held);
            let now_held = match self.take(answer, &held).await {
                Ok(None) => held,
                Ok(Some(new)) => {
                    if let Held::List(crl) = &new {
                        tracing::info!(%source, number = crl.number(), "CRL accepted");
                        turn.changed = true;
                    }
                    new
                }
                Err(error) => {
                    tracing::error!(%source, %error, "CRL not accepted");
                    turn.faults.push(error);
                    held
                }
            };
            if before != std::mem::discriminant(&now_held) {
                warn_of(&source, &now_held);
            }
            self.put(place, now_held);
        }
        self.forget_ended();
        self.enforce(turn.changed);
        turn
    }

    /// What the sources that are due have, read and verified; some at a time.
    async fn ask(&self) -> Vec<(usize, Result<Crl, CrlFault>)> {
        let now = Instant::now();
        let issuers = Arc::new(self.settings.credentials().issuers.clone());
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut asking = JoinSet::new();
        for (place, slot) in self.slots.iter().enumerate() {
            if slot.due > now {
                continue;
            }
            let (source, issuers) = (slot.source.clone(), Arc::clone(&issuers));
            let turns = Arc::clone(&turns);
            asking.spawn(async move {
                // Never closed: without a turn it would only be unbounded.
                let _turn = turns.acquire().await;
                (place, read(&source, issuers).await)
            });
        }
        asking.join_all().await
    }

    fn put(&mut self, place: usize, held: Held) {
        let pause = self.pause(&held);
        if let Some(slot) = self.slots.get_mut(place) {
            slot.held = held;
            slot.due = Instant::now() + pause;
        }
    }

    /// Nothing that a CA signed counts after its end, and so its list need not be fresh any more.
    fn forget_ended(&mut self) {
        let issuers = self.settings.credentials();
        for slot in &mut self.slots {
            if matches!(&slot.held, Held::List(crl) if !stands(crl, &issuers.issuers)) {
                slot.held = Held::Ended;
                warn_of(&slot.source, &slot.held);
            }
        }
    }

    /// Puts the lists into force, once every source was heard.
    fn enforce(&mut self, changed: bool) {
        if self
            .slots
            .iter()
            .any(|slot| matches!(slot.held, Held::Missing))
        {
            return;
        }
        let lists = self.slots.iter().filter_map(|slot| match &slot.held {
            Held::List(crl) => Some(Arc::clone(crl)),
            Held::Missing | Held::Ended | Held::Gone => None,
        });
        let lists: Vec<Arc<Crl>> = lists.collect();
        if !changed && lists.len() == self.in_force {
            return;
        }
        self.in_force = lists.len();
        let any = !lists.is_empty();
        self.registry.replace_crls(CrlSet::new(lists));
        if any {
            self.registry.set_readiness(Readiness::Ready);
        }
    }

    /// Judges what a source said; none when nothing is new.
    async fn take(
        &mut self,
        answer: Result<Crl, CrlFault>,
        held: &Held,
    ) -> Result<Option<Held>, CrlFault> {
        let crl = match (answer, held) {
            (Ok(crl), _) => crl,
            // Not of a list that is in force: that one counts until it is old.
            (Err(error), Held::Missing | Held::Gone) if error.is_gone() => {
                return Ok(Some(Held::Gone));
            }
            (Err(error), _) => return Err(error),
        };
        if !stands(&crl, &self.settings.credentials().issuers) {
            return match held {
                Held::List(_) => Err(CrlFault::IssuerEnded),
                Held::Missing | Held::Ended | Held::Gone => Ok(Some(Held::Ended)),
            };
        }
        let uri = crl.shard_uri().to_string();
        let floor = self.floors.crl(&self.log, &uri).await?;
        judge(&crl, floor, Timestamp::now())?;
        let same = matches!(held, Held::List(held)
            if held.number() == crl.number() && held.shard_uri() == crl.shard_uri());
        // Repeated from time to time, so that a restart finds it among the newest records.
        let repeated = self
            .recorded
            .get(&uri)
            .is_none_or(|at| at.elapsed() > REPEAT);
        if same && !repeated {
            return Ok(None);
        }
        let accepted = CrlAccepted {
            uri: &uri,
            number: crl.number(),
        };
        journal::record(&self.log, |head, out| accepted.write(head, out)).await?;
        self.recorded.insert(uri.clone(), Instant::now());
        self.floors.accepted(uri, crl.number());
        Ok((!same).then(|| Held::List(Arc::new(crl))))
    }

    /// How long a source is left alone: until the schedule, or some time before its list ends.
    fn pause(&self, held: &Held) -> Duration {
        match held {
            Held::Missing | Held::Gone => RETRY.min(self.refresh),
            Held::Ended => self.refresh,
            Held::List(crl) => {
                let left = crl.next_update().saturating_since(Timestamp::now());
                if left.is_zero() {
                    return RETRY.min(self.refresh);
                }
                (left / 2).max(LEAST_PAUSE).min(self.refresh)
            }
        }
    }
}

/// Fetches and verifies one list, on a thread that may take its time.
async fn read(source: &CrlSource, issuers: Arc<Vec<Certificate>>) -> Result<Crl, CrlFault> {
    let der = fetch::fetch(source).await?;
    let parsing = tokio::task::spawn_blocking(move || parse(&der, &issuers));
    parsing
        .await
        .map_err(|error| CrlFault::Unreadable(error.to_string()))?
        .map_err(|error| CrlFault::Unreadable(error.to_string()))
}

/// Whether the CA that signed the list has not ended.
fn stands(crl: &Crl, issuers: &[Certificate]) -> bool {
    let now = Timestamp::now();
    issuers.iter().any(|issuer| {
        issuer.not_after() >= now && issuer.public_key().short_id() == crl.authority_key_id()
    })
}

fn warn_of(source: &CrlSource, held: &Held) {
    match held {
        Held::Ended => tracing::warn!(
            %source,
            "the CA of a CRL has ended, and every certificate of it: remove it from `crl`"
        ),
        Held::Gone => tracing::warn!(
            %source,
            "the server has no such CRL: certificates that it would be for are denied; when its CA \
             has ended, remove it from `crl`"
        ),
        Held::Missing | Held::List(_) => {}
    }
}

fn judge(crl: &Crl, floor: Option<u64>, now: Timestamp) -> Result<(), CrlFault> {
    let (number, next_update, this_update) = (crl.number(), crl.next_update(), crl.this_update());
    if next_update <= now {
        return Err(CrlFault::Expired { next_update });
    }
    if this_update > now + MAX_SKEW {
        return Err(CrlFault::Future { this_update });
    }
    match floor {
        Some(floor) if number < floor => Err(CrlFault::WentBack { number, floor }),
        _ => Ok(()),
    }
}

/// Reads a list of one of these CAs.
fn parse(der: &[u8], issuers: &[Certificate]) -> Result<Crl, CrlError> {
    let judged = issuers
        .iter()
        .map(|issuer| Crl::parse_verified(der, issuer))
        .find(|judged| !matches!(judged, Err(CrlError::Issuer)));
    judged.unwrap_or(Err(CrlError::Issuer))
}

/// Why a list was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrlFault {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{0}")]
    Unreadable(String),
    #[error("its next update was due at {next_update}")]
    Expired { next_update: Timestamp },
    #[error("it is of {this_update}, which is still to come: check the clock")]
    Future { this_update: Timestamp },
    #[error("its number {number} went back: {floor} was accepted before")]
    WentBack { number: u64, floor: u64 },
    #[error("its CA has ended")]
    IssuerEnded,
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl CrlFault {
    /// Whether the server said that there is no such list.
    fn is_gone(&self) -> bool {
        matches!(
            self,
            Self::Fetch(FetchError::Status(StatusCode::NOT_FOUND | StatusCode::GONE))
        )
    }
}

/// Lists fetched at one time: each may take as much memory as the longest.
const AT_ONCE: usize = 4;
const RETRY: Duration = Duration::from_secs(2);
const REPEAT: Duration = Duration::from_secs(60);
const LEAST_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
