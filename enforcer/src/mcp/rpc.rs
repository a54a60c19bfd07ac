//! The reader of JSON-RPC 2.0 messages: once, strictly, before anything is decided (promise 7).
//!
//! A message is one JSON object with the members of its kind and no others; no name twice at any
//! depth, no batch, nothing after it, and no member of `params` under a name that a careless reader could
//! take for one that is judged. What is forwarded are the bytes that were read.

use std::ops::Range;

use agentca_policy::json::{self, JsonError, JsonLimits};
use bytes::Bytes;

use super::members::{Members, place, text};

/// One message that was read.
#[derive(Debug)]
pub(crate) struct Message {
    text: Bytes,
    kind: Kind,
}

/// Which of the three it is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Wants an answer.
    Request(Box<Request>),
    /// Wants none.
    Notification {
        /// `notifications/…`.
        method: String,
    },
    /// Answers a request of the other side's.
    Response,
}

/// A request, as far as it is judged.
#[derive(Debug)]
pub(crate) struct Request {
    /// As it stands: a string or an integer.
    pub(crate) id: Range<usize>,
    pub(crate) method: String,
    pub(crate) params: Params,
}

/// The members of `params` that are judged.
#[derive(Debug, Default)]
pub(crate) struct Params {
    /// `name`: a tool's or a prompt's.
    pub(crate) name: Option<String>,
    /// Where it stands.
    pub(crate) name_at: Option<Range<usize>>,
    /// `uri`: a resource's.
    pub(crate) uri: Option<String>,
    /// `taskId`.
    pub(crate) task: Option<String>,
    /// `arguments`: where the object stands.
    pub(crate) arguments: Option<Range<usize>>,
    /// `protocolVersion`, of `initialize`.
    pub(crate) version: Option<String>,
    /// `requestState`: where the text stands.
    pub(crate) request_state: Option<Range<usize>>,
    /// `_meta`.
    pub(crate) meta: Meta,
}

/// The members of `params._meta` that are judged.
#[derive(Debug, Default)]
pub(crate) struct Meta {
    /// `io.modelcontextprotocol/protocolVersion`: with it a request speaks for itself, without a session.
    pub(crate) version: Option<String>,
    /// Whether `io.modelcontextprotocol/clientCapabilities` is an object.
    pub(crate) capabilities: bool,
    /// `progressToken`: where it stands.
    pub(crate) progress_token: Option<Range<usize>>,
}

/// Why a message was refused: what the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RpcRefusal {
    /// JSON-RPC's code.
    pub(crate) code: i32,
    pub(crate) detail: String,
    /// The request's id as it stands, when it could be read.
    pub(crate) id: Option<String>,
}

impl Message {
    /// Reads a body.
    ///
    /// # Errors
    /// [`RpcRefusal`] unless there is exactly one message in it.
    pub(crate) fn read(body: Bytes) -> Result<Self, RpcRefusal> {
        let kind = read(&body)?;
        Ok(Self { text: body, kind })
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// What was read.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.text
    }

