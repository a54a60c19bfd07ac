//! What upstreams are shown: never the client's own, never told to anybody else, and ready before it is needed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use tempfile::TempDir;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::client::Answer;
use crate::fixture::Fixture;
use crate::pki::{Credential, Wish};
use crate::tls_upstream::TlsUpstream;

/// A token endpoint that gives what it is told to, then the last of it for ever.
struct Endpoint {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<Vec<String>>>,
}

impl Endpoint {
    /// On a thread of its own: whoever starts an enforcer waits for it.
    fn start(answers: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            answers: Arc::new(Mutex::new(answers.iter().rev().cloned().collect())),
        };
        let (asked, answers) = (Arc::clone(&endpoint.asked), Arc::clone(&endpoint.answers));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read_request(&mut stream);
                asked.lock().unwrap().push(request);
                let mut answers = answers.lock().unwrap();
                let answer = match answers.len() {
                    1 => answers[0].clone(),
                    _ => answers.pop().unwrap(),
                };
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        endpoint
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn answers(&self, answer: String) {
        *self.answers.lock().unwrap() = vec![answer];
    }

    fn credentials(&self, more: &str) -> String {
        format!(
            "[upstream.credentials.oauth]\ntoken_url = \"http://{}/token\"\nclient_id = \"edge 1\"\n{more}\n",
            self.address
        )
    }
}

fn read_request(stream: &mut impl Read) -> String {
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    let lower = text.to_lowercase();
    let length = lower.split("content-length: ").nth(1).unwrap();
    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    text + &String::from_utf8(body).unwrap()
}

fn token(name: &str, seconds: u64) -> String {
    let body =
        format!(r#"{{"access_token":"{name}","token_type":"Bearer","expires_in":{seconds}}}"#);
    reply("200 OK", &body)
}

fn reply(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Location: /elsewhere\r\nConnection: close\r\n\r\n{body}"
    )
}

/// A file's `"file:…"`.
fn secret_file(dir: &TempDir, name: &str, value: &str) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, value).unwrap();
    format!("\"file:{}\"", path.display())
}

async fn call(fixture: &Fixture, agent: &Credential) -> Answer {
    fixture.http1(agent).await.get("/secure").await
}

