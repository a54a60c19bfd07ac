//! Counting, without a lock where requests pass.
//!
//! Each serving thread has counters of its own, for everything and for each upstream. Only that thread
//! writes them, so a plain load and store suffices, and no two threads share a line of memory. The [`Board`] knows
//! them all; its locks are taken when a thread meets an upstream for the first time, and by a scrape.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agentca_policy::{Risk, Rule};

use super::kinds::{Failure, McpKind};
use super::tally::{Histogram, Tally};
use crate::disclosures::DisclosureCounts;

/// All counters of a process.
#[derive(Debug, Default)]
pub struct Board {
    /// Open client connections, over all threads.
    pub(crate) connections: Arc<AtomicUsize>,
    /// Refused handshakes since the start, by reason.
    pub(crate) refused: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    pub(crate) disclosures: Arc<DisclosureCounts>,
    threads: Mutex<Vec<Arc<OfThread>>>,
    upstreams: Mutex<BTreeMap<Arc<str>, Vec<Arc<OfUpstream>>>>,
    states: Mutex<BTreeMap<Arc<str>, Arc<AtomicU8>>>,
    tools: Mutex<BTreeMap<Arc<str>, ToolCounts>>,
    /// When each MCP upstream's tools were listed last.
    listed: Mutex<BTreeMap<Arc<str>, Instant>>,
}

/// What is known of an MCP upstream's tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ToolCounts {
    /// May be called.
    pub(crate) callable: u64,
    /// In the catalogue, and withheld since they changed or lack a review.
    pub(crate) withheld: u64,
    /// Listed by the upstream, and in no catalogue.
    pub(crate) unknown: u64,
}

/// What came of the last request to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Unknown,
    Answers,
    Fails,
}

impl Board {
    /// Puts what a look at an upstream's tools found.
    pub(crate) fn tools(&self, upstream: &Arc<str>, found: ToolCounts) {
        lock(&self.tools).insert(Arc::clone(upstream), found);
    }

    /// An upstream's tools were listed now.
    pub(crate) fn listed(&self, upstream: &Arc<str>) {
        lock(&self.listed).insert(Arc::clone(upstream), Instant::now());
    }

    /// How long ago each upstream's tools were listed.
    pub(super) fn list_ages(&self) -> BTreeMap<Arc<str>, Duration> {
        let listed = lock(&self.listed);
        let age = |(name, at): (&Arc<str>, &Instant)| (Arc::clone(name), at.elapsed());
        listed.iter().map(age).collect()
    }

    pub(super) fn all_tools(&self) -> BTreeMap<Arc<str>, ToolCounts> {
        lock(&self.tools).clone()
    }

    pub(super) fn threads(&self) -> Vec<Arc<OfThread>> {
        lock(&self.threads).clone()
    }

    pub(super) fn upstreams(&self) -> BTreeMap<Arc<str>, Vec<Arc<OfUpstream>>> {
        lock(&self.upstreams).clone()
    }

    pub(super) fn refused(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.refused).clone()
    }

    pub(super) fn states(&self) -> BTreeMap<Arc<str>, State> {
        let states = lock(&self.states);
        let read = |state: &Arc<AtomicU8>| match state.load(Ordering::Relaxed) {
            ANSWERS => State::Answers,
            FAILS => State::Fails,
            _ => State::Unknown,
        };
        states
            .iter()
            .map(|(name, state)| (Arc::clone(name), read(state)))
            .collect()
    }

    fn meet(&self, name: &Arc<str>) -> Arc<OfUpstream> {
        let state = Arc::clone(lock(&self.states).entry(Arc::clone(name)).or_default());
        let met = Arc::new(OfUpstream::new(state));
        let mut upstreams = lock(&self.upstreams);
        let all = upstreams.entry(Arc::clone(name)).or_default();
        all.push(Arc::clone(&met));
        met
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one thread counts besides upstreams, on lines of memory of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct OfThread {
    pub(super) handshakes: Tally,
    pub(super) streams: Tally,
    pub(super) floods: Tally,
}

/// What one thread counts of one upstream; of none, for requests that are for no upstream.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct OfUpstream {
    /// By rule (the first is that nothing denied), then by risk (the first is that there is none).
    requests: [[Tally; RISKS]; RULES],
    /// By the first digit of the status; the first is that there was no answer.
    pub(super) answers: [Tally; 6],
    pub(super) failures: [Tally; Failure::ALL.len()],
    pub(super) mcp: [Tally; McpKind::ALL.len()],
    pub(super) total: Histogram,
    pub(super) added: Histogram,
    state: Arc<AtomicU8>,
}

