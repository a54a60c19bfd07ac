//! A permitted message on its way to its server, and what comes back.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use agentca_auditlog::sse::{Event, EventReader};
use agentca_policy::Rule;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;

use super::denials;
use super::events::{HttpEvents, Source};
use super::program::{self, ProgramError, Sent, Speaker};
use super::reply::{Expected, ServerMessage};
use super::revision::{Revision, SESSION_ID};
use super::rpc::Message;
use super::turn::Conversation;
use crate::answer::Reply;
use crate::config::DenyAs;
use crate::forward::{Answered, ForwardFailure, forward};
use crate::jsonrpc::Members;
use crate::road::{Denial, Destination, Permit};
use crate::service::{Given, Told, Turn};
use crate::shares::Reserved;
use crate::stdio::{Room, Stdio};
use crate::timers::Timer;
use crate::upstream::{Link, Outbound, Target, UpstreamError};

/// What is known of a message and its answer.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    /// None for a session's stream and its end.
    pub(super) message: Option<&'a Message>,
    pub(super) expected: Expected,
    pub(super) conversation: Conversation,
    pub(super) deny_as: DenyAs,
}

/// How an answer goes on.
enum Answer {
    /// It is at hand.
    Whole(Bytes, ServerMessage, Reserved),
    /// It comes message by message; the first may have been read.
    Events(Box<(Option<Event>, Source)>),
}

/// The head of an answer, and how it goes on.
struct Arrived {
    status: StatusCode,
    headers: HeaderMap,
    answer: Answer,
}

impl Turn {
    /// Forwards what was permitted and passes on what comes back.
    pub(super) async fn exchange(&mut self, permit: Permit, mut exchange: Exchange<'_>) -> Given {
        if permit.call().risk.recorded_before_forwarding() {
            let decided = self.ledger.decide()?;
            self.session.worker.durability.wait(decided.index).await?;
        }
        let upstream = Arc::clone(&permit.call().upstream);
        let pause = self.live.mcp_pause(&upstream);
        let arrived = self.through(permit, &mut exchange).await;
        let sealed = arrived.and_then(|mut arrived| {
            self.session_header(&mut arrived, &upstream, &exchange)
                .map_err(UpstreamError::Unusable)?;
            Ok(arrived)
        });
        let Arrived {
            status,
            headers,
            answer,
        } = match sealed {
            Ok(arrived) => arrived,
            Err(ForwardFailure::Denied(denial, status_number)) => {
                self.ledger.judged_at(status_number);
                return self.mcp_denied(denial, &exchange).await;
            }
            Err(ForwardFailure::Upstream(error)) => {
                return self.mcp_failed(&error, &exchange).await;
            }
        };
        match answer {
            Answer::Whole(body, told, room) => {
                if told.failed {
                    self.ledger.failed(SAYS_IT_FAILED);
                }
                let reply = Reply::new(&self.asked.method, status, headers, body).within(room);
                self.give(reply, Told::Answered).await
            }
            Answer::Events(source) => {
                let seen = self.live.seen_tools().of(&upstream);
                let head = (status, headers);
                // Who only listens may hear nothing for long.
                let listens = exchange
                    .message
                    .is_none_or(|message| message.method() == "subscriptions/listen");
                let alive = self.live.config().limits.keep_alive;
                let pauses = if listens {
                    (LISTENING, Some(alive))
                } else {
                    (pause, None)
                };
                // Once for a stream, and not worth its room in every call.
                Box::pin(self.events((*source, exchange.expected, seen), head, pauses)).await
            }
        }
    }

    /// Forwards a message that is none of the client's, and gives what it settled: revision and session.
    pub(super) async fn arrive(
        &mut self,
        permit: Permit,
        exchange: &mut Exchange<'_>,
    ) -> Result<(Option<Revision>, Option<String>), ForwardFailure> {
        let Arrived {
            status,
            headers,
            answer,
        } = self.through(permit, exchange).await?;
        let settled = match answer {
            Answer::Whole(_, told, _) if status.is_success() && !told.failed => told.revision,
            _ => return Err(UpstreamError::Unusable("the server refuses").into()),
        };
        let session = headers.get(SESSION_ID).and_then(|id| id.to_str().ok());
        Ok((settled, session.map(str::to_owned)))
    }

