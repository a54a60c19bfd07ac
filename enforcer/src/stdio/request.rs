//! A client's request on its way to a program, and messages as lines.

use std::ops::Range;

use bytes::Bytes;

use crate::jsonrpc::{Edits, Members, Message, Shape};

/// A client's request, checked before.
#[derive(Clone, Debug)]
pub struct RpcRequest {
    bytes: Bytes,
    id: Range<usize>,
    progress_token: Option<Range<usize>>,
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
        let message = Message::again(text(&bytes)).ok()?;
        let Shape::Request { id, method, params } = message.shape() else {
            return None;
        };
        let params = params.and_then(Members::of).unwrap_or_default();
        let token = meta(&params).ok()?.raw("progressToken");
        let (id, token) = (message.place(id), token.map(|raw| message.place(raw)));
        let method = method.clone();
        drop(message);
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
    pub(super) fn under(&self, id: &str) -> Bytes {
        let mut edits = Edits::of(text(&self.bytes));
        edits.replace(self.id.clone(), id);
        if let Some(token) = &self.progress_token {
            edits.replace(token.clone(), id);
        }
        line(edits.done())
    }
}

/// A copy: what is kept for later must not hold the whole message.
fn part(bytes: &Bytes, place: &Range<usize>) -> Bytes {
    let raw = bytes.get(place.clone()).unwrap_or_default();
    Bytes::copy_from_slice(raw)
}

/// What was checked is UTF-8.
pub(super) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// `_meta` of parameters, or of a result, is no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`_meta` must be an object")]
pub(super) struct NoMeta;

/// The members of `_meta`; none where it is absent.
pub(super) fn meta<'a>(of: &Members<'a>) -> Result<Members<'a>, NoMeta> {
    match of.raw("_meta") {
        None => Ok(Members::default()),
        Some(raw) => Members::of(raw).ok_or(NoMeta),
    }
}

/// A message on one line: a line end can only stand between its parts, where a space does as well.
pub(super) fn line(text: String) -> Bytes {
    let mut text = text.into_bytes();
    for byte in &mut text {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    text.push(b'\n');
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_in_under_another_id_and_token() {
        let text = "{ \"id\" : \"a\\n\" ,\r\n\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":\
                    {\"id\":\"a\\n\",\"_meta\":{\"x\":1,\"progressToken\": 7 }}}";
        let request = RpcRequest::read(Bytes::from(text)).unwrap();
        assert_eq!(request.id(), r#""a\n""#);
        let whole = request.bytes.as_ptr_range();
        assert!(
            !whole.contains(&request.id().as_ptr()),
            "it would hold the whole message"
        );
        assert_eq!(request.token().unwrap(), "7");
        assert_eq!(
            request.under("42"),
            "{ \"id\" : 42 ,  \"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":\
             {\"id\":\"a\\n\",\"_meta\":{\"x\":1,\"progressToken\": 42 }}}\n"
        );
        let before =
            r#"{"params":{"_meta":{"progressToken":"t"}},"method":"a","id":9,"jsonrpc":"2.0"}"#;
        let request = RpcRequest::read(Bytes::from(before)).unwrap();
        assert_eq!(
            request.under("1"),
            "{\"params\":{\"_meta\":{\"progressToken\":1}},\"method\":\"a\",\"id\":1,\"jsonrpc\":\"2.0\"}\n"
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
}
