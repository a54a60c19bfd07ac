//! One pass over a record: is it canonical JSON as our writer writes it, and what does its head say?
//!
//! Verification runs this over every record, so it allocates nothing and builds no tree.

use agentca_identity::time::Timestamp;

use super::{MAX_NUMBER, VERSION};
use crate::frame::MAX_RECORD;

/// What the head of a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The kind of record.
    pub kind: &'a str,
    /// The log's origin.
    pub log: &'a str,
    /// The record's index.
    pub seq: u64,
    /// The time as it is written.
    pub time_text: &'a str,
    /// Whether there is a member `status`.
    pub has_status: bool,
}

impl Envelope<'_> {
    /// The time.
    ///
    /// # Errors
    /// [`ScanError::Head`] when it is not one.
    pub fn time(&self) -> Result<Timestamp, ScanError> {
        Timestamp::parse_rfc3339(self.time_text).map_err(|_| ScanError::Head("time"))
    }
}

/// Checks the whole form of `record` and reads its head.
///
/// # Errors
/// [`ScanError`] for anything the writer does not write: another order of members, white space,
/// other escapes, fractions, a missing member of the head, more than 65,535 bytes.
pub fn scan(record: &[u8]) -> Result<Envelope<'_>, ScanError> {
    if record.len() > MAX_RECORD {
        return Err(ScanError::TooLong);
    }
    let ascii = record.is_ascii();
    if !ascii && std::str::from_utf8(record).is_err() {
        return Err(ScanError::Utf8);
    }
    let mut scanner = Scanner {
        bytes: record,
        at: 0,
        ascii,
    };
    let head = scanner.record().map_err(|fault| scanner.error(fault))?;
    if scanner.at != record.len() {
        return Err(scanner.error(Fault::Form));
    }
    let version = head.version.ok_or(ScanError::Head("v"))?;
    if version != VERSION {
        return Err(ScanError::Version { found: version });
    }
    Ok(Envelope {
        kind: head.kind.ok_or(ScanError::Head("kind"))?,
        log: head.log.ok_or(ScanError::Head("log"))?,
        seq: head.seq.ok_or(ScanError::Head("seq"))?,
        time_text: head.time.ok_or(ScanError::Head("time"))?,
        has_status: head.has_status,
    })
}

#[derive(Default)]
struct Found<'a> {
    kind: Option<&'a str>,
    log: Option<&'a str>,
    seq: Option<u64>,
    time: Option<&'a str>,
    version: Option<u64>,
    has_status: bool,
}

/// Goes over a record that is known to be UTF-8.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Whether the whole record is ASCII, as nearly every one is.
    ascii: bool,
}

/// What is wrong where the scanner is; it becomes a [`ScanError`] once, outside the loops.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Form,
    Order,
    TooDeep,
    /// A member of the head.
    Head(Member),
}

#[derive(Clone, Copy, Debug)]
enum Member {
    Kind,
    Log,
    Seq,
    Time,
    Version,
}

/// A string between its quotes, and whether it is all of ASCII without escapes.
#[derive(Clone, Copy)]
struct Text<'a> {
    raw: &'a [u8],
    plain: bool,
}

