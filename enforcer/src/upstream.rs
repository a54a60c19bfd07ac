//! Connections to upstreams: kept alive per runtime, driven by the request that uses them.
//!
//! A [`Link`] holds both halves of hyper's HTTP/1 client connection. Whoever waits for an answer
//! polls both, so that no task and no wake stands between a request and its upstream. An idle link
//! is polled once before it is used again: that is when a close by the upstream shows.
//!
//! For others: [`Target::connect`] gives the bytes of a connection, over TLS where the configuration says so;
//! [`Target::credential`] what a request has to show.

mod credentials;
mod oauth;
mod secret;
mod target;
mod tls;
mod wire;

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

pub(crate) use self::credentials::Shown;
pub(crate) use self::secret::Secret;
pub(crate) use self::target::TargetError;
pub(crate) use self::target::{Target, inspect};
use self::wire::{Sending, Wire};
use crate::road::StillValid;
use crate::stdio::StdioError;
use crate::timers::{TimedOut, Timer, Timers};

/// What an upstream may take; from the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpstreamLimits {
    /// For a connection.
    pub(crate) connect_timeout: Duration,
    /// A link unused for longer is closed.
    pub(crate) idle_timeout: Duration,
    /// Idle links kept to one upstream by one runtime.
    pub(crate) idle_max: usize,
    /// Of an answer's head, in bytes.
    pub(crate) head_max: usize,
}

