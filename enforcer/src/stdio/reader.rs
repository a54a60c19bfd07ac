//! The reading of what programs write, by itself: for whoever holds it against others.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::StdioError;
use super::mailbox::Mailbox;
use super::request::RpcRequest;
use super::routes::{Line, Routes};
use crate::jsonrpc::Message;

/// Brings lines of a program that does not run to those who wait for them.
#[derive(Debug)]
pub struct LineReader {
    routes: Routes,
    waiting: Vec<Arc<Mailbox>>,
    unasked: Arc<Mailbox>,
    /// What is said to the program on the way.
    _sent: mpsc::Receiver<Line>,
}

impl LineReader {
    /// After these requests, the first under number 1.
    ///
    /// # Errors
    /// [`StdioError`]: they are too many.
    pub fn new(has_session: bool, requests: &[RpcRequest]) -> Result<Self, StdioError> {
        let (outbox, sent) = mpsc::channel(1);
        let unasked = Arc::new(Mailbox::new(ROOM));
        let mut routes = Routes::new(has_session, outbox, Arc::clone(&unasked), ROOM);
        let opened = requests.iter().map(|request| {
            let opened = routes.open(request)?;
            routes.begin(opened.number);
            Ok::<_, StdioError>(opened.mailbox)
        });
        Ok(Self {
            waiting: opened.collect::<Result<_, StdioError>>()?,
            routes,
            unasked,
            _sent: sent,
        })
    }

    /// Whether a line is of use.
    pub fn takes(&mut self, line: &[u8]) -> bool {
        let message = Message::read(line);
        message.is_ok_and(|message| self.routes.route(&message).is_ok())
    }

    /// What came since, with the place of the request that it is for.
    pub fn delivered(&mut self) -> Vec<(Option<usize>, Bytes)> {
        let mut all = Vec::new();
        for (place, mailbox) in self.waiting.iter().enumerate() {
            all.extend(taken(mailbox).map(|message| (Some(place), message)));
        }
        all.extend(taken(&self.unasked).map(|message| (None, message)));
        all
    }
}

/// What is in a mailbox now.
fn taken(mailbox: &Mailbox) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(|| {
        let next = pin!(mailbox.next());
        match next.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(message))) => Some(message),
            Poll::Ready(Some(Err(_)) | None) | Poll::Pending => None,
        }
    })
}

const ROOM: usize = 1 << 20;
