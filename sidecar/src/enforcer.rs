//! The enforcer as we see it: a request goes in, an answer that was verified comes out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentca_identity::crypto;
use agentca_identity::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::events::{Events, StreamCheck};
use crate::holder::{Held, Holder};
use crate::link::{Body, BoxError, Link, LinkError, Peer};
use crate::outcome;
use crate::problem::Problem;
use crate::signers::{self, Signers};
use crate::url::EnforcerUrl;
use crate::verify::{self, Asked, Parties, Promised, Unverified, Verified, Verify};

/// What a client may take, and what an answer may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of one message, either way.
    pub(crate) message: usize,
    /// Requests at one time.
    pub(crate) concurrent: usize,
    /// From a request to the head of its answer.
    pub(crate) answer: Duration,
}

/// The connections to one enforcer, and what is known of it.
#[derive(Debug)]
pub(crate) struct Enforcer {
    pub(crate) url: EnforcerUrl,
    pub(crate) holder: Holder,
    pub(crate) verify: Verify,
    pub(crate) limits: Limits,
    idle: Mutex<Vec<Link>>,
    signers: Signers,
}

/// A request; `path` is the enforcer's.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

/// An answer that may be passed on.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Content,
}

/// Its body.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of it.
    Whole(Bytes),
    /// Server-sent events, as they come.
    Events(Box<Events>),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the request is not one that HTTP can carry: {0}")]
    Request(#[from] http::Error),
    #[error("the message can't be sent: {0}")]
    Field(String),
    #[error("the answer has more than {0} bytes; `--max-message` allows more")]
    TooLong(usize),
    #[error("the answer broke off: {0}")]
    BrokeOff(String),
    #[error("the enforcer's answer was refused: {0}")]
    Unverified(#[from] Unverified),
    /// Whatever is asked, by a rule.
    #[error("{said}")]
    Denied { rule: String, said: String },
}

impl AskError {
    /// What a client is told: a status and a kind.
    pub(crate) fn told(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Link(LinkError::TimedOut { .. }) => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            Self::Link(LinkError::Holder(_)) => (StatusCode::BAD_GATEWAY, "credentials"),
            Self::Link(_) => (StatusCode::BAD_GATEWAY, "enforcer"),
            Self::Request(_) | Self::Field(_) => (StatusCode::BAD_REQUEST, "request"),
            Self::TooLong(_) => (StatusCode::BAD_GATEWAY, "too-long"),
            Self::BrokeOff(_) => (StatusCode::BAD_GATEWAY, "broke-off"),
            Self::Unverified(_) => (StatusCode::BAD_GATEWAY, "unverified"),
            Self::Denied { .. } => (StatusCode::FORBIDDEN, "denied"),
        }
    }
}

impl Enforcer {
    /// Nothing is connected yet.
    pub(crate) fn new(url: EnforcerUrl, holder: Holder, verify: Verify, limits: Limits) -> Self {
        Self {
            url,
            holder,
            verify,
            limits,
            idle: Mutex::default(),
            signers: Signers::default(),
        }
    }

    /// Connects and learns the signers, so that the first request does not wait for it.
    pub(crate) async fn warm(self: &Arc<Self>) -> Result<(), AskError> {
        if self.verify == Verify::Off {
            let link = self.dial().await?;
            self.rest(link);
            return Ok(());
        }
        self.learn_signers("").await?;
        Ok(())
    }

    /// Takes each newer credential into use when the enforcer lets it in, for ever.
    pub(crate) async fn take_over(&self) {
        let mut pause = PAUSE.0;
        loop {
            let next = self.holder.next().await;
            if self.lets_in(&next).await {
                self.holder.take_over(&next);
                pause = PAUSE.0;
            } else {
                tokio::time::sleep(pause).await;
                // Each look is a record of the enforcer's.
                pause = pause.saturating_mul(2).min(PAUSE.1);
            }
        }
    }

    /// Whether a credential opens the enforcer: nothing but which one is shown to it depends on the answer.
    async fn lets_in(&self, held: &Arc<Held>) -> bool {
        let asked = async {
            let mut link = Link::dial(&self.url.place, Arc::clone(held)).await.ok()?;
            let (_, request) = self.request(well_known(signers::PATH)).ok()?;
            let answer = link.send(&self.url.place, request).await.ok()?;
            Some(answer.status() == StatusCode::OK)
        };
        let answered = tokio::time::timeout(self.limits.answer, asked).await;
        matches!(answered, Ok(Some(true)))
    }

