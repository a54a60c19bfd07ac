//! One JSON-RPC message: its shape, and where in its text the parts are that are replaced on the way.
//!
//! Nothing is written anew: a message goes on as it came, but for its id, its progress token and its
//! subscription.

use std::ops::Range;

use agentca_policy::json::{self, JsonError, JsonLimits};
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A client's request, checked before: one JSON object.
#[derive(Clone, Debug)]
pub struct RpcRequest {
    pub(super) bytes: Bytes,
    pub(super) id: Range<usize>,
    pub(super) progress_token: Option<Range<usize>>,
    pub(super) kind: Kind,
}

/// What is particular about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Never cancelled.
    Initialize,
    /// Its notifications name it as their subscription.
    Listen,
    /// Nothing.
    Plain,
}

impl RpcRequest {
    /// A request whose parts are known: where the value of `id` is in it, and that of
    /// `params._meta.progressToken`.
    #[must_use]
    pub fn new(
        bytes: Bytes,
        method: &str,
        id: Range<usize>,
        progress_token: Option<Range<usize>>,
    ) -> Self {
        let kind = match method {
            "initialize" => Kind::Initialize,
            "subscriptions/listen" => Kind::Listen,
            _ => Kind::Plain,
        };
        Self {
            bytes,
            id,
            progress_token,
            kind,
        }
    }

    /// Finds the parts itself; none unless it is a request.
    #[must_use]
    pub fn read(bytes: Bytes) -> Option<Self> {
        let message = Message::read(&bytes).ok()?;
        let Shape::Request { method, id } = message.shape().ok()? else {
            return None;
        };
        let params = message.params().ok()?;
        let token = params.meta().ok()?.progress_token;
        let (id, token) = (place(&bytes, id), token.map(|raw| place(&bytes, raw)));
        let method = method.to_owned();
        Some(Self::new(bytes, &method, id, token))
    }

    pub(super) fn id(&self) -> Bytes {
        part(&self.bytes, &self.id)
    }

    pub(super) fn token(&self) -> Option<Bytes> {
        let place = self.progress_token.as_ref()?;
        Some(part(&self.bytes, place))
    }

    /// The line to send, under another id, which is the progress token too.
    pub(super) fn under(&self, id: &str) -> Vec<u8> {
        let mut edits = vec![(self.id.clone(), id.as_bytes())];
        if let Some(token) = &self.progress_token {
            edits.push((token.clone(), id.as_bytes()));
        }
        line(splice(&self.bytes, edits))
    }
}

fn part(bytes: &Bytes, place: &Range<usize>) -> Bytes {
    bytes
        .get(place.clone())
        .map(|raw| bytes.slice_ref(raw))
        .unwrap_or_default()
}

/// A message as it came; unknown members are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Message<'a> {
    jsonrpc: String,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "present_text")]
    method: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// Which of the four a message is.
#[derive(Debug)]
pub(super) enum Shape<'a> {
    Request {
        method: &'a str,
        id: &'a RawValue,
    },
    Notification {
        method: &'a str,
    },
    /// An error may be without the id of what it answers.
    Answer {
        id: Option<&'a RawValue>,
        result: Option<&'a RawValue>,
    },
}

impl<'a> Message<'a> {
    /// Reads what was checked to be JSON that has one reading.
    pub(super) fn read(text: &'a [u8]) -> Result<Self, Malformed> {
        let is_object = text.trim_ascii_start().starts_with(b"{");
        let message: Self = serde_json::from_slice(text)
            .ok()
            .filter(|_| is_object)
            .ok_or(Malformed::Shape)?;
        (message.jsonrpc == "2.0")
            .then_some(message)
            .ok_or(Malformed::Shape)
    }

    pub(super) fn shape(&self) -> Result<Shape<'_>, Malformed> {
        if self.id.is_some_and(|id| !is_id(id)) {
            return Err(Malformed::Shape);
        }
        match (&self.method, self.id, self.params, self.result, self.error) {
            (Some(method), Some(id), _, None, None) => Ok(Shape::Request { method, id }),
            (Some(method), None, _, None, None) => Ok(Shape::Notification { method }),
            (None, Some(_), None, Some(result), None) if is_object(result) => Ok(Shape::Answer {
                id: self.id,
                result: Some(result),
            }),
            (None, id, None, None, Some(error)) if is_error(error) => {
                Ok(Shape::Answer { id, result: None })
            }
            _ => Err(Malformed::Shape),
        }
    }

    pub(super) fn params(&self) -> Result<Params<'a>, Malformed> {
        self.params.map_or_else(|| Ok(Params::default()), members)
    }
}

/// What routes a notification.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Params<'a> {
    #[serde(borrow, default, rename = "progressToken")]
    pub(super) progress_token: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestId")]
    pub(super) request_id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

impl<'a> Params<'a> {
    pub(super) fn meta(&self) -> Result<Meta<'a>, Malformed> {
        self.meta.map_or_else(|| Ok(Meta::default()), members)
    }
}

/// What of `_meta` is replaced.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Meta<'a> {
    #[serde(borrow, default, rename = "progressToken")]
    pub(super) progress_token: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/subscriptionId")]
    pub(super) subscription: Option<&'a RawValue>,
}