/// What went wrong on the way to an upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// No connection.
    #[error("could not connect")]
    Connect(#[source] std::io::Error),
    /// No connection, or no answer, in time.
    #[error("no answer in time")]
    TimedOut,
    /// The connection broke or the answer could not be read.
    #[error("the exchange failed")]
    Exchange(#[source] hyper::Error),
    /// The program gave no answer.
    #[error(transparent)]
    Program(StdioError),
    /// The answer is none that may be passed on.
    #[error("{0}")]
    Unusable(&'static str),
}

impl From<TimedOut> for UpstreamError {
    fn from(_: TimedOut) -> Self {
        Self::TimedOut
    }
}

/// The idle links of one runtime.
#[derive(Debug)]
pub(crate) struct Pool {
    timers: Rc<Timers>,
    idle: RefCell<HashMap<Arc<str>, Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    until: std::time::Instant,
}

impl Pool {
    pub(crate) fn new(timers: Rc<Timers>) -> Rc<Self> {
        Rc::new(Self {
            timers,
            idle: RefCell::default(),
        })
    }

    /// An idle link that is still open, or a new one.
    pub(crate) async fn link(
        &self,
        target: &Target,
        limits: &UpstreamLimits,
    ) -> Result<Link, UpstreamError> {
        while let Some(mut link) = self.pop(&target.key) {
            if poll_fn(|cx| Poll::Ready(link.is_open(cx))).await {
                return Ok(link);
            }
        }
        // Rare, and not worth its room in every request.
        let connecting = Box::pin(Link::connect(target, limits));
        self.timers
            .after(limits.connect_timeout)
            .limit(connecting)
            .await?
    }

    /// Keeps a link whose answer was read to its end. One whose request has not left whole is closed:
    /// the rest of it would leave during the next one.
    pub(crate) fn put_back(&self, target: &Target, link: Link, limits: &UpstreamLimits) {
        if !link.is_idle() {
            return;
        }
        link.sending.end();
        let Some(until) = self.timers.now().checked_add(limits.idle_timeout) else {
            return;
        };
        let mut idle = self.idle.borrow_mut();
        let links = match idle.get_mut(&target.key) {
            Some(links) => links,
            None => idle.entry(Arc::clone(&target.key)).or_default(),
        };
        if links.len() < limits.idle_max {
            links.push(Idle { link, until });
        }
    }

    /// Closes what was unused for too long; called from time to time.
    pub(crate) fn sweep(&self) {
        let now = self.timers.now();
        self.idle.borrow_mut().retain(|_, links| {
            links.retain(|idle| idle.until > now);
            !links.is_empty()
        });
    }

    fn pop(&self, key: &Arc<str>) -> Option<Link> {
        let mut idle = self.idle.borrow_mut();
        let newest = idle.get_mut(key)?.pop()?;
        (newest.until > self.timers.now()).then_some(newest.link)
    }
}

/// One connection to an upstream.
#[derive(Debug)]
pub(crate) struct Link {
    sender: http1::SendRequest<Outbound>,
    wire: Pin<Box<Connection>>,
    sending: Rc<Sending>,
    open: bool,
}

type Connection = http1::Connection<TokioIo<Wire>, Outbound>;

/// Why a request was not answered.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// Not a byte of it was sent: it may go another way.
    Unsent(Box<Request<Outbound>>),
    /// Some of it may have been.
    Failed(UpstreamError),
}

impl Link {
    /// Sends `request` for whom it was found `valid`, and waits for the head of the answer, at most
    /// until `timer`.
    ///
    /// # Errors
    /// [`SendFailure`]; the link is of no use afterwards.
    pub(crate) async fn send(
        &mut self,
        request: Request<Outbound>,
        valid: StillValid<'_>,
        timer: &Timer,
    ) -> Result<Response<Incoming>, SendFailure> {
        self.sending.begin(valid.session());
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        let (wire, open) = (&mut self.wire, &mut self.open);
        let answered = timer
            .limit(poll_fn(|cx| {
                drive(wire, open, cx);
                answer.as_mut().poll(cx)
            }))
            .await;
        match answered {
            Err(TimedOut) => Err(SendFailure::Failed(UpstreamError::TimedOut)),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(mut refused)) => Err(match refused.take_message() {
                Some(request) => SendFailure::Unsent(Box::new(request)),
                None => SendFailure::Failed(UpstreamError::Exchange(refused.into_error())),
            }),
        }
    }

    /// The next piece of an answer's body.
    pub(crate) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // The first look tells the wire that more is wanted, the second takes what it brought.
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        drive(&mut self.wire, &mut self.open, cx);
        Pin::new(body).poll_frame(cx)
    }

    async fn connect(target: &Target, limits: &UpstreamLimits) -> Result<Self, UpstreamError> {
        let stream = target.connect().await?;
        let sending = stream.sending();
        let (sender, wire) = http1::Builder::new()
            .max_buf_size(limits.head_max.max(LEAST_BUFFER))
            .max_header_size(limits.head_max)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(UpstreamError::Exchange)?;
        Ok(Self {
            sender,
            wire: Box::pin(wire),
            sending,
            open: true,
        })
    }

    /// Whether nothing is left of the last exchange: the library takes the next request only when the
    /// body of the one before has ended.
    fn is_idle(&self) -> bool {
        self.open && self.sender.is_ready() && !self.sending.is_behind()
    }

    fn is_open(&mut self, cx: &mut Context<'_>) -> bool {
        drive(&mut self.wire, &mut self.open, cx);
        self.open && matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(())))
    }
}

/// Polls the connection itself; not again after it has ended.
fn drive(wire: &mut Pin<Box<Connection>>, open: &mut bool, cx: &mut Context<'_>) {
    if *open && wire.as_mut().poll(cx).is_ready() {
        *open = false;
    }
}

/// hyper's least buffer.
const LEAST_BUFFER: usize = 8 << 10;

/// The body of a request to an upstream.
pub(crate) enum Outbound {
    /// Read whole before; `None` once it was handed over.
    Whole(Option<Bytes>),
    /// Passed on as it comes.
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>),
}

/// Any error.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Outbound {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Whole(_) => "Whole",
            Self::Stream(_) => "Stream",
        })
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(None) => SizeHint::with_exact(0),
            Self::Whole(Some(bytes)) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Self::Stream(body) => body.size_hint(),
        }
    }
}
