//! The session of the revisions that have one (2025-11-25, 2025-06-18): its id, the revision agreed on,
//! and how it began, so that it can begin again when the enforcer knows it no more. Sessions are bound
//! to the certificate: after every renewal that is the ordinary case.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

use crate::fields::{self, PROTOCOL_VERSION, SESSION};
use crate::message::Message;

/// The session as it stands.
#[derive(Debug, Default)]
pub(super) struct Session {
    state: Mutex<State>,
    /// One begins it again, the others wait.
    pub(super) renewing: tokio::sync::Mutex<()>,
    /// Closed while `initialize` has no answer.
    gate: Arc<RwLock<()>>,
}

#[derive(Debug, Default)]
struct State {
    id: Option<HeaderValue>,
    version: Option<HeaderValue>,
    /// The client's own `initialize`.
    opening: Option<Message>,
    /// Whether the client said `notifications/initialized`.
    opened: bool,
}

#[derive(Deserialize)]
struct Initialized {
    result: InitializedResult,
}

#[derive(Deserialize)]
struct InitializedResult {
    #[serde(rename = "protocolVersion")]
    version: String,
}

impl Session {
    /// The fields of a message within the session, as far as there is one.
    pub(super) fn fields(&self) -> HeaderMap {
        let mut headers = fields::posted();
        self.add_to(&mut headers);
        headers
    }

    /// Adds the session's own fields.
    pub(super) fn add_to(&self, headers: &mut HeaderMap) {
        let state = self.lock();
        if let Some(id) = &state.id {
            headers.insert(SESSION, id.clone());
        }
        if let Some(version) = &state.version {
            headers.insert(PROTOCOL_VERSION, version.clone());
        }
    }

    /// Keeps messages of the session back for as long as the guard lives; none when they are kept already.
    pub(super) fn close_gate(&self) -> Option<OwnedRwLockWriteGuard<()>> {
        Arc::clone(&self.gate).try_write_owned().ok()
    }

    /// Waits until the session is there.
    pub(super) async fn pass_gate(&self) {
        let _open = self.gate.read().await;
    }

    /// A client begins: whatever was before is over.
    pub(super) fn opening(&self, initialize: &Message) {
        *self.lock() = State {
            opening: Some(initialize.clone()),
            ..State::default()
        };
    }

    /// The answer to `initialize` came, with these fields.
    pub(super) fn begun(&self, headers: &HeaderMap, answer: &[u8]) {
        let Ok(Initialized { result }) = serde_json::from_slice(answer) else {
            return;
        };
        let mut state = self.lock();
        state.id = headers.get(SESSION).cloned();
        state.version = HeaderValue::try_from(result.version).ok();
    }

    /// The client has said that it is ready.
    pub(super) fn opened(&self) {
        self.lock().opened = true;
    }

    /// What it began with, and whether it was open.
    pub(super) fn beginning(&self) -> Option<(Message, bool)> {
        let state = self.lock();
        Some((state.opening.clone()?, state.opened))
    }

    /// Its id.
    pub(super) fn id(&self) -> Option<HeaderValue> {
        self.lock().id.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What follows an `initialize` that was answered.
pub(crate) const INITIALIZED: Bytes =
    Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
