//! A JSON-RPC message, looked at only as far as forwarding needs. What is forwarded is its own bytes;
//! whether they are what the specification allows, the enforcer judges.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::problem::Problem;

/// One line of a client's.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The bytes that are forwarded.
    pub(crate) text: Bytes,
    pub(crate) id: Option<Id>,
    /// Absent in answers to what the server asked.
    pub(crate) method: Option<String>,
    /// The revision that its `_meta` names, from 2026-07-28 on.
    pub(crate) version: Option<String>,
    /// `params.name`, `params.uri` or `params.taskId`, whichever the method names things by.
    pub(crate) name: Option<String>,
    /// `params.requestId`, of a cancellation.
    pub(crate) cancels: Option<Id>,
}

/// The id of a request as it is written in the answer; equal when it is the same.
#[derive(Clone, Debug)]
pub(crate) struct Id {
    raw: Arc<str>,
    key: Arc<str>,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Notification,
    /// To a request of the server's.
    Response,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
    #[serde(rename = "taskId", borrow)]
    task_id: Option<&'a RawValue>,
    #[serde(rename = "requestId", borrow)]
    request_id: Option<&'a RawValue>,
    #[serde(rename = "_meta", borrow)]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion", borrow)]
    version: Option<&'a RawValue>,
}

/// The arguments of a call.
#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    params: Option<CallParams<'a>>,
}

#[derive(Deserialize)]
struct CallParams<'a> {
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

impl Message {
    /// Reads one message. What is inside `params` and not of the expected form is passed over: it is
    /// the enforcer's to refuse.
    pub(crate) fn read(text: Bytes) -> Result<Self, serde_json::Error> {
        let Envelope { id, method, params } = serde_json::from_slice(&text)?;
        let params: Params<'_> = params
            .and_then(|params| serde_json::from_str(params.get()).ok())
            .unwrap_or_default();
        let meta = params.meta;
        let meta: Option<Meta<'_>> = meta.and_then(|meta| serde_json::from_str(meta.get()).ok());
        let method = method.map(Cow::into_owned);
        let name = match method.as_deref() {
            Some("tools/call" | "prompts/get") => params.name,
            Some("resources/read") => params.uri,
            Some("tasks/get" | "tasks/update" | "tasks/cancel") => params.task_id,
            _ => None,
        };
        let (id, cancels) = (id.map(Id::of), params.request_id.map(Id::of));
        let name = name.and_then(string);
        let version = meta.and_then(|meta| meta.version).and_then(string);
        Ok(Self {
            id,
            method,
            version,
            name,
            cancels,
            text,
        })
    }

    pub(crate) fn kind(&self) -> Kind {
        match (&self.method, &self.id) {
            (None, _) => Kind::Response,
            (Some(_), Some(_)) => Kind::Request,
            (Some(_), None) => Kind::Notification,
        }
    }

    /// Whether it is a request, or a notification, of this method.
    pub(crate) fn is(&self, method: &str) -> bool {
        self.method.as_deref() == Some(method)
    }

    /// `params.arguments`.
    pub(crate) fn arguments(&self) -> Option<serde_json::Value> {
        let call: Call<'_> = serde_json::from_slice(&self.text).ok()?;
        serde_json::from_str(call.params?.arguments?.get()).ok()
    }
}

