//! The header fields that Streamable HTTP wants beside a message. From 2026-07-28 on they mirror the
//! body: revision, method, name, and the arguments that a tool's schema marks with `x-mcp-header`.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use crate::message::Message;

/// What can't be said in a header field.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` cannot stand in a header field")]
pub(crate) struct FieldError(pub(crate) &'static str);

/// Fields of every message that is posted.
pub(crate) fn posted() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        ACCEPT,
        HeaderValue::from_static("application/json, text/event-stream"),
    );
    headers
}

/// The fields of a message that names its revision.
pub(crate) fn mirrored(message: &Message, schemas: &Schemas) -> Result<HeaderMap, FieldError> {
    let mut headers = posted();
    let plain = |text: &str, what| HeaderValue::try_from(text).map_err(|_| FieldError(what));
    if let Some(version) = &message.version {
        headers.insert(PROTOCOL_VERSION, plain(version, "protocolVersion")?);
    }
    if let Some(method) = &message.method {
        headers.insert(METHOD, plain(method, "method")?);
    }
    if let Some(name) = &message.name {
        headers.insert(NAME, plain(&encoded(name), "name")?);
    }
    if message.is("tools/call")
        && let Some(marked) = message.name.as_ref().and_then(|name| schemas.of(name))
    {
        let arguments = message.arguments().unwrap_or_default();
        for Marked { field, path } in marked {
            if let Some(text) = value_at(&arguments, path) {
                headers.insert(field.clone(), plain(&encoded(&text), "arguments")?);
            }
        }
    }
    Ok(headers)
}

/// The text of an argument, when it is there and of a kind that is mirrored.
fn value_at(arguments: &Value, path: &[String]) -> Option<String> {
    let found = path.iter().try_fold(arguments, |value, key| value.get(key));
    match found? {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A value as it is, or in the base64 form when it could not be read back otherwise.
fn encoded(text: &str) -> String {
    let plain = text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    let padded = text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']);
    let like_encoded = text.starts_with("=?base64?") && text.ends_with("?=");
    if plain && !padded && !like_encoded {
        text.to_owned()
    } else {
        format!("=?base64?{}?=", STANDARD.encode(text))
    }
}

/// Which arguments of which tool are mirrored, as `tools/list` said.
#[derive(Debug, Default)]
pub(crate) struct Schemas(HashMap<String, Vec<Marked>>);

#[derive(Debug)]
struct Marked {
    field: HeaderName,
    path: Vec<String>,
}

#[derive(Deserialize)]
struct Listed {
    result: ListedResult,
}

#[derive(Deserialize)]
struct ListedResult {
    #[serde(default)]
    tools: Vec<Tool>,
}

#[derive(Deserialize)]
struct Tool {
    name: String,
    #[serde(rename = "inputSchema", default)]
    input_schema: Value,
}

impl Schemas {
    /// Learns from one page of an answer to `tools/list`.
    pub(crate) fn learn(&mut self, answer: &[u8]) {
        // Most lists mark nothing, and then need no second reading.
        let marked = contains(answer, MARK.as_bytes());
        if self.0.is_empty() && !marked {
            return;
        }
        let Ok(Listed { result }) = serde_json::from_slice(answer) else {
            return;
        };
        for Tool { name, input_schema } in result.tools {
            let mut marked = Vec::new();
            collect(&input_schema, &mut Vec::new(), &mut marked);
            if marked.is_empty() {
                self.0.remove(&name);
            } else if self.0.len() < MOST_TOOLS || self.0.contains_key(&name) {
                self.0.insert(name, marked);
            }
        }
    }

    fn of(&self, tool: &str) -> Option<&[Marked]> {
        self.0.get(tool).map(Vec::as_slice)
    }
}

/// Marks count where the root reaches them through `properties` alone.
fn collect(schema: &Value, path: &mut Vec<String>, marked: &mut Vec<Marked>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    if path.len() >= DEEPEST {
        return;
    }
    for (key, property) in properties {
        path.push(key.clone());
        let mark = property.get(MARK).and_then(Value::as_str);
        let field = mark.and_then(|mark| format!("mcp-param-{mark}").parse().ok());
        if let Some(field) = field {
            let path = path.clone();
            marked.push(Marked { field, path });
        }
        collect(property, path, marked);
        path.pop();
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// The revision.
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The session, in the revisions that have one.
pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// What to go on after.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const MARK: &str = "x-mcp-header";
const MOST_TOOLS: usize = 10_000;
const DEEPEST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// The examples of the specification.
    #[test]
    fn values_that_would_not_come_back_are_encoded() {
        for (text, expected) in [
            ("us-west1", "us-west1"),
            ("a b", "a b"),
            ("", ""),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
            ("=?BASE64?x?=", "=?BASE64?x?="),
            ("a\nb", "=?base64?YQpi?="),
        ] {
            assert_eq!(encoded(text), expected);
        }
    }

    fn learnt() -> Schemas {
        let mut schemas = Schemas::default();
        schemas.learn(
            br#"{"jsonrpc":"2.0","id":1,"result":{"tools":[
            {"name":"run","inputSchema":{"type":"object","properties":{
              "region":{"type":"string","x-mcp-header":"Region"},
              "deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"Count"}}},
              "list":{"type":"array","items":{"properties":{"x":{"x-mcp-header":"No"}}}}}}},
            {"name":"plain","inputSchema":{"type":"object"}}]}}"#,
        );
        schemas
    }

    fn fields(arguments: &str) -> HeaderMap {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"run","arguments":{arguments},
            "_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}"#
        );
        mirrored(&Message::read(Bytes::from(text)).unwrap(), &learnt()).unwrap()
    }

    #[test]
    fn marked_arguments_are_mirrored_where_they_are() {
        let headers = fields(r#"{"region":"zürich","deep":{"n":42},"list":[{"x":"y"}]}"#);
        assert_eq!(headers["mcp-protocol-version"], "2026-07-28");
        assert_eq!(headers["mcp-method"], "tools/call");
        assert_eq!(headers["mcp-name"], "run");
        assert_eq!(headers["mcp-param-region"], "=?base64?esO8cmljaA==?=");
        assert_eq!(headers["mcp-param-count"], "42");
        assert!(!headers.contains_key("mcp-param-no"));
        let headers = fields(r#"{"region":"","deep":{"n":null}}"#);
        assert_eq!(headers["mcp-param-region"], "");
        assert!(!headers.contains_key("mcp-param-count"));
    }

    #[test]
    fn a_later_list_replaces_what_was_marked() {
        let mut schemas = learnt();
        schemas.learn(br#"{"result":{"tools":[{"name":"run","inputSchema":{}}]}}"#);
        assert!(schemas.of("run").is_none());
    }
}
