//! Writing canonical JSON (RFC 8785) straight into a buffer. Members are given in order.

use std::fmt::{Display, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Head, MAX_NUMBER, VERSION};

/// A record being written: an [`Object`] into which the members of the head are woven.
#[derive(Debug)]
pub struct Record<'a> {
    object: Object<'a>,
    head: &'a Head<'a>,
    kind: &'a str,
    /// How many members of the head are written.
    woven: usize,
}

impl<'a> Record<'a> {
    /// Begins a record of `kind` at the end of `out`. Nothing is complete before [`Record::finish`].
    pub fn begin(out: &'a mut Vec<u8>, head: &'a Head<'a>, kind: &'a str) -> Self {
        Self {
            object: Object::begin(out),
            head,
            kind,
            woven: 0,
        }
    }

    /// The object, for a member named `key` next. Keys come in ascending order, and are none of
    /// the head's.
    pub fn at(&mut self, key: &'static str) -> &mut Object<'a> {
        self.weave(Some(key));
        &mut self.object
    }

    /// Adds a text member.
    pub fn text(&mut self, key: &'static str, value: &str) {
        self.at(key).text(key, value);
    }

    /// Adds a number member.
    pub fn number(&mut self, key: &'static str, value: u64) {
        self.at(key).number(key, value);
    }

    /// Adds a text member if there is a value.
    pub fn text_if(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// Adds a number member if there is a value.
    pub fn number_if(&mut self, key: &'static str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(key, value);
        }
    }

    /// Adds bytes as base64.
    pub fn base64(&mut self, key: &'static str, value: &[u8]) {
        self.at(key).base64(key, value);
    }

    /// Adds an object.
    pub fn object(&mut self, key: &'static str, write: impl FnOnce(&mut Object<'_>)) {
        self.at(key).object(key, write);
    }

    /// Completes the record.
    pub fn finish(mut self) {
        self.weave(None);
        self.object.end();
    }

    /// Writes the head's members that come before `next`.
    fn weave(&mut self, next: Option<&str>) {
        while let Some(&key) = HEAD_KEYS.get(self.woven) {
            debug_assert!(next != Some(key), "{key} belongs to the head");
            if next.is_some_and(|next| next < key) {
                return;
            }
            self.woven += 1;
            match key {
                "kind" => self.object.text(key, self.kind),
                "log" => self.object.text(key, self.head.log),
                "seq" => self.object.number(key, self.head.seq),
                "time" => self.object.plain(key, &self.head.text.0),
                _ => self.object.number(key, VERSION),
            }
        }
    }
}