impl Id {
    fn of(raw: &RawValue) -> Self {
        let raw: Arc<str> = raw.get().into();
        // `"a"` may be written in several ways; numbers are compared as they are written.
        let key = match serde_json::from_str::<String>(&raw) {
            Ok(text) => format!("\"{text}").into(),
            Err(_) => Arc::clone(&raw),
        };
        Self { raw, key }
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Id {}

impl std::hash::Hash for Id {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// What an enforcer's message is to a client that waits for `id`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The answer.
    Answer,
    /// Something else on the way: a notification, a request of the server's.
    Other,
    /// An error that names no request.
    NamelessError,
    /// No JSON-RPC message.
    Nothing,
}

#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(default, borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// Looks at a message of the enforcer's.
pub(crate) fn hear(text: &[u8], id: Option<&Id>) -> Heard {
    let Ok(incoming) = serde_json::from_slice::<Incoming<'_>>(text) else {
        return Heard::Nothing;
    };
    let theirs = incoming.id.map(Id::of);
    match (incoming.method, theirs) {
        _ if incoming.jsonrpc != "2.0" => Heard::Nothing,
        (None, Some(theirs)) if Some(&theirs) == id => Heard::Answer,
        (None, None) if incoming.error.is_some() => Heard::NamelessError,
        (None, None) => Heard::Nothing,
        _ => Heard::Other,
    }
}

/// A JSON-RPC error for the request `id`, or for none that could be read.
pub(crate) fn error(id: Option<&Id>, code: i64, message: &str, data: Option<&str>) -> Vec<u8> {
    let mut text = String::from(r#"{"jsonrpc":"2.0""#);
    if let Some(id) = id {
        text.push_str(r#","id":"#);
        text.push_str(&id.raw);
    }
    let message = serde_json::Value::from(message);
    text.push_str(&format!(r#","error":{{"code":{code},"message":{message}"#));
    if let Some(data) = data {
        text.push_str(r#","data":"#);
        text.push_str(data);
    }
    text.push_str("}}");
    text.into_bytes()
}

/// A JSON-RPC error that says why the enforcer refused: its own when it sent one, else what its problem
/// document says.
pub(crate) fn refusal(id: Option<&Id>, status: StatusCode, body: &[u8]) -> Vec<u8> {
    match hear(body, id) {
        Heard::Answer => return one_line(body),
        Heard::NamelessError => {
            if let Ok(Nameless { error }) = serde_json::from_slice(body) {
                let code = error.code;
                let data = error.data.map(RawValue::get);
                let message = one_line(&self::error(id, code, &error.message, data));
                return message;
            }
        }
        Heard::Other | Heard::Nothing => {}
    }
    let problem = Problem::read(body);
    let data = serde_json::json!({
        "status": status.as_u16(),
        "rule": problem.rule,
        "detail": problem.detail,
    });
    let message = problem.sentence(status);
    error(id, code(status), &message, Some(&data.to_string()))
}

#[derive(Deserialize)]
struct Nameless<'a> {
    #[serde(borrow)]
    error: NamelessBody<'a>,
}

#[derive(Deserialize)]
struct NamelessBody<'a> {
    code: i64,
    #[serde(default, borrow)]
    message: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The code of an error of ours: outside what JSON-RPC and MCP reserve, with the status to be seen.
pub(crate) fn code(status: StatusCode) -> i64 {
    -31_000 - i64::from(status.as_u16())
}

/// JSON on one line: outside strings a line end is white space, and inside there is none.
pub(crate) fn one_line(json: &[u8]) -> Vec<u8> {
    let text = json.trim_ascii().iter();
    text.map(|byte| {
        if matches!(byte, b'\n' | b'\r') {
            b' '
        } else {
            *byte
        }
    })
    .collect()
}

fn string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// What is not JSON.
pub(crate) const PARSE_ERROR: i64 = -32_700;
/// What is no message.
pub(crate) const INVALID_REQUEST: i64 = -32_600;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Message {
        Message::read(Bytes::from(text.to_owned())).unwrap()
    }

    #[test]
    fn a_message_is_known_by_what_it_has() {
        let call = read(
            r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"refund","arguments":{"x":1},
            "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
        );
        assert_eq!(call.kind(), Kind::Request);
        assert_eq!(call.version.as_deref(), Some("2026-07-28"));
        assert_eq!(call.name.as_deref(), Some("refund"));
        assert_eq!(call.arguments(), Some(serde_json::json!({"x": 1})));
        let read_one =
            read(r#"{"id":1,"method":"resources/read","params":{"uri":"a:b","name":"x"}}"#);
        assert_eq!(read_one.name.as_deref(), Some("a:b"));
        assert_eq!(
            read(r#"{"method":"notifications/initialized"}"#).kind(),
            Kind::Notification
        );
        assert_eq!(read(r#"{"id":1,"result":{}}"#).kind(), Kind::Response);
        let odd = read(r#"{"id":1,"method":"tools/list","params":[1]}"#);
        assert_eq!((odd.version, odd.name), (None, None));
        for wrong in ["", "[]", "1", "{", r#"{"id":1,"id":2,"method":"a"}"#] {
            assert!(Message::read(Bytes::from(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids_are_the_same_however_they_are_written() {
        let id = |text: &str| {
            read(&format!(r#"{{"id":{text},"method":"a"}}"#))
                .id
                .unwrap()
        };
        assert_eq!(id(r#""a""#), id(r#""\u0061""#));
        assert_ne!(id("1"), id(r#""1""#));
        let large = id("9007199254740993");
        assert_ne!(large, id("9007199254740992"));
        let text = String::from_utf8(error(Some(&large), -1, "no", None)).unwrap();
        assert_eq!(
            text,
            r#"{"jsonrpc":"2.0","id":9007199254740993,"error":{"code":-1,"message":"no"}}"#
        );
    }

    #[test]
    fn answers_are_told_from_what_comes_before_them() {
        let id = read(r#"{"id":7,"method":"a"}"#).id;
        let hear = |text: &str| hear(text.as_bytes(), id.as_ref());
        assert_eq!(
            hear(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#),
            Heard::Answer
        );
        assert_eq!(
            hear(r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":""}}"#),
            Heard::Answer
        );
        assert_eq!(
            hear(r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#),
            Heard::Other
        );
        // A request of the server's may have the same id.
        assert_eq!(
            hear(r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#),
            Heard::Other
        );
        assert_eq!(
            hear(r#"{"jsonrpc":"2.0","error":{"code":1,"message":""}}"#),
            Heard::NamelessError
        );
        assert_eq!(hear(r#"{"type":"urn:x"}"#), Heard::Nothing);
    }

    #[test]
    fn a_refusal_says_rule_and_detail_under_the_request() {
        let id = read(r#"{"id":7,"method":"a"}"#).id;
        let refusal = |body: &str| -> serde_json::Value {
            let text = refusal(id.as_ref(), StatusCode::FORBIDDEN, body.as_bytes());
            assert!(!text.contains(&b'\n'));
            serde_json::from_slice(&text).unwrap()
        };
        let said = refusal(r#"{"type":"x","rule":"scope","detail":"needs `mcp:a:b`"}"#);
        assert_eq!(said["id"], 7);
        assert_eq!(said["error"]["code"], -31_403);
        assert_eq!(
            said["error"]["message"],
            "denied by the rule `scope`: needs `mcp:a:b`"
        );
        assert_eq!(said["error"]["data"]["rule"], "scope");
        let own = "{\"jsonrpc\":\"2.0\",\n\"id\":7,\"error\":{\"code\":5,\"message\":\"m\"}}";
        assert_eq!(refusal(own)["error"]["code"], 5);
        let nameless =
            r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"m","data":{"a":[1]}}}"#;
        let named = refusal(nameless);
        assert_eq!(
            (&named["id"], &named["error"]["data"]["a"][0]),
            (&7.into(), &1.into())
        );
        assert_eq!(
            refusal("<html>")["error"]["message"],
            "answered 403 Forbidden"
        );
    }
}
