//! The revisions of MCP that are spoken, and what each asks of a request's head.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use super::rpc::{BAD_PARAMS, Request};

/// A revision of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revision {
    /// Sessions.
    V20250618,
    /// Sessions.
    V20251125,
    /// Every request speaks for itself.
    V20260728,
}

impl Revision {
    pub(crate) const ALL: [Self; 3] = [Self::V20250618, Self::V20251125, Self::V20260728];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V20250618 => "2025-06-18",
            Self::V20251125 => "2025-11-25",
            Self::V20260728 => "2026-07-28",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == text)
    }

    /// Whether it begins with `initialize`.
    pub(crate) const fn has_sessions(self) -> bool {
        !matches!(self, Self::V20260728)
    }
}

/// Why a request's head does not go with its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeadRefusal {
    pub(crate) code: i32,
    pub(crate) detail: Cow<'static, str>,
    /// The version that was asked for, when that is what is wrong.
    pub(crate) requested: Option<String>,
}

/// What revision a request is of: by its body alone, whatever the head says. The head must agree.
///
/// # Errors
/// [`HeadRefusal`], in the order of MCP 2026-07-28: members of `_meta`, head against body, version.
pub(crate) fn of_request(
    request: &Request,
    headers: &HeaderMap,
) -> Result<Option<Revision>, HeadRefusal> {
    let told = field(headers, &PROTOCOL_VERSION)?;
    let meta = &request.params.meta;
    let Some(version) = &meta.version else {
        return legacy(told.as_deref());
    };
    if !meta.capabilities {
        return Err(bad_params(
            "`_meta` has no `io.modelcontextprotocol/clientCapabilities`",
        ));
    }
    agree("MCP-Protocol-Version", told.as_deref(), version)?;
    agree(
        "Mcp-Method",
        field(headers, &METHOD)?.as_deref(),
        &request.method,
    )?;
    if let Some(name) = named(request) {
        let told = field(headers, &NAME)?;
        let told = told.as_deref().map(decoded).transpose()?;
        agree("Mcp-Name", told.as_deref(), name)?;
    }
    match Revision::parse(version) {
        Some(revision) if !revision.has_sessions() => Ok(Some(revision)),
        _ => Err(unsupported(version)),
    }
}

/// Of what has no `_meta`: a session's. `None` when the head says nothing.
fn legacy(told: Option<&str>) -> Result<Option<Revision>, HeadRefusal> {
    match told.map(|told| (told, Revision::parse(told))) {
        None => Ok(None),
        Some((_, Some(revision))) if revision.has_sessions() => Ok(Some(revision)),
        Some((_, Some(_))) => Err(bad_params(
            "`_meta` has no `io.modelcontextprotocol/protocolVersion`",
        )),
        Some((told, None)) => Err(unsupported(told)),
    }
}

/// Of what is no request: what its head says.
pub(crate) fn of_head(headers: &HeaderMap) -> Result<Option<Revision>, HeadRefusal> {
    match field(headers, &PROTOCOL_VERSION)? {
        None => Ok(None),
        Some(told) => Revision::parse(&told)
            .map(Some)
            .ok_or_else(|| unsupported(&told)),
    }
}

/// Holds `Mcp-Param-*` against the arguments: each declared one that has a value must be there and say
/// the same.
pub(crate) fn parameters<'a>(
    headers: &HeaderMap,
    declared: impl Iterator<Item = (&'a str, bool, Option<String>)>,
) -> Result<(), HeadRefusal> {
    for (name, is_number, value) in declared {
        let field_name = format!("mcp-param-{}", name.to_ascii_lowercase());
        let told = HeaderName::try_from(field_name)
            .map_err(|_| mismatch(format!("`{name}` cannot be a field's name")))
            .and_then(|name| field(headers, &name))?;
        match (told.as_deref().map(decoded).transpose()?, value) {
            (None, None) => {}
            (Some(told), Some(value)) if told == value || is_number && same(&told, &value) => {}
            (told, _) => {
                let what = if told.is_some() {
                    "differs"
                } else {
                    "is missing"
                };
                return Err(mismatch(format!(
                    "Mcp-Param-{name} {what}: it must say what the argument says"
                )));
            }
        }
    }
    Ok(())
}

