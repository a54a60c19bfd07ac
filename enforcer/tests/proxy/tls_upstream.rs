//! Upstreams over TLS: verified by CA, name and pin, shown a certificate, and in time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use agentca_identity::crypto::{self, sha256};
use agentca_identity::pem::encode_certs;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::fixture::Fixture;
use crate::pki::{Pki, Wish};

/// A server of somebody else's PKI.
pub(crate) struct TlsUpstream {
    pub(crate) address: SocketAddr,
    pub(crate) dir: TempDir,
    pub(crate) pki: Pki,
    /// What it answers.
    pub(crate) status: Arc<AtomicU16>,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
    versions: Arc<Mutex<Vec<ProtocolVersion>>>,
    accepted: Arc<AtomicUsize>,
    pin: String,
}

/// What it answers to whoever wants a token.
const TOKEN: &[u8] = br#"{"access_token":"t-tls","token_type":"Bearer","expires_in":3600}"#;

/// Whom it lets in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clients {
    Any,
    Known,
}

impl TlsUpstream {
    pub(crate) async fn start() -> Self {
        Self::with(&[&rustls::version::TLS13], Clients::Any).await
    }

    async fn with(versions: &[&'static SupportedProtocolVersion], clients: Clients) -> Self {
        let (pki, dir) = (Pki::new(), TempDir::new().unwrap());
        let (identity, _) = pki.enforcer();
        let issuing = identity.chain.last().unwrap();
        std::fs::write(dir.path().join("ca.pem"), encode_certs([issuing])).unwrap();
        let builder = ServerConfig::builder_with_provider(crypto::foreign_provider())
            .with_protocol_versions(versions)
            .unwrap();
        let builder = match clients {
            Clients::Any => builder.with_no_client_auth(),
            Clients::Known => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from(issuing.clone())).unwrap();
                let provider = crypto::foreign_provider();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain: Vec<_> = identity
            .chain
            .iter()
            .cloned()
            .map(CertificateDer::from)
            .collect();
        let leaf = ParsedCertificate::try_from(&chain[0]).unwrap();
        let pin = STANDARD.encode(sha256(&leaf.subject_public_key_info()));
        let key = PrivatePkcs8KeyDer::from(identity.key.pkcs8_der().to_vec());
        let config = builder.with_single_cert(chain, key.into()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            dir,
            pki,
            status: Arc::new(AtomicU16::new(200)),
            seen: Arc::default(),
            versions: Arc::default(),
            accepted: Arc::default(),
            pin,
        };
        upstream.serve(listener, TlsAcceptor::from(Arc::new(config)));
        upstream
    }

    fn serve(&self, listener: TcpListener, acceptor: TlsAcceptor) {
        let (seen, versions) = (Arc::clone(&self.seen), Arc::clone(&self.versions));
        let (accepted, status) = (Arc::clone(&self.accepted), Arc::clone(&self.status));
        tokio::spawn(async move {
            loop {
                let tcp = listener.accept().await.unwrap().0;
                accepted.fetch_add(1, Ordering::Relaxed);
                let (seen, versions) = (Arc::clone(&seen), Arc::clone(&versions));
                let (acceptor, status) = (acceptor.clone(), Arc::clone(&status));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let version = stream.get_ref().1.protocol_version().unwrap();
                    versions.lock().unwrap().push(version);
                    let service = service_fn(move |request: Request<Incoming>| {
                        let status = status.load(Ordering::Relaxed);
                        seen.lock().unwrap().push(request.headers().clone());
                        let body = match request.uri().path() {
                            "/secure/long" => vec![b's'; 3 << 20],
                            "/token" => TOKEN.to_vec(),
                            _ => vec![b's'; 2],
                        };
                        let answer = Response::builder().status(status);
                        let answer = answer.header("content-type", "application/json");
                        let answer = answer.body(Full::new(Bytes::from(body))).unwrap();
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let _gone = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
    }

    pub(crate) fn seen(&self) -> Vec<HeaderMap> {
        self.seen.lock().unwrap().clone()
    }

    /// How many connections came, verified or not.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// The file that names its CA.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The `[[upstream]]` with `tables` below it, and routes to it.
    pub(crate) fn configuration(&self, tables: &str) -> String {
        configuration(self.address, tables)
    }

    /// The same, when only its CA has to be known.
    pub(crate) fn trusted(&self, tables: &str) -> String {
        let ca = self.ca();
        self.configuration(&format!("[upstream.tls]\nca = {ca:?}\n{tables}"))
    }
}

fn configuration(address: SocketAddr, tables: &str) -> String {
    let url = format!("https://localhost:{}", address.port());
    let mut text = format!("[[upstream]]\nname = \"secure\"\nurl = \"{url}\"\n{tables}\n");
    for path in ["/secure", "/secure/long"] {
        text.push_str(&format!(
            "[[route]]\nupstream = \"secure\"\nmethods = [\"GET\"]\npath = \"{path}\"\n\
             scope = \"payments:read\"\nmin_trust = \"L2\"\nrisk = \"read\"\n"
        ));
    }
    text
}

/// What a call is answered, and what the answer says.
async fn called(configuration: &str) -> (u16, String) {
    let mut fixture = Fixture::with(configuration).await;
    let agent = fixture.agent(&Wish::default());
    let answer = fixture.http1(&agent).await.get("/secure").await;
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    (answer.status.as_u16(), body)
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let upstream = TlsUpstream::with(&[version], Clients::Any).await;
        assert_eq!(called(&upstream.trusted("")).await.0, 200);
        assert_eq!(*upstream.versions.lock().unwrap(), [version.version]);
        assert_eq!(upstream.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_connection_is_used_again_and_long_answers_pass() {
    let upstream = TlsUpstream::start().await;
    let mut fixture = Fixture::with(&upstream.trusted("")).await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http2(&agent).await;
    for path in ["/secure", "/secure/long", "/secure"] {
        let answer = client.get(path).await;
        let length = if path == "/secure" { 2 } else { 3 << 20 };
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, length));
    }
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn whoever_is_not_verified_hears_nothing() {
    let upstream = TlsUpstream::start().await;
    let other = TlsUpstream::start().await;
    let (ca, theirs) = (upstream.ca(), other.ca());
    for tls in [
        format!("ca = {theirs:?}"),
        format!("ca = {ca:?}\nserver_name = \"other.example.org\""),
        format!("ca = {ca:?}\npin = \"sha256/{}\"", other.pin),
        // The system's CAs.
        String::new(),
    ] {
        let (status, body) =
            called(&upstream.configuration(&format!("[upstream.tls]\n{tls}"))).await;
        assert_eq!(status, 502, "{tls}: {body}");
        assert!(body.contains("\"rule\":\"upstream\""), "{body}");
    }
    assert!(upstream.seen().is_empty());
    let pinned = format!("pin = \"sha256/{}\"", upstream.pin);
    assert_eq!(called(&upstream.trusted(&pinned)).await.0, 200);
}

#[tokio::test]
async fn mutual_tls_shows_our_certificate() {
    let versions = [&rustls::version::TLS13];
    let upstream = TlsUpstream::with(&versions, Clients::Known).await;
    assert_eq!(called(&upstream.trusted("")).await.0, 502);
    let client = upstream.pki.agent(&Wish::default());
    let (certificate, key) = (
        upstream.dir.path().join("client.pem"),
        upstream.dir.path().join("client.key"),
    );
    std::fs::write(&certificate, encode_certs(&client.chain)).unwrap();
    std::fs::write(&key, &*client.key.to_pem()).unwrap();
    let files = format!("client_certificate = {certificate:?}\nclient_key = {key:?}");
    assert_eq!(called(&upstream.trusted(&files)).await.0, 200);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_handshake_counts_as_connecting() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = "[limits]\nupstream_connect_timeout = \"200ms\"\n";
    let configuration = configuration(silent.local_addr().unwrap(), "");
    let (status, body) = called(&format!("{configuration}{limits}")).await;
    assert_eq!(status, 504, "{body}");
}

#[tokio::test]
async fn plain_http_is_not_tls() {
    let plain = crate::upstream::Upstream::start().await;
    let (status, _) = called(&configuration(plain.address, "")).await;
    assert_eq!(status, 502);
    assert!(plain.seen().is_empty());
}