    /// A part of it as it stands.
    pub(crate) fn slice(&self, range: &Range<usize>) -> &str {
        let bytes = self.text.get(range.clone()).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// The id of a request, as it stands.
    pub(crate) fn id(&self) -> Option<&str> {
        match &self.kind {
            Kind::Request(request) => Some(self.slice(&request.id)),
            Kind::Notification { .. } | Kind::Response => None,
        }
    }

    /// The tool that a call names.
    pub(crate) fn tool(&self) -> Option<&str> {
        match &self.kind {
            Kind::Request(request) if request.method == "tools/call" => {
                request.params.name.as_deref()
            }
            Kind::Request(_) | Kind::Notification { .. } | Kind::Response => None,
        }
    }

    /// The method, or what stands for it in records.
    pub(crate) fn method(&self) -> &str {
        match &self.kind {
            Kind::Request(request) => &request.method,
            Kind::Notification { method } => method,
            Kind::Response => "response",
        }
    }
}

fn read(body: &[u8]) -> Result<Kind, RpcRefusal> {
    json::check(body, LIMITS).map_err(|error| unreadable(&error))?;
    let text = std::str::from_utf8(body).map_err(|_| refusal(PARSE, "the body is not UTF-8"))?;
    let Some(members) = Members::of(text) else {
        return Err(refusal(
            INVALID,
            "the body must be one JSON-RPC message: an object, no batch",
        ));
    };
    let id = members.raw("id");
    let told = id.filter(|id| is_id(id));
    envelope(text, &members).map_err(|refusal| RpcRefusal {
        id: told.map(str::to_owned),
        ..refusal
    })
}

fn envelope(text: &str, members: &Members<'_>) -> Result<Kind, RpcRefusal> {
    if let Some(unknown) = members.names().find(|name| !ENVELOPE.contains(name)) {
        let unknown: String = unknown.chars().take(64).collect();
        return Err(refusal(
            INVALID,
            format!("`{unknown}` is no member of a JSON-RPC message"),
        ));
    }
    if members.text("jsonrpc").as_deref() != Some("2.0") {
        return Err(refusal(INVALID, "`jsonrpc` must be \"2.0\""));
    }
    let id = match members.raw("id") {
        None => None,
        Some(id) if is_id(id) => Some(place(text, id).unwrap_or_default()),
        Some(_) => {
            return Err(refusal(
                INVALID,
                "`id` must be a string or an integer of at most 2^53",
            ));
        }
    };
    let Some(method) = members.raw("method") else {
        return response(members, id);
    };
    if members.raw("result").is_some() || members.raw("error").is_some() {
        return Err(refusal(INVALID, "a message is a request or a response"));
    }
    let method = super::members::text(method)
        .filter(|method| is_method(method))
        .ok_or_else(|| refusal(INVALID, "`method` must be the name of a method"))?;
    let params = params(text, members.raw("params"))?;
    match id {
        Some(id) => {
            if let Some(missing) = missing(&method, &params) {
                return Err(refusal(BAD_PARAMS, format!("`{missing}` is missing")));
            }
            Ok(Kind::Request(Box::new(Request { id, method, params })))
        }
        None if method.starts_with("notifications/") => Ok(Kind::Notification { method }),
        None => Err(refusal(INVALID, "`id` is missing")),
    }
}

/// What a method cannot be judged without.
fn missing(method: &str, params: &Params) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" if params.name.is_none() => Some("name"),
        "resources/read" if params.uri.is_none() => Some("uri"),
        _ => None,
    }
}

fn response(members: &Members<'_>, id: Option<Range<usize>>) -> Result<Kind, RpcRefusal> {
    let (result, error) = (members.raw("result"), members.raw("error"));
    let (true, true, None) = (
        id.is_some(),
        result.is_some() != error.is_some(),
        members.raw("params"),
    ) else {
        let detail = "a message has `method`, or `id` and one of `result` and `error`";
        return Err(refusal(INVALID, detail));
    };
    match result.or(error).map(is_object) {
        Some(true) => Ok(Kind::Response),
        _ => Err(refusal(INVALID, "`result` and `error` are objects")),
    }
}

fn params(text: &str, raw: Option<&str>) -> Result<Params, RpcRefusal> {
    let Some(raw) = raw else {
        return Ok(Params::default());
    };
    let members =
        Members::of(raw).ok_or_else(|| refusal(BAD_PARAMS, "`params` must be an object"))?;
    if let Some(name) = members.disguised(PARAMS) {
        let detail = format!("`{name}` could be taken for another member of `params`");
        return Err(refusal(BAD_PARAMS, detail));
    }
    let at = |raw: &str| place(text, raw);
    let arguments = match members.raw("arguments") {
        None => None,
        Some(raw) if is_object(raw) => at(raw),
        Some(_) => return Err(refusal(BAD_PARAMS, "`arguments` must be an object")),
    };
    Ok(Params {
        name: words(&members, "name")?,
        name_at: members.raw("name").and_then(at),
        uri: words(&members, "uri")?,
        task: words(&members, "taskId")?,
        arguments,
        version: words(&members, "protocolVersion")?,
        request_state: words(&members, "requestState")?
            .and_then(|_| members.raw("requestState"))
            .and_then(at),
        meta: match members.raw("_meta") {
            None => Meta::default(),
            Some(raw) => meta(text, raw)?,
        },
    })
}

