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
    let text = std::str::from_utf8(record).map_err(|_| ScanError::Utf8)?;
    let mut scanner = Scanner {
        text,
        bytes: record,
        at: 0,
    };
    let mut head = Found::default();
    scanner.record(&mut head)?;
    if scanner.at != record.len() {
        return Err(scanner.error());
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

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

/// A string between its quotes, and whether it is all of plain ASCII.
#[derive(Clone, Copy)]
struct Text<'a> {
    raw: &'a str,
    plain: bool,
}

impl<'a> Scanner<'a> {
    fn record(&mut self, head: &mut Found<'a>) -> Result<(), ScanError> {
        self.expect(b'{')?;
        let mut last: Option<Text<'a>> = None;
        loop {
            let key = self.key(last)?;
            match key.raw {
                "kind" => head.kind = Some(self.plain_text("kind")?),
                "log" => head.log = Some(self.plain_text("log")?),
                "time" => head.time = Some(self.plain_text("time")?),
                "seq" => head.seq = Some(self.integer("seq")?),
                "v" => head.version = Some(self.integer("v")?),
                other => {
                    head.has_status |= other == "status";
                    self.value(1)?;
                }
            }
            last = Some(key);
            if !self.more(b'}')? {
                return Ok(());
            }
        }
    }

    fn value(&mut self, depth: u8) -> Result<(), ScanError> {
        match self.bytes.get(self.at) {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => Err(self.error()),
        }
    }

    fn object(&mut self, depth: u8) -> Result<(), ScanError> {
        if depth >= MAX_DEPTH {
            return Err(ScanError::TooDeep);
        }
        self.expect(b'{')?;
        if self.bytes.get(self.at) == Some(&b'}') {
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

    fn array(&mut self, depth: u8) -> Result<(), ScanError> {
        if depth >= MAX_DEPTH {
            return Err(ScanError::TooDeep);
        }
        self.expect(b'[')?;
        if self.bytes.get(self.at) == Some(&b']') {
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

    fn key(&mut self, last: Option<Text<'a>>) -> Result<Text<'a>, ScanError> {
        let key = self.string()?;
        self.expect(b':')?;
        match last {
            Some(last) if !ascends(last, key) => Err(ScanError::Order { at: self.at }),
            _ => Ok(key),
        }
    }

    fn more(&mut self, close: u8) -> Result<bool, ScanError> {
        let next = self.bytes.get(self.at).copied();
        self.at += 1;
        match next {
            Some(b',') => Ok(true),
            Some(byte) if byte == close => Ok(false),
            _ => Err(self.error()),
        }
    }

    fn string(&mut self) -> Result<Text<'a>, ScanError> {
        self.expect(b'"')?;
        let begin = self.at;
        let mut plain = true;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let (skipped, ascii) = plain_run(rest);
            self.at += skipped;
            plain &= ascii;
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let raw = self.text.get(begin..self.at).ok_or_else(|| self.error())?;
                    self.at += 1;
                    return Ok(Text { raw, plain });
                }
                Some(b'\\') => {
                    plain = false;
                    self.escape()?;
                }
                _ => return Err(self.error()),
            }
        }
    }

    /// An escape that RFC 8785 writes: no other spelling of the same character.
    fn escape(&mut self) -> Result<(), ScanError> {
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
            _ => return Err(self.error()),
        };
        Ok(())
    }

    fn plain_text(&mut self, member: &'static str) -> Result<&'a str, ScanError> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(ScanError::Head(member));
        }
        let text = self.string()?;
        if text.plain {
            Ok(text.raw)
        } else {
            Err(ScanError::Head(member))
        }
    }

    /// An unsigned integer as the writer writes it: above 2^53 a text.
    fn integer(&mut self, member: &'static str) -> Result<u64, ScanError> {
        if self.bytes.get(self.at) == Some(&b'"') {
            let text = self.plain_text(member)?;
            let value = text.parse().ok().filter(|value: &u64| *value > MAX_NUMBER);
            return value
                .filter(|value| value.to_string() == text)
                .ok_or(ScanError::Head(member));
        }
        match self.number()? {
            (false, value) => Ok(value),
            (true, _) => Err(ScanError::Head(member)),
        }
    }

    /// A whole number up to 2^53 either way: its sign and size.
    fn number(&mut self) -> Result<(bool, u64), ScanError> {
        let negative = self.bytes.get(self.at) == Some(&b'-');
        self.at += usize::from(negative);
        let begin = self.at;
        let mut value = 0u64;
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(self.at) {
            value = value * 10 + u64::from(digit - b'0');
            self.at += 1;
            if value > MAX_NUMBER {
                return Err(self.error());
            }
        }
        let digits = self.at - begin;
        let leading = self.bytes.get(begin) == Some(&b'0');
        if digits == 0 || leading && (digits > 1 || negative) {
            return Err(self.error());
        }
        Ok((negative, value))
    }

    fn word(&mut self, word: &str) -> Result<(), ScanError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.error())
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), ScanError> {
        if self.bytes.get(self.at) == Some(&byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.error())
        }
    }

    fn error(&self) -> ScanError {
        ScanError::Form {
            at: self.at.min(self.bytes.len()),
        }
    }
}

/// The bytes before the first quote, backslash or control character, and whether they are ASCII.
fn plain_run(bytes: &[u8]) -> (usize, bool) {
    let mut run = 0;
    let mut high = 0;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let Some(chunk) = chunk.first_chunk::<8>() else {
            break;
        };
        let word = u64::from_le_bytes(*chunk);
        let stops = below_space(word) | equal(word, b'"') | equal(word, b'\\');
        if stops != 0 {
            let at = stops.trailing_zeros() / 8;
            let before = word & !(u64::MAX << (8 * at));
            return (
                run + usize::try_from(at).unwrap_or(0),
                (high | before) & HIGH == 0,
            );
        }
        high |= word;
        run += 8;
    }
    for byte in chunks.remainder() {
        if *byte < 0x20 || *byte == b'"' || *byte == b'\\' {
            break;
        }
        high |= u64::from(*byte);
        run += 1;
    }
    (run, high & HIGH == 0)
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
fn ascends(last: Text<'_>, key: Text<'_>) -> bool {
    if last.plain && key.plain {
        return last.raw < key.raw;
    }
    let units = |text: Text<'_>| -> Option<Vec<u16>> {
        let text: String = serde_json::from_str(&format!("\"{}\"", text.raw)).ok()?;
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
