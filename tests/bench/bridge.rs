//! The bridge: what `agentca-sidecar connect` adds to a call, and what it keeps of the memory.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Instant;

use crate::Outcome;
use crate::connections::{Connection, Target};
use crate::load::ask;
use crate::mcp::{Bank, ENDPOINT, EVERYTHING, await_answers, call, call_message, calls};
use crate::process::{Core, Process, free_address};
use crate::report::{Bar, Bound, Section, Table, count, number};
use crate::setup::Setup;
use crate::stats::{P50, P99, PerMille, median, percentile};
use crate::tls::{Speaks, client};

/// Tools of the catalogue.
const TOOLS: usize = 100;
/// Calls of one way before it is the next one's turn: what drifts, drifts for all.
const TURN: usize = 50;
/// Secrets are random where nobody measures.
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// The agent, whose folder the bridges are given.
const AGENT: &str = "bridged-01";

/// A way to call the tool.
enum Way {
    Direct(Box<Caller>),
    Stdio(Pipes, Process),
    Http(Box<Caller>, Process),
}

/// Over HTTP, on a connection that is kept.
struct Caller {
    connection: Connection,
    target: Target,
}

/// A bridge's input and output.
struct Pipes {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    line: String,
    answer: String,
}

/// A way, its latencies in µs by round, and what its bridge took.
struct Measured {
    name: &'static str,
    way: Way,
    rounds: Vec<Vec<f64>>,
    cpu_ns: u64,
    resident_kib: u64,
}

/// Makes so many calls each way, in so many rounds.
pub(crate) async fn measure(
    work: &Path,
    programs: &Path,
    rounds: usize,
    calls_each: usize,
) -> Outcome<Section> {
    let setup = Setup::create(work, programs, Core::Load)?;
    let agent = setup.issue_with(AGENT, "prod", &[EVERYTHING])?;
    let bank = Bank::open(&setup, TOOLS)?;
    let listen = bank.add_enforcer("edge-1", "prod", &setup.dir.join("edge-1-data"))?;
    let enforcer = setup.start_enforcer("edge-1", listen, Core::Server)?;
    let tls = client(agent, Speaks::Http1)?;
    let target = await_answers(calls(listen, Some(tls))).await?;
    let direct = Way::Direct(Box::new(Caller::open(target).await?));
    let mut all = [
        Measured::new("directly, mutual TLS", direct),
        Measured::new("connect --stdio", stdio(&setup, listen)?),
        Measured::new("connect --http", http(&setup, listen).await?),
    ];
    let each = calls_each.div_ceil(rounds.max(1));
    for turn in 0..rounds {
        eprintln!("bridge, round {turn}");
        for measured in &mut all {
            measured.rounds.push(Vec::with_capacity(each));
        }
        let mut left = each;
        while left > 0 {
            let some = left.min(TURN);
            left -= some;
            for measured in &mut all {
                measured.call(some).await?;
            }
        }
    }
    for measured in &mut all {
        measured.weigh()?;
    }
    let section = section(&all, each * rounds);
    for measured in all {
        measured.way.stop()?;
    }
    enforcer.stop()?;
    Ok(section)
}

fn stdio(setup: &Setup, enforcer: SocketAddr) -> Outcome<Way> {
    let log = fs::File::create(setup.dir.join("bridge-stdio.stderr"))?;
    let mut process = sidecar(setup, "bridge-stdio", enforcer, |command| {
        command.arg("--stdio");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(log);
    })?;
    let (input, output) = process.pipes()?;
    let mut pipes = Pipes {
        input,
        output: BufReader::new(output),
        line: call_message() + "\n",
        answer: String::new(),
    };
    pipes.call()?;
    Ok(Way::Stdio(pipes, process))
}

async fn http(setup: &Setup, enforcer: SocketAddr) -> Outcome<Way> {
    let secret = setup.dir.join("bridge.secret");
    fs::write(&secret, format!("{SECRET}\n"))?;
    let listen = free_address()?;
    let mut process = sidecar(setup, "bridge-http", enforcer, |command| {
        command.args(["--http", &listen.to_string(), "--secret-file"]);
        command.arg(&secret);
    })?;
    process.await_listening(listen)?;
    let request = call(listen, &format!("/{SECRET}/"));
    let target = await_answers(Target::asking(listen, None, request)).await?;
    Ok(Way::Http(Box::new(Caller::open(target).await?), process))
}

/// Starts a bridge on the client's core, where it would be.
fn sidecar(
    setup: &Setup,
    name: &str,
    enforcer: SocketAddr,
    arrange: impl FnOnce(&mut std::process::Command),
) -> Outcome<Process> {
    let program = setup.programs.join("agentca-sidecar");
    let url = format!("https://localhost:{}{ENDPOINT}", enforcer.port());
    Process::start(name, Core::Load, &program, &setup.dir, |command| {
        command.args(["connect", &url, "--credentials"]);
        command.arg(setup.dir.join(AGENT));
        let authority = format!("https://{}", setup.authority_addr);
        command.args(["--authority", &authority]);
        arrange(command);
    })
}

