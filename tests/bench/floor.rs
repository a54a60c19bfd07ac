//! The floor: the barest proxy that hyper and rustls allow, without and with one signature.
//!
//! It has the enforcer's shape (one current-thread runtime, keep-alive upstream connections of
//! its own, the same allocator and TLS provider) and none of its work: no identity, no rules, no
//! record. What separates the enforcer from the signing floor is what enforcement costs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use agentca_identity::crypto::{provider, sha256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::Signer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::Outcome;
use crate::tls::{Credential, floor_server};

/// What the floor is started with.
#[derive(clap::Args)]
pub(crate) struct FloorOptions {
    /// Where clients connect.
    #[arg(long)]
    listen: SocketAddr,
    /// Where requests go, in clear.
    #[arg(long)]
    upstream: SocketAddr,
    /// `<stem>.crt` and `<stem>.key` of the server.
    #[arg(long)]
    tls: PathBuf,
    /// The root that client certificates must lead to.
    #[arg(long)]
    root: PathBuf,
    /// An Ed25519 key: sign every answer with it.
    #[arg(long)]
    sign: Option<PathBuf>,
}

type Body = BoxBody<Bytes, hyper::Error>;

struct Floor {
    upstream: SocketAddr,
    host: HeaderValue,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
    signer: Option<Box<dyn Signer>>,
}

/// Serves until the process ends.
pub(crate) async fn serve(options: FloorOptions) -> Outcome<()> {
    let acceptor = TlsAcceptor::from(floor_server(
        Credential::read(&options.tls)?,
        &options.root,
    )?);
    let floor = Arc::new(Floor {
        upstream: options.upstream,
        host: HeaderValue::from_str(&options.upstream.to_string())?,
        idle: Mutex::default(),
        signer: options.sign.map(ed25519_signer).transpose()?,
    });
    let listener = TcpListener::bind(options.listen).await?;
    loop {
        let (tcp, _) = listener.accept().await?;
        let (acceptor, floor) = (acceptor.clone(), Arc::clone(&floor));
        tokio::spawn(async move {
            // A client that goes away or fails its handshake is not the floor's concern.
            let _ = converse(tcp, acceptor, floor).await;
        });
    }
}

fn ed25519_signer(path: PathBuf) -> Outcome<Box<dyn Signer>> {
    let key = provider()
        .key_provider
        .load_private_key(PrivateKeyDer::from_pem_file(path)?)?;
    let signer = key.choose_scheme(&[SignatureScheme::ED25519]);
    Ok(signer.ok_or("the floor signs with Ed25519")?)
}

async fn converse(tcp: TcpStream, acceptor: TlsAcceptor, floor: Arc<Floor>) -> Outcome<()> {
    tcp.set_nodelay(true)?;
    let tls = acceptor.accept(tcp).await?;
    let service = service_fn(move |request| {
        let floor = Arc::clone(&floor);
        async move { Ok::<_, Infallible>(floor.answer(request).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(tls), service)
        .await?;
    Ok(())
}

impl Floor {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        self.forward(request).await.unwrap_or_else(|_| {
            let mut failed = Response::new(whole(Bytes::new()));
            *failed.status_mut() = StatusCode::BAD_GATEWAY;
            failed
        })
    }

    async fn forward(&self, request: Request<Incoming>) -> Outcome<Response<Body>> {
        let (mut head, _) = request.into_parts();
        head.headers.remove(CONNECTION);
        head.headers.insert(HOST, self.host.clone());
        let path = head
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        head.uri = path.parse()?;
        let mut upstream = self.connection().await?;
        let answer = upstream
            .send_request(Request::from_parts(head, Empty::new()))
            .await?;
        let Some(signer) = self.signer.as_deref() else {
            return Ok(answer.map(|body| self.give_back(upstream, body)));
        };
        let (mut head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        self.put_back(upstream);
        sign(signer, &mut head, &path, &body)?;
        Ok(Response::from_parts(head, whole(body)))
    }

    async fn connection(&self) -> Outcome<SendRequest<Empty<Bytes>>> {
        if let Some(connection) = self.idle_connection() {
            return Ok(connection);
        }
        let tcp = TcpStream::connect(self.upstream).await?;
        tcp.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn idle_connection(&self) -> Option<SendRequest<Empty<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.is_closed());
        let ready = idle.iter().rposition(SendRequest::is_ready)?;
        Some(idle.swap_remove(ready))
    }

    /// The connection becomes ready again when its answer's body has been read.
    fn give_back(&self, connection: SendRequest<Empty<Bytes>>, body: Incoming) -> Body {
        self.put_back(connection);
        body.boxed()
    }

    fn put_back(&self, connection: SendRequest<Empty<Bytes>>) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
    }
}

/// An RFC 9421 signature over the status, the request's target and the body's digest.
fn sign(
    signer: &dyn Signer,
    head: &mut http::response::Parts,
    path: &str,
    body: &[u8],
) -> Outcome<()> {
    let digest = format!("sha-256=:{}:", STANDARD.encode(sha256(body)));
    let parameters = "(\"@status\" \"@target-uri\";req \"content-digest\");alg=\"ed25519\"";
    let base = format!(
        "\"@status\": {}\n\"@target-uri\";req: https://localhost{path}\n\
         \"content-digest\": {digest}\n\"@signature-params\": {parameters}",
        head.status.as_u16(),
    );
    let signature = STANDARD.encode(signer.sign(base.as_bytes())?);
    let headers = &mut head.headers;
    headers.insert(
        HeaderName::from_static("content-digest"),
        digest.try_into()?,
    );
    let input = format!("enf={parameters}");
    headers.insert(
        HeaderName::from_static("signature-input"),
        input.try_into()?,
    );
    let signature = format!("enf=:{signature}:");
    headers.insert(HeaderName::from_static("signature"), signature.try_into()?);
    Ok(())
}

fn whole(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed()
}
