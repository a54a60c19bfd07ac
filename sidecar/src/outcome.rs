//! How a stream ended: what the enforcer's record of its outcome says, against what came here.

use std::sync::Arc;
use std::time::Duration;

use agentca_auditlog::receipt::salted_digest;
use agentca_identity::crypto::sha256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::Deserialize;

use crate::enforcer::{Content, Enforcer};
use crate::verify::{Unverified, Verified};

/// A stream that came to its end here.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) verified: Verified,
    /// SHA-256 of all its bytes.
    pub(crate) digest: [u8; 32],
}

/// What the enforcer says about a stream.
#[derive(Deserialize)]
struct Document {
    state: String,
    record: Option<String>,
}

#[derive(Deserialize)]
struct Record {
    result: RecordResult,
}

#[derive(Deserialize)]
struct RecordResult {
    ended: Option<String>,
    digest: Option<String>,
}

/// Waits for the record of a body that came whole, and holds it against the body.
pub(crate) async fn confirm(
    enforcer: &Arc<Enforcer>,
    verified: &Verified,
    body: &[u8],
) -> Result<(), Unverified> {
    let ended = Ended {
        verified: verified.clone(),
        digest: sha256(body),
    };
    look(enforcer, &ended).await.map_err(Unverified::Outcome)
}

/// Looks by and by, and warns when the record says something else.
pub(crate) fn look_later(enforcer: Arc<Enforcer>, ended: Ended) {
    tokio::spawn(async move {
        if let Err(detail) = look(&enforcer, &ended).await {
            let record = ended.verified.index;
            tracing::warn!(record, %detail, "how a stream ended is not confirmed by its record");
        }
    });
}

async fn look(enforcer: &Arc<Enforcer>, ended: &Ended) -> Result<(), String> {
    let path = format!("/.well-known/agentca/outcome/{}", ended.verified.index);
    let mut pause = FIRST_PAUSE;
    for _ in 0..TRIES {
        let answer = enforcer
            .well_known(&path)
            .await
            .map_err(|e| e.to_string())?;
        let Content::Whole(body) = answer.content else {
            return Err("it is no document".to_owned());
        };
        if answer.status != StatusCode::OK {
            return Err(crate::problem::said(answer.status, &body));
        }
        let document: Document = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
        match (document.state.as_str(), document.record) {
            ("ended", Some(record)) => return compare(ended, &record),
            ("running" | "ending" | "searching", _) => {}
            (state, _) => return Err(format!("its state is `{state}`")),
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2);
    }
    Err("it is not recorded yet".to_owned())
}

fn compare(ended: &Ended, record: &str) -> Result<(), String> {
    let Record { result } = serde_json::from_str(record).map_err(|e| e.to_string())?;
    let how = result.ended.unwrap_or_default();
    if how != "complete" {
        return Err(format!("it ended `{how}` there"));
    }
    let digest = STANDARD.encode(salted_digest(&ended.verified.salt, &ended.digest));
    match result.digest {
        Some(recorded) if recorded != digest => {
            Err("its digest is that of other content than came here".to_owned())
        }
        _ => Ok(()),
    }
}

const TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
