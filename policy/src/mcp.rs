//! The catalogue of MCP servers: which tools and methods there are, and what each of them needs.

mod compile;

pub use self::compile::is_segment;

use std::collections::HashMap;
use std::sync::Arc;

use agentca_identity::name::Environment;

use crate::call::Call;
use crate::catalogue::UpstreamDecl;
use crate::ceiling::{CeilingDecl, ExceptionDecl};
use crate::pins::Admitted;
use crate::tool::{MethodDecl, Tool, ToolDecl};

/// The most tools of a catalogue.
pub const MAX_TOOLS: usize = 100_000;

/// Compiled tools and methods, by upstream.
#[derive(Clone, Debug, Default)]
pub struct McpCatalogue {
    servers: HashMap<Arc<str>, Arc<McpServer>>,
}

/// What a catalogue is compiled from.
#[derive(Clone, Copy, Debug)]
pub struct McpParts<'a> {
    /// The upstreams of `kind = "mcp"`.
    pub upstreams: &'a [UpstreamDecl],
    /// `[[tool]]`.
    pub tools: &'a [ToolDecl],
    /// `[[method]]`.
    pub methods: &'a [MethodDecl],
    /// Pins and assessments that count.
    pub admitted: &'a Admitted,
    /// `[ceiling]`.
    pub ceiling: Option<&'a CeilingDecl>,
    /// `[[exception]]`.
    pub exceptions: &'a [ExceptionDecl],
    /// Where this is.
    pub environment: &'a Environment,
}

impl McpCatalogue {
    /// Compiles declarations.
    ///
    /// # Errors
    /// [`McpErrors`]: everything that is wrong, by table.
    pub fn compile(parts: &McpParts<'_>) -> Result<Self, McpErrors> {
        compile::compile(parts)
    }

    /// An upstream of `kind = "mcp"`, also one without a tool.
    #[must_use]
    pub fn server(&self, upstream: &str) -> Option<&Arc<McpServer>> {
        self.servers.get(upstream)
    }

    /// Every server, in no order.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<McpServer>> {
        self.servers.values()
    }

    /// How many tools there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.servers.values().map(|server| server.tools.len()).sum()
    }

    /// Whether there is no tool.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One MCP server's part of the catalogue.
#[derive(Clone, Debug)]
pub struct McpServer {
    name: Arc<str>,
    /// In the order of declaration.
    tools: Vec<Arc<Tool>>,
    by_name: HashMap<Arc<str>, Arc<Tool>>,
    methods: HashMap<Box<str>, Arc<Call>>,
    /// By tool, also of those without a table.
    rejected: HashMap<Box<str>, Vec<[u8; 32]>>,
}

impl McpServer {
    /// The upstream's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The tool of that name.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<&Arc<Tool>> {
        self.by_name.get(name)
    }

    /// Every tool, in the order of declaration.
    #[must_use]
    pub fn tools(&self) -> &[Arc<Tool>] {
        &self.tools
    }

    /// Whether a person rejected this definition of a tool.
    #[must_use]
    pub fn rejects(&self, tool: &str, digest: &[u8; 32]) -> bool {
        let rejected = self.rejected.get(tool);
        rejected.is_some_and(|rejected| rejected.contains(digest))
    }

    /// What a method needs, like `resources/read`.
    #[must_use]
    pub fn method(&self, name: &str) -> Option<&Arc<Call>> {
        self.methods.get(name)
    }

    /// Every method that is declared, in no order.
    pub fn methods(&self) -> impl Iterator<Item = (&str, &Arc<Call>)> {
        self.methods.iter().map(|(name, call)| (&**name, call))
    }
}

/// Everything that is wrong with a catalogue; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct McpErrors(Vec<McpError>);

impl McpErrors {
    /// The errors, tables in the order in which they are compiled.
    pub fn iter(&self) -> impl Iterator<Item = &McpError> {
        self.0.iter()
    }
}

/// What is wrong with one table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", self.key())]
pub struct McpError {
    /// Which kind of table.
    pub table: McpTable,
    /// Its place among its kind, from 0.
    pub index: usize,
    /// The key in it, unless it is about the table.
    pub field: Option<&'static str>,
    /// What is wrong.
    pub message: String,
}

/// The kinds of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum McpTable {
    /// `[[tool]]`.
    Tool,
    /// `[[method]]`.
    Method,
    /// `[[exception]]`.
    Exception,
    /// `[ceiling]`.
    Ceiling,
}

impl McpError {
    /// The key as in the file, tables by their place from 1: `tool[3].scope`.
    #[must_use]
    pub fn key(&self) -> String {
        let number = self.index.saturating_add(1);
        let at = match self.table {
            McpTable::Tool => format!("tool[{number}]"),
            McpTable::Method => format!("method[{number}]"),
            McpTable::Exception => format!("exception[{number}]"),
            McpTable::Ceiling => "ceiling".to_owned(),
        };
        match self.field {
            Some(field) => format!("{at}.{field}"),
            None => at,
        }
    }
}

#[cfg(test)]
mod tests;
