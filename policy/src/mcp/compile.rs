//! From declared tables to the catalogue; everything that is wrong is told at once.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use agentca_identity::scope::RequiredScope;
use agentca_identity::trust::TrustLevel;

use super::{MAX_TOOLS, McpCatalogue, McpError, McpErrors, McpParts, McpServer, McpTable};
use crate::call::{Call, Risk};
use crate::catalogue::check_classification;
use crate::ceiling::{Ceiling, ExceptionDecl, Exceptions, Unverified};
use crate::pins::Admitted;
use crate::tool::{Assessed, MethodDecl, Tool, ToolDecl, Wants};

pub(super) fn compile(parts: &McpParts<'_>) -> Result<McpCatalogue, McpErrors> {
    let mut compiler = Compiler::new(parts);
    let exceptions = compiler.exceptions(parts);
    for (index, decl) in parts.tools.iter().enumerate().take(MAX_TOOLS + 1) {
        compiler.place = (McpTable::Tool, index);
        if index == MAX_TOOLS {
            compiler.blame(None, format!("there are more than {MAX_TOOLS} tools"));
            break;
        }
        compiler.tool(decl, parts.admitted, &exceptions);
    }
    for (index, decl) in parts.methods.iter().enumerate() {
        compiler.place = (McpTable::Method, index);
        compiler.method(decl);
    }
    for (upstream, tool, digests) in parts.admitted.rejections() {
        if let Some(server) = compiler.servers.get_mut(upstream) {
            server.rejected.insert(tool.into(), digests.to_vec());
        }
    }
    compiler.finish()
}

struct Compiler {
    servers: HashMap<Arc<str>, McpServer>,
    ceiling: Ceiling,
    errors: Vec<McpError>,
    /// What is being compiled.
    place: (McpTable, usize),
}

/// What tools and methods have in common.
struct CallDecl<'a> {
    upstream: &'a str,
    /// `mcp:<upstream>:<…>`: the call's name and its default scope.
    name: String,
    scope: Option<&'a str>,
    min_trust: &'a str,
    risk: Risk,
    classification: Option<&'a str>,
}

impl Compiler {
    fn new(parts: &McpParts<'_>) -> Self {
        let server = |name: &str| {
            let name: Arc<str> = name.into();
            let server = McpServer {
                name: Arc::clone(&name),
                tools: Vec::new(),
                by_name: HashMap::new(),
                methods: HashMap::new(),
                rejected: HashMap::new(),
            };
            (name, server)
        };
        let upstreams = parts.upstreams.iter();
        let mut compiler = Self {
            servers: upstreams.map(|upstream| server(&upstream.name)).collect(),
            ceiling: Ceiling::of(parts.ceiling),
            errors: Vec::new(),
            place: (McpTable::Ceiling, 0),
        };
        let is_dev = parts.environment.as_str() == "dev";
        if compiler.ceiling.unverified == Unverified::Mark && !is_dev {
            let message = format!(
                "`mark` is for the environment `dev` alone, and this is `{}`",
                parts.environment
            );
            compiler.blame(Some("unverified"), message);
        }
        compiler
    }

    fn finish(self) -> Result<McpCatalogue, McpErrors> {
        if !self.errors.is_empty() {
            return Err(McpErrors(self.errors));
        }
        let servers = self.servers.into_iter();
        Ok(McpCatalogue {
            servers: servers
                .map(|(name, server)| (name, Arc::new(server)))
                .collect(),
        })
    }

    fn blame(&mut self, field: Option<&'static str>, message: impl ToString) {
        let (table, index) = self.place;
        self.errors.push(McpError {
            table,
            index,
            field,
            message: message.to_string(),
        });
    }

    /// Notes what is wrong with a value.
    fn keep<T>(&mut self, field: &'static str, value: Result<T, String>) -> Option<T> {
        value
            .map_err(|message| self.blame(Some(field), message))
            .ok()
    }

