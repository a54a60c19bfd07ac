//! Reading bodies: a request's whole, up to its limit, and an upstream's of known length.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use agentca_auditlog::response::content_digest;
use agentca_identity::crypto::Sha256;
use agentca_policy::Rule;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::road::Denial;
use crate::session::{Running, Session};
use crate::shares::Reserved;
use crate::timers::{TimedOut, Timer};
use crate::upstream::{BoxError, Link, UpstreamError};

/// Refuses a body whose told length is over the limit, before a byte of it was read.
pub(crate) fn refuse_length(length: Option<u64>, most: usize) -> Result<(), Denial> {
    match length {
        Some(length) if usize::try_from(length).map_or(true, |length| length > most) => {
            Err(too_large())
        }
        _ => Ok(()),
    }
}

/// Reads a request's body to its end, within the `room` that there is in all; trailers are dropped.
pub(crate) async fn read_request(
    body: &mut Incoming,
    most: usize,
    timer: &Timer,
    (room, in_all): (&mut Reserved, usize),
) -> Result<Bytes, Denial> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let mut whole = Gathered::default();
    loop {
        let frame = timer
            .limit(poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)))
            .await;
        match frame {
            Err(TimedOut) => return Err(too_slow()),
            Ok(None) => return Ok(whole.finish()),
            Ok(Some(Err(_))) => {
                return Err(Denial::new(
                    Rule::Malformed,
                    "the request's body cannot be read",
                ));
            }
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    if !room.grow(data.len(), in_all) {
                        return Err(no_room());
                    }
                    whole.push(data);
                    if whole.length() > most {
                        return Err(too_large());
                    }
                }
            }
        }
    }
}

/// Holds a body against what the client said its digest is (RFC 9530).
pub(crate) fn check_digest(claim: Option<&str>, digest: &[u8; 32]) -> Result<(), Denial> {
    let Some(claim) = claim else { return Ok(()) };
    match content_digest::parse(claim) {
        Some(claimed) if claimed == *digest => Ok(()),
        Some(_) => Err(Denial::new(
            Rule::Malformed,
            "the body is not what Content-Digest says",
        )),
        None => Err(Denial::new(
            Rule::Malformed,
            "Content-Digest has no sha-256 that can be read",
        )),
    }
}

/// Reads an upstream's body of known length; trailers are dropped.
pub(crate) async fn read_answer(
    link: &mut Link,
    body: &mut Incoming,
    most: usize,
    (timer, pause): (&Timer, Duration),
) -> Result<Bytes, UpstreamError> {
    let mut whole = Gathered::default();
    while !body.is_end_stream() {
        timer.restart(pause);
        match timer.limit(poll_fn(|cx| link.poll_frame(body, cx))).await? {
            None => break,
            Some(Err(error)) => return Err(UpstreamError::Exchange(error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    whole.push(data);
                    if whole.length() > most {
                        return Err(UpstreamError::Unusable("the answer is longer than it said"));
                    }
                }
            }
        }
    }
    Ok(whole.finish())
}

fn too_slow() -> Denial {
    Denial::new(Rule::Malformed, "the request's body took too long")
        .with_status(StatusCode::REQUEST_TIMEOUT)
}

fn too_large() -> Denial {
    Denial::new(Rule::TooLarge, "the request's body is too large")
}

fn no_room() -> Denial {
    Denial::new(
        Rule::TooLarge,
        "too much of other requests is held right now",
    )
    .with_status(StatusCode::SERVICE_UNAVAILABLE)
}

/// Pieces of a body; a single one is not copied.
#[derive(Debug, Default)]
struct Gathered {
    first: Bytes,
    rest: BytesMut,
}

impl Gathered {
    fn push(&mut self, data: Bytes) {
        if self.first.is_empty() {
            self.first = data;
        } else {
            self.rest.extend_from_slice(&data);
        }
    }

