//! MCP servers that are programs: started here, spoken to over their standard input and output, and
//! ended with everything that they started.
//!
//! A session has a process of its own; where the revision has no sessions, an agent has one for all
//! its requests. No two agents ever share one. They live on the control plane's runtime, and are
//! used from any.

mod backoff;
mod lines;
mod mailbox;
mod pipes;
mod process;
mod reader;
mod request;
mod routes;
mod supervisor;
mod ties;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

use self::backoff::Backoff;
pub(crate) use self::mailbox::Room;
pub use self::process::{Exchange, Messages, Process};
pub use self::reader::LineReader;
pub use self::request::RpcRequest;
pub(crate) use self::ties::Tie;
use crate::config::CommandLine;
use crate::ops::ProgramCounts;
use crate::status::Watch;
use crate::upstream::Secret;

/// All processes of one upstream.
#[derive(Debug)]
pub struct Stdio {
    name: Arc<str>,
    command: CommandLine,
    limits: StdioLimits,
    handle: Handle,
    pool: Mutex<Pool>,
    /// A start holds it to its end, whether or not anybody waits for it: a key never gets two, and none passes
    /// a limit that another is about to reach.
    starting: Arc<tokio::sync::Mutex<()>>,
    /// How many there are, those that are ending among them.
    alive: watch::Sender<usize>,
    counts: Counts,
    me: Weak<Self>,
}

/// Whose a process is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// The agent's SPIFFE id.
    pub agent: Arc<str>,
    /// The session, where the revision has them.
    pub session: Option<Arc<str>>,
}

impl fmt::Debug for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A session's id is as good as a password.
        let session = self.session.as_ref().map_or("", |_| " (session)");
        write!(f, "{}{session}", self.agent)
    }
}

/// What processes may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StdioLimits {
    /// Processes of one upstream.
    pub max_processes: usize,
    /// Processes of one agent.
    pub max_agent_processes: usize,
    /// How long one is kept that nobody uses.
    pub idle: Duration,
    /// How long one has after its input was closed, and again after SIGTERM.
    pub grace: Duration,
    /// The longest line.
    pub line_max: usize,
    /// Bytes of messages that wait for one client.
    pub room: usize,
}

impl Default for StdioLimits {
    fn default() -> Self {
        Self {
            max_processes: 64,
            max_agent_processes: 8,
            idle: Duration::from_secs(300),
            grace: Duration::from_secs(2),
            line_max: 8 << 20,
            room: 8 << 20,
        }
    }
}

/// What happened so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Processes started.
    pub started: AtomicU64,
    /// Processes that ended though nobody asked.
    pub died: AtomicU64,
    /// Lines of no use.
    pub bad_lines: AtomicU64,
    /// Messages that nobody took, or that were nobody's.
    pub dropped_messages: AtomicU64,
    /// Starts refused, because too many run or one ended just now.
    pub refused: AtomicU64,
}

/// Why a process gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StdioError {
    /// It could not be started.
    #[error("`{0}` cannot be started: {1}")]
    Start(String, String),
    /// It ended just now, and waits for its next start.
    #[error("the server's process ended; it is started again in {0:?} at the earliest")]
    Backoff(Duration),
    /// Its agent, or the upstream, has as many as it may, and all are in use.
    #[error("as many of the server's processes as may be are in use")]
    Full,
    /// It has as many requests as it may.
    #[error("too many requests wait for the server's process")]
    Busy,
    /// It ended by itself, or for what it wrote.
    #[error("the server's process ended before it answered")]
    Died,
    /// It was ended: its agent was revoked, nobody used it, or the enforcer stops.
    #[error("the server's process was ended")]
    Ended,
    /// Its client cancelled the request.
    #[error("the request was cancelled")]
    Cancelled,
    /// Its client took nothing.
    #[error("the client does not take what the server sends")]
    TooSlow,
    /// All that is held for clients together is as much as may be.
    #[error("too much of other calls is held right now")]
    NoRoom,
    /// A secret for its environment.
    #[error("`{0}` of `env_from` {1}")]
    Secret(String, String),
    /// An answer to nothing.
    #[error("the server did not ask that")]
    NotAsked,
    /// Not the kind of message that was announced.
    #[error("it is no such JSON-RPC message")]
    NotAMessage,
}

