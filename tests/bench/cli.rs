//! The commands of `agentca-bench`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use crate::connections::Target;
use crate::load::{Shape, Window, round};
use crate::part::Part;
use crate::peers::Shared;
use crate::process::Core;
use crate::report::{Section, document};
use crate::setup::Setup;
use crate::tls::{Credential, Speaks, client};
use crate::{Outcome, floor, issuance, logs, machine, million, proxies, revocation, upstream};

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
    /// Where `agentca` and `agentca-enforcer` are; beside this program unless given.
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
    /// How many at a time.
    #[arg(long, default_value_t = 64)]
    connections: usize,
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
}

/// Does what the command says.
pub(crate) fn dispatch(command: Command) -> Outcome<()> {
    match command {
        Command::Run(options) => block_on(run(options)),
        Command::Upstream { listen } => block_on(upstream::serve(listen)),
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
    publish(&machine::facts(work)?, &sections, options.out.as_deref())
}

async fn load(options: LoadOptions) -> Outcome<()> {
    let agent = Credential::read(&options.agent)?;
    let target = Target::new(options.addr, client(agent, Speaks::Http1)?);
    let window = Window {
        warm: Duration::from_millis(500),
        measure: Duration::from_secs(options.seconds),
    };
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
