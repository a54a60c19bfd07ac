//! Standard input and output, without threads of their own where the system can tell when they are ready:
//! pipes and sockets, which is what clients give. A terminal or a file is waited for elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line without its end; never empty.
    Text(Bytes),
    /// A line over the limit; it is passed over.
    TooLong,
}

/// Lines as they come.
pub(super) struct Input {
    source: Box<dyn AsyncRead + Send + Unpin>,
    longest: usize,
    read: BytesMut,
    /// So many bytes of it hold no line's end.
    searched: usize,
    /// What comes is the rest of a line that was too long.
    skips: bool,
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

/// Standard input, in lines of at most `longest` bytes.
pub(super) fn input(longest: usize) -> io::Result<Input> {
    let file = duplicate(io::stdin().as_fd())?;
    let kind = file.metadata()?.file_type();
    let source: Box<dyn AsyncRead + Send + Unpin> = if kind.is_fifo() {
        Box::new(pipe::Receiver::from_file(file)?)
    } else if kind.is_socket() {
        Box::new(socket(file)?)
    } else {
        Box::new(tokio::fs::File::from_std(file))
    };
    Ok(Input::new(source, longest))
}

/// Writes lines to standard output until every [`Out`] is gone; then the task ends. A client that does
/// not read keeps nothing else from going on.
pub(super) fn output() -> io::Result<(Out, JoinHandle<()>)> {
    let mut target = target()?;
    let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(QUEUE);
    let writer = tokio::spawn(async move {
        while let Some(mut line) = receiver.recv().await {
            line.push(b'\n');
            let written = target.write_all(&line).await;
            if written.is_err() || target.flush().await.is_err() {
                return;
            }
        }
    });
    Ok((Out(sender), writer))
}

fn target() -> io::Result<Box<dyn AsyncWrite + Send + Unpin>> {
    let file = duplicate(io::stdout().as_fd())?;
    let kind = file.metadata()?.file_type();
    if kind.is_socket() {
        return Ok(Box::new(socket(file)?));
    }
    // Opened anew: others may write to this end of the pipe, and expect to wait.
    if kind.is_fifo()
        && let Ok(pipe) = pipe::OpenOptions::new().open_sender(OWN_OUTPUT)
    {
        return Ok(Box::new(pipe));
    }
    Ok(Box::new(tokio::fs::File::from_std(file)))
}

fn duplicate(descriptor: BorrowedFd<'_>) -> io::Result<File> {
    Ok(File::from(descriptor.try_clone_to_owned()?))
}

fn socket(file: File) -> io::Result<UnixStream> {
    let stream = net::UnixStream::from(OwnedFd::from(file));
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

impl Input {
    fn new(source: Box<dyn AsyncRead + Send + Unpin>, longest: usize) -> Self {
        Self {
            source,
            longest,
            read: BytesMut::new(),
            searched: 0,
            skips: false,
        }
    }

    /// The next line that holds something; none at the end. Nothing is lost when it is not waited for.
    pub(super) async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.held() {
                return Some(line);
            }
            self.read.reserve(READ);
            match self.source.read_buf(&mut self.read).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return self.rest(),
            }
        }
    }

    /// The next line of what was read.
    fn held(&mut self) -> Option<Line> {
        loop {
            let fresh = self.read.get(self.searched..).unwrap_or_default();
            let Some(at) = fresh.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.read.len();
                return self.pass_over();
            };
            let line = self.read.split_to(self.searched + at).freeze();
            self.read.advance(1);
            self.searched = 0;
            if std::mem::take(&mut self.skips) {
                continue;
            }
            if line.len() > self.longest {
                return Some(Line::TooLong);
            }
            if let Some(text) = trimmed(&line) {
                return Some(Line::Text(text));
            }
        }
    }

    /// Drops what is held of a line that is too long, and says so once.
    fn pass_over(&mut self) -> Option<Line> {
        if !self.skips && self.read.len() <= self.longest {
            return None;
        }
        self.read.clear();
        self.searched = 0;
        (!std::mem::replace(&mut self.skips, true)).then_some(Line::TooLong)
    }

    /// The last line, when nothing ends it.
    fn rest(&mut self) -> Option<Line> {
        self.searched = 0;
        trimmed(&self.read.split().freeze()).map(Line::Text)
    }
}

fn trimmed(line: &Bytes) -> Option<Bytes> {
    let text = line.trim_ascii();
    (!text.is_empty()).then(|| line.slice_ref(text))
}

/// Lines that may wait.
const QUEUE: usize = 16;
/// What is read at once.
const READ: usize = 8 << 10;
const OWN_OUTPUT: &str = "/proc/self/fd/1";

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &'static [u8]) -> Vec<Line> {
        let mut input = Input::new(Box::new(text), 5);
        let mut lines = Vec::new();
        while let Some(line) = input.next().await {
            lines.push(line);
        }
        lines
    }

    fn text(text: &'static str) -> Line {
        Line::Text(Bytes::from(text))
    }

    #[tokio::test]
    async fn lines_are_read_whole_and_long_ones_passed_over() {
        assert_eq!(
            lines(b"one\r\n\n  \ntoo long a line\nfour\nend").await,
            [text("one"), Line::TooLong, text("four"), text("end")]
        );
        assert_eq!(
            lines(b"12345\n123456").await,
            [text("12345"), Line::TooLong]
        );
    }

    #[tokio::test]
    async fn lines_come_in_any_pieces() {
        let (mut client, source) = tokio::io::duplex(64);
        let mut input = Input::new(Box::new(source), 5);
        for (piece, line) in [
            ("a", None),
            ("b\nc", Some(text("ab"))),
            ("\n", Some(text("c"))),
            ("123456", Some(Line::TooLong)),
            ("7", None),
            ("8\nx\n", Some(text("x"))),
        ] {
            client.write_all(piece.as_bytes()).await.unwrap();
            match line {
                Some(line) => assert_eq!(input.next().await, Some(line), "after {piece:?}"),
                None => tokio::select! {
                    biased;
                    line = input.next() => panic!("{line:?} after {piece:?}"),
                    () = std::future::ready(()) => {}
                },
            }
        }
        drop(client);
        assert_eq!(input.next().await, None);
    }
}