    /// Asks, and verifies the answer as far as it is there.
    pub(crate) async fn ask(self: &Arc<Self>, question: Question) -> Result<Answer, AskError> {
        let (asked, request) = self.request(question)?;
        let (link, response) = self.send(request).await?;
        let (head, body) = response.into_parts();
        let verified = match self
            .judge(&asked, head.status, &head.headers, &link.peer)
            .await
        {
            Ok(verified) => verified,
            Err(AskError::Unverified(error)) => {
                self.disbelieve(error)?;
                None
            }
            Err(error) => return Err(error),
        };
        let streamed = verified
            .as_ref()
            .is_none_or(|verified| verified.body == Promised::Stream);
        let content = if is_events(&head.headers) && streamed {
            let check = verified.map(|verified| StreamCheck::new(verified, self.verify));
            let events = Events::new(Arc::clone(self), link, body, check);
            Content::Events(Box::new(events))
        } else {
            let body = self.whole(link, body, verified.as_ref()).await?;
            match is_events(&head.headers) {
                true => Content::Events(Box::new(Events::of(Arc::clone(self), &body))),
                false => Content::Whole(body),
            }
        };
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            content,
        })
    }

    /// Asks with a body at hand.
    pub(crate) async fn ask_with(
        self: &Arc<Self>,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, AskError> {
        let body = match body.is_empty() {
            true => Empty::new().map_err(|never| match never {}).boxed_unsync(),
            false => Full::new(body)
                .map_err(|never| match never {})
                .boxed_unsync(),
        };
        let path = self.url.path.clone();
        self.ask(Question {
            method,
            path,
            headers,
            body,
        })
        .await
    }

    /// A document of the enforcer's own.
    pub(crate) async fn well_known(self: &Arc<Self>, path: &str) -> Result<Answer, AskError> {
        Box::pin(self.ask(well_known(path))).await
    }

    /// Keeps a connection for the next request.
    pub(crate) fn rest(&self, link: Link) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(link.rested());
        }
    }

    /// Says that an answer does not verify: an error under `require`, a warning under `warn`.
    pub(crate) fn disbelieve(&self, error: Unverified) -> Result<(), AskError> {
        match self.verify {
            Verify::Require => Err(error.into()),
            Verify::Warn => {
                tracing::warn!(%error, "passed on an answer that does not verify");
                Ok(())
            }
            Verify::Off => Ok(()),
        }
    }

    /// The keys that sign beside a verified head's log by now; asked for again when `again`.
    pub(crate) async fn stream_keys(
        self: &Arc<Self>,
        verified: &Verified,
        again: bool,
    ) -> Vec<agentca_identity::chain::SignerKey> {
        if again {
            let fetched = self.learn_signers("").await;
            if let Err(error) = fetched {
                tracing::debug!(%error, "the signers were not had again");
            }
        }
        self.signers.of(verified.signer.origin())
    }

    fn request(&self, question: Question) -> Result<(Asked, Request<Body>), AskError> {
        let Question {
            method,
            path,
            mut headers,
            body,
        } = question;
        let nonce = match headers.get(AGENT_NONCE).and_then(|n| n.to_str().ok()) {
            Some(theirs) if headers.get_all(AGENT_NONCE).iter().count() == 1 => {
                theirs.trim_matches([' ', '\t']).to_owned()
            }
            _ => URL_SAFE_NO_PAD.encode(crypto::random::<16>()),
        };
        let value = |text: &str| HeaderValue::try_from(text).map_err(http::Error::from);
        headers.insert(AGENT_NONCE, value(&nonce)?);
        headers.insert(HOST, value(&self.url.place.authority)?);
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(PROGRAM));
        let digest = headers.get(CONTENT_DIGEST).and_then(|d| d.to_str().ok());
        let asked = Asked {
            method: method.clone(),
            target: self.url.target(&path),
            digest: digest.map(|d| d.trim_matches([' ', '\t']).to_owned()),
            nonce,
            sent: Timestamp::now(),
        };
        let mut request = Request::builder().method(method).uri(path).body(body)?;
        *request.headers_mut() = headers;
        Ok((asked, request))
    }

    /// Sends over a connection at hand, or a new one when the one at hand turns out to be closed
    /// before anything left.
    async fn send(&self, request: Request<Body>) -> Result<(Link, Response<Incoming>), LinkError> {
        let after = self.limits.answer;
        let sending = self.send_over_any(request);
        tokio::time::timeout(after, sending)
            .await
            .map_err(|_| LinkError::TimedOut {
                place: self.url.place.authority.clone(),
                after,
            })?
    }

    async fn send_over_any(
        &self,
        mut request: Request<Body>,
    ) -> Result<(Link, Response<Incoming>), LinkError> {
        loop {
            let (mut link, used) = match self.rested()? {
                Some(link) => (link, true),
                None => (self.dial().await?, false),
            };
            match link.send(&self.url.place, request).await {
                Ok(response) => return Ok((link, response)),
                Err((Some(back), _)) if used => request = back,
                Err((_, error)) => return Err(error),
            }
        }
    }

    fn rested(&self) -> Result<Option<Link>, LinkError> {
        let held = self.holder.usable()?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|link| link.is_usable(&held));
        Ok(idle.pop())
    }

    async fn dial(&self) -> Result<Link, LinkError> {
        Link::dial(&self.url.place, self.holder.usable()?).await
    }

    /// Verifies a head; asks for the signers again when it is signed with a key that is not known.
    async fn judge(
        self: &Arc<Self>,
        asked: &Asked,
        status: StatusCode,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Option<Verified>, AskError> {
        if self.verify == Verify::Off {
            return Ok(None);
        }
        let key_id = verify::key_id_of(headers);
        let mut signer = self.signers.find(&key_id);
        if signer.is_none() && !key_id.is_empty() {
            match self.learn_signers(&key_id).await {
                Ok(()) => {}
                Err(denied @ AskError::Denied { .. }) if self.verify == Verify::Require => {
                    return Err(denied);
                }
                Err(error) => return Err(Unverified::Signers(error.to_string()).into()),
            }
            signer = self.signers.find(&key_id);
        }
        let verified = verify::head(asked, status, headers, &parties(peer), signer)?;
        Ok(Some(verified))
    }

    /// Asks for the signers, unless `wanted` became known meanwhile. The document itself is signed too,
    /// by one of those it names.
    async fn learn_signers(self: &Arc<Self>, wanted: &str) -> Result<(), AskError> {
        let _alone = self.signers.fetching.lock().await;
        if self.signers.find(wanted).is_some() || !self.signers.may_ask() {
            return Ok(());
        }
        let (asked, request) = self.request(well_known(signers::PATH))?;
        let (link, response) = self.send(request).await?;
        let (head, body) = response.into_parts();
        let peer = Arc::clone(&link.peer);
        let body = self.whole(link, body, None).await?;
        if head.status != StatusCode::OK {
            return Err(no_signers(head.status, &body, &peer));
        }
        let anchor = &peer.held.credential.anchor;
        self.signers
            .learn(&body, anchor, &peer.origin)
            .map_err(Unverified::Signers)?;
        let signer = self.signers.find(&verify::key_id_of(&head.headers));
        let verified = verify::head(&asked, head.status, &head.headers, &parties(&peer), signer)?;
        match verified.body {
            Promised::Digest(digest) => Ok(verify::body(&digest, &body)?),
            Promised::Nothing | Promised::Stream => Err(Unverified::Body.into()),
        }
    }

    /// Reads a whole body and verifies it.
    async fn whole(
        self: &Arc<Self>,
        link: Link,
        body: Incoming,
        verified: Option<&Verified>,
    ) -> Result<Bytes, AskError> {
        let most = self.limits.message.max(OWN_DOCUMENTS);
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|error| broke_off(&*error, most))?.to_bytes();
        self.rest(link);
        let Some(verified) = verified else {
            return Ok(body);
        };
        let judged = match verified.body {
            Promised::Digest(digest) => verify::body(&digest, &body),
            Promised::Nothing => match body.is_empty() {
                true => Ok(()),
                false => Err(Unverified::Body),
            },
            Promised::Stream => outcome::confirm(self, verified, &body).await,
        };
        if let Err(error) = judged {
            self.disbelieve(error)?;
        }
        Ok(body)
    }
}

