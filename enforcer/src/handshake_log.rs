//! Refused handshakes: after the alert, one record per reason and second with a count and a few
//! samples, so that a port scanner cannot fill the disk.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentca_auditlog::decision::HandshakeRefused;
use agentca_auditlog::log::Log;
use rustls::{CertificateError, Error};

/// Tallies of the present second.
#[derive(Debug, Default)]
pub(crate) struct HandshakeLog {
    tallies: Mutex<BTreeMap<&'static str, Tally>>,
    /// Since the start, for operators.
    ever: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

#[derive(Debug, Default)]
struct Tally {
    count: u64,
    samples: Vec<String>,
}

impl HandshakeLog {
    /// Counts into `ever` besides.
    pub(crate) fn new(ever: Arc<Mutex<BTreeMap<&'static str, u64>>>) -> Self {
        Self {
            tallies: Mutex::default(),
            ever,
        }
    }

    /// A handshake failed. A client that only went away was not refused.
    pub(crate) fn refused(&self, error: &io::Error, from: SocketAddr) {
        let cause = error
            .get_ref()
            .and_then(|cause| cause.downcast_ref::<Error>());
        if let Some(cause) = cause {
            self.count(reason(cause), from);
        }
    }

    /// A handshake took too long.
    pub(crate) fn timed_out(&self, from: SocketAddr) {
        self.count("timeout", from);
    }

    /// Records what was counted since the last call; called once a second.
    pub(crate) fn flush(&self, log: &Log) {
        let tallies = std::mem::take(&mut *self.lock());
        for (reason, Tally { count, samples }) in tallies {
            let record = HandshakeRefused {
                reason,
                count,
                samples: &samples,
            };
            if let Err(error) = log.stage(|head, out| record.write(head, out)) {
                tracing::warn!(%error, reason, count, "refused handshakes were not recorded");
            }
        }
    }

    fn count(&self, reason: &'static str, from: SocketAddr) {
        let mut ever = self.ever.lock().unwrap_or_else(PoisonError::into_inner);
        let all = ever.entry(reason).or_default();
        *all = all.saturating_add(1);
        drop(ever);
        let mut tallies = self.lock();
        let tally = tallies.entry(reason).or_default();
        tally.count = tally.count.saturating_add(1);
        let sample = from.ip().to_string();
        if tally.samples.len() < SAMPLES && !tally.samples.contains(&sample) {
            tally.samples.push(sample);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Addresses kept of one reason and second.
const SAMPLES: usize = 4;

/// Few and fixed: what a client can make of them is bounded.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::NoCertificatesPresented => "no-certificate",
        Error::InvalidCertificate(error) => match error {
            CertificateError::Revoked => "revoked",
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "not-yet-valid"
            }
            CertificateError::UnknownIssuer => "unknown-issuer",
            CertificateError::BadSignature => "bad-signature",
            _ => "bad-certificate",
        },
        Error::PeerIncompatible(_) => "incompatible",
        Error::AlertReceived(_) => "alert-received",
        Error::NoApplicationProtocol => "no-application-protocol",
        _ => "malformed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scanner_makes_one_tally_per_reason() {
        let log = HandshakeLog::default();
        for port in 1..=1000 {
            let from = SocketAddr::from(([10, 0, u8::try_from(port % 7).unwrap(), 1], port));
            log.refused(&io::Error::other(Error::NoCertificatesPresented), from);
        }
        log.refused(
            &io::Error::from(io::ErrorKind::UnexpectedEof),
            ([10, 0, 0, 1], 1).into(),
        );
        let tallies = log.lock();
        assert_eq!(tallies.len(), 1);
        let tally = &tallies["no-certificate"];
        assert_eq!((tally.count, tally.samples.len()), (1000, SAMPLES));
    }
}
