//! Certificates that are replaced while a bridge is running.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use agentca_identity::certificate::Certificate;
use agentca_identity::crypto::sha256;
use agentca_identity::pem;
use agentca_identity::profile::csr;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::fake::{Fake, Reply, acceptor};
use crate::pki::{HOUR, Pki};
use crate::program::{Program, folder_of, run};

const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
const REQUEST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;

/// An authority that refuses `refusals` times, then certifies every key for support-01.
async fn authority(pki: Arc<Pki>, refusals: u32) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let tls = acceptor(&pki, &pki.authority());
    let left = Arc::new(AtomicU32::new(refusals));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tls, pki, left) = (tls.clone(), Arc::clone(&pki), Arc::clone(&left));
            tokio::spawn(async move {
                let stream = tls.accept(stream).await.unwrap();
                let service = service_fn(move |request| {
                    let (pki, left) = (Arc::clone(&pki), Arc::clone(&left));
                    async move { Ok::<_, Infallible>(certify(request, &pki, &left).await) }
                });
                let io = TokioIo::new(stream);
                let _ended = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(io, service)
                    .await;
            });
        }
    });
    url
}

/// gRPC by hand: one message in, one message and a status out.
async fn certify(
    request: Request<Incoming>,
    pki: &Pki,
    left: &AtomicU32,
) -> Response<impl hyper::body::Body<Data = Bytes, Error = Infallible> + use<>> {
    assert_eq!(request.uri().path(), "/agentca.v1.Authority/Renew");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let refused = left
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok();
    let mut trailers = HeaderMap::new();
    let mut message = Vec::new();
    if refused {
        trailers.insert("grpc-status", HeaderValue::from_static("9"));
        trailers.insert("grpc-message", HeaderValue::from_static("not today"));
    } else {
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let mut field = &body[5..];
        assert_eq!(field[0], 0x0a);
        field = &field[1..];
        let length = take_varint(&mut field);
        let key = csr::read(&field[..length]).unwrap();
        for der in pki.agent_chain("support-01", &key, Duration::ZERO, HOUR) {
            message.push(0x0a);
            put_varint(&mut message, der.len());
            message.extend(der);
        }
    }
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    let body = if refused { Bytes::new() } else { frame.into() };
    let body = Full::new(body).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    response
}

fn take_varint(bytes: &mut &[u8]) -> usize {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

fn fingerprint(bridge: &Program) -> [u8; 32] {
    let text = std::fs::read_to_string(bridge.agent().join("agent.crt")).unwrap();
    sha256(&pem::decode_certs(&text).unwrap()[0])
}

#[tokio::test]
async fn a_certificate_that_somebody_else_replaced_is_taken_over() {
    let fake = Fake::start(|_| Reply::json(ANSWER)).await;
    let mut bridge = Program::stdio(&fake, &[]).await;
    bridge.say(REQUEST).await;
    bridge.hear().await;
    let first = fingerprint(&bridge);
    assert_eq!(fake.seen().await.peer, first);
    fake.pki
        .write_agent(&bridge.agent(), "support-01", Duration::ZERO, HOUR);
    bridge.logged("took over the certificate").await;
    bridge.say(REQUEST).await;
    assert!(
        bridge.hear().await["result"].is_object(),
        "verified for the new certificate"
    );
    let second = fingerprint(&bridge);
    assert_ne!(first, second);
    assert_eq!(fake.seen().await.peer, second);
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends_however_often_the_authority_refuses() {
    let fake = Fake::start(|_| Reply::json(ANSWER)).await;
    let url = authority(Arc::clone(&fake.pki), 1).await;
    let folder = tempfile::tempdir().unwrap();
    let agent = folder.path().join("agent");
    // Two thirds are over, and more.
    fake.pki
        .write_agent(&agent, "support-01", HOUR * 3 / 4, HOUR);
    let before = std::fs::read(agent.join("agent.key")).unwrap();
    let mut bridge = Program::start(&fake, folder, &["--stdio", "--authority", &url]);
    bridge.logged("renewed the certificate").await;
    assert!(
        bridge.log().contains("the authority refused: not today"),
        "{}",
        bridge.log()
    );
    let text = std::fs::read_to_string(agent.join("agent.crt")).unwrap();
    let leaf = Certificate::parse(&pem::decode_certs(&text).unwrap()[0]).unwrap();
    let life = leaf
        .not_after()
        .saturating_since(agentca_identity::time::Timestamp::now());
    assert!(life > HOUR * 3 / 4, "{life:?}");
    assert_ne!(
        std::fs::read(agent.join("agent.key")).unwrap(),
        before,
        "a new key"
    );
    let mode = agent
        .join("agent.key")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        std::fs::read_dir(&agent).unwrap().count(),
        3,
        "nothing is left beside them"
    );
    // The enforcer is asked first whether it knows the new one.
    bridge.logged("took over the certificate").await;
    bridge.say(REQUEST).await;
    assert!(bridge.hear().await["result"].is_object());
    assert_eq!(fake.seen().await.peer, fingerprint(&bridge));
}

#[tokio::test]
async fn an_authority_that_is_away_is_no_reason_to_stop_before_the_end() {
    let fake = Fake::start(|_| Reply::json(ANSWER)).await;
    let folder = tempfile::tempdir().unwrap();
    let agent = folder.path().join("agent");
    fake.pki
        .write_agent(&agent, "support-01", HOUR, HOUR + Duration::from_secs(10));
    let arguments = ["--stdio", "--authority", "https://127.0.0.1:1"];
    let mut bridge = Program::start(&fake, folder, &arguments);
    bridge.say(REQUEST).await;
    assert!(bridge.hear().await["result"].is_object());
    bridge.logged("could not reach the authority").await;
    // It ends; then every request says so, with what to do.
    let ended = loop {
        bridge.say(REQUEST).await;
        let heard = bridge.hear().await;
        if heard["error"].is_object() {
            break heard;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let said = ended["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        said.contains("agentca issue prod/support-01 --out agent --force"),
        "{said}"
    );
}

#[tokio::test]
async fn folders_that_can_not_be_used_are_refused_with_the_file_and_what_to_do() {
    let fake = Fake::start(|_| Reply::json(ANSWER)).await;
    let check = async |folder: &std::path::Path| {
        let url = fake.url();
        let (code, _, said) = run(folder, &["check", &url, "--credentials", "agent"]).await;
        assert_eq!(code, Some(1), "{said}");
        said
    };
    let folder = folder_of(&fake);
    let key = folder.path().join("agent/agent.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let said = check(folder.path()).await;
    assert!(said.contains("chmod 600 agent/agent.key"), "{said}");
    std::fs::remove_file(&key).unwrap();
    assert!(check(folder.path()).await.contains("agent/agent.key"));
    std::fs::remove_dir_all(folder.path().join("agent")).unwrap();
    assert!(
        check(folder.path())
            .await
            .contains("agentca issue NAME --out DIR")
    );
    // Another's key, and one that never fits.
    let other = folder_of(&fake);
    fake.pki.write_agent(
        &folder.path().join("agent"),
        "support-01",
        Duration::ZERO,
        HOUR,
    );
    std::fs::copy(other.path().join("agent/agent.key"), &key).unwrap();
    assert!(check(folder.path()).await.contains("does not belong to"));
    fake.pki
        .write_agent(&folder.path().join("agent"), "support-01", HOUR * 2, HOUR);
    assert!(
        check(folder.path())
            .await
            .contains("agentca issue prod/support-01 --out agent --force")
    );
}
