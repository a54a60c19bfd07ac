//! One connection of one agent, as its requests see it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::gate::Traffic;
use crate::ops::RunningStream;
use crate::peer::Peer;
use crate::record::Ended;
use crate::shares::{Place, Reserved};
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
        Rc::new(Self {
            worker,
            peer,
            traffic,
            sni,
            place,
            ended: Cell::new(None),
            streams: Rc::default(),
            expires,
        })
    }

    /// Room for a body, to be grown.
    pub(crate) fn reserve(&self) -> Reserved {
        self.place.reserve()
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
        live.end_programs(&self.peer.uri().to_string());
        self.cut(self.ended_by_status());
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
