//! What records are made of: who called, the request's id, how it ended.

use std::sync::Arc;

use agentca_auditlog::decision::AgentFields;
use agentca_identity::certificate::{AgentIdentity, Certificate};
use agentca_identity::serial::Serial;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The whole answer was given.
    Complete,
    /// The client went away first.
    ClientGone,
    /// The upstream failed.
    UpstreamFailed,
    /// Something took too long.
    TimedOut,
    /// The certificate or its agent was revoked.
    Revoked,
    /// The agent was restricted.
    Restricted,
    /// The certificate's time was over.
    Expired,
    /// The authority was not heard of for too long.
    Stale,
    /// Its connection was ended for what its client did.
    Flood,
    /// The enforcer stopped.
    Shutdown,
}

impl Ended {
    /// The name in records.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client-gone",
            Self::UpstreamFailed => "upstream-failed",
            Self::TimedOut => "timed-out",
            Self::Revoked => "revoked",
            Self::Restricted => "restricted",
            Self::Expired => "expired",
            Self::Stale => "stale",
            Self::Flood => "flood",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The agent's part of every record, prepared once per connection.
#[derive(Debug)]
pub(crate) struct AgentPart {
    uri: Arc<str>,
    serial: Serial,
    fingerprint: [u8; 32],
    identity: AgentIdentity,
}

impl AgentPart {
    pub(crate) fn of(certificate: &Certificate, identity: &AgentIdentity) -> Self {
        Self {
            uri: identity.uri.to_string().into(),
            serial: certificate.serial(),
            fingerprint: certificate.fingerprint(),
            identity: identity.clone(),
        }
    }

    /// The agent's URI as records have it.
    pub(crate) fn uri(&self) -> &Arc<str> {
        &self.uri
    }

    /// The index of the agent's grant in the authority's log.
    pub(crate) fn grant(&self) -> u64 {
        self.identity.grant
    }

    pub(super) fn fields(&self) -> AgentFields<'_> {
        AgentFields {
            uri: &self.uri,
            serial: &self.serial,
            cert: &self.fingerprint,
            trust: self.identity.trust,
            scopes: self.identity.scopes.as_slice(),
            owner: self.identity.owner.as_str(),
            grant: self.identity.grant,
            lineage: &self.identity.lineage,
        }
    }
}

/// 128 random bits in hex.
#[derive(Clone, Copy)]
pub(super) struct RequestId([u8; 32]);

impl RequestId {
    pub(super) fn new(random: [u8; 16]) -> Self {
        let mut text = [b'0'; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(random) {
            if let [high, low] = pair {
                *high = hex(byte >> 4);
                *low = hex(byte & 15);
            }
        }
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

const fn hex(nibble: u8) -> u8 {
    if nibble < 10 {
        b'0' + nibble
    } else {
        b'a' + nibble - 10
    }
}
