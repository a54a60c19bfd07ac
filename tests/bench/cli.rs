//! The commands of `agentca-bench`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use crate::connections::Target;
use crate::load::{Shape, Window, round};
use crate::mcp::{await_answers, calls};
use crate::paced::paced;
use crate::part::Part;
use crate::peers::Shared;
use crate::process::Core;
use crate::report::{Section, document};
use crate::setup::Setup;
use crate::tls::{Credential, Speaks, client};
use crate::{
    Outcome, bridge, calls as tool_calls, floor, idle, issuance, known, latency, lists, logs,
    machine, mcp_upstream, million, proxies, revocation, upstream,
};

/// Measures agentca side by side with nginx, haproxy and bare floors.
#[derive(Parser)]
#[command(name = "agentca-bench")]
pub(crate) enum Command {
    /// Run the benchmark and write its document.
    Run(RunOptions),
    /// Answer every request with 1 KB.
    Upstream {
        /// Where to.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Be the MCP server behind the proxies.
    McpUpstream {
        /// Where to.
        #[arg(long)]
        listen: SocketAddr,
        /// How many tools it lists.
        #[arg(long)]
        tools: usize,
    },
    /// Proxy with nothing but hyper and rustls.
    Floor(floor::FloorOptions),
    /// Load a server that runs already, and print the rate: for profiles.
    Load(LoadOptions),
    /// Measure a library on this core.
    #[command(subcommand)]
    Part(Part),
}

/// What to run and where.
#[derive(clap::Args)]
pub(crate) struct RunOptions {
    /// Where `agentca`, `agentca-enforcer` and `agentca-sidecar` are; beside this program unless given.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Where keys, logs and configurations may lie.
    #[arg(long)]
    work: PathBuf,
    /// The document to write.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Topic>,
    /// Rounds of which medians are taken.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Certificates to revoke for the last part.
    #[arg(long, default_value_t = 1_000_000)]
    revoked: usize,
    /// Connections of the part about idle ones.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Tools of the long list.
    #[arg(long, default_value_t = 5_000)]
    tools: usize,
    /// Agents of the larger environment.
    #[arg(long, default_value_t = 100_000)]
    known: usize,
    /// Calls through each bridge.
    #[arg(long, default_value_t = 10_000)]
    calls: usize,
    /// How much of its time each measurement about MCP takes; less shows only that it runs.
    #[arg(long, default_value_t = 1.0)]
    share: f64,
}

/// What to load and how.
#[derive(clap::Args)]
pub(crate) struct LoadOptions {
    /// The server.
    addr: SocketAddr,
    /// Its process.
    #[arg(long)]
    pid: u32,
    /// `<stem>.crt` and `<stem>.key` of the agent.
    #[arg(long)]
    agent: PathBuf,
    /// What to do on each connection.
    #[arg(long, value_enum, default_value = "kept-alive")]
    shape: Shape,
    /// Call an MCP tool of the benchmark's bank instead of asking for an account.
    #[arg(long)]
    tool: bool,
    /// How many at a time.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// So many requests a second, evenly, instead of as many as it answers.
    #[arg(long)]
    rate: Option<f64>,
    /// For how long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// A part of the document.
#[derive(Clone, Copy, Eq, PartialEq, clap::ValueEnum)]
enum Topic {
    Proxies,
    Issuance,
    Revocation,
    Logs,
    Million,
    McpCalls,
    Latency,
    Lists,
    Idle,
    AgentsKnown,
    Bridge,
}

/// Does what the command says.
pub(crate) fn dispatch(command: Command) -> Outcome<()> {
    match command {
        Command::Run(options) => block_on(run(options)),
        Command::Upstream { listen } => block_on(upstream::serve(listen)),
        Command::McpUpstream { listen, tools } => block_on(mcp_upstream::serve(listen, tools)),
        Command::Floor(options) => block_on(floor::serve(options)),
        Command::Load(options) => block_on(load(options)),
        Command::Part(part) => part.run(),
    }
}

fn block_on(future: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

async fn run(options: RunOptions) -> Outcome<()> {
    let beside = std::env::current_exe()?;
    let programs = options
        .programs
        .as_deref()
        .or(beside.parent())
        .unwrap_or(Path::new("."));
    let programs = programs.canonicalize()?;
    std::fs::create_dir_all(&options.work)?;
    let chosen = |topic| options.only.is_empty() || options.only.contains(&topic);
    let (work, rounds) = (options.work.as_path(), options.rounds);
    let mut sections = Vec::new();
    if chosen(Topic::Proxies) {
        sections.push(run_proxies(&work.join("proxies"), &programs, rounds).await?);
    }
    if chosen(Topic::Issuance) {
        let setup = Setup::create(&work.join("issuance"), &programs, Core::Server)?;
        let plan = issuance::Plan {
            rounds,
            measure: Duration::from_secs(3),
        };
        sections.push(issuance::measure(&setup, plan).await?);
    }
    if chosen(Topic::Revocation) {
        let setup = Setup::create(&work.join("revocation"), &programs, Core::Load)?;
        sections.push(revocation::measure(&setup, 120).await?);
    }
    if chosen(Topic::Logs) {
        sections.push(logs::measure(&work.join("logs"), rounds)?);
    }
    if chosen(Topic::Million) {
        sections.push(
            million::measure(&work.join("million"), &programs, rounds, options.revoked).await?,
        );
    }
    let parts = [
        Topic::McpCalls,
        Topic::Latency,
        Topic::Lists,
        Topic::Idle,
        Topic::AgentsKnown,
        Topic::Bridge,
    ];
    for topic in parts.into_iter().filter(|topic| chosen(*topic)) {
        if let Some(section) = run_mcp(topic, &options, &programs).await? {
            sections.push(section);
        }
    }
    publish(&machine::facts(work)?, &sections, options.out.as_deref())
}

/// One of the parts about MCP, and what belongs to them.
async fn run_mcp(topic: Topic, options: &RunOptions, programs: &Path) -> Outcome<Option<Section>> {
    let (rounds, share) = (options.rounds, options.share);
    let work = |name: &str| options.work.join(name);
    let section = match topic {
        Topic::McpCalls => {
            let plan = tool_calls::plan(rounds, share);
            tool_calls::measure(&work("calls"), programs, plan).await?
        }
        Topic::Latency => latency::measure(&work("latency"), programs, rounds, share).await?,
        Topic::Lists => {
            lists::measure(&work("lists"), programs, rounds, share, options.tools).await?
        }
        Topic::Idle => idle::measure(&work("idle"), programs, rounds, options.idle).await?,
        Topic::AgentsKnown => {
            known::measure(&work("known"), programs, rounds, share, options.known).await?
        }
        Topic::Bridge => bridge::measure(&work("bridge"), programs, rounds, options.calls).await?,
        Topic::Proxies | Topic::Issuance | Topic::Revocation | Topic::Logs | Topic::Million => {
            return Ok(None);
        }
    };
    Ok(Some(section))
}

async fn load(options: LoadOptions) -> Outcome<()> {
    let agent = Credential::read(&options.agent)?;
    let tls = client(agent, Speaks::Http1)?;
    let target = if options.tool {
        await_answers(calls(options.addr, Some(tls))).await?
    } else {
        Target::new(options.addr, tls)
    };
    let window = Window {
        warm: Duration::from_millis(500),
        measure: Duration::from_secs(options.seconds),
    };
    if let Some(rate) = options.rate {
        let done = paced(&target, rate, options.connections, window).await?;
        println!(
            "{:.0}/s, p50 {:.0} µs, p99 {:.0} µs",
            done.rate, done.p50_us, done.p99_us
        );
        return Ok(());
    }
    let done = round(
        &target,
        options.pid,
        options.shape,
        options.connections,
        window,
    )
    .await?;
    println!(
        "{:.0}/s, {:.1} µs of CPU each, core {:.0} %, p50 {:.0} µs, p99 {:.0} µs",
        done.rate,
        done.cpu_us,
        100.0 * done.busy,
        done.p50_us,
        done.p99_us,
    );
    Ok(())
}

/// Linux's file system in memory (tmpfs).
const MEMORY: &str = "/dev/shm";

async fn run_proxies(work: &Path, programs: &Path, rounds: usize) -> Outcome<Section> {
    let setup = Setup::create(work, programs, Core::Load)?;
    let agent = setup.issue("bench-01", "prod")?;
    let enforcer_addr = setup.add_enforcer("edge-1", "prod")?;
    let memory = tempfile::tempdir_in(MEMORY)?;
    let data_dir = memory.path().join("data");
    let diskless = setup.add_enforcer_with("edge-2", "prod", &data_dir)?;
    let window = |warm, measure| Window {
        warm: Duration::from_millis(warm),
        measure: Duration::from_millis(measure),
    };
    let plan = proxies::Plan {
        rounds,
        kept_alive: window(500, 3000),
        connecting: window(300, 1700),
        idle: 2000,
    };
    let shared = Shared {
        setup: &setup,
        enforcer: "edge-1",
        enforcer_addr,
        diskless: ("edge-2", diskless),
        upstream: setup.upstream_addr,
    };
    proxies::compare(&shared, agent, plan).await
}

fn publish(facts: &[String], sections: &[Section], out: Option<&Path>) -> Outcome<()> {
    let text = document(facts, sections);
    print!("{text}");
    if let Some(out) = out {
        std::fs::write(out, text)?;
    }
    Ok(())
}
