//! The kinds of things that are counted apart: labels whose values are known beforehand.

use crate::upstream::UpstreamError;

/// How an upstream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Connect,
    TimedOut,
    Exchange,
    Unusable,
    NoCredential,
    Process,
}

impl Failure {
    pub(super) const ALL: [Self; 6] = [
        Self::Connect,
        Self::TimedOut,
        Self::Exchange,
        Self::Unusable,
        Self::NoCredential,
        Self::Process,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::TimedOut => "timeout",
            Self::Exchange => "exchange",
            Self::Unusable => "unusable",
            Self::NoCredential => "no-credential",
            Self::Process => "process",
        }
    }
}

impl From<&UpstreamError> for Failure {
    fn from(error: &UpstreamError) -> Self {
        match error {
            UpstreamError::Connect(_) => Self::Connect,
            UpstreamError::TimedOut => Self::TimedOut,
            UpstreamError::Exchange(_) => Self::Exchange,
            UpstreamError::Program(_) => Self::Process,
            UpstreamError::Unusable(_) => Self::Unusable,
        }
    }
}

/// What an MCP message asks for: a client can't make up more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum McpKind {
    Call,
    List,
    Resource,
    Prompt,
    Completion,
    Subscription,
    Task,
    Session,
    Notification,
    Other,
}

impl McpKind {
    pub(super) const ALL: [Self; 10] = [
        Self::Call,
        Self::List,
        Self::Resource,
        Self::Prompt,
        Self::Completion,
        Self::Subscription,
        Self::Task,
        Self::Session,
        Self::Notification,
        Self::Other,
    ];

    /// Of a method's name.
    pub(crate) fn of(method: &str) -> Self {
        match method.split_once('/').unwrap_or((method, "")) {
            ("tools", "call") => Self::Call,
            (_, "list") | ("resources", "templates/list") => Self::List,
            ("resources", "subscribe" | "unsubscribe") | ("subscriptions", _) => Self::Subscription,
            ("resources", _) => Self::Resource,
            ("prompts", _) => Self::Prompt,
            ("completion", _) => Self::Completion,
            ("tasks", _) => Self::Task,
            ("initialize" | "ping" | "server", _) => Self::Session,
            ("notifications", _) => Self::Notification,
            _ => Self::Other,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::List => "list",
            Self::Resource => "resource",
            Self::Prompt => "prompt",
            Self::Completion => "completion",
            Self::Subscription => "subscription",
            Self::Task => "task",
            Self::Session => "session",
            Self::Notification => "notification",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_of_few_kinds() {
        for (method, kind) in [
            ("tools/call", McpKind::Call),
            ("tools/list", McpKind::List),
            ("resources/templates/list", McpKind::List),
            ("resources/read", McpKind::Resource),
            ("resources/subscribe", McpKind::Subscription),
            ("initialize", McpKind::Session),
            ("notifications/progress", McpKind::Notification),
            ("anything a client makes up", McpKind::Other),
        ] {
            assert_eq!(McpKind::of(method), kind, "{method}");
        }
    }
}
