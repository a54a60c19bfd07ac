use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;

/// Answers what its methods say; everything it was told is in `told`.
const SERVER: &str = r#"
import json, os, sys
told, held = [], []
def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
for line in sys.stdin:
    message = json.loads(line)
    method, params = message.get("method"), message.get("params", {})
    if "id" not in message or method is None:
        told.append(message)
    elif method == "echo":
        say({"id": message["id"], "result": params})
    elif method == "hold":
        held.append(message)
        if len(held) == params["until"]:
            for one in reversed(held):
                say({"id": one["id"], "result": one["params"]})
    elif method == "told":
        say({"id": message["id"], "result": {"told": told}})
    elif method == "environment":
        say({"id": message["id"], "result": dict(os.environ)})
    elif method == "last words":
        print("about to go \x1b[1m", file=sys.stderr, flush=True)
        say({"id": message["id"], "result": {}})
        sys.exit(3)
    elif method == "die":
        os._exit(4)
    elif method == "write":
        print(params["text"], flush=True)
"#;

/// After the first bad end.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

fn limits() -> StdioLimits {
    StdioLimits {
        grace: Duration::from_millis(200),
        ..StdioLimits::default()
    }
}

fn python(script: &str, limits: StdioLimits) -> Arc<Stdio> {
    let command = CommandLine {
        program: "python3".to_owned(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        environment: BTreeMap::from([("GIVEN".to_owned(), "yes".to_owned())]),
        secrets: BTreeMap::new(),
        max_processes: 64,
        idle: Duration::from_secs(300),
    };
    Stdio::new("files", command, limits, Handle::current())
}

fn key(agent: &str) -> ProcessKey {
    ProcessKey {
        agent: Arc::from(agent),
        session: None,
    }
}

fn session(agent: &str, session: &str) -> ProcessKey {
    ProcessKey {
        agent: Arc::from(agent),
        session: Some(Arc::from(session)),
    }
}

fn request(method: &str, params: &str) -> RpcRequest {
    let text = format!(r#"{{"jsonrpc":"2.0","id":"same","method":"{method}","params":{params}}}"#);
    RpcRequest::read(Bytes::from(text)).unwrap()
}

async fn ask(process: &Process, method: &str, params: &str) -> Result<String, StdioError> {
    let mut exchange = process.request(&request(method, params)).await?;
    let answer = exchange.next().await.unwrap()?;
    assert!(exchange.next().await.is_none());
    Ok(String::from_utf8(answer.to_vec()).unwrap())
}

/// Whether a process is there and not only its entry.
fn is_alive(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    status.is_ok_and(|status| !status.contains(") Z "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_on_other_threads_share_a_process_and_never_meet() {
    const CALLERS: usize = 12;
    let stdio = python(SERVER, limits());
    let mut threads = Vec::new();
    for number in 0..CALLERS {
        let stdio = Arc::clone(&stdio);
        threads.push(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.unwrap().block_on(async move {
                let process = stdio.process(key("a")).await.unwrap();
                let params = format!(r#"{{"until":{CALLERS},"me":{number}}}"#);
                (ask(&process, "hold", &params).await.unwrap(), number)
            })
        }));
    }
    let joined = tokio::task::spawn_blocking(|| {
        let all = threads.into_iter().map(|thread| thread.join().unwrap());
        all.collect::<Vec<_>>()
    });
    for (answer, number) in joined.await.unwrap() {
        assert!(answer.contains(&format!(r#""me": {number}}}"#)), "{answer}");
        assert!(answer.contains(r#""id": "same""#), "{answer}");
    }
    assert_eq!(stdio.counts().started.load(Ordering::Relaxed), 1);
    stdio.shutdown().await;
}

#[tokio::test]
async fn a_process_sees_no_more_of_our_environment_than_it_needs() {
    let stdio = python(SERVER, limits());
    let process = stdio.process(key("a")).await.unwrap();
    let answer = ask(&process, "environment", "{}").await.unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let seen = |name: &str| answer["result"].get(name).is_some();
    assert!(["GIVEN", "HOME", "PATH"].into_iter().all(seen), "{answer}");
    // This test has it from cargo.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() && !seen("CARGO_MANIFEST_DIR"));
    stdio.shutdown().await;
}

#[tokio::test]
async fn a_crash_fails_what_runs_at_once_and_the_next_start_waits() {
    let stdio = python(SERVER, limits());
    let process = stdio.process(key("a")).await.unwrap();
    let held = process
        .request(&request("hold", r#"{"until":9}"#))
        .await
        .unwrap();
    let dying = Instant::now();
    let died = ask(&process, "die", "{}").await;
    assert_eq!(died, Err(StdioError::Died));
    let mut held = held;
    assert_eq!(held.next().await, Some(Err(StdioError::Died)));
    process.gone().await;
    assert_eq!(ask(&process, "echo", "{}").await, Err(StdioError::Died));
    match stdio.process(key("a")).await {
        Err(StdioError::Backoff(left)) => assert!(left <= FIRST_PAUSE, "{left:?}"),
        Err(error) => panic!("{error}"),
        Ok(_) => assert!(dying.elapsed() >= FIRST_PAUSE, "started at once"),
    }
    // Nobody else has to wait for it.
    let other = stdio.process(key("b")).await.unwrap();
    ask(&other, "echo", "{}").await.unwrap();
    let again = loop {
        match stdio.process(key("a")).await {
            Ok(process) => break process,
            Err(StdioError::Backoff(left)) => tokio::time::sleep(left).await,
            Err(error) => panic!("{error}"),
        }
    };
    ask(&again, "echo", "{}").await.unwrap();
    assert_eq!(stdio.counts().died.load(Ordering::Relaxed), 1);
    stdio.shutdown().await;
}

#[tokio::test]
async fn last_words_are_heard_and_what_it_logs_is_ours() {
    let log = Log::default();
    let lines = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    // While there is but one in the process, a call site that another thread comes to first asks that thread alone
    // whether anybody listens, and is off from then on.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(lines);
    let stdio = python(SERVER, limits());
    let process = stdio.process(key("a")).await.unwrap();
    ask(&process, "last words", "{}").await.unwrap();
    process.gone().await;
    let said = log.wait_for("about to go").await;
    assert!(said.contains("about to go \\u{1b}[1m"), "{said}");
    assert!(said.contains(r#"upstream="files""#), "{said}");
    assert!(said.contains(&format!("pid={}", process.pid())), "{said}");
    assert!(said.contains("exit status: 3"), "{said}");
}

#[tokio::test]
async fn nobody_uses_it_and_it_ends() {
    let stdio = python(
        SERVER,
        StdioLimits {
            idle: Duration::from_millis(300),
            ..limits()
        },
    );
    let process = stdio.process(session("a", "1")).await.unwrap();
    ask(&process, "echo", "{}").await.unwrap();
    let messages = process.messages();
    // Who listens uses it.
    let early = tokio::time::timeout(Duration::from_millis(600), process.gone()).await;
    assert!(early.is_err());
    drop(messages);
    process.gone().await;
    assert_eq!(stdio.alive(), 0);
    assert!(stdio.running(&session("a", "1")).is_none());
    assert_eq!(ask(&process, "echo", "{}").await, Err(StdioError::Ended));
    assert_eq!(stdio.counts().died.load(Ordering::Relaxed), 0);
    // It was no crash: the next one starts at once.
    stdio.process(session("a", "1")).await.unwrap();
    stdio.shutdown().await;
}

#[tokio::test]
async fn a_dropped_exchange_is_cancelled() {
    let stdio = python(SERVER, limits());
    let process = stdio.process(key("a")).await.unwrap();
    let held = process
        .request(&request("hold", r#"{"until":9}"#))
        .await
        .unwrap();
    // It was written before this.
    ask(&process, "echo", "{}").await.unwrap();
    drop(held);
    let told = ask(&process, "told", "{}").await.unwrap();
    assert!(
        told.contains(r#""method": "notifications/cancelled""#),
        "{told}"
    );
    assert!(told.contains(r#""requestId": 1"#), "{told}");
    stdio.shutdown().await;
}

#[tokio::test]
async fn nothing_is_left_of_who_ignores_every_request_to_end() {
    const STUBBORN: &str = r#"
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "1000"])
print('{"jsonrpc":"2.0","method":"pids","params":{"pids":"%d %d"}}' % (os.getpid(), child.pid), flush=True)
while True:
    time.sleep(1000)
"#;
    let stdio = python(STUBBORN, limits());
    let process = stdio.process(session("a", "1")).await.unwrap();
    let said = process.messages().next().await.unwrap();
    let said = String::from_utf8(said.to_vec()).unwrap();
    let pids = said.split("\"pids\":\"").nth(1).unwrap();
    let pids: Vec<&str> = pids.split('"').next().unwrap().split(' ').collect();
    assert!(pids.iter().all(|pid| is_alive(pid)));
    let mut running = process.request(&request("hold", "{}")).await.unwrap();
    stdio.end_agent("b");
    assert!(stdio.running(&session("a", "1")).is_some());
    stdio.end_agent("a");
    assert_eq!(running.next().await, Some(Err(StdioError::Ended)));
    process.gone().await;
    for pid in pids {
        while is_alive(pid) {
            // Killed, but not gone yet.
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(stdio.alive(), 0);
}

#[tokio::test]
async fn children_of_who_ends_well_end_too() {
    const PARENT: &str = r#"
import subprocess, sys
child = subprocess.Popen(["sleep", "1000"])
print('{"jsonrpc":"2.0","method":"pid","params":{"pid":"%d"}}' % child.pid, flush=True)
sys.stdin.read()
"#;
    let stdio = python(PARENT, limits());
    let process = stdio.process(session("a", "1")).await.unwrap();
    let said = process.messages().next().await.unwrap();
    let said = String::from_utf8(said.to_vec()).unwrap();
    let pid = said.split("\"pid\":\"").nth(1).unwrap();
    let pid = pid.split('"').next().unwrap();
    assert!(is_alive(pid));
    stdio.shutdown().await;
    while is_alive(pid) {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        stdio.process(key("a")).await.unwrap_err(),
        StdioError::Ended
    );
}

/// Has a line written that is of no use, and gives the request up when that was noticed: what is given up before
/// it is written is never written.
async fn said_badly(stdio: &Stdio, process: &Process, line: &str) {
    let bad = || stdio.counts().bad_lines.load(Ordering::Relaxed);
    let before = bad();
    let exchange = process.request(&request("write", line)).await.unwrap();
    while bad() == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(exchange);
}

#[tokio::test]
async fn who_writes_nonsense_is_ended() {
    let stdio = python(
        SERVER,
        StdioLimits {
            line_max: 1000,
            ..limits()
        },
    );
    let nonsense = r#"{"text":"no json"}"#;
    let process = stdio.process(key("a")).await.unwrap();
    for _ in 0..4 {
        // Two in a row are borne, over and over.
        for _ in 0..2 {
            said_badly(&stdio, &process, nonsense).await;
        }
        ask(&process, "echo", "{}").await.unwrap();
    }
    for _ in 0..3 {
        said_badly(&stdio, &process, nonsense).await;
    }
    process.gone().await;
    assert_eq!(stdio.counts().bad_lines.load(Ordering::Relaxed), 11);
    let process = stdio.process(key("b")).await.unwrap();
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(1001));
    assert_eq!(ask(&process, "write", &long).await, Err(StdioError::Died));
    let twice = r#"{"text":"{\"jsonrpc\":\"2.0\",\"jsonrpc\":\"2.0\",\"method\":\"a\"}"}"#;
    let process = stdio.process(key("c")).await.unwrap();
    said_badly(&stdio, &process, twice).await;
    ask(&process, "echo", "{}").await.unwrap();
    assert_eq!(stdio.counts().bad_lines.load(Ordering::Relaxed), 13);
    stdio.shutdown().await;
}

#[tokio::test]
async fn the_oldest_idle_one_makes_room_and_a_busy_one_never() {
    let stdio = python(
        SERVER,
        StdioLimits {
            max_processes: 3,
            max_agent_processes: 2,
            ..limits()
        },
    );
    let one = stdio.process(session("a", "1")).await.unwrap();
    let two = stdio.process(session("a", "2")).await.unwrap();
    let busy = one
        .request(&request("hold", r#"{"until":9}"#))
        .await
        .unwrap();
    let other = stdio.process(session("b", "1")).await.unwrap();
    // Two is the agent's only idle one, though another's is idle too.
    let three = stdio.process(session("a", "3")).await.unwrap();
    two.gone().await;
    assert!(stdio.running(&session("b", "1")).is_some());
    let busy_too = three
        .request(&request("hold", r#"{"until":9}"#))
        .await
        .unwrap();
    let refused = stdio.process(session("a", "4")).await.unwrap_err();
    assert_eq!(refused, StdioError::Full);
    let fourth = stdio.process(session("c", "1")).await.unwrap();
    other.gone().await;
    assert!(stdio.running(fourth.key()).is_some());
    assert_eq!(stdio.counts().refused.load(Ordering::Relaxed), 1);
    drop((busy, busy_too));
    stdio.shutdown().await;
    assert_eq!(stdio.alive(), 0);
}

#[tokio::test]
async fn what_cannot_be_started_says_so_and_is_not_tried_again_at_once() {
    let command = CommandLine {
        program: "/no/such/program".to_owned(),
        arguments: Vec::new(),
        environment: BTreeMap::new(),
        secrets: BTreeMap::new(),
        max_processes: 64,
        idle: Duration::from_secs(300),
    };
    let stdio = Stdio::new("files", command, limits(), Handle::current());
    let begin = Instant::now();
    let refused = stdio.process(key("a")).await.unwrap_err();
    assert!(
        refused.to_string().contains("`/no/such/program`"),
        "{refused}"
    );
    let again = stdio.process(key("a")).await.unwrap_err();
    let paused = matches!(again, StdioError::Backoff(_)) || begin.elapsed() >= FIRST_PAUSE;
    assert!(paused, "{again}");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>, Arc<tokio::sync::Notify>);

impl Log {
    async fn wait_for(&self, text: &str) -> String {
        loop {
            let said = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            if said.contains(text) {
                return said;
            }
            self.1.notified().await;
        }
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        self.1.notify_one();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
