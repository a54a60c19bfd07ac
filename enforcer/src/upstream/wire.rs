//! The bytes of a connection to an upstream: none leaves for an agent that has lost its rights.
//!
//! The library writes when it is polled, whoever polls it. So the last look is taken here, under it:
//! every write is on behalf of the session whose request is being sent, and fails once that one is cut.
//! Over TLS it is taken twice. Above: no plaintext of a cut session becomes a record. Below: nor does
//! a record leave any more that was made before, for TLS keeps what the system did not take, and would
//! send it with the next write, flush or goodbye. What was cut within a record stays so: the connection
//! is of no use to anybody afterwards.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::Client;
use crate::session::Session;

/// A connection's I/O as the library has it.
#[derive(Debug)]
pub(crate) struct Wire {
    channel: Channel,
    sending: Rc<Sending>,
}

#[derive(Debug)]
enum Channel {
    Plain(Gated),
    Tls(Box<TlsStream<Gated>>),
}

/// TCP, as long as who writes may.
#[derive(Debug)]
struct Gated {
    tcp: TcpStream,
    sending: Rc<Sending>,
}

/// For whom bytes may leave.
trait Holder: std::fmt::Debug {
    /// Whether nothing more may be done for it.
    fn is_cut(&self) -> bool;
}

impl Holder for Session {
    fn is_cut(&self) -> bool {
        self.is_cut()
    }
}

/// For whom a connection is used, and how far it came.
#[derive(Debug, Default)]
pub(super) struct Sending {
    session: RefCell<Option<Rc<dyn Holder>>>,
    /// There are bytes that the system did not take.
    behind: Cell<bool>,
}

impl Wire {
    /// Over `tcp`, after the handshake when there is one.
    pub(super) async fn new(tcp: TcpStream, client: Option<&Client>) -> io::Result<Self> {
        let sending = Rc::<Sending>::default();
        let gated = Gated {
            tcp,
            sending: Rc::clone(&sending),
        };
        let channel = match client {
            None => Channel::Plain(gated),
            Some(Client { config, name, .. }) => {
                let connector = TlsConnector::from(std::sync::Arc::clone(config));
                Channel::Tls(Box::new(connector.connect(name.clone(), gated).await?))
            }
        };
        Ok(Self { channel, sending })
    }

    pub(super) fn sending(&self) -> Rc<Sending> {
        Rc::clone(&self.sending)
    }
}

impl Sending {
    /// From here on bytes leave for `session`.
    pub(super) fn begin(&self, session: &Rc<Session>) {
        self.session.replace(Some(Rc::<Session>::clone(session)));
    }

    /// From here on for nobody.
    pub(super) fn end(&self) {
        self.session.replace(None);
    }

