//! The reading of what servers say, by itself: for whoever holds it against others.

use std::sync::Arc;

use agentca_identity::crypto::MacKey;
use agentca_identity::scope::ScopeSet;
use agentca_identity::time::Timestamp;
use agentca_identity::trust::TrustLevel;
use agentca_policy::McpServer;
use bytes::Bytes;

use super::lists::{Filter, Judge, ToolJudge};
use super::pages::Pages;
use super::reply::{Answer, Expected};
use super::request_state::{StateSeal, Whose};
use super::rpc::Message;
use super::seen::{Seen, SeenTools};
use crate::jsonrpc::Came;
use crate::peer::Rights;

/// Reads what a server answers to request `7` of one agent.
#[derive(Debug)]
pub struct ServerReader {
    server: Arc<McpServer>,
    seen: Arc<Seen>,
    pages: Arc<Pages>,
    rights: Rights,
    states: Arc<MacKey>,
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `tools/list`.
    Tools,
    /// `prompts/list`, by an agent that may use all prompts or none.
    Prompts {
        /// Which of the two.
        all: bool,
    },
    /// `tools/call` in the revision without sessions.
    Call,
    /// `initialize`.
    Initialize,
    /// `server/discover`.
    Discover,
}

impl ServerReader {
    /// For an agent with these rights, and a key to seal states with.
    #[must_use]
    pub fn new(
        server: Arc<McpServer>,
        scopes: ScopeSet,
        trust: TrustLevel,
        states: MacKey,
    ) -> Self {
        Self {
            seen: SeenTools::default().of(server.name()),
            server,
            pages: Arc::default(),
            rights: Rights::new(scopes, trust, None),
            states: Arc::new(states),
        }
    }

    /// What of an answer is passed on to the agent, if it is.
    #[must_use]
    pub fn read(&self, asked: Asked, text: &str) -> Option<String> {
        let list = |member, judge| Answer::List(Filter { member, judge });
        let kind = match asked {
            Asked::Tools => list("tools", Judge::Tools(self.judge())),
            Asked::Prompts { all } => list("prompts", Judge::All(all)),
            Asked::Call => Answer::Tool,
            Asked::Initialize => Answer::Initialize,
            Asked::Discover => Answer::Discover,
        };
        let mut expected = Expected {
            id: Some("7".to_owned()),
            kind,
            server_asks: false,
            states: self.seal().filter(|_| asked == Asked::Call),
        };
        let message = expected.read(text, Came::Unread).ok()?;
        Some(message.text.unwrap_or_else(|| text.to_owned()))
    }

    /// Forgets the pages that it read.
    pub fn forget_pages(&mut self) {
        self.pages = Arc::default();
    }

    /// As which a tool was seen last.
    #[must_use]
    pub fn seen(&self, tool: &str) -> Option<[u8; 32]> {
        self.seen.digest(tool)
    }

    /// The server's own state in one that was passed on.
    #[must_use]
    pub fn opened(&self, state: &str) -> Option<String> {
        let seal = self.seal()?;
        seal.open(state, Timestamp::now()).map(str::to_owned)
    }

    fn judge(&self) -> ToolJudge {
        ToolJudge {
            server: Arc::clone(&self.server),
            seen: Arc::clone(&self.seen),
            pages: Arc::clone(&self.pages),
            now: Timestamp::now(),
            rights: self.rights.clone(),
        }
    }

    fn seal(&self) -> Option<StateSeal> {
        let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"pay"}}"#;
        let message = Message::read(Bytes::from_static(call.as_bytes())).ok()?;
        let whose = Whose {
            upstream: Arc::clone(self.server.name()),
            agent: "spiffe://example.org/prod/agent/support-01".into(),
            grant: 1,
        };
        Some(StateSeal::of(&self.states, whose, &message))
    }
}

#[cfg(test)]
mod tests;
