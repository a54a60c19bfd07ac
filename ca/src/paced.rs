//! Passes replayed records on to the index without running ahead of it: otherwise a whole log would stand
//! in memory while its index is made again.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::authority::index::Message;
use crate::authority::sequencer::Applied;

/// Passes records on.
#[derive(Debug)]
pub(crate) struct Paced {
    queue: Sender<Message>,
    sent: usize,
    /// The last of the piece before: once the index has let it go, that piece is written.
    mark: Option<Arc<Applied>>,
}

impl Paced {
    /// `durable` records are known to be durable, so that they are written as they come.
    pub(crate) fn new(queue: Sender<Message>, durable: u64) -> Self {
        // The thread ends by itself only after it failed, which it said.
        let _failed = queue.send(Message::Durable(durable));
        Self {
            queue,
            sent: 0,
            mark: None,
        }
    }

    /// Passes one on, when the index is near enough.
    pub(crate) fn send(&mut self, applied: Applied) {
        let applied = Arc::new(applied);
        self.sent += 1;
        if self.sent.is_multiple_of(PIECE)
            && let Some(before) = self.mark.replace(Arc::clone(&applied))
        {
            // A thread that failed has let go of everything.
            while Arc::strong_count(&before) > 1 {
                std::thread::sleep(LOOK);
            }
        }
        let _failed = self.queue.send(Message::Applied(applied));
    }
}

/// Records after which the index is waited for.
const PIECE: usize = 10_000;
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use agentca_identity::time::Timestamp;

    use super::*;

    fn applied(index: usize) -> Applied {
        Applied {
            index: u64::try_from(index).unwrap(),
            leaf: [0; 32],
            time: Timestamp::MIN,
            rows: Vec::new(),
            status: None,
            ended: Vec::new(),
        }
    }

    #[test]
    fn no_more_than_two_pieces_wait() {
        let (queue, inbox) = mpsc::channel();
        let sent = AtomicUsize::new(0);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let mut paced = Paced::new(queue, u64::MAX);
                for index in 0..5 * PIECE {
                    paced.send(applied(index));
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            });
            assert!(matches!(inbox.recv(), Ok(Message::Durable(u64::MAX))));
            let taken = inbox.iter().enumerate().map(|(taken, message)| {
                assert!(sent.load(Ordering::SeqCst) <= taken + 2 * PIECE);
                drop(message);
            });
            assert_eq!(taken.count(), 5 * PIECE);
        });
    }

    #[test]
    fn an_index_that_failed_is_not_waited_for() {
        let (queue, inbox) = mpsc::channel();
        drop(inbox);
        let mut paced = Paced::new(queue, 0);
        (0..3 * PIECE).for_each(|index| paced.send(applied(index)));
    }
}