/// Calls until what came to the upstream satisfies `wanted`.
async fn until(fixture: &Fixture, agent: &Credential, mut wanted: impl FnMut(&Answer) -> bool) {
    let mut client = fixture.http1(agent).await;
    let begin = Instant::now();
    while !wanted(&client.get("/secure").await) {
        assert!(begin.elapsed() < Duration::from_secs(40), "it never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn last(upstream: &TlsUpstream, name: &str) -> String {
    let seen = upstream.seen();
    let values: Vec<_> = seen.last().unwrap().get_all(name).iter().collect();
    assert_eq!(values.len(), 1, "{values:?}");
    values[0].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_kind_replaces_what_the_client_sent() {
    let dir = TempDir::new().unwrap();
    let file = secret_file(&dir, "secret", "hunter2\n");
    let command = "{ command = [\"printf\", \"%s\\n\", \"hunter3\"] }";
    let path = std::env::var("PATH").unwrap();
    for (credentials, field, shown) in [
        (
            format!("bearer_from = {file}"),
            "authorization",
            "Bearer hunter2",
        ),
        (
            format!("basic = {{ user = \"edge\", password_from = {file} }}"),
            "authorization",
            "Basic ZWRnZTpodW50ZXIy",
        ),
        (
            format!("header = {{ name = \"X-Api-Key\", value_from = {command} }}"),
            "x-api-key",
            "hunter3",
        ),
        (
            "header = { name = \"X-Api-Key\", value_from = \"env:PATH\" }".to_owned(),
            "x-api-key",
            &path,
        ),
    ] {
        let upstream = TlsUpstream::start().await;
        let table = format!("[upstream.credentials]\n{credentials}");
        let mut fixture = Fixture::with(&upstream.trusted(&table)).await;
        let agent = fixture.agent(&Wish::default());
        let mut client = fixture.http1(&agent).await;
        client
            .send(
                "GET /secure HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer mine\r\n\
                 X-Api-Key: mine\r\nAuthorization: Basic mine\r\nX-Api-Key: more\r\nCookie: a=b\r\n\r\n",
            )
            .await;
        assert_eq!(client.answer("GET").await.unwrap().status, 200);
        assert_eq!(last(&upstream, field), shown);
        assert_eq!(last(&upstream, "cookie"), "a=b");
    }
}

#[tokio::test]
async fn an_agent_s_own_wins_and_others_have_none() {
    let (upstream, dir) = (TlsUpstream::start().await, TempDir::new().unwrap());
    let (own, all) = (
        secret_file(&dir, "own", "own"),
        secret_file(&dir, "all", "all"),
    );
    let mine = format!("[upstream.credentials.agent.\"support-01\"]\nbearer_from = {own}\n");
    for (everybody, shown) in [
        (format!("bearer_from = {all}\n"), Some("Bearer all")),
        (String::new(), None),
    ] {
        let table = format!("[upstream.credentials]\n{everybody}{mine}");
        let mut fixture = Fixture::with(&upstream.trusted(&table)).await;
        let agent = fixture.agent(&Wish::default());
        assert_eq!(call(&fixture, &agent).await.status, 200);
        assert_eq!(last(&upstream, "authorization"), "Bearer own");
        let other = fixture.agent(&Wish {
            name: "support-012",
            ..Wish::default()
        });
        let answer = call(&fixture, &other).await;
        match shown {
            Some(shown) => assert_eq!(last(&upstream, "authorization"), shown),
            None => assert_eq!(answer.status, 502),
        }
    }
}

#[tokio::test]
async fn without_its_credential_a_call_is_denied_until_it_is_there() {
    let (upstream, dir) = (TlsUpstream::start().await, TempDir::new().unwrap());
    let file = dir.path().join("token");
    let table = format!(
        "[upstream.credentials]\nrefresh = \"1s\"\nbearer_from = \"file:{}\"",
        file.display()
    );
    let mut fixture = Fixture::with(&upstream.trusted(&table)).await;
    let agent = fixture.agent(&Wish::default());
    let begin = fixture.log.durable();
    let answer = call(&fixture, &agent).await;
    assert_eq!(answer.status, 502);
    let problem = answer.problem();
    assert_eq!(problem["rule"], "upstream");
    assert_eq!(problem["detail"], "the upstream `secure` has no credential");
    let record = fixture
        .find(begin, |record| record["decision"] == "deny")
        .await;
    assert_eq!(record["rule"], "upstream");
    assert!(upstream.seen().is_empty());
    std::fs::write(&file, "first").unwrap();
    until(&fixture, &agent, |answer| answer.status == 200).await;
    assert_eq!(last(&upstream, "authorization"), "Bearer first");
    std::fs::write(&file, "second").unwrap();
    until(&fixture, &agent, |_| {
        last(&upstream, "authorization") == "Bearer second"
    })
    .await;
    std::fs::remove_file(&file).unwrap();
    until(&fixture, &agent, |answer| answer.status == 502).await;
}

#[tokio::test]
async fn tokens_are_asked_for_as_the_standard_says() {
    let dir = TempDir::new().unwrap();
    let secret = secret_file(&dir, "secret", "s/1");
    for (auth, says) in [
        ("", "authorization: Basic ZWRnZSsxOnMlMkYx\r\n"),
        ("auth = \"post\"", "&client_id=edge+1&client_secret=s%2F1"),
    ] {
        let upstream = TlsUpstream::start().await;
        let endpoint = Endpoint::start(&[token("t-1", 3600)]);
        let table = endpoint.credentials(&format!(
            "client_secret_from = {secret}\nscope = \"a b\"\naudience = \"https://x\"\n{auth}"
        ));
        let mut fixture = Fixture::with(&upstream.trusted(&table)).await;
        let agent = fixture.agent(&Wish::default());
        for _ in 0..3 {
            assert_eq!(call(&fixture, &agent).await.status, 200);
            assert_eq!(last(&upstream, "authorization"), "Bearer t-1");
        }
        let asked = endpoint.asked();
        let [asked] = asked.as_slice() else {
            panic!("asked once for all: {asked:?}")
        };
        assert!(asked.starts_with("POST /token HTTP/1.1\r\n"), "{asked}");
        let form = "grant_type=client_credentials&scope=a+b&audience=https%3A%2F%2Fx";
        assert!(asked.contains(form) && asked.contains(says), "{asked}");
        assert_eq!(asked.contains("s%2F1"), !auth.is_empty());
    }
}

/// On several threads: whoever starts an enforcer waits for the endpoint on one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_endpoint_over_tls_is_verified_before_it_hears_the_secret() {
    let dir = TempDir::new().unwrap();
    let secret = secret_file(&dir, "secret", "s");
    let (upstream, endpoint) = (TlsUpstream::start().await, TlsUpstream::start().await);
    let other = TlsUpstream::start().await;
    let table = |ca: String| {
        format!(
            "[upstream.credentials.oauth]\ntoken_url = \"https://localhost:{}/token\"\n\
             client_id = \"edge 1\"\nclient_secret_from = {secret}\n{ca}",
            endpoint.address.port()
        )
    };
    // Another's CA, and those of the system.
    for ca in [format!("ca = {:?}\n", other.ca()), String::new()] {
        let before = endpoint.accepted();
        let mut fixture = Fixture::with(&upstream.trusted(&table(ca))).await;
        let agent = fixture.agent(&Wish::default());
        until(&fixture, &agent, |answer| {
            assert_eq!(answer.status, 502);
            endpoint.accepted() > before
        })
        .await;
    }
    assert!(endpoint.seen().is_empty() && upstream.seen().is_empty());
    let ca = format!("ca = {:?}\n", endpoint.ca());
    let mut fixture = Fixture::with(&upstream.trusted(&table(ca))).await;
    let agent = fixture.agent(&Wish::default());
    until(&fixture, &agent, |answer| answer.status == 200).await;
    assert_eq!(last(&upstream, "authorization"), "Bearer t-tls");
    assert_eq!(last(&endpoint, "authorization"), "Basic ZWRnZSsxOnM=");
}

#[tokio::test]
async fn tokens_are_renewed_ahead_of_time() {
    let (upstream, dir) = (TlsUpstream::start().await, TempDir::new().unwrap());
    let secret = secret_file(&dir, "secret", "s");
    let endpoint = Endpoint::start(&[token("t-1", 16), token("t-2", 3600)]);
    let table = endpoint.credentials(&format!("client_secret_from = {secret}"));
    let mut fixture = Fixture::with(&upstream.trusted(&table)).await;
    let agent = fixture.agent(&Wish::default());
    until(&fixture, &agent, |answer| {
        assert_eq!(answer.status, 200, "no call waits or is denied meanwhile");
        last(&upstream, "authorization") == "Bearer t-2"
    })
    .await;
    assert_eq!(endpoint.asked().len(), 2);
}

#[tokio::test]
async fn a_refused_token_is_passed_on_and_renewed_once() {
    let (upstream, dir) = (TlsUpstream::start().await, TempDir::new().unwrap());
    let secret = secret_file(&dir, "secret", "s");
    let endpoint = Endpoint::start(&[token("t-1", 3600), token("t-2", 3600)]);
    let table = endpoint.credentials(&format!("client_secret_from = {secret}"));
    let mut fixture = Fixture::with(&upstream.trusted(&table)).await;
    let agent = fixture.agent(&Wish::default());
    upstream.status.store(401, Ordering::Relaxed);
    until(&fixture, &agent, |answer| {
        assert_eq!(answer.status, 401);
        last(&upstream, "authorization") == "Bearer t-2"
    })
    .await;
    // It is refused again and again, and not asked for as often.
    for _ in 0..20 {
        assert_eq!(call(&fixture, &agent).await.status, 401);
    }
    assert_eq!(endpoint.asked().len(), 2);
}

#[tokio::test]
async fn a_token_endpoint_is_not_followed_elsewhere_and_asked_again_later() {
    let (upstream, dir) = (TlsUpstream::start().await, TempDir::new().unwrap());
    let secret = secret_file(&dir, "secret", "s");
    let endpoint = Endpoint::start(&[reply("302 Found", "")]);
    let table = endpoint.credentials(&format!("client_secret_from = {secret}"));
    let mut fixture = Fixture::with(&upstream.trusted(&table)).await;
    let agent = fixture.agent(&Wish::default());
    assert_eq!(call(&fixture, &agent).await.status, 502);
    assert!(
        endpoint
            .asked()
            .iter()
            .all(|asked| asked.starts_with("POST /token "))
    );
    endpoint.answers(token("t-1", 3600));
    until(&fixture, &agent, |answer| answer.status == 200).await;
    assert!(endpoint.asked().len() < 5, "{:?}", endpoint.asked());
}

#[tokio::test]
async fn no_secret_is_written_down_or_told() {
    let said = LogLines::listen();
    let (upstream, dir) = (TlsUpstream::start().await, TempDir::new().unwrap());
    let secrets = ["s3cr3t-token", "s3cr3t-client", "s3cr3t-file"];
    let client = secret_file(&dir, "client", secrets[1]);
    let file = secret_file(&dir, "file", secrets[2]);
    let endpoint = Endpoint::start(&[
        token(secrets[0], 3600),
        reply("400 Bad Request", "{\"error\":\"s3cr3t-client was wrong\"}"),
    ]);
    let table = format!(
        "{}[upstream.credentials.agent.other]\nbearer_from = {file}\n\
         [upstream.credentials.agent.third]\nbearer_from = {}\n",
        endpoint.credentials(&format!("client_secret_from = {client}\nauth = \"post\"")),
        secret_file(&dir, "broken", "s3cr3t-file\nsecond line"),
    );
    let mut fixture = Fixture::with(&upstream.trusted(&table)).await;
    let mut answers = Vec::new();
    for (name, status) in [("support-01", 200), ("other", 401), ("third", 502)] {
        let agent = fixture.agent(&Wish {
            name,
            ..Wish::default()
        });
        upstream.status.store(status, Ordering::Relaxed);
        let answer = call(&fixture, &agent).await;
        assert_eq!(answer.status, status);
        answers.push(format!("{answer:?}"));
    }
    // The next token is refused, which is said.
    upstream.status.store(401, Ordering::Relaxed);
    let agent = fixture.agent(&Wish::default());
    until(&fixture, &agent, |answer| {
        answers.push(format!("{answer:?}"));
        // Only this one keeps its old credential meanwhile.
        said.has(&["no new credential", "in_force=true"])
    })
    .await;
    assert!(endpoint.asked().len() > 1);
    let shown: Vec<_> = upstream
        .seen()
        .iter()
        .map(|seen| seen[AUTHORIZATION].clone())
        .collect();
    assert!(
        shown.iter().any(|value| value == "Bearer s3cr3t-token"),
        "they did leave"
    );
    assert!(
        shown.iter().any(|value| value == "Bearer s3cr3t-file"),
        "they did leave"
    );
    let (directory, _) = fixture.end().await;
    let everything = [
        answers.join("\n"),
        said.text(),
        files_below(directory.path()),
    ];
    for place in everything {
        for secret in secrets.into_iter().chain(["czNjcjN0"]) {
            assert!(!place.contains(secret), "{secret} in {place}");
        }
    }
}

fn files_below(path: &std::path::Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&files_below(&path));
        } else {
            text.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
        }
    }
    text
}

/// What everything in this process logs, as loudly as it can, until this is dropped.
struct LogLines(Arc<Mutex<Vec<u8>>>);

/// So that the tests that come later are not slowed down.
static LISTENING: AtomicBool = AtomicBool::new(false);

impl LogLines {
    fn listen() -> Self {
        let lines = Arc::default();
        let writer = LogWriter(Arc::clone(&lines));
        LISTENING.store(true, Ordering::SeqCst);
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .with_filter(dynamic_filter_fn(|_, _| LISTENING.load(Ordering::Relaxed)));
        tracing_subscriber::registry().with(layer).init();
        Self(lines)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// Whether one line has all of these.
    fn has(&self, parts: &[&str]) -> bool {
        let text = self.text();
        text.lines()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    }
}

impl Drop for LogLines {
    fn drop(&mut self) {
        LISTENING.store(false, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct LogWriter(Arc<Mutex<Vec<u8>>>);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