/// What `Mcp-Name` repeats.
pub(crate) fn named(request: &Request) -> Option<&str> {
    let params = &request.params;
    match request.method.as_str() {
        "tools/call" | "prompts/get" => params.name.as_deref(),
        "resources/read" => params.uri.as_deref(),
        "tasks/get" | "tasks/update" | "tasks/cancel" => params.task.as_deref(),
        _ => None,
    }
}

/// The one value of a field, without surrounding blanks.
fn field(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, HeadRefusal> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), second) = (values.next(), values.next()) else {
        return Ok(None);
    };
    if second.is_some() {
        return Err(mismatch(format!("{name} is repeated")));
    }
    let text = std::str::from_utf8(value.as_bytes())
        .ok()
        .filter(|text| text.bytes().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e)))
        .ok_or_else(|| mismatch(format!("{name} has more than visible ASCII")))?;
    Ok(Some(text.trim_matches([' ', '\t']).to_owned()))
}

fn agree(name: &'static str, told: Option<&str>, body: &str) -> Result<(), HeadRefusal> {
    match told {
        Some(told) if told == body => Ok(()),
        Some(_) => Err(mismatch(format!("{name} and the body differ"))),
        None => Err(mismatch(format!("{name} is missing"))),
    }
}

/// `=?base64?…?=`, exactly; everything else stands for itself.
fn decoded(value: &str) -> Result<Cow<'_, str>, HeadRefusal> {
    let inner = value
        .strip_prefix("=?base64?")
        .and_then(|rest| rest.strip_suffix("?="));
    let Some(inner) = inner else {
        return Ok(Cow::Borrowed(value));
    };
    STANDARD
        .decode(inner)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(Cow::Owned)
        .ok_or_else(|| mismatch("a field's base64 cannot be read"))
}

/// How a name is written in a field: `=?base64?…?=` where it can't stand for itself.
pub(crate) fn encoded(name: &str) -> Option<HeaderValue> {
    let plain = name.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
        && name.trim() == name
        && !(name.starts_with("=?base64?") && name.ends_with("?="));
    let text = if plain {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(format!("=?base64?{}?=", STANDARD.encode(name)))
    };
    HeaderValue::from_str(&text).ok()
}

/// Text byte for byte; whole numbers by what they are.
fn same(told: &str, value: &str) -> bool {
    let whole = |text: &str| {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        fraction
            .bytes()
            .all(|digit| digit == b'0')
            .then(|| whole.parse::<i64>().ok())
            .flatten()
    };
    told == value || matches!((whole(told), whole(value)), (Some(a), Some(b)) if a == b)
}

fn mismatch(detail: impl Into<Cow<'static, str>>) -> HeadRefusal {
    HeadRefusal {
        code: HEADER_MISMATCH,
        detail: detail.into(),
        requested: None,
    }
}

fn bad_params(detail: &'static str) -> HeadRefusal {
    HeadRefusal {
        code: BAD_PARAMS,
        detail: detail.into(),
        requested: None,
    }
}

fn unsupported(version: &str) -> HeadRefusal {
    let requested: String = version.chars().take(64).collect();
    HeadRefusal {
        code: UNSUPPORTED_VERSION,
        detail: format!("revision `{requested}` is not spoken here").into(),
        requested: Some(requested),
    }
}

/// MCP 2026-07-28, error codes.
const HEADER_MISMATCH: i32 = -32020;
pub(crate) const UNSUPPORTED_VERSION: i32 = -32022;

pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(crate) const METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub(crate) const NAME: HeaderName = HeaderName::from_static("mcp-name");
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::rpc::{Kind, Message};
    use super::*;

    const MODERN: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn judged(
        method: &str,
        params: &str,
        fields: &[(&'static str, &'static str)],
    ) -> Result<Option<Revision>, i32> {
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#);
        let message = Message::read(Bytes::from(text)).unwrap();
        let Kind::Request(request) = message.kind() else {
            panic!("no request")
        };
        of_request(request, &headers(fields)).map_err(|refusal| refusal.code)
    }

    #[test]
    fn head_and_body_must_agree() {
        let version = ("mcp-protocol-version", "2026-07-28");
        let call = ("mcp-method", "tools/call");
        let params = format!("\"name\":\"refund\",{MODERN}");
        let ok = [version, call, ("mcp-name", "  refund ")];
        assert_eq!(
            judged("tools/call", &params, &ok),
            Ok(Some(Revision::V20260728))
        );
        let base64 = [version, call, ("mcp-name", "=?base64?cmVmdW5k?=")];
        assert!(judged("tools/call", &params, &base64).is_ok());
        for wrong in [
            vec![version, call],
            vec![version, ("mcp-name", "refund")],
            vec![call, ("mcp-name", "refund")],
            vec![version, call, ("mcp-name", "Refund")],
            vec![
                version,
                ("mcp-method", "TOOLS/CALL"),
                ("mcp-name", "refund"),
            ],
            vec![
                ("mcp-protocol-version", "2025-11-25"),
                call,
                ("mcp-name", "refund"),
            ],
            vec![
                version,
                call,
                ("mcp-name", "refund"),
                ("mcp-name", "refund"),
            ],
            vec![version, call, ("mcp-name", "=?base64?cmVmdW5?=")],
            vec![version, call, ("mcp-name", "r\u{e9}fund")],
        ] {
            assert_eq!(
                judged("tools/call", &params, &wrong),
                Err(-32020),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn versions_are_judged_after_the_head() {
        let old = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"v9","io.modelcontextprotocol/clientCapabilities":{}}"#;
        let list = ("mcp-method", "tools/list");
        let same = [("mcp-protocol-version", "v9"), list];
        assert_eq!(judged("tools/list", old, &same), Err(-32022));
        let other = [("mcp-protocol-version", "2026-07-28"), list];
        assert_eq!(judged("tools/list", old, &other), Err(-32020));
        let bare = [("mcp-protocol-version", "2026-07-28"), list];
        assert_eq!(judged("tools/list", "", &bare), Err(-32602));
        let incapable = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        assert_eq!(judged("tools/list", incapable, &bare), Err(-32602));
        assert_eq!(judged("tools/list", "", &[]), Ok(None));
        let session = [("mcp-protocol-version", "2025-11-25")];
        assert_eq!(
            judged("tools/list", "", &session),
            Ok(Some(Revision::V20251125))
        );
        let ancient = [("mcp-protocol-version", "2025-03-26")];
        assert_eq!(judged("tools/list", "", &ancient), Err(-32022));
    }

    #[test]
    fn parameters_say_what_the_arguments_say() {
        let check_as = |is_number, field: Option<&'static str>, value: Option<&str>| {
            let fields: Vec<_> = field
                .into_iter()
                .map(|value| ("mcp-param-value", value))
                .collect();
            let declared = [("Value", is_number, value.map(str::to_owned))];
            parameters(&headers(&fields), declared.into_iter()).is_ok()
        };
        let check = |field, value| check_as(false, field, value);
        assert!(check(Some("Hello"), Some("Hello")));
        assert!(check(Some("=?base64?SGVsbG8=?="), Some("Hello")));
        assert!(check(Some("SGVsbG8="), Some("SGVsbG8=")));
        assert!(check(Some("=?base64?SGVsbG8="), Some("=?base64?SGVsbG8=")));
        assert!(check_as(true, Some("42.0"), Some("42")) && check(None, None));
        assert!(check(Some(""), Some("")));
        assert!(!check(Some("=?base64?SGVsbG8?="), Some("Hello")));
        assert!(!check(Some("=?base64?SGVs!!!bG8=?="), Some("Hello")));
        assert!(!check(None, Some("Hello")) && !check(Some("Hello"), None));
        assert!(!check(Some("hello"), Some("Hello")));
        assert!(!check(Some("42"), Some("042")), "text is no number");
    }

    #[test]
    fn a_name_is_written_so_that_it_is_read_again() {
        for name in [
            "refund",
            "a b",
            " padded ",
            "=?base64?x?=",
            "H\u{e9}llo",
            "",
        ] {
            let value = encoded(name).unwrap();
            assert_eq!(decoded(value.to_str().unwrap()).unwrap(), name);
        }
    }
}
