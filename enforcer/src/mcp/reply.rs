//! What an MCP server answers, read as strictly as what it is asked: what cannot be read is not passed on.

use agentca_identity::time::Timestamp;
use agentca_policy::json;

use super::edit::Edits;
use super::lists::{Filter, Filtered};
use super::members::{Members, place};
use super::request_state::StateSeal;
use super::revision::Revision;
use super::rpc::{ENVELOPE, LIMITS, is_id, is_object};

/// What is known of the answer to a request before it comes.
#[derive(Debug)]
pub(crate) struct Expected {
    /// The request's id as it stands; none for a stream that answers no request.
    pub(crate) id: Option<String>,
    pub(crate) kind: Answer,
    /// Whether the server may send requests of its own, as in revisions with sessions.
    pub(crate) server_asks: bool,
    /// For a call that may need several rounds: seals what continues it.
    pub(crate) states: Option<StateSeal>,
}

/// What is done with a result.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is passed on.
    Plain,
    /// Of a tool: whether it failed is recorded.
    Tool,
    /// A list: what the agent may not use is left out.
    List(Filter),
    /// Of `initialize`: the revision must be one that is spoken.
    Initialize,
    /// Of `server/discover`: likewise.
    Discover,
    /// Of a request that is not known, on a stream that was resumed: every list is filtered.
    Resumed(Vec<Filter>),
}

/// A message of a server that may be passed on.
#[derive(Debug)]
pub(crate) struct ServerMessage {
    /// Its text, where it is not passed on as it came.
    pub(crate) text: Option<String>,
    /// Whether it is the answer that was waited for.
    pub(crate) is_answer: bool,
    /// Whether it says that the tool or the request failed.
    pub(crate) failed: bool,
    /// The revision that `initialize` settled on.
    pub(crate) revision: Option<Revision>,
    /// That lists have changed: worth a look.
    pub(crate) lists_changed: bool,
}

impl Expected {
    /// Whether an end without the answer is none: where there are no sessions nothing is resumed.
    pub(crate) fn must_answer(&self) -> bool {
        self.id.is_some() && !self.server_asks
    }

    /// Reads one message.
    ///
    /// # Errors
    /// Why it is not passed on, and with it the rest of what the server says.
    pub(crate) fn read(&mut self, text: &str) -> Result<ServerMessage, &'static str> {
        if let Answer::List(filter) = &mut self.kind
            && let Some(id) = &self.id
            && let Some(filtered) = filter.known(text, id)
        {
            return Ok(answer(Some(filtered), false));
        }
        json::check(text.as_bytes(), LIMITS)
            .map_err(|_| "the server's message is no strict JSON")?;
        let members = Members::of(text).ok_or("the server's message is no JSON-RPC message")?;
        if members.names().any(|name| !ENVELOPE.contains(&name)) {
            return Err("the server's message has members that JSON-RPC does not know");
        }
        if members.text("jsonrpc").as_deref() != Some("2.0") {
            return Err("the server's message is no JSON-RPC 2.0");
        }
        if members.raw("method").is_some() {
            return self.told(&members);
        }
        self.answered(text, &members)
    }

    /// A notification, or a request of the server's own.
    fn told(&self, members: &Members<'_>) -> Result<ServerMessage, &'static str> {
        let method = members
            .text("method")
            .ok_or("the server's message has no method")?;
        if members.raw("result").is_some() || members.raw("error").is_some() {
            return Err("the server's message is both a request and an answer");
        }
        if members
            .raw("params")
            .is_some_and(|params| !is_object(params))
        {
            return Err("the server's message has no object as its parameters");
        }
        match members.raw("id") {
            Some(id) if !is_id(id) => return Err("the server's request has no usable id"),
            Some(_) if !self.server_asks => {
                return Err("the server asks, which this revision does not let it");
            }
            _ => {}
        }
        Ok(ServerMessage {
            lists_changed: method == "notifications/tools/list_changed",
            is_answer: false,
            ..answer(None, false)
        })
    }

    fn answered(
        &mut self,
        text: &str,
        members: &Members<'_>,
    ) -> Result<ServerMessage, &'static str> {
        let (result, error) = (members.raw("result"), members.raw("error"));
        match (&self.id, members.raw("id").filter(|id| *id != "null")) {
            (Some(expected), Some(id)) if expected == id => {}
            (None, Some(id)) if is_id(id) && matches!(self.kind, Answer::Resumed(_)) => {}
            // An error may leave out whose it is (2025-11-25, 2026-07-28).
            (Some(_), None) if error.is_some() => {}
            _ => return Err("the server answers another request"),
        }
        match (result, error) {
            (Some(result), None) if is_object(result) => self.result(text, result),
            (None, Some(error)) if is_error(error) => Ok(answer(None, true)),
            _ => Err("the server's answer has neither one result nor one error"),
        }
    }

    fn result(&mut self, text: &str, result: &str) -> Result<ServerMessage, &'static str> {
        let members = Members::of(result).ok_or("the server's result cannot be read")?;
        if members.disguised(RESULT).is_some() {
            return Err("the server's result has members that could be taken for others");
        }
        if let (Some(seal), Some(state)) = (&self.states, members.raw("requestState")) {
            return unfinished(text, state, seal);
        }
        match &mut self.kind {
            Answer::Plain => Ok(answer(None, false)),
            Answer::Tool => {
                let failed = match members.raw("isError") {
                    None | Some("false") => false,
                    Some("true") => true,
                    Some(_) => return Err("the tool's `isError` is neither true nor false"),
                };
                Ok(answer(None, failed))
            }
            Answer::List(filter) => {
                if members.raw(filter.member).is_none() {
                    return Err("the server's list is not there");
                }
                let Filtered(changed) = filter.apply(text, &members)?;
                Ok(answer(changed, false))
            }
            Answer::Resumed(filters) => {
                // Of which request it is the answer nobody knows any more: whatever list it is.
                let Some(filter) = filters
                    .iter_mut()
                    .find(|filter| members.raw(filter.member).is_some())
                else {
                    return Ok(answer(None, false));
                };
                let Filtered(changed) = filter.apply(text, &members)?;
                Ok(answer(changed, false))
            }
            Answer::Initialize => {
                let version = members.text("protocolVersion");
                let revision = version.as_deref().and_then(Revision::parse);
                let revision = revision.filter(|revision| revision.has_sessions());
                let revision =
                    revision.ok_or("the server settles on a revision that is not spoken here")?;
                Ok(ServerMessage {
                    revision: Some(revision),
                    ..answer(None, false)
                })
            }
            Answer::Discover => discover(text, &members),
        }
    }
}

