//! The bridge: a local MCP server over standard input and output that stands for the enforcer's endpoint.
//!
//! A line in is a message posted; what comes back, a document or a stream, is a line out for each
//! message. Which revision a message is of, it says itself: with a `_meta` that names it, it stands
//! alone; without, it belongs to the session.

mod listening;
mod pipes;
mod session;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use crate::enforcer::{Answer, AskError, Content, Enforcer};
use crate::events::Events;
use crate::fields::{self, Schemas};
use crate::message::{self, Heard, INVALID_REQUEST, Id, Kind, Message, PARSE_ERROR};
use listening::{Listener, Resumption};
use pipes::{Line, Out};
pub(crate) use session::INITIALIZED;
use session::Session;

/// Bridges until the input ends, or `end` does.
pub(crate) async fn run(
    enforcer: Arc<Enforcer>,
    end: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let mut lines = pipes::input(enforcer.limits.message)?;
    let (out, writer) = pipes::output()?;
    let bridge = Arc::new(Bridge::new(enforcer, out));
    let mut tasks = JoinSet::new();
    tokio::pin!(end);
    loop {
        tokio::select! {
            line = lines.next() => match line {
                Some(Line::Text(text)) => tokio::select! {
                    () = bridge.take(text, &mut tasks) => {}
                    () = &mut end => break,
                },
                Some(Line::TooLong) => bridge.too_long().await,
                None => break,
            },
            Some(_) = tasks.join_next() => {}
            () = &mut end => {
                tasks.abort_all();
                break;
            }
        }
    }
    bridge.finish(tasks).await;
    drop(bridge);
    // A client that stopped reading shall not keep us.
    let _unread = tokio::time::timeout(LAST_WRITE, writer).await;
    Ok(())
}

/// What is going on between one client and the enforcer.
#[derive(Debug)]
pub(crate) struct Bridge {
    enforcer: Arc<Enforcer>,
    out: Out,
    session: Session,
    listener: Mutex<Listener>,
    running: Mutex<HashMap<Id, Running>>,
    schemas: Mutex<Schemas>,
    slots: Arc<Semaphore>,
}

/// A request that has no answer yet.
#[derive(Debug)]
struct Running {
    task: AbortHandle,
    /// It stands alone: a cancellation closes its stream. In a session it is told.
    alone: bool,
    /// It has no answer as long as all is well.
    endless: bool,
}

