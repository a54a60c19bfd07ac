//! What is known of certificates and agents, and how fresh it is.
//!
//! [`Registry`] holds what the status feed, or the CRLs, said. A connection takes a [`Watch`]: it
//! registers first and looks up then, so that nothing falls in between, and from there on a request
//! reads two atomics: the watch's verdict and the registry's deadline.
//!
//! Every write follows one order: first the state, then, under the watchers' lock of the agent, the
//! verdicts of its connections. A watch reads the state under the same lock. Whichever comes first,
//! a connection ends with the newest verdict.

mod clock;
mod crl_set;
mod feed_state;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use agentca_auditlog::status::{StatusEvent, StatusRecord};
use agentca_identity::certificate::{Certificate, CrlUri};
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::time::Timestamp;
use agentca_policy::Restriction;
use arc_swap::ArcSwap;

use self::clock::Clock;
pub use self::clock::{MAX_SKEW, StaleReason};
pub use self::crl_set::CrlSet;
pub use self::feed_state::FeedState;
use self::watch::Watchers;
pub use self::watch::{Standing, Watch};

/// What is known, for all threads.
#[derive(Debug)]
pub struct Registry {
    clock: Clock,
    source: Source,
    watchers: Watchers,
    status_number: AtomicU64,
    readiness: AtomicU8,
    /// When it was tidied up last, in seconds of the registry's clock.
    tidied: AtomicI64,
    /// When the log was witnessed last, in seconds since 1970; 0: never.
    witnessed: AtomicI64,
}

impl Registry {
    /// An empty registry that a status feed will fill.
    #[must_use]
    pub fn for_feed(stale_after: Duration) -> Arc<Self> {
        Arc::new(Self::new(
            Source::Feed(ArcSwap::from_pointee(FeedState::default())),
            Clock::by_heartbeat(stale_after),
        ))
    }

    /// An empty registry that CRLs will fill.
    #[must_use]
    pub fn for_crl() -> Arc<Self> {
        Arc::new(Self::new(
            Source::Crl(ArcSwap::from_pointee(CrlSet::default())),
            Clock::by_crl(),
        ))
    }

    /// Whether what is known is fresh enough to decide on, at a monotonic instant.
    ///
    /// # Errors
    /// [`StaleReason`]: every request is denied by rule `stale`.
    pub fn freshness(&self, at: Instant) -> Result<(), StaleReason> {
        // Connections that were open when the witness refused are not served either.
        if self.readiness.load(Ordering::Relaxed) == REFUSED {
            return Err(StaleReason::LogRefused);
        }
        self.clock.freshness(at, Timestamp::now())
    }

    /// The later of the local clock and the authority's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now(Instant::now(), Timestamp::now())
    }

    /// The newest status record in force; 0 without a feed.
    #[must_use]
    pub fn status_number(&self) -> u64 {
        self.status_number.load(Ordering::Acquire)
    }

    /// Whether this enforcer may answer at all.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        match self.readiness.load(Ordering::Acquire) {
            READY => Readiness::Ready,
            REFUSED => Readiness::Refused,
            _ => Readiness::Starting,
        }
    }

    /// Says so. A refusal is final.
    pub fn set_readiness(&self, readiness: Readiness) {
        let value = match readiness {
            Readiness::Starting => STARTING,
            Readiness::Ready => READY,
            Readiness::Refused => REFUSED,
        };
        self.readiness.fetch_max(value, Ordering::AcqRel);
    }

    /// How old the authority's newest heartbeat is; none without one, or without a feed.
    #[must_use]
    pub fn feed_age(&self, at: Instant) -> Option<Duration> {
        self.clock.heartbeat_age(at)
    }

    /// Says that this enforcer's log was just witnessed.
    pub fn set_witnessed(&self) {
        let now = Timestamp::now().secs();
        self.witnessed.store(now, Ordering::Relaxed);
    }

    /// When it was last, if ever.
    #[must_use]
    pub fn witnessed(&self) -> Option<Timestamp> {
        let at = self.witnessed.load(Ordering::Relaxed);
        (at > 0).then(|| Timestamp::from_millis(at.saturating_mul(1_000)))
    }

    /// Follows what becomes of a connection's certificate until the watch is dropped.
    #[must_use]
    pub fn watch(self: &Arc<Self>, claim: &Claim<'_>) -> Watch {
        Watch::register(Arc::clone(self), claim)
    }

    /// What is known of a certificate during its handshake.
    #[must_use]
    pub fn handshake_verdict(&self, claim: &Claim<'_>) -> Verdict {
        self.source.verdict(claim)
    }

    /// Puts status records into force, whose order and chain were verified and which a heartbeat
    /// covers: verdicts are set and connections cancelled when this returns.
    pub fn apply(&self, records: &[StatusRecord]) {
        let Source::Feed(state) = &self.source else {
            return;
        };
        let state = state.load();
        let mut touched = BTreeSet::new();
        for record in records {
            if let Some(agent) = apply_event(&state, record.number, &record.event) {
                touched.insert(agent);
            }
        }
        let Some(last) = records.last() else {
            return;
        };
        for agent in &touched {
            self.watchers.settle_agent(agent, &self.source, last.number);
        }
        self.status_number.store(last.number, Ordering::Release);
    }

    /// Puts a whole state into force, in place of everything known before: a snapshot that covers
    /// records up to number `covers`, and those after it. Nothing is judged by the one without the
    /// other.
    pub fn replace(&self, state: FeedState, covers: u64, tail: &[StatusRecord]) {
        let Source::Feed(current) = &self.source else {
            return;
        };
        for record in tail {
            apply_event(&state, record.number, &record.event);
        }
        let status_number = tail.last().map_or(covers, |last| last.number);
        current.store(Arc::new(state));
        self.watchers.settle_all(&self.source, status_number);
        self.status_number.store(status_number, Ordering::Release);
    }

    /// Puts a set of CRLs into force, in place of the one before.
    pub fn replace_crls(&self, set: CrlSet) {
        let Source::Crl(current) = &self.source else {
            return;
        };
        let window = set.window();
        current.store(Arc::new(set));
        self.watchers.settle_all(&self.source, 0);
        self.clock.crl_window(window, Instant::now());
    }

    /// Takes note of a verified heartbeat: what is known is fresh from its time on.
    pub fn heartbeat(&self, time: Timestamp, arrived: Instant) {
        self.clock.heartbeat(time, arrived);
        if let Source::Feed(state) = &self.source {
            // Heartbeats come with every change, far more often than certificates end.
            let (now, second) = (self.now(), self.now().secs());
            if self.tidied.swap(second, Ordering::Relaxed) != second {
                state.load().forget_expired(now);
            }
        }
    }

    /// Nothing that is known can be relied on until the next verified heartbeat or CRL.
    pub fn distrust(&self) {
        self.clock.distrust();
    }
}

