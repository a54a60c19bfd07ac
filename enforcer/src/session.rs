//! One connection of one agent, as its requests see it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::gate::{Protocol, Traffic};
use crate::ops::RunningStream;
use crate::peer::Peer;
use crate::record::{Ended, record_flood};
use crate::resets::Resets;
use crate::shares::{Calling, Place, Reserved};
use crate::status::Verdict;
use crate::worker::Worker;

/// Shared by everything that runs on a connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) worker: Rc<Worker>,
    pub(crate) peer: Peer,
    pub(crate) traffic: Rc<Traffic>,
    /// The server name of the TLS handshake.
    pub(crate) sni: Option<String>,
    place: Place,
    ended: Cell<Option<Ended>>,
    /// The connection itself has ended: what it runs is dropped.
    over: Cell<bool>,
    resets: Resets,
    /// Streams that run, in either direction.
    streams: Rc<Cell<u32>>,
    /// When the certificate ends, and by which reading of the clocks.
    expires: Cell<(u64, Instant)>,
}

impl Session {
    pub(crate) fn new(
        worker: Rc<Worker>,
        peer: Peer,
        traffic: Rc<Traffic>,
        (sni, place): (Option<String>, Place),
    ) -> Rc<Self> {
        let expires = Cell::new(expiry(&worker, &peer));
        let resets = Resets::new(worker.timers.now());
        Rc::new(Self {
            worker,
            peer,
            traffic,
            sni,
            place,
            ended: Cell::new(None),
            over: Cell::new(false),
            resets,
            streams: Rc::default(),
            expires,
        })
    }

    /// Room for a body, to be grown.
    pub(crate) fn reserve(&self) -> Reserved {
        self.place.reserve()
    }

    /// Counts a call of the agent's until what is given is dropped; none when `most` of them run.
    pub(crate) fn calling(&self, most: usize) -> Option<Calling> {
        self.place.call(most)
    }

    /// Counts a stream until what is given is dropped.
    pub(crate) fn running(&self) -> Running {
        self.streams.set(self.streams.get().saturating_add(1));
        Running(Rc::clone(&self.streams), self.worker.counters.stream())
    }

    /// Whether a stream runs.
    pub(crate) fn has_streams(&self) -> bool {
        self.streams.get() > 0
    }

    /// When the certificate ends, by the monotonic clock.
    pub(crate) fn expires(&self) -> Instant {
        let (reading, expires) = self.expires.get();
        if reading == self.worker.clock_reading() {
            return expires;
        }
        let expires = expiry(&self.worker, &self.peer);
        self.expires.set(expires);
        expires.1
    }

    /// Whether the certificate has ended.
    pub(crate) fn is_expired(&self) -> bool {
        !self
            .peer
            .is_within_its_time(self.worker.shared.registry.now())
    }

    /// Whether nothing more may be done for this agent on this connection.
    pub(crate) fn is_cut(&self) -> bool {
        self.ended.get().is_some() || self.peer.watch().is_cancelled()
    }

    /// Says why everything that still runs is about to be cut.
    pub(crate) fn cut(&self, why: Ended) {
        self.ended.set(Some(why));
    }

    /// The agent lost rights: says which way.
    pub(crate) fn cut_by_status(&self) {
        let live = self.worker.shared.live.load();
        live.end_programs(self.peer.record().uri());
        self.cut(self.ended_by_status());
    }

    /// A request of this connection's, until its answer is given.
    pub(crate) fn answering(self: &Rc<Self>) -> Answering {
        Answering(Some(Rc::clone(self)))
    }

    /// The connection has ended.
    pub(crate) fn is_over(&self) {
        self.over.set(true);
    }

    /// Whether it is to be ended for what its client did.
    pub(crate) fn is_flooded(&self) -> bool {
        self.ended.get() == Some(Ended::Flood)
    }

    /// Says that it is, records it, and ends what runs.
    pub(crate) fn flooded(&self, how: &str) {
        if self.is_flooded() {
            return;
        }
        self.cut(Ended::Flood);
        self.worker.counters.flooded();
        self.worker
            .turn_away("a connection was closed for a flood", self.peer.uri());
        record_flood(self, how);
        self.worker.timers.wake_all();
    }

    /// A client reset a stream that was not answered: free for it, and not for us.
    fn given_up(&self) {
        let is_reset = self.traffic.protocol() == Protocol::Http2 && !self.over.get();
        if !is_reset || self.is_cut() || self.worker.draining.get() {
            return;
        }
        let most = self.worker.shared.live.load().config().limits.h2_max_resets;
        if self.resets.reset(self.worker.timers.now(), most) {
            self.flooded("more streams were reset before their answer than `h2_max_resets` allows");
        }
    }

    /// Why a request that is dropped now did not come to its end.
    pub(crate) fn why_dropped(&self) -> Ended {
        match self.ended.get() {
            Some(why) => why,
            None if self.peer.watch().is_cancelled() => self.ended_by_status(),
            None if self.worker.draining.get() => Ended::Shutdown,
            None => Ended::ClientGone,
        }
    }

    /// Which way the agent lost rights.
    fn ended_by_status(&self) -> Ended {
        match self.peer.verdict() {
            Verdict::Valid => Ended::Restricted,
            Verdict::Revoked | Verdict::Unknown => Ended::Revoked,
        }
    }
}

/// A request that is being answered; dropped before it was, its client gave it up.
#[derive(Debug)]
pub(crate) struct Answering(Option<Rc<Session>>);

impl Answering {
    /// The answer is with the library.
    pub(crate) fn answered(mut self) {
        if let Some(session) = self.0.take() {
            session.resets.answered(session.worker.timers.now());
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            session.given_up();
        }
    }
}

/// A running stream, counted by its connection.
#[derive(Debug)]
pub(crate) struct Running(
    Rc<Cell<u32>>,
    #[expect(dead_code, reason = "counts")] RunningStream,
);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

fn expiry(worker: &Worker, peer: &Peer) -> (u64, Instant) {
    let now = Instant::now();
    let remaining = peer.remaining(worker.shared.registry.now());
    let expires = now.checked_add(remaining).unwrap_or(now + FAR);
    (worker.clock_reading(), expires)
}

/// Beyond every certificate; looked at again then.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
