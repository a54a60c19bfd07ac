//! A server behind Streamable HTTP: one connection a request.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use agentca_auditlog::sse::EventReader;
use agentca_identity::spiffe::SpiffeId;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::reply::{Reply, Said, read};
use super::{ClientError, ClientLimits, Session};
use crate::upstream::Target;

/// Bytes in and out.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes a connection to a server.
pub type Connect = Box<dyn Fn() -> Connecting + Send + Sync>;

/// Gives the fields of one request, or says why there are none.
pub type Headers = Box<dyn Fn() -> Result<HeaderMap, String> + Send + Sync>;

type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Where a server's endpoint is.
pub struct HttpEndpoint {
    /// How it is reached.
    pub connect: Connect,
    /// What is sent as `Host`.
    pub authority: String,
    /// Its path.
    pub path: String,
    /// Sent with every request: credentials as they are then.
    pub headers: Headers,
}

impl fmt::Debug for HttpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its headers are secret.
        write!(f, "HttpEndpoint({}{})", self.authority, self.path)
    }
}

/// Connects without TLS.
#[must_use]
pub fn connect_plainly(host: String, port: u16) -> Connect {
    Box::new(move || {
        let host = host.clone();
        Box::pin(async move {
            let tcp = TcpStream::connect((host.as_str(), port)).await?;
            tcp.set_nodelay(true)?;
            Ok(Box::new(tcp) as Box<dyn Stream>)
        })
    })
}

impl HttpEndpoint {
    /// The endpoint of an upstream, with what is shown to it for `own`.
    pub(crate) fn shown_to(target: Arc<Target>, own: SpiffeId) -> Self {
        let shows = Arc::clone(&target);
        let headers = Box::new(move || {
            let mut headers = HeaderMap::new();
            let shown = shows.credential(&own).map_err(|none| none.to_string())?;
            if let Some(shown) = shown {
                shown.put(&mut headers);
            }
            Ok(headers)
        });
        Self::of(target, headers)
    }

    /// The endpoint of an upstream; for its credentials `headers` asks [`Target::credential`].
    pub(crate) fn of(target: Arc<Target>, headers: Headers) -> Self {
        Self {
            authority: target.authority.to_string(),
            path: target.path.to_string(),
            headers,
            connect: Box::new(move || {
                let target = Arc::clone(&target);
                Box::pin(async move { target.connect_own().await })
            }),
        }
    }

    /// Sends a request and reads until it is answered.
    pub(super) async fn request(
        &self,
        session: Option<&Session>,
        method: &str,
        body: String,
        limits: &ClientLimits,
    ) -> Result<Reply, ClientError> {
        let mut request = self.post(session, body)?;
        if session.is_some_and(Session::is_modern) {
            put(request.headers_mut(), "mcp-method", method)?;
        }
        let response = self.send(request).await?;
        let status = response.status();
        let opened = response.headers().get(SESSION);
        let opened = opened.and_then(|id| id.to_str().ok()).map(str::to_owned);
        let result = match answered(response, limits).await {
            Ok(result) => result,
            Err(error) => {
                let has_session = session.is_some_and(|session| session.id.is_some());
                return Err(if status == StatusCode::NOT_FOUND && has_session {
                    ClientError::SessionLost
                } else {
                    error
                });
            }
        };
        Ok(Reply {
            result,
            session: opened,
        })
    }

    pub(super) async fn notify(&self, session: &Session, body: String) -> Result<(), ClientError> {
        let response = self.send(self.post(Some(session), body)?).await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(ClientError::Status(response.status().as_u16()))
    }

    pub(super) async fn end_session(
        &self,
        revision: &'static str,
        id: &str,
    ) -> Result<(), ClientError> {
        let mut request = self.empty(Method::DELETE, String::new())?;
        put(request.headers_mut(), VERSION, revision)?;
        put(request.headers_mut(), SESSION, id)?;
        self.send(request).await.map(drop)
    }

    fn post(
        &self,
        session: Option<&Session>,
        body: String,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = self.empty(Method::POST, body)?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let both = HeaderValue::from_static("application/json, text/event-stream");
        headers.insert(ACCEPT, both);
        if let Some(session) = session {
            put(headers, VERSION, session.revision)?;
            if let Some(id) = &session.id {
                put(headers, SESSION, id)?;
            }
        }
        Ok(request)
    }