impl Bridge {
    fn new(enforcer: Arc<Enforcer>, out: Out) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(enforcer.limits.concurrent)),
            enforcer,
            out,
            session: Session::default(),
            listener: Mutex::default(),
            running: Mutex::default(),
            schemas: Mutex::default(),
        }
    }

    /// Takes one line of the client's.
    async fn take(self: &Arc<Self>, text: Bytes, tasks: &mut JoinSet<()>) {
        let message = match Message::read(text) {
            Ok(message) => message,
            Err(error) => {
                let code = if error.is_syntax() || error.is_eof() {
                    PARSE_ERROR
                } else {
                    INVALID_REQUEST
                };
                let said = format!("not a JSON-RPC message: {error}");
                return self.out.line(message::error(None, code, &said, None)).await;
            }
        };
        match message.kind() {
            Kind::Request => self.begin(message, tasks).await,
            Kind::Notification if message.is("notifications/cancelled") => {
                if !self.cancel(&message) {
                    let this = Arc::clone(self);
                    tasks.spawn(async move { this.tell(&message).await });
                }
            }
            Kind::Notification if message.is("notifications/initialized") => {
                // What follows must not overtake it.
                self.tell(&message).await;
                self.session.opened();
                self.listen();
            }
            Kind::Notification | Kind::Response => {
                let this = Arc::clone(self);
                tasks.spawn(async move { this.tell(&message).await });
            }
        }
    }

    async fn too_long(&self) {
        let most = self.enforcer.limits.message;
        let said = format!("a message has more than {most} bytes; `--max-message` allows more");
        let error = message::error(None, INVALID_REQUEST, &said, None);
        self.out.line(error).await;
    }

    async fn begin(self: &Arc<Self>, message: Message, tasks: &mut JoinSet<()>) {
        let Some(id) = message.id.clone() else { return };
        if self.running().contains_key(&id) {
            // Under that id the client waits for the other answer, so that this one names none.
            let said =
                "the id is that of a request that has no answer yet; every request needs its own";
            let error = message::error(None, INVALID_REQUEST, said, None);
            return self.out.line(error).await;
        }
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            let said = "too many requests at one time; `--max-concurrent` allows more";
            let code = message::code(StatusCode::TOO_MANY_REQUESTS);
            return self
                .out
                .line(message::error(Some(&id), code, said, None))
                .await;
        };
        let alone = message.version.is_some();
        // Nothing of the session can be sent before it is there.
        let opening = (message.is("initialize") && !alone).then(|| self.session.close_gate());
        let this = Arc::clone(self);
        let key = id.clone();
        let endless = message.is("subscriptions/listen");
        let task = tasks.spawn(async move {
            let _slot = slot;
            this.request(&message, &id).await;
            drop(opening);
            this.running().remove(&id);
        });
        let running = Running {
            task,
            alone,
            endless,
        };
        self.running().insert(key, running);
    }

    /// Closes the stream of a request that stands alone; says whether it was one.
    fn cancel(&self, message: &Message) -> bool {
        let mut running = self.running();
        let Some(id) = &message.cancels else {
            return message.version.is_some();
        };
        match running.get(id) {
            Some(Running {
                task, alone: true, ..
            }) => {
                task.abort();
                running.remove(id);
                true
            }
            Some(Running { alone: false, .. }) => false,
            // Answered already; in a session the enforcer may want to know all the same.
            None => message.version.is_some() || self.session.id().is_none(),
        }
    }

    /// Posts what has no answer.
    async fn tell(&self, message: &Message) {
        if message.version.is_none() && message.kind() == Kind::Notification {
            self.session.pass_gate().await;
        }
        let answer = self.post(message).await;
        let refused = match answer {
            Ok(Answer { status, .. }) if status.is_success() => return,
            Ok(Answer {
                status,
                content: Content::Whole(body),
                ..
            }) => crate::problem::said(status, &body),
            Ok(Answer { status, .. }) => format!("answered {status}"),
            Err(error) => error.to_string(),
        };
        let method = message.method.as_deref().unwrap_or("a response");
        tracing::warn!(method, %refused, "the enforcer did not take a message");
    }

    /// Sees a request through to the line that answers it.
    async fn request(self: &Arc<Self>, message: &Message, id: &Id) {
        match (&message.version, message.is("initialize")) {
            (None, true) => self.session.opening(message),
            (None, false) => self.session.pass_gate().await,
            (Some(_), _) => {}
        }
        let before = self.session.id();
        let mut answer = self.post(message).await;
        let gone = |answer: &Answer| answer.status == StatusCode::NOT_FOUND;
        if message.version.is_none()
            && before.is_some()
            && answer.as_ref().is_ok_and(gone)
            && self.begin_again(before).await
        {
            answer = self.post(message).await;
        }
        let line = match answer {
            Ok(answer) => self.answered(answer, message, id).await,
            Err(error) => Err(error),
        };
        let line = line.unwrap_or_else(|error| failure(id, &error));
        self.out.line(line).await;
    }

    async fn post(&self, message: &Message) -> Result<Answer, AskError> {
        let headers = match &message.version {
            Some(_) => fields::mirrored(message, &self.schemas())
                .map_err(|error| AskError::Field(error.to_string()))?,
            None if message.is("initialize") => fields::posted(),
            None => self.session.fields(),
        };
        self.enforcer
            .ask_with(Method::POST, headers, message.text.clone())
            .await
    }

    /// The line that answers a request; what comes before it is written at once.
    async fn answered(
        self: &Arc<Self>,
        answer: Answer,
        message: &Message,
        id: &Id,
    ) -> Result<Vec<u8>, AskError> {
        let Answer {
            status,
            headers,
            content,
        } = answer;
        let line = match content {
            Content::Whole(body) if !status.is_success() => {
                return Ok(message::refusal(Some(id), status, &body));
            }
            Content::Whole(body) => match message::hear(&body, Some(id)) {
                Heard::Answer => message::one_line(&body),
                _ => {
                    return Err(AskError::BrokeOff(
                        "it is not the answer to this request".into(),
                    ));
                }
            },
            Content::Events(events) => self.stream(*events, message, id).await?,
        };
        self.learn(message, &headers, &line);
        Ok(line)
    }

    /// Passes a stream on up to the answer. One of a session that breaks off is taken up again.
    async fn stream(
        self: &Arc<Self>,
        mut events: Events,
        message: &Message,
        id: &Id,
    ) -> Result<Vec<u8>, AskError> {
        let mut resumption = Resumption::default();
        loop {
            let broken = loop {
                match events.next().await {
                    Ok(Some(event)) => {
                        resumption.note(&event);
                        let Some(data) = event.data.filter(|data| !data.is_empty()) else {
                            continue;
                        };
                        let line = message::one_line(data.as_bytes());
                        if message::hear(&line, Some(id)) == Heard::Answer {
                            events.drain();
                            return Ok(line);
                        }
                        self.out.line(line).await;
                    }
                    Ok(None) => break AskError::BrokeOff("the stream ended before it".into()),
                    Err(error @ AskError::Unverified(_)) => return Err(error),
                    Err(error) => break error,
                }
            };
            drop(events);
            let resumed = match message.version {
                None => resumption.again(self).await,
                Some(_) => None,
            };
            events = resumed.ok_or(broken)?;
        }
    }

    /// Remembers what later messages need.
    fn learn(&self, message: &Message, headers: &HeaderMap, line: &[u8]) {
        match (&message.version, message.method.as_deref()) {
            (None, Some("initialize")) => self.session.begun(headers, line),
            (Some(_), Some("tools/list")) => self.schemas().learn(line),
            _ => {}
        }
    }

    /// Begins the session again with the client's own words, unless somebody else just did; says whether
    /// there is one. Boxed, since the listener that it starts may come back here.
    fn begin_again(
        self: &Arc<Self>,
        before: Option<http::HeaderValue>,
    ) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let this = Arc::clone(self);
        Box::pin(async move { this.begin_again_now(before).await })
    }

    async fn begin_again_now(self: &Arc<Self>, before: Option<http::HeaderValue>) -> bool {
        let _alone = self.session.renewing.lock().await;
        if self.session.id() != before {
            return self.session.id().is_some();
        }
        let Some((opening, opened)) = self.session.beginning() else {
            return false;
        };
        let Some(id) = opening.id.clone() else {
            return false;
        };
        tracing::info!("the session is over at the enforcer; it is begun again");
        let begun = match self.post(&opening).await {
            Ok(answer) => self.answered(answer, &opening, &id).await,
            Err(error) => Err(error),
        };
        if let Err(error) = begun {
            tracing::warn!(%error, "the session could not be begun again");
            return false;
        }
        if opened && let Ok(ready) = Message::read(INITIALIZED) {
            self.tell(&ready).await;
            self.listen();
        }
        self.session.id() != before
    }

    /// Listens for what the server says by itself.
    fn listen(self: &Arc<Self>) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        listener.start(self);
    }

    /// Lets what runs come to its end, for a while, then ends the session.
    async fn finish(&self, mut tasks: JoinSet<()>) {
        for running in self.running().values().filter(|running| running.endless) {
            running.task.abort();
        }
        let rest = async { while tasks.join_next().await.is_some() {} };
        let _late = tokio::time::timeout(GRACE, rest).await;
        tasks.abort_all();
        self.listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stop();
        if self.session.id().is_some() {
            let mut headers = HeaderMap::new();
            self.session.add_to(&mut headers);
            let ended = self
                .enforcer
                .ask_with(Method::DELETE, headers, Bytes::new());
            match tokio::time::timeout(GOODBYE, ended).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the session was not ended"),
                Err(_) => tracing::debug!("the session was not ended in time"),
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Id, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn schemas(&self) -> MutexGuard<'_, Schemas> {
        self.schemas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A failure on the way as the answer to a request.
fn failure(id: &Id, error: &AskError) -> Vec<u8> {
    let (status, kind) = error.told();
    let data = serde_json::json!({ "status": status.as_u16(), "kind": kind });
    let code = message::code(status);
    tracing::warn!(%error, "a request was not answered");
    message::error(Some(id), code, &error.to_string(), Some(&data.to_string()))
}

/// How long running requests may go on after the input ended.
const GRACE: Duration = Duration::from_secs(5);
/// How long ending the session may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long the last lines may take to be read.
const LAST_WRITE: Duration = Duration::from_secs(2);
