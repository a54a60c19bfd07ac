//! What a message of MCP asks for, and what the catalogue has for it.

use std::sync::Arc;

use agentca_identity::time::Timestamp;
use agentca_policy::{Call, McpServer, Risk, Rule};

use super::doorway::Doorway;
use super::revision::Revision;
use super::rpc::{Kind, Message};
use crate::live::Live;
use crate::road::{Denial, Matched, Refusal, nothing_open};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks<'a> {
    /// What every conversation needs: open to whoever may use anything of the server. It has this name in
    /// records.
    Talk(&'a str),
    /// A tool.
    Tool(&'a str),
    /// Another method, by its entry in the catalogue.
    Method(&'a str),
    /// A method that this revision does not have.
    Nothing,
}

impl<'a> Asks<'a> {
    pub(crate) fn of(message: &'a Message, revision: Option<Revision>) -> Self {
        let request = match message.kind() {
            Kind::Request(request) => request,
            Kind::Notification { method } => return Self::Talk(method),
            Kind::Response => return Self::Talk("response"),
        };
        let sessions = revision.is_none_or(Revision::has_sessions);
        match request.method.as_str() {
            "tools/call" => Self::Tool(request.params.name.as_deref().unwrap_or_default()),
            "initialize" | "ping" if sessions => Self::Talk(&request.method),
            "server/discover" if !sessions => Self::Talk(&request.method),
            "tools/list" | "resources/list" | "resources/templates/list" | "prompts/list" => {
                Self::Talk(&request.method)
            }
            "resources/subscribe" | "resources/unsubscribe" if sessions => {
                Self::Method("resources/subscribe")
            }
            "logging/setLevel" | "tasks/list" | "tasks/result" if sessions => {
                Self::Method(&request.method)
            }
            "subscriptions/listen" | "tasks/update" if !sessions => Self::Method(&request.method),
            "resources/read"
            | "prompts/get"
            | "completion/complete"
            | "tasks/get"
            | "tasks/cancel" => Self::Method(&request.method),
            _ => Self::Nothing,
        }
    }

    /// What of the catalogue it is. `may` says whether a call is within the caller's rights.
    ///
    /// # Errors
    /// [`Refusal`] by the catalogue: there is none, or the tool is not to be called as it is now.
    pub(crate) fn find(
        self,
        live: &Live,
        doorway: &Doorway,
        now: Timestamp,
        may: impl Fn(&Call) -> bool,
    ) -> Result<Matched, Refusal> {
        let server = doorway.server().ok_or_else(|| absent("the server"))?;
        match self {
            Self::Tool(name) => tool(live, server, name, now),
            Self::Method(name) => server
                .method(name)
                .map(|call| Matched::Method(Arc::clone(call)))
                .ok_or_else(|| absent("the method").into()),
            Self::Talk(name) => talk(server, name, may).map(Matched::Talk),
            Self::Nothing => Err(absent("the method").into()),
        }
    }
}

fn tool(
    live: &Live,
    server: &Arc<McpServer>,
    name: &str,
    now: Timestamp,
) -> Result<Matched, Refusal> {
    let tool = server
        .tool(name)
        .ok_or_else(|| undeclared(live, server, name))?;
    let seen = live.seen_tools().digest(server.name(), name);
    match tool.standing(seen.as_ref(), now) {
        Ok(standing) => Ok(Matched::Tool {
            tool: Arc::clone(tool),
            unverified: standing.unverified(),
            excepted: standing.exception().is_some(),
            tier: standing.tier(),
        }),
        Err(refusal) => Err(Refusal {
            denial: Denial::new(refusal.rule, refusal.detail),
            matched: Some(Matched::Tool {
                tool: Arc::clone(tool),
                unverified: false,
                excepted: false,
                tier: None,
            }),
        }),
    }
}

/// A tool without a table is new when its server shows it, else there is none.
fn undeclared(live: &Live, server: &McpServer, name: &str) -> Denial {
    let seen = live.seen_tools().of(server.name());
    if !seen.shows(name) {
        return absent("the tool");
    }
    let is_rejected = seen
        .digest(name)
        .is_some_and(|seen| server.rejects(name, &seen));
    let what = match is_rejected {
        true => "is withheld: a person rejected it as it is now",
        false => {
            "is new and nobody approved it: a person has to see to it, with `agentca-enforcer catalogue diff`"
        }
    };
    let detail = format!("the tool `{name}` {what}");
    Denial::new(Rule::ToolChanged, detail)
}

/// What is open to whoever may use anything: it needs what the first such thing needs.
fn talk(server: &McpServer, name: &str, may: impl Fn(&Call) -> bool) -> Result<Arc<Call>, Refusal> {
    let tools = server.tools().iter().map(|tool| &tool.call);
    let Some(open) = tools
        .chain(server.methods().map(|(_, call)| call))
        .find(|call| may(call))
    else {
        return Err(nothing_open().into());
    };
    Ok(Arc::new(Call {
        upstream: Arc::clone(&open.upstream),
        name: format!("mcp:{}:{}", server.name(), name.replace('/', ":")),
        scope: open.scope.clone(),
        min_trust: open.min_trust,
        risk: Risk::Read,
        classification: None,
    }))
}

fn absent(what: &str) -> Denial {
    Denial::new(
        Rule::NotInCatalogue,
        format!("{what} is not in the catalogue"),
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn each_revision_has_its_own_methods() {
        let check = |method: &str, revision: Revision, expected: Asks<'_>| {
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"x","uri":"y"}}}}"#
            );
            let message = Message::read(Bytes::from(text)).unwrap();
            assert_eq!(Asks::of(&message, Some(revision)), expected, "{method}");
        };
        let (old, new) = (Revision::V20251125, Revision::V20260728);
        for gone in [
            "initialize",
            "ping",
            "logging/setLevel",
            "resources/subscribe",
            "resources/unsubscribe",
            "tasks/list",
            "unknown/method",
        ] {
            check(gone, new, Asks::Nothing);
        }
        for fresh in [
            "server/discover",
            "subscriptions/listen",
            "tasks/update",
            "unknown/method",
        ] {
            check(fresh, old, Asks::Nothing);
        }
        check("initialize", old, Asks::Talk("initialize"));
        check(
            "resources/unsubscribe",
            old,
            Asks::Method("resources/subscribe"),
        );
        check(
            "subscriptions/listen",
            new,
            Asks::Method("subscriptions/listen"),
        );
        check("tools/call", new, Asks::Tool("x"));
    }
}
