//! The same servers over standard input and output, a message on each line.

use std::sync::Arc;

use rmcp::{ServerHandler, ServiceExt};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::{Misbehaviour, Server};
use crate::business::Business;
use crate::calls::Calls;
use crate::misbehaviour;
use crate::suite::Suite;

/// Serves until standard input ends.
pub(crate) async fn serve(server: &Server, calls: Arc<Calls>) {
    match server {
        Server::Suite => library(Suite::default(), calls, None, None).await,
        Server::Business => library(Business::default(), calls, None, None).await,
        Server::Misbehaving(how) => match how {
            Misbehaviour::ChangedTool
            | Misbehaviour::CrashOn(_)
            | Misbehaviour::ChattyStderr
            | Misbehaviour::IgnoresEof => {
                let business = Business::default();
                library(business.clone(), calls, Some(how.clone()), Some(business)).await;
            }
            how => by_hand(how, &calls).await,
        },
    }
}

/// Passes each line on to the library, unless it is time to go wrong.
async fn library<H: ServerHandler>(
    handler: H,
    calls: Arc<Calls>,
    how: Option<Misbehaviour>,
    bank: Option<Business>,
) {
    let deaf = how == Some(Misbehaviour::IgnoresEof);
    // Whoever listens to a signal is not ended by it.
    let _deaf = deaf.then(|| signal(SignalKind::terminate()).expect("signals"));
    let (mut lines, input) = tokio::io::duplex(1 << 20);
    let feeding = tokio::spawn(async move {
        let mut stdin = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = stdin.next_line().await {
            calls.stdio(&line);
            match (&how, &bank) {
                (Some(Misbehaviour::ChangedTool), Some(bank)) if line == "change" => {
                    bank.change().await;
                    continue;
                }
                (Some(Misbehaviour::CrashOn(tool)), _) if calls_tool(&line, tool) => {
                    std::process::exit(3);
                }
                (Some(Misbehaviour::ChattyStderr), _) => complain(),
                _ => {}
            }
            let sent = lines.write_all(format!("{line}\n").as_bytes()).await;
            if sent.is_err() {
                break;
            }
        }
        if deaf {
            std::future::pending::<()>().await;
        }
    });
    if let Ok(service) = handler.serve((input, tokio::io::stdout())).await {
        let _ended = service.waiting().await;
    }
    if deaf {
        let _never = feeding.await;
    }
    // What reads standard input does so on a thread that nothing interrupts.
    std::process::exit(0);
}

async fn by_hand(how: &Misbehaviour, calls: &Calls) {
    let mut stdin = BufReader::new(tokio::io::stdin()).lines();
    let mut stdout = tokio::io::stdout();
    while let Ok(Some(line)) = stdin.next_line().await {
        calls.stdio(&line);
        for answer in misbehaviour::lines(how, &line) {
            let sent = stdout.write_all(format!("{answer}\n").as_bytes()).await;
            if sent.is_err() || stdout.flush().await.is_err() {
                return;
            }
        }
    }
}

fn calls_tool(line: &str, tool: &str) -> bool {
    let message: Value = serde_json::from_str(line).unwrap_or_default();
    let at = |path: &str| message.pointer(path).and_then(Value::as_str);
    at("/method") == Some("tools/call") && at("/params/name") == Some(tool)
}

/// A megabyte: more than any pipe holds, so whoever does not read it stops us.
fn complain() {
    let complaint = "it is all so very hard ".repeat(45);
    for _ in 0..1000 {
        eprintln!("{complaint}");
    }
}