    /// By tool, the one that runs longest; those of tools that do not exist are mistakes.
    fn exceptions<'a>(&mut self, parts: &McpParts<'a>) -> Exceptions<'a> {
        let mut exceptions = Exceptions::new();
        let tools = parts.tools.iter();
        let known: std::collections::HashSet<(&str, &str)> = tools
            .map(|tool| (tool.upstream.as_str(), tool.name.as_str()))
            .collect();
        for (index, decl) in parts.exceptions.iter().enumerate() {
            self.place = (McpTable::Exception, index);
            self.check_exception(decl);
            // That of a route is compiled with the routes.
            let tool = match (decl.tool.as_deref(), &decl.route) {
                (Some(tool), None) => tool,
                (None, Some(_)) => continue,
                (Some(_), Some(_)) | (None, None) => {
                    self.blame(None, "names neither a `tool` nor a `route`, or both");
                    continue;
                }
            };
            let name = (decl.upstream.as_str(), tool);
            if !known.contains(&name) {
                let message = format!("no `[[tool]]` is `{tool}` of `{}`", decl.upstream);
                self.blame(Some("tool"), message);
            }
            let longest = exceptions
                .get(&name)
                .is_none_or(|other: &Arc<ExceptionDecl>| other.ends < decl.ends);
            if longest {
                exceptions.insert(name, Arc::new(decl.clone()));
            }
        }
        exceptions
    }

    fn check_exception(&mut self, decl: &ExceptionDecl) {
        let said = [
            ("owner", &decl.owner),
            ("justification", &decl.justification),
            ("compensating_control", &decl.compensating_control),
        ];
        for (field, text) in said {
            if text.trim().is_empty() {
                self.blame(Some(field), "is empty: an exception says it");
            }
        }
    }

    fn tool(&mut self, decl: &ToolDecl, admitted: &Admitted, exceptions: &Exceptions<'_>) {
        let name = self.keep("name", check_tool_name(&decl.name));
        let call = self.call(&CallDecl {
            upstream: &decl.upstream,
            name: format!("mcp:{}:{}", decl.upstream, decl.name),
            scope: decl.scope.as_deref(),
            min_trust: &decl.min_trust,
            risk: decl.risk,
            classification: decl.classification.as_deref(),
        });
        let (Some(()), Some(call)) = (name, call) else {
            return;
        };
        let tool = Arc::new(self.compile_tool(decl, call, admitted, exceptions));
        let Some(server) = self.servers.get_mut(decl.upstream.as_str()) else {
            return;
        };
        let name = Arc::clone(&tool.name);
        if server.by_name.insert(name, Arc::clone(&tool)).is_some() {
            let message = format!("`{}` of `{}` appears twice", decl.name, decl.upstream);
            self.blame(Some("name"), message);
            return;
        }
        server.tools.push(tool);
    }

    fn compile_tool(
        &self,
        decl: &ToolDecl,
        call: Arc<Call>,
        admitted: &Admitted,
        exceptions: &Exceptions<'_>,
    ) -> Tool {
        // Every key is named: a new one cannot be dropped unread.
        let ToolDecl {
            upstream,
            name,
            scope: _,
            min_trust: _,
            risk: _,
            risk_reason,
            classification: _,
            publisher,
            version,
            permissions,
            data_flow,
        } = decl;
        let permissions = permissions.or(self.ceiling.undeclared);
        let (mut wants, reviewed) = self.wants(upstream, name, admitted);
        wants.above_ceiling = self.ceiling.exceeded_by(&permissions);
        wants.review_missing = permissions.wants_review().filter(|_| !reviewed);
        wants.exception = exceptions.get(&(upstream.as_str(), name.as_str())).cloned();
        let pin = admitted.pin(upstream, name);
        Tool {
            call,
            name: name.as_str().into(),
            version: version.as_deref().map(Arc::from),
            publisher: publisher.as_deref().map(Arc::from),
            risk_reason: risk_reason.as_deref().map(Arc::from),
            permissions,
            data_flow: data_flow.clone().map(Arc::new),
            pinned: pin.map(|pin| Arc::clone(&pin.definition)),
            wants,
        }
    }

    /// What is known of a tool's pinned definition, and whether a manual review of it was recorded.
    fn wants(&self, upstream: &str, tool: &str, admitted: &Admitted) -> (Wants, bool) {
        let mut wants = Wants {
            rejected: admitted.rejected(upstream, tool),
            min_tier: self.ceiling.min_tier,
            max_age: self.ceiling.max_age,
            unverified: self.ceiling.unverified,
            ..Wants::default()
        };
        let Some(pin) = admitted.pin(upstream, tool) else {
            return (wants, false);
        };
        let mut reviewed = pin.manual_review;
        let mut newest: HashMap<&str, Assessed> = HashMap::new();
        for verified in admitted.assessments(upstream, tool, &pin.definition.digest) {
            let assessment = verified.assessment();
            reviewed |= assessment.manual_review;
            let one = Assessed {
                at: assessment.at,
                tier: assessment.tier(),
            };
            newest
                .entry(&assessment.assessor)
                .and_modify(|kept| *kept = kept.newer(one))
                .or_insert(one);
        }
        wants.assessed = newest.into_values().collect();
        wants.assessed.sort_by_key(|assessed| assessed.at);
        (wants, reviewed)
    }

    fn method(&mut self, decl: &MethodDecl) {
        let MethodDecl {
            upstream,
            name,
            scope,
            min_trust,
            risk,
            classification,
        } = decl;
        let checked = self.keep("name", check_method_name(name));
        let call = self.call(&CallDecl {
            upstream,
            name: format!("mcp:{upstream}:{}", name.replace('/', ":")),
            scope: scope.as_deref(),
            min_trust,
            risk: *risk,
            classification: classification.as_deref(),
        });
        let (Some(()), Some(call)) = (checked, call) else {
            return;
        };
        let Some(server) = self.servers.get_mut(upstream.as_str()) else {
            return;
        };
        if server.methods.insert(name.as_str().into(), call).is_some() {
            self.blame(
                Some("name"),
                format!("`{name}` of `{upstream}` appears twice"),
            );
        }
    }

    fn call(&mut self, decl: &CallDecl<'_>) -> Option<Arc<Call>> {
        let known = self
            .servers
            .get(decl.upstream)
            .map(|server| Arc::clone(&server.name))
            .ok_or_else(|| {
                format!(
                    "no upstream of `kind = \"mcp\"` is named `{}`",
                    decl.upstream
                )
            });
        let known = self.keep("upstream", known);
        let scope = decl.scope.unwrap_or(&decl.name);
        let scope = RequiredScope::from_str(scope).map_err(|error| format!("`{scope}`: {error}"));
        // A default scope that is none has a name that is none, which was said.
        let scope = if decl.scope.is_some() {
            self.keep("scope", scope)
        } else {
            self.default_scope(scope)
        };
        let trust = TrustLevel::from_str(decl.min_trust)
            .map_err(|error| format!("`{}`: {error}", decl.min_trust));
        let trust = self.keep("min_trust", trust);
        let class = check_classification(decl.classification).map_err(|fault| fault.to_string());
        let class = self.keep("classification", class);
        Some(Arc::new(Call {
            upstream: known?,
            name: decl.name.clone(),
            scope: scope?,
            min_trust: trust?,
            risk: decl.risk,
            classification: class?,
        }))
    }

    fn default_scope(&mut self, scope: Result<RequiredScope, String>) -> Option<RequiredScope> {
        let (table, index) = self.place;
        let said = self
            .errors
            .iter()
            .any(|error| error.table == table && error.index == index);
        match scope {
            Ok(scope) => Some(scope),
            Err(_) if said => None,
            Err(message) => self.keep("scope", Err(format!("{message}; write another one"))),
        }
    }
}

impl Assessed {
    /// The newer one; of two at once the lower.
    fn newer(self, other: Self) -> Self {
        match self.at.cmp(&other.at) {
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Equal if other.tier < self.tier => other,
            std::cmp::Ordering::Equal => self,
        }
    }
}

/// A name that can't be written as a segment of a scope has no call.
fn check_tool_name(name: &str) -> Result<(), String> {
    if is_segment(name) {
        Ok(())
    } else {
        Err(format!(
            "`{}` is not 1 to 128 of A-Z, a-z, 0-9, `_`, `-` and `.`: such a tool is always denied",
            name.chars().take(140).collect::<String>()
        ))
    }
}

fn check_method_name(name: &str) -> Result<(), String> {
    if name == "tools/call" || name == "tools/list" {
        return Err(format!(
            "`{name}` is decided by `[[tool]]`: remove this table"
        ));
    }
    if name.contains('/') && name.split('/').all(is_segment) {
        Ok(())
    } else {
        Err(format!("`{name}` is not a method, like `resources/read`"))
    }
}

/// Whether a tool, or a part of a method, can be named in a scope.
#[must_use]
pub fn is_segment(text: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=128).contains(&text.len()) && text.bytes().all(is_letter)
}
