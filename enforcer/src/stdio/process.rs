//! One running process: its life, and what is sent to it.
//!
//! Four tasks of the control plane's runtime: one writes, one reads answers, one reads what it logs,
//! and one waits for its end and brings it about; besides one for each certificate that reached it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::BufReader;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::lines::log_stderr;
use super::mailbox::{Mailbox, Room};
use super::pipes::{read, write};
use super::request::RpcRequest;
use super::routes::{Line, Routes};
use super::supervisor::{Group, Supervisor};
use super::ties::{Tie, Ties};
use super::{ProcessKey, Stdio, StdioError};
use crate::status::Watch;
use crate::upstream::Secret;

/// A handle on a running process.
#[derive(Clone, Debug)]
pub struct Process {
    pub(super) core: Arc<Core>,
}

/// What its handles and tasks share.
pub(super) struct Core {
    pub(super) upstream: Arc<str>,
    key: ProcessKey,
    pub(super) pid: u32,
    routes: Mutex<Routes>,
    outbox: mpsc::Sender<Line>,
    messages: Arc<Mailbox>,
    /// True once it is to end.
    pub(super) ending: watch::Sender<bool>,
    /// True once nothing of it is left.
    pub(super) gone: watch::Sender<bool>,
    /// Whose rights it ends with.
    pub(super) ties: Ties,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Core({} {})", self.upstream, self.pid)
    }
}

impl Core {
    pub(super) fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Sends a request, and gives what comes of it.
    ///
    /// # Errors
    /// [`StdioError`] when the process takes none any more.
    pub async fn request(&self, request: &RpcRequest) -> Result<Exchange, StdioError> {
        self.request_of(request, None, None).await
    }

    /// The same for a client: what waits for it takes of its room, and nothing of it is written once it
    /// lost its rights.
    pub(crate) async fn request_of(
        &self,
        request: &RpcRequest,
        tie: Option<&Tie>,
        room: Option<Room>,
    ) -> Result<Exchange, StdioError> {
        let opened = self.core.routes().open(request)?;
        let exchange = Exchange {
            core: Arc::clone(&self.core),
            number: opened.number,
            mailbox: opened.mailbox,
        };
        if let Some(room) = room {
            exchange.mailbox.within(room);
        }
        let line = Line {
            bytes: opened.line,
            request: Some(exchange.number),
            tie: tie.cloned(),
        };
        self.send(line).await?;
        Ok(exchange)
    }

    /// Passes a client's notification on. What cancels a request ends its [`Exchange`].
    ///
    /// # Errors
    /// [`StdioError`] when it is none, or the process takes nothing any more.
    pub async fn notify(&self, text: Bytes) -> Result<(), StdioError> {
        self.notify_of(text, None).await
    }

    pub(crate) async fn notify_of(&self, text: Bytes, tie: Option<&Tie>) -> Result<(), StdioError> {
        let line = self.core.routes().notification(&text)?;
        match line {
            Some(line) => self.send(Line::of(line, tie)).await,
            None => Ok(()),
        }
    }

    /// Passes on what a client answers to the server.
    ///
    /// # Errors
    /// [`StdioError::NotAsked`] when the server did not ask that, or what [`Process::notify`] says.
    pub async fn respond(&self, text: Bytes) -> Result<(), StdioError> {
        self.respond_of(text, None).await
    }

    pub(crate) async fn respond_of(
        &self,
        text: Bytes,
        tie: Option<&Tie>,
    ) -> Result<(), StdioError> {
        let line = self.core.routes().response(&text)?;
        self.send(Line::of(line, tie)).await
    }

    /// What the server says when nothing runs that it would belong to. Whoever asked before gets
    /// nothing any more; the oldest are dropped when nobody takes them.
    #[must_use]
    pub fn messages(&self) -> Messages {
        Messages {
            reader: self.core.messages.enter(),
            core: Arc::clone(&self.core),
        }
    }

    /// It ends with what the watch is on.
    pub(crate) fn tie(&self, watch: &Watch) -> Tie {
        self.core.ties.tie(self, watch)
    }

    /// What it says by itself takes of this.
    pub(crate) fn within(&self, room: Room) {
        self.core.messages.within(room);
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.core.pid
    }

    /// Whose it is.
    #[must_use]
    pub fn key(&self) -> &ProcessKey {
        &self.core.key
    }

    /// Waits until nothing of it is left.
    pub async fn gone(&self) {
        let mut gone = self.core.gone.subscribe();
        // The sender is in the core, which is held here.
        let _held = gone.wait_for(|gone| *gone).await;
    }

