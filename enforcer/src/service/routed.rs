//! A permitted call of a route: its body, its upstream, and what comes back.

use std::rc::Rc;
use std::sync::Arc;

use agentca_identity::crypto::sha256;
use agentca_policy::Rule;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body;

use super::{Abandoned, Given, Told, Turn};
use crate::answer::{OpenBody, Reply, is_bodyless};
use crate::body::{self, StreamedRequest, Upload};
use crate::forward::{Answered, ForwardFailure, forward};
use crate::road::{Cleared, Denial, Destination, Matched, Permit, authorise};
use crate::stream::{Source, StreamBody};
use crate::upstream::{Outbound, Target, UpstreamError};

impl Turn {
    pub(super) async fn call(&mut self, permit: Permit) -> Given {
        self.ledger.on_permit(&permit);
        let outbound = if self.body.as_ref().is_none_or(Body::is_end_stream) {
            self.take_nothing()
        } else {
            Box::pin(self.take_body(&permit)).await
        };
        let permitted = outbound.and_then(|outbound| Ok((outbound, self.renewed(permit)?)));
        let (outbound, permit) = match permitted {
            Ok(permitted) => permitted,
            Err(denial) => return self.deny(&denial).await,
        };
        if permit.call().risk.recorded_before_forwarding() {
            let decided = self.ledger.decide()?;
            self.session.worker.durability.wait(decided.index).await?;
        }
        let Destination::Http(target) = permit.target().clone() else {
            let error = UpstreamError::Unusable("a route cannot lead to a program");
            return self.upstream_failed(&error).await;
        };
        let request_id = self.ledger.request_id();
        self.ledger.sent();
        let own;
        let timer = match &self.upload {
            Some(upload) => upload.answer_timer(),
            None => {
                own = self.session.worker.timers.timer();
                &own
            }
        };
        let (session, live) = (&self.session, &self.live);
        let pause = live.config().limits.upstream_timeout;
        match forward(session, live, permit, outbound, request_id, (timer, pause)).await {
            Ok(answered) => {
                self.ledger.answered();
                self.pass_on(answered, target).await
            }
            Err(ForwardFailure::Denied(denial, status_number)) => {
                self.ledger.judged_at(status_number);
                self.deny(&denial).await
            }
            Err(ForwardFailure::Upstream(error)) => self.upstream_failed(&error).await,
        }
    }

    /// The permit by what is in force once the body is there: what was reloaded meanwhile decides about all of it.
    fn renewed(&mut self, permit: Permit) -> Result<Permit, Denial> {
        if !self.take_live() {
            return Ok(permit);
        }
        let registry = &self.session.worker.shared.registry;
        let peer = &self.session.peer;
        let known = peer.standing();
        self.ledger.judged_at(known.status_number);
        match authorise(registry, &self.live, (peer, known), Ok(permit.into_head())) {
            Ok(Cleared::Call(permit)) => {
                self.ledger.on_permit(&permit);
                Ok(permit)
            }
            Ok(Cleared::WellKnown(_) | Cleared::Mcp(_) | Cleared::McpShared(_)) => {
                let detail = "the route is not in the catalogue any more";
                Err(Denial::new(Rule::NotInCatalogue, detail))
            }
            Err(refusal) => {
                if let Some(matched) = refusal.matched {
                    self.ledger.on_match(matched);
                }
                Err(refusal.denial)
            }
        }
    }

    /// There is no body: a digest that was claimed must be that of nothing.
    fn take_nothing(&mut self) -> Result<Outbound, Denial> {
        if let Some(claim) = &self.asked.content_digest {
            let digest = sha256(b"");
            body::check_digest(Some(claim), &digest)?;
            self.ledger.request_body(&digest);
        }
        Ok(Outbound::whole(Bytes::new()))
    }

