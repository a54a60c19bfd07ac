//! How a denial is told in MCP: so that a client understands it, and for a tool so that the model can read it.

use agentca_policy::Rule;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::revision::{HeadRefusal, Revision, UNSUPPORTED_VERSION};
use super::rpc::{BAD_PARAMS, INVALID, Kind, Message, NO_METHOD, RpcRefusal};
use crate::answer::Reply;
use crate::config::DenyAs;
use crate::road::Denial;

/// A denial and the document that tells it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) denial: Denial,
    pub(crate) reply: Box<Reply>,
}

/// Of a body that was not taken: whose it is is not known.
pub(crate) fn unread(denial: Denial) -> Told {
    let (status, error) = (denial.status, error(INVALID, &denial, json!({})));
    told(denial, status, None, &error)
}

/// Of what could not be read.
pub(crate) fn unreadable(refusal: RpcRefusal) -> Told {
    let RpcRefusal { code, detail, id } = refusal;
    let denial = Denial::new(Rule::Malformed, detail);
    let error = error(code, &denial, json!({}));
    told(denial, StatusCode::BAD_REQUEST, id.as_deref(), &error)
}

/// Of a head that does not go with its body.
pub(crate) fn disagreeing(message: &Message, refusal: HeadRefusal) -> Told {
    let HeadRefusal {
        code,
        detail,
        requested,
    } = refusal;
    let denial = Denial::new(Rule::Malformed, detail);
    let data = match requested {
        Some(requested) if code == UNSUPPORTED_VERSION => {
            let supported: Vec<&str> = Revision::ALL.into_iter().map(Revision::as_str).collect();
            json!({ "supported": supported, "requested": requested })
        }
        _ => json!({}),
    };
    let error = error(code, &denial, data);
    told(denial, StatusCode::BAD_REQUEST, message.id(), &error)
}

/// Of a message that was read, by a rule.
pub(crate) fn denied(
    message: &Message,
    revision: Option<Revision>,
    deny_as: DenyAs,
    denial: Denial,
) -> Told {
    let is_call =
        matches!(message.kind(), Kind::Request(request) if request.method == "tools/call");
    let modern = revision.is_some_and(|revision| !revision.has_sessions());
    if is_call && deny_as == DenyAs::Result && reads_results(denial.rule) {
        let result = result(&denial, modern);
        return told(denial, StatusCode::OK, message.id(), &result);
    }
    let (status, code) = match denial.rule {
        Rule::NotInCatalogue if is_call => (StatusCode::OK, BAD_PARAMS),
        Rule::NotInCatalogue if modern => (StatusCode::NOT_FOUND, NO_METHOD),
        Rule::NotInCatalogue => (StatusCode::OK, NO_METHOD),
        Rule::Malformed | Rule::Session => (denial.status, INVALID),
        Rule::Stale | Rule::Concurrency | Rule::Flood | Rule::Upstream | Rule::TooLarge => {
            (denial.status, DENIED)
        }
        _ if message.id().is_none() => (denial.status, DENIED),
        _ => (StatusCode::OK, DENIED),
    };
    let error = error(code, &denial, json!({}));
    told(denial, status, message.id(), &error)
}

/// Whether a model is told, rather than the program that runs it.
fn reads_results(rule: Rule) -> bool {
    match rule {
        Rule::NotInCatalogue
        | Rule::Restricted
        | Rule::Trust
        | Rule::Scope
        | Rule::ToolChanged
        | Rule::ToolUnverified
        | Rule::Ceiling => true,
        Rule::Stale
        | Rule::Concurrency
        | Rule::Flood
        | Rule::Environment
        | Rule::UnknownSerial
        | Rule::Revoked
        | Rule::Expired
        | Rule::Malformed
        | Rule::TooLarge
        | Rule::Misdirected
        | Rule::Upstream
        | Rule::Session
        | Rule::Origin => false,
    }
}

