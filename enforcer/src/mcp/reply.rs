//! What an MCP server answers, read as strictly as what it is asked: what cannot be read is not passed on.

use agentca_identity::time::Timestamp;
use bytes::Bytes;

use super::lists::{Filter, Filtered};
use super::request_state::StateSeal;
use super::revision::Revision;
use super::splice::changed;
use crate::jsonrpc::{self, Came, Fault, Members, Message, Shape};

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
    pub(crate) fn read(&mut self, text: &str, came: Came) -> Result<ServerMessage, &'static str> {
        if let Answer::List(filter) = &self.kind
            && let Some(id) = &self.id
            && let Some(filtered) = filter.known(text, id)
        {
            return Ok(answer(Some(filtered), false));
        }
        self.read_all(text, came)
    }

    /// Reads one message that is at hand: gives it as it is passed on.
    ///
    /// # Errors
    /// As [`Expected::read`].
    pub(crate) fn read_whole(
        &mut self,
        bytes: Bytes,
    ) -> Result<(Bytes, ServerMessage), &'static str> {
        if let Answer::List(filter) = &self.kind
            && let Some(id) = &self.id
            && let Some(changes) = filter.changes(&bytes, id)
        {
            let filtered = changed(bytes, &changes).ok_or("the server's list cannot be read")?;
            return Ok((filtered, answer(None, false)));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| "the server's answer is not UTF-8")?;
        let mut told = self.read_all(text, Came::Unread)?;
        let bytes = told.text.take().map_or(bytes, Bytes::from);
        Ok((bytes, told))
    }

    fn read_all(&mut self, text: &str, came: Came) -> Result<ServerMessage, &'static str> {
        let message = Message::came(text, came).map_err(|fault| why(&fault))?;
        match message.shape() {
            Shape::Request { .. } if !self.server_asks => {
                Err("the server asks, which this revision does not let it")
            }
            Shape::Request { method, .. } | Shape::Notification { method, .. } => {
                Ok(ServerMessage {
                    lists_changed: method == "notifications/tools/list_changed",
                    is_answer: false,
                    ..answer(None, false)
                })
            }
            Shape::Result { id, .. } | Shape::Error { id: Some(id), .. } if !self.awaits(id) => {
                Err(ANOTHERS)
            }
            Shape::Result { result, .. } => self.result(&message, result),
            Shape::Error { .. } => Ok(answer(None, true)),
        }
    }

    fn awaits(&self, id: &str) -> bool {
        match &self.id {
            Some(expected) => expected == id,
            None => matches!(self.kind, Answer::Resumed(_)),
        }
    }

    fn result(
        &mut self,
        message: &Message<'_>,
        result: &str,
    ) -> Result<ServerMessage, &'static str> {
        let text = message.text();
        let members = Members::of(result).ok_or("the server's result cannot be read")?;
        if members.disguised(RESULT).is_some() {
            return Err("the server's result has members that could be taken for others");
        }
        if let (Some(seal), Some(state)) = (&self.states, members.raw("requestState")) {
            return unfinished(message, state, seal);
        }
        match &self.kind {
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
            Answer::Resumed(filters) => Ok(answer(resumed(filters, text)?, false)),
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
            Answer::Discover => discover(message, &members),
        }
    }
}

/// Of which request it is the answer nobody knows any more: every list in it is filtered.
fn resumed(filters: &[Filter], text: &str) -> Result<Option<String>, &'static str> {
    let mut changed: Option<String> = None;
    for filter in filters {
        let text = changed.as_deref().unwrap_or(text);
        let members = Members::of(text).and_then(|message| message.members("result"));
        let members = members.ok_or("the server's result cannot be read")?;
        if members.raw(filter.member).is_some() {
            let Filtered(filtered) = filter.apply(text, &members)?;
            changed = filtered.or(changed);
        }
    }
    Ok(changed)
}

/// A result that asks for more input: its state is the agent's alone.
fn unfinished(
    message: &Message<'_>,
    state: &str,
    seal: &StateSeal,
) -> Result<ServerMessage, &'static str> {
    let own = jsonrpc::text(state).ok_or("the server's state is no text")?;
    let sealed = seal
        .seal(&own, Timestamp::now())
        .ok_or("the server's state belongs to no request")?;
    let sealed = serde_json::Value::from(sealed);
    let text = message.with([(state, &sealed.to_string())]);
    Ok(answer(Some(text), false))
}

/// Leaves of the revisions that a server offers those that are spoken here.
fn discover(message: &Message<'_>, members: &Members<'_>) -> Result<ServerMessage, &'static str> {
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
    let list = serde_json::json!(spoken).to_string();
    Ok(answer(Some(message.with([(raw, &list)])), false))
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

/// What a record says of a message that is none.
fn why(fault: &Fault) -> &'static str {
    match fault {
        Fault::Json(_) => "the server's message is no strict JSON",
        Fault::NoObject => "the server's message is no JSON-RPC message",
        Fault::Member(_) => "the server's message has members that JSON-RPC does not know",
        Fault::Version => "the server's message is no JSON-RPC 2.0",
        Fault::Id => "the server's message has no usable id",
        Fault::Method => "the server's message has no method",
        Fault::Params => "the server's message has no object as its parameters",
        Fault::Both => "the server's message is both a request and an answer",
        Fault::Neither | Fault::Outcome => {
            "the server's answer has neither one result nor one error"
        }
    }
}

const ANOTHERS: &str = "the server answers another request";
/// Members of results by which something is decided here.
pub(super) const RESULT: &[&str] = &[
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
        expected.read(text, Came::Unread)
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