    /// Everything the head decides was decided: now the body may be read.
    async fn take_body(&mut self, permit: &Permit) -> Result<Outbound, Denial> {
        let limits = &self.live.config().limits;
        let claim = self.asked.content_digest.as_deref();
        let timers = &self.session.worker.timers;
        let timer = timers.after(limits.body_timeout);
        // Of a GET or HEAD of unknown length the library sends no body: it would never be read, and
        // its digest never checked.
        let streams = !matches!(permit.head().method, Method::GET | Method::HEAD);
        if streams
            && matches!(permit.matched(), Matched::Route(route) if route.stream_request)
            && let Some(body) = self.body.take()
        {
            let upload = Upload::new(timers.timer(), limits.upstream_timeout);
            self.upload = Some(Rc::clone(&upload));
            let (claim, pause) = (claim.map(str::to_owned), limits.body_timeout);
            let session = Rc::clone(&self.session);
            let streamed = StreamedRequest::new(body, claim, (timer, pause), upload, session);
            return Ok(Outbound::Stream(Box::pin(streamed)));
        }
        let Some(body) = &mut self.body else {
            return self.take_nothing();
        };
        body::refuse_length(permit.head().length, limits.request_max)?;
        let mut room = self.session.reserve();
        let held = (&mut room, limits.buffered_max);
        let bytes = body::read_request(body, limits.request_max, &timer, held).await?;
        self.room = Some(room);
        let digest = sha256(&bytes);
        body::check_digest(claim, &digest)?;
        self.ledger.request_body(&digest);
        Ok(Outbound::whole(bytes))
    }

    async fn pass_on(&mut self, answered: Answered, target: Arc<Target>) -> Given {
        let Answered {
            status,
            headers,
            mut body,
            mut link,
        } = answered;
        if let Some(refused) = self.unverified() {
            return match refused {
                Unverified::Wrong(denial) => self.deny(&denial).await,
                Unverified::NotYet(error) => self.upstream_failed(&error).await,
            };
        }
        let limits = &self.live.config().limits;
        let bodyless = is_bodyless(&self.asked.method, status);
        let known = body
            .size_hint()
            .exact()
            .and_then(|length| usize::try_from(length).ok());
        // One for which there is no room goes on as a stream.
        let mut room = self.session.reserve();
        let short = bodyless
            || known.is_some_and(|length| {
                length <= limits.buffer_max && room.grow(length, limits.buffered_max)
            });
        let upstream_limits = self.live.upstream_limits();
        let pool = &self.session.worker.pool;
        if !short {
            let pool = Rc::clone(pool);
            let source = Source {
                link,
                body,
                pool,
                target,
                limits: upstream_limits,
            };
            return Box::pin(self.stream(source, status, headers)).await;
        }
        let timer = self.session.worker.timers.timer();
        let timeout = limits.upstream_timeout;
        match body::read_answer(&mut link, &mut body, limits.buffer_max, (&timer, timeout)).await {
            Ok(bytes) => {
                self.ledger.answered();
                pool.put_back(&target, link, &upstream_limits);
                let reply = Reply::new(&self.asked.method, status, headers, bytes).within(room);
                self.give(reply, Told::Answered).await
            }
            Err(error) => self.upstream_failed(&error).await,
        }
    }

    /// Whether the request claims a digest that its streamed body did not prove: the signature of an
    /// upstream's answer would vouch for it.
    fn unverified(&self) -> Option<Unverified> {
        let upload = self.upload.as_ref()?;
        self.asked.content_digest.as_ref()?;
        if let Some(denial) = upload.fault() {
            return Some(Unverified::Wrong(denial));
        }
        (!upload.ended()).then_some(Unverified::NotYet(UpstreamError::Unusable(
            "the answer came before the body whose digest the request tells",
        )))
    }

    /// Lets the head go once the decision is durable; the outcome follows the stream.
    async fn stream(&mut self, source: Source, status: StatusCode, headers: HeaderMap) -> Given {
        let staged = self.ledger.decide()?;
        self.ledger.streams(status.as_u16());
        let call = self.call.take().ok_or(Abandoned::Answered)?;
        let pause = self.live.config().limits.upstream_timeout;
        let timer = self.session.worker.timers.after(pause);
        let measured = self.ledger.measured();
        let ledger = self.ledger.hand_over();
        let body = StreamBody::new(source, timer, pause, ledger, (call, self.session.running()));
        let body = OpenBody::Bytes(Box::new(body));
        self.open((staged, measured), (status, headers), body).await
    }
}

/// Why an answer to a streamed request is not passed on.
enum Unverified {
    /// The body is not what the request said.
    Wrong(Denial),
    /// Not all of it came.
    NotYet(UpstreamError),
}
