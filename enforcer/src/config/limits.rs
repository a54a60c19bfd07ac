//! Limits and timers: table `limits`, every key optional.

use std::time::Duration;

use super::errors::{Errors, blame};
use super::section::Section;

/// What a client, or an upstream, may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TLS handshake, from accept.
    pub handshake_timeout: Duration,
    /// A request's head, from its first byte (or from the handshake for the first).
    pub header_timeout: Duration,
    /// A kept-alive connection without a request; and the longest that a client may take nothing of
    /// an answer: over HTTP/2 nothing of one stream's, which is reset then.
    pub idle_timeout: Duration,
    /// A request's whole body; of one that is streamed, each piece.
    pub body_timeout: Duration,
    /// Waiting for the feed to say that a certificate was issued.
    pub issued_wait: Duration,
    /// Connecting to an upstream.
    pub upstream_connect_timeout: Duration,
    /// From forwarding, or the last piece of a streamed request, to the upstream's head, and between
    /// two pieces of its body.
    pub upstream_timeout: Duration,
    /// An upstream connection without a request.
    pub upstream_idle_timeout: Duration,
    /// How often something is said on a stream on which a client only listens, when nothing else is.
    pub keep_alive: Duration,
    /// From SIGTERM to the end of running requests.
    pub drain_timeout: Duration,
    /// A request's head, in bytes.
    pub head_max: usize,
    /// A request's body that is read whole, in bytes.
    pub request_max: usize,
    /// An answer of known length that waits for its outcome record, in bytes.
    pub buffer_max: usize,
    /// Bodies of requests and answers that are held whole, over all calls, in bytes; one agent has at
    /// most half of it.
    pub buffered_max: usize,
    /// A message of an MCP server, in bytes.
    pub message_max: usize,
    /// Header fields of a request.
    pub headers_max: usize,
    /// Open client connections, over all threads.
    pub max_connections: usize,
    /// Those of one agent.
    pub max_agent_connections: usize,
    /// Calls of one agent at one time, streams among them.
    pub max_agent_calls: usize,
    /// Concurrent HTTP/2 streams of one connection.
    pub h2_max_streams: u32,
    /// HTTP/2 streams that a client may reset before they are answered, in ten seconds, if it did not
    /// take as many answers.
    pub h2_max_resets: u32,
    /// Idle connections kept to one upstream by one thread.
    pub upstream_idle_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            issued_wait: Duration::from_millis(250),
            upstream_connect_timeout: Duration::from_secs(5),
            upstream_timeout: Duration::from_secs(30),
            upstream_idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(10),
            head_max: 16 << 10,
            request_max: 1 << 20,
            buffer_max: 1 << 20,
            buffered_max: 256 << 20,
            message_max: 8 << 20,
            headers_max: 100,
            max_connections: 16_384,
            max_agent_connections: 4_096,
            max_agent_calls: 1_024,
            h2_max_streams: 128,
            h2_max_resets: 256,
            upstream_idle_max: 64,
        }
    }
}

/// Every limit is a key of its own name.
pub(super) fn read(section: &mut Section, errors: &mut Errors) -> Limits {
    let default = Limits::default();
    let hour = Duration::from_secs(3_600);
    let mut time = |name, default, most| {
        section.duration(errors, name, default, Duration::from_millis(1)..=most)
    };
    let handshake_timeout = time("handshake_timeout", default.handshake_timeout, hour);
    let header_timeout = time("header_timeout", default.header_timeout, hour);
    let idle_timeout = time("idle_timeout", default.idle_timeout, hour * 24);
    let body_timeout = time("body_timeout", default.body_timeout, hour);
    // An enforcer waits at most 250 ms.
    let longest = Duration::from_millis(250);
    let issued_wait = time("issued_wait", default.issued_wait, longest);
    let connect = default.upstream_connect_timeout;
    let upstream_connect_timeout = time("upstream_connect_timeout", connect, hour);
    let upstream_timeout = time("upstream_timeout", default.upstream_timeout, hour * 24);
    let idle = default.upstream_idle_timeout;
    let upstream_idle_timeout = time("upstream_idle_timeout", idle, hour);
    let keep_alive = time("keep_alive", default.keep_alive, hour);
    let drain_timeout = time("drain_timeout", default.drain_timeout, hour);
    let mut size = |name, default, range| section.size(errors, name, default, range);
    let head_max = size("head_max", default.head_max, 8 << 10..=1 << 20);
    let request_max = size("request_max", default.request_max, 0..=1 << 30);
    let buffer_max = size("buffer_max", default.buffer_max, 0..=1 << 30);
    let buffered_max = size("buffered_max", default.buffered_max, 0..=1 << 40);
    let message_max = size("message_max", default.message_max, 1 << 10..=1 << 30);
    if buffered_max / 2 < request_max {
        let message = "must be at least twice `request_max`: one agent may fill half of it";
        blame(errors, "limits.buffered_max", message);
    }
    let streams = default.h2_max_streams;
    let h2_max_streams = section.count(errors, "h2_max_streams", streams, 1..=10_000);
    let resets = default.h2_max_resets;
    let h2_max_resets = section.count(errors, "h2_max_resets", resets, 1..=1_000_000);
    let agents = default.max_agent_connections;
    let mut count = |name, default, range| section.count(errors, name, default, range);
    Limits {
        handshake_timeout,
        header_timeout,
        idle_timeout,
        body_timeout,
        issued_wait,
        upstream_connect_timeout,
        upstream_timeout,
        upstream_idle_timeout,
        keep_alive,
        drain_timeout,
        head_max,
        request_max,
        buffer_max,
        buffered_max,
        message_max,
        headers_max: count("headers_max", default.headers_max, 8..=1_000),
        max_connections: count("max_connections", default.max_connections, 1..=10_000_000),
        max_agent_connections: count("max_agent_connections", agents, 1..=10_000_000),
        max_agent_calls: count("max_agent_calls", default.max_agent_calls, 1..=10_000_000),
        h2_max_streams,
        h2_max_resets,
        upstream_idle_max: count("upstream_idle_max", default.upstream_idle_max, 0..=100_000),
    }
}
