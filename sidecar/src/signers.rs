//! Whose signatures count: the chains that the enforcer publishes, as far as they lead to our root and
//! are for responses of this enforcer.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use agentca_identity::certificate::{Certificate, Subject};
use agentca_identity::chain::{SignerKey, TrustAnchor};
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Where the chains are.
pub(crate) const PATH: &str = "/.well-known/agentca/signers";

/// The keys known so far, by their ids in hex.
#[derive(Debug, Default)]
pub(crate) struct Signers {
    known: Mutex<HashMap<String, SignerKey>>,
    asked: Mutex<Option<Instant>>,
    /// One asks, the others wait.
    pub(crate) fetching: tokio::sync::Mutex<()>,
}

/// The document; what else it says is of no use here.
#[derive(Deserialize)]
struct Document {
    signers: Vec<Vec<String>>,
}

impl Signers {
    /// The key with this id, unless its certificate has ended.
    pub(crate) fn find(&self, key_id: &str) -> Option<SignerKey> {
        let now = Timestamp::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, key| now.truncate_to_secs() <= key.not_after());
        known.get(key_id).cloned()
    }

    /// All keys that sign for `origin`.
    pub(crate) fn of(&self, origin: &LogOrigin) -> Vec<SignerKey> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = known.values().filter(|key| key.origin() == origin);
        keys.cloned().collect()
    }

    /// Whether it is time to ask again: whoever answers with unknown keys shall not make us ask without
    /// end.
    pub(crate) fn may_ask(&self) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let may = asked.is_none_or(|at| at.elapsed() >= PAUSE);
        if may {
            *asked = Some(Instant::now());
        }
        may
    }

    /// Takes the chains of a document that lead to the root and sign responses beside `enforcer`'s log
    /// in any generation. What is not understood is passed over: it signs nothing that counts.
    pub(crate) fn learn(
        &self,
        document: &[u8],
        anchor: &TrustAnchor,
        enforcer: &LogOrigin,
    ) -> Result<(), String> {
        let Document { signers } = serde_json::from_slice(document).map_err(|e| e.to_string())?;
        let mut learnt = HashMap::new();
        for chain in signers.iter().take(MOST) {
            match signer(chain, anchor, enforcer) {
                Ok(Some(key)) => {
                    learnt.insert(hex(&key.public_key().key_id()), key);
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "a published signer does not count"),
            }
        }
        if learnt.is_empty() {
            return Err("none of the published signers leads to ca.crt".to_owned());
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + learnt.len() > MOST {
            known.clear();
        }
        known.extend(learnt);
        Ok(())
    }
}

/// The key of a chain that signs responses of this enforcer; none for its log's own key.
fn signer(
    chain: &[String],
    anchor: &TrustAnchor,
    enforcer: &LogOrigin,
) -> Result<Option<SignerKey>, String> {
    let decoded: Result<Vec<Vec<u8>>, _> = chain.iter().map(|der| STANDARD.decode(der)).collect();
    let decoded = decoded.map_err(|e| e.to_string())?;
    let chain: Vec<&[u8]> = decoded.iter().map(Vec::as_slice).collect();
    let leaf = chain.first().copied().unwrap_or_default();
    let leaf = Certificate::parse(leaf).map_err(|e| e.to_string())?;
    let Subject::LogSigner { origin } = leaf.subject() else {
        return Err("not a signer".to_owned());
    };
    let generation = origin.generation().unwrap_or(1);
    let responses = enforcer
        .with_generation(generation)
        .and_then(|log| log.response())
        .map_err(|e| e.to_string())?;
    if *origin != responses {
        return Ok(None);
    }
    let key = anchor.verify_signer(&chain, origin);
    key.map(Some).map_err(|e| e.to_string())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _never = write!(text, "{byte:02x}");
    }
    text
}

/// Keys known, and chains read of one document.
const MOST: usize = 16;
/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);
