//! Limits and timers: table `limits`, every key optional.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::raw::{RawLimits, RawSize};
use super::units::{parse_duration, parse_size};
use super::{Errors, note};

/// What a client, or an upstream, may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TLS handshake, from accept.
    pub handshake_timeout: Duration,
    /// A request's head, from its first byte (or from the handshake for the first).
    pub header_timeout: Duration,
    /// A kept-alive connection without a request.
    pub idle_timeout: Duration,
    /// A request's whole body.
    pub body_timeout: Duration,
    /// Waiting for the feed to say that a certificate was issued.
    pub issued_wait: Duration,
    /// Connecting to an upstream.
    pub upstream_connect_timeout: Duration,
    /// From forwarding to the upstream's head, and between two pieces of its body.
    pub upstream_timeout: Duration,
    /// An upstream connection without a request.
    pub upstream_idle_timeout: Duration,
    /// From SIGTERM to the end of running requests.
    pub drain_timeout: Duration,
    /// A request's head, in bytes.
    pub head_max: usize,
    /// A request's body that is read whole, in bytes.
    pub request_max: usize,
    /// An answer of known length that waits for its outcome record, in bytes.
    pub buffer_max: usize,
    /// Header fields of a request.
    pub headers_max: usize,
    /// Open client connections, over all threads.
    pub max_connections: usize,
    /// Concurrent HTTP/2 streams of one connection.
    pub h2_max_streams: u32,
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
            drain_timeout: Duration::from_secs(10),
            head_max: 16 << 10,
            request_max: 1 << 20,
            buffer_max: 1 << 20,
            headers_max: 100,
            max_connections: 16_384,
            h2_max_streams: 128,
            upstream_idle_max: 64,
        }
    }
}

pub(super) fn check(errors: &mut Errors, raw: RawLimits) -> Option<Limits> {
    let RawLimits {
        handshake_timeout,
        header_timeout,
        idle_timeout,
        body_timeout,
        issued_wait,
        upstream_connect_timeout,
        upstream_timeout,
        upstream_idle_timeout,
        drain_timeout,
        head_max,
        request_max,
        buffer_max,
        headers_max,
        max_connections,
        h2_max_streams,
        upstream_idle_max,
    } = raw;
    let before = errors.len();
    let mut limits = Limits::default();
    let to = &mut limits;
    let mut take = Taker { errors };
    let hour = Duration::from_secs(3_600);
    take.time(
        &mut to.handshake_timeout,
        "handshake_timeout",
        handshake_timeout,
        hour,
    );
    take.time(
        &mut to.header_timeout,
        "header_timeout",
        header_timeout,
        hour,
    );
    take.time(
        &mut to.idle_timeout,
        "idle_timeout",
        idle_timeout,
        hour * 24,
    );
    take.time(&mut to.body_timeout, "body_timeout", body_timeout, hour);
    // An enforcer waits at most 250 ms.
    take.time(
        &mut to.issued_wait,
        "issued_wait",
        issued_wait,
        Duration::from_millis(250),
    );
    let key = "upstream_connect_timeout";
    take.time(
        &mut to.upstream_connect_timeout,
        key,
        upstream_connect_timeout,
        hour,
    );
    take.time(
        &mut to.upstream_timeout,
        "upstream_timeout",
        upstream_timeout,
        hour * 24,
    );
    let key = "upstream_idle_timeout";
    take.time(
        &mut to.upstream_idle_timeout,
        key,
        upstream_idle_timeout,
        hour,
    );
    take.time(&mut to.drain_timeout, "drain_timeout", drain_timeout, hour);
    take.size(&mut to.head_max, "head_max", head_max, 8 << 10..=1 << 20);
    take.size(&mut to.request_max, "request_max", request_max, 0..=1 << 30);
    take.size(&mut to.buffer_max, "buffer_max", buffer_max, 0..=1 << 30);
    take.count(&mut to.headers_max, "headers_max", headers_max, 8..=1_000);
    take.count(
        &mut to.max_connections,
        "max_connections",
        max_connections,
        1..=10_000_000,
    );
    take.count(
        &mut to.h2_max_streams,
        "h2_max_streams",
        h2_max_streams,
        1..=10_000,
    );
    take.count(
        &mut to.upstream_idle_max,
        "upstream_idle_max",
        upstream_idle_max,
        0..=100_000,
    );
    (errors.len() == before).then_some(limits)
}

/// Puts values that were given in the place of defaults.
struct Taker<'a> {
    errors: &'a mut Errors,
}

impl Taker<'_> {
    /// A duration from 1 ms on.
    fn time(&mut self, to: &mut Duration, key: &str, given: Option<String>, most: Duration) {
        let Some(text) = given else { return };
        let value = parse_duration(&text).and_then(|value| {
            if (Duration::from_millis(1)..=most).contains(&value) {
                Ok(value)
            } else {
                Err(format!(
                    "`{text}` is not within 1ms and {}ms",
                    most.as_millis()
                ))
            }
        });
        self.put(to, key, value);
    }

    fn size(
        &mut self,
        to: &mut usize,
        key: &str,
        given: Option<RawSize>,
        range: RangeInclusive<u64>,
    ) {
        let value = match given {
            None => return,
            Some(RawSize::Bytes(value)) => Ok(value),
            Some(RawSize::Text(text)) => parse_size(&text),
        };
        self.put(to, key, value.and_then(|value| within(value, &range)));
    }

    fn count<N: TryFrom<u64>>(
        &mut self,
        to: &mut N,
        key: &str,
        given: Option<u64>,
        range: RangeInclusive<u64>,
    ) {
        if let Some(value) = given {
            self.put(to, key, within(value, &range));
        }
    }

    fn put<T>(&mut self, to: &mut T, key: &str, value: Result<T, String>) {
        if let Some(value) = note(self.errors, &format!("limits.{key}"), value) {
            *to = value;
        }
    }
}

fn within<N: TryFrom<u64>>(value: u64, range: &RangeInclusive<u64>) -> Result<N, String> {
    let bounds = || {
        format!(
            "{value} is not within {} and {}",
            range.start(),
            range.end()
        )
    };
    if !range.contains(&value) {
        return Err(bounds());
    }
    N::try_from(value).map_err(|_| bounds())
}
