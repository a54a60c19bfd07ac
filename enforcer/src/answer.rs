//! Answers: made, sealed and held back until their record is durable (ARCHITECTURE.md, promise 2 and 4).
//!
//! Whatever the enforcer sends comes through [`Reply::seal_closed`] or [`seal_open`]: there is no
//! other way to an [`AnswerBody`], which is what the connection's service has to give.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use agentca_auditlog::log::Staged;
use agentca_auditlog::receipt::{AgentAudit, Phase};
use agentca_auditlog::response::{ResponseFacts, content_digest};
use agentca_identity::crypto::sha256;
use agentca_identity::time::Timestamp;
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use crate::fields::{CONTENT_DIGEST, combined};
use crate::gate::Call;
use crate::head::Asked;
use crate::live::Live;
use crate::mcp::EventBody;
use crate::outflow::{Piece, is_long};
use crate::road::Denial;
use crate::session::Session;
use crate::shares::Reserved;
use crate::stream::StreamBody;
use crate::upstream::BoxError;

/// An answer whose body is at hand.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Empty for HEAD, 204 and 304.
    pub(crate) body: Bytes,
    bodyless: bool,
    /// For the body.
    room: Option<Reserved>,
}

impl Reply {
    pub(crate) fn new(
        method: &Method,
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    ) -> Self {
        let bodyless = is_bodyless(method, status);
        let body = if bodyless { Bytes::new() } else { body };
        Self {
            status,
            headers,
            body,
            bodyless,
            room: None,
        }
    }

    /// The same, with the room that its body takes.
    pub(crate) fn within(mut self, room: Reserved) -> Self {
        self.room = Some(room);
        self
    }

    /// A denial as RFC 9457 says.
    pub(crate) fn problem(method: &Method, denial: &Denial) -> Self {
        let status = denial.status.as_u16();
        let rule = denial.rule.as_str();
        let text = serde_json::json!({
            "type": format!("urn:agentca:denied:{rule}"),
            "title": denial.rule.title(),
            "status": status,
            "rule": rule,
            "detail": denial.detail,
        });
        let mut reply = Self::json(
            method,
            denial.status,
            "application/problem+json",
            text.to_string(),
        );
        if denial.status == StatusCode::SERVICE_UNAVAILABLE {
            let soon = HeaderValue::from_static("1");
            reply.headers.insert(header::RETRY_AFTER, soon);
        }
        reply
    }

    /// A document of our own.
    pub(crate) fn json(
        method: &Method,
        status: StatusCode,
        media_type: &'static str,
        text: impl Into<Bytes>,
    ) -> Self {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Self::new(method, status, headers, text.into())
    }

    /// SHA-256 of the body.
    pub(crate) fn digest(&self) -> [u8; 32] {
        sha256(&self.body)
    }

    pub(crate) fn length(&self) -> u64 {
        u64::try_from(self.body.len()).unwrap_or(u64::MAX)
    }

    /// Signs the answer with its record's place. It still has to wait for that record.
    pub(crate) fn seal_closed(
        mut self,
        seal: &Seal<'_>,
        digest: &[u8; 32],
        call: Call,
    ) -> Result<Response<AnswerBody>, SealError> {
        let digest = (!self.bodyless).then(|| content_digest::format(digest));
        // hyper tells the length of what it sends; of what it does not send the upstream did.
        if !self.bodyless || self.status == StatusCode::NO_CONTENT {
            self.headers.remove(header::CONTENT_LENGTH);
        }
        seal.write(self.status, &mut self.headers, digest, Phase::Closed)?;
        let whole = Whole {
            end_apart: call.is_watched() && is_long(self.body.len()),
            rest: self.body,
            call,
            _room: self.room,
        };
        let mut response = Response::new(AnswerBody(Inner::Whole(whole)));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        Ok(response)
    }
}

/// A body that goes on after its head has left.
#[derive(Debug)]
pub(crate) enum OpenBody {
    /// Bytes as they come.
    Bytes(Box<StreamBody>),
    /// Messages, each signed.
    Events(Box<EventBody>),
}

