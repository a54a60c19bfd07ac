//! `agentca-sidecar check`.

mod endpoint;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agentca_identity::time::Timestamp;
use clap::Args;

use self::endpoint::Endpoint;
use super::Failure;
use crate::enforcer::{AskError, Enforcer, Limits};
use crate::holder::Holder;
use crate::url::EnforcerUrl;
use crate::verify::Verify;

/// Make one signed round trip, and say what would fail and how to mend it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArguments {
    /// The enforcer's endpoint
    url: EnforcerUrl,
    /// The agent's folder, which `agentca issue --out DIR` wrote
    #[arg(
        long,
        value_name = "DIR",
        env = "AGENTCA_CREDENTIALS",
        hide_env_values = true
    )]
    credentials: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: CheckArguments) -> Result<(), Failure> {
    let CheckArguments {
        url,
        credentials,
        json,
    } = arguments;
    let say = |name: &str, text: &str| match json {
        true => Ok(()),
        false => writeln!(std::io::stdout(), "{name:<13}{text}").map_err(Failure::from),
    };
    let holder = Holder::open(&credentials, &url.place)?;
    let held = holder.newest();
    let certificate = &held.credential.certificate;
    let id = certificate.id().map(|id| id.to_string());
    let (id, ends) = (id.unwrap_or_default(), certificate.not_after());
    let left = ends.saturating_since(Timestamp::now()).as_secs() / 60;
    let until = ends.rfc3339();
    say("certificate", &format!("{id}, until {until} ({left} min)"))?;
    let enforcer = Arc::new(Enforcer::new(url, holder, Verify::Require, LIMITS));
    enforcer.warm().await.map_err(denied)?;
    let place = enforcer.url.to_string();
    say(
        "enforcer",
        &format!("{place}, its answers are signed under ca.crt"),
    )?;
    let found = endpoint::look(&enforcer).await?;
    say(
        "endpoint",
        &format!("answers MCP {}", names(&found.revisions).join(", ")),
    )?;
    say("tools", &listed(&found))?;
    if json {
        let said = serde_json::json!({
            "certificate": { "id": id, "not_after": until },
            "enforcer": place,
            "revisions": found.revisions,
            "tools": found.tools,
            "all_tools": found.all,
        });
        return Ok(writeln!(std::io::stdout(), "{said:#}")?);
    }
    Ok(writeln!(std::io::stdout(), "all is well")?)
}

/// How many tools, and the first of them by name.
fn listed(found: &Endpoint) -> String {
    let more = if found.all { "" } else { " and more" };
    let mut names = names(&found.tools);
    if found.tools.len() > names.len() {
        names.push("…".to_owned());
    }
    match names.as_slice() {
        [] => "none; `agentca-enforcer catalogue list` says what each wants".to_owned(),
        names => format!("{}{more}: {}", found.tools.len(), names.join(", ")),
    }
}

/// The first of several names.
fn names(all: &[String]) -> Vec<String> {
    let shown = all.iter().take(SHOWN);
    shown.map(|name| printable(name, NAME_SHOWN)).collect()
}

/// What a server wrote, as a terminal may show it: at most so many letters, none of which moves the cursor or hides.
fn printable(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for c in text.chars().take(most) {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            c if c.is_control() => shown.push('\u{fffd}'),
            c => shown.extend(c.escape_debug()),
        }
    }
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

/// What asks for the enforcer's own document ended with: nobody else can say that it denies everything.
fn denied(error: AskError) -> Failure {
    let AskError::Denied { rule, said } = &error else {
        return error.into();
    };
    let advice = match rule.as_str() {
        "revoked" => "`agentca reinstate NAME`, then issue again",
        "expired" => "`agentca issue NAME --out DIR --force`",
        "unknown-serial" => "does the enforcer follow the authority that issued this certificate",
        "stale" => "the enforcer has no fresh status from its authority: is that running",
        _ => return error.into(),
    };
    Failure::refused(format!("{said}; {advice}"))
}

/// Where to look after a denial. A server can answer in the words of one, so nothing here gives an agent more than
/// it has.
fn look_at(rule: &str, url: &EnforcerUrl) -> Option<&'static str> {
    Some(match rule {
        "not-in-catalogue" if url.path.trim_end_matches('/') == SHARED => {
            "`/mcp` is the endpoint of the servers with `shared = true` in their `[[upstream]]`; one alone is at \
             `/mcp/NAME`"
        }
        "not-in-catalogue" => {
            "is there an `[[upstream]]` with `kind = \"mcp\"` of this name, and the method in the catalogue"
        }
        "scope" | "trust" => "`agentca agent show NAME` says what the agent may be issued",
        "restricted" => "`agentca agent show NAME` says whether somebody restricted this agent",
        "misdirected" => "use a host name of the enforcer's certificate in the URL",
        "upstream" => "the MCP server behind the enforcer does not answer: is it running",
        _ => return None,
    })
}

/// Where several servers are one.
const SHARED: &str = "/mcp";
/// Tools that are named.
const SHOWN: usize = 20;
const NAME_SHOWN: usize = 64;
const LIMITS: Limits = Limits {
    message: 4 << 20,
    concurrent: 1,
    answer: Duration::from_secs(15),
};

const EXAMPLES: &str = "\
Examples:
  agentca-sidecar check https://localhost:8443/mcp/payments --credentials ./support-01
  agentca-sidecar check https://localhost:8443/mcp/payments --credentials ./support-01 --json

Exits 1 when something refuses, 3 when nobody answers.";
