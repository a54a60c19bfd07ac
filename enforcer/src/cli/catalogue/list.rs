//! `catalogue list`.

use agentca_identity::time::Timestamp;
use agentca_policy::{
    ExceptionDecl, McpServer, Route, Standing, Tool, ToolDefinition, digest_text,
};
use clap::Args;
use serde_json::{Map, Value, json};

use super::ConfigArgs;
use super::changes::{rejected, two_faced};
use super::opened::{Opened, Seen, uncallable};
use super::show::described;
use crate::cli::output::{Failure, Table, print};

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn list(arguments: &ListArgs) -> Result<(), Failure> {
    let opened = Opened::open(&arguments.config.config)?;
    let rows = rows(&opened)?;
    let mut table = Table::new([
        "UPSTREAM",
        "TOOL",
        "RISK",
        "TRUST",
        "SCOPE",
        "TIER",
        "APPROVED BY",
        "STATE",
        "WHY",
    ]);
    for row in &rows {
        table.row([
            row.upstream.clone(),
            row.tool.clone(),
            row.risk.clone(),
            row.min_trust.clone(),
            row.scope.clone(),
            row.tier.clone().unwrap_or_default(),
            row.approved_by.clone().unwrap_or_default(),
            row.state.clone(),
            row.why.clone().unwrap_or_default(),
        ]);
    }
    let values: Vec<Value> = rows.iter().map(Row::value).collect();
    let (routes, routes_text) = routes(&opened);
    let text = table.text() + &routes_text;
    print(
        arguments.json,
        &json!({"tools": values, "routes": routes, "reload_refused": opened.refused}),
        &text,
    )
}

/// Every route: as values, and as a table of its own when there is one.
pub(super) fn routes(opened: &Opened) -> (Vec<Value>, String) {
    let now = Timestamp::now();
    let mut table = Table::new([
        "UPSTREAM",
        "ROUTE",
        "RISK",
        "TRUST",
        "SCOPE",
        "PUBLISHER",
        "STATE",
        "WHY",
    ]);
    let mut values = Vec::new();
    for route in opened.config.catalogue.routes() {
        let (state, why) = match route.standing(now) {
            Ok(None) => ("good".to_owned(), None),
            Ok(Some(given)) => excepted(given),
            Err(refusal) => (refusal.rule.to_string(), Some(refusal.detail)),
        };
        let call = &route.call;
        table.row([
            call.upstream.to_string(),
            format!("{} {}", route.methods.join(","), route.template),
            call.risk.to_string(),
            call.min_trust.to_string(),
            call.scope.to_string(),
            route.publisher.as_deref().unwrap_or_default().to_owned(),
            state.clone(),
            why.clone().unwrap_or_default(),
        ]);
        values.push(route_value(route, &state, why.as_deref()));
    }
    let text = match values.len() {
        0 => String::new(),
        _ => format!("\n{}", table.text()),
    };
    (values, text)
}

fn route_value(route: &Route, state: &str, why: Option<&str>) -> Value {
    let (call, permissions) = (&route.call, route.permissions);
    json!({
        "upstream": &*call.upstream, "methods": route.methods, "path": route.template,
        "risk": call.risk.as_str(), "min_trust": call.min_trust.to_string(),
        "scope": call.scope.to_string(), "classification": call.classification,
        "publisher": route.publisher.as_deref(), "version": route.version.as_deref(),
        "permissions": {
            "network": permissions.network.to_string(),
            "filesystem": permissions.filesystem.to_string(),
            "code_execution": permissions.code_execution.to_string(),
            "data_access": permissions.data_access.to_string(),
        },
        "data_flow": route.data_flow.as_deref(), "state": state, "why": why,
    })
}

fn excepted(given: &ExceptionDecl) -> (String, Option<String>) {
    let why = format!("until {}, by {}", given.ends, given.owner);
    ("excepted".to_owned(), Some(why))
}

/// One line.
#[derive(Debug, Default)]
pub(super) struct Row {
    upstream: String,
    pub(super) tool: String,
    risk: String,
    min_trust: String,
    scope: String,
    pub(super) tier: Option<String>,
    approved_by: Option<String>,
    pub(super) state: String,
    /// What stands in its way.
    pub(super) why: Option<String>,
    /// What is told of it and decides nothing.
    described: Map<String, Value>,
}