    /// Whether it takes requests; it is not idle for a while then.
    pub(super) fn is_open(&self) -> bool {
        let mut routes = self.core.routes();
        routes.touch();
        routes.still_open().is_ok()
    }

    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.core.routes().idle_since()
    }

    /// Ends it: what runs fails now.
    pub(super) fn end(&self) {
        self.core.routes().close(StdioError::Ended);
        self.core.ending.send_replace(true);
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }

    async fn send(&self, line: Line) -> Result<(), StdioError> {
        let sent = self.core.outbox.send(line).await;
        sent.map_err(|_| match self.core.routes().still_open() {
            Err(why) => why,
            Ok(()) => StdioError::Died,
        })
    }
}

/// What comes of one request. Dropped before its end, the server is told that it is cancelled.
#[derive(Debug)]
pub struct Exchange {
    core: Arc<Core>,
    number: u64,
    mailbox: Arc<Mailbox>,
}

impl Exchange {
    /// The next message, the response last; none after it, or after an error.
    pub async fn next(&mut self) -> Option<Result<Bytes, StdioError>> {
        self.mailbox.next().await
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // What was answered is not known there any more.
        self.core.routes().give_up(self.number);
    }
}

/// What a server says without being asked.
#[derive(Debug)]
pub struct Messages {
    core: Arc<Core>,
    reader: u64,
}

impl Messages {
    /// The next message; none when the process ended, or somebody else reads them now.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.core.messages.next_as(self.reader).await
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.core.messages.leave(self.reader);
        self.core.routes().touch();
    }
}

/// Starts a process; it is supervised until nothing of it is left. Called on the control plane's runtime.
pub(super) fn start(
    stdio: &Arc<Stdio>,
    key: ProcessKey,
    secrets: &[(&str, Secret)],
) -> Result<Process, StdioError> {
    let line = &stdio.command;
    let inherited = ["PATH", "HOME"].map(|name| (name, std::env::var_os(name)));
    let inherited = inherited
        .iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let mut child = Command::new(&line.program)
        .args(&line.arguments)
        .env_clear()
        .envs(inherited)
        .envs(&line.environment)
        .envs(secrets.iter().map(|(name, secret)| (name, secret.text())))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| StdioError::Start(line.program.clone(), error.to_string()))?;
    let pid = child.id().unwrap_or_default();
    let (outbox, lines) = mpsc::channel(LINES);
    let messages = Arc::new(Mailbox::new(stdio.limits.room));
    let routes = Routes::new(
        key.session.is_some(),
        outbox.clone(),
        Arc::clone(&messages),
        stdio.limits.room,
    );
    let core = Arc::new(Core {
        upstream: Arc::clone(&stdio.name),
        key,
        pid,
        routes: Mutex::new(routes),
        outbox,
        messages,
        ending: watch::Sender::new(false),
        gone: watch::Sender::new(false),
        ties: Ties::new(),
    });
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    if let Some(stderr) = pipes.2 {
        let upstream = Arc::clone(&core.upstream);
        let secrets: Vec<Secret> = secrets.iter().map(|(_, secret)| secret.clone()).collect();
        tokio::spawn(async move {
            // Some tell their whole environment when they start or crash.
            let say = |line: &str| {
                let line = secrets
                    .iter()
                    .fold(line.into(), |line, secret| secret.left_out(line));
                tracing::info!(target: STDERR, upstream = &*upstream, pid, "{line}");
            };
            log_stderr(BufReader::new(stderr), &upstream, pid, say).await;
        });
    }
    tracing::info!(upstream = &*core.upstream, pid, "process started");
    let process = Process {
        core: Arc::clone(&core),
    };
    let supervisor = Supervisor {
        writer: tokio::spawn(write(pipes.0, lines, Arc::clone(&core))),
        reader: tokio::spawn(read(pipes.1, Arc::downgrade(stdio), Arc::clone(&core))),
        group: Group::new(child, pid),
        limits: stdio.limits,
        started: Instant::now(),
        stdio: Arc::downgrade(stdio),
        process: process.clone(),
    };
    tokio::spawn(supervisor.run());
    Ok(process)
}

/// Lines that wait to be written.
const LINES: usize = 16;
/// Where what processes log can be asked for: `AGENTCA_LOG=agentca_enforcer::stdio::stderr=off`.
const STDERR: &str = "agentca_enforcer::stdio::stderr";
