//! Clients: HTTP/1.1 by bytes, HTTP/2 by hyper, both over real TLS with a certificate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use agentca_identity::crypto;
use agentca_identity::peer::PeerVerifier;
use agentca_identity::spiffe::Role;
use agentca_identity::time::Timestamp;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::pki::{Credential, Pki};

/// An answer, however it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn problem(&self) -> serde_json::Value {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) async fn connect(
    address: SocketAddr,
    pki: &Pki,
    agent: Option<&Credential>,
    alpn: &[u8],
) -> io::Result<TlsStream<TcpStream>> {
    connect_as(address, pki, agent, alpn, "localhost").await
}

pub(crate) async fn connect_as(
    address: SocketAddr,
    pki: &Pki,
    agent: Option<&Credential>,
    alpn: &[u8],
    name: &'static str,
) -> io::Result<TlsStream<TcpStream>> {
    let verifier = PeerVerifier::new(
        pki.anchor(),
        &[Role::Enforcer],
        Arc::new(Timestamp::now),
        None,
    );
    let config = ClientConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match agent {
        None => config.with_no_client_auth(),
        Some(agent) => {
            let chain = agent
                .chain
                .iter()
                .map(|der| CertificateDer::from(der.clone()))
                .collect();
            let key = PrivatePkcs8KeyDer::from(agent.key.pkcs8_der().to_vec()).into();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name).unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    // In TLS 1.3 the client has finished before the server has judged it.
    stream.flush().await?;
    Ok(stream)
}

/// HTTP/1.1, byte for byte.
pub(crate) struct Http1 {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Http1 {
    pub(crate) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .await;
        self.answer("GET").await.unwrap()
    }

    /// Reads one whole answer.
    pub(crate) async fn answer(&mut self, method: &str) -> io::Result<Answer> {
        let (status, headers) = self.head().await?;
        let bodyless = method == "HEAD" || status == 204 || status == 304;
        let body = match headers.get("content-length") {
            _ if bodyless => Vec::new(),
            Some(length) => {
                let length = length.to_str().unwrap().parse().unwrap();
                self.take(length).await?
            }
            None => {
                let mut body = Vec::new();
                while let Some(chunk) = self.chunk().await? {
                    body.extend(chunk);
                }
                body
            }
        };
        Ok(Answer {
            status,
            headers,
            body: body.into(),
        })
    }

    pub(crate) async fn head(&mut self) -> io::Result<(StatusCode, HeaderMap)> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| {
                (
                    name.parse::<HeaderName>().unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect();
        Ok((status, headers))
    }

    /// One chunk of a chunked body; none at its clean end.
    pub(crate) async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let end = loop {
            if let Some(at) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                break at;
            }
            self.more().await?;
        };
        let line = String::from_utf8(self.buffer[..end].to_vec()).unwrap();
        self.buffer.drain(..end + 2);
        let length = usize::from_str_radix(&line, 16).unwrap();
        let mut chunk = self.take(length + 2).await?;
        chunk.truncate(length);
        Ok((length > 0).then_some(chunk))
    }

    /// Everything until the connection ends, however it does.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await.is_ok() {}
        std::mem::take(&mut self.buffer)
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// HTTP/2.
pub(crate) struct Http2 {
    pub(crate) sender: http2::SendRequest<Full<Bytes>>,
}

impl Http2 {
    pub(crate) async fn new(stream: TlsStream<TcpStream>) -> Self {
        let io = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        let request = Request::get(format!("https://localhost{path}"));
        self.request(request.body(Full::default()).unwrap())
            .await
            .unwrap()
    }

    pub(crate) async fn request(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Answer> {
        let (parts, body) = self.sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }
}
