//! Server-sent events (WHATWG HTML, section 9.2): a strict reader for streams that are signed message
//! by message, and the writer of their canonical form.
//!
//! The reader takes what a server may send and gives it event by event; whatever lines an event was
//! written with, [`Event::write`] has one form for it.

use std::fmt::Write as _;

/// One event, or one run of comments between two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `id`: what a client resumes after.
    pub id: Option<String>,
    /// `event`: its type, `message` when absent.
    pub name: Option<String>,
    /// `retry`, in milliseconds.
    pub retry: Option<u64>,
    /// The lines of `data`, joined with line feeds; absent when there was none.
    pub data: Option<String>,
    /// The last comment line before the event's end that begins with `agent-receipt`.
    pub receipt: Option<String>,
}

impl Event {
    /// Whether it is nothing but comments.
    #[must_use]
    pub fn is_comment(&self) -> bool {
        let Self {
            id,
            name,
            retry,
            data,
            receipt: _,
        } = self;
        id.is_none() && name.is_none() && retry.is_none() && data.is_none()
    }

    /// Appends the event as it is sent: the receipt's comment first, a line for each line of data,
    /// an empty line at the end. Names and ids hold no line ends: the reader gives none.
    pub fn write(&self, out: &mut String) {
        if let Some(receipt) = &self.receipt {
            let _never = writeln!(out, ": {receipt}");
        }
        if let Some(id) = &self.id {
            let _never = writeln!(out, "id: {id}");
        }
        if let Some(name) = &self.name {
            let _never = writeln!(out, "event: {name}");
        }
        if let Some(retry) = self.retry {
            let _never = writeln!(out, "retry: {retry}");
        }
        if let Some(data) = &self.data {
            for line in data.split('\n') {
                let _never = writeln!(out, "data: {line}");
            }
        }
        if self.is_comment() && self.receipt.is_none() {
            out.push_str(":\n");
        }
        out.push('\n');
    }
}

/// Splits a stream of bytes into events.
#[derive(Debug)]
pub struct EventReader {
    buffer: Vec<u8>,
    /// Bytes of the buffer that belong to lines already taken.
    taken: usize,
    /// Bytes of the buffer known to hold no line end.
    scanned: usize,
    /// The last line ended in a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    begun: bool,
    event: Event,
    has_lines: bool,
    /// Bytes of the event that is being read.
    length: usize,
    longest: usize,
}

/// A stream that is no stream of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// An event, or a line, over the reader's limit.
    #[error("an event is too long")]
    TooLong,
    /// Not UTF-8.
    #[error("an event is not UTF-8")]
    NotText,
    /// It ended within an event.
    #[error("the stream ended within an event")]
    Truncated,
}

impl EventReader {
    /// A reader of events of at most `longest` bytes each.
    #[must_use]
    pub fn new(longest: usize) -> Self {
        Self {
            buffer: Vec::new(),
            taken: 0,
            scanned: 0,
            after_return: false,
            begun: false,
            event: Event::default(),
            has_lines: false,
            length: 0,
            longest,
        }
    }