impl<'a> Scanner<'a> {
    fn record(&mut self) -> Result<Found<'a>, Fault> {
        let mut head = Found::default();
        self.expect(b'{')?;
        let mut last: Option<Text<'a>> = None;
        loop {
            let key = self.key(last)?;
            match key.raw {
                b"kind" => head.kind = Some(self.plain_text(Member::Kind)?),
                b"log" => head.log = Some(self.plain_text(Member::Log)?),
                b"time" => head.time = Some(self.plain_text(Member::Time)?),
                b"seq" => head.seq = Some(self.integer(Member::Seq)?),
                b"v" => head.version = Some(self.integer(Member::Version)?),
                other => {
                    head.has_status |= other == b"status";
                    self.value(1)?;
                }
            }
            last = Some(key);
            if !self.more(b'}')? {
                return Ok(head);
            }
        }
    }

    fn value(&mut self, depth: u8) -> Result<(), Fault> {
        match self.next() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => Err(Fault::Form),
        }
    }

    fn object(&mut self, depth: u8) -> Result<(), Fault> {
        if depth >= MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        self.expect(b'{')?;
        if self.next() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut last = None;
        loop {
            last = Some(self.key(last)?);
            self.value(depth + 1)?;
            if !self.more(b'}')? {
                return Ok(());
            }
        }
    }

    fn array(&mut self, depth: u8) -> Result<(), Fault> {
        if depth >= MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        self.expect(b'[')?;
        if self.next() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            if !self.more(b']')? {
                return Ok(());
            }
        }
    }

    fn key(&mut self, last: Option<Text<'a>>) -> Result<Text<'a>, Fault> {
        let key = self.text()?;
        self.expect(b':')?;
        match last {
            Some(last) if !ascends(last, key) => Err(Fault::Order),
            _ => Ok(key),
        }
    }

    fn more(&mut self, close: u8) -> Result<bool, Fault> {
        let next = self.next();
        self.at += 1;
        match next {
            Some(b',') => Ok(true),
            Some(byte) if byte == close => Ok(false),
            _ => Err(Fault::Form),
        }
    }

    fn text(&mut self) -> Result<Text<'a>, Fault> {
        let begin = self.at + 1;
        let escaped = self.string()?;
        let raw = self.bytes.get(begin..self.at - 1).ok_or(Fault::Form)?;
        let plain = !escaped && (self.ascii || raw.is_ascii());
        Ok(Text { raw, plain })
    }

    /// Passes a string; says whether there are escapes in it.
    fn string(&mut self) -> Result<bool, Fault> {
        self.expect(b'"')?;
        let mut escaped = false;
        loop {
            self.at += plain_run(self.bytes.get(self.at..).unwrap_or_default());
            match self.next() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(Fault::Form),
            }
        }
    }

    /// An escape that RFC 8785 writes: no other spelling of the same character.
    fn escape(&mut self) -> Result<(), Fault> {
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        self.at += match rest {
            [b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [
                b'u',
                b'0',
                b'0',
                high @ (b'0' | b'1'),
                low @ (b'0'..=b'9' | b'a'..=b'f'),
                ..,
            ] if !matches!((high, low), (b'0', b'8' | b'9' | b'a' | b'c' | b'd')) => 6,
            _ => return Err(Fault::Form),
        };
        Ok(())
    }

    fn plain_text(&mut self, member: Member) -> Result<&'a str, Fault> {
        if self.next() != Some(b'"') {
            return Err(Fault::Head(member));
        }
        let text = self.text()?;
        match std::str::from_utf8(text.raw) {
            Ok(raw) if text.plain => Ok(raw),
            _ => Err(Fault::Head(member)),
        }
    }

    /// An unsigned integer as the writer writes it: above 2^53 a text.
    fn integer(&mut self, member: Member) -> Result<u64, Fault> {
        if self.next() == Some(b'"') {
            let text = self.plain_text(member)?;
            let value = text.parse().ok().filter(|value: &u64| *value > MAX_NUMBER);
            return value
                .filter(|value| value.to_string() == text)
                .ok_or(Fault::Head(member));
        }
        match self.number()? {
            (false, value) => Ok(value),
            (true, _) => Err(Fault::Head(member)),
        }
    }

    /// A whole number up to 2^53 either way: its sign and size.
    fn number(&mut self) -> Result<(bool, u64), Fault> {
        let negative = self.next() == Some(b'-');
        self.at += usize::from(negative);
        let begin = self.at;
        let mut value = 0u64;
        while let Some(digit @ b'0'..=b'9') = self.next() {
            value = value * 10 + u64::from(digit - b'0');
            self.at += 1;
            if value > MAX_NUMBER {
                return Err(Fault::Form);
            }
        }
        let digits = self.at - begin;
        let leading = self.bytes.get(begin) == Some(&b'0');
        if digits == 0 || leading && (digits > 1 || negative) {
            return Err(Fault::Form);
        }
        Ok((negative, value))
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(Fault::Form)
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.next() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(Fault::Form)
        }
    }

    #[inline]
    fn next(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[cold]
    fn error(&self, fault: Fault) -> ScanError {
        let at = self.at.min(self.bytes.len());
        match fault {
            Fault::Form => ScanError::Form { at },
            Fault::Order => ScanError::Order { at },
            Fault::TooDeep => ScanError::TooDeep,
            Fault::Head(member) => ScanError::Head(match member {
                Member::Kind => "kind",
                Member::Log => "log",
                Member::Seq => "seq",
                Member::Time => "time",
                Member::Version => "v",
            }),
        }
    }
}

