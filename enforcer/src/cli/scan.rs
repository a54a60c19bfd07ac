//! `agentca-enforcer scan`.

mod failed;
mod server;

use std::path::{Path, PathBuf};

use agentca_identity::name::Name;
use agentca_identity::time::Timestamp;
use clap::{ArgGroup, Args};
use serde_json::json;

use self::failed::failure;
use self::server::Asked;
use super::output::{Failure, Table, print, printable, shell_word};
use crate::mcp_client::ClientError;
use crate::scan::{CatalogueFiles, FolderLock, Found, Plan, Row};

/// What is scanned, and where it is written.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("server").required(true).args(["mcp", "command", "config"]))]
pub(super) struct ScanArgs {
    /// The server: the endpoint of one behind HTTP, like http://127.0.0.1:9000/mcp, or the command line
    /// of one over stdio; words as in a shell, but no shell runs it
    #[arg(long, value_name = "URL|COMMAND LINE")]
    mcp: Option<String>,
    /// The same for a command line alone
    #[arg(long, value_name = "COMMAND LINE")]
    command: Option<String>,
    /// The configuration whose `[[upstream]]` it is: with its credentials, TLS and catalogue
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The CA that an https server's certificate hangs from, PEM; without it the system's
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "config"])]
    ca: Option<PathBuf>,
    /// The file whose content is sent as a bearer token
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "config"])]
    bearer_file: Option<PathBuf>,
    /// An environment variable of the program, besides PATH and HOME; repeat for more
    #[arg(long = "env", value_name = "NAME=VALUE", conflicts_with = "config")]
    environment: Vec<String>,
    /// The `name` of the server's `[[upstream]]`
    #[arg(long, value_name = "NAME")]
    upstream: Name,
    /// The catalogue; the pins are written beside it [default: the one of `--config`, else catalogue.toml]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ScanArgs) -> Result<(), Failure> {
    let upstream = arguments.upstream.as_str();
    let configured = arguments.configured()?;
    let out = arguments.out.clone();
    let out = out.or_else(|| Some(configured.as_ref()?.catalogue()));
    let out = out.unwrap_or_else(|| PathBuf::from("catalogue.toml"));
    // What is wrong with the files is told before anybody is asked.
    CatalogueFiles::read(&out).map_err(Failure::usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    let found = runtime.block_on(async {
        let asked = match &configured {
            Some(configured) => configured.asked()?,
            None => arguments.asked()?,
        };
        find(asked, upstream).await
    })?;
    for (tool, why) in &found.refused {
        let tool: String = tool.chars().take(128).collect();
        let (tool, why) = (printable(&tool), printable(why));
        eprintln!("{upstream}: `{tool}` is left out: {why}");
    }
    // Asking took its time: others may have written meanwhile.
    let _held = FolderLock::of(&out).map_err(Failure::usage)?;
    let files = CatalogueFiles::read(&out).map_err(Failure::usage)?;
    let plan = Plan::make(&found, &files, Timestamp::now());
    let written = if arguments.dry_run {
        Vec::new()
    } else {
        files.write(&plan).map_err(Failure::failed)?
    };
    report(arguments, &found, &files, &plan, &written)?;
    let config = named_config(arguments);
    let meaning = meaning(upstream, &plan.rows, &config);
    meaning.iter().for_each(|line| eprintln!("{line}"));
    if config == UNKNOWN && !meaning.is_empty() {
        eprintln!("{}", how_to_name(&out));
    }
    if let Some(configured) = configured.filter(|configured| !configured.names(&out)) {
        eprintln!("{}", configured.how_to_name(&out));
    }
    Ok(())
}

async fn find(asked: Asked, upstream: &str) -> Result<Found, Failure> {
    let Asked {
        client,
        processes,
        place,
    } = asked;
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
    let (server, tools) = listed.map_err(|error| failure(upstream, &place, &error))?;
    let unnamed = || "a server without a name".to_owned();
    let name = server.name.clone().unwrap_or_else(unnamed);
    eprintln!(
        "{upstream}: {} of revision {}, {} tools",
        printable(&name),
        server.revision,
        tools.len()
    );
    Ok(Found::of(upstream, server, &tools))
}

/// The configuration that commands are about, as far as that is known.
fn named_config(arguments: &ScanArgs) -> String {
    match &arguments.config {
        Some(path) => shell_word(&path.display().to_string()),
        None if Path::new(USUAL).exists() => USUAL.to_owned(),
        None => UNKNOWN.to_owned(),
    }
}

fn how_to_name(catalogue: &Path) -> String {
    let name = catalogue.display();
    format!("{UNKNOWN} is the enforcer's configuration, with `catalogue = [\"{name}\"]` at its top")
}

/// The name that a configuration has mostly.
const USUAL: &str = "enforcer.toml";
/// What stands for a configuration that nobody named.
const UNKNOWN: &str = "FILE";

/// What follows from it for whoever wants to call the tools.
fn meaning(upstream: &str, rows: &[Row], config: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let example = |tool: &str, more: &str| {
        format!(
            "  agentca-enforcer catalogue approve {upstream}:{tool} --config {config}{more} --reason \"…\""
        )
    };
    let reviews: Vec<&Row> = rows.iter().filter(|row| row.review.is_some()).collect();
    if let Some(first) = reviews.first() {
        let tools = reviews.iter().map(|row| {
            let why = row.review.unwrap_or_default();
            format!("`{}` ({why})", row.tool)
        });
        lines.push(format!(
            "{upstream}: denied as `tool-unverified` until somebody records a review by hand: {}.\n\
             Where the guess is wrong, correct its `[tool.permissions]`; where it is right, review it:",
            tools.collect::<Vec<_>>().join(", ")
        ));
        lines.push(example(&first.tool, " --manual-review"));
    }
    let waits: Vec<&Row> = rows
        .iter()
        .filter(|row| row.state.wants_a_person())
        .collect();
    if !waits.is_empty() {
        let tools = waits
            .iter()
            .map(|row| format!("`{}` ({})", row.tool, row.state.as_str()));
        lines.push(format!(
            "{upstream}: denied as `tool-changed` until a person decides: {}; see\n  \
             agentca-enforcer catalogue diff --config {config}",
            tools.collect::<Vec<_>>().join(", ")
        ));
    }
    lines
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
            "reason": row.reason, "state": row.state.as_str(), "wants_review": row.review,
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
        files.text_with(&plan.added)
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

#[cfg(test)]
mod tests;
