//! Which of a process's messages belong to which request.
//!
//! Every request goes in under a number of the process's own, which is its progress token too, so
//! that callers who share a process never meet; what comes back gets the caller's own again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::StdioError;
use super::mailbox::Mailbox;
use super::request::{Kind, NoMeta, RpcRequest, line, meta, text};
use super::ties::Tie;
use crate::jsonrpc::{self, Members, Message, Shape, meant};

/// Everything that is under way in one process.
#[derive(Debug)]
pub(super) struct Routes {
    /// Processes of no session ask their clients nothing.
    has_session: bool,
    last: u64,
    running: BTreeMap<u64, Running>,
    /// Requests that were given up: their answers may still come.
    given_up: BTreeSet<u64>,
    /// Progress tokens of answered requests: a task goes on with its request's.
    later_tokens: VecDeque<(u64, Bytes)>,
    /// Ids of what the server asked and nobody answered yet.
    asked: BTreeSet<String>,
    /// Why nothing new is taken.
    closed: Option<StdioError>,
    used: Instant,
    outbox: mpsc::Sender<Line>,
    /// What is said once the outbox has room.
    unsent: VecDeque<Bytes>,
    messages: Arc<Mailbox>,
    room: usize,
}

#[derive(Debug)]
struct Running {
    id: Bytes,
    token: Option<Bytes>,
    kind: Kind,
    is_sent: bool,
    mailbox: Arc<Mailbox>,
}

/// A line on its way in.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) bytes: Bytes,
    /// The number of the request that it is: given up meanwhile, it is not written.
    pub(super) request: Option<u64>,
    /// Who sends it: without rights any more, it is not written. None of our own.
    pub(super) tie: Option<Tie>,
}

impl Line {
    pub(super) fn of(bytes: Bytes, tie: Option<&Tie>) -> Self {
        Self {
            bytes,
            request: None,
            tie: tie.cloned(),
        }
    }

    /// Whether its sender has rights.
    pub(super) fn may_go(&self) -> bool {
        self.tie.as_ref().is_none_or(Tie::holds)
    }
}

/// A request on its way in.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) number: u64,
    pub(super) line: Bytes,
    pub(super) mailbox: Arc<Mailbox>,
}

/// Why a message of the process belongs nowhere.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Malformed(#[from] jsonrpc::Fault),
    #[error(transparent)]
    Meta(#[from] NoMeta),
    #[error("it tells of progress and not of whose")]
    NoToken,
    #[error("it answers nothing that was asked")]
    Unasked,
    #[error("it is a request, which this revision has not")]
    Request,
    #[error("too many of its requests wait for an answer")]
    TooManyRequests,
}

impl Routes {
    /// Mailboxes hold `room` bytes each.
    pub(super) fn new(
        has_session: bool,
        outbox: mpsc::Sender<Line>,
        messages: Arc<Mailbox>,
        room: usize,
    ) -> Self {
        Self {
            has_session,
            last: 0,
            running: BTreeMap::new(),
            given_up: BTreeSet::new(),
            later_tokens: VecDeque::new(),
            asked: BTreeSet::new(),
            closed: None,
            used: Instant::now(),
            outbox,
            unsent: VecDeque::new(),
            messages,
            room,
        }
    }

    /// Takes a request in.
    pub(super) fn open(&mut self, request: &RpcRequest) -> Result<Opened, StdioError> {
        self.still_open()?;
        if self.running.len() >= MOST_RUNNING {
            return Err(StdioError::Busy);
        }
        self.last = self.last.saturating_add(1);
        self.used = Instant::now();
        let mailbox = Arc::new(Mailbox::new(self.room));
        let running = Running {
            id: request.id(),
            token: request.token(),
            kind: request.kind,
            is_sent: false,
            mailbox: Arc::clone(&mailbox),
        };
        self.running.insert(self.last, running);
        Ok(Opened {
            number: self.last,
            line: request.under(&self.last.to_string()),
            mailbox,
        })
    }

    /// Whether a request is still wanted; from now on giving it up has to be said.
    pub(super) fn begin(&mut self, number: u64) -> bool {
        let running = self.running.get_mut(&number);
        running.map(|running| running.is_sent = true).is_some()
    }