/// The bytes before the first quote, backslash or control character.
#[inline]
fn plain_run(bytes: &[u8]) -> usize {
    let mut at = 0;
    // Most strings end in their first words; in long ones what the compiler makes of blocks is faster.
    for _ in 0..4 {
        match stop_in_word(bytes, at) {
            Some(8) => at += 8,
            Some(before) => return at + before,
            None => return at + plain_bytes(bytes.get(at..).unwrap_or_default()),
        }
    }
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk::<32>) {
        if block.iter().fold(false, |any, byte| any | stops(*byte)) {
            break;
        }
        at += block.len();
    }
    at + plain_bytes(bytes.get(at..).unwrap_or_default())
}

/// The bytes of the eight at `at` before the first that stops; 8 when none does, none without eight.
#[inline]
fn stop_in_word(bytes: &[u8], at: usize) -> Option<usize> {
    let chunk = bytes.get(at..)?.first_chunk::<8>()?;
    let word = u64::from_le_bytes(*chunk);
    let stops = below_space(word) | equal(word, b'"') | equal(word, b'\\');
    usize::try_from(stops.trailing_zeros() / 8).ok()
}

fn plain_bytes(bytes: &[u8]) -> usize {
    let first = bytes.iter().position(|byte| stops(*byte));
    first.unwrap_or(bytes.len())
}

#[inline]
fn stops(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// The high bit of each byte that is below 0x20; exact for the lowest such byte.
fn below_space(word: u64) -> u64 {
    word.wrapping_sub(ONES * 0x20) & !word & HIGH
}

/// The high bit of each byte that equals `byte`; exact for the lowest such byte.
fn equal(word: u64, byte: u8) -> u64 {
    let zero = word ^ (ONES * u64::from(byte));
    zero.wrapping_sub(ONES) & !zero & HIGH
}

/// Whether `key` comes after `last` in the order of RFC 8785 section 3.2.3: by UTF-16 code units.
#[inline]
fn ascends(last: Text<'_>, key: Text<'_>) -> bool {
    if !(last.plain && key.plain) {
        return ascends_in_utf16(last.raw, key.raw);
    }
    match (last.raw.first(), key.raw.first()) {
        (Some(before), Some(after)) if before != after => before < after,
        _ => last.raw < key.raw,
    }
}

#[cold]
fn ascends_in_utf16(last: &[u8], key: &[u8]) -> bool {
    let units = |raw: &[u8]| -> Option<Vec<u16>> {
        let raw = std::str::from_utf8(raw).ok()?;
        let text: String = serde_json::from_str(&format!("\"{raw}\"")).ok()?;
        Some(text.encode_utf16().collect())
    };
    matches!((units(last), units(key)), (Some(last), Some(key)) if last < key)
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;
const MAX_DEPTH: u8 = 32;

/// Why bytes are not a record.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScanError {
    /// More than 65,535 bytes.
    #[error("longer than 65535 bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("not UTF-8")]
    Utf8,
    /// Not JSON, or not in canonical form.
    #[error("not canonical JSON at byte {at}")]
    Form {
        /// The offset in the record.
        at: usize,
    },
    /// Members not in canonical order, or one twice.
    #[error("members out of order before byte {at}")]
    Order {
        /// The offset after the key.
        at: usize,
    },
    /// Nested too deep.
    #[error("nested deeper than 32 levels")]
    TooDeep,
    /// A member of the head is missing or of the wrong form.
    #[error("`{0}` is missing or not as it should be")]
    Head(&'static str),
    /// Written by a later version.
    #[error("version {found} is not known: verify with a newer release")]
    Version {
        /// The version it claims.
        found: u64,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_run_ends_where_a_byte_stops_it(
            bytes in prop::collection::vec(any::<u8>(), 0..9),
            plain in 0usize..140,
            after in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let before = std::iter::repeat_n(b'\xe2', plain);
            let bytes: Vec<u8> = before.chain(bytes).chain(after).collect();
            prop_assert_eq!(plain_run(&bytes), plain_bytes(&bytes));
        }
    }
}
