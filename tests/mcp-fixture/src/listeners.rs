//! Who wants to hear of changes: streams of `subscriptions/listen`, and sessions of the older revisions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rmcp::service::{Peer, RoleServer, SubscriptionContext, SubscriptionSink};

/// Everybody who listens.
#[derive(Clone, Default)]
pub(crate) struct Listeners(Arc<Inner>);

#[derive(Default)]
struct Inner {
    next: AtomicU64,
    streams: Mutex<BTreeMap<u64, SubscriptionSink>>,
    sessions: Mutex<Vec<Peer<RoleServer>>>,
}

impl Listeners {
    /// Keeps a stream for as long as its client does.
    pub(crate) async fn keep(&self, stream: SubscriptionContext) {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let locked = || {
            self.0
                .streams
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        locked().insert(number, stream.sink().clone());
        stream.cancelled().await;
        locked().remove(&number);
    }

    /// Keeps a session.
    pub(crate) fn keep_session(&self, peer: Peer<RoleServer>) {
        let sessions = &self.0.sessions;
        sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(peer);
    }

    /// Tells that the tools changed. Whoever is gone is not told.
    pub(crate) async fn tools_changed(&self) {
        for stream in self.streams() {
            let _gone = stream.notify_tool_list_changed().await;
        }
        let sessions = self.0.sessions.lock();
        let sessions = sessions.unwrap_or_else(PoisonError::into_inner).clone();
        for session in sessions {
            let _gone = session.notify_tool_list_changed().await;
        }
    }

    /// Tells that the prompts changed.
    pub(crate) async fn prompts_changed(&self) {
        for stream in self.streams() {
            let _gone = stream.notify_prompt_list_changed().await;
        }
    }

    fn streams(&self) -> Vec<SubscriptionSink> {
        let streams = self.0.streams.lock();
        let streams = streams.unwrap_or_else(PoisonError::into_inner);
        streams.values().cloned().collect()
    }
}