    /// Ends a request whose answer nobody wants any more, and says so.
    pub(super) fn give_up(&mut self, number: u64) {
        let Some(running) = self.forsake(number) else {
            return;
        };
        if running.is_sent && running.kind != Kind::Initialize {
            self.tell(format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\
                 \"params\":{{\"requestId\":{number}}}}}\n"
            ));
        }
    }

    /// What a client's notification becomes; none when what it is about is over.
    pub(super) fn notification(&mut self, bytes: &Bytes) -> Result<Option<Bytes>, StdioError> {
        self.still_open()?;
        let message = Message::again(text(bytes)).map_err(|_| StdioError::NotAMessage)?;
        let Shape::Notification { method, params } = message.shape() else {
            return Err(StdioError::NotAMessage);
        };
        let params = params.and_then(Members::of).unwrap_or_default();
        // A cancellation without an id is of a revision with tasks.
        let id = params.raw("requestId").filter(|_| method == CANCELLED);
        let Some(id) = id else {
            return Ok(Some(line(message.text().to_owned())));
        };
        let wanted = meant(id);
        let mut running = self.running.iter();
        let found = running.find(|(_, running)| meant(text(&running.id)) == wanted);
        let Some(number) = found.map(|(number, _)| *number) else {
            return Ok(None);
        };
        let forsaken = self.forsake(number);
        let is_sent = forsaken.as_ref().is_none_or(|running| running.is_sent);
        if let Some(running) = forsaken {
            running.mailbox.fail(StdioError::Cancelled);
        }
        Ok(is_sent.then(|| line(message.with([(id, &number.to_string())]))))
    }

    /// What a client's answer becomes, if the server asked.
    pub(super) fn response(&mut self, bytes: &Bytes) -> Result<Bytes, StdioError> {
        self.still_open()?;
        let message = Message::again(text(bytes)).map_err(|_| StdioError::NotAMessage)?;
        let (Shape::Result { id, .. } | Shape::Error { id: Some(id), .. }) = message.shape() else {
            return Err(StdioError::NotAMessage);
        };
        if !self.asked.remove(&meant(id)) {
            return Err(StdioError::NotAsked);
        }
        self.used = Instant::now();
        Ok(line(message.text().to_owned()))
    }

    /// Brings a message of the process to where it belongs; gives how many had to make room.
    pub(super) fn route(&mut self, message: &Message<'_>) -> Result<u64, Fault> {
        match message.shape() {
            Shape::Result { id, result } => self.answer(message, id, Some(result)),
            Shape::Error { id: Some(id), .. } => self.answer(message, id, None),
            Shape::Error { id: None, .. } => Err(Fault::Unasked),
            Shape::Notification { method, params } => {
                let params = params.and_then(Members::of).unwrap_or_default();
                self.told(message, method, &params)
            }
            Shape::Request { .. } if !self.has_session => Err(Fault::Request),
            Shape::Request { id, .. } => {
                if self.asked.len() >= MOST_ASKED {
                    return Err(Fault::TooManyRequests);
                }
                self.asked.insert(meant(id));
                Ok(self.deliver_to_oldest(message))
            }
        }
    }

    fn answer(
        &mut self,
        message: &Message<'_>,
        id: &str,
        result: Option<&str>,
    ) -> Result<u64, Fault> {
        let number = number(id).ok_or(Fault::Unasked)?;
        let Some(running) = self.running.remove(&number) else {
            let was_given_up = self.given_up.remove(&number);
            return was_given_up.then_some(0).ok_or(Fault::Unasked);
        };
        self.used = Instant::now();
        let Running {
            id: outer,
            token,
            kind,
            is_sent: _,
            mailbox,
        } = running;
        let outer = text(&outer);
        let result = result.filter(|_| kind == Kind::Listen);
        let subscription = match result.and_then(Members::of) {
            Some(result) => meta(&result)?.raw(SUBSCRIPTION),
            None => None,
        };
        mailbox.complete(Bytes::from(match subscription {
            Some(subscription) => message.with([(id, outer), (subscription, outer)]),
            None => message.with([(id, outer)]),
        }));
        if let Some(token) = token.filter(|_| self.has_session) {
            if self.later_tokens.len() >= REMEMBERED {
                self.later_tokens.pop_front();
            }
            self.later_tokens.push_back((number, token));
        }
        Ok(0)
    }

    fn told(
        &mut self,
        message: &Message<'_>,
        method: &str,
        params: &Members<'_>,
    ) -> Result<u64, Fault> {
        if let Some(subscription) = meta(params)?.raw(SUBSCRIPTION) {
            return Ok(self.deliver_to_listener(message, subscription));
        }
        match method {
            "notifications/progress" => match params.raw("progressToken") {
                Some(token) => Ok(self.progress(message, token)),
                None => Err(Fault::NoToken),
            },
            CANCELLED => Ok(self.cancelled(message, params.raw("requestId"))),
            _ if is_news(method) && self.messages.is_read() => {
                Ok(self.messages.push_over(whole(message)))
            }
            _ => Ok(self.deliver_to_oldest(message)),
        }
    }

    fn deliver_to_listener(&mut self, message: &Message<'_>, subscription: &str) -> u64 {
        let listens = |running: &&Running| running.kind == Kind::Listen;
        let Some(number) = number(subscription) else {
            return 1;
        };
        let Some(running) = self.running.get(&number).filter(listens) else {
            return 1;
        };
        let message = message.with([(subscription, text(&running.id))]);
        self.push(number, Bytes::from(message))
    }

    /// A token that nobody gave, or of a request that was given up, is nobody's.
    fn progress(&mut self, message: &Message<'_>, token: &str) -> u64 {
        let Some(number) = number(token) else {
            return 1;
        };
        if let Some(running) = self.running.get(&number) {
            let Some(outer) = &running.token else {
                return 1;
            };
            let message = message.with([(token, text(outer))]);
            return self.push(number, Bytes::from(message));
        }
        let mut later = self.later_tokens.iter();
        match later.find(|(known, _)| *known == number) {
            Some((_, outer)) => {
                let message = message.with([(token, text(outer))]);
                self.messages.push_over(Bytes::from(message))
            }
            None => 1,
        }
    }

    /// A server ends a subscription like this, or takes back what it asked.
    fn cancelled(&mut self, message: &Message<'_>, id: Option<&str>) -> u64 {
        let listens = id.and_then(number).filter(|number| {
            let running = self.running.get(number);
            running.is_some_and(|running| running.kind == Kind::Listen)
        });
        if let Some(running) = listens.and_then(|number| self.running.remove(&number)) {
            self.used = Instant::now();
            running.mailbox.complete(end_of_subscription(&running.id));
            return 0;
        }
        if let Some(id) = id {
            self.asked.remove(&meant(id));
        }
        self.deliver_to_oldest(message)
    }

    /// To the oldest running request, else to whoever reads the session's messages.
    fn deliver_to_oldest(&mut self, message: &Message<'_>) -> u64 {
        let mut running = self.running.iter();
        let oldest = running.find(|(_, running)| running.kind != Kind::Listen);
        match oldest.map(|(number, _)| *number) {
            Some(number) => self.push(number, whole(message)),
            None if self.has_session => self.messages.push_over(whole(message)),
            None => 1,
        }
    }

    /// A client that takes nothing loses its request, never a message in the middle of it.
    fn push(&mut self, number: u64, message: Bytes) -> u64 {
        let Some(running) = self.running.get(&number) else {
            return 1;
        };
        match running.mailbox.push(message) {
            Ok(()) => 0,
            Err(error) => {
                running.mailbox.fail(error);
                self.give_up(number);
                1
            }
        }
    }

    /// Ends everything that runs; nothing new is taken.
    pub(super) fn close(&mut self, why: StdioError) {
        let why = self.closed.get_or_insert(why).clone();
        for (_, running) in std::mem::take(&mut self.running) {
            running.mailbox.fail(why.clone());
        }
        self.messages.fail(why);
    }

    /// Takes nothing new, but lets what runs have its answers.
    pub(super) fn refuse_more(&mut self, why: StdioError) {
        self.closed.get_or_insert(why);
    }

    pub(super) fn still_open(&self) -> Result<(), StdioError> {
        self.closed.clone().map_or(Ok(()), Err)
    }

    /// Marks it as used now, so that it is not ended as idle.
    pub(super) fn touch(&mut self) {
        self.used = Instant::now();
    }

    /// Since when nothing runs and nobody listens.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.running.is_empty() && !self.messages.is_read();
        is_idle.then_some(self.used)
    }

    pub(super) fn next_unsent(&mut self) -> Option<Bytes> {
        self.unsent.pop_front()
    }

    fn forsake(&mut self, number: u64) -> Option<Running> {
        let running = self.running.remove(&number)?;
        self.used = Instant::now();
        if running.is_sent {
            if self.given_up.len() >= REMEMBERED {
                self.given_up.pop_first();
            }
            self.given_up.insert(number);
        }
        Some(running)
    }

    fn tell(&mut self, line: String) {
        let full = self.outbox.try_send(Line::of(Bytes::from(line), None));
        if let Err(mpsc::error::TrySendError::Full(line)) = full
            && self.unsent.len() < MOST_RUNNING
        {
            self.unsent.push_back(line.bytes);
        }
    }
}

/// What is about no request, but about what may be requested.
fn is_news(method: &str) -> bool {
    method.ends_with("/list_changed") || method == "notifications/resources/updated"
}

/// One of our own numbers.
fn number(raw: &str) -> Option<u64> {
    raw.parse().ok()
}

/// A message as it came.
fn whole(message: &Message<'_>) -> Bytes {
    Bytes::copy_from_slice(message.text().as_bytes())
}

/// What a server should have answered that only cancelled.
fn end_of_subscription(id: &Bytes) -> Bytes {
    let id = text(id);
    Bytes::from(format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"complete\",\
         \"_meta\":{{\"io.modelcontextprotocol/subscriptionId\":{id}}}}}}}"
    ))
}

const CANCELLED: &str = "notifications/cancelled";
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
const MOST_RUNNING: usize = 1024;
const MOST_ASKED: usize = 256;
const REMEMBERED: usize = 1024;

#[cfg(test)]
mod tests;
