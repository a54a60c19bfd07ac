//! Raw bytes over mutual TLS: for what no decent HTTP client would send, and for connections that stay open.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::wait::{self, PATIENCE};

/// A TLS connection with an agent's certificate.
pub struct Tls {
    stream: StreamOwned<ClientConnection, TcpStream>,
    read: Vec<u8>,
}

/// An HTTP/1.1 answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Fields in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks put together.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        let field = self.headers.iter().find(|(field, _)| field == name);
        field.map(|(_, value)| value.as_str())
    }

    /// The rule of a denial.
    pub fn rule(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        problem["rule"].as_str().unwrap_or_default().to_owned()
    }
}

impl Tls {
    /// Connects; the server's verdict about our certificate comes with the first read.
    pub fn connect(to: SocketAddr, agent: &Path, root: &Path, name: &str) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(root).expect("a root"))
            .expect("a root");
        let chain = CertificateDer::pem_file_iter(agent.join("agent.crt")).expect("a chain");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("a chain");
        let key = PrivateKeyDer::from_pem_file(agent.join("agent.key")).expect("a key");
        let config = ClientConfig::builder_with_provider(agentca_identity::crypto::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("a credential");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let session =
            ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
        let socket = TcpStream::connect(to)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: StreamOwned::new(session, socket),
            read: Vec::new(),
        })
    }

    /// How long a read may take.
    pub fn patience(&mut self, patience: Duration) {
        self.stream
            .sock
            .set_read_timeout(Some(patience))
            .expect("a socket");
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// One GET on this connection.
    pub fn get(&mut self, path: &str) -> std::io::Result<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))?;
        self.answer()
    }

    /// Reads one whole answer.
    pub fn answer(&mut self) -> std::io::Result<Answer> {
        let mut answer = self.head()?;
        if answer.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk()? {
                answer.body.extend_from_slice(&chunk);
            }
        } else {
            let length = answer
                .header("content-length")
                .and_then(|l| l.parse().ok())
                .unwrap_or(0);
            while self.read.len() < length {
                self.more()?;
            }
            answer.body = self.read.drain(..length).collect();
        }
        Ok(answer)
    }

    /// Reads the head of an answer.
    pub fn head(&mut self) -> std::io::Result<Answer> {
        let end = loop {
            match self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end,
                None => self.more()?,
            }
        };
        let head: Vec<u8> = self.read.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let status = status.unwrap_or_else(|| panic!("not an answer: {head:?}"));
        Ok(Answer {
            status,
            headers,
            body: Vec::new(),
        })
    }

    /// Reads one chunk of a chunked body; none at its clean end.
    pub fn chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let end = loop {
            match self.read.windows(2).position(|two| two == b"\r\n") {
                Some(end) => break end,
                None => self.more()?,
            }
        };
        let size: Vec<u8> = self.read.drain(..end + 2).collect();
        let size = String::from_utf8_lossy(&size[..end]).into_owned();
        let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
        while self.read.len() < size + 2 {
            self.more()?;
        }
        let chunk: Vec<u8> = self.read.drain(..size + 2).collect();
        Ok((size > 0).then(|| chunk[..size].to_vec()))
    }

    /// Reads a stream until it is cut, which must never look like its end.
    #[track_caller]
    pub fn must_be_cut(&mut self) {
        let error = wait::until("the stream is cut", || match self.chunk() {
            Ok(Some(_)) => None,
            Ok(None) => panic!("a stream that is cut must not end cleanly"),
            Err(error) => Some(error),
        });
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "nothing came");
    }

    /// Reads a stream until it is over, however it ends.
    #[track_caller]
    pub fn must_be_over(&mut self) {
        let error = wait::until("the stream is over", || match self.chunk() {
            Ok(Some(_)) => None,
            Ok(None) => Some(None),
            Err(error) => Some(Some(error.kind())),
        });
        assert_ne!(error, Some(std::io::ErrorKind::WouldBlock), "it goes on");
    }

    /// Whether the server ends the connection without another byte of HTTP.
    pub fn is_closed_without_a_word(&mut self) -> bool {
        self.read.is_empty()
            && self
                .more()
                .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
    }

    fn more(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 16384];
        match self.stream.read(&mut buffer)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.read.extend_from_slice(&buffer[..read]);
                Ok(())
            }
        }
    }
}
