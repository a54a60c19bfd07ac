//! An upstream made of plain sockets, so that it can also answer as no decent server would. It remembers what it saw.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `GET`, …
    pub method: String,
    /// The request target as it stood there.
    pub target: String,
    /// Fields in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks put together.
    pub body: Vec<u8>,
}

impl Seen {
    /// The values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.headers.iter().filter(|(field, _)| field == name);
        fields.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a field that occurs once.
    pub fn header(&self, name: &str) -> Option<&str> {
        match self.all(name)[..] {
            [value] => Some(value),
            _ => None,
        }
    }
}

/// The upstream, serving until it is dropped.
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    streaming: AtomicUsize,
    ended: AtomicBool,
}

impl Upstream {
    /// Binds `ip:9000`.
    pub fn start(ip: IpAddr) -> Self {
        let listener = TcpListener::bind((ip, 9000)).expect("port 9000 of our own address");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.ended.load(Ordering::SeqCst) {
                    break;
                }
                let shared = shared.clone();
                // A caller that breaks off ends its own conversation, nothing else.
                std::thread::spawn(move || drop(converse(&stream, &shared)));
            }
        });
        Self { address, state }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything it saw, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.state
            .seen
            .lock()
            .expect("no panic under the lock")
            .clone()
    }

    /// Requests for this target so far.
    pub fn count(&self, target: &str) -> usize {
        self.seen()
            .iter()
            .filter(|seen| seen.target == target)
            .count()
    }

    /// The newest request.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the upstream saw a request")
    }

    /// Streams that are being sent right now.
    pub fn streaming(&self) -> usize {
        self.state.streaming.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        // Wakes the one that waits for callers.
        drop(TcpStream::connect(self.address));
    }
}

fn converse(stream: &TcpStream, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(seen) = read_request(&mut reader)? {
        state
            .seen
            .lock()
            .expect("no panic under the lock")
            .push(seen.clone());
        if !answer(stream, &seen, state)? {
            break;
        }
    }
    Ok(())
}

pub(crate) fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Seen>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut seen = Seen {
        method,
        target,
        headers,
        body: Vec::new(),
    };
    if seen
        .all("transfer-encoding")
        .iter()
        .any(|coding| coding.contains("chunked"))
    {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            seen.body.extend_from_slice(&chunk[..size]);
        }
    } else if let Some(length) = seen.header("content-length").and_then(|l| l.parse().ok()) {
        seen.body = vec![0; length];
        reader.read_exact(&mut seen.body)?;
    }
    Ok(Some(seen))
}

/// Answers by the first words of the path; false: the connection is over.
fn answer(mut stream: &TcpStream, seen: &Seen, state: &State) -> std::io::Result<bool> {
    let path = seen.target.split('?').next().unwrap_or_default();
    let mut words = path.split('/').skip(2);
    let (what, detail) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let head = seen.method == "HEAD";
    match what {
        "accounts" => {
            let body = format!(r#"{{"account":"{detail}","balance":"12.50"}}"#);
            send(
                stream,
                "200 OK",
                "Content-Type: application/json\r\n",
                body.as_bytes(),
                head,
            )?;
        }
        "echo" => {
            let kind = seen
                .header("content-type")
                .unwrap_or("application/octet-stream");
            send(
                stream,
                "200 OK",
                &format!("Content-Type: {kind}\r\n"),
                &seen.body,
                head,
            )?;
        }
        "big" => {
            let body = vec![b'x'; detail.parse().unwrap_or(0)];
            send(
                stream,
                "200 OK",
                "Content-Type: text/plain\r\n",
                &body,
                head,
            )?;
        }
        "status" => match detail {
            "204" | "304" => {
                stream.write_all(
                    format!("HTTP/1.1 {detail} Indeed\r\nETag: \"1\"\r\n\r\n").as_bytes(),
                )?;
            }
            _ => send(
                stream,
                &format!("{detail} Indeed"),
                "Location: /v1/elsewhere\r\n",
                b"as told",
                head,
            )?,
        },
        "chunked" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nTrailer: x-late\r\n\r\n")?;
            stream.write_all(b"5\r\nhello\r\n7\r\n, world\r\n0\r\nX-Late: yes\r\n\r\n")?;
        }
        "nasty" => {
            let fields = "Content-Type: text/plain\r\nSignature: enf=:AAAA:\r\nSignature-Input: enf=()\r\n\
                Agent-Audit: log=\"forged\"\r\nAgent-Id: spiffe://forged/ca\r\nContent-Digest: sha-256=:AAAA:\r\n\
                Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n";
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")?;
            send(stream, "200 OK", fields, b"nasty", head)?;
        }
        "short" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")?;
            return Ok(false);
        }
        "garbage" => {
            stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")?;
            return Ok(false);
        }
        "hang" => {
            // Until the caller gives up.
            let _ = stream.read(&mut [0])?;
            return Ok(false);
        }
        "stream" => {
            state.streaming.fetch_add(1, Ordering::SeqCst);
            let sent = send_events(stream);
            state.streaming.fetch_sub(1, Ordering::SeqCst);
            sent?;
        }
        _ => send(stream, "404 Not Found", "", b"no such thing", head)?,
    }
    Ok(true)
}

fn send(
    mut stream: &TcpStream,
    status: &str,
    fields: &str,
    body: &[u8],
    head: bool,
) -> std::io::Result<()> {
    let length = body.len();
    let mut answer =
        format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n").into_bytes();
    if !head {
        answer.extend_from_slice(body);
    }
    stream.write_all(&answer)
}

/// An event every 10 ms, until the caller goes away.
fn send_events(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    for number in 0_u64.. {
        let event = format!("data: {number}\n\n");
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
