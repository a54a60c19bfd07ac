//! The head of a message of MCP: whose page it may come from, what of it is held against the body, and what goes on
//! to the server.

use agentca_policy::{HeaderKind, Rule};
use http::{HeaderMap, Method, header};

use super::doorway::Doorway;
use super::revision::{
    self, HeadRefusal, LAST_EVENT_ID, METHOD, NAME, PROTOCOL_VERSION, Revision, SESSION_ID,
};
use super::rpc::{Kind, Message};
use super::turn::Conversation;
use crate::jsonrpc::{self, Members};
use crate::road::{Denial, Matched, Permit};

/// No page of another origin may speak for an agent (MCP, Streamable HTTP, security warning).
pub(super) fn own_origin(headers: &HeaderMap, target: &str) -> Result<(), Denial> {
    if !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    let own = target.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    let foreign = headers
        .get_all(header::ORIGIN)
        .iter()
        .any(|origin| !origin.as_bytes().eq_ignore_ascii_case(own.as_bytes()));
    if foreign {
        return Err(Denial::new(Rule::Origin, "Origin is not this enforcer's"));
    }
    Ok(())
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    value.to_str().is_ok_and(|text| {
        let (media, parameters) = text.split_once(';').unwrap_or((text, ""));
        let parameters = parameters.trim();
        media.trim().eq_ignore_ascii_case("application/json")
            && (parameters.is_empty() || parameters.eq_ignore_ascii_case("charset=utf-8"))
    })
}

/// Leaves of the head what the server is to see: its own session id, and of what repeats the body
/// only what was held against it.
pub(super) fn prepare(doorway: &mut Doorway, conversation: &Conversation) {
    let is_post = doorway.head().method == Method::POST;
    let headers = &mut doorway.head_mut().headers;
    for name in [header::ACCEPT_ENCODING, header::ORIGIN] {
        headers.remove(name);
    }
    headers.remove(SESSION_ID);
    let modern = conversation
        .revision
        .is_some_and(|revision| !revision.has_sessions());
    if modern {
        headers.remove(LAST_EVENT_ID);
        return;
    }
    if is_post {
        headers.remove(LAST_EVENT_ID);
    }
    let repeated: Vec<_> = headers
        .keys()
        .filter(|name| [METHOD, NAME].contains(name) || name.as_str().starts_with("mcp-param-"))
        .cloned()
        .collect();
    for name in repeated {
        headers.remove(name);
    }
    if let Some(session) = &conversation.session
        && let Ok(id) = session.id.parse()
    {
        headers.insert(SESSION_ID, id);
    }
    if let Some(revision) = conversation.revision {
        let version = http::HeaderValue::from_static(revision.as_str());
        headers.insert(PROTOCOL_VERSION, version);
    }
}

/// Leaves of what repeats a body of 2026-07-28 only what is held against it: what else a field says could lead
/// somebody astray who goes by fields.
pub(super) fn repeat(doorway: &mut Doorway, message: &Message, revision: Option<Revision>) {
    if revision.is_none_or(Revision::has_sessions) {
        return;
    }
    let named = match message.kind() {
        Kind::Request(request) => revision::named(request).is_some(),
        Kind::Notification { .. } | Kind::Response => false,
    };
    let server = doorway.server().cloned();
    let pinned = message
        .tool()
        .and_then(|name| server.as_ref()?.tool(name)?.pinned.clone());
    let declared = |field: &str| {
        pinned.as_ref().is_some_and(|pinned| {
            let mut headers = pinned.headers.iter();
            headers.any(|known| known.header.eq_ignore_ascii_case(field))
        })
    };
    let headers = &mut doorway.head_mut().headers;
    if !named {
        headers.remove(NAME);
    }
    if message.id().is_none() {
        headers.remove(METHOD);
    }
    let undeclared: Vec<_> = headers
        .keys()
        .filter(|name| {
            let field = name.as_str().strip_prefix("mcp-param-");
            field.is_some_and(|field| !declared(field))
        })
        .cloned()
        .collect();
    for name in undeclared {
        headers.remove(name);
    }
}

/// Holds `Mcp-Param-*` against the arguments, where the tool that was pinned declares them.
pub(super) fn parameters(
    permit: &Permit,
    message: &Message,
    revision: Option<Revision>,
) -> Result<(), HeadRefusal> {
    let modern = revision.is_some_and(|revision| !revision.has_sessions());
    let (Matched::Tool { tool, .. }, Kind::Request(request)) = (permit.matched(), message.kind())
    else {
        return Ok(());
    };
    let declared = tool.pinned.as_ref().map_or(&[][..], |pin| &pin.headers);
    if !modern || declared.is_empty() {
        return Ok(());
    }
    let arguments = request.params.arguments.as_ref();
    let arguments = arguments.map_or("{}", |range| message.slice(range));
    let values = declared.iter().map(|parameter| {
        let is_number = parameter.kind == HeaderKind::Integer;
        let value = value_at(arguments, &parameter.path);
        (&*parameter.header, is_number, value)
    });
    revision::parameters(&permit.head().headers, values)
}

/// An argument as a field says it: text as it is meant, numbers and truth as they stand.
fn value_at(arguments: &str, path: &[String]) -> Option<String> {
    let (last, above) = path.split_last()?;
    let mut members = Members::of(arguments)?;
    for name in above {
        members = members.members(name)?;
    }
    let raw = members.raw(last).filter(|raw| *raw != "null")?;
    Some(jsonrpc::text(raw).unwrap_or_else(|| raw.to_owned()))
}
