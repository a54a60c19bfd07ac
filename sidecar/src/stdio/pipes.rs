//! Standard input and output, each on a thread of its own: neither can be waited for otherwise, and a
//! client that does not read must not keep the rest from going on.

use std::io::{self, BufRead, Read as _, Write as _};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::mpsc;

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line without its end; never empty.
    Text(Bytes),
    /// A line over the limit; it was passed over.
    TooLong,
}

/// Where lines go out; dropped, what was sent is still written.
#[derive(Clone, Debug)]
pub(super) struct Out(mpsc::Sender<Vec<u8>>);

impl Out {
    /// Writes one line. Nobody to read it any more is no error: the input ends then, too.
    pub(super) async fn line(&self, text: Vec<u8>) {
        let _gone = self.0.send(text).await;
    }
}

/// Reads lines of at most `longest` bytes until the end of input.
pub(super) fn input(longest: usize) -> io::Result<mpsc::Receiver<Line>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let mut input = io::stdin().lock();
            while let Ok(Some(line)) = read_line(&mut input, longest) {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        })?;
    Ok(receiver)
}

/// Writes lines until every [`Out`] is gone; then the thread ends.
pub(super) fn output() -> io::Result<(Out, JoinHandle<()>)> {
    let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(QUEUE);
    let writer = std::thread::Builder::new()
        .name("stdout".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            while let Some(mut line) = receiver.blocking_recv() {
                line.push(b'\n');
                let mut out = io::stdout().lock();
                if out.write_all(&line).and_then(|()| out.flush()).is_err() {
                    return;
                }
            }
        })?;
    Ok((Out(sender), writer))
}

/// The next line that holds something.
fn read_line(input: &mut impl BufRead, longest: usize) -> io::Result<Option<Line>> {
    loop {
        let mut line = Vec::new();
        let most = u64::try_from(longest).unwrap_or(u64::MAX).saturating_add(1);
        if input.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let whole = line.last() == Some(&b'\n');
        if !whole && line.len() > longest {
            skip_line(input)?;
            return Ok(Some(Line::TooLong));
        }
        let text = line.trim_ascii();
        if !text.is_empty() {
            return Ok(Some(Line::Text(Bytes::copy_from_slice(text))));
        }
    }
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let piece = input.fill_buf()?;
        let end = piece.iter().position(|byte| *byte == b'\n');
        let (length, done) = match end {
            Some(at) => (at + 1, true),
            None => (piece.len(), piece.is_empty()),
        };
        input.consume(length);
        if done {
            return Ok(());
        }
    }
}

/// Lines that may wait.
const QUEUE: usize = 16;
const STACK: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whole_and_long_ones_passed_over() {
        let mut input = io::Cursor::new(&b"one\r\n\n  \ntoo long a line\nfour\nend"[..]);
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input, 5).unwrap() {
            lines.push(line);
        }
        let text = |text: &'static str| Line::Text(Bytes::from(text));
        assert_eq!(
            lines,
            [text("one"), Line::TooLong, text("four"), text("end")]
        );
    }
}