    async fn through(
        &mut self,
        permit: Permit,
        exchange: &mut Exchange<'_>,
    ) -> Result<Arrived, ForwardFailure> {
        let pause = self.live.mcp_pause(&permit.call().upstream);
        let timer = self.session.worker.timers.timer();
        self.ledger.sent();
        match permit.target().clone() {
            Destination::Http(target) => {
                self.through_http(permit, &target, exchange, (&timer, pause))
                    .await
            }
            Destination::Program(stdio) => {
                // Of another kind than most, and not worth its room in every call.
                Box::pin(self.through_pipes(permit, &stdio, exchange, (&timer, pause))).await
            }
        }
    }

    /// To a server over HTTP.
    async fn through_http(
        &mut self,
        permit: Permit,
        target: &Target,
        exchange: &mut Exchange<'_>,
        waiting: (&Timer, Duration),
    ) -> Result<Arrived, ForwardFailure> {
        let request_id = self.ledger.request_id();
        let bytes = exchange.message.map(|message| message.bytes().clone());
        let outbound = Outbound::whole(bytes.unwrap_or_default());
        let (session, live) = (&self.session, &self.live);
        let answered = forward(session, live, permit, outbound, request_id, waiting).await?;
        self.ledger.answered();
        let Answered {
            status,
            headers,
            body,
            link,
        } = answered;
        let mut arrived = Arrived {
            status,
            headers,
            answer: Answer::nothing(self.session.reserve()),
        };
        self.mcp_answer(&mut arrived, (link, body, target), exchange, waiting)
            .await?;
        Ok(arrived)
    }

    /// To a server that is a program.
    async fn through_pipes(
        &mut self,
        permit: Permit,
        stdio: &Arc<Stdio>,
        exchange: &mut Exchange<'_>,
        waiting: (&Timer, Duration),
    ) -> Result<Arrived, ForwardFailure> {
        let agent = self.session.peer.record().uri();
        let session = exchange.conversation.session.as_ref();
        let speaker = Speaker {
            agent,
            session: session.map(|session| session.id.as_str()),
            fresh: self.session.worker.random(),
        };
        let number = self.session.peer.standing().status_number;
        let gone = |error| match error {
            ProgramError::NoSession => {
                let denial = Denial::new(Rule::Session, error.to_string());
                ForwardFailure::Denied(denial, number)
            }
            ProgramError::Process(error) => UpstreamError::Program(error).into(),
        };
        let begins = exchange
            .message
            .is_some_and(|message| message.method() == "initialize" && message.id().is_some());
        let (timer, pause) = waiting;
        timer.restart(pause);
        let watch = self.session.peer.watch();
        let reaching = program::reach(stdio, &speaker, begins, watch);
        let reached = timer.limit(reaching).await.map_err(UpstreamError::from)?;
        let reached = reached.map_err(gone)?;
        let room = || Room {
            held: self.session.reserve(),
            in_all: self.live.config().limits.buffered_max,
        };
        // What it says by itself counts from the start.
        reached.process.within(room());
        let known = self.session.peer.standing();
        let (_, recheck) = permit.leave();
        let valid = recheck
            .still_valid(&self.session, &self.live, known)
            .map_err(|denial| ForwardFailure::Denied(denial, known.status_number))?;
        let mut arrived = Arrived {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            answer: Answer::nothing(self.session.reserve()),
        };
        let sent = match exchange.message {
            Some(message) => {
                let sending = program::send(reached, (message, room()), valid);
                timer.limit(sending).await.map_err(UpstreamError::from)?
            }
            None if self.asked.method == Method::GET => {
                let messages = program::listen(reached.process, valid);
                Ok(Sent::Answers(messages, None))
            }
            None => program::end(stdio, &speaker).map(|()| Sent::Ended),
        };
        match sent.map_err(gone)? {
            Sent::Ended => {}
            Sent::Taken => arrived.status = StatusCode::ACCEPTED,
            Sent::Answers(messages, begun) => {
                if let Some(id) = begun.and_then(|id| id.parse().ok()) {
                    arrived.headers.insert(SESSION_ID, id);
                }
                let media = HeaderValue::from_static(EVENT_STREAM);
                arrived.headers.insert(header::CONTENT_TYPE, media);
                let source = Source::Program(messages);
                self.mcp_events(&mut arrived, source, exchange, waiting)
                    .await?;
            }
        }
        Ok(arrived)
    }

