//! What a client's message says, as far as it is judged: read once, before anything is decided (promise 7).
//!
//! Beyond what every message is ([`jsonrpc`]), no member of `params` has a name that a careless reader could
//! take for one that is judged. What is forwarded are the bytes that were read.

use std::ops::Range;

use agentca_policy::json::JsonError;
use bytes::Bytes;

use crate::jsonrpc::{self, Fault, Members, Shape, is_id, is_object, text};

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

    /// The arguments of a call, as they stand.
    pub(crate) fn arguments(&self) -> Option<&str> {
        match &self.kind {
            Kind::Request(request) => Some(self.slice(request.params.arguments.as_ref()?)),
            Kind::Notification { .. } | Kind::Response => None,
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
    let text = jsonrpc::check(body).map_err(unreadable)?;
    let kind = jsonrpc::Message::again(text)
        .map_err(unreadable)
        .and_then(|message| judged(&message));
    kind.map_err(|refusal| RpcRefusal {
        id: Members::of(text)
            .and_then(|members| members.raw("id"))
            .filter(|id| is_id(id))
            .map(str::to_owned),
        ..refusal
    })
}

/// What of a message is judged.
fn judged(message: &jsonrpc::Message<'_>) -> Result<Kind, RpcRefusal> {
    match message.shape() {
        Shape::Request { id, method, params } => {
            let id = message.place(id);
            let method = named(method)?;
            let params = self::params(message, *params)?;
            if let Some(missing) = missing(&method, &params) {
                return Err(refusal(BAD_PARAMS, format!("`{missing}` is missing")));
            }
            Ok(Kind::Request(Box::new(Request { id, method, params })))
        }
        Shape::Notification { method, params } => {
            let method = named(method)?;
            self::params(message, *params)?;
            if !method.starts_with("notifications/") {
                return Err(refusal(INVALID, "`id` is missing"));
            }
            Ok(Kind::Notification { method })
        }
        Shape::Result { .. } | Shape::Error { id: Some(_), .. } => Ok(Kind::Response),
        Shape::Error { id: None, .. } => Err(unreadable(Fault::Neither)),
    }
}

fn named(method: &str) -> Result<String, RpcRefusal> {
    let method = Some(method).filter(|method| is_method(method));
    method
        .map(str::to_owned)
        .ok_or_else(|| unreadable(Fault::Method))
}

/// What a method cannot be judged without.
fn missing(method: &str, params: &Params) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" if params.name.is_none() => Some("name"),
        "resources/read" if params.uri.is_none() => Some("uri"),
        _ => None,
    }
}

fn params(message: &jsonrpc::Message<'_>, raw: Option<&str>) -> Result<Params, RpcRefusal> {
    let Some(raw) = raw else {
        return Ok(Params::default());
    };
    let members = Members::of(raw).ok_or_else(|| unreadable(Fault::Params))?;
    if let Some(name) = members.disguised(PARAMS) {
        let detail = format!("`{name}` could be taken for another member of `params`");
        return Err(refusal(BAD_PARAMS, detail));
    }
    let at = |raw: &str| message.place(raw);
    let arguments = members.raw("arguments");
    if !arguments.is_none_or(is_object) {
        return Err(refusal(BAD_PARAMS, "`arguments` must be an object"));
    }
    Ok(Params {
        name: words(&members, "name")?,
        name_at: members.raw("name").map(at),
        uri: words(&members, "uri")?,
        task: words(&members, "taskId")?,
        arguments: arguments.map(at),
        version: words(&members, "protocolVersion")?,
        request_state: words(&members, "requestState")?
            .and_then(|_| members.raw("requestState"))
            .map(at),
        meta: match members.raw("_meta") {
            None => Meta::default(),
            Some(raw) => meta(message, raw)?,
        },
    })
}

fn meta(message: &jsonrpc::Message<'_>, raw: &str) -> Result<Meta, RpcRefusal> {
    let members =
        Members::of(raw).ok_or_else(|| refusal(BAD_PARAMS, "`_meta` must be an object"))?;
    if let Some(name) = members.disguised(META) {
        let detail = format!("`{name}` could be taken for another member of `_meta`");
        return Err(refusal(BAD_PARAMS, detail));
    }
    let progress_token = members.raw("progressToken");
    if !progress_token.is_none_or(is_id) {
        let detail = "`progressToken` must be a string or an integer";
        return Err(refusal(BAD_PARAMS, detail));
    }
    Ok(Meta {
        version: words(&members, META_VERSION)?,
        capabilities: members.raw(META_CAPABILITIES).is_some_and(is_object),
        progress_token: progress_token.map(|token| message.place(token)),
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

fn is_method(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/_-.$".contains(&byte))
}

fn unreadable(fault: Fault) -> RpcRefusal {
    match fault {
        Fault::Json(error @ JsonError::Syntax(_)) => {
            refusal(PARSE, format!("the body was refused: {error}"))
        }
        Fault::Json(error) => refusal(INVALID, format!("the body was refused: {error}")),
        Fault::NoObject => refusal(
            INVALID,
            "the body must be one JSON-RPC message: an object, no batch",
        ),
        Fault::Params => refusal(BAD_PARAMS, Fault::Params.to_string()),
        fault => refusal(INVALID, fault.to_string()),
    }
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

#[cfg(test)]
mod tests;