    fn empty(&self, method: Method, body: String) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = self.path.parse().map_err(|_| unusable("path"))?;
        *request.headers_mut() = (self.headers)().map_err(ClientError::Credential)?;
        let host = HeaderValue::from_str(&self.authority).map_err(|_| unusable("authority"))?;
        request.headers_mut().insert(HOST, host);
        let plain = HeaderValue::from_static("identity");
        request.headers_mut().insert(ACCEPT_ENCODING, plain);
        Ok(request)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError> {
        let failed = |error: &dyn fmt::Display| ClientError::Connect(error.to_string());
        let stream = (self.connect)()
            .await
            .map_err(|error| unconnected(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        // Ends with the answer's body.
        tokio::spawn(connection);
        let sent = sender.send_request(request).await;
        sent.map_err(|error| failed(&error))
    }
}

fn unconnected(error: &io::Error) -> ClientError {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => ClientError::Untrusted(why.to_string()),
        _ => ClientError::Connect(error.to_string()),
    }
}

/// The result that a response holds.
async fn answered(
    response: Response<Incoming>,
    limits: &ClientLimits,
) -> Result<Box<str>, ClientError> {
    let status = response.status();
    let coded = response.headers().get(CONTENT_ENCODING);
    if coded.is_some_and(|coding| coding.as_bytes() != b"identity") {
        return Err(ClientError::Unreadable("it is compressed".to_owned()));
    }
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    match (status.is_success(), kind.as_str()) {
        (true, "text/event-stream") => events(response.into_body(), limits).await,
        (true, "application/json") => {
            let text = whole(response.into_body(), limits).await?;
            match read(&text)? {
                Said::Result(result) => Ok(result),
                Said::Request { .. } | Said::Nothing => {
                    Err(ClientError::Unreadable("it is no answer".to_owned()))
                }
            }
        }
        (true, other) => {
            let shown: String = other.chars().take(64).collect();
            Err(ClientError::Unreadable(format!(
                "`{shown}` is no type of it"
            )))
        }
        (false, _) => {
            let told = whole(response.into_body(), limits).await;
            match told.and_then(|text| read(&text)) {
                Err(error @ ClientError::Error { .. }) => Err(error),
                _ => Err(ClientError::Status(status.as_u16())),
            }
        }
    }
}

async fn whole(mut body: Incoming, limits: &ClientLimits) -> Result<Vec<u8>, ClientError> {
    let mut text = Vec::new();
    while let Some(data) = next_data(&mut body).await? {
        text.extend_from_slice(&data);
        if text.len() > limits.answer_max {
            return Err(too_long(limits));
        }
    }
    Ok(text)
}

/// Reads events until one is the answer. What a server asks of us on the way gets none: we offered nothing.
async fn events(mut body: Incoming, limits: &ClientLimits) -> Result<Box<str>, ClientError> {
    let mut events = EventReader::new(limits.answer_max);
    let mut length: usize = 0;
    while let Some(data) = next_data(&mut body).await? {
        length = length.saturating_add(data.len());
        if length > limits.answer_max.saturating_mul(2) {
            return Err(too_long(limits));
        }
        events.push(&data);
        loop {
            let event = events.next_event();
            let event = event.map_err(|error| ClientError::unreadable(&error))?;
            let Some(event) = event else { break };
            let is_message = event.name.as_deref().is_none_or(|name| name == "message");
            // An event without data only says where a stream may be taken up again.
            let Some(data) = event.data.filter(|data| is_message && !data.is_empty()) else {
                continue;
            };
            if let Said::Result(result) = read(data.as_bytes())? {
                return Ok(result);
            }
        }
    }
    Err(ClientError::Unreadable(
        "the stream ended before the answer".to_owned(),
    ))
}

async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>, ClientError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ClientError::Connect(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn too_long(limits: &ClientLimits) -> ClientError {
    ClientError::TooMuch(format!("{} bytes at once", limits.answer_max))
}

fn unusable(what: &str) -> ClientError {
    ClientError::Connect(format!("its {what} cannot be sent"))
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), ClientError> {
    let value = HeaderValue::from_str(value).map_err(|_| unusable(name))?;
    headers.insert(name, value);
    Ok(())
}

const VERSION: &str = "mcp-protocol-version";
const SESSION: &str = "mcp-session-id";