    /// Whether bytes are left that were to leave.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.get()
    }

    fn may_write(&self) -> io::Result<()> {
        match &*self.session.borrow() {
            Some(session) if session.is_cut() => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.channel {
            Channel::Plain(gated) => Pin::new(gated).poll_read(cx, buffer),
            Channel::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.sending.may_write()?;
        match &mut self.channel {
            Channel::Plain(gated) => Pin::new(gated).poll_write(cx, bytes),
            Channel::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.sending.may_write()?;
        match &mut self.channel {
            Channel::Plain(gated) => Pin::new(gated).poll_write_vectored(cx, bytes),
            Channel::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.channel {
            Channel::Plain(gated) => gated.is_write_vectored(),
            Channel::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.channel {
            Channel::Plain(gated) => Pin::new(gated).poll_flush(cx),
            Channel::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.channel {
            Channel::Plain(gated) => Pin::new(gated).poll_shutdown(cx),
            Channel::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

impl Gated {
    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.sending.behind.set(polled.is_pending());
        polled
    }
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.sending.may_write()?;
        let polled = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.sending.may_write()?;
        let polled = Pin::new(&mut self.tcp).poll_write_vectored(cx, bytes);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use agentca_identity::crypto::{KeyKind, PrivateKey};
    use agentca_identity::pem::encode_certs;
    use agentca_identity::profile::{Template, Validity, lifetime};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::config::TlsOptions;
    use crate::testing::Pki;

    #[derive(Debug, Default)]
    struct Agent(Cell<bool>);

    impl Holder for Agent {
        fn is_cut(&self) -> bool {
            self.0.get()
        }
    }

    /// A connection over TLS, and the server's end of it.
    async fn connected() -> (Wire, tokio_rustls::server::TlsStream<TcpStream>) {
        let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let certificate = Template::enforcer(
            "spiffe://example.org/prod/enforcer/up".parse().unwrap(),
            vec!["localhost".parse().unwrap()],
            Vec::new(),
            key.public_key(),
            Validity::starting(pki.now, lifetime::ENFORCER),
            crate::testing::SHARD.parse().unwrap(),
        );
        let certificate = pki.issuing.prepare(certificate).unwrap().sign().unwrap();
        let issuing = pki.issuing.certificate().der().to_vec();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, encode_certs([&issuing])).unwrap();
        let options = TlsOptions {
            ca: Some(ca),
            ..TlsOptions::default()
        };
        let client = Client::new("localhost", &options).unwrap();
        let config = crate::tls::testing_server(&[certificate.der().to_vec(), issuing], &key);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap());
        let accepted = async {
            let tcp = listener.accept().await.unwrap().0;
            TlsAcceptor::from(config).accept(tcp).await.unwrap()
        };
        let dialled = async {
            Wire::new(dialled.await.unwrap(), Some(&client))
                .await
                .unwrap()
        };
        tokio::join!(dialled, accepted)
    }

    /// Writes until neither the system nor TLS takes more.
    async fn fill(wire: &mut Wire) -> u64 {
        let (mut written, piece) = (0, [b'x'; 1000]);
        poll_fn(|cx| {
            while let Poll::Ready(taken) = Pin::new(&mut *wire).poll_write(cx, &piece) {
                written += u64::try_from(taken.unwrap()).unwrap();
            }
            Poll::Ready(written)
        })
        .await
    }

    #[tokio::test]
    async fn what_tls_holds_back_stays_there_once_its_agent_is_cut() {
        let (mut wire, mut server) = connected().await;
        let agent = Rc::new(Agent::default());
        wire.sending.session.replace(Some(Rc::clone(&agent) as _));
        let written = fill(&mut wire).await;
        assert!(wire.sending.is_behind());
        agent.0.set(true);
        let reading = async {
            let mut received = Vec::new();
            let _cut = server.read_to_end(&mut received).await;
            u64::try_from(received.len()).unwrap()
        };
        let leaving = async move {
            // There is room again as soon as the server reads, and nothing may use it.
            let denied = io::ErrorKind::PermissionDenied;
            assert_eq!(wire.write_all(b"more").await.unwrap_err().kind(), denied);
            assert_eq!(wire.flush().await.unwrap_err().kind(), denied);
            assert_eq!(wire.shutdown().await.unwrap_err().kind(), denied);
        };
        let (received, ()) = tokio::join!(reading, leaving);
        assert!(received < written, "{received} of {written}");
    }

    #[tokio::test]
    async fn who_is_not_cut_is_not_hindered() {
        let (mut wire, mut server) = connected().await;
        wire.sending.session.replace(Some(Rc::<Agent>::default()));
        let written = fill(&mut wire).await;
        let reading = async {
            let mut received = Vec::new();
            server.read_to_end(&mut received).await.unwrap();
            u64::try_from(received.len()).unwrap()
        };
        let leaving = async {
            wire.flush().await.unwrap();
            assert!(!wire.sending.is_behind());
            wire.shutdown().await.unwrap();
        };
        let (received, ()) = tokio::join!(reading, leaving);
        assert_eq!(received, written);
    }
}