/// A result of a tool that failed, in words.
fn result(denial: &Denial, modern: bool) -> Value {
    let rule = denial.rule.as_str();
    let text = format!(
        "Denied by rule `{rule}`: {}. The tool was not called; calling it again will not help.",
        denial.detail
    );
    let mut result = json!({
        "content": [{ "type": "text", "text": text }],
        "isError": true,
        "_meta": { "org.agentca/denied": named(denial) },
    });
    if modern && let Some(members) = result.as_object_mut() {
        members.insert("resultType".to_owned(), "complete".into());
    }
    json!({ "result": result })
}

fn error(code: i32, denial: &Denial, mut data: Value) -> Value {
    if let (Some(data), Some(named)) = (data.as_object_mut(), named(denial).as_object()) {
        data.extend(named.clone());
    }
    let message = format!("{}: {}", denial.rule.title(), denial.detail);
    json!({ "error": { "code": code, "message": message, "data": data } })
}

fn named(denial: &Denial) -> Value {
    let rule = denial.rule.as_str();
    json!({
        "type": format!("urn:agentca:denied:{rule}"),
        "rule": rule,
        "detail": denial.detail,
    })
}

/// The id goes in as it stands: it was read strictly, and may be a number that is better not touched.
fn told(denial: Denial, status: StatusCode, id: Option<&str>, outcome: &Value) -> Told {
    let outcome = outcome.to_string();
    let rest = outcome.strip_prefix('{').unwrap_or_default();
    let text = match id {
        Some(id) => format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{rest}"),
        None => format!("{{\"jsonrpc\":\"2.0\",{rest}"),
    };
    let reply = Box::new(Reply::json(&Method::POST, status, "application/json", text));
    Told { denial, reply }
}

/// Of our own: JSON-RPC and MCP keep −32768 to −32000 for themselves.
const DENIED: i32 = -31403;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(method: &str) -> Message {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":"a\u0062","method":"{method}","params":{{"name":"x","uri":"y"}}}}"#
        );
        Message::read(Bytes::from(text)).unwrap()
    }

    fn tell(method: &str, revision: Revision, deny_as: DenyAs, rule: Rule) -> (u16, Value) {
        let denial = Denial::new(rule, "why");
        let told = denied(&message(method), Some(revision), deny_as, denial);
        let value = serde_json::from_slice(&told.reply.body).unwrap();
        (told.reply.status.as_u16(), value)
    }

    #[test]
    fn a_denied_tool_is_a_result_that_a_model_can_read() {
        let (status, told) = tell(
            "tools/call",
            Revision::V20260728,
            DenyAs::Result,
            Rule::Scope,
        );
        assert_eq!((status, &told["id"]), (200, &json!("ab")));
        assert_eq!(told["result"]["isError"], true);
        assert_eq!(told["result"]["resultType"], "complete");
        let text = told["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.contains("`scope`") && text.contains("why"));
        let (_, told) = tell(
            "tools/call",
            Revision::V20251125,
            DenyAs::Result,
            Rule::Scope,
        );
        assert!(told["result"].get("resultType").is_none());
    }

    #[test]
    fn everything_else_is_an_error() {
        let check = |method, revision, deny_as, rule, status, code| {
            let (told_status, told) = tell(method, revision, deny_as, rule);
            assert_eq!(
                (told_status, &told["error"]["code"]),
                (status, &json!(code))
            );
            assert_eq!(told["error"]["data"]["rule"], rule.as_str());
        };
        let (new, old) = (Revision::V20260728, Revision::V20251125);
        check("tools/call", new, DenyAs::Error, Rule::Scope, 200, -31403);
        check(
            "resources/read",
            new,
            DenyAs::Result,
            Rule::Trust,
            200,
            -31403,
        );
        check(
            "x/y",
            new,
            DenyAs::Result,
            Rule::NotInCatalogue,
            404,
            -32601,
        );
        check(
            "x/y",
            old,
            DenyAs::Result,
            Rule::NotInCatalogue,
            200,
            -32601,
        );
        check("tools/call", old, DenyAs::Result, Rule::Stale, 503, -31403);
        check(
            "tools/list",
            old,
            DenyAs::Result,
            Rule::Session,
            404,
            -32600,
        );
    }
}