impl Caller {
    async fn open(target: Target) -> Outcome<Self> {
        let connection = Connection::open(&target).await?;
        Ok(Self { connection, target })
    }

    async fn call(&mut self) -> Outcome<()> {
        ask(&mut self.connection, &self.target).await
    }
}

impl Pipes {
    /// A line out, a line in; nothing else runs on this thread, so that it may wait.
    fn call(&mut self) -> Outcome<()> {
        self.input.write_all(self.line.as_bytes())?;
        self.answer.clear();
        self.output.read_line(&mut self.answer)?;
        if self.answer.contains(r#""isError":false"#) {
            Ok(())
        } else {
            Err(format!("the bridge answered {}", self.answer).into())
        }
    }
}

impl Way {
    async fn call(&mut self) -> Outcome<()> {
        match self {
            Self::Direct(caller) | Self::Http(caller, _) => caller.call().await,
            Self::Stdio(pipes, _) => pipes.call(),
        }
    }

    fn bridge(&self) -> Option<&Process> {
        match self {
            Self::Direct(_) => None,
            Self::Stdio(_, process) | Self::Http(_, process) => Some(process),
        }
    }

    fn cpu_ns(&self) -> Outcome<u64> {
        self.bridge().map_or(Ok(0), Process::cpu_ns)
    }

    fn stop(self) -> Outcome<()> {
        match self {
            Self::Direct(_) => Ok(()),
            Self::Stdio(_, process) | Self::Http(_, process) => process.stop(),
        }
    }
}

impl Measured {
    fn new(name: &'static str, way: Way) -> Self {
        Self {
            name,
            way,
            rounds: vec![],
            cpu_ns: 0,
            resident_kib: 0,
        }
    }

    async fn call(&mut self, times: usize) -> Outcome<()> {
        let latencies = self.rounds.last_mut().ok_or("no round")?;
        let cpu_before = self.way.cpu_ns()?;
        for _ in 0..times {
            let before = Instant::now();
            self.way.call().await?;
            latencies.push(before.elapsed().as_secs_f64() * 1e6);
        }
        self.cpu_ns += self.way.cpu_ns()? - cpu_before;
        Ok(())
    }

    fn weigh(&mut self) -> Outcome<()> {
        if let Some(bridge) = self.way.bridge() {
            self.resident_kib = bridge.shown_resident_kib()?;
        }
        Ok(())
    }

    fn cpu_us(&self) -> f64 {
        let calls: usize = self.rounds.iter().map(Vec::len).sum();
        self.cpu_ns as f64 / 1e3 / calls.max(1) as f64
    }

    /// What it takes more than `direct` at `share`, in µs.
    fn added(&self, direct: &Self, share: PerMille) -> f64 {
        let pairs = self.rounds.iter().zip(&direct.rounds);
        let added: Vec<f64> = pairs
            .map(|(own, base)| percentile(own, share) - percentile(base, share))
            .collect();
        median(&added)
    }

    fn at(&self, share: PerMille) -> f64 {
        let each = self.rounds.iter().map(|round| percentile(round, share));
        median(&each.collect::<Vec<_>>())
    }
}

fn section(all: &[Measured], made: usize) -> Section {
    let mut section = Section::new("The bridge");
    section.say(format!(
        "`agentca-sidecar connect` between a client and the enforcer, on the client's core, verifying every \
         answer (`--verify require`). {} `tools/call` each way, one after the other, the ways in \
         turns of {TURN}; directly is one kept-alive mutual TLS connection of a client that verifies \
         nothing. \"Added\" is the difference to that, taken in each round, the median over the rounds. CPU is all that the bridge's process took, for each call. Resident memory as \
         `ps` shows it, after all calls.",
        count(made),
    ));
    let mut table = Table::new(&[
        "",
        "p50 µs",
        "p99 µs",
        "added p50 µs",
        "added p99 µs",
        "CPU µs",
        "RSS MiB",
    ]);
    let Some(direct) = all.first() else {
        return section;
    };
    for measured in all {
        let resident = measured.way.bridge().map(|_| measured.resident_kib as f64);
        let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
        let added = measured.added(direct, P50);
        table.row(&[
            measured.name.to_owned(),
            number(measured.at(P50)),
            number(measured.at(P99)),
            number(added),
            number(measured.added(direct, P99)),
            shown(resident.map(|_| measured.cpu_us())),
            shown(resident.map(|kib| kib / 1024.0)),
        ]);
        let Some(resident) = resident else { continue };
        let what = format!("`{}`, added to a call, p50", measured.name);
        section.bar(Bar::new(&what, added, Bound::AtMost(200.0), "µs"));
        let what = format!("`{}`, memory after {} calls", measured.name, count(made));
        let megabytes = resident * 1024.0 / 1e6;
        section.bar(Bar::new(&what, megabytes, Bound::AtMost(15.0), "MB"));
    }
    section.table(table);
    section
}