/// Signs the head of a stream.
pub(crate) fn seal_open(
    seal: &Seal<'_>,
    status: StatusCode,
    mut headers: HeaderMap,
    body: OpenBody,
) -> Result<Response<AnswerBody>, SealError> {
    headers.remove(header::CONTENT_LENGTH);
    seal.write(status, &mut headers, None, Phase::Open)?;
    let mut response = Response::new(AnswerBody(Inner::Open(body)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// An answer without a body, whatever its fields say (RFC 9110 §6.4.1).
pub(crate) fn is_bodyless(method: &Method, status: StatusCode) -> bool {
    method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// What a signature says besides the answer itself.
#[derive(Debug)]
pub(crate) struct Seal<'a> {
    pub(crate) session: &'a Session,
    pub(crate) live: &'a Live,
    pub(crate) asked: &'a Asked,
    pub(crate) staged: Staged,
    pub(crate) salt: [u8; 16],
    /// The connection takes no further request.
    pub(crate) close: bool,
}

/// An answer could not be signed: it must not leave.
#[derive(Debug, thiserror::Error)]
#[error("the answer could not be signed")]
pub(crate) struct SealError;

impl Seal<'_> {
    fn write(
        &self,
        status: StatusCode,
        headers: &mut HeaderMap,
        digest: Option<String>,
        phase: Phase,
    ) -> Result<(), SealError> {
        let log = &self.session.worker.shared.log;
        let audit = AgentAudit {
            log: log.origin(),
            index: self.staged.index,
            leaf: self.staged.leaf,
            phase,
            peer: *self.session.peer.fingerprint(),
            salt: self.salt,
        }
        .to_string();
        // Nothing that the signature has to cover leaves without it.
        let field = |name| match combined(headers, &name) {
            None if headers.contains_key(&name) => Err(SealError),
            value => Ok(value),
        };
        let (content_type, content_encoding, location) = (
            field(header::CONTENT_TYPE)?,
            field(header::CONTENT_ENCODING)?,
            field(header::LOCATION)?,
        );
        let facts = ResponseFacts {
            status: status.as_u16(),
            agent_audit: &audit,
            method: self.asked.method.as_str(),
            target_uri: &self.asked.target_uri,
            content_digest: digest.as_deref(),
            content_type: content_type.as_deref(),
            content_encoding: content_encoding.as_deref(),
            location: location.as_deref(),
            request_content_digest: self.asked.content_digest.as_deref(),
            request_nonce: self.asked.nonce.as_deref(),
        };
        let (signer, created) = (self.live.signer(), Timestamp::now());
        if created > signer.not_after() {
            return Err(SealError);
        }
        let signature = signer.sign_at(&facts, created).map_err(|_| SealError)?;
        let value = |text: String| HeaderValue::try_from(text).map_err(|_| SealError);
        headers.insert(AGENT_AUDIT, value(audit)?);
        headers.insert(SIGNATURE_INPUT, value(signature.input)?);
        headers.insert(SIGNATURE, value(signature.signature)?);
        if let Some(digest) = digest {
            headers.insert(CONTENT_DIGEST, value(digest)?);
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(())
    }
}

const AGENT_AUDIT: HeaderName = HeaderName::from_static("agent-audit");
const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");

/// The body of a sealed answer.
#[derive(Debug)]
pub(crate) struct AnswerBody(Inner);

#[derive(Debug)]
enum Inner {
    Whole(Whole),
    Open(OpenBody),
}

/// An answer that is at hand.
#[derive(Debug)]
struct Whole {
    rest: Bytes,
    /// Its end is told when everything has left. What is short is not worth a frame of its own, and
    /// is left to the connection's stall timer.
    end_apart: bool,
    call: Call,
    _room: Option<Reserved>,
}

impl Whole {
    fn poll_data(&mut self, cx: &Context<'_>) -> Poll<Option<Piece>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(self.call.piece(&mut self.rest)));
        }
        if self.end_apart {
            ready!(self.call.poll_left(cx));
        }
        Poll::Ready(None)
    }
}

impl Body for AnswerBody {
    type Data = Piece;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BoxError>>> {
        match &mut self.0 {
            Inner::Whole(whole) => whole
                .poll_data(cx)
                .map(|data| data.map(|data| Ok(Frame::data(data)))),
            Inner::Open(body) => {
                let data = match body {
                    OpenBody::Bytes(stream) => stream.poll_data(cx),
                    OpenBody::Events(events) => events.poll_data(cx),
                };
                data.map(|data| match data {
                    Some(Ok(data)) => Some(Ok(Frame::data(data))),
                    Some(Err(error)) => Some(Err(error.into())),
                    None => None,
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Whole(whole) => whole.rest.is_empty() && !whole.end_apart,
            Inner::Open(OpenBody::Bytes(stream)) => stream.is_over(),
            Inner::Open(OpenBody::Events(events)) => events.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(whole) => {
                SizeHint::with_exact(u64::try_from(whole.rest.len()).unwrap_or(u64::MAX))
            }
            Inner::Open(OpenBody::Bytes(stream)) => stream
                .length()
                .map_or_else(SizeHint::new, SizeHint::with_exact),
            Inner::Open(OpenBody::Events(_)) => SizeHint::new(),
        }
    }
}
