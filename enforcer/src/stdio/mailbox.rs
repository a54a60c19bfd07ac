//! Messages on their way from a process to whoever takes them: bounded, and never waited for by the
//! process, so that one slow client holds up nobody else.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::StdioError;
use crate::shares::Reserved;

/// A bounded queue with one reader at a time.
#[derive(Debug)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    /// Bytes that it holds at most.
    room: usize,
}

#[derive(Debug, Default)]
struct Mail {
    queue: VecDeque<Bytes>,
    bytes: usize,
    end: Option<End>,
    waker: Option<Waker>,
    /// What all that is held for clients together may take; none for what is no client's.
    budget: Option<Room>,
    /// Which reader is the last that asked, and whether it is still there.
    reader: u64,
    is_read: bool,
}

#[derive(Debug)]
enum End {
    /// The last message is in the queue.
    Complete,
    Failed(StdioError),
}

/// What is held for an agent, within what is held for all.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) held: Reserved,
    pub(crate) in_all: usize,
}

impl Mailbox {
    pub(super) fn new(room: usize) -> Self {
        Self {
            mail: Mutex::default(),
            room,
        }
    }

    /// From now on what it holds counts.
    pub(super) fn within(&self, budget: Room) {
        let mut mail = self.lock();
        if mail.budget.is_none() {
            mail.budget = Some(budget);
        }
    }

    /// Adds a message.
    pub(super) fn push(&self, message: Bytes) -> Result<(), StdioError> {
        let mut mail = self.lock();
        if !mail.queue.is_empty() && self.is_over(&mail, message.len()) {
            return Err(StdioError::TooSlow);
        }
        mail.add(message)
    }

    /// Adds a message, the oldest make room; gives how many those were.
    pub(super) fn push_over(&self, message: Bytes) -> u64 {
        let mut mail = self.lock();
        let mut dropped: u64 = 0;
        while self.is_over(&mail, message.len()) {
            let Some(oldest) = mail.queue.pop_front() else {
                break;
            };
            mail.bytes = mail.bytes.saturating_sub(oldest.len());
            dropped = dropped.saturating_add(1);
        }
        let lost = u64::from(mail.add(message).is_err());
        dropped.saturating_add(lost)
    }

    /// Adds the last message, for which there is always room here.
    pub(super) fn complete(&self, message: Bytes) {
        let mut mail = self.lock();
        if mail.end.is_none() {
            mail.end = Some(match mail.add(message) {
                Ok(()) => End::Complete,
                Err(error) => End::Failed(error),
            });
            mail.wake();
        }
    }

    /// Ends it: what it holds is still given out.
    pub(super) fn fail(&self, error: StdioError) {
        let mut mail = self.lock();
        if mail.end.is_none() {
            mail.end = Some(End::Failed(error));
            mail.wake();
        }
    }

    /// The next message of the only reader; none after the end.
    pub(super) async fn next(&self) -> Option<Result<Bytes, StdioError>> {
        poll_fn(|cx| self.lock().poll(cx)).await
    }

    /// Makes the caller the reader; whoever was it before sees the end.
    pub(super) fn enter(&self) -> u64 {
        let mut mail = self.lock();
        mail.reader = mail.reader.wrapping_add(1);
        mail.is_read = true;
        mail.wake();
        mail.reader
    }

    /// The next message, as long as the caller is the reader.
    pub(super) async fn next_as(&self, reader: u64) -> Option<Bytes> {
        poll_fn(|cx| {
            let mut mail = self.lock();
            if mail.reader != reader {
                return Poll::Ready(None);
            }
            mail.poll(cx).map(|next| next.and_then(Result::ok))
        })
        .await
    }

    pub(super) fn leave(&self, reader: u64) {
        let mut mail = self.lock();
        if mail.reader == reader {
            mail.is_read = false;
        }
    }

    pub(super) fn is_read(&self) -> bool {
        self.lock().is_read
    }