fn parties(peer: &Peer) -> Parties<'_> {
    Parties {
        origin: &peer.origin,
        ours: peer.held.credential.certificate.fingerprint(),
    }
}

/// An enforcer that denies an agent everything does not show it its signers either.
fn no_signers(status: StatusCode, body: &[u8], peer: &Peer) -> AskError {
    let problem = Problem::read(body);
    let said = problem.sentence(status);
    let ours = peer.held.credential.certificate.id();
    let ours = ours.as_ref().and_then(|id| id.environment());
    let Some(rule) = problem.rule else {
        return Unverified::Signers(said).into();
    };
    let said = match (rule.as_str(), ours, peer.origin.environment()) {
        ("environment", Some(ours), Some(theirs)) => {
            format!("{said}; issue with `--env {theirs}`, or call an enforcer of {ours}")
        }
        _ => said,
    };
    AskError::Denied { rule, said }
}

fn well_known(path: &str) -> Question {
    Question {
        method: Method::GET,
        path: path.to_owned(),
        headers: HeaderMap::new(),
        body: Empty::new().map_err(|never| match never {}).boxed_unsync(),
    }
}

fn broke_off(error: &(dyn std::error::Error + Send + Sync + 'static), most: usize) -> AskError {
    if error.is::<LengthLimitError>() {
        AskError::TooLong(most)
    } else {
        AskError::BrokeOff(error.to_string())
    }
}

/// Whether a body is server-sent events.
fn is_events(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// Any body as one of ours.
pub(crate) fn boxed<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// What makes a signature fresh.
pub(crate) const AGENT_NONCE: HeaderName = HeaderName::from_static("agent-nonce");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const PROGRAM: &str = concat!("agentca-sidecar/", env!("CARGO_PKG_VERSION"));
/// What the enforcer says by itself may have as many bytes, however short messages have to be.
const OWN_DOCUMENTS: usize = 64 << 10;
/// Between two looks whether the enforcer knows a new certificate: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Connections kept without a request.
const MOST_IDLE: usize = 16;
