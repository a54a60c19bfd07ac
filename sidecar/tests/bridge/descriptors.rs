//! Standard input and output as clients give them: pipes, sockets, files.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{ExitStatus, Stdio};

use serde_json::Value;

use crate::fake::{Fake, PATIENCE, Reply};
use crate::program::{command, folder_of};

const REQUEST: &[u8] = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}\n";
const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;

/// Runs a bridge whose input holds all that is said to it already.
async fn run(input: impl Into<Stdio>, output: impl Into<Stdio>) -> ExitStatus {
    let fake = Fake::start(|_| Reply::json(ANSWER)).await;
    let folder = folder_of(&fake);
    let url = fake.url();
    let mut child = command(folder.path())
        .args(["connect", "--stdio", "--no-renew", &url])
        .args(["--credentials", "agent"])
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    ended.expect("it ends with its input").unwrap()
}

#[track_caller]
fn check(status: ExitStatus, mut output: impl Read) {
    assert!(status.success(), "{status}");
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said, serde_json::from_str::<Value>(ANSWER).unwrap());
}

#[tokio::test]
async fn pipes_that_end_before_the_bridge_begins_are_read_to_their_end() {
    let (input, mut client) = std::io::pipe().unwrap();
    let (heard, output) = std::io::pipe().unwrap();
    client.write_all(REQUEST).unwrap();
    drop(client);
    check(run(input, output).await, heard);
}

#[tokio::test]
async fn sockets_serve_as_well() {
    let (input, mut client) = UnixStream::pair().unwrap();
    let (heard, output) = UnixStream::pair().unwrap();
    client.write_all(REQUEST).unwrap();
    drop(client);
    let status = run(OwnedFd::from(input), OwnedFd::from(output)).await;
    check(status, heard);
}

#[tokio::test]
async fn files_serve_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let (said, heard) = (folder.path().join("in"), folder.path().join("out"));
    std::fs::write(&said, REQUEST).unwrap();
    let output = File::create_new(&heard).unwrap();
    let status = run(File::open(&said).unwrap(), output).await;
    check(status, File::open(&heard).unwrap());
}

#[tokio::test]
async fn who_else_writes_to_the_output_still_waits_when_it_is_full() {
    let (input, client) = std::io::pipe().unwrap();
    let (heard, output) = std::io::pipe().unwrap();
    let other = output.try_clone().unwrap();
    drop(client);
    assert!(run(input, output).await.success());
    let info = format!("/proc/self/fdinfo/{}", other.as_raw_fd());
    let info = std::fs::read_to_string(info).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
    assert_eq!(flags & O_NONBLOCK, 0, "{info}");
    drop(heard);
}

const O_NONBLOCK: u32 = 0o4000;
