//! A stream of server-sent events, verified message by message.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use agentca_auditlog::sse::{Event, EventReader};
use agentca_identity::crypto::Sha256;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::enforcer::{AskError, Enforcer};
use crate::link::Link;
use crate::outcome::{self, Ended};
use crate::verify::{self, Unverified, Verified, Verify};

/// Events as they come.
#[derive(Debug)]
pub(crate) struct Events {
    enforcer: Arc<Enforcer>,
    reader: EventReader,
    source: Option<(Link, Incoming)>,
    check: Option<StreamCheck>,
}

/// What the messages of a stream are held against.
#[derive(Debug)]
pub(crate) struct StreamCheck {
    verified: Verified,
    seq: u64,
    raw: Sha256,
    /// Nothing is checked any more, once a failure was told.
    lenient: bool,
    failed: bool,
}

impl StreamCheck {
    /// Of a stream whose head was verified.
    pub(crate) fn new(verified: Verified, verify: Verify) -> Self {
        Self {
            verified,
            seq: 0,
            raw: Sha256::new(),
            lenient: verify != Verify::Require,
            failed: false,
        }
    }
}

impl Events {
    /// Of a body that is still to come.
    pub(crate) fn new(
        enforcer: Arc<Enforcer>,
        link: Link,
        body: Incoming,
        check: Option<StreamCheck>,
    ) -> Self {
        Self {
            reader: EventReader::new(enforcer.limits.message.saturating_mul(2)),
            enforcer,
            source: Some((link, body)),
            check,
        }
    }

    /// Of a body at hand, whose digest was verified.
    pub(crate) fn of(enforcer: Arc<Enforcer>, body: &[u8]) -> Self {
        let mut reader = EventReader::new(enforcer.limits.message.saturating_mul(2));
        reader.push(body);
        Self {
            enforcer,
            reader,
            source: None,
            check: None,
        }
    }

    /// The next event; none at the clean end.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, AskError> {
        loop {
            let next = self.reader.next_event();
            if let Some(event) = next.map_err(|e| AskError::BrokeOff(e.to_string()))? {
                self.verify(&event).await?;
                return Ok(Some(event));
            }
            let Some((_, body)) = &mut self.source else {
                return Ok(None);
            };
            match body.frame().await {
                Some(Ok(frame)) => self.take(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => {
                    self.source = None;
                    return Err(AskError::BrokeOff(error.to_string()));
                }
                None => {
                    self.end();
                    return Ok(None);
                }
            }
        }
    }

    /// Reads what is left to its end, which is near, so that the connection can be used again.
    pub(crate) fn drain(mut self) {
        tokio::spawn(async move {
            let rest = async { while let Ok(Some(_)) = self.next().await {} };
            let _late = tokio::time::timeout(DRAIN, rest).await;
        });
    }

    fn take(&mut self, data: Bytes) {
        if let Some(check) = &mut self.check {
            check.raw.update(&data);
        }
        self.reader.push(&data);
    }

    /// The clean end: the connection is of use again, and the record of the end is looked at.
    fn end(&mut self) {
        if let Some((link, _)) = self.source.take() {
            self.enforcer.rest(link);
        }
        if let Err(error) = self.reader.finish() {
            tracing::debug!(%error, "a stream");
        }
        let check = self.check.take().filter(|check| !check.failed);
        if let Some(StreamCheck { verified, raw, .. }) = check {
            let ended = Ended {
                verified,
                digest: raw.finish(),
            };
            outcome::look_later(Arc::clone(&self.enforcer), ended);
        }
    }

    async fn verify(&mut self, event: &Event) -> Result<(), AskError> {
        let (Some(check), Some(data)) = (&mut self.check, &event.data) else {
            return Ok(());
        };
        if check.failed {
            return Ok(());
        }
        let seq = check.seq;
        check.seq = seq.saturating_add(1);
        let (verified, receipt) = (&check.verified, event.receipt.as_deref());
        let first = verify::message(verified, [&verified.signer], seq, data, receipt);
        let judged = match first {
            // The signer may have been renewed since the head.
            Err(Unverified::Receipt(_)) => {
                by_others(&self.enforcer, verified, seq, data, receipt).await
            }
            judged => judged,
        };
        let Err(error) = judged else {
            return Ok(());
        };
        check.failed = true;
        if !check.lenient {
            // Closed at once, and what came already is forgotten: nothing that follows is of use.
            self.source = None;
            self.reader = EventReader::new(0);
        }
        self.enforcer.disbelieve(error)
    }
}

/// Tries the other signers of the enforcer, at last those it publishes now.
async fn by_others(
    enforcer: &Arc<Enforcer>,
    verified: &Verified,
    seq: u64,
    data: &str,
    receipt: Option<&str>,
) -> Result<(), Unverified> {
    let mut judged = Err(Unverified::Receipt(seq));
    let mut rounds: VecDeque<bool> = [false, true].into();
    while let (Err(_), Some(again)) = (&judged, rounds.pop_front()) {
        let keys = enforcer.stream_keys(verified, again).await;
        judged = verify::message(verified, &keys, seq, data, receipt);
    }
    judged
}

/// How long the end of a stream may take after its last message.
const DRAIN: Duration = Duration::from_secs(2);
