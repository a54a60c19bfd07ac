//! Pinned child processes: started with `taskset`, ended by their own id, asked for CPU and memory.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;

/// Where a process may run.
#[derive(Clone, Copy)]
pub(crate) enum Core {
    /// The server under test, alone.
    Server,
    /// The load generator, the upstream, and whatever else is not being measured.
    Load,
    /// Both: where no single core is the question.
    Any,
}

impl Core {
    fn list(self) -> &'static str {
        match self {
            Core::Server => "0",
            Core::Load => "1",
            Core::Any => "0,1",
        }
    }
}

/// A child that ends when this value does.
pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `program` on `core`, its output going to `log_dir/name.log`.
    pub(crate) fn start(
        name: &str,
        core: Core,
        program: &Path,
        log_dir: &Path,
        arrange: impl FnOnce(&mut Command),
    ) -> Outcome<Self> {
        let output = fs::File::create(log_dir.join(format!("{name}.log")))?;
        let mut command = pinned(core, program);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        arrange(&mut command);
        let child = command
            .spawn()
            .map_err(|e| format!("starting {name}: {e}"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
        })
    }

    /// Waits until something accepts on `addr`.
    pub(crate) fn await_listening(&mut self, addr: SocketAddr) -> Outcome<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if TcpStream::connect(addr).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended at start with {status}", self.name).into());
            }
            if Instant::now() > deadline {
                return Err(format!("{} does not listen on {addr}", self.name).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Nanoseconds of CPU used so far by this process, its threads and its children.
    pub(crate) fn cpu_ns(&self) -> Outcome<u64> {
        cpu_ns(self.id())
    }

    /// Resident kibibytes of this process and its children, pages shared between them counted once.
    pub(crate) fn resident_kib(&self) -> Outcome<u64> {
        let mut total = 0;
        for pid in family(self.id()) {
            total += rollup_kib(pid, "Pss:")?;
        }
        Ok(total)
    }

    /// The same as `ps` shows it: shared pages counted in full, for each.
    pub(crate) fn shown_resident_kib(&self) -> Outcome<u64> {
        let each = family(self.id()).into_iter();
        each.map(|pid| rollup_kib(pid, "Rss:")).sum()
    }

    /// Its input and output, where they were arranged to be pipes; once.
    pub(crate) fn pipes(&mut self) -> Outcome<(ChildStdin, ChildStdout)> {
        let pipes = self.child.stdin.take().zip(self.child.stdout.take());
        Ok(pipes.ok_or_else(|| format!("{} has no pipes", self.name))?)
    }

    /// Asks the process to end and waits for it; kills it after a while.
    pub(crate) fn stop(mut self) -> Outcome<()> {
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = Command::new("kill")
            .arg("-TERM")
            .arg(self.child.id().to_string())
            .status();
        let deadline = Instant::now() + Duration::from_secs(15);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A command that will run on `core` only.
pub(crate) fn pinned(core: Core, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.list()).arg(program);
    command
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let done = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if done.status.success() {
        return Ok(String::from_utf8(done.stdout)?);
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(format!("{command:?} ended with {}: {said}", done.status).into())
}

/// Nanoseconds of CPU used so far by process `pid`, its threads and its children.
pub(crate) fn cpu_ns(pid: u32) -> Outcome<u64> {
    family(pid).into_iter().map(process_cpu_ns).sum()
}

/// A port of the loopback that was free a moment ago.
pub(crate) fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// This program, for its own helper processes.
pub(crate) fn own_program() -> Outcome<PathBuf> {
    Ok(std::env::current_exe()?)
}

fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    for child in children.unwrap_or_default().split_whitespace() {
        if let Ok(child) = child.parse() {
            all.extend(family(child));
        }
    }
    all
}

fn process_cpu_ns(pid: u32) -> Outcome<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let on_cpu = stat
            .split_whitespace()
            .next()
            .and_then(|v| v.parse::<u64>().ok());
        total += on_cpu.unwrap_or(0);
    }
    Ok(total)
}

fn rollup_kib(pid: u32, key: &str) -> Outcome<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find(|line| line.starts_with(key));
    let value = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(value
        .ok_or_else(|| format!("no {key} for process {pid}"))?
        .parse()?)
}
