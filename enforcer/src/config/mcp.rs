//! What `kind = "mcp"` adds to an upstream.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use toml::Value;

use super::errors::{Errors, blame, note};
use super::section::Section;
use super::upstream::{SecretSource, parse_source};

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
    /// How long its tools are judged as they were listed last while they cannot be listed.
    pub watch_max_age: Duration,
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
#[derive(Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The program: looked for in `PATH` unless its path is written.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Environment variables besides `PATH` and `HOME`.
    pub environment: BTreeMap<String, String>,
    /// Those whose values are secret, and where they are read from at each start.
    pub secrets: BTreeMap<String, SecretSource>,
    /// How many of it may run at once.
    pub max_processes: usize,
    /// How long one is kept that nobody uses.
    pub idle: Duration,
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secret whatever they were declared as.
        let names: Vec<&String> = self.environment.keys().collect();
        f.debug_struct("CommandLine")
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .field("environment", &names)
            .field("secrets", &self.secrets)
            .field("max_processes", &self.max_processes)
            .field("idle", &self.idle)
            .finish()
    }
}

/// What is written.
#[derive(Debug)]
pub(super) struct RawMcp {
    pub(super) command: Option<CommandLine>,
    pub(super) options: McpOptions,
}

pub(super) fn read(section: &mut Section, base: &Path, errors: &mut Errors) -> RawMcp {
    let words = section.texts(errors, "command", "mcp-server");
    let environment = read_environment(section, errors);
    let secrets = read_secrets(section, base, errors);
    for name in secrets
        .keys()
        .filter(|name| environment.contains_key(*name))
    {
        let key = section.key(&format!("env_from.{}", name.escape_default()));
        blame(errors, key, "is in `env` too: keep one of them");
    }
    let max_processes = section.count(errors, "max_processes", MAX_PROCESSES, 1..=10_000);
    let idle_range = Duration::from_secs(1)..=Duration::from_secs(86_400);
    let idle = section.duration(errors, "idle", IDLE, idle_range);
    let command = words.and_then(|words| {
        let (program, arguments) = words.split_first()?;
        Some(CommandLine {
            program: beside(program, base),
            arguments: arguments.to_vec(),
            environment,
            secrets,
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
    let watch = section.duration(errors, "watch", WATCH, range.clone());
    let oldest = Duration::from_millis(100)..=Duration::from_secs(30 * 86_400);
    let watch_max_age = section.duration(errors, "watch_max_age", WATCH_MAX_AGE, oldest);
    if watch_max_age < watch {
        blame(
            errors,
            section.key("watch_max_age"),
            "must not be less than `watch`",
        );
    }
    let options = McpOptions {
        shared: section.flag(errors, "shared"),
        deny_as,
        timeout: section.duration(errors, "timeout", TIMEOUT, range),
        watch,
        watch_max_age,
    };
    RawMcp { command, options }
}

fn read_environment(section: &mut Section, errors: &mut Errors) -> BTreeMap<String, String> {
    let mut environment = section.named_texts(errors, "env", "LANG = \"C\"");
    environment.retain(|name, value| {
        let is_good = is_variable(name) && !value.contains('\0');
        if !is_good {
            let key = section.key(&format!("env.{}", name.escape_default()));
            blame(errors, key, "cannot be an environment variable");
        }
        is_good
    });
    environment
}

fn read_secrets(
    section: &mut Section,
    base: &Path,
    errors: &mut Errors,
) -> BTreeMap<String, SecretSource> {
    let members = match section.value("env_from") {
        None => return BTreeMap::new(),
        Some(Value::Table(members)) => members,
        Some(_) => {
            let message = "must be a table, like `env_from = { API_KEY = \"file:api.key\" }`";
            blame(errors, section.key("env_from"), message);
            return BTreeMap::new();
        }
    };
    let mut secrets = BTreeMap::new();
    for (name, value) in members {
        let key = section.key(&format!("env_from.{}", name.escape_default()));
        if !is_variable(&name) {
            blame(errors, key, "cannot be an environment variable");
        } else if let Some(source) = note(errors, &key, parse_source(&value, base)) {
            secrets.insert(name, source);
        }
    }
    secrets
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// A path is relative to the configuration; a name alone is looked for in `PATH`.
fn beside(program: &str, base: &Path) -> String {
    if !program.contains('/') {
        return program.to_owned();
    }
    let path = base.join(program);
    path.to_str()
        .map_or_else(|| program.to_owned(), str::to_owned)
}

const MAX_PROCESSES: usize = 64;
const IDLE: Duration = Duration::from_secs(300);
const TIMEOUT: Duration = Duration::from_secs(300);
const WATCH: Duration = Duration::from_secs(30);
const WATCH_MAX_AGE: Duration = Duration::from_secs(86_400);
