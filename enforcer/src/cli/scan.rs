//! `agentca-enforcer scan`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agentca_identity::name::Name;
use agentca_identity::time::Timestamp;
use clap::Args;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::json;
use zeroize::Zeroizing;

use super::output::{Failure, Table, print};
use crate::config::{self, CommandLine, TlsOptions, Transport, Upstream};
use crate::mcp_client::{ClientError, ClientLimits, HttpEndpoint, McpClient};
use crate::scan::{CatalogueFiles, Found, Plan};
use crate::stdio::{Stdio, StdioLimits};
use crate::upstream::Target;

/// What is scanned, and where it is written.
#[derive(Debug, Args)]
pub(super) struct ScanArgs {
    /// The endpoint of a server behind HTTP, like http://127.0.0.1:9000/mcp
    #[arg(
        long,
        value_name = "URL",
        conflicts_with = "command",
        required_unless_present = "command"
    )]
    mcp: Option<String>,
    /// The program and arguments of a server over stdio; words as in a shell, but no shell runs it
    #[arg(long, value_name = "COMMAND LINE")]
    command: Option<String>,
    /// The CA that an https server's certificate hangs from, PEM; without it the system's
    #[arg(long, value_name = "FILE", requires = "mcp")]
    ca: Option<PathBuf>,
    /// The file whose content is sent as a bearer token
    #[arg(long, value_name = "FILE", requires = "mcp")]
    bearer_file: Option<PathBuf>,
    /// An environment variable of the program, besides PATH and HOME; repeat for more
    #[arg(long = "env", value_name = "NAME=VALUE", requires = "command")]
    environment: Vec<String>,
    /// The `name` of the server's `[[upstream]]`
    #[arg(long, value_name = "NAME")]
    upstream: Name,
    /// The catalogue; the pins are written beside it
    #[arg(long, value_name = "FILE", default_value = "catalogue.toml")]
    out: PathBuf,
    /// Print what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ScanArgs) -> Result<(), Failure> {
    let upstream = arguments.upstream.to_string();
    // What is wrong with the files is told before anybody is asked.
    let files = CatalogueFiles::read(&arguments.out).map_err(Failure::usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    let found = runtime.block_on(find(arguments, &upstream))?;
    for (tool, why) in &found.refused {
        let tool: String = tool.chars().take(128).collect();
        let tool = super::output::printable(&tool);
        eprintln!(
            "{upstream}: `{tool}` is left out: {}",
            super::output::printable(why)
        );
    }
    let plan = Plan::make(&found, &files, Timestamp::now());
    let written = if arguments.dry_run {
        Vec::new()
    } else {
        files.write(&plan).map_err(Failure::failed)?
    };
    report(arguments, &found, &files, &plan, &written)?;
    if plan.rows.iter().any(|row| row.state.wants_a_person()) {
        eprintln!(
            "{upstream}: some tools wait for a person: see `agentca-enforcer catalogue diff`, then \
             `catalogue approve` or `catalogue reject`"
        );
    }
    Ok(())
}

async fn find(arguments: &ScanArgs, upstream: &str) -> Result<Found, Failure> {
    let (client, processes) = client(arguments, upstream)?;
    eprintln!("{upstream}: asking for its tools …");
    let listed = async {
        let server = client.server().await?;
        Ok::<_, ClientError>((server, client.list_tools().await?))
    };
    let listed = listed.await;
    client.close().await;
    if let Some(processes) = processes {
        processes.shutdown().await;
    }
    let (server, tools) =
        listed.map_err(|error| Failure::failed(format!("{upstream}: {error}")))?;
    let unnamed = || "a server without a name".to_owned();
    let name = server.name.clone().unwrap_or_else(unnamed);
    eprintln!(
        "{upstream}: {} of revision {}, {} tools",
        super::output::printable(&name),
        server.revision,
        tools.len()
    );
    Ok(Found::of(upstream, server, &tools))
}

type Connected = (McpClient, Option<Arc<Stdio>>);

fn client(arguments: &ScanArgs, upstream: &str) -> Result<Connected, Failure> {
    let limits = ClientLimits::default();
    if let Some(url) = &arguments.mcp {
        let endpoint = endpoint(arguments, upstream, url)?;
        return Ok((McpClient::http(endpoint, limits), None));
    }
    let line = arguments.command.as_deref().unwrap_or_default();
    let mut words = words(line).map_err(|error| Failure::usage(format!("--command: {error}")))?;
    if words.is_empty() {
        return Err(Failure::usage("--command names no program"));
    }
    let command = CommandLine {
        program: words.remove(0),
        arguments: words,
        environment: environment(&arguments.environment)?,
        max_processes: 1,
        idle: Duration::from_secs(300),
    };
    let handle = tokio::runtime::Handle::current();
    let processes = Stdio::new(upstream, command, StdioLimits::default(), handle);
    let client = McpClient::program(Arc::clone(&processes), limits);
    Ok((client, Some(processes)))
}