fn meta(text: &str, raw: &str) -> Result<Meta, RpcRefusal> {
    let members =
        Members::of(raw).ok_or_else(|| refusal(BAD_PARAMS, "`_meta` must be an object"))?;
    if let Some(name) = members.disguised(META) {
        let detail = format!("`{name}` could be taken for another member of `_meta`");
        return Err(refusal(BAD_PARAMS, detail));
    }
    let progress_token = match members.raw("progressToken") {
        None => None,
        Some(token) if is_id(token) => place(text, token),
        Some(_) => {
            return Err(refusal(
                BAD_PARAMS,
                "`progressToken` must be a string or an integer",
            ));
        }
    };
    Ok(Meta {
        version: words(&members, META_VERSION)?,
        capabilities: members.raw(META_CAPABILITIES).is_some_and(is_object),
        progress_token,
    })
}

/// A member that is text where it is there.
fn words(members: &Members<'_>, name: &str) -> Result<Option<String>, RpcRefusal> {
    let wrong = || refusal(BAD_PARAMS, format!("`{name}` must be text"));
    members
        .raw(name)
        .map(|raw| text(raw).ok_or_else(wrong))
        .transpose()
}

/// Whether a value is a string, or an integer that every reader reads alike.
pub(super) fn is_id(raw: &str) -> bool {
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

pub(super) fn is_object(raw: &str) -> bool {
    raw.starts_with('{')
}

fn is_method(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/_-.$".contains(&byte))
}

fn unreadable(error: &JsonError) -> RpcRefusal {
    let code = match error {
        JsonError::Syntax(_) => PARSE,
        JsonError::Duplicate(_) | JsonError::TooDeep(_) | JsonError::TooMany(_) => INVALID,
    };
    refusal(code, format!("the body was refused: {error}"))
}

fn refusal(code: i32, detail: impl Into<String>) -> RpcRefusal {
    RpcRefusal {
        code,
        detail: detail.into(),
        id: None,
    }
}

/// JSON-RPC 2.0 section 5.1.
pub(crate) const PARSE: i32 = -32700;
pub(crate) const INVALID: i32 = -32600;
pub(crate) const NO_METHOD: i32 = -32601;
pub(crate) const BAD_PARAMS: i32 = -32602;

/// MCP 2026-07-28, `_meta` of a request.
pub(super) const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub(super) const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

pub(super) const ENVELOPE: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
/// Every member of `params` that MCP gives a meaning.
const PARAMS: &[&str] = &[
    "_meta",
    "name",
    "arguments",
    "uri",
    "cursor",
    "ref",
    "argument",
    "context",
    "level",
    "task",
    "taskId",
    "notifications",
    "protocolVersion",
    "capabilities",
    "clientInfo",
    "inputResponses",
    "requestState",
    "requestId",
    "reason",
    "progressToken",
    "progress",
    "total",
    "message",
];
const META: &[&str] = &[
    META_VERSION,
    META_CAPABILITIES,
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/logLevel",
    "io.modelcontextprotocol/subscriptionId",
    "io.modelcontextprotocol/related-task",
    "progressToken",
    "traceparent",
    "tracestate",
    "baggage",
];

/// Deeper and more than any tool's arguments.
pub(crate) const LIMITS: JsonLimits = JsonLimits {
    depth: 64,
    values: 1_000_000,
};
const MAX_ID: usize = 256;
/// RFC 7493 section 2.2.
const MAX_NUMBER: u64 = 1 << 53;

#[cfg(test)]
mod tests;
