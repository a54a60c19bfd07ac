//! The end of a process, whoever brings it about: nothing of it stays.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::process::Child;
use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::pipes::Stop;
use super::process::Process;
use super::{Stdio, StdioError, StdioLimits};

/// Waits for the end of a process, and brings it about.
pub(super) struct Supervisor {
    // First, so that it is dropped first: its group ends with it.
    pub(super) group: Group,
    pub(super) writer: JoinHandle<()>,
    pub(super) reader: JoinHandle<Stop>,
    pub(super) limits: StdioLimits,
    pub(super) started: Instant,
    pub(super) stdio: Weak<Stdio>,
    pub(super) process: Process,
}

/// Why a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Exited,
    Said(Stop),
    Asked,
    Idle,
}

impl Supervisor {
    pub(super) async fn run(mut self) {
        let core = Arc::clone(&self.process.core);
        let cause = self.cause().await;
        if matches!(cause, Cause::Asked | Cause::Idle) {
            core.routes().close(StdioError::Ended);
        } else {
            core.routes().refuse_more(StdioError::Died);
        }
        self.writer.abort();
        let status = self.group.end(self.limits.grace).await;
        if cause == Cause::Exited {
            // What it said last is still in the pipe, which only a grandchild may hold open now.
            let _late = tokio::time::timeout(self.limits.grace, &mut self.reader).await;
        }
        self.reader.abort();
        core.routes().close(StdioError::Died);
        let lived = self.started.elapsed();
        let (upstream, pid) = (&*core.upstream, core.pid);
        match cause {
            Cause::Asked => tracing::info!(upstream, pid, %status, "process ended"),
            Cause::Idle => tracing::info!(upstream, pid, %status, "idle process ended"),
            Cause::Exited => {
                tracing::warn!(upstream, pid, %status, ?lived, "process ended by itself")
            }
            Cause::Said(Stop::Closed) => {
                tracing::warn!(upstream, pid, %status, ?lived, "process closed its standard output");
            }
            Cause::Said(Stop::Useless) => {
                tracing::warn!(upstream, pid, %status, ?lived, "process ended for what it wrote");
            }
        }
        if let Some(stdio) = self.stdio.upgrade() {
            let by_itself = matches!(cause, Cause::Exited | Cause::Said(_));
            stdio.ended(&self.process, by_itself.then_some(lived));
        }
        core.gone.send_replace(true);
    }

    async fn cause(&mut self) -> Cause {
        let mut ending = self.process.core.ending.subscribe();
        let idle = idle(&self.process, self.limits.idle);
        tokio::select! {
            biased;
            _ = ending.wait_for(|ending| *ending) => Cause::Asked,
            () = self.group.exited() => Cause::Exited,
            stop = &mut self.reader => Cause::Said(stop.unwrap_or(Stop::Closed)),
            () = idle => Cause::Idle,
        }
    }
}

/// Returns once the process has been idle for so long, and takes nothing any more.
async fn idle(process: &Process, longest: Duration) {
    loop {
        let since = {
            let mut routes = process.core.routes();
            let since = routes.idle_since();
            if since.is_some_and(|since| since.elapsed() >= longest) {
                routes.close(StdioError::Ended);
                return;
            }
            since
        };
        let from = since.unwrap_or_else(Instant::now);
        let until = from.checked_add(longest).unwrap_or(from);
        tokio::time::sleep_until(until).await;
    }
}

/// A process and all that it started, as far as they stayed in its group.
pub(super) struct Group {
    child: Child,
    pid: Option<Pid>,
    /// Heard whenever some child has exited. It is not reaped then: until it is, its id is no
    /// other's, and so the group can be signalled.
    exits: Option<UnixSignal>,
    is_over: bool,
}

impl Group {
    pub(super) fn new(child: Child, pid: u32) -> Self {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Self {
            child,
            pid,
            exits: signal(SignalKind::child()).ok(),
            is_over: false,
        }
    }

    /// Waits until its leader has exited.
    async fn exited(&mut self) {
        let (Some(pid), Some(exits)) = (self.pid, &mut self.exits) else {
            let _status = self.child.wait().await;
            return;
        };
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        // An error is one that was reaped already.
        while let Ok(None) = waitid(WaitId::Pid(pid), look) {
            if exits.recv().await.is_none() {
                let _status = self.child.wait().await;
                return;
            }
        }
    }

    /// Lets it end by itself, then asks it to, then kills it; gives how its leader ended.
    async fn end(&mut self, grace: Duration) -> String {
        if tokio::time::timeout(grace, self.exited()).await.is_err() {
            self.signal(Signal::TERM);
            if tokio::time::timeout(grace, self.exited()).await.is_err() {
                self.signal(Signal::KILL);
                self.exited().await;
            }
        }
        self.signal(Signal::KILL);
        self.is_over = true;
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            // There may be nobody left.
            let _gone = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_over {
            self.signal(Signal::KILL);
        }
    }
}
