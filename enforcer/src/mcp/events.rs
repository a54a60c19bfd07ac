//! Answers that come message by message (server-sent events): each is read, judged, signed and passed on.
//!
//! As with every stream the decision's record is durable before the head leaves and the outcome's follows.
//! The answer that was waited for ends the stream: nothing that a server says after it is passed on.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use agentca_auditlog::receipt::stream::StreamId;
use agentca_auditlog::sse::{Event, EventReader};
use agentca_identity::time::Timestamp;
use bytes::{Buf, Bytes};
use hyper::body::Incoming;

use super::reply::Expected;
use super::seen::Seen;
use crate::gate::Call;
use crate::jsonrpc::Came;
use crate::live::Live;
use crate::outflow::Piece;
use crate::record::{Ended, Ledger};
use crate::session::{Running, Session};
use crate::shares::Reserved;
use crate::stream::Broken;
use crate::timers::Timer;
use crate::upstream::Link;

/// A running stream of messages.
#[derive(Debug)]
pub(crate) struct EventBody {
    source: Option<Source>,
    /// Read while the head was waited for.
    first: Option<Event>,
    passage: Passage,
    /// Signed and not handed over.
    rest: Bytes,
    timer: Timer,
    pause: Duration,
    /// When something is said so that everybody on the way sees that it lives, and how often.
    alive: Option<(Timer, Duration)>,
    ledger: Ledger,
    call: Call,
    state: State,
    _running: Running,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More may come.
    Running,
    /// Everything came; not all of it has left.
    Leaving,
    /// The outcome is recorded.
    Over,
}

/// Where messages come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// An upstream's answer over HTTP.
    Http(Box<HttpEvents>),
    /// A program's exchange.
    Program(Box<dyn Messages>),
}

/// Events of an upstream's body.
#[derive(Debug)]
pub(crate) struct HttpEvents {
    pub(crate) link: Link,
    pub(crate) body: Incoming,
    pub(crate) reader: EventReader,
    /// For the longest event so far, within what is held for all calls.
    pub(crate) room: Reserved,
    pub(crate) in_all: usize,
}

/// Messages of a program, one after the other; each was checked to be JSON that has one reading.
pub(crate) trait Messages: std::fmt::Debug {
    /// The next one; `None` when there are no more.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<String, &'static str>>>;
}

/// What every message passes through.
#[derive(Debug)]
pub(crate) struct Passage {
    pub(crate) expected: Expected,
    pub(crate) live: Arc<Live>,
    pub(crate) session: Rc<Session>,
    /// The decision's record.
    pub(crate) decision: u64,
    pub(crate) seen: Arc<Seen>,
    /// The place of the next message.
    pub(crate) seq: u64,
    /// For the request's body, which a state may still be bound to.
    pub(crate) _asked: Option<Reserved>,
}

/// What became of a message.
struct Passed {
    text: String,
    is_answer: bool,
    failed: bool,
}

impl Passage {
    fn pass(&mut self, mut event: Event, came: Came) -> Result<Passed, &'static str> {
        let (mut is_answer, mut failed) = (false, false);
        event.receipt = None;
        if let Some(data) = &event.data {
            // Only names where to resume (2025-11-25).
            if !data.is_empty() {
                let message = self.expected.read(data, came)?;
                (is_answer, failed) = (
                    message.is_answer && self.expected.id.is_some(),
                    message.failed,
                );
                if message.lists_changed {
                    self.seen.look();
                }
                if let Some(text) = message.text {
                    event.data = Some(text);
                }
            }
            self.sign(&mut event)?;
        }
        let mut text = String::with_capacity(event.data.as_ref().map_or(0, String::len) + 256);
        event.write(&mut text);
        Ok(Passed {
            text,
            is_answer,
            failed,
        })
    }

    fn sign(&mut self, event: &mut Event) -> Result<(), &'static str> {
        let data = event.data.as_deref().unwrap_or_default();
        let signer = self.live.signer();
        if Timestamp::now() > signer.not_after() {
            return Err("the signer's certificate has ended");
        }
        let stream = StreamId {
            log: self.session.worker.shared.log.origin(),
            decision: self.decision,
        };
        let receipt = signer
            .stream_receipt(stream, self.seq, data.as_bytes())
            .map_err(|_| "a message could not be signed")?;
        self.seq += 1;
        event.receipt = Some(receipt.to_string());
        Ok(())
    }
}

impl Source {
    /// What is known of its messages.
    pub(super) fn came(&self) -> Came {
        match self {
            Self::Http(_) => Came::Unread,
            Self::Program(_) => Came::Checked,
        }
    }

