//! What a message is: exactly one of a request, a notification, a result and an error.

use std::ops::Range;

use agentca_policy::json::{self, JsonError, JsonLimits};

use super::edit::Edits;
use super::members::{Members, place, text};

/// One message; its parts stand in its text as they are here.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    text: &'a str,
    shape: Shape<'a>,
}

/// Which of the four it is.
#[derive(Debug)]
pub(crate) enum Shape<'a> {
    /// Wants an answer.
    Request {
        id: &'a str,
        method: String,
        params: Option<&'a str>,
    },
    /// Wants none.
    Notification {
        method: String,
        params: Option<&'a str>,
    },
    /// What was asked for.
    Result { id: &'a str, result: &'a str },
    /// Why it is not; it may leave out whose it is (2025-11-25, 2026-07-28).
    Error { id: Option<&'a str>, error: &'a str },
}

/// What is known of a text before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// Nothing.
    Unread,
    /// It has one reading: it was checked to find out whose it is, as a program's lines are.
    Checked,
}

/// Why a text is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("it was refused: {0}")]
    Json(#[from] JsonError),
    #[error("it must be one JSON-RPC message: an object, no batch")]
    NoObject,
    #[error("`{0}` is no member of a JSON-RPC message")]
    Member(String),
    #[error("`jsonrpc` must be \"2.0\"")]
    Version,
    #[error("`id` must be a string or an integer of at most 2^53")]
    Id,
    #[error("`method` must be the name of a method")]
    Method,
    #[error("`params` must be an object")]
    Params,
    #[error("a message is a request or a response")]
    Both,
    #[error("a message has `method`, or `id` and one of `result` and `error`")]
    Neither,
    #[error(
        "`result` is an object, and `error` one with a whole number as `code` and a text as `message`"
    )]
    Outcome,
}

impl<'a> Message<'a> {
    /// Reads a text.
    ///
    /// # Errors
    /// [`Fault`] unless it is one JSON object that has one reading, with the members of its kind and no others.
    pub(crate) fn read(text: &'a [u8]) -> Result<Self, Fault> {
        Self::again(check(text)?)
    }

    /// Finds the parts of a text that was checked before, or was made of one by [`Edits`].
    ///
    /// # Errors
    /// [`Fault`] unless it is a message.
    pub(crate) fn again(text: &'a str) -> Result<Self, Fault> {
        let members = Members::of(text).ok_or(Fault::NoObject)?;
        let shape = shape(&members)?;
        Ok(Self { text, shape })
    }

    /// Reads a text as far as it was not read before.
    ///
    /// # Errors
    /// [`Fault`], as [`Message::read`].
    pub(crate) fn came(text: &'a str, came: Came) -> Result<Self, Fault> {
        match came {
            Came::Unread => Self::read(text.as_bytes()),
            Came::Checked => Self::again(text),
        }
    }

    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    pub(crate) fn shape(&self) -> &Shape<'a> {
        &self.shape
    }

    /// Where a part of it stands.
    pub(crate) fn place(&self, part: &str) -> Range<usize> {
        place(self.text, part).unwrap_or_default()
    }

    /// Its text with `with` in place of its parts.
    pub(crate) fn with<const N: usize>(&self, parts: [(&str, &str); N]) -> String {
        let mut edits = Edits::of(self.text);
        for (part, with) in parts {
            edits.replace(self.place(part), with);
        }
        edits.done()
    }
}

/// Checks that a text is JSON that has one reading, of a size that is worth it.
///
/// # Errors
/// [`Fault::Json`].
pub(crate) fn check(text: &[u8]) -> Result<&str, Fault> {
    Ok(json::check(text, LIMITS)?)
}

fn shape<'a>(members: &Members<'a>) -> Result<Shape<'a>, Fault> {
    if let Some(unknown) = members.names().find(|name| !ENVELOPE.contains(name)) {
        return Err(Fault::Member(unknown.chars().take(64).collect()));
    }
    if members.text("jsonrpc").as_deref() != Some("2.0") {
        return Err(Fault::Version);
    }
    let Some(method) = members.raw("method") else {
        return outcome(members);
    };
    let id = members.raw("id");
    if !id.is_none_or(is_id) {
        return Err(Fault::Id);
    }
    if members.raw("result").is_some() || members.raw("error").is_some() {
        return Err(Fault::Both);
    }
    let method = text(method).ok_or(Fault::Method)?;
    let params = members.raw("params");
    if !params.is_none_or(is_object) {
        return Err(Fault::Params);
    }
    Ok(match id {
        Some(id) => Shape::Request { id, method, params },
        None => Shape::Notification { method, params },
    })
}

fn outcome<'a>(members: &Members<'a>) -> Result<Shape<'a>, Fault> {
    let id = members.raw("id");
    let (result, error) = (members.raw("result"), members.raw("error"));
    // Who could not read what it answers says `null` (JSON-RPC 2.0, section 5).
    let id = id.filter(|id| error.is_none() || *id != "null");
    if !id.is_none_or(is_id) {
        return Err(Fault::Id);
    }
    match (id, result, error, members.raw("params")) {
        (Some(id), Some(result), None, None) if is_object(result) => {
            Ok(Shape::Result { id, result })
        }
        (id, None, Some(error), None) if error_code(error).is_some() => {
            Ok(Shape::Error { id, error })
        }
        (Some(_), Some(_), None, None) | (_, None, Some(_), None) => Err(Fault::Outcome),
        _ => Err(Fault::Neither),
    }
}

/// Whether a value is a string, or an integer that every reader reads alike.
pub(crate) fn is_id(raw: &str) -> bool {
    if raw.starts_with('"') {
        return raw.len() <= MAX_ID;
    }
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    digits.bytes().all(|byte| byte.is_ascii_digit())
        && digits
            .parse::<u64>()
            .is_ok_and(|number| number <= MAX_NUMBER)
        && raw != "-0"
}

