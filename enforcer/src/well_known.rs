//! What the enforcer answers by itself under `/.well-known/agentca/`: signer chains, and how a
//! caller's own streams ended. Recorded and signed like everything else.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentca_auditlog::log::Log;
use agentca_identity::spiffe::SpiffeId;
use agentca_policy::{NormalPath, Rule};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::live::{Live, ServingIdentity};
use crate::road::Denial;

/// A document of the enforcer's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WellKnown {
    /// The chains of the keys that sign answers and log.
    Signers,
    /// How the stream whose decision has this index ended.
    Outcome(u64),
}

impl WellKnown {
    /// The document at a path: `None` for paths that are not ours, `Some(None)` for ours where
    /// nothing is.
    pub(crate) fn of(path: &NormalPath) -> Option<Option<Self>> {
        let rest = path.path().strip_prefix("/.well-known/agentca")?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        if path.query().is_some() {
            return Some(None);
        }
        if rest == "/signers" {
            return Some(Some(Self::Signers));
        }
        let index = rest.strip_prefix("/outcome/").and_then(canonical_number);
        Some(index.map(Self::Outcome))
    }

    /// Its name in records.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Signers => "http:agentca:/.well-known/agentca/signers",
            Self::Outcome(_) => "http:agentca:/.well-known/agentca/outcome/{index}",
        }
    }

    /// Its text, for `caller`.
    pub(crate) fn read(
        self,
        log: &Log,
        outcomes: &Outcomes,
        live: &Live,
        caller: &SpiffeId,
    ) -> Result<Bytes, Denial> {
        match self {
            Self::Signers => Ok(live.signers().clone()),
            Self::Outcome(index) => outcome(log, outcomes, index, caller),
        }
    }
}

/// The document at `/.well-known/agentca/signers`: `{"log":ORIGIN,"signers":[[leaf,intermediate],…]}`,
/// base64 of DER, the response signer first.
pub(crate) fn signers_document(identity: &ServingIdentity) -> Bytes {
    let chain = |chain: &[Vec<u8>]| -> Vec<String> {
        chain.iter().map(|der| STANDARD.encode(der)).collect()
    };
    let document = serde_json::json!({
        "log": identity.log_origin.to_string(),
        "signers": [chain(&identity.response_chain), chain(&identity.log_chain)],
    });
    document.to_string().into()
}

fn outcome(log: &Log, outcomes: &Outcomes, index: u64, caller: &SpiffeId) -> Result<Bytes, Denial> {
    // Whether it never was, was another's or is forgotten: the same answer.
    let unknown = || Denial::new(Rule::NotInCatalogue, "no stream of yours has this index");
    let stream = outcomes
        .find(index)
        .filter(|stream| stream.agent == *caller);
    let stream = stream.ok_or_else(unknown)?;
    let text = match stream.outcome {
        None => serde_json::json!({ "decision": index, "state": "running" }),
        Some(outcome) => {
            let record = log.record(outcome);
            let record = record
                .ok()
                .flatten()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            match record {
                None => serde_json::json!({ "decision": index, "state": "ending" }),
                Some(record) => serde_json::json!({
                    "decision": index,
                    "state": "ended",
                    "outcome": outcome,
                    "record": record,
                }),
            }
        }
    };
    Ok(text.to_string().into())
}

/// How streams ended: the newest [`REMEMBERED`] of this process. The log has them all.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    inner: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    streams: HashMap<u64, Arc<Stream>>,
    order: VecDeque<u64>,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Whose call it was.
    agent: SpiffeId,
    /// The index of its outcome's record, once it ended.
    outcome: Option<u64>,
}

impl Outcomes {
    /// A stream begins whose decision has index `decision`.
    pub(crate) fn begin(&self, decision: u64, agent: SpiffeId) {
        let mut inner = self.lock();
        inner.streams.insert(
            decision,
            Arc::new(Stream {
                agent,
                outcome: None,
            }),
        );
        inner.order.push_back(decision);
        if inner.order.len() > REMEMBERED
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.streams.remove(&oldest);
        }
    }

    /// It ended, as record `outcome` says.
    pub(crate) fn end(&self, decision: u64, outcome: u64) {
        if let Some(stream) = self.lock().streams.get_mut(&decision) {
            Arc::make_mut(stream).outcome = Some(outcome);
        }
    }

    fn find(&self, decision: u64) -> Option<Arc<Stream>> {
        self.lock().streams.get(&decision).map(Arc::clone)
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Streams remembered: at about 200 bytes each.
const REMEMBERED: usize = 65_536;

/// A number written in its one form.
fn canonical_number(text: &str) -> Option<u64> {
    let number = text.parse().ok()?;
    (text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0')))
        .then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Option<Option<WellKnown>>) {
        assert_eq!(
            WellKnown::of(&NormalPath::parse(path).unwrap()),
            expected,
            "{path}"
        );
    }

    #[test]
    fn documents_have_one_path_each() {
        check(
            "/.well-known/agentca/signers",
            Some(Some(WellKnown::Signers)),
        );
        check(
            "/.well-known/agentca/outcome/7",
            Some(Some(WellKnown::Outcome(7))),
        );
        check(
            "/.well-known/agentca/outcome/0",
            Some(Some(WellKnown::Outcome(0))),
        );
        check("/.well-known/agentca/outcome/07", Some(None));
        check("/.well-known/agentca/outcome/+7", Some(None));
        check(
            "/.well-known/agentca/outcome/99999999999999999999",
            Some(None),
        );
        check("/.well-known/agentca/signers?x", Some(None));
        check("/.well-known/agentca", Some(None));
        check("/.well-known/agentcax", None);
        check("/v1", None);
    }

    #[test]
    fn outcomes_are_bounded() {
        let outcomes = Outcomes::default();
        let agent: SpiffeId = "spiffe://example.org/prod/agent/a".parse().unwrap();
        let most = u64::try_from(REMEMBERED).unwrap();
        for index in 0..=most {
            outcomes.begin(index, agent.clone());
        }
        assert_eq!(outcomes.find(0), None);
        outcomes.end(0, 5);
        outcomes.end(1, 9);
        assert_eq!(outcomes.find(1).unwrap().outcome, Some(9));
    }
}
