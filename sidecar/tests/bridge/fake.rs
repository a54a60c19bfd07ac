//! An enforcer that answers what a test tells it to, signed like the real one's answers, or twisted
//! after it was signed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentca_auditlog::receipt::stream::StreamId;
use agentca_auditlog::receipt::{AgentAudit, Phase, salted_digest};
use agentca_auditlog::response::{ResponseFacts, ResponseSigner, content_digest};
use agentca_identity::crypto::{self, sha256};
use agentca_identity::peer::PeerVerifier;
use agentca_identity::spiffe::Role;
use agentca_identity::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::pki::{Credential, HOUR, Pki, origin};

/// What was asked, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// SHA-256 of the client's certificate.
    pub(crate) peer: [u8; 32],
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(&'static str, String)>,
    pub(crate) content: Content,
    pub(crate) twist: Twist,
}

pub(crate) enum Content {
    Whole(String),
    /// Events, each with its data and other lines before it.
    Events(Vec<(&'static str, String)>),
    /// Events for as long as the test sends some.
    Live(mpsc::UnboundedReceiver<String>),
}

/// What is changed after it was signed, or signed wrongly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Twist {
    #[default]
    None,
    Body,
    Status,
    ContentType,
    Peer,
    Log,
    Nonce,
    Old,
    Unsigned,
    UnknownSigner,
    ExpiredSigner,
    /// Of a stream.
    Data,
    NoReceipt,
    Swapped,
    Dropped,
    Repeated,
    OtherStream,
}

impl Reply {
    pub(crate) fn json(text: impl Into<String>) -> Self {
        Self {
            status: 200,
            fields: vec![("content-type", "application/json".to_owned())],
            content: Content::Whole(text.into()),
            twist: Twist::None,
        }
    }

    pub(crate) fn events(data: &[String]) -> Self {
        let events = data.iter().map(|data| ("", data.clone())).collect();
        Self::stream(Content::Events(events))
    }

    pub(crate) fn stream(content: Content) -> Self {
        Self {
            fields: vec![("content-type", "text/event-stream".to_owned())],
            content,
            ..Self::json("")
        }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            ..Self::json("")
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    pub(crate) fn twisted(self, twist: Twist) -> Self {
        Self { twist, ..self }
    }
}

type Answer = dyn Fn(&Seen) -> Reply + Send + Sync;

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) pki: Arc<Pki>,
    inner: Arc<Inner>,
    seen: tokio::sync::Mutex<mpsc::UnboundedReceiver<Seen>>,
}

struct Inner {
    answer: Box<Answer>,
    signers: Signers,
    next: AtomicU64,
    connections: AtomicU64,
    seen: mpsc::UnboundedSender<Seen>,
    outcomes: Mutex<Vec<Outcome>>,
}

/// Of a stream that ended: decision, salt, digest.
type Outcome = (u64, [u8; 16], [u8; 32]);

struct Signers {
    good: (Credential, ResponseSigner),
    unknown: ResponseSigner,
    expired: (Credential, ResponseSigner),
}

fn signer(credential: &Credential) -> ResponseSigner {
    ResponseSigner::new(credential.key.clone(), credential.certificate.not_after()).unwrap()
}