/// What is in a result's `_meta`.
pub(super) fn result_meta(result: &RawValue) -> Result<Meta<'_>, Malformed> {
    members::<Params<'_>>(result)?.meta()
}

/// Why a line is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("it is no JSON-RPC message")]
    Shape,
}

/// Checks that a line has one reading.
pub(super) fn check(text: &[u8], limits: JsonLimits) -> Result<(), Malformed> {
    Ok(json::check(text, limits)?)
}

/// An object's members that are known by name; others are passed over.
fn members<'a, T: Deserialize<'a>>(object: &'a RawValue) -> Result<T, Malformed> {
    // The reader would take a list for them too.
    let read = serde_json::from_str(object.get());
    read.ok()
        .filter(|_| is_object(object))
        .ok_or(Malformed::Shape)
}

fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// Text or a whole number.
fn is_id(raw: &RawValue) -> bool {
    let digits = raw.get().strip_prefix('-').unwrap_or(raw.get());
    raw.get().starts_with('"') || digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_error(raw: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Told {
        #[serde(rename = "code")]
        _code: i64,
        #[serde(rename = "message")]
        _message: String,
    }
    members::<Told>(raw).is_ok()
}

/// What a member holds, `null` too.
fn present<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(reader).map(Some)
}

fn present_text<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<String>, D::Error> {
    String::deserialize(reader).map(Some)
}

/// Where a value is in the text that it was read from.
pub(super) fn place(text: &[u8], raw: &RawValue) -> Range<usize> {
    let start = raw
        .get()
        .as_ptr()
        .addr()
        .saturating_sub(text.as_ptr().addr());
    start..start.saturating_add(raw.get().len())
}

/// The text with other bytes at some places.
pub(super) fn splice(text: &[u8], mut edits: Vec<(Range<usize>, &[u8])>) -> Vec<u8> {
    edits.sort_by_key(|(place, _)| place.start);
    let mut out = Vec::with_capacity(text.len().saturating_add(64));
    let mut done = 0;
    for (place, bytes) in edits {
        out.extend_from_slice(text.get(done..place.start).unwrap_or_default());
        out.extend_from_slice(bytes);
        done = place.end;
    }
    out.extend_from_slice(text.get(done..).unwrap_or_default());
    out
}

/// A message on one line: a line end can only stand between its parts, where a space does as well.
pub(super) fn line(mut text: Vec<u8>) -> Vec<u8> {
    for byte in &mut text {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    text.push(b'\n');
    text
}

/// An id as it is meant: escapes in text are resolved.
pub(super) fn meant(id: &[u8]) -> String {
    match serde_json::from_slice::<String>(id) {
        Ok(text) => format!("\"{text}"),
        Err(_) => String::from_utf8_lossy(id).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Option<&'static str> {
        let message = Message::read(text.as_bytes()).ok()?;
        Some(match message.shape().ok()? {
            Shape::Request { .. } => "request",
            Shape::Notification { .. } => "notification",
            Shape::Answer { id: None, .. } => "error without id",
            Shape::Answer {
                result: Some(_), ..
            } => "result",
            Shape::Answer { .. } => "error",
        })
    }

    #[test]
    fn a_message_is_exactly_one_of_its_kinds() {
        for (text, kind) in [
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
        ] {
            assert_eq!(shape(text), Some(kind), "{text}");
        }
        for text in [
            r#"["2.0"]"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#,
            r#"{"id":1,"method":"a"}"#,
            r#"{"jsonrpc":"2.0"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":[1],"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":null}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","result":null}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":[]}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":""}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":[1,"x"]}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"extra":1}"#,
        ] {
            assert_eq!(shape(text), None, "{text}");
        }
    }

    #[test]
    fn parts_are_replaced_where_they_stand_and_nothing_else() {
        let text = "{ \"id\" : \"a\\n\" ,\r\n\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":\
                    {\"id\":\"a\\n\",\"_meta\":{\"x\":1,\"progressToken\": 7 }}}";
        let request = RpcRequest::read(Bytes::from(text)).unwrap();
        assert_eq!(request.id(), r#""a\n""#);
        assert_eq!(request.token().unwrap(), "7");
        assert_eq!(
            String::from_utf8(request.under("42")).unwrap(),
            "{ \"id\" : 42 ,  \"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":\
             {\"id\":\"a\\n\",\"_meta\":{\"x\":1,\"progressToken\": 42 }}}\n"
        );
        let before =
            r#"{"params":{"_meta":{"progressToken":"t"}},"method":"a","id":9,"jsonrpc":"2.0"}"#;
        let request = RpcRequest::read(Bytes::from(before)).unwrap();
        assert_eq!(
            request.under("1"),
            b"{\"params\":{\"_meta\":{\"progressToken\":1}},\"method\":\"a\",\"id\":1,\"jsonrpc\":\"2.0\"}\n"
        );
    }

    #[test]
    fn what_is_no_request_is_not_read_as_one() {
        for text in [
            r#"{"jsonrpc":"2.0","method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":[]}}"#,
        ] {
            assert!(RpcRequest::read(Bytes::from(text)).is_none(), "{text}");
        }
    }

    #[test]
    fn ids_are_compared_as_they_are_meant() {
        assert_eq!(meant(br#""\u0061""#), meant(br#""a""#));
        assert_ne!(meant(br#""1""#), meant(b"1"));
    }
}
