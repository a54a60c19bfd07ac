//! `agentca-sidecar check`.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agentca_identity::time::Timestamp;
use bytes::Bytes;
use clap::Args;
use http::{Method, StatusCode};

use super::Failure;
use crate::enforcer::{Answer, Content, Enforcer, Limits};
use crate::fields::{self, Schemas};
use crate::holder::Holder;
use crate::message::{Heard, Message, hear};
use crate::problem::Problem;
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
}

pub(super) async fn run(arguments: CheckArguments) -> Result<(), Failure> {
    let CheckArguments { url, credentials } = arguments;
    let say = |text: String| writeln!(std::io::stdout(), "{text}").map_err(Failure::from);
    let holder = Holder::open(&credentials, &url.place)?;
    let held = holder.newest();
    let certificate = &held.credential.certificate;
    let id = certificate.id().map(|id| id.to_string());
    let (id, ends) = (id.unwrap_or_default(), certificate.not_after());
    let left = ends.saturating_since(Timestamp::now()).as_secs() / 60;
    say(format!(
        "certificate  {id}, until {} ({left} min)",
        ends.rfc3339()
    ))?;
    let enforcer = Arc::new(Enforcer::new(url, holder, Verify::Require, LIMITS));
    enforcer.warm().await?;
    say(format!(
        "enforcer     {}, its answers are signed under ca.crt",
        enforcer.url
    ))?;
    let message = Message::read(DISCOVER).map_err(Failure::refused)?;
    let fields = fields::mirrored(&message, &Schemas::default()).map_err(Failure::refused)?;
    let answer = enforcer.ask_with(Method::POST, fields, DISCOVER).await?;
    let said = judge(&answer, &message)?;
    say(format!("endpoint     {said}"))?;
    say("all is well".to_owned())
}

/// What the endpoint's answer means. It was verified; an older revision refuses the question in the
/// words of JSON-RPC, and that is as good.
fn judge(answer: &Answer, message: &Message) -> Result<&'static str, Failure> {
    let Answer {
        status, content, ..
    } = answer;
    let body: &[u8] = match content {
        Content::Whole(body) => body,
        Content::Events(_) => return Ok("answers with a stream"),
    };
    let problem = match Problem::read(body) {
        Problem {
            rule: None,
            title: None,
            ..
        } => Problem::in_error(body),
        problem => problem,
    };
    if problem.rule.is_some() || problem.title.is_some() {
        let said = problem.sentence(*status);
        let advice = problem.rule.as_deref().and_then(mend);
        let advice = advice.map(|advice| format!("; {advice}"));
        return Err(Failure::refused(format!(
            "the endpoint refuses: {said}{}",
            advice.unwrap_or_default()
        )));
    }
    match hear(body, message.id.as_ref()) {
        Heard::Answer | Heard::NamelessError if status.is_success() => Ok("answers MCP"),
        Heard::Answer | Heard::NamelessError => Ok("answers MCP, perhaps of another revision"),
        // 2025-11-25 and before: not a session, 400 or 404.
        _ if matches!(*status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) => {
            Ok("answers, perhaps in an older revision of MCP")
        }
        _ => Err(Failure::refused(format!(
            "the endpoint answered {status} and no MCP; give the URL of an `[[upstream]]` with \
             `kind = \"mcp\"`, like https://HOST:8443/mcp/NAME"
        ))),
    }
}

/// What mends a denial.
fn mend(rule: &str) -> Option<&'static str> {
    Some(match rule {
        "not-in-catalogue" => {
            "is there an `[[upstream]]` with `kind = \"mcp\"` of this name, and the method in the catalogue"
        }
        "scope" => {
            "`agentca agent grant NAME --scope …` widens what the agent may be issued, then issue again"
        }
        "trust" => "`agentca issue NAME --trust L2 …` raises the agent's trust level",
        "environment" => "this agent is of another environment than the enforcer",
        "revoked" => "`agentca reinstate NAME`, then issue again",
        "expired" => "`agentca issue NAME --out DIR --force`",
        "unknown-serial" => "does the enforcer follow the authority that issued this certificate",
        "stale" => "the enforcer has no fresh status from its authority: is that running",
        "restricted" => "somebody restricted this agent; `agentca agent show NAME` says how",
        "misdirected" => "use a host name of the enforcer's certificate in the URL",
        "upstream" => "the MCP server behind the enforcer does not answer: is it running",
        _ => return None,
    })
}

/// What a client of 2026-07-28 says first.
const DISCOVER: Bytes = Bytes::from_static(
    br#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"agentca-sidecar","version":"0"}}}}"#,
);
const LIMITS: Limits = Limits {
    message: 4 << 20,
    concurrent: 1,
    answer: Duration::from_secs(15),
};

const EXAMPLES: &str = "\
Example:
  agentca-sidecar check https://localhost:8443/mcp/payments --credentials ./support-01

Exits 1 when something refuses, 3 when nobody answers.";