    async fn mcp_denied(&mut self, denial: Denial, exchange: &Exchange<'_>) -> Given {
        let Some(message) = exchange.message else {
            return self.deny(&denial).await;
        };
        let revision = exchange.conversation.revision;
        let refused = denials::denied(message, revision, exchange.deny_as, denial);
        self.refuse(refused).await
    }

    pub(super) async fn mcp_failed(
        &mut self,
        error: &UpstreamError,
        exchange: &Exchange<'_>,
    ) -> Given {
        let Some(message) = exchange.message.filter(|_| !self.session.is_cut()) else {
            return self.upstream_failed(error).await;
        };
        self.say_failed(error);
        let revision = exchange.conversation.revision;
        let told = denials::denied(message, revision, exchange.deny_as, Denial::from(error));
        self.give(*told.reply, Told::Failed(&told.denial.detail))
            .await
    }

    /// Reads as much of an answer as has to be known before its head may leave.
    async fn mcp_answer(
        &self,
        arrived: &mut Arrived,
        (mut link, mut body, target): (Link, Incoming, &Target),
        exchange: &mut Exchange<'_>,
        waiting: (&Timer, Duration),
    ) -> Result<(), UpstreamError> {
        if arrived.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(UpstreamError::Unusable(
                "the server encodes what nobody asked it to",
            ));
        }
        let most = self.live.config().limits.message_max;
        let media = Media::of(&arrived.headers);
        let succeeds = arrived.status.is_success();
        if succeeds && media == Media::Events {
            let reader = EventReader::new(most);
            let source = Source::Http(Box::new(HttpEvents {
                link,
                body,
                reader,
                room: self.session.reserve(),
                in_all: self.live.config().limits.buffered_max,
            }));
            return self.mcp_events(arrived, source, exchange, waiting).await;
        }
        let (bytes, room) = self
            .read_message((&mut link, &mut body), most, waiting)
            .await?;
        // What was read to its end can serve another call.
        self.put_back(target, link);
        let awaited = succeeds && exchange.expected.id.is_some();
        arrived.answer = if media == Media::Json && !bytes.is_empty() {
            let (bytes, told) = told(bytes, exchange)?;
            Answer::of(bytes, told, room)
        } else if awaited {
            return Err(UpstreamError::Unusable("the server's answer is no JSON"));
        } else {
            // Of what is no message only the status goes on.
            arrived.headers.remove(header::CONTENT_TYPE);
            Answer::nothing(room)
        };
        Ok(())
    }

    /// Of a request's stream the first message is waited for: when it is the answer there is no stream.
    async fn mcp_events(
        &self,
        arrived: &mut Arrived,
        mut source: Source,
        exchange: &mut Exchange<'_>,
        (timer, pause): (&Timer, Duration),
    ) -> Result<(), UpstreamError> {
        let Some(message) = exchange.message.filter(|message| message.id().is_some()) else {
            arrived.answer = Answer::Events(Box::new((None, source)));
            return Ok(());
        };
        let settles = message.method() == "initialize";
        timer.restart(pause);
        loop {
            let event = timer.limit(poll_fn(|cx| source.poll_event(cx))).await?;
            let event = match event {
                None => {
                    return Err(UpstreamError::Unusable(
                        "the server ended without an answer",
                    ));
                }
                Some(event) => event.map_err(UpstreamError::Unusable)?,
            };
            let data = event.data.as_deref().filter(|data| !data.is_empty());
            let Some(data) = data.filter(|data| settles || is_response(data)) else {
                if settles {
                    continue;
                }
                arrived.answer = Answer::Events(Box::new((Some(event), source)));
                return Ok(());
            };
            let told = exchange
                .expected
                .read(data, source.came())
                .map_err(UpstreamError::Unusable)?;
            if told.is_answer {
                let media = HeaderValue::from_static(JSON);
                arrived.headers.insert(header::CONTENT_TYPE, media);
                let bytes = Bytes::copy_from_slice(data.as_bytes());
                let mut room = self.session.reserve();
                if !room.grow(bytes.len(), self.live.config().limits.buffered_max) {
                    return Err(UpstreamError::Unusable(
                        "too much of other calls is held right now",
                    ));
                }
                arrived.answer = Answer::of(bytes, told, room);
                return Ok(());
            }
        }
    }

    /// Reads one message whole, within what is held for all.
    async fn read_message(
        &self,
        (link, body): (&mut Link, &mut Incoming),
        most: usize,
        (timer, pause): (&Timer, Duration),
    ) -> Result<(Bytes, Reserved), UpstreamError> {
        let in_all = self.live.config().limits.buffered_max;
        let mut room = self.session.reserve();
        let told = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let mut whole = BytesMut::with_capacity(told.min(most).saturating_add(A_LITTLE));
        while !body.is_end_stream() {
            timer.restart(pause);
            let frame = timer.limit(poll_fn(|cx| link.poll_frame(body, cx))).await?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(UpstreamError::Exchange)?;
            if let Ok(data) = frame.into_data() {
                if whole.len() + data.len() > most {
                    return Err(UpstreamError::Unusable("the server's message is too long"));
                }
                if !room.grow(data.len(), in_all) {
                    return Err(UpstreamError::Unusable(
                        "too much of other calls is held right now",
                    ));
                }
                whole.extend_from_slice(&data);
            }
        }
        Ok((whole.freeze(), room))
    }

    /// The server's session id, sealed for this agent.
    fn session_header(
        &self,
        arrived: &mut Arrived,
        upstream: &str,
        exchange: &Exchange<'_>,
    ) -> Result<(), &'static str> {
        let headers = &mut arrived.headers;
        let mut values = headers.get_all(SESSION_ID).iter();
        let (Some(id), second) = (values.next(), values.next()) else {
            return Ok(());
        };
        if second.is_some() {
            return Err("the server gives two sessions");
        }
        let settled = match &arrived.answer {
            Answer::Whole(_, told, _) => told.revision,
            Answer::Events(_) => None,
        };
        let revision = settled.or(exchange.conversation.revision);
        let Some(revision) = revision.filter(|revision| revision.has_sessions()) else {
            headers.remove(SESSION_ID);
            return Ok(());
        };
        let holder = self.holder(upstream);
        let id = id
            .to_str()
            .map_err(|_| "the server's session id cannot be read")?;
        let sealed = self.live.sessions().seal(holder, revision, id);
        let sealed = sealed.ok_or("the server's session id cannot be used")?;
        headers.insert(SESSION_ID, sealed);
        Ok(())
    }
}