impl Row {
    fn value(&self) -> Value {
        let mut value = json!({
            "upstream": self.upstream, "tool": self.tool, "risk": self.risk,
            "min_trust": self.min_trust, "scope": self.scope, "tier": self.tier,
            "approved_by": self.approved_by, "state": self.state, "why": self.why,
        });
        if let Some(members) = value.as_object_mut() {
            members.extend(self.described.clone());
        }
        value
    }
}

/// Every tool that is declared, then those that a server shows besides.
pub(super) fn rows(opened: &Opened) -> Result<Vec<Row>, Failure> {
    let admitted = opened.admitted()?;
    let now = Timestamp::now();
    let mut rows = Vec::new();
    for upstream in opened.upstreams() {
        let Some(server) = admitted.mcp_catalogue.server(upstream) else {
            continue;
        };
        let seen = opened.seen(upstream)?;
        let declared = server.tools().iter();
        rows.extend(declared.map(|tool| of_tool(opened, (server, tool), seen.as_ref(), now)));
        let shown = seen.iter().flat_map(|seen| &seen.tools);
        let undeclared = shown.filter(|shown| server.tool(shown.name()).is_none());
        rows.extend(undeclared.map(|tool| undeclared_row(opened, upstream, tool)));
    }
    Ok(rows)
}

fn of_tool(
    opened: &Opened,
    (server, tool): (&McpServer, &Tool),
    seen: Option<&Seen>,
    now: Timestamp,
) -> Row {
    let (digest, shown) = seen.map_or((None, None), |seen| seen.judged(tool));
    let text = digest.as_ref().map(digest_text).unwrap_or_default();
    let rejection = opened.rejection(server.name(), &tool.name, &text);
    let state = |state: &str, why| (state.to_owned(), why);
    let standing = tool.standing(digest.as_ref(), now);
    let tier = standing.as_ref().ok().and_then(Standing::tier);
    let (state, why) = match standing {
        _ if seen.is_none() => state("not seen yet", None),
        Ok(standing) if standing.unverified() => state("unverified", None),
        Ok(standing) => match standing.exception() {
            Some(given) => excepted(given),
            None => state("good", None),
        },
        Err(refusal) => match (rejection, shown) {
            (Some(rejection), _) => state("rejected", Some(rejected(rejection))),
            (None, Some(shown)) => (refusal.rule.to_string(), Some(two_faced(shown))),
            (None, None) => (refusal.rule.to_string(), Some(refusal.detail)),
        },
    };
    let pinned = tool.pinned.as_ref();
    Row {
        upstream: server.name().to_string(),
        tool: tool.name.to_string(),
        risk: tool.call.risk.to_string(),
        min_trust: tool.call.min_trust.to_string(),
        scope: tool.call.scope.to_string(),
        tier: tier.map(|tier| tier.to_string()),
        approved_by: pinned.map(|pinned| pinned.approved_by.clone()),
        state,
        why,
        described: described(tool),
    }
}

/// How it stands with a tool without a table, and why.
pub(super) fn undeclared_state(
    opened: &Opened,
    upstream: &str,
    tool: &ToolDefinition,
) -> (&'static str, String) {
    let digest = digest_text(&tool.digest());
    match opened.rejection(upstream, tool.name(), &digest) {
        Some(rejection) => ("rejected", rejected(rejection)),
        None => {
            let adds = || "it has no `[[tool]]` table: `catalogue approve` adds one".to_owned();
            ("new", uncallable(tool.name()).unwrap_or_else(adds))
        }
    }
}

/// A tool without a table has nothing but its name.
fn undeclared_row(opened: &Opened, upstream: &str, tool: &ToolDefinition) -> Row {
    let (state, why) = undeclared_state(opened, upstream, tool);
    Row {
        upstream: upstream.to_owned(),
        tool: tool.name().to_owned(),
        state: state.to_owned(),
        why: Some(why),
        ..Row::default()
    }
}