fn endpoint(arguments: &ScanArgs, upstream: &str, url: &str) -> Result<HttpEndpoint, Failure> {
    let tls = arguments.ca.as_ref().map(|ca| TlsOptions {
        ca: Some(ca.clone()),
        ..TlsOptions::default()
    });
    let place = config::mcp_place(url, tls.as_ref());
    let place = place.map_err(|error| Failure::usage(format!("--mcp {error}")))?;
    let upstream = Upstream {
        name: upstream.to_owned(),
        transport: Transport::Http(place),
        mcp: None,
        credentials: None,
    };
    let target = Target::of(&upstream).ok_or_else(|| Failure::usage("--mcp is no URL"))?;
    let target = target.map_err(|error| Failure::usage(format!("--mcp `{url}`: {error}")))?;
    let shown = bearer(arguments.bearer_file.as_deref())?;
    Ok(HttpEndpoint::of(
        Arc::new(target),
        Box::new(move || Ok(shown.clone())),
    ))
}

/// The fields that show a token.
fn bearer(file: Option<&Path>) -> Result<HeaderMap, Failure> {
    let mut shown = HeaderMap::new();
    if let Some(file) = file {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::usage(format!("--bearer-file {}: {error}", file.display()))
        };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
        let text = Zeroizing::new(text);
        let value = Zeroizing::new(format!("Bearer {}", text.trim_end()));
        let mut value = HeaderValue::from_str(&value).map_err(|error| wrong(&error))?;
        value.set_sensitive(true);
        shown.insert(AUTHORIZATION, value);
    }
    Ok(shown)
}

fn environment(given: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pairs = given.iter().map(|pair| {
        let split = pair.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, value) = split
            .ok_or_else(|| Failure::usage(format!("--env `{pair}`: write it like `NAME=VALUE`")))?;
        Ok((name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

fn report(
    arguments: &ScanArgs,
    found: &Found,
    files: &CatalogueFiles,
    plan: &Plan,
    written: &[PathBuf],
) -> Result<(), Failure> {
    let tools = plan.rows.iter().map(|row| {
        json!({
            "tool": row.tool, "digest": row.digest, "risk": row.risk.as_str(),
            "reason": row.reason, "state": row.state.as_str(),
        })
    });
    let refused = found
        .refused
        .iter()
        .map(|(tool, why)| json!({"tool": tool, "reason": why}));
    let value = json!({
        "upstream": found.upstream,
        "revision": found.server.revision,
        "tools": tools.collect::<Vec<_>>(),
        "left_out": refused.collect::<Vec<_>>(),
        "methods": plan.methods,
        "written": written,
    });
    let text = if arguments.dry_run {
        files.text_with(plan)
    } else {
        let mut table = Table::new(["TOOL", "RISK", "STATE", "WHY"]);
        for row in &plan.rows {
            table.row([
                row.tool.clone(),
                row.risk.to_string(),
                row.state.as_str().to_owned(),
                row.reason.clone(),
            ]);
        }
        table.text()
    };
    print(arguments.json, &value, &text)?;
    for path in written {
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

/// The words of a command line: spaces part them, quotes keep them together, a backslash takes the
/// next character as it is.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = letters.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_split_into_words() {
        for (line, expected) in [
            ("", &[][..]),
            ("  npx  -y server ", &["npx", "-y", "server"]),
            (r#"a "b c" 'd "e' ''"#, &["a", "b c", "d \"e", ""]),
            (r#"a\ b "c\"d" 'e\f'"#, &["a b", "c\"d", "e\\f"]),
            ("--root=\"/my files\"/x", &["--root=/my files/x"]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        assert!(words("a \"b").is_err() && words("a\\").is_err());
    }

    #[test]
    fn an_environment_variable_has_a_name() {
        let given = |pair: &str| environment(&[pair.to_owned()]);
        assert_eq!(given("A=b=c").unwrap().get("A").unwrap(), "b=c");
        assert!(given("A").is_err() && given("=b").is_err());
    }
}
