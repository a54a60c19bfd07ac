//! The agent at the other end of a connection: everything a request needs of it, prepared once.

use std::sync::Arc;
use std::time::Duration;

use agentca_identity::chain::VerifiedPeer;
use agentca_identity::name::Environment;
use agentca_identity::scope::ScopeSet;
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::time::Timestamp;
use agentca_identity::trust::TrustLevel;
use agentca_policy::{Call, CallerRights, Restriction, allows};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::record::AgentPart;
use crate::status::{Claim, Registry, Standing, Verdict, Watch};

/// A verified agent whose certificate is watched.
#[derive(Debug)]
pub(crate) struct Peer {
    uri: SpiffeId,
    environment: Environment,
    scopes: ScopeSet,
    trust: TrustLevel,
    not_before: Timestamp,
    not_after: Timestamp,
    fingerprint: [u8; 32],
    watch: Watch,
    record: AgentPart,
    headers: [(HeaderName, HeaderValue); 4],
}

impl Peer {
    /// Registers the watch first and looks up then. `None` for what is no agent.
    pub(crate) fn new(verified: &VerifiedPeer, registry: &Arc<Registry>) -> Option<Self> {
        let certificate = verified.certificate();
        let agent = verified.agent()?;
        let watch = registry.watch(&Claim::of(certificate, &agent.uri));
        let uri = agent.uri.to_string();
        let scopes: Vec<&str> = agent.scopes.iter().map(|scope| scope.as_str()).collect();
        let headers = [
            (AGENT_ID, HeaderValue::from_str(&uri).ok()?),
            (AGENT_TRUST, HeaderValue::from_static(agent.trust.as_str())),
            (AGENT_SCOPES, HeaderValue::from_str(&scopes.join(" ")).ok()?),
            (
                AGENT_OWNER,
                HeaderValue::from_bytes(agent.owner.as_str().as_bytes()).ok()?,
            ),
        ];
        Some(Self {
            environment: agent.uri.environment()?.clone(),
            uri: agent.uri.clone(),
            scopes: agent.scopes.clone(),
            trust: agent.trust,
            not_before: certificate.not_before(),
            not_after: verified.not_after(),
            fingerprint: certificate.fingerprint(),
            watch,
            record: AgentPart::of(certificate, agent),
            headers,
        })
    }

    /// Adds what the upstream is told of the caller.
    pub(crate) fn introduce(&self, headers: &mut HeaderMap, request_id: HeaderValue) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        headers.insert(AGENT_REQUEST_ID, request_id);
    }

    pub(crate) fn uri(&self) -> &SpiffeId {
        &self.uri
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(crate) fn scopes(&self) -> &ScopeSet {
        &self.scopes
    }

    pub(crate) fn trust(&self) -> TrustLevel {
        self.trust
    }

    /// What the agent may now, apart from its connection.
    pub(crate) fn rights(&self) -> Rights {
        Rights {
            scopes: self.scopes.clone(),
            trust: self.trust,
            restriction: self.restriction(),
        }
    }

    /// SHA-256 of the certificate.
    pub(crate) fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The agent's part of every record.
    pub(crate) fn record(&self) -> &AgentPart {
        &self.record
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.watch.verdict()
    }

    pub(crate) fn standing(&self) -> Standing {
        self.watch.standing()
    }

    pub(crate) fn restriction(&self) -> Option<Arc<Restriction>> {
        self.watch.restriction()
    }

    pub(crate) async fn issued(&self, limit: Duration) -> Verdict {
        self.watch.issued(limit).await
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    pub(crate) fn is_within_its_time(&self, now: Timestamp) -> bool {
        let now = now.truncate_to_secs();
        self.not_before <= now && now <= self.not_after
    }

    /// How long until the certificate ends.
    pub(crate) fn remaining(&self, now: Timestamp) -> Duration {
        // The last second counts.
        self.not_after
            .saturating_since(now)
            .saturating_add(Duration::from_secs(1))
    }
}

/// What an agent may, at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    scopes: ScopeSet,
    trust: TrustLevel,
    restriction: Option<Arc<Restriction>>,
}

impl Rights {
    pub(crate) fn new(
        scopes: ScopeSet,
        trust: TrustLevel,
        restriction: Option<Restriction>,
    ) -> Self {
        Self {
            scopes,
            trust,
            restriction: restriction.map(Arc::new),
        }
    }

    /// Whether a call is within them.
    pub(crate) fn cover(&self, call: &Call) -> bool {
        let rights = CallerRights {
            scopes: &self.scopes,
            trust: self.trust,
            restriction: self.restriction.as_deref(),
        };
        allows(call, &rights)
    }
}

const AGENT_ID: HeaderName = HeaderName::from_static("agent-id");
const AGENT_TRUST: HeaderName = HeaderName::from_static("agent-trust");
const AGENT_SCOPES: HeaderName = HeaderName::from_static("agent-scopes");
const AGENT_OWNER: HeaderName = HeaderName::from_static("agent-owner");
const AGENT_REQUEST_ID: HeaderName = HeaderName::from_static("agent-request-id");
