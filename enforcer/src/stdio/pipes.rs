//! What goes into a process, and what comes out of it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;

use tokio::io::{AsyncWrite, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::mpsc;

use super::lines::{TooLong, next_line};
use super::process::Core;
use super::routes::{Fault, Line};
use super::{Counts, Stdio};
use crate::jsonrpc::Message;

/// Writes line by line; its end closes the process's standard input.
pub(super) async fn write(
    stdin: Option<ChildStdin>,
    mut lines: mpsc::Receiver<Line>,
    core: Arc<Core>,
) {
    let Some(mut stdin) = stdin else {
        return;
    };
    while let Some(line) = lines.recv().await {
        // Who sent it may have lost its rights while it waited, or given it up.
        let is_wanted = || {
            line.request
                .is_none_or(|number| core.routes().begin(number))
        };
        if line.may_go() && is_wanted() && put(&mut stdin, &line, &core).await.is_err() {
            return;
        }
        while lines.is_empty() {
            let Some(unsent) = core.routes().next_unsent() else {
                break;
            };
            let unsent = Line::of(unsent, None);
            if put(&mut stdin, &unsent, &core).await.is_err() {
                return;
            }
        }
    }
}

/// It takes no more, or is to get no more.
struct Broken;

/// Writes a line, for whom is asked before each piece of it. A line that stops within ends the process.
async fn put(stdin: &mut ChildStdin, line: &Line, core: &Core) -> Result<(), Broken> {
    let mut rest: &[u8] = &line.bytes;
    while !rest.is_empty() {
        let wrote = poll_fn(|cx| {
            if *core.ending.borrow() || !line.may_go() {
                return Poll::Ready(Err(Broken));
            }
            let wrote = Pin::new(&mut *stdin).poll_write(cx, rest);
            wrote.map_err(|_| Broken)
        });
        match wrote.await {
            Ok(wrote @ 1..) => rest = rest.get(wrote..).unwrap_or_default(),
            Ok(0) => return Err(Broken),
            Err(broken) => {
                if !line.may_go() {
                    core.ending.send_replace(true);
                }
                return Err(broken);
            }
        }
    }
    Ok(())
}

/// How reading a process's messages ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It has no more to say.
    Closed,
    /// What it says is of no use.
    Useless,
}

/// Reads answers until there are no more, or too many of no use.
pub(super) async fn read(stdout: Option<ChildStdout>, stdio: Weak<Stdio>, core: Arc<Core>) -> Stop {
    let Some(limits) = stdio.upgrade().map(|stdio| stdio.limits) else {
        return Stop::Closed;
    };
    let Some(stdout) = stdout else {
        return Stop::Closed;
    };
    let mut stdout = BufReader::with_capacity(READ_SIZE, stdout);
    let mut useless: u32 = 0;
    loop {
        let line = match next_line(&mut stdout, limits.line_max).await {
            Ok(Some(line)) => line,
            Ok(None) => return Stop::Closed,
            Err(TooLong) => {
                count(&stdio, |counts| &counts.bad_lines, 1);
                let longest = limits.line_max;
                tracing::warn!(
                    upstream = &*core.upstream,
                    pid = core.pid,
                    longest,
                    "it wrote too long a line"
                );
                return Stop::Useless;
            }
        };
        if line.trim_ascii().is_empty() {
            continue;
        }
        match route(&core, &line) {
            Ok(dropped) => {
                useless = 0;
                count(&stdio, |counts| &counts.dropped_messages, dropped);
            }
            Err(fault) => {
                useless += 1;
                count(&stdio, |counts| &counts.bad_lines, 1);
                tracing::warn!(upstream = &*core.upstream, pid = core.pid, %fault, "a line of it was dropped");
                if useless >= USELESS_LINES {
                    return Stop::Useless;
                }
            }
        }
    }
}

/// The one strict reading of a line: what is handed on is not checked again.
fn route(core: &Core, line: &[u8]) -> Result<u64, Fault> {
    let message = Message::read(line)?;
    core.routes().route(&message)
}

fn count(stdio: &Weak<Stdio>, which: impl Fn(&Counts) -> &AtomicU64, many: u64) {
    if many > 0
        && let Some(stdio) = stdio.upgrade()
    {
        which(&stdio.counts).fetch_add(many, Ordering::Relaxed);
    }
}

const READ_SIZE: usize = 32 << 10;
/// So many lines in a row that are of no use end a process.
const USELESS_LINES: u32 = 3;