#[derive(Debug, Default)]
struct Pool {
    processes: HashMap<ProcessKey, Process>,
    /// By agent, those that are ending among them.
    alive: HashMap<Arc<str>, usize>,
    /// By agent, so that none can keep another's from being started.
    backoff: HashMap<Arc<str>, Backoff>,
    is_shut: bool,
}

impl Stdio {
    /// An upstream without any process yet; they will run on `handle`'s runtime.
    #[must_use]
    pub fn new(name: &str, command: CommandLine, limits: StdioLimits, handle: Handle) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            name: Arc::from(name),
            command,
            limits,
            handle,
            pool: Mutex::default(),
            starting: Arc::default(),
            alive: watch::Sender::new(0),
            counts: Counts::default(),
            me: Weak::clone(me),
        })
    }

    /// The process of a key, if it runs.
    #[must_use]
    pub fn running(&self, key: &ProcessKey) -> Option<Process> {
        let pool = self.lock();
        let process = pool.processes.get(key)?;
        process.is_open().then(|| process.clone())
    }

    /// The process of a key; started when there is none.
    ///
    /// # Errors
    /// [`StdioError`]: it cannot be started, or not now.
    pub async fn process(&self, key: ProcessKey) -> Result<Process, StdioError> {
        self.process_of(key, None).await
    }

    /// The same, ended with what the watch is on, even when nobody waits for it any more.
    pub(crate) async fn process_of(
        &self,
        key: ProcessKey,
        watch: Option<Watch>,
    ) -> Result<Process, StdioError> {
        if let Some(process) = self.running(&key) {
            return Ok(process);
        }
        let starting = Arc::clone(&self.starting).lock_owned().await;
        if let Some(process) = self.running(&key) {
            return Ok(process);
        }
        self.make_room(&key.agent).inspect_err(|_| {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        let me = self.me.upgrade().ok_or(StdioError::Ended)?;
        let started = self
            .handle
            .spawn(async move {
                let _starting = starting;
                let secrets = me.secrets().await?;
                let process = me.start(key, &secrets)?;
                if let Some(watch) = watch {
                    process.tie(&watch);
                }
                Ok(process)
            })
            .await
            .unwrap_or(Err(StdioError::Ended))?;
        Ok(started)
    }

    /// Ends a session's process.
    pub fn end(&self, key: &ProcessKey) {
        let process = self.lock().processes.get(key).cloned();
        if let Some(process) = process {
            process.end();
        }
    }

    /// Ends all processes of an agent.
    pub fn end_agent(&self, agent: &str) {
        self.end_those(|key| &*key.agent == agent);
    }

    /// Ends all processes, starts none any more, and waits until nothing of them is left.
    pub async fn shutdown(&self) {
        self.lock().is_shut = true;
        self.end_those(|_| true);
        let mut alive = self.alive.subscribe();
        // The sender is here.
        let _held = alive.wait_for(|alive| *alive == 0).await;
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What happened so far, for operators.
    pub(crate) fn counted(&self) -> ProgramCounts {
        let Counts {
            started,
            died,
            bad_lines,
            dropped_messages,
            refused,
        } = &self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ProgramCounts {
            upstream: Arc::clone(&self.name),
            alive: self.alive(),
            events: [
                ("started", read(started)),
                ("died", read(died)),
                ("refused", read(refused)),
                ("bad-line", read(bad_lines)),
                ("dropped-message", read(dropped_messages)),
            ],
        }
    }

    /// How many processes there are.
    #[must_use]
    pub fn alive(&self) -> usize {
        *self.alive.borrow()
    }

    fn end_those(&self, which: impl Fn(&ProcessKey) -> bool) {
        let those: Vec<Process> = {
            let pool = self.lock();
            let those = pool.processes.values();
            those
                .filter(|process| which(process.key()))
                .cloned()
                .collect()
        };
        for process in those {
            process.end();
        }
    }

    /// Ends the one that was idle longest where there are too many.
    fn make_room(&self, agent: &Arc<str>) -> Result<(), StdioError> {
        let mut pool = self.lock();
        if pool.is_shut {
            return Err(StdioError::Ended);
        }
        let now = Instant::now();
        pool.backoff.retain(|_, backoff| !backoff.is_forgotten(now));
        if let Some(left) = pool
            .backoff
            .get(agent)
            .and_then(|backoff| backoff.left(now))
        {
            return Err(StdioError::Backoff(left));
        }
        // Those that are ending are processes too: who has many of them waits.
        let (mine, all) = (pool.alive.get(agent).copied(), *self.alive.borrow());
        if mine.unwrap_or_default() >= self.limits.max_agent_processes.saturating_mul(2)
            || all >= self.limits.max_processes.saturating_mul(2)
        {
            return Err(StdioError::Full);
        }
        let of_agent = |key: &ProcessKey| key.agent == *agent;
        if pool.processes.keys().filter(|key| of_agent(key)).count()
            >= self.limits.max_agent_processes
        {
            pool.evict(of_agent)?;
        }
        if pool.processes.len() >= self.limits.max_processes {
            pool.evict(|_| true)?;
        }
        Ok(())
    }

    /// What its environment has from elsewhere, read anew for each process.
    async fn secrets(&self) -> Result<Vec<(&str, Secret)>, StdioError> {
        let mut secrets = Vec::new();
        for (name, source) in &self.command.secrets {
            let secret = Secret::read(source).await.map_err(|error| {
                tracing::warn!(target: START, upstream = &*self.name, name, %source, %error, "no process");
                StdioError::Secret(name.clone(), error.to_string())
            })?;
            secrets.push((name.as_str(), secret));
        }
        Ok(secrets)
    }

    fn start(
        self: &Arc<Self>,
        key: ProcessKey,
        secrets: &[(&str, Secret)],
    ) -> Result<Process, StdioError> {
        let mut pool = self.lock();
        // Shut since room was made.
        if pool.is_shut {
            return Err(StdioError::Ended);
        }
        let agent = Arc::clone(&key.agent);
        match process::start(self, key.clone(), secrets) {
            Ok(process) => {
                self.counts.started.fetch_add(1, Ordering::Relaxed);
                self.alive.send_modify(|alive| *alive += 1);
                *pool.alive.entry(agent).or_default() += 1;
                pool.processes.insert(key, process.clone());
                Ok(process)
            }
            Err(error) => {
                tracing::warn!(target: START, upstream = &*self.name, %error, "no process");
                pool.back_off(&agent, Duration::ZERO);
                Err(error)
            }
        }
    }

    /// Called once nothing of a process is left, with how long it lived if nobody asked for its end.
    fn ended(&self, process: &Process, died_after: Option<Duration>) {
        let mut pool = self.lock();
        let key = process.key();
        pool.remove(process);
        if let Some(count) = pool.alive.get_mut(&key.agent) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                pool.alive.remove(&key.agent);
            }
        }
        if let Some(lived) = died_after {
            self.counts.died.fetch_add(1, Ordering::Relaxed);
            pool.back_off(&key.agent, lived);
        }
        self.alive
            .send_modify(|alive| *alive = alive.saturating_sub(1));
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        // Its processes are supervised to their end by tasks of their own.
        self.end_those(|_| true);
    }
}

impl Pool {
    /// Ends the process that was idle longest of those.
    fn evict(&mut self, which: impl Fn(&ProcessKey) -> bool) -> Result<(), StdioError> {
        let idle = self
            .processes
            .values()
            .filter(|process| which(process.key()))
            .filter_map(|process| Some((process.idle_since()?, process)));
        let oldest = idle.min_by_key(|(since, _)| *since);
        let process = oldest.map(|(_, process)| process.clone());
        let process = process.ok_or(StdioError::Full)?;
        process.end();
        self.remove(&process);
        Ok(())
    }

    /// A key may have another process by now.
    fn remove(&mut self, process: &Process) {
        let key = process.key();
        if self.processes.get(key).is_some_and(|held| held.is(process)) {
            self.processes.remove(key);
        }
    }

    fn back_off(&mut self, agent: &Arc<str>, lived: Duration) {
        let before = self.backoff.get(agent).copied();
        let backoff = Backoff::after(before, lived, Instant::now());
        self.backoff.insert(Arc::clone(agent), backoff);
    }
}

/// Where it is logged that there is no process: whoever says that otherwise can turn it off.
const START: &str = "agentca_enforcer::stdio::start";

#[cfg(test)]
mod tests;
