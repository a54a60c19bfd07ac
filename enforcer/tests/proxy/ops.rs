//! What operators see: counted where it happened, and nothing that names an agent or holds a secret.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agentca_enforcer::ops::{self, Ops};
use agentca_identity::time::Timestamp;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::connect;
use crate::fixture::Fixture;
use crate::pki::Wish;

/// Listens for operators beside a fixture's server.
async fn operators(fixture: &Fixture) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ops = Ops {
        board: fixture.server.board(),
        registry: Arc::clone(&fixture.registry),
        log: Arc::clone(&fixture.log),
        certificates: Box::new(|| vec![("tls", Timestamp::from_millis(1_900_000_000_000))]),
        programs: fixture.programs(),
    };
    tokio::spawn(async move { match ops::serve(listener, ops).await {} });
    address
}

/// Status, head and body of an answer.
async fn ask(address: SocketAddr, method: Method, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

async fn metrics(address: SocketAddr) -> String {
    let (status, head, body) = ask(address, Method::GET, "/metrics").await;
    assert_eq!(status, 200, "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    body
}

/// The value of a series, none when it is not there.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("agentca_enforcer_{series} ")));
    line.map(|value| value.parse().unwrap())
}

#[tokio::test]
async fn requests_are_counted_by_what_decided_them() {
    let mut fixture = Fixture::with("threads = 2").await;
    let address = operators(&fixture).await;
    let agent = fixture.agent(&Wish {
        name: "very-private-name",
        ..Wish::default()
    });
    for (path, status) in [
        ("/v1/accounts/7", 200),
        ("/v1/accounts/8", 200),
        ("/v1/secret", 403),
        ("/v1/no-such-thing", 403),
        ("/v1/nowhere", 502),
    ] {
        // Over connections of their own: both threads take part.
        let answer = fixture.http1(&agent).await.get(path).await;
        assert_eq!(answer.status, status, "{path}");
    }
    let text = metrics(address).await;
    for (series, wanted) in [
        (
            "requests_total{upstream=\"payments\",decision=\"allow\",rule=\"\",risk=\"read\"}",
            2.0,
        ),
        (
            "requests_total{upstream=\"payments\",decision=\"deny\",rule=\"scope\",risk=\"read\"}",
            1.0,
        ),
        (
            "requests_total{upstream=\"\",decision=\"deny\",rule=\"not-in-catalogue\",risk=\"\"}",
            1.0,
        ),
        (
            "requests_total{upstream=\"nowhere\",decision=\"allow\",rule=\"\",risk=\"read\"}",
            1.0,
        ),
        ("answers_total{upstream=\"payments\",class=\"2xx\"}", 2.0),
        ("answers_total{upstream=\"payments\",class=\"4xx\"}", 1.0),
        ("answers_total{upstream=\"nowhere\",class=\"5xx\"}", 1.0),
        (
            "upstream_failures_total{upstream=\"nowhere\",reason=\"connect\"}",
            1.0,
        ),
        ("upstream_up{upstream=\"nowhere\"}", 0.0),
        ("upstream_up{upstream=\"payments\"}", 1.0),
        ("request_duration_seconds_count{upstream=\"payments\"}", 3.0),
        ("request_added_seconds_count{upstream=\"payments\"}", 3.0),
        (
            "request_duration_seconds_bucket{upstream=\"payments\",le=\"+Inf\"}",
            3.0,
        ),
        ("request_added_seconds_count{upstream=\"nowhere\"}", 0.0),
        ("handshakes_accepted_total", 5.0),
        ("log_blocked", 0.0),
        ("ready", 1.0),
        ("status_fresh", 1.0),
        ("status_number", 1.0),
        ("certificate_not_after_seconds{certificate=\"tls\"}", 1.9e9),
    ] {
        assert_eq!(value(&text, series), Some(wanted), "{series}\n{text}");
    }
    let (total, added) = (
        value(&text, "request_duration_seconds_sum{upstream=\"payments\"}").unwrap(),
        value(&text, "request_added_seconds_sum{upstream=\"payments\"}").unwrap(),
    );
    assert!(0.0 < added && added < total, "{added} of {total}");
    assert!(value(&text, "feed_age_seconds").unwrap() < 60.0);
    assert!(
        !text.contains("very-private-name") && !text.contains("spiffe"),
        "{text}"
    );
}

#[tokio::test]
async fn the_format_is_what_scrapers_read() {
    let mut fixture = Fixture::start().await;
    let address = operators(&fixture).await;
    let agent = fixture.agent(&Wish::default());
    fixture.http1(&agent).await.get("/v1/accounts/7").await;
    let text = metrics(address).await;
    let mut described = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            assert!(described.insert(name), "{name} twice");
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap();
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            let known =
                described.contains(name) || base.is_some_and(|base| described.contains(base));
            assert!(known, "{line}");
        }
    }
    let mut buckets = Vec::new();
    let prefix = "agentca_enforcer_request_duration_seconds_bucket{upstream=\"payments\",le=\"";
    for line in text.lines().filter_map(|line| line.strip_prefix(prefix)) {
        let (bound, count) = line.split_once("\"} ").unwrap();
        buckets.push((bound.to_owned(), count.parse::<u64>().unwrap()));
    }
    assert_eq!(buckets.first().unwrap().0, "0.0001");
    assert_eq!(buckets.last().unwrap(), &("+Inf".to_owned(), 1));
    assert!(
        buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1),
        "{buckets:?}"
    );
}