/// What a certificate says of itself, to be compared with what was announced.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Its serial.
    pub serial: Serial,
    /// Its SAN URI.
    pub agent: &'a SpiffeId,
    /// The SHA-256 of its DER: a serial alone proves nothing once an issuing key is stolen.
    pub fingerprint: [u8; 32],
    /// Its CRL distribution point.
    pub crl_uri: Option<&'a CrlUri>,
    /// The short id of the key that signed it: its CRL must be by the same one.
    pub issuer_key: Option<[u8; 20]>,
}

impl<'a> Claim<'a> {
    /// The claim of a verified agent's certificate.
    #[must_use]
    pub fn of(certificate: &'a Certificate, agent: &'a SpiffeId) -> Self {
        Self {
            serial: certificate.serial(),
            agent,
            fingerprint: certificate.fingerprint(),
            crl_uri: certificate.crl_uri(),
            issuer_key: certificate.authority_key_id(),
        }
    }
}

/// What is known of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody said that it was issued.
    Unknown,
    /// Issued and not revoked.
    Valid,
    /// It or its agent was revoked.
    Revoked,
}

/// Whether this enforcer may answer at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Feed or witness are not confirmed yet: every handshake gets an alert, nothing is recorded.
    Starting,
    /// Both are, and stay so while this process lives; later silence is `stale`.
    Ready,
    /// The witness holds a later or another log under this origin: never serve.
    Refused,
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const REFUSED: u8 = 2;

#[derive(Debug)]
enum Source {
    Feed(ArcSwap<FeedState>),
    Crl(ArcSwap<CrlSet>),
}

impl Source {
    fn verdict(&self, claim: &Claim<'_>) -> Verdict {
        match self {
            Self::Feed(state) => state.load().verdict(claim),
            Self::Crl(set) => set.load().verdict(claim),
        }
    }

    fn restriction(&self, agent: &str) -> Option<Arc<Restriction>> {
        match self {
            Self::Feed(state) => state.load().restriction(agent),
            Self::Crl(_) => None,
        }
    }
}

impl Registry {
    fn new(source: Source, clock: Clock) -> Self {
        Self {
            clock,
            source,
            watchers: Watchers::default(),
            status_number: AtomicU64::new(0),
            readiness: AtomicU8::new(STARTING),
            tidied: AtomicI64::new(0),
            witnessed: AtomicI64::new(0),
        }
    }
}

/// Changes the state; gives the agent whose connections have to look again.
fn apply_event(state: &FeedState, number: u64, event: &StatusEvent) -> Option<String> {
    // Every field is named, so that a new one has to be decided upon.
    let agent = match event {
        StatusEvent::CertificateIssued {
            serial,
            agent,
            certificate,
            not_after,
            grant: _,
        } => {
            let fingerprint = agentca_identity::crypto::sha256(certificate);
            state.issued(serial, &agent.to_string(), fingerprint, *not_after, number);
            agent
        }
        StatusEvent::AgentRevoked { agent, reason: _ } => {
            state.agent_revoked(&agent.to_string(), number);
            agent
        }
        StatusEvent::CertificateRevoked {
            serial,
            agent,
            reason: _,
        } => {
            state.certificate_revoked(serial);
            agent
        }
        StatusEvent::AgentRestricted {
            agent,
            trust,
            scopes,
        } => {
            let restriction = Restriction {
                trust: *trust,
                scopes: scopes.clone(),
            };
            state.restrict(&agent.to_string(), restriction);
            agent
        }
        // Certificates that were revoked stay so; new ones are announced. Issuers matter to nobody
        // here: what counts is the announcement of the very certificate.
        StatusEvent::AgentReinstated { agent: _ }
        | StatusEvent::EnvironmentOpened { issuers: _ }
        | StatusEvent::IssuerAdded { certificate: _ }
        | StatusEvent::Snapshot {
            digest: _,
            covers: _,
        } => return None,
    };
    Some(agent.to_string())
}

#[cfg(test)]
mod tests;
