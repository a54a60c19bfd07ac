//! What the enforcer answers by itself under `/.well-known/agentca/`: signer chains, and how a
//! caller's own streams ended. Recorded and signed like everything else.

use std::sync::Arc;

use agentca_identity::spiffe::SpiffeId;
use agentca_policy::NormalPath;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::live::{Live, ServingIdentity};
use crate::outcomes;
use crate::road::Denial;
use crate::worker::Shared;

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
    pub(crate) async fn read(
        self,
        shared: &Arc<Shared>,
        live: &Live,
        caller: &SpiffeId,
    ) -> Result<Bytes, Denial> {
        match self {
            Self::Signers => Ok(live.signers().clone()),
            Self::Outcome(decision) => outcomes::tell(shared, decision, caller).await,
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
}
