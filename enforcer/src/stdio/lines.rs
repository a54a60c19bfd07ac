//! Lines of a process: those of its standard output are bounded, those of its standard error go to
//! the log.

use std::time::{Duration, Instant};

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// A line over the limit.
#[derive(Debug)]
pub(super) struct TooLong;

/// The next line without its end, of at most `longest` bytes; none when there is no other. A failed
/// read is an end.
pub(super) async fn next_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    longest: usize,
) -> Result<Option<Vec<u8>>, TooLong> {
    let mut line = Vec::new();
    loop {
        let Ok(bytes) = reader.fill_buf().await else {
            return Ok(None);
        };
        if bytes.is_empty() {
            // What has no end was cut off.
            return Ok(None);
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        if line.len().saturating_add(taken.len()) > longest {
            return Err(TooLong);
        }
        line.extend_from_slice(taken);
        let used = taken.len().saturating_add(usize::from(end.is_some()));
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

/// Logs what a process says about itself, line by line, until it ends.
pub(super) async fn log_stderr(
    mut reader: impl AsyncBufRead + Unpin,
    upstream: &str,
    pid: u32,
    mut say: impl FnMut(&str),
) {
    let mut allowance = Allowance::new(Instant::now());
    while let Some(line) = shown_line(&mut reader).await {
        match allowance.take(Instant::now()) {
            Some(0) => say(&line),
            Some(held_back) => {
                tracing::warn!(
                    upstream,
                    pid,
                    held_back,
                    "it wrote more lines than are logged"
                );
                say(&line);
            }
            None => {}
        }
    }
}

/// A line as it may stand in a log; what is too long is cut.
async fn shown_line(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let bytes = reader.fill_buf().await.ok()?;
        if bytes.is_empty() {
            return (!line.is_empty()).then(|| shown(&line));
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        let room = LONGEST_SHOWN.saturating_sub(line.len()).min(taken.len());
        line.extend_from_slice(taken.get(..room).unwrap_or_default());
        let used = taken.len().saturating_add(usize::from(end.is_some()));
        reader.consume(used);
        if end.is_some() {
            return Some(shown(&line));
        }
    }
}

/// Control characters could rewrite a terminal, or begin a line of their own.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// So many lines a second.
#[derive(Debug)]
struct Allowance {
    since: Instant,
    used: u32,
    held_back: u64,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            used: 0,
            held_back: 0,
        }
    }

    /// How many lines were held back before this one, which may pass; none when it may not.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.used = 0;
        }
        if self.used >= LINES_A_SECOND {
            self.held_back = self.held_back.saturating_add(1);
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.held_back))
    }
}

const LONGEST_SHOWN: usize = 4096;
const LINES_A_SECOND: u32 = 50;

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_a_cut_one_is_none() {
        let mut reader = BufReader::with_capacity(3, &b"abcdef\n\nxy"[..]);
        assert_eq!(next_line(&mut reader, 6).await.unwrap().unwrap(), b"abcdef");
        assert_eq!(next_line(&mut reader, 6).await.unwrap().unwrap(), b"");
        assert!(next_line(&mut reader, 6).await.unwrap().is_none());
        let mut reader = BufReader::with_capacity(3, &b"abcdef\n"[..]);
        assert!(next_line(&mut reader, 5).await.is_err());
    }

    #[tokio::test]
    async fn what_is_logged_is_cut_escaped_and_not_too_much() {
        let mut text = b"a\x1b[2Jb\r\nnot \xff text\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', 10_000));
        text.push(b'\n');
        text.extend(b"y\n".repeat(100));
        let mut said = Vec::new();
        log_stderr(&text[..], "files", 7, |line| said.push(line.to_owned())).await;
        assert_eq!(said[0], "a\\u{1b}[2Jb");
        assert_eq!(said[1], "not \u{fffd} text");
        assert_eq!(said[2].len(), LONGEST_SHOWN);
        assert!(said.len() < 103, "{}", said.len());
    }

    #[test]
    fn the_allowance_comes_back_and_says_what_was_held_back() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        for _ in 0..LINES_A_SECOND {
            assert_eq!(allowance.take(start), Some(0));
        }
        assert_eq!(allowance.take(start), None);
        assert_eq!(allowance.take(start), None);
        assert_eq!(allowance.take(start + Duration::from_secs(1)), Some(2));
    }
}