    /// Takes what came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.scanned -= self.taken;
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// How much is held of what came, in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.buffer.capacity() + self.length
    }

    /// The next event that came whole.
    ///
    /// # Errors
    /// [`EventError`]: the stream is of no use any more.
    pub fn next_event(&mut self) -> Result<Option<Event>, EventError> {
        while let Some(line) = self.line()? {
            if line.is_empty() {
                self.length = 0;
                if std::mem::take(&mut self.has_lines) {
                    return Ok(Some(std::mem::take(&mut self.event)));
                }
                continue;
            }
            self.has_lines = true;
            self.field(&line);
        }
        Ok(None)
    }

    /// Says that the stream has ended.
    ///
    /// # Errors
    /// [`EventError::Truncated`] within an event: it never counts (section 9.2.6).
    pub fn finish(&self) -> Result<(), EventError> {
        if self.has_lines || self.taken < self.buffer.len() {
            return Err(EventError::Truncated);
        }
        Ok(())
    }

    /// The next whole line, without its end.
    fn line(&mut self) -> Result<Option<String>, EventError> {
        if self.after_return {
            match self.buffer.get(self.taken) {
                None => return Ok(None),
                Some(b'\n') => {
                    self.taken += 1;
                    self.scanned = self.scanned.max(self.taken);
                }
                Some(_) => {}
            }
            self.after_return = false;
        }
        let from = self.scanned.max(self.taken);
        let fresh = self.buffer.get(from..).unwrap_or_default();
        let Some(length) = fresh.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            self.scanned = self.buffer.len();
            let pending = self.buffer.len() - self.taken;
            if self.length + pending > self.longest {
                return Err(EventError::TooLong);
            }
            return Ok(None);
        };
        let end = from + length;
        let line = self.buffer.get(self.taken..end).unwrap_or_default();
        self.length += line.len() + 1;
        if self.length > self.longest {
            return Err(EventError::TooLong);
        }
        let mut line = std::str::from_utf8(line).map_err(|_| EventError::NotText)?;
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        let line = line.to_owned();
        self.after_return = self.buffer.get(end) == Some(&b'\r');
        self.taken = end + 1;
        self.scanned = self.taken;
        Ok(Some(line))
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "" if value.starts_with("agent-receipt") => {
                self.event.receipt = Some(value.to_owned());
            }
            "data" => match &mut self.event.data {
                None => self.event.data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            "event" => self.event.name = Some(value.to_owned()),
            // Section 9.2.6: an id with NULL, a retry that is no number and unknown fields are ignored.
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.event.retry = value.parse().ok();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Vec<Event>, EventError> {
        let mut reader = EventReader::new(1000);
        let mut events = Vec::new();
        for piece in pieces {
            reader.push(piece);
            while let Some(event) = reader.next_event()? {
                events.push(event);
            }
        }
        reader.finish()?;
        Ok(events)
    }

    fn data(text: &str) -> Event {
        Event {
            data: Some(text.to_owned()),
            ..Event::default()
        }
    }

    #[test]
    fn events_are_read_whatever_their_line_ends() {
        let stream = b"\xef\xbb\xbfdata: one\r\ndata:two\r\r\n: hello\n\nid: 7\nevent: message\ndata\n\nretry: 10\nnonsense\nid: a\0b\n\n";
        let events = read(&[stream]).unwrap();
        let primed = Event {
            id: Some("7".to_owned()),
            name: Some("message".to_owned()),
            ..data("")
        };
        let retry = Event {
            retry: Some(10),
            ..Event::default()
        };
        assert_eq!(events, [data("one\ntwo"), Event::default(), primed, retry]);
    }

    #[test]
    fn receipts_are_kept_and_other_comments_are_not() {
        let events = read(&[b": agent-receipt seq=0\n: x\ndata: a\n\n"]).unwrap();
        let receipt = Some("agent-receipt seq=0".to_owned());
        assert_eq!(
            events,
            [Event {
                receipt,
                ..data("a")
            }]
        );
    }

    #[test]
    fn what_is_too_long_truncated_or_no_text_is_refused() {
        assert_eq!(read(&[&[b'x'; 1001]]), Err(EventError::TooLong));
        let lines = b"data: 123456789\n".repeat(80);
        assert_eq!(read(&[&lines]), Err(EventError::TooLong));
        assert_eq!(read(&[b"data: \xff\n\n"]), Err(EventError::NotText));
        assert_eq!(read(&[b"data: a\n"]), Err(EventError::Truncated));
        assert_eq!(read(&[b"data: a"]), Err(EventError::Truncated));
        let many = b"data: a\n\n".repeat(500);
        assert_eq!(read(&[&many]).unwrap().len(), 500);
    }

    proptest! {
        #[test]
        fn how_it_is_cut_makes_no_difference(
            stream in "(data|id|event|retry|:|[\r\n: a-c0-9]){0,60}",
            cut in 0_usize..60,
        ) {
            let bytes = stream.as_bytes();
            let (left, right) = bytes.split_at(cut.min(bytes.len()));
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            let whole = read(&[bytes]);
            prop_assert_eq!(&whole, &read(&[left, right]));
            prop_assert_eq!(&whole, &read(&single));
        }

        #[test]
        fn what_is_written_is_read_again(
            id in proptest::option::of("[a-z]{0,5}"),
            name in proptest::option::of("[a-z]{1,5}"),
            retry in proptest::option::of(0_u64..99),
            data in proptest::option::of("[a-z\n: ]{0,20}"),
            receipt in proptest::option::of("agent-receipt [a-z]{0,9}"),
        ) {
            let event = Event { id, name, retry, data, receipt };
            let mut text = String::new();
            event.write(&mut text);
            prop_assert_eq!(read(&[text.as_bytes()]).unwrap(), [event]);
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&[&bytes]);
        }
    }
}