    fn length(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    fn finish(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut whole = BytesMut::with_capacity(self.length());
        whole.extend_from_slice(&self.first);
        whole.extend_from_slice(&self.rest);
        whole.freeze()
    }
}

/// A request body passed on as it comes: its digest is checked at its end, and a mismatch breaks
/// the request off before the upstream has seen all of it.
pub(crate) struct StreamedRequest {
    body: Incoming,
    hash: Option<Sha256>,
    claim: Option<String>,
    /// The last piece, held back until the digest is known to be right.
    held: Option<Bytes>,
    upload: Rc<Upload>,
    /// The client is waited for.
    waiting: bool,
    timer: Timer,
    pause: Duration,
    session: Rc<Session>,
    _running: Running,
}

/// What is known of a request body while it is passed on.
#[derive(Debug)]
pub(crate) struct Upload {
    ended: Cell<bool>,
    /// What the client did wrong.
    fault: RefCell<Option<Denial>>,
    /// For the upstream's answer: it does not run while the client is waited for.
    answer: Timer,
    answer_within: Duration,
}

impl Upload {
    pub(crate) fn new(answer: Timer, answer_within: Duration) -> Rc<Self> {
        Rc::new(Self {
            ended: Cell::new(false),
            fault: RefCell::default(),
            answer,
            answer_within,
        })
    }

    /// Whether all of it was read.
    pub(crate) fn ended(&self) -> bool {
        self.ended.get()
    }

    /// Why it was broken off, when the client is to blame; told once.
    pub(crate) fn fault(&self) -> Option<Denial> {
        self.fault.take()
    }

    /// Until when the upstream has to answer.
    pub(crate) fn answer_timer(&self) -> &Timer {
        &self.answer
    }
}

impl StreamedRequest {
    /// The client may take `pause` for each piece.
    pub(crate) fn new(
        body: Incoming,
        claim: Option<String>,
        (timer, pause): (Timer, Duration),
        upload: Rc<Upload>,
        session: Rc<Session>,
    ) -> Self {
        Self {
            body,
            hash: Some(Sha256::new()),
            claim,
            held: None,
            upload,
            waiting: false,
            timer,
            pause,
            _running: session.running(),
            session,
        }
    }

    fn finish(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        self.upload.ended.set(true);
        let digest = self.hash.take().map(Sha256::finish);
        let checked = digest.map(|digest| check_digest(self.claim.as_deref(), &digest));
        match checked {
            Some(Err(denial)) => Some(Err(self.blame(denial))),
            _ => self.held.take().map(|last| Ok(Frame::data(last))),
        }
    }

    fn blame(&self, denial: Denial) -> BoxError {
        let text = denial.detail.clone();
        self.upload.fault.replace(Some(denial));
        text.into()
    }

    /// Has the next piece; gives the one before.
    fn take(&mut self, data: Bytes) -> Option<Bytes> {
        if let Some(hash) = &mut self.hash {
            hash.update(&data);
        }
        self.held.replace(data)
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<BoxError> {
        if !self.waiting {
            self.waiting = true;
            self.upload.answer.set(None);
            self.timer.restart(self.pause);
        }
        self.timer.poll(cx).map(|()| self.blame(too_slow()))
    }
}

impl Body for StreamedRequest {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.session.is_cut() {
            return Poll::Ready(Some(Err("the client may send nothing more".into())));
        }
        loop {
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
                return this.wait(cx).map(|error| Some(Err(error)));
            };
            this.waiting = false;
            this.upload.answer.restart(this.upload.answer_within);
            match frame {
                None => return Poll::Ready(this.finish()),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => {
                    // Trailers are dropped.
                    let data = frame.into_data().ok();
                    if let Some(previous) = data.and_then(|data| this.take(data)) {
                        return Poll::Ready(Some(Ok(Frame::data(previous))));
                    }
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        let held = self.held.as_ref().map_or(0, |held| held.len());
        if let Some(exact) = self.body.size_hint().exact() {
            hint.set_exact(exact + u64::try_from(held).unwrap_or_default());
        }
        hint
    }
}