/// A result that asks for more input: its state is the agent's alone.
fn unfinished(text: &str, state: &str, seal: &StateSeal) -> Result<ServerMessage, &'static str> {
    let own = super::members::text(state).ok_or("the server's state is no text")?;
    let sealed = serde_json::Value::from(seal.seal(&own, Timestamp::now()));
    let mut edits = Edits::of(text);
    let range = place(text, state).ok_or("the server's state cannot be read")?;
    edits.replace(range, sealed.to_string());
    Ok(answer(Some(edits.done()), false))
}

/// Leaves of the revisions that a server offers those that are spoken here.
fn discover(text: &str, members: &Members<'_>) -> Result<ServerMessage, &'static str> {
    let raw = members
        .raw("supportedVersions")
        .ok_or("the server tells no versions")?;
    let versions: Vec<String> =
        serde_json::from_str(raw).map_err(|_| "the server's versions cannot be read")?;
    let spoken: Vec<&String> = versions
        .iter()
        .filter(|version| Revision::parse(version).is_some())
        .collect();
    if spoken.len() == versions.len() {
        return Ok(answer(None, false));
    }
    let mut edits = Edits::of(text);
    let list = serde_json::json!(spoken).to_string();
    edits.replace(
        place(text, raw).ok_or("the server's versions cannot be read")?,
        list,
    );
    Ok(answer(Some(edits.done()), false))
}

impl ServerMessage {
    /// That there was no message to read.
    pub(crate) fn none() -> Self {
        answer(None, false)
    }
}

fn answer(text: Option<String>, failed: bool) -> ServerMessage {
    ServerMessage {
        text,
        is_answer: true,
        failed,
        revision: None,
        lists_changed: false,
    }
}

/// An error has a whole number and text.
fn is_error(raw: &str) -> bool {
    Members::of(raw).is_some_and(|error| {
        let code = error.raw("code").map(str::parse::<i64>);
        matches!(code, Some(Ok(_))) && error.text("message").is_some()
    })
}

/// Members of results by which something is decided here.
const RESULT: &[&str] = &[
    "tools",
    "prompts",
    "resources",
    "resourceTemplates",
    "isError",
    "requestState",
    "resultType",
    "cacheScope",
    "protocolVersion",
    "supportedVersions",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Answer, text: &str) -> Result<ServerMessage, &'static str> {
        let mut expected = Expected {
            id: Some("7".to_owned()),
            kind,
            server_asks: false,
            states: None,
        };
        expected.read(text)
    }

    #[test]
    fn an_answer_is_the_one_that_was_waited_for() {
        let ok = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
        assert!(read(Answer::Plain, ok).unwrap().is_answer);
        let error = r#"{"jsonrpc":"2.0","error":{"code":-1,"message":"no"}}"#;
        assert!(read(Answer::Plain, error).unwrap().failed);
        for wrong in [
            r#"{"jsonrpc":"2.0","id":8,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":"7","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":[]}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{"code":1,"message":""}}"#,
            r#"{"jsonrpc":"2.0","id":7}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{},"Result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{"a":1,"a":2}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{"tools":[],"Tools":[]}}"#,
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":"1","message":""}}"#,
            r#"{"id":7,"result":{}}"#,
            r#"[{"jsonrpc":"2.0","id":7,"result":{}}]"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/x","params":[]}"#,
            "",
        ] {
            assert!(read(Answer::Plain, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_tool_that_failed_is_seen() {
        let text =
            |more: &str| format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"content":[]{more}}}}}"#);
        assert!(!read(Answer::Tool, &text("")).unwrap().failed);
        assert!(
            !read(Answer::Tool, &text(r#","isError":false"#))
                .unwrap()
                .failed
        );
        assert!(
            read(Answer::Tool, &text(r#","isError":true"#))
                .unwrap()
                .failed
        );
        assert!(read(Answer::Tool, &text(r#","isError":"no""#)).is_err());
    }

    #[test]
    fn only_revisions_that_are_spoken_come_through() {
        let settled = |version: &str| {
            let text =
                format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"protocolVersion":"{version}"}}}}"#);
            read(Answer::Initialize, &text).map(|message| message.revision)
        };
        assert_eq!(settled("2025-11-25"), Ok(Some(Revision::V20251125)));
        assert!(settled("2025-03-26").is_err() && settled("2026-07-28").is_err());
        let text = r#"{"jsonrpc":"2.0","id":7,"result":{"supportedVersions":["2025-03-26","2026-07-28"],"x":1}}"#;
        let changed = read(Answer::Discover, text).unwrap().text.unwrap();
        assert_eq!(
            changed,
            r#"{"jsonrpc":"2.0","id":7,"result":{"supportedVersions":["2026-07-28"],"x":1}}"#
        );
    }
}
