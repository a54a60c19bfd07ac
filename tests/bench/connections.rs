//! One client connection: a pre-serialised request out, an answer with a known length in.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Outcome;

/// Larger than any head plus the upstream's body; longer answers make it grow.
const BUFFER_BYTES: usize = 8192;

/// Where the load goes, as whom, and what it asks.
#[derive(Clone)]
pub(crate) struct Target {
    /// The server under test.
    pub(crate) addr: SocketAddr,
    /// The client's TLS side; none where the server speaks in clear.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// The whole request.
    pub(crate) request: Arc<[u8]>,
    /// Bytes of every answer's body, where one that is longer or shorter is another answer.
    pub(crate) body_length: Option<usize>,
}

impl Target {
    /// A GET of the benchmark's one route on `addr`.
    pub(crate) fn new(addr: SocketAddr, tls: Arc<ClientConfig>) -> Self {
        let port = addr.port();
        let request = format!(
            "GET /v1/accounts/7 HTTP/1.1\r\nhost: localhost:{port}\r\naccept: application/json\r\n\r\n"
        );
        Self::asking(addr, Some(tls), request.into_bytes())
    }

    /// This request.
    pub(crate) fn asking(
        addr: SocketAddr,
        tls: Option<Arc<ClientConfig>>,
        request: Vec<u8>,
    ) -> Self {
        Self {
            addr,
            tls,
            request: request.into(),
            body_length: None,
        }
    }
}

/// An open connection and its read buffer.
pub(crate) struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
    /// Bytes of the last answer's head and of the whole.
    answer: (usize, usize),
}

/// What a connection runs over.
enum Stream {
    Tls(Box<TlsStream<TcpStream>>),
    Clear(TcpStream),
}

impl Stream {
    async fn send(&mut self, request: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Tls(stream) => {
                stream.write_all(request).await?;
                stream.flush().await
            }
            Self::Clear(stream) => stream.write_all(request).await,
        }
    }

    async fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tls(stream) => stream.read(room).await,
            Self::Clear(stream) => stream.read(room).await,
        }
    }

    async fn shutdown(&mut self) -> std::io::Result<()> {
        match self {
            Self::Tls(stream) => stream.shutdown().await,
            Self::Clear(stream) => stream.shutdown().await,
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tls(stream) => stream.get_ref().0,
            Self::Clear(stream) => stream,
        }
    }
}

impl Connection {
    /// Connects and completes the client's half of the handshake.
    pub(crate) async fn open(target: &Target) -> Outcome<Self> {
        let tcp = TcpStream::connect(target.addr).await?;
        tcp.set_nodelay(true)?;
        let stream = match &target.tls {
            None => Stream::Clear(tcp),
            Some(tls) => {
                let name = ServerName::try_from("localhost")?;
                let connecting = TlsConnector::from(Arc::clone(tls)).connect(name, tcp);
                Stream::Tls(Box::new(connecting.await?))
            }
        };
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER_BYTES],
            answer: (0, 0),
        })
    }

    /// Sends one request and reads its whole answer; returns the status.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Outcome<u16> {
        self.stream.send(request).await?;
        let mut filled = 0;
        let mut head: Option<Head> = None;
        loop {
            let room = self.buffer.get_mut(filled..).unwrap_or_default();
            let read = self.stream.read(room).await?;
            if read == 0 {
                return Err("connection or buffer ended inside an answer".into());
            }
            filled += read;
            if head.is_none() {
                head = Head::read(self.buffer.get(..filled).unwrap_or_default())?;
            }
            let Some(head) = &head else { continue };
            if filled >= head.total {
                self.answer = (head.body, head.total);
                return Ok(head.status);
            }
            if self.buffer.len() < head.total {
                self.buffer.resize(head.total, 0);
            }
        }
    }

    /// The body of the last answer.
    pub(crate) fn body(&self) -> &[u8] {
        let (start, end) = self.answer;
        self.buffer.get(start..end).unwrap_or_default()
    }

    /// Ends the connection as TLS does and waits until the server, too, has ended it.
    ///
    /// In TLS 1.3 the client is done before the server has judged the client's certificate: only
    /// a clean end says that the server completed the handshake.
    pub(crate) async fn close_both_ways(mut self) -> Outcome<()> {
        self.stream.shutdown().await?;
        loop {
            match self.stream.read(&mut self.buffer).await {
                Ok(0) => break,
                Ok(_) => {}
                // haproxy ends the connection without TLS's goodbye; a refusal is an alert.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error.into()),
            }
        }
        // Both ends are done: leave no TIME_WAIT behind to run out of ports.
        self.stream.tcp().set_zero_linger()?;
        Ok(())
    }
}

/// What has to be known of an answer's head.
struct Head {
    status: u16,
    /// Where the body begins.
    body: usize,
    /// Bytes of head and body.
    total: usize,
}

impl Head {
    /// `None` while the head is incomplete.
    fn read(bytes: &[u8]) -> Outcome<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = bytes.get(..end).unwrap_or_default();
        let mut lines = head.split(|byte| *byte == b'\n');
        let status = lines.next().and_then(|line| line.get(9..12));
        let status = std::str::from_utf8(status.ok_or("no status line")?)?.parse()?;
        let length = lines
            .find_map(content_length)
            .ok_or("an answer without content-length")?;
        Ok(Some(Self {
            status,
            body: end + 4,
            total: end + 4 + length,
        }))
    }
}

fn content_length(line: &[u8]) -> Option<usize> {
    let (name, value) = line.split_at_checked(15)?;
    if !name.eq_ignore_ascii_case(b"content-length:") {
        return None;
    }
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}
