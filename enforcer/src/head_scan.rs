//! A look at HTTP/1 heads before the library reads them: message framing that two readers could
//! read differently is refused, not repaired (RFC 9112 §6.1, §6.3, RFC 9110 §7.2).
//!
//! The library drops a second equal `Content-Length`, and one beside `Transfer-Encoding`, without
//! a trace. This scanner follows the bytes of a connection from head to head and remembers only
//! what the service has to know about the present one.

/// What the framing of a head looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One reading only.
    Plain,
    /// Refuse: why.
    Ambiguous(&'static str),
}

/// Follows the heads of one connection.
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    at: At,
    line: Line,
    head: Head,
    /// Complete heads that were not taken yet and have one reading only.
    plain: u32,
    /// The first head with more than one; nothing behind it matters.
    fault: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Head,
    /// This many bytes of a body are left.
    Body(u64),
    /// A chunked body: where it ends only the library knows. The connection takes no further
    /// request (see [`HeadScan::closes`]).
    Chunked,
}

/// The beginning of the line being read, as far as it decides anything.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: [u8; KEPT],
    length: usize,
    /// Ends with CR so far.
    cr: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    lines: u32,
    lengths: u32,
    codings: u32,
    hosts: u32,
    length: u64,
    fault: Option<&'static str>,
}

/// The longest beginning of a line that is looked at: a field name, its colon, a number.
const KEPT: usize = 48;

impl HeadScan {
    /// Bytes as they came from the client.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.at {
                At::Chunked => return,
                At::Body(left) => self.skip(left, bytes),
                At::Head => self.read_line(bytes),
            };
        }
    }

    /// The shape of the head that the library just handed over.
    pub(crate) fn take(&mut self) -> Shape {
        if self.plain > 0 {
            self.plain -= 1;
            return Shape::Plain;
        }
        Shape::Ambiguous(self.fault.unwrap_or("the head could not be followed"))
    }

    /// The request just read was chunked: what follows it is not followed, so the connection must
    /// close after its answer.
    pub(crate) fn closes(&self) -> bool {
        self.at == At::Chunked
    }

    /// A head has begun and is not complete, or is complete and not taken.
    pub(crate) fn is_in_head(&self) -> bool {
        self.plain > 0 || self.fault.is_some() || self.head.lines > 0 || self.line.length > 0
    }

    fn skip<'a>(&mut self, left: u64, bytes: &'a [u8]) -> &'a [u8] {
        let available = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if available < left {
            self.at = At::Body(left - available);
            return &[];
        }
        self.at = At::Head;
        usize::try_from(left)
            .ok()
            .and_then(|left| bytes.get(left..))
            .unwrap_or_default()
    }

    fn read_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.push(bytes);
            return &[];
        };
        let (line, rest) = bytes.split_at(end);
        self.push(line);
        let line = std::mem::take(&mut self.line);
        self.end_line(&line);
        rest.get(1..).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        // The library forgets what follows it in a request line (RFC 9112 section 3.2).
        if self.head.lines == 0 && bytes.contains(&b'#') {
            self.head.fault.get_or_insert("the target has a fragment");
        }
        self.line.push(bytes);
    }

    fn end_line(&mut self, line: &Line) {
        if !line.cr {
            self.head.fault.get_or_insert("a line ends without CR");
        }
        let empty = line.length == usize::from(line.cr);
        match (empty, self.head.lines) {
            // Empty lines before a request are no head (RFC 9112 §2.2).
            (true, 0) => self.head = Head::default(),
            (true, _) => self.end_head(),
            (false, 0) => self.head.lines = 1,
            (false, _) => {
                self.head.lines = self.head.lines.saturating_add(1);
                self.head.field(line);
            }
        }
    }

    fn end_head(&mut self) {
        let head = std::mem::take(&mut self.head);
        match head.shape() {
            _ if self.fault.is_some() => {}
            Shape::Plain => self.plain = self.plain.saturating_add(1),
            Shape::Ambiguous(fault) => self.fault = Some(fault),
        }
        self.at = if head.codings > 0 {
            At::Chunked
        } else if head.length > 0 {
            At::Body(head.length)
        } else {
            At::Head
        };
    }
}

impl Default for Line {
    fn default() -> Self {
        Self {
            start: [0; KEPT],
            length: 0,
            cr: false,
        }
    }
}

impl Line {
    fn push(&mut self, bytes: &[u8]) {
        for (place, byte) in self.start.iter_mut().skip(self.length).zip(bytes) {
            *place = *byte;
        }
        self.length = self.length.saturating_add(bytes.len());
        if let Some(last) = bytes.last() {
            self.cr = *last == b'\r';
        }
    }

    /// The kept bytes, without CR.
    fn kept(&self) -> &[u8] {
        let kept = self.start.get(..self.length.min(KEPT)).unwrap_or_default();
        if self.length <= KEPT {
            kept.strip_suffix(b"\r").unwrap_or(kept)
        } else {
            kept
        }
    }
}