    fn is_over(&self, mail: &Mail, more: usize) -> bool {
        mail.queue.len() >= MESSAGES || mail.bytes.saturating_add(more) > self.room
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mail {
    fn add(&mut self, message: Bytes) -> Result<(), StdioError> {
        let bytes = self.bytes.saturating_add(message.len());
        if !self.hold(bytes) {
            return Err(StdioError::NoRoom);
        }
        self.bytes = bytes;
        self.queue.push_back(message);
        self.wake();
        Ok(())
    }

    fn hold(&mut self, bytes: usize) -> bool {
        let budget = self.budget.as_mut();
        budget.is_none_or(|budget| budget.held.hold(bytes, budget.in_all))
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, StdioError>>> {
        if let Some(message) = self.queue.pop_front() {
            self.bytes = self.bytes.saturating_sub(message.len());
            // Less is always there.
            self.hold(self.bytes);
            return Poll::Ready(Some(Ok(message)));
        }
        match self.end.take() {
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(End::Complete) => {
                self.end = Some(End::Complete);
                Poll::Ready(None)
            }
            Some(End::Failed(error)) => {
                self.end = Some(End::Complete);
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

/// Messages that are held at most.
const MESSAGES: usize = 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::shares::Shares;

    #[tokio::test]
    async fn what_is_full_says_so_and_has_room_for_the_answer() {
        let mailbox = Mailbox::new(4);
        mailbox.push(Bytes::from("long one")).unwrap();
        let full = mailbox.push(Bytes::from("b"));
        assert_eq!(full, Err(StdioError::TooSlow));
        mailbox.complete(Bytes::from("answer"));
        mailbox.fail(StdioError::Died);
        assert_eq!(mailbox.next().await.unwrap().unwrap(), "long one");
        assert_eq!(mailbox.next().await.unwrap().unwrap(), "answer");
        assert!(mailbox.next().await.is_none());
        assert!(mailbox.next().await.is_none());
    }

    #[tokio::test]
    async fn what_waits_counts_until_it_is_taken() {
        let shares = Arc::new(Shares::default());
        let agent = shares.enter("a", 1).unwrap();
        let (one, other) = (Mailbox::new(100), Mailbox::new(100));
        for mailbox in [&one, &other] {
            let held = agent.reserve();
            mailbox.within(Room { held, in_all: 20 });
        }
        one.push(Bytes::from("123456")).unwrap();
        let full = other.push(Bytes::from("12345"));
        assert_eq!(full, Err(StdioError::NoRoom), "an agent has half of all");
        assert_eq!(other.push_over(Bytes::from("12345")), 1, "it is dropped");
        assert_eq!(one.next().await.unwrap().unwrap(), "123456");
        other.push(Bytes::from("1234567890")).unwrap();
        one.complete(Bytes::from("1"));
        assert_eq!(one.next().await.unwrap(), Err(StdioError::NoRoom));
        drop(other);
        one.push(Bytes::from("1234567890")).unwrap();
    }

    #[tokio::test]
    async fn a_failure_comes_once_after_what_was_there() {
        let mailbox = Mailbox::new(100);
        mailbox.push(Bytes::from("a")).unwrap();
        mailbox.fail(StdioError::Died);
        assert_eq!(mailbox.next().await.unwrap().unwrap(), "a");
        assert_eq!(mailbox.next().await.unwrap(), Err(StdioError::Died));
        assert!(mailbox.next().await.is_none());
    }

    #[tokio::test]
    async fn the_oldest_make_room_and_a_new_reader_takes_over() {
        let mailbox = Mailbox::new(4);
        let first = mailbox.enter();
        for (text, dropped) in [("aa", 0), ("bb", 0), ("cc", 1)] {
            assert_eq!(mailbox.push_over(Bytes::from(text)), dropped);
        }
        assert_eq!(mailbox.next_as(first).await.unwrap(), "bb");
        let second = mailbox.enter();
        assert!(mailbox.next_as(first).await.is_none());
        mailbox.leave(first);
        assert!(mailbox.is_read());
        assert_eq!(mailbox.next_as(second).await.unwrap(), "cc");
        mailbox.leave(second);
        assert!(!mailbox.is_read());
    }
}