impl Answer {
    fn nothing(room: Reserved) -> Self {
        Self::Whole(Bytes::new(), ServerMessage::none(), room)
    }

    /// What was read, or what was put in its place.
    fn of(bytes: Bytes, mut told: ServerMessage, room: Reserved) -> Self {
        let bytes = told.text.take().map_or(bytes, Bytes::from);
        Self::Whole(bytes, told, room)
    }
}

/// Reads the one message that an answer is.
fn told(
    bytes: Bytes,
    exchange: &mut Exchange<'_>,
) -> Result<(Bytes, ServerMessage), UpstreamError> {
    let (bytes, told) = exchange
        .expected
        .read_whole(bytes)
        .map_err(UpstreamError::Unusable)?;
    if told.is_answer {
        Ok((bytes, told))
    } else {
        Err(UpstreamError::Unusable("the server does not answer"))
    }
}

/// Whether a message could be an answer: then it is read as one.
fn is_response(data: &str) -> bool {
    Members::of(data).is_some_and(|members| members.raw("method").is_none())
}

/// What an answer says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    Json,
    Events,
    /// Neither, or in letters that are not read here.
    Other,
}

impl Media {
    fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(header::CONTENT_TYPE).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Self::Other;
        };
        let mut parts = value.to_str().unwrap_or_default().split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let in_utf_8 = parts.all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim().trim_matches('"');
            !name.trim().eq_ignore_ascii_case("charset") || value.eq_ignore_ascii_case("utf-8")
        });
        match media {
            _ if !in_utf_8 => Self::Other,
            json if json.eq_ignore_ascii_case(JSON) => Self::Json,
            events if events.eq_ignore_ascii_case(EVENT_STREAM) => Self::Events,
            _ => Self::Other,
        }
    }
}

/// The longest that nothing may happen on a stream that answers no call.
const LISTENING: Duration = Duration::from_secs(86_400);
/// What a message may grow by when it is changed.
const A_LITTLE: usize = 64;
const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";
const SAYS_IT_FAILED: &str = "the server says that it failed";
