//! The upstream of every proxy: answers any request on a kept-alive connection with 1 KB.
//!
//! It reads no further than the end of a head, since every request of the load is a GET without
//! a body; being cheaper than any real server, it leaves the core it shares to the load.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Outcome;

/// Bytes of the answer's body.
pub(crate) const BODY_BYTES: usize = 1024;

/// Serves on `listen` until the process ends.
pub(crate) async fn serve(listen: SocketAddr) -> Outcome<()> {
    let listener = TcpListener::bind(listen).await?;
    let answer: Arc<[u8]> = answer().into();
    loop {
        let (stream, _) = listener.accept().await?;
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            // A proxy that closes its connection is no event here.
            let _ = converse(stream, &answer).await;
        });
    }
}

async fn converse(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::with_capacity(4096);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            stream.write_all(answer).await?;
        }
    }
}

fn answer() -> Vec<u8> {
    let body = r#"{"account":7,"balance":"120.50","note":""#;
    let fill = BODY_BYTES - body.len() - 2;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {BODY_BYTES}\r\n\r\n"
    );
    format!("{head}{body}{}\"}}", "x".repeat(fill)).into_bytes()
}