/// A JSON object being written. Keys are given in ascending order.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    last: &'static str,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, last: "" }
    }

    fn end(&mut self) {
        self.out.push(b'}');
    }

    fn key(&mut self, key: &'static str) {
        debug_assert!(
            self.last < key,
            "`{key}` after `{}` is out of order",
            self.last
        );
        self.out
            .extend_from_slice(if self.last.is_empty() { b"\"" } else { b",\"" });
        self.last = key;
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// Adds a text member.
    pub fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        text(self.out, value);
    }

    /// Adds a text member if there is a value.
    pub fn text_if(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// Adds a text member that is written as it displays.
    pub fn display(&mut self, key: &'static str, value: &impl Display) {
        self.key(key);
        display(self.out, value);
    }

    /// Adds a member whose text needs no escapes.
    fn plain(&mut self, key: &'static str, value: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(value);
        self.out.push(b'"');
    }

    /// Adds a number member; above 2^53 a text of its digits.
    pub fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        number(self.out, value);
    }

    /// Adds a number member if there is a value.
    pub fn number_if(&mut self, key: &'static str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(key, value);
        }
    }

    /// Adds `true` or `false`.
    pub fn boolean(&mut self, key: &'static str, value: bool) {
        self.key(key);
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Adds bytes as standard base64 with padding.
    pub fn base64(&mut self, key: &'static str, value: &[u8]) {
        self.key(key);
        base64(self.out, value);
    }

    /// Adds bytes as base64 if there is a value.
    pub fn base64_if(&mut self, key: &'static str, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.base64(key, value);
        }
    }

    /// Adds bytes as lower-case hex.
    pub fn hex(&mut self, key: &'static str, value: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        for byte in value {
            for digit in [byte >> 4, byte & 15] {
                self.out.push(if digit < 10 {
                    b'0' + digit
                } else {
                    b'a' - 10 + digit
                });
            }
        }
        self.out.push(b'"');
    }

    /// Adds an object.
    pub fn object(&mut self, key: &'static str, write: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        object(self.out, write);
    }

    /// Adds an array of texts, each as it displays.
    pub fn texts<T: Display>(&mut self, key: &'static str, values: impl IntoIterator<Item = T>) {
        self.array(key, values, |out, value| display(out, &value));
    }

    /// Adds an array of texts.
    pub fn strs<'b>(&mut self, key: &'static str, values: impl IntoIterator<Item = &'b str>) {
        self.array(key, values, text);
    }

    /// Adds an object of text members whose keys are not known beforehand, in order of their UTF-16.
    pub fn members(&mut self, key: &'static str, members: &[(&str, &str)]) {
        self.key(key);
        let mut before = b'{';
        for (name, value) in members {
            self.out.push(before);
            text(self.out, name);
            self.out.push(b':');
            text(self.out, value);
            before = b',';
        }
        if members.is_empty() {
            self.out.push(b'{');
        }
        self.out.push(b'}');
    }

    /// Adds an array of base64 texts.
    pub fn base64s<T: AsRef<[u8]>>(
        &mut self,
        key: &'static str,
        values: impl IntoIterator<Item = T>,
    ) {
        self.array(key, values, |out, value| base64(out, value.as_ref()));
    }

    /// Adds an array of objects.
    pub fn objects<T>(
        &mut self,
        key: &'static str,
        values: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Object<'_>, T),
    ) {
        self.array(key, values, |out, value| {
            object(out, |inner| write(inner, value))
        });
    }

    /// Adds an array of arrays of base64 texts.
    pub fn base64_lists<T: AsRef<[u8]>>(
        &mut self,
        key: &'static str,
        values: impl IntoIterator<Item: IntoIterator<Item = T>>,
    ) {
        self.array(key, values, |out, inner| {
            array(out, inner, |out, value| base64(out, value.as_ref()));
        });
    }

    fn array<T>(
        &mut self,
        key: &'static str,
        values: impl IntoIterator<Item = T>,
        write: impl FnMut(&mut Vec<u8>, T),
    ) {
        self.key(key);
        array(self.out, values, write);
    }
}

fn object(out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    let mut object = Object::begin(out);
    write(&mut object);
    object.end();
}

fn array<T>(
    out: &mut Vec<u8>,
    values: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (at, value) in values.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, value);
    }
    out.push(b']');
}

fn number(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; 20];
    let mut begin = digits.len();
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        begin -= 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let quote: &[u8] = if value > MAX_NUMBER { b"\"" } else { b"" };
    out.extend_from_slice(quote);
    out.extend_from_slice(digits.get(begin..).unwrap_or_default());
    out.extend_from_slice(quote);
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    escape(out, value);
    out.push(b'"');
}

fn display(out: &mut Vec<u8>, value: &impl Display) {
    struct Escaping<'a>(&'a mut Vec<u8>);
    impl std::fmt::Write for Escaping<'_> {
        fn write_str(&mut self, part: &str) -> std::fmt::Result {
            escape(self.0, part);
            Ok(())
        }
    }
    out.push(b'"');
    let written = write!(Escaping(out), "{value}");
    debug_assert!(written.is_ok(), "writing to a buffer does not fail");
    out.push(b'"');
}

fn base64(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    let begin = out.len();
    out.resize(begin + value.len().div_ceil(3) * 4, 0);
    if let Some(place) = out.get_mut(begin..) {
        let written = STANDARD.encode_slice(value, place);
        debug_assert!(written.is_ok(), "the place was measured");
    }
    out.push(b'"');
}

/// RFC 8785 section 3.2.2.2: the short escapes, `\u00xx` for other control characters, and all else
/// as it is.
fn escape(out: &mut Vec<u8>, value: &str) {
    let mut rest = value.as_bytes();
    while let Some(at) = rest
        .iter()
        .position(|b| *b < 0x20 || *b == b'"' || *b == b'\\')
    {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else {
            return;
        };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            control => {
                let low = control & 15;
                let digit = if low < 10 {
                    b'0' + low
                } else {
                    b'a' - 10 + low
                };
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (control >> 4), digit]);
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
}

const HEAD_KEYS: [&str; 5] = ["kind", "log", "seq", "time", "v"];