    pub(super) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Event, &'static str>>> {
        match self {
            Self::Program(messages) => messages.poll_next(cx).map(|next| {
                next.map(|message| {
                    message.map(|data| Event {
                        data: Some(data),
                        ..Event::default()
                    })
                })
            }),
            Self::Http(events) => events.poll_event(cx),
        }
    }
}

impl HttpEvents {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, &'static str>>> {
        loop {
            match self.reader.next_event() {
                Err(_) => return Poll::Ready(Some(Err("the server's events cannot be read"))),
                Ok(Some(event)) => return Poll::Ready(Some(Ok(event))),
                Ok(None) => {}
            }
            match ready!(self.link.poll_frame(&mut self.body, cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.reader.push(&data);
                        if !self.room.reach(self.reader.held(), self.in_all) {
                            let full = "too much of other calls is held right now";
                            return Poll::Ready(Some(Err(full)));
                        }
                    }
                }
                Some(Err(_)) => return Poll::Ready(Some(Err("the server broke off"))),
                None => {
                    let cut = self.reader.finish().is_err();
                    let cut = cut.then_some(Err("the server broke off within an event"));
                    return Poll::Ready(cut);
                }
            }
        }
    }
}

impl EventBody {
    pub(crate) fn new(
        (first, source): (Option<Event>, Source),
        passage: Passage,
        (timer, pause, alive): (Timer, Duration, Option<(Timer, Duration)>),
        ledger: Ledger,
        (call, running): (Call, Running),
    ) -> Self {
        Self {
            source: Some(source),
            first,
            passage,
            rest: Bytes::new(),
            timer,
            pause,
            alive,
            ledger,
            call,
            state: State::Running,
            _running: running,
        }
    }

    /// Whether it ended, and that was recorded.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// The next piece.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Piece, Broken>>> {
        loop {
            if !self.rest.is_empty() {
                let piece = self.call.piece(&mut self.rest);
                self.ledger.passed(piece.chunk());
                return Poll::Ready(Some(Ok(piece)));
            }
            let Some(source) = &mut self.source else {
                break;
            };
            let event = match self.first.take() {
                Some(event) => Poll::Ready(Some(Ok(event))),
                None => source.poll_event(cx),
            };
            match event {
                Poll::Ready(Some(Ok(event))) => {
                    let came = source.came();
                    self.timer.restart(self.pause);
                    if let Some((timer, every)) = &self.alive {
                        timer.restart(*every);
                    }
                    match self.passage.pass(event, came) {
                        Ok(passed) => self.take(passed),
                        Err(why) => return self.broken(why),
                    }
                }
                Poll::Ready(Some(Err(why))) => return self.broken(why),
                Poll::Ready(None) if self.passage.expected.must_answer() => {
                    return self.broken("the server ended without an answer");
                }
                Poll::Ready(None) => self.ended_by_upstream(),
                Poll::Pending => {
                    if self.says_it_lives(cx) {
                        continue;
                    }
                    ready!(self.timer.poll(cx));
                    self.end(Ended::TimedOut);
                    return Poll::Ready(Some(Err(Broken)));
                }
            }
        }
        if self.state == State::Leaving {
            ready!(self.call.poll_left(cx));
            self.end(Ended::Complete);
        }
        Poll::Ready(None)
    }

    /// Nothing came for a while: a comment goes out, which is no message, and is recorded as what leaves.
    fn says_it_lives(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((timer, every)) = &self.alive else {
            return false;
        };
        if timer.poll(cx).is_pending() {
            return false;
        }
        timer.restart(*every);
        self.rest = Bytes::from_static(COMMENT);
        true
    }

    fn take(&mut self, passed: Passed) {
        self.rest = Bytes::from(passed.text);
        if passed.failed {
            self.ledger.failed("the server says that it failed");
        }
        if passed.is_answer {
            // What may still come is not waited for: the link is not used again.
            self.source = None;
            self.state = State::Leaving;
        }
    }

    /// Without the answer a client can resume a session's stream; it is told by the end alone.
    fn ended_by_upstream(&mut self) {
        self.source = None;
        self.state = State::Leaving;
    }

    fn broken(&mut self, why: &'static str) -> Poll<Option<Result<Piece, Broken>>> {
        self.ledger.failed(why);
        self.end(Ended::UpstreamFailed);
        Poll::Ready(Some(Err(Broken)))
    }

    fn end(&mut self, ended: Ended) {
        self.state = State::Over;
        self.ledger.end(ended);
    }
}

const COMMENT: &[u8] = b":\n\n";

impl Drop for EventBody {
    fn drop(&mut self) {
        if self.call.stalled() && !self.is_over() {
            self.end(Ended::TimedOut);
        }
    }
}
