//! Fetching a CRL: a file, or plain HTTP, for it is signed.

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::config::CrlSource;

/// The list's bytes.
pub(super) async fn fetch(source: &CrlSource) -> Result<Vec<u8>, FetchError> {
    let fetching = async {
        match source {
            CrlSource::File(path) => {
                let file = tokio::fs::File::open(path).await?;
                let mut bytes = Vec::new();
                let limit = u64::try_from(MAX_SIZE).unwrap_or(u64::MAX);
                file.take(limit.saturating_add(1))
                    .read_to_end(&mut bytes)
                    .await?;
                if bytes.len() > MAX_SIZE {
                    Err(FetchError::TooLarge)
                } else {
                    Ok(bytes)
                }
            }
            CrlSource::Url(uri) => get(uri).await,
        }
    };
    tokio::time::timeout(TIMEOUT, fetching)
        .await
        .map_err(|_| FetchError::TimedOut)?
}

async fn get(uri: &Uri) -> Result<Vec<u8>, FetchError> {
    let authority = uri.authority().ok_or(FetchError::Url)?;
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let tcp = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
    let driver = tokio::spawn(connection);
    let path = uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request::get(path)
        .header(HOST, authority.as_str())
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Url)?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_SIZE).collect().await;
    driver.abort();
    Ok(body
        .map_err(|error| FetchError::Body(error.to_string()))?
        .to_bytes()
        .into())
}

/// Why there are no bytes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("it cannot be fetched: {0}")]
    Http(#[from] hyper::Error),
    #[error("it cannot be fetched: {0}")]
    Body(String),
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("it is longer than {MAX_SIZE} bytes")]
    TooLarge,
    #[error("the URL has no host")]
    Url,
    #[error("it took longer than {} s", TIMEOUT.as_secs())]
    TimedOut,
}

/// A million revoked certificates take 52 MB. Nothing is known of who wrote it before it was read.
const MAX_SIZE: usize = 64 << 20;
const TIMEOUT: Duration = Duration::from_secs(20);
