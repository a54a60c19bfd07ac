//! An upstream by bytes: it answers each head that comes, before the body, with the next of what it
//! was told to, and goes on with the last.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub(crate) struct RawUpstream {
    pub(crate) address: SocketAddr,
    closed: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl RawUpstream {
    pub(crate) async fn start<A: AsRef<[u8]>>(answers: &[A]) -> Self {
        let answers: Vec<Vec<u8>> = answers
            .iter()
            .map(|answer| answer.as_ref().to_vec())
            .collect();
        let answers = Arc::new(Mutex::new(answers.into_iter().peekable()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, closed) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (sender, answers) = (sender.clone(), Arc::clone(&answers));
                tokio::spawn(async move {
                    let (mut received, mut looked_at) = (Vec::new(), 0);
                    while let Ok(1..) = stream.read_buf(&mut received).await {
                        while let Some(end) = head_end(&received[looked_at..]) {
                            looked_at += end;
                            let answer = next(&answers);
                            stream.write_all(&answer).await.unwrap();
                        }
                    }
                    let _test_over = sender.send(received);
                });
            }
        });
        Self { address, closed }
    }

    /// What came over the next connection to be closed.
    pub(crate) async fn closed(&mut self) -> Vec<u8> {
        self.closed.recv().await.unwrap()
    }

    /// The `[[upstream]]` and a route to it for each method.
    pub(crate) fn configuration(&self, methods: &[&str], path: &str, more: &str) -> String {
        let mut text = format!(
            "[[upstream]]\nname = \"raw\"\nurl = \"http://{}\"\n",
            self.address
        );
        for method in methods {
            text.push_str(&format!(
                r#"
[[route]]
upstream = "raw"
methods = ["{method}"]
path = "{path}"
scope = "payments:read"
min_trust = "L2"
risk = "read"
{more}
"#
            ));
        }
        text
    }
}

type Answers = std::iter::Peekable<std::vec::IntoIter<Vec<u8>>>;

fn next(answers: &Mutex<Answers>) -> Vec<u8> {
    let mut answers = answers.lock().unwrap();
    let next = answers.next().unwrap();
    if answers.peek().is_none() {
        *answers = vec![next.clone()].into_iter().peekable();
    }
    next
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    let end = b"\r\n\r\n";
    let at = bytes.windows(end.len()).position(|four| four == end)?;
    Some(at + end.len())
}
