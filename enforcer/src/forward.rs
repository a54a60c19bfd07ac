//! Sending a permitted request to its upstream.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use agentca_policy::Rule;
use http::header;
use http::{HeaderMap, HeaderValue, Request, StatusCode, response};
use hyper::body::Incoming;

use crate::fields::clean_answer;
use crate::live::Live;
use crate::ops::Failure;
use crate::road::{Denial, Destination, Outgoing, Permit};
use crate::session::Session;
use crate::timers::Timer;
use crate::upstream::{Link, Outbound, SendFailure, Shown, UpstreamError};

/// An upstream's answer, its body still to come over the link.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Status and the fields that may be passed on.
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
    pub(crate) link: Link,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum ForwardFailure {
    /// The permit was no longer valid when the first byte was about to leave, by this status number.
    Denied(Denial, u64),
    /// The upstream failed.
    Upstream(UpstreamError),
}

impl From<UpstreamError> for ForwardFailure {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

/// Sends what was permitted, and nothing else: takes the permit, asks once more whether it is still
/// valid, and waits for the answer's head, as long as `timer` lets it. Another connection is tried only while not a byte was
/// sent.
pub(crate) async fn forward(
    session: &Rc<Session>,
    live: &Arc<Live>,
    permit: Permit,
    body: Outbound,
    request_id: HeaderValue,
    (timer, pause): (&Timer, Duration),
) -> Result<Answered, ForwardFailure> {
    let (worker, limits) = (&session.worker, live.upstream_limits());
    let Destination::Http(target) = permit.target().clone() else {
        return Err(UpstreamError::Unusable("a program is not reached over HTTP").into());
    };
    let agent = session.peer.uri();
    let shown = target.credential(agent).map_err(|none| {
        worker.counters.failed(&target.name, Failure::NoCredential);
        let denial = Denial::new(Rule::Upstream, none.to_string());
        ForwardFailure::Denied(denial, session.peer.standing().status_number)
    })?;
    let mut link = worker.pool.link(&target, &limits).await?;
    let (outgoing, recheck) = permit.leave();
    let still_valid = || {
        let known = session.peer.standing();
        let denied = |denial| ForwardFailure::Denied(denial, known.status_number);
        recheck.still_valid(session, live, known).map_err(denied)
    };
    let mut valid = still_valid()?;
    let carried = (body, target.host_value.clone());
    let mut request = request(session, outgoing, carried, (request_id, shown));
    timer.restart(pause);
    for _ in 0..ATTEMPTS {
        match link.send(request, valid, timer).await {
            Ok(response) => {
                target.answered(response.status(), agent);
                return Ok(accept(response.into_parts(), link)?);
            }
            Err(SendFailure::Failed(error)) => return Err(error.into()),
            Err(SendFailure::Unsent(unsent)) => request = *unsent,
        }
        link = worker.pool.link(&target, &limits).await?;
        valid = still_valid()?;
    }
    Err(UpstreamError::Unusable("every connection was closed before the request").into())
}

/// Connections tried while nothing was sent.
const ATTEMPTS: usize = 3;

fn request(
    session: &Session,
    outgoing: Outgoing,
    (body, host): (Outbound, HeaderValue),
    (request_id, shown): (HeaderValue, Option<Shown>),
) -> Request<Outbound> {
    let Outgoing {
        method,
        uri,
        mut headers,
    } = outgoing;
    session.peer.introduce(&mut headers, request_id);
    headers.insert(header::HOST, host);
    if let Some(shown) = shown {
        shown.put(&mut headers);
    }
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

fn accept(
    (mut parts, body): (response::Parts, Incoming),
    link: Link,
) -> Result<Answered, UpstreamError> {
    if !(200..600).contains(&parts.status.as_u16()) {
        return Err(UpstreamError::Unusable(
            "the upstream's status cannot be passed on",
        ));
    }
    clean_answer(&mut parts.headers).map_err(UpstreamError::Unusable)?;
    Ok(Answered {
        status: parts.status,
        headers: parts.headers,
        body,
        link,
    })
}