impl OfUpstream {
    fn new(state: Arc<AtomicU8>) -> Self {
        Self {
            requests: Default::default(),
            answers: Default::default(),
            failures: Default::default(),
            mcp: Default::default(),
            total: Histogram::default(),
            added: Histogram::default(),
            state,
        }
    }

    /// Everything that was decided, with the rule that denied and the risk of the call.
    pub(super) fn requests(&self) -> impl Iterator<Item = ((Option<Rule>, Option<Risk>), u64)> {
        let rules = std::iter::once(None).chain(Rule::ALL.into_iter().map(Some));
        let risks = || std::iter::once(None).chain(ALL_RISKS.into_iter().map(Some));
        rules.zip(&self.requests).flat_map(move |(rule, row)| {
            risks()
                .zip(row)
                .map(move |(risk, tally)| ((rule, risk), tally.value()))
        })
    }

    fn is_now(&self, state: u8) {
        // Read far more often than it changes, and written by every thread.
        if self.state.load(Ordering::Relaxed) != state {
            self.state.store(state, Ordering::Relaxed);
        }
    }
}

/// What a thread counts with.
#[derive(Debug)]
pub(crate) struct Counters {
    board: Arc<Board>,
    own: Arc<OfThread>,
    upstreams: RefCell<HashMap<Arc<str>, Arc<OfUpstream>>>,
    /// For requests that are for no upstream.
    none: Arc<str>,
}

/// A request whose decision, or outcome, was recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decided<'a> {
    /// Which upstream it is for, and what its call can do, once that is known.
    pub(crate) call: Option<(&'a Arc<str>, Risk)>,
    /// The rule that denied.
    pub(crate) rule: Option<Rule>,
    /// The answer's status, 0 when there was none.
    pub(crate) status: u16,
}

impl Counters {
    pub(crate) fn new(board: &Arc<Board>) -> Self {
        let own = Arc::<OfThread>::default();
        lock(&board.threads).push(Arc::clone(&own));
        Self {
            board: Arc::clone(board),
            own,
            upstreams: RefCell::default(),
            none: "".into(),
        }
    }

    /// The end of a request is recorded.
    pub(crate) fn decided(&self, decided: Decided<'_>) {
        let Decided { call, rule, status } = decided;
        let (upstream, risk) = call.unzip();
        let counts = self.of(upstream);
        let rule = rule.map_or(0, |rule| place_of_rule(rule) + 1);
        let risk = risk.map_or(0, |risk| place_of_risk(risk) + 1);
        if let Some(tally) = counts.requests.get(rule).and_then(|row| row.get(risk)) {
            tally.add(1);
        }
        if let Some(tally) = counts.answers.get(usize::from(status / 100)) {
            tally.add(1);
        }
    }

    /// An upstream failed.
    pub(crate) fn failed(&self, upstream: &Arc<str>, failure: Failure) {
        let counts = self.of(Some(upstream));
        if let Some(tally) = counts.failures.get(failure as usize) {
            tally.add(1);
        }
        counts.is_now(FAILS);
    }

    /// An MCP message of a kind was decided on.
    pub(crate) fn mcp(&self, upstream: &Arc<str>, kind: McpKind) {
        if let Some(tally) = self.of(Some(upstream)).mcp.get(kind as usize) {
            tally.add(1);
        }
    }

    /// A handshake ended well.
    pub(crate) fn shook_hands(&self) {
        self.own.handshakes.add(1);
    }

    /// A connection is ended for what its client did.
    pub(crate) fn flooded(&self) {
        self.own.floods.add(1);
    }