impl Fake {
    pub(crate) async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_as("edge-1", "localhost", answer).await
    }

    pub(crate) async fn start_as(
        name: &str,
        dns: &str,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let pki = Arc::new(Pki::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (good, expired) = (
            pki.response_signer(&origin("edge-1"), Duration::ZERO, HOUR),
            pki.response_signer(&origin("edge-1"), HOUR * 3, HOUR),
        );
        let stranger = Pki::new().response_signer(&origin("edge-1"), Duration::ZERO, HOUR);
        let (sender, seen) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            answer: Box::new(answer),
            signers: Signers {
                unknown: signer(&stranger),
                good: (signer(&good), good).swapped(),
                expired: (signer(&expired), expired).swapped(),
            },
            next: AtomicU64::new(7),
            connections: AtomicU64::new(0),
            seen: sender,
            outcomes: Mutex::default(),
        });
        let acceptor = acceptor(&pki, &pki.enforcer(name, dns));
        tokio::spawn(accept(listener, acceptor, Arc::clone(&inner)));
        Self {
            address,
            pki,
            inner,
            seen: tokio::sync::Mutex::new(seen),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}/mcp/payments", self.address.port())
    }

    /// The next request to the endpoint.
    pub(crate) async fn seen(&self) -> Seen {
        let mut seen = self.seen.lock().await;
        tokio::time::timeout(PATIENCE, seen.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// How many connections there were so far.
    pub(crate) fn connections(&self) -> u64 {
        self.inner.connections.load(Ordering::SeqCst)
    }
}

trait Swapped<A, B> {
    fn swapped(self) -> (B, A);
}

impl<A, B> Swapped<A, B> for (A, B) {
    fn swapped(self) -> (B, A) {
        (self.1, self.0)
    }
}

/// TLS of a server with this credential that asks agents for theirs.
pub(crate) fn acceptor(pki: &Pki, credential: &Credential) -> TlsAcceptor {
    let clock = Arc::new(Timestamp::now);
    let agents = PeerVerifier::new(pki.anchor(), &[Role::Agent], clock, None);
    let chain = credential
        .chain
        .iter()
        .cloned()
        .map(CertificateDer::from)
        .collect();
    let key = PrivatePkcs8KeyDer::from(credential.key.pkcs8_der().to_vec());
    let mut config = ServerConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(agents))
        .with_single_cert(chain, key.into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, inner: Arc<Inner>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        inner.connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&inner)));
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, inner: Arc<Inner>) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let peer = sha256(&stream.get_ref().1.peer_certificates().unwrap()[0]);
    let service = service_fn(move |request| {
        let inner = Arc::clone(&inner);
        async move { Ok::<_, Infallible>(inner.answer(request, peer).await) }
    });
    // Clients that go away in the middle are part of the tests.
    let _ended = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Inner {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: [u8; 32],
    ) -> Response<Pieces> {
        let (head, body) = request.into_parts();
        let seen = Seen {
            method: head.method,
            path: head.uri.path().to_owned(),
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
            peer,
        };
        let reply = if seen.path.starts_with("/.well-known/agentca/") {
            self.well_known(&seen)
        } else {
            self.seen.send(seen.clone()).unwrap();
            (self.answer)(&seen)
        };
        self.seal(&seen, reply)
    }

    fn well_known(&self, seen: &Seen) -> Reply {
        let path = seen.path.strip_prefix("/.well-known/agentca/").unwrap();
        if path == "signers" {
            let chain = |credential: &Credential| -> Vec<String> {
                credential
                    .chain
                    .iter()
                    .map(|der| STANDARD.encode(der))
                    .collect()
            };
            let Signers { good, expired, .. } = &self.signers;
            let signers = [chain(&good.0), chain(&expired.0)];
            let log = origin("edge-1").to_string();
            return Reply::json(serde_json::json!({"log": log, "signers": signers}).to_string());
        }
        let index: u64 = path.strip_prefix("outcome/").unwrap().parse().unwrap();
        let outcomes = self.outcomes.lock().unwrap();
        let Some((_, salt, digest)) = outcomes.iter().find(|(decision, ..)| *decision == index)
        else {
            return Reply::json(r#"{"state":"running"}"#);
        };
        let digest = STANDARD.encode(salted_digest(salt, digest));
        let record = serde_json::json!({"result": {"ended": "complete", "digest": digest}});
        let document = serde_json::json!({"state": "ended", "record": record.to_string()});
        Reply::json(document.to_string())
    }

    fn seal(self: &Arc<Self>, seen: &Seen, reply: Reply) -> Response<Pieces> {
        let Reply {
            status,
            fields,
            content,
            twist,
        } = reply;
        let index = self.next.fetch_add(1, Ordering::SeqCst);
        let salt: [u8; 16] = crypto::random();
        let whole = matches!(content, Content::Whole(_));
        let log = match twist {
            Twist::Log => origin("edge-2").to_string(),
            _ => origin("edge-1").to_string(),
        };
        let audit = AgentAudit {
            log: &log,
            index,
            leaf: [9; 32],
            phase: if whole { Phase::Closed } else { Phase::Open },
            peer: if twist == Twist::Peer {
                [1; 32]
            } else {
                seen.peer
            },
            salt,
        }
        .to_string();
        let digest = match &content {
            Content::Whole(text) if status != 204 => {
                Some(content_digest::format(&sha256(text.as_bytes())))
            }
            _ => None,
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &fields {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        self.sign(seen, status, &audit, digest, twist, &mut headers);
        let body = match content {
            Content::Whole(mut text) => {
                if twist == Twist::Body {
                    text = text.replacen("10.00", "99.00", 1);
                }
                Pieces::whole(text)
            }
            Content::Events(events) => self.events(events, &log, index, salt, twist),
            Content::Live(receiver) => Pieces::live(receiver, Arc::clone(self), log, index),
        };
        let mut response = Response::new(body);
        let status = if twist == Twist::Status { 201 } else { status };
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        *response.headers_mut() = headers;
        response
    }

    fn sign(
        &self,
        seen: &Seen,
        status: u16,
        audit: &str,
        digest: Option<String>,
        twist: Twist,
        headers: &mut HeaderMap,
    ) {
        let field = |name: &str| {
            headers
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let (content_type, location) = (field("content-type"), field("location"));
        let nonce = match twist {
            Twist::Nonce => Some("another"),
            _ => seen.field("agent-nonce"),
        };
        let target = format!("https://{}{}", seen.field("host").unwrap(), seen.path);
        let facts = ResponseFacts {
            status,
            agent_audit: audit,
            method: seen.method.as_str(),
            target_uri: &target,
            content_digest: digest.as_deref(),
            content_type: content_type.as_deref(),
            content_encoding: None,
            location: location.as_deref(),
            request_content_digest: seen.field("content-digest"),
            request_nonce: nonce,
        };
        let now = Timestamp::now();
        let Signers {
            good,
            unknown,
            expired,
        } = &self.signers;
        let (signer, created) = match twist {
            Twist::UnknownSigner => (unknown, now),
            Twist::ExpiredSigner => (&expired.1, expired.1.not_after()),
            Twist::Old => (&good.1, now - Duration::from_secs(120)),
            _ => (&good.1, now),
        };
        let signature = signer.sign_at(&facts, created).unwrap();
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        headers.insert("agent-audit", value(audit));
        if let Some(digest) = digest {
            headers.insert("content-digest", value(&digest));
        }
        if twist == Twist::ContentType {
            headers.insert("content-type", value("application/json; charset=utf-7"));
        }
        if twist != Twist::Unsigned {
            headers.insert("signature-input", value(&signature.input));
            headers.insert("signature", value(&signature.signature));
        }
    }

    fn receipt(&self, log: &str, decision: u64, seq: u64, data: &str) -> String {
        let stream = StreamId { log, decision };
        let receipt = self
            .signers
            .good
            .1
            .stream_receipt(stream, seq, data.as_bytes());
        format!(": {}\n", receipt.unwrap())
    }

    fn events(
        &self,
        events: Vec<(&'static str, String)>,
        log: &str,
        index: u64,
        salt: [u8; 16],
        twist: Twist,
    ) -> Pieces {
        let mut pieces = Vec::new();
        for (seq, (lines, data)) in events.into_iter().enumerate() {
            let decision = match twist {
                Twist::OtherStream => index + 1,
                _ => index,
            };
            let receipt = match (twist, seq) {
                (Twist::NoReceipt, 1) => String::new(),
                _ => self.receipt(log, decision, u64::try_from(seq).unwrap(), &data),
            };
            let data = match (twist, seq) {
                (Twist::Data, 1) => data.replacen("10.00", "99.00", 1),
                _ => data,
            };
            pieces.push(format!("{receipt}{lines}data: {data}\n\n"));
        }
        match twist {
            Twist::Swapped => pieces.swap(0, 1),
            Twist::Dropped => drop(pieces.remove(0)),
            Twist::Repeated => pieces.insert(1, pieces[0].clone()),
            _ => {}
        }
        let digest = sha256(pieces.concat().as_bytes());
        self.outcomes.lock().unwrap().push((index, salt, digest));
        Pieces::events(pieces)
    }
}

/// A body in pieces.
pub(crate) struct Pieces {
    ready: VecDeque<Bytes>,
    length: Option<u64>,
    live: Option<Live>,
}

struct Live {
    receiver: mpsc::UnboundedReceiver<String>,
    inner: Arc<Inner>,
    log: String,
    index: u64,
    seq: u64,
}

impl Pieces {
    fn whole(text: String) -> Self {
        Self {
            length: Some(text.len().try_into().unwrap()),
            ready: [Bytes::from(text)]
                .into_iter()
                .filter(|b| !b.is_empty())
                .collect(),
            live: None,
        }
    }

    fn events(pieces: Vec<String>) -> Self {
        Self {
            ready: pieces.into_iter().map(Bytes::from).collect(),
            length: None,
            live: None,
        }
    }

    fn live(
        receiver: mpsc::UnboundedReceiver<String>,
        inner: Arc<Inner>,
        log: String,
        index: u64,
    ) -> Self {
        let live = Live {
            receiver,
            inner,
            log,
            index,
            seq: 0,
        };
        Self {
            ready: VecDeque::new(),
            length: None,
            live: Some(live),
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        use std::task::Poll;
        if let Some(piece) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(live) = &mut self.live else {
            return Poll::Ready(None);
        };
        live.receiver.poll_recv(cx).map(|data| {
            let data = data?;
            let receipt = live.inner.receipt(&live.log, live.index, live.seq, &data);
            live.seq += 1;
            Some(Ok(Frame::data(Bytes::from(format!(
                "{receipt}data: {data}\n\n"
            )))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.live.is_none()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.length.map_or_else(
            hyper::body::SizeHint::new,
            hyper::body::SizeHint::with_exact,
        )
    }
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