impl Head {
    fn field(&mut self, line: &Line) {
        let kept = line.kept();
        if kept
            .first()
            .is_some_and(|byte| matches!(byte, b' ' | b'\t'))
        {
            self.fault.get_or_insert("a field is folded over lines");
            return;
        }
        let Some(colon) = kept.iter().position(|byte| *byte == b':') else {
            return;
        };
        let (name, rest) = kept.split_at(colon);
        let value = rest.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths = self.lengths.saturating_add(1);
            match decimal(value).filter(|_| line.length <= KEPT) {
                Some(length) => self.length = length,
                None => {
                    self.fault.get_or_insert("Content-Length is not a number");
                }
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.codings = self.codings.saturating_add(1);
            // What comes behind the kept bytes would not be seen.
            if line.length > KEPT || !value.eq_ignore_ascii_case(b"chunked") {
                self.fault
                    .get_or_insert("Transfer-Encoding is not chunked alone");
            }
        } else if name.eq_ignore_ascii_case(b"host") {
            self.hosts = self.hosts.saturating_add(1);
        }
    }

    fn shape(&self) -> Shape {
        let fault = match self {
            Self {
                fault: Some(fault), ..
            } => fault,
            Self { lengths: 2.., .. } => "Content-Length is repeated",
            Self { codings: 2.., .. } => "Transfer-Encoding is repeated",
            Self {
                lengths: 1..,
                codings: 1..,
                ..
            } => "Content-Length and Transfer-Encoding together",
            Self { hosts: 2.., .. } => "Host is repeated",
            _ => return Shape::Plain,
        };
        Shape::Ambiguous(fault)
    }
}

/// A number of digits alone that fits.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(*byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(head: &str) -> Shape {
        let mut whole = HeadScan::default();
        whole.feed(head.as_bytes());
        let mut piecewise = HeadScan::default();
        for byte in head.as_bytes() {
            piecewise.feed(std::slice::from_ref(byte));
        }
        let shape = whole.take();
        assert_eq!(piecewise.take(), shape, "pieces are read like the whole");
        shape
    }

    #[track_caller]
    fn refused(fields: &str) {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        assert!(matches!(shape(&head), Shape::Ambiguous(_)), "{fields:?}");
    }

    #[test]
    fn ordinary_heads_are_plain() {
        assert_eq!(
            shape("GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n"),
            Shape::Plain
        );
        assert_eq!(shape("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Shape::Plain);
        let long = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n",
            "x".repeat(5000)
        );
        assert_eq!(shape(&long), Shape::Plain);
        assert_eq!(
            shape("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Shape::Plain
        );
    }

    #[test]
    fn framing_with_two_readings_is_refused() {
        refused("Content-Length: 3\r\nContent-Length: 3");
        refused("Content-Length: 3\r\nTransfer-Encoding: chunked");
        refused("Transfer-Encoding: chunked\r\nContent-length: 3");
        refused("Transfer-Encoding: gzip, chunked");
        let far = " ".repeat(40);
        refused(&format!("Transfer-Encoding: chunked{far}, gzip, chunked"));
        refused(&format!("Content-Length: 3{far}, 3"));
        refused("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked");
        refused("Content-Length: +3");
        refused("Content-Length: 3, 3");
        refused("Content-Length: 0x3");
        refused("Content-Length: 99999999999999999999");
        refused("Content-Length:");
        refused("Host: b");
        refused("X: a\r\n folded");
        assert!(matches!(
            shape("GET / HTTP/1.1\nHost: a\n\n"),
            Shape::Ambiguous(_)
        ));
    }

    #[test]
    fn fragments_are_refused_and_only_in_targets() {
        assert_eq!(
            shape("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
            Shape::Ambiguous("the target has a fragment")
        );
        assert_eq!(
            shape("GET /a HTTP/1.1\r\nHost: a\r\nX: #\r\n\r\n"),
            Shape::Plain
        );
    }

    #[test]
    fn bodies_are_not_read_as_heads() {
        let mut scan = HeadScan::default();
        let body = "Host: x\r\nHost: y\r\n\r\n";
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        scan.feed(format!("{head}{body}").as_bytes());
        assert_eq!(scan.take(), Shape::Plain);
        scan.feed(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
        assert_eq!(scan.take(), Shape::Ambiguous("Host is repeated"));
    }

    #[test]
    fn pipelined_heads_keep_their_order() {
        let mut scan = HeadScan::default();
        let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let bad = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        scan.feed(format!("{good}{good}{bad}{good}").as_bytes());
        assert_eq!([scan.take(), scan.take()], [Shape::Plain; 2]);
        assert_eq!(scan.take(), Shape::Ambiguous("Host is repeated"));
    }

    #[test]
    fn nothing_is_followed_after_chunks() {
        let mut scan = HeadScan::default();
        assert!(!scan.closes());
        scan.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        assert!(scan.closes());
    }
}
