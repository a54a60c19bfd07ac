//! What `kind = "mcp"` adds to an upstream.

use std::collections::BTreeMap;
use std::time::Duration;

use super::errors::{Errors, blame};
use super::section::Section;

/// How an MCP server behind the enforcer is treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpOptions {
    /// Whether it is also reached at `/mcp`, together with others, its tools under prefixed names.
    pub shared: bool,
    /// In what form a denied `tools/call` is told.
    pub deny_as: DenyAs,
    /// The longest that it may say nothing while a call runs.
    pub timeout: Duration,
    /// How often its tools are listed to see whether they changed.
    pub watch: Duration,
}

/// In what form a denied `tools/call` is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenyAs {
    /// A result with `isError: true`, which the model can read.
    Result,
    /// A JSON-RPC error.
    Error,
}

/// A program and its arguments, started without a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Environment variables besides `PATH` and `HOME`.
    pub environment: BTreeMap<String, String>,
    /// How many of it may run at once.
    pub max_processes: usize,
    /// How long one is kept that nobody uses.
    pub idle: Duration,
}

/// What is written.
#[derive(Debug)]
pub(super) struct RawMcp {
    pub(super) command: Option<CommandLine>,
    pub(super) options: McpOptions,
}

pub(super) fn read(section: &mut Section, errors: &mut Errors) -> RawMcp {
    let words = section.texts(errors, "command", "mcp-server");
    let environment = read_environment(section, errors);
    let max_processes = section.count(errors, "max_processes", MAX_PROCESSES, 1..=10_000);
    let idle_range = Duration::from_secs(1)..=Duration::from_secs(86_400);
    let idle = section.duration(errors, "idle", IDLE, idle_range);
    let command = words.and_then(|words| {
        let (program, arguments) = words.split_first()?;
        Some(CommandLine {
            program: program.clone(),
            arguments: arguments.to_vec(),
            environment,
            max_processes,
            idle,
        })
    });
    let deny_as = section.text(errors, "deny_as", "error");
    let deny_as = match deny_as.as_deref().unwrap_or("result") {
        "result" => DenyAs::Result,
        "error" => DenyAs::Error,
        other => {
            let message = format!("`{other}` is neither `result` nor `error`");
            blame(errors, section.key("deny_as"), message);
            DenyAs::Result
        }
    };
    let range = Duration::from_millis(100)..=Duration::from_secs(86_400);
    let options = McpOptions {
        shared: section.flag(errors, "shared"),
        deny_as,
        timeout: section.duration(errors, "timeout", TIMEOUT, range.clone()),
        watch: section.duration(errors, "watch", WATCH, range),
    };
    RawMcp { command, options }
}

fn read_environment(section: &mut Section, errors: &mut Errors) -> BTreeMap<String, String> {
    let mut environment = section.named_texts(errors, "env", "LANG = \"C\"");
    environment.retain(|name, value| {
        let is_good = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        if !is_good {
            let key = section.key(&format!("env.{}", name.escape_default()));
            blame(errors, key, "cannot be an environment variable");
        }
        is_good
    });
    environment
}

const MAX_PROCESSES: usize = 64;
const IDLE: Duration = Duration::from_secs(300);
const TIMEOUT: Duration = Duration::from_secs(300);
const WATCH: Duration = Duration::from_secs(30);
