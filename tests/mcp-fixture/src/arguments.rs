//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What to do.
pub(crate) struct Arguments {
    pub(crate) place: Place,
    pub(crate) server: Server,
    pub(crate) calls: Option<PathBuf>,
}

/// Where to serve.
pub(crate) enum Place {
    Http(SocketAddr),
    Stdio,
}

/// What to serve.
#[derive(Clone)]
pub(crate) enum Server {
    Suite,
    Business,
    Misbehaving(Misbehaviour),
}

/// How to go wrong.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Misbehaviour {
    DuplicateKeys,
    TwoAnswers,
    WrongId,
    HugeList(usize),
    ListAsSse,
    ListNotJson,
    ChangedTool,
    Stall,
    CloseEarly,
    NeverEnds,
    CrashOn(String),
    ChattyStderr,
    IgnoresEof,
}

pub(crate) const USAGE: &str = "\
usage: agentca-mcp-fixture (--http ADDRESS:PORT | --stdio) [--business | --misbehave MODE] [--calls FILE]

  --http       serve Streamable HTTP at /mcp; the first line printed is the address, so port 0 will do
  --stdio      serve over standard input and output
  --business   a small bank instead of the conformance suite's tools
  --calls      append every call that arrives to FILE, a line of JSON each
  --misbehave  the bank, but with
      duplicate-keys   results with a name twice
      two-answers      two answers to one call, on one stream
      wrong-id         answers to a request nobody made
      huge-list N      N tools
      list-as-sse      its tools listed on a stream
      list-not-json    a list that is no JSON
      changed-tool     another `account_balance` after a POST to /change (or the line `change`)
      stall            no answer to any call
      close-early      a stream that is cut within an event
      never-ends       a stream that goes on for ever
      crash-on TOOL    an end when TOOL is called
      chatty-stderr    a megabyte of complaints for each message
      ignores-eof      no end, neither when its input ends nor on SIGTERM";

impl Arguments {
    pub(crate) fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut words = words;
        let (mut place, mut server, mut calls) = (None, Server::Suite, None);
        while let Some(word) = words.next() {
            let mut next = |what: &str| words.next().ok_or(format!("`{word}` wants {what}"));
            match word.as_str() {
                "--stdio" => place = Some(Place::Stdio),
                "--http" => {
                    let address = next("an address with a port")?;
                    let wrong = |_| format!("`{address}` is no address with a port");
                    place = Some(Place::Http(address.parse().map_err(wrong)?));
                }
                "--calls" => calls = Some(PathBuf::from(next("a file")?)),
                "--business" => server = Server::Business,
                "--misbehave" => {
                    let mode = next("a mode")?;
                    server = Server::Misbehaving(misbehaviour(&mode, next)?);
                }
                other => return Err(format!("`{other}` is no option")),
            }
        }
        Ok(Self {
            place: place.ok_or("say `--http ADDRESS:PORT` or `--stdio`")?,
            server,
            calls,
        })
    }
}

fn misbehaviour(
    mode: &str,
    mut next: impl FnMut(&str) -> Result<String, String>,
) -> Result<Misbehaviour, String> {
    Ok(match mode {
        "duplicate-keys" => Misbehaviour::DuplicateKeys,
        "two-answers" => Misbehaviour::TwoAnswers,
        "wrong-id" => Misbehaviour::WrongId,
        "huge-list" => {
            let many = next("a number of tools")?;
            Misbehaviour::HugeList(many.parse().map_err(|_| format!("`{many}` is no number"))?)
        }
        "list-as-sse" => Misbehaviour::ListAsSse,
        "list-not-json" => Misbehaviour::ListNotJson,
        "changed-tool" => Misbehaviour::ChangedTool,
        "stall" => Misbehaviour::Stall,
        "close-early" => Misbehaviour::CloseEarly,
        "never-ends" => Misbehaviour::NeverEnds,
        "crash-on" => Misbehaviour::CrashOn(next("a tool's name")?),
        "chatty-stderr" => Misbehaviour::ChattyStderr,
        "ignores-eof" => Misbehaviour::IgnoresEof,
        other => return Err(format!("`{other}` is no mode")),
    })
}
