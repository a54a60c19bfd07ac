//! The one reading of a request's path (RFC 3986 §3.3).
//!
//! Everything two servers might read differently is refused. What is left has exactly one written
//! form, which is what routes are matched on and what is forwarded.

use std::fmt;

/// The longest path with its query, in bytes.
pub const MAX_PATH: usize = 8 * 1024;

/// The most segments of a path.
pub const MAX_SEGMENTS: usize = 64;

/// A path in its only form, its query kept apart.
///
/// Unreserved characters stand for themselves, everything else that was percent-encoded stays so in
/// upper-case hex; parsing what [`as_str`](Self::as_str) gives leads to the same value.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NormalPath {
    text: String,
    path_length: usize,
}

/// Why a path was refused. The request is malformed (400).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathRefusal {
    /// Not in origin form.
    #[error("the path must begin with a slash")]
    NotAbsolute,
    /// Longer than [`MAX_PATH`].
    #[error("the path is longer than {MAX_PATH} bytes")]
    TooLong,
    /// More than [`MAX_SEGMENTS`].
    #[error("the path has more than {MAX_SEGMENTS} segments")]
    TooManySegments,
    /// `//`, or a slash at the end.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` or `..`.
    #[error("the path has a dot segment")]
    DotSegment,
    /// `;`, encoded or not: servers disagree on path parameters.
    #[error("the path contains a semicolon")]
    Semicolon,
    /// A character outside RFC 3986's `pchar`.
    #[error("the path contains a character that must be percent-encoded")]
    Character,
    /// `%` without two hex digits.
    #[error("the path has an incomplete percent-encoding")]
    Encoding,
    /// An encoded `/`, `\`, `.`, `%` or control character.
    #[error("the path has a percent-encoded slash, backslash, dot, percent or control character")]
    EncodedDelimiter,
    /// Encoded bytes that are no UTF-8.
    #[error("the path's percent-encoded bytes are not UTF-8")]
    NotUtf8,
    /// A control or non-ASCII character, or `#`, in the query.
    #[error("the query contains a character that must be percent-encoded")]
    Query,
}

impl NormalPath {
    /// Reads a path, with `?query` when there is one.
    ///
    /// # Errors
    /// [`PathRefusal`] for anything that could be read in two ways.
    pub fn parse(text: &str) -> Result<Self, PathRefusal> {
        if text.len() > MAX_PATH {
            return Err(PathRefusal::TooLong);
        }
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (text, None),
        };
        let rest = path.strip_prefix('/').ok_or(PathRefusal::NotAbsolute)?;
        let mut out = String::with_capacity(text.len());
        if rest.is_empty() {
            out.push('/');
        } else {
            for (index, segment) in rest.split('/').enumerate() {
                if index == MAX_SEGMENTS {
                    return Err(PathRefusal::TooManySegments);
                }
                out.push('/');
                normalise_segment(segment, &mut out)?;
            }
        }
        let path_length = out.len();
        if let Some(query) = query {
            check_query(query)?;
            out.push('?');
            out.push_str(query);
        }
        Ok(Self {
            text: out,
            path_length,
        })
    }

    /// Path and query as they are forwarded.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path alone.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(..self.path_length).unwrap_or_default()
    }

    /// The query without its `?`, byte for byte as received.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_length..)?.strip_prefix('?')
    }

    /// The segments in their written form; none for `/`.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        let path = self.path().strip_prefix('/').unwrap_or_default();
        path.split('/').filter(|segment| !segment.is_empty())
    }
}

impl fmt::Debug for NormalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NormalPath").field(&self.text).finish()
    }
}

/// Appends the only written form of one segment.
pub(crate) fn normalise_segment(segment: &str, out: &mut String) -> Result<(), PathRefusal> {
    match segment {
        "" => return Err(PathRefusal::EmptySegment),
        "." | ".." => return Err(PathRefusal::DotSegment),
        _ => {}
    }
    if segment.bytes().all(is_plain) {
        out.push_str(segment);
        return Ok(());
    }
    let mut rest = segment.as_bytes();
    let mut encoded = Vec::new();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let (value, tail) = decode(tail)?;
            encoded.push(value);
            rest = tail;
            continue;
        }
        flush(&mut encoded, out)?;
        match byte {
            b';' => return Err(PathRefusal::Semicolon),
            byte if is_plain(byte) => out.push(char::from(byte)),
            _ => return Err(PathRefusal::Character),
        }
        rest = tail;
    }
    flush(&mut encoded, out)
}

/// The byte of one percent-encoding whose `%` was taken.
fn decode(tail: &[u8]) -> Result<(u8, &[u8]), PathRefusal> {
    let (&[high, low], tail) = tail.split_first_chunk().ok_or(PathRefusal::Encoding)?;
    let nibble = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
            .ok_or(PathRefusal::Encoding)
    };
    Ok((nibble(high)? << 4 | nibble(low)?, tail))
}

/// Appends a run of encoded bytes, once they are known to be harmless text.
fn flush(encoded: &mut Vec<u8>, out: &mut String) -> Result<(), PathRefusal> {
    if encoded.is_empty() {
        return Ok(());
    }
    let text = std::str::from_utf8(encoded).map_err(|_| PathRefusal::NotUtf8)?;
    for character in text.chars() {
        match character {
            '/' | '\\' | '.' | '%' => return Err(PathRefusal::EncodedDelimiter),
            ';' => return Err(PathRefusal::Semicolon),
            character if character.is_control() => return Err(PathRefusal::EncodedDelimiter),
            character if is_unreserved(character) => out.push(character),
            character => {
                let mut buffer = [0; 4];
                for byte in character.encode_utf8(&mut buffer).bytes() {
                    out.push('%');
                    out.push(hex_digit(byte >> 4));
                    out.push(hex_digit(byte & 0x0f));
                }
            }
        }
    }
    encoded.clear();
    Ok(())
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16)
        .unwrap_or('0')
        .to_ascii_uppercase()
}

/// RFC 3986 `unreserved`.
fn is_unreserved(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_' | '~')
}

/// RFC 3986 `pchar` without percent-encodings and without `;`.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b'='
                | b':'
                | b'@'
        )
}

/// A query decides nothing and is forwarded as it came, so it only has to be one line of visible
/// ASCII that nobody cuts short.
fn check_query(query: &str) -> Result<(), PathRefusal> {
    if query
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        Ok(())
    } else {
        Err(PathRefusal::Query)
    }
}

#[cfg(test)]
mod tests;
