//! Messages to a server that is a program, and its answers as a stream of messages.
//!
//! The enforcer is the end of Streamable HTTP here: it makes the session's id, and what a GET opens is
//! what the program says by itself.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::events::Messages;
use super::rpc::{Kind, Message};
use super::session::fresh_id;
use crate::road::StillValid;
use crate::status::Watch;
use crate::stdio::{Exchange, Process, ProcessKey, Room, RpcRequest, Stdio, StdioError, Tie};

/// What came of a message.
#[derive(Debug)]
pub(super) enum Sent {
    /// Nothing is to be waited for.
    Taken,
    /// The session is over.
    Ended,
    /// These are to come; for `initialize` with the session that it began.
    Answers(Box<dyn Messages>, Option<Arc<str>>),
}

/// For whom, and in which session.
#[derive(Debug)]
pub(super) struct Speaker<'a> {
    pub(super) agent: &'a str,
    /// None where the revision has no sessions.
    pub(super) session: Option<&'a str>,
    /// Of sixteen random bytes, for a session that begins.
    pub(super) fresh: [u8; 16],
}

/// Why a message did not reach its program.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    /// The session's process has ended.
    #[error("there is no such session any more: begin again with `initialize`")]
    NoSession,
    /// The process.
    #[error(transparent)]
    Process(#[from] StdioError),
}

/// The program that a message goes to, for whom it was reached, and the session that it begins.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) process: Process,
    tie: Tie,
    fresh: Option<Arc<str>>,
}

/// Finds or starts the program that a message goes to. It ends with its agent's rights, whether or not a connection
/// is open then.
pub(super) async fn reach(
    stdio: &Arc<Stdio>,
    speaker: &Speaker<'_>,
    begins: bool,
    watch: &Watch,
) -> Result<Reached, ProgramError> {
    let fresh: Option<Arc<str>> = begins.then(|| Arc::from(fresh_id(&speaker.fresh)));
    let key = key(speaker.agent, fresh.as_deref().or(speaker.session));
    let process = match stdio.running(&key) {
        Some(process) => process,
        None if speaker.session.is_some() && !begins => return Err(ProgramError::NoSession),
        // Tied also when it is given up while it starts.
        None => stdio.process_of(key, Some(watch.again())).await?,
    };
    let tie = process.tie(watch);
    Ok(Reached {
        process,
        tie,
        fresh,
    })
}

/// Hands a message to a program, for whom was found valid right before.
pub(super) async fn send(
    reached: Reached,
    (message, room): (&Message, Room),
    _valid: StillValid<'_>,
) -> Result<Sent, ProgramError> {
    let Reached {
        process,
        tie,
        fresh,
    } = reached;
    let bytes = message.bytes().clone();
    match message.kind() {
        Kind::Request(request) => {
            let (id, token) = (
                request.id.clone(),
                request.params.meta.progress_token.clone(),
            );
            let request = RpcRequest::new(bytes, &request.method, id, token);
            let exchange = process.request_of(&request, Some(&tie), Some(room)).await?;
            Ok(Sent::Answers(Box::new(Answers::of(exchange)), fresh))
        }
        Kind::Notification { .. } => {
            process.notify_of(bytes, Some(&tie)).await?;
            Ok(Sent::Taken)
        }
        Kind::Response => {
            process.respond_of(bytes, Some(&tie)).await?;
            Ok(Sent::Taken)
        }
    }
}

/// What a session's program says by itself.
pub(super) fn listen(process: Process, _valid: StillValid<'_>) -> Box<dyn Messages> {
    Box::new(Said::of(process))
}

/// Ends a session's program.
pub(super) fn end(stdio: &Stdio, speaker: &Speaker<'_>) -> Result<(), ProgramError> {
    let key = key(speaker.agent, speaker.session);
    stdio.running(&key).ok_or(ProgramError::NoSession)?;
    stdio.end(&key);
    Ok(())
}

fn key(agent: &str, session: Option<&str>) -> ProcessKey {
    ProcessKey {
        agent: agent.into(),
        session: session.map(Arc::from),
    }
}

type Next<S> = Pin<Box<dyn Future<Output = (S, Option<Result<Bytes, StdioError>>)>>>;

/// The messages of one exchange. The future that waits for the next one owns what it waits on.
struct Answers(Next<Exchange>);

impl Answers {
    fn of(exchange: Exchange) -> Self {
        Self(Box::pin(async move {
            let mut exchange = exchange;
            let next = exchange.next().await;
            (exchange, next)
        }))
    }
}

impl Messages for Answers {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<String, &'static str>>> {
        let (exchange, next) = ready!(self.0.as_mut().poll(cx));
        *self = Self::of(exchange);
        Poll::Ready(next.map(text))
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}

/// What a program says by itself, while somebody listens.
struct Said(Next<(Process, crate::stdio::Messages)>);

impl Said {
    fn of(process: Process) -> Self {
        let messages = process.messages();
        Self::next((process, messages))
    }

    fn next((process, messages): (Process, crate::stdio::Messages)) -> Self {
        Self(Box::pin(async move {
            let mut messages = messages;
            let next = messages.next().await.map(Ok);
            ((process, messages), next)
        }))
    }
}

impl Messages for Said {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<String, &'static str>>> {
        let (said, next) = ready!(self.0.as_mut().poll(cx));
        *self = Self::next(said);
        Poll::Ready(next.map(text))
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Said")
    }
}

fn text(message: Result<Bytes, StdioError>) -> Result<String, &'static str> {
    let bytes = message.map_err(|error| match error {
        StdioError::Died => "the server's process ended before it answered",
        StdioError::NoRoom => "too much of other calls is held right now",
        StdioError::TooSlow => "the client does not take what the server sends",
        _ => "the server's process was ended",
    })?;
    let text = String::from_utf8(bytes.into()).map_err(|_| "the server's message is not UTF-8")?;
    // Within JSON's strings there is none: elsewhere it would end a line of the stream.
    Ok(text.replace('\r', " "))
}
