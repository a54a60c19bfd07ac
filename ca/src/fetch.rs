//! Fetches one document over plain HTTP; what it is worth is for its signature to say.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long everything may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest document, bytes: a CRL of some millions of entries.
const MAX: usize = 256 << 20;

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("`{0}` is not a plain http:// URL")]
    Url(String),
    #[error("could not reach {url}: {detail}")]
    Unreachable { url: Uri, detail: String },
    #[error("{url} answered {status}")]
    Status { url: Uri, status: StatusCode },
    #[error("{url} answered with more than {MAX} bytes, or was cut off")]
    Body { url: Uri },
}

/// The document at `url`, which answers 200.
pub(crate) async fn get(url: &str) -> Result<Bytes, FetchError> {
    let uri: Uri = url.parse().map_err(|_| FetchError::Url(url.to_owned()))?;
    if uri.scheme_str() != Some("http") {
        return Err(FetchError::Url(url.to_owned()));
    }
    tokio::time::timeout(TIMEOUT, exchange(&uri))
        .await
        .unwrap_or_else(|_| Err(unreachable(&uri, "no answer in time")))
}

async fn exchange(url: &Uri) -> Result<Bytes, FetchError> {
    let authority = url
        .authority()
        .ok_or_else(|| FetchError::Url(url.to_string()))?;
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(80);
    let tcp = TcpStream::connect((host, port))
        .await
        .map_err(|e| unreachable(url, e))?;
    let (sender, connection) = http1::handshake(TokioIo::new(tcp))
        .await
        .map_err(|e| unreachable(url, e))?;
    // The connection ends when the sender, which `ask` takes, is gone.
    let (document, _) = tokio::join!(ask(sender, url, authority.as_str()), connection);
    document
}

async fn ask(
    mut sender: SendRequest<Empty<Bytes>>,
    url: &Uri,
    host: &str,
) -> Result<Bytes, FetchError> {
    let path = url.path_and_query().map_or("/", |p| p.as_str());
    let request = Request::get(path)
        .header(header::HOST, host)
        .body(Empty::new())
        .map_err(|e| unreachable(url, e))?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|e| unreachable(url, e))?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status {
            url: url.clone(),
            status: answer.status(),
        });
    }
    let body = Limited::new(answer.into_body(), MAX).collect().await;
    Ok(body
        .map_err(|_| FetchError::Body { url: url.clone() })?
        .to_bytes())
}

fn unreachable(url: &Uri, detail: impl ToString) -> FetchError {
    FetchError::Unreachable {
        url: url.clone(),
        detail: detail.to_string(),
    }
}