    /// A stream begins, and is over when what is given is dropped.
    pub(crate) fn stream(&self) -> RunningStream {
        self.own.streams.add(1);
        RunningStream(Arc::clone(&self.own))
    }

    /// The clock of a request.
    pub(crate) fn measured(&self, upstream: Option<&Arc<str>>, clock: Finished) -> Measured {
        Measured {
            counts: self.of(upstream),
            clock,
        }
    }

    fn of(&self, upstream: Option<&Arc<str>>) -> Arc<OfUpstream> {
        let name = upstream.unwrap_or(&self.none);
        let mut known = self.upstreams.borrow_mut();
        if let Some(counts) = known.get(name) {
            return Arc::clone(counts);
        }
        let met = self.board.meet(name);
        known.insert(Arc::clone(name), Arc::clone(&met));
        met
    }
}

/// A running stream, counted.
#[derive(Debug)]
pub(crate) struct RunningStream(Arc<OfThread>);

impl Drop for RunningStream {
    fn drop(&mut self) {
        self.0.streams.take();
    }
}

/// When a request began, and how much of its time was its upstream's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    started: Instant,
    sent: Option<Instant>,
    upstream: Option<Duration>,
}

impl Finished {
    pub(crate) fn starting(started: Instant) -> Self {
        Self {
            started,
            sent: None,
            upstream: None,
        }
    }

    /// From here on its upstream's time counts.
    pub(crate) fn sent(&mut self) {
        self.sent.get_or_insert_with(Instant::now);
    }

    /// The upstream has answered; of several times the last counts.
    pub(crate) fn answered(&mut self) {
        self.upstream = self.sent.map(|sent| sent.elapsed());
    }
}

/// A request about to be answered.
#[derive(Debug)]
pub(crate) struct Measured {
    counts: Arc<OfUpstream>,
    clock: Finished,
}

impl Measured {
    /// Its answer may leave: what it took, and what of that was ours. One that its upstream never
    /// answered has nothing that is ours alone.
    pub(crate) fn leaves(self) {
        let Finished {
            started,
            sent,
            upstream,
        } = self.clock;
        let total = started.elapsed();
        self.counts.total.observe(total);
        match (sent, upstream) {
            (Some(_), None) => {}
            (_, upstream) => {
                let upstream = upstream.unwrap_or_default();
                self.counts.added.observe(total.saturating_sub(upstream));
            }
        }
        if upstream.is_some() {
            self.counts.is_now(ANSWERS);
        }
    }
}

fn place_of_rule(rule: Rule) -> usize {
    rule as usize
}

fn place_of_risk(risk: Risk) -> usize {
    risk as usize
}

const ALL_RISKS: [Risk; 5] = [
    Risk::Read,
    Risk::Write,
    Risk::Destructive,
    Risk::Execute,
    Risk::Financial,
];
const RISKS: usize = ALL_RISKS.len() + 1;
const RULES: usize = Rule::ALL.len() + 1;

const ANSWERS: u8 = 1;
const FAILS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_the_lists() {
        for (place, rule) in Rule::ALL.into_iter().enumerate() {
            assert_eq!(place_of_rule(rule), place);
        }
        for (place, risk) in ALL_RISKS.into_iter().enumerate() {
            assert_eq!(place_of_risk(risk), place);
        }
        for (place, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, place);
        }
        for (place, kind) in McpKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }

    #[test]
    fn threads_are_added_up() {
        let board = Arc::<Board>::default();
        let (one, other) = (Counters::new(&board), Counters::new(&board));
        let name: Arc<str> = "payments".into();
        for counters in [&one, &other, &other] {
            counters.decided(Decided {
                call: Some((&name, Risk::Financial)),
                rule: Some(Rule::Scope),
                status: 403,
            });
        }
        let all = board.upstreams();
        let key = (Some(Rule::Scope), Some(Risk::Financial));
        let counted: u64 = all["payments"]
            .iter()
            .flat_map(|counts| counts.requests())
            .filter(|(found, _)| *found == key)
            .map(|(_, value)| value)
            .sum();
        assert_eq!(counted, 3);
    }
}