#[tokio::test]
async fn streams_and_refused_handshakes_are_counted() {
    let mut fixture = Fixture::start().await;
    let address = operators(&fixture).await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    client
        .send("GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(client.head().await.unwrap().0, 200);
    let text = metrics(address).await;
    assert_eq!(value(&text, "streams"), Some(1.0), "{text}");
    assert_eq!(value(&text, "connections"), Some(1.0), "{text}");
    drop(client);
    let refused = connect(fixture.server.address(), &fixture.pki, None, b"http/1.1").await;
    if let Ok(mut stream) = refused {
        // In TLS 1.3 the client has finished before it hears the alert.
        assert!(stream.read_u8().await.is_err());
    }
    let series = "handshakes_refused_total{reason=\"no-certificate\"}";
    let gone = async {
        loop {
            let text = metrics(address).await;
            let now = (value(&text, "streams"), value(&text, series));
            if now == (Some(0.0), Some(1.0)) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .unwrap();
}

#[tokio::test]
async fn readiness_says_why_nothing_is_answered() {
    let mut fixture = Fixture::start().await;
    let address = operators(&fixture).await;
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let agent = fixture.agent(&Wish::default());
    fixture.http1(&agent).await.get("/v1/nowhere").await;
    let (status, _, body) = ask(address, Method::GET, "/readyz").await;
    let told = json(&body);
    assert_eq!((status, &told["ready"]), (200, &true.into()), "{told}");
    assert_eq!(told["upstreams"]["nowhere"], "fails");
    assert_eq!(told["log"]["blocked"], false);
    assert!(told["feed_age_seconds"].as_f64().unwrap() < 60.0, "{told}");
    fixture.registry.distrust();
    let (status, head, body) = ask(address, Method::GET, "/readyz").await;
    let told = json(&body);
    assert_eq!((status, &told["ready"]), (503, &false.into()), "{told}");
    assert_eq!(told["stale"], "no verified revocation status");
    assert_eq!(told["status"], "not-serving");
    assert!(head.contains("application/json"), "{head}");
    let (status, _, body) = ask(address, Method::GET, "/healthz").await;
    assert_eq!(
        (status, json(&body)["status"].clone()),
        (200, "ok".into()),
        "it lives"
    );
    assert_eq!(value(&metrics(address).await, "status_fresh"), Some(0.0));
}

#[tokio::test]
async fn nothing_else_is_answered() {
    let fixture = Fixture::start().await;
    let address = operators(&fixture).await;
    let (status, head, _) = ask(address, Method::POST, "/metrics").await;
    assert_eq!(status, 405);
    assert!(head.to_lowercase().contains("allow: get, head"), "{head}");
    assert_eq!(ask(address, Method::GET, "/debug").await.0, 404);
    let (status, _, body) = ask(address, Method::HEAD, "/metrics").await;
    assert_eq!((status, body.as_str()), (200, ""));
    // Who says nothing holds no place for long, and there are not many places.
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let asked = ask(address, Method::GET, "/healthz");
    let answered = tokio::time::timeout(Duration::from_secs(20), asked).await;
    assert_eq!(answered.unwrap().0, 200);
}
