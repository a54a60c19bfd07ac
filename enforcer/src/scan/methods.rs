//! Methods besides tools that agents may call, by what a server says it offers.

use agentca_policy::Risk;

use crate::mcp_client::Server;

/// A method and what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) name: &'static str,
    pub(super) risk: Risk,
}

/// Everything that is worth a `[[method]]`; lists need none.
pub(super) fn offered(server: &Server) -> Vec<Offered> {
    let has = |name: &str| server.capabilities.contains(name);
    let has_sessions = server.revision != "2026-07-28";
    let changes = ["tools", "prompts", "resources"]
        .iter()
        .any(|name| has(&format!("{name}.listChanged")));
    let has_tasks = if has_sessions {
        has("tasks")
    } else {
        has("extensions.io.modelcontextprotocol/tasks")
    };
    let read = |name, wanted| (wanted, name, Risk::Read);
    let write = |name, wanted| (wanted, name, Risk::Write);
    let all = [
        read("resources/read", has("resources")),
        read(
            "resources/subscribe",
            has_sessions && has("resources.subscribe"),
        ),
        read(
            "subscriptions/listen",
            !has_sessions && (changes || has("resources.subscribe")),
        ),
        read("prompts/get", has("prompts")),
        read("completion/complete", has("completions")),
        write("logging/setLevel", has_sessions && has("logging")),
        read("tasks/get", has_tasks),
        read("tasks/result", has_tasks && has_sessions),
        read("tasks/list", has_tasks && has_sessions && has("tasks.list")),
        write("tasks/update", has_tasks && !has_sessions),
        write("tasks/cancel", has_tasks),
    ];
    let wanted = all.into_iter().filter(|(wanted, _, _)| *wanted);
    wanted
        .map(|(_, name, risk)| Offered { name, risk })
        .collect()
}
