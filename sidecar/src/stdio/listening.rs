//! Streams that the client asked for in no request: what the server says by itself in a session, and what
//! is left of an answer whose stream broke off.

use std::sync::Arc;
use std::time::Duration;

use agentca_auditlog::sse::Event;
use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::task::AbortHandle;

use super::Bridge;
use crate::enforcer::{Answer, AskError, Content};
use crate::events::Events;
use crate::fields::LAST_EVENT_ID;
use crate::message;

/// Where a stream is taken up again, and when.
#[derive(Debug, Default)]
pub(super) struct Resumption {
    last: Option<HeaderValue>,
    retry: Option<Duration>,
    failures: u32,
    /// There was a stream.
    heard: bool,
}

impl Resumption {
    /// Takes note of an event.
    pub(super) fn note(&mut self, event: &Event) {
        self.failures = 0;
        if let Some(id) = &event.id {
            self.last = HeaderValue::try_from(id.as_str()).ok();
        }
        if let Some(retry) = event.retry {
            self.retry = Some(Duration::from_millis(retry).min(LONGEST_PAUSE));
        }
    }

    /// Takes a broken stream up after its last event; none when it can't be.
    pub(super) async fn again(&mut self, bridge: &Arc<Bridge>) -> Option<Events> {
        self.last.as_ref()?;
        while self.failures < TRIES {
            tokio::time::sleep(self.pause()).await;
            self.failures = self.failures.saturating_add(1);
            match self.open(bridge).await {
                Ok(Answer {
                    content: Content::Events(events),
                    status: StatusCode::OK,
                    ..
                }) => return Some(*events),
                Ok(Answer { status, .. }) if status.is_client_error() => return None,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "a stream is not taken up again yet"),
            }
        }
        None
    }

    /// What the server asked for, or ever longer.
    fn pause(&self) -> Duration {
        let longer = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10));
        let pause = self.retry.unwrap_or(longer).max(match self.failures {
            0 => Duration::ZERO,
            _ => longer,
        });
        pause.min(LONGEST_PAUSE)
    }

    async fn open(&self, bridge: &Arc<Bridge>) -> Result<Answer, AskError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        bridge.session.add_to(&mut headers);
        if let Some(last) = &self.last {
            headers.insert(LAST_EVENT_ID, last.clone());
        }
        let enforcer = &bridge.enforcer;
        enforcer.ask_with(Method::GET, headers, Bytes::new()).await
    }
}

/// Listens to a session's own stream, one at a time.
#[derive(Debug, Default)]
pub(super) struct Listener(Option<AbortHandle>);

impl Listener {
    /// Begins, or begins anew.
    pub(super) fn start(&mut self, bridge: &Arc<Bridge>) {
        self.stop();
        let weak = Arc::downgrade(bridge);
        let task = tokio::spawn(async move {
            let mut resumption = Resumption::default();
            loop {
                let Some(bridge) = weak.upgrade() else { return };
                if !listen_once(&bridge, &mut resumption).await {
                    return;
                }
                drop(bridge);
                tokio::time::sleep(resumption.pause()).await;
                resumption.failures = resumption.failures.saturating_add(1);
            }
        });
        self.0 = Some(task.abort_handle());
    }

    /// Ends.
    pub(super) fn stop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// Listens until the stream ends; says whether there is reason to listen again.
async fn listen_once(bridge: &Arc<Bridge>, resumption: &mut Resumption) -> bool {
    let mut events = match resumption.open(bridge).await {
        Ok(Answer {
            status: StatusCode::OK,
            content: Content::Events(events),
            ..
        }) => events,
        Ok(Answer {
            status: StatusCode::NOT_FOUND,
            ..
        }) => {
            // The session is over; with a new one somebody else listens.
            let before = bridge.session.id();
            // One that never was heard begins again with the next request: not in a circle.
            if before.is_some() && resumption.heard {
                bridge.begin_again(before).await;
            }
            return false;
        }
        // 405: none is offered.
        Ok(Answer { status, .. }) if status.is_client_error() => {
            tracing::debug!(%status, "the server says nothing by itself");
            return false;
        }
        Ok(Answer { status, .. }) if status.is_success() => return false,
        Ok(Answer { status, .. }) => {
            tracing::debug!(%status, "not listening to the server yet");
            return true;
        }
        Err(error) => {
            tracing::warn!(%error, "could not listen to the server");
            return true;
        }
    };
    resumption.heard = true;
    loop {
        match events.next().await {
            Ok(Some(event)) => {
                resumption.note(&event);
                if let Some(data) = event.data.filter(|data| !data.is_empty()) {
                    bridge.out.line(message::one_line(data.as_bytes())).await;
                }
            }
            Ok(None) => return true,
            Err(error) => {
                tracing::warn!(%error, "listening to the server broke off");
                return true;
            }
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const TRIES: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_the_servers_then_longer_and_longer() {
        let mut resumption = Resumption::default();
        assert_eq!(resumption.pause(), FIRST_PAUSE);
        resumption.failures = 3;
        assert_eq!(resumption.pause(), FIRST_PAUSE * 8);
        resumption.failures = 40;
        assert_eq!(resumption.pause(), LONGEST_PAUSE);
        resumption.note(&Event {
            retry: Some(20),
            id: Some("e1".to_owned()),
            ..Event::default()
        });
        assert_eq!(resumption.pause(), Duration::from_millis(20));
        assert_eq!(resumption.last.unwrap(), "e1");
    }
}