/// An id as it is meant: escapes in text are resolved.
pub(crate) fn meant(id: &str) -> String {
    match text(id) {
        Some(text) => format!("\"{text}"),
        None => id.to_owned(),
    }
}

pub(crate) fn is_object(raw: &str) -> bool {
    raw.starts_with('{')
}

/// The code of an error; none unless it has one, and a text.
pub(crate) fn error_code(raw: &str) -> Option<i64> {
    let error = Members::of(raw)?;
    let code = error.raw("code")?.parse().ok()?;
    error.text("message").map(|_| code)
}

const ENVELOPE: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];

/// Deeper and more than any tool's arguments or list.
pub(crate) const LIMITS: JsonLimits = JsonLimits {
    depth: 64,
    values: 1_000_000,
};
const MAX_ID: usize = 256;
/// RFC 7493 section 2.2.
const MAX_NUMBER: u64 = 1 << 53;

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Result<&'static str, Fault> {
        Ok(match Message::read(text.as_bytes())?.shape() {
            Shape::Request { .. } => "request",
            Shape::Notification { .. } => "notification",
            Shape::Result { .. } => "result",
            Shape::Error { id: Some(_), .. } => "error",
            Shape::Error { id: None, .. } => "error without id",
        })
    }

    #[test]
    fn a_message_is_exactly_one_of_its_kinds() {
        for (text, is) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#, "request"),
            (
                r#"{"jsonrpc":"2.0","method":"a","params":{}}"#,
                "notification",
            ),
            (r#"{"jsonrpc":"2.0","id":"x","result":{}}"#, "result"),
            (
                r#"{"jsonrpc":"2.0","id":-1,"error":{"code":-1,"message":""}}"#,
                "error",
            ),
            (
                r#"{"jsonrpc":"2.0","error":{"code":-1,"message":"","data":1}}"#,
                "error without id",
            ),
            (
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":""}}"#,
                "error without id",
            ),
        ] {
            assert_eq!(kind(text), Ok(is), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused_with_its_reason() {
        let error = r#""error":{"code":1,"message":""}"#;
        for (members, fault) in [
            (r#""id":null,"method":"a""#, Fault::Id),
            (r#""id":1.5,"method":"a""#, Fault::Id),
            (r#""id":[1],"method":"a""#, Fault::Id),
            (r#""id":-0,"method":"a""#, Fault::Id),
            (r#""id":9007199254740993,"result":{}"#, Fault::Id),
            (r#""id":null,"result":{}"#, Fault::Id),
            (r#""id":1,"method":null"#, Fault::Method),
            (r#""id":1,"method":"a","params":[]"#, Fault::Params),
            (r#""method":"a","params":null"#, Fault::Params),
            (r#""id":1,"method":"a","result":{}"#, Fault::Both),
            (r#""id":1,"method":"a","error":null"#, Fault::Both),
            (
                r#""id":1,"method":"a","extra":1"#,
                Fault::Member("extra".to_owned()),
            ),
            (
                r#""id":1,"result":{},"Result":{}"#,
                Fault::Member("Result".to_owned()),
            ),
            (&format!(r#""id":1,"result":{{}},{error}"#), Fault::Neither),
            (&format!(r#""id":1,"params":{{}},{error}"#), Fault::Neither),
            (r#""id":1"#, Fault::Neither),
            (r#""result":{}"#, Fault::Neither),
            (r#""id":1,"result":[]"#, Fault::Outcome),
            (
                r#""id":1,"error":{"code":"1","message":""}"#,
                Fault::Outcome,
            ),
            (r#""id":1,"error":{"code":1}"#, Fault::Outcome),
            (r#""id":1,"error":[1,"x"]"#, Fault::Outcome),
        ] {
            let text = format!(r#"{{"jsonrpc":"2.0",{members}}}"#);
            assert_eq!(kind(&text), Err(fault), "{text}");
        }
        for text in [
            r#"["2.0"]"#,
            "1",
            r#"[{"jsonrpc":"2.0","id":1,"method":"a"}]"#,
        ] {
            assert_eq!(kind(text), Err(Fault::NoObject), "{text}");
        }
        for text in [
            r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#,
            r#"{"id":1,"method":"a"}"#,
        ] {
            assert_eq!(kind(text), Err(Fault::Version), "{text}");
        }
        for text in [
            "",
            r#"{"jsonrpc":"2.0","id":1,"method":"a"} x"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"b":1,"\u0062":2}}"#,
        ] {
            assert!(matches!(kind(text), Err(Fault::Json(_))), "{text}");
        }
    }

    #[test]
    fn ids_are_bounded_and_compared_as_they_are_meant() {
        let longest = format!("\"{}\"", "x".repeat(254));
        assert!(is_id(&longest) && !is_id(&format!("{longest} ")));
        assert!(is_id("-9007199254740992") && !is_id("") && !is_id("-"));
        assert_eq!(meant(r#""\u0061""#), meant(r#""a""#));
        assert_ne!(meant(r#""1""#), meant("1"));
    }

    #[test]
    fn parts_are_replaced_where_they_stand_and_nothing_else() {
        let text = r#"{ "method":"a","id" : "a\n","params":{"id":"a\n"},"jsonrpc":"2.0"}"#;
        let message = Message::read(text.as_bytes()).unwrap();
        let Shape::Request { id, params, .. } = message.shape() else {
            panic!("no request")
        };
        let params = params.unwrap();
        assert_eq!(
            message.with([(params, "{}"), (id, "7")]),
            r#"{ "method":"a","id" : 7,"params":{},"jsonrpc":"2.0"}"#
        );
    }
}
