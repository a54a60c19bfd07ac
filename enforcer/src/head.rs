//! Reading a request's head, once and strictly (promise 7; RFC 9110, RFC 9112).
//!
//! [`Asked`] is what the signature of the answer covers, refused heads included. [`Head`] is what is
//! decided on and, unchanged, forwarded.

use std::borrow::Cow;

use agentca_policy::{NormalPath, Rule};
use http::header::{self, HeaderName};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, request};

use crate::authorities::Authorities;
use crate::gate::Protocol;
use crate::head_scan::Shape;
use crate::road::Denial;

/// What was asked, as far as the answer's signature covers it.
#[derive(Debug)]
pub(crate) struct Asked {
    /// `@method`.
    pub(crate) method: Method,
    /// `@target-uri`: `https://`, the authority and the path as they were sent.
    pub(crate) target_uri: String,
    /// `content-digest`, combined as RFC 9110 §5.2 says.
    pub(crate) content_digest: Option<String>,
    /// `agent-nonce`.
    pub(crate) nonce: Option<String>,
}

impl Asked {
    /// Takes note of a request, readable or not.
    pub(crate) fn of(parts: &request::Parts) -> Self {
        let authority = match parts.uri.authority() {
            Some(authority) => authority.as_str(),
            None => parts
                .headers
                .get(header::HOST)
                .and_then(text)
                .unwrap_or_default(),
        };
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let mut target_uri = String::with_capacity(8 + authority.len() + path.len());
        target_uri.push_str("https://");
        target_uri.push_str(authority);
        target_uri.push_str(path);
        Self {
            method: parts.method.clone(),
            target_uri,
            content_digest: combined(&parts.headers, &CONTENT_DIGEST).map(Cow::into_owned),
            nonce: combined(&parts.headers, &AGENT_NONCE).map(Cow::into_owned),
        }
    }
}

/// A head that was read: nothing in it has two readings.
#[derive(Debug)]
pub(crate) struct Head {
    /// The method.
    pub(crate) method: Method,
    /// What routes are matched on.
    pub(crate) path: NormalPath,
    /// The same path and query, as they are forwarded.
    pub(crate) uri: Uri,
    /// The fields to forward: end-to-end ones, none of them ours.
    pub(crate) headers: HeaderMap,
    /// The body's length, when it was told.
    pub(crate) length: Option<u64>,
    /// `traceparent`'s trace and parent ids (W3C Trace Context), when well-formed.
    pub(crate) trace: Option<Trace>,
}

/// Who asked upstream of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    value: String,
}

impl Trace {
    /// The trace id: 32 hex digits.
    pub(crate) fn id(&self) -> &str {
        self.value.get(3..35).unwrap_or_default()
    }

    /// The parent id: 16 hex digits.
    pub(crate) fn parent(&self) -> &str {
        self.value.get(36..52).unwrap_or_default()
    }
}

/// What a head is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadRules<'a> {
    pub(crate) protocol: Protocol,
    /// What the bytes looked like.
    pub(crate) shape: Shape,
    /// The server name of the TLS handshake.
    pub(crate) sni: Option<&'a str>,
    pub(crate) authorities: &'a Authorities,
    /// Most bytes.
    pub(crate) head_max: usize,
    /// Most fields.
    pub(crate) headers_max: usize,
}

impl Head {
    /// Reads a head, or says why it is refused.
    pub(crate) fn read(parts: request::Parts, rules: &HeadRules<'_>) -> Result<Self, Denial> {
        let request::Parts {
            method,
            uri,
            version,
            mut headers,
            ..
        } = parts;
        refuse_protocols(&method, version, &headers)?;
        if let Shape::Ambiguous(why) = rules.shape {
            return Err(Denial::new(Rule::Malformed, why));
        }
        refuse_size(&uri, &headers, rules)?;
        let authority = authority(&uri, &headers, rules.protocol)?;
        if !rules.authorities.answers_for(&authority, rules.sni) {
            return Err(Denial::new(
                Rule::Misdirected,
                "this enforcer is not that authority",
            ));
        }
        let length = content_length(&headers)?;
        let trace = headers
            .get("traceparent")
            .and_then(text)
            .and_then(read_trace);
        clean_request(&mut headers)?;
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        let path = NormalPath::parse(path)
            .map_err(|refusal| Denial::new(Rule::Malformed, refusal.to_string()))?;
        let uri = Uri::try_from(path.as_str())
            .map_err(|_| Denial::new(Rule::Malformed, "the path cannot be forwarded"))?;
        Ok(Self {
            method,
            path,
            uri,
            headers,
            length,
            trace,
        })
    }
}

fn refuse_protocols(method: &Method, version: Version, headers: &HeaderMap) -> Result<(), Denial> {
    if !matches!(version, Version::HTTP_11 | Version::HTTP_2) {
        return Err(
            Denial::new(Rule::Malformed, "only HTTP/1.1 and HTTP/2 are spoken here")
                .with_status(StatusCode::HTTP_VERSION_NOT_SUPPORTED),
        );
    }
    if method == Method::CONNECT || headers.contains_key(header::UPGRADE) {
        return Err(Denial::new(Rule::Malformed, "no tunnels and no upgrades")
            .with_status(StatusCode::NOT_IMPLEMENTED));
    }
    Ok(())
}

fn refuse_size(uri: &Uri, headers: &HeaderMap, rules: &HeadRules<'_>) -> Result<(), Denial> {
    let line = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let fields: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if headers.len() > rules.headers_max || line + fields > rules.head_max {
        return Err(
            Denial::new(Rule::TooLarge, "the request's head is too large")
                .with_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        );
    }
    Ok(())
}

/// The one authority a request is for.
fn authority(uri: &Uri, headers: &HeaderMap, protocol: Protocol) -> Result<Authority, Denial> {
    let malformed = |why| Denial::new(Rule::Malformed, why);
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(malformed("Host is repeated"));
    }
    let text = match (protocol, uri.authority(), host) {
        (Protocol::Http1, Some(_), _) => {
            return Err(malformed("the request target must be a path"));
        }
        (Protocol::Http1, None, None) | (Protocol::Http2, None, None) => {
            return Err(malformed("Host is missing"));
        }
        (Protocol::Http2, Some(authority), None) => authority.as_str(),
        (Protocol::Http2, Some(authority), Some(host)) => {
            if !host
                .as_bytes()
                .eq_ignore_ascii_case(authority.as_str().as_bytes())
            {
                return Err(malformed("Host and :authority differ"));
            }
            authority.as_str()
        }
        (_, None, Some(host)) => text_of(host)?,
    };
    if text.contains('@') {
        return Err(malformed("an authority has no user"));
    }
    text.parse()
        .map_err(|_| malformed("the authority cannot be read"))
}

fn text_of(value: &HeaderValue) -> Result<&str, Denial> {
    value
        .to_str()
        .map_err(|_| Denial::new(Rule::Malformed, "Host cannot be read"))
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Denial> {
    let malformed = || Denial::new(Rule::Malformed, "Content-Length cannot be read");
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(malformed());
    }
    let digits = text(value).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse().ok())
        .map(Some)
        .ok_or_else(malformed)
}

/// Leaves only what is forwarded: hop-by-hop fields go first, then names that a gateway could take for
/// others are refused, and client `Agent-*` fields and what would override the call are removed.
fn clean_request(headers: &mut HeaderMap) -> Result<(), Denial> {
    remove_hop_by_hop(headers);
    headers.remove(header::HOST);
    let mut ours = Vec::new();
    for name in headers.keys() {
        // Gateways fold what is neither: `Agent.Id` and `Agent_Id` become the `Agent-Id` that we say.
        if !name
            .as_str()
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(Denial::new(
                Rule::Malformed,
                "a field name has more than letters, digits and hyphens",
            ));
        }
        if OVERRIDES.contains(&name.as_str()) {
            ours.push(name.clone());
        }
        if name.as_str().starts_with("agent-") && *name != AGENT_NONCE {
            ours.push(name.clone());
        }
        if *name == header::EXPECT || *name == header::CONTENT_LENGTH {
            ours.push(name.clone());
        }
    }
    for name in ours {
        headers.remove(name);
    }
    for name in [&CONTENT_DIGEST, &AGENT_NONCE] {
        if headers.contains_key(name) && combined(headers, name).is_none() {
            return Err(Denial::new(
                Rule::Malformed,
                "a field that is signed cannot be read",
            ));
        }
    }
    if headers.get_all(&AGENT_NONCE).iter().count() > 1 {
        return Err(Denial::new(Rule::Malformed, "Agent-Nonce is repeated"));
    }
    Ok(())
}

/// Leaves of an upstream's answer only what may be passed on: no hop-by-hop fields, nothing that
/// is ours to say, and no digest that would be of something else.
pub(crate) fn clean_answer(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_ours_to_say(name.as_str()))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// Whether only the enforcer may say it to a client. A name with other signs counts as
/// the one that a gateway would make of it.
fn is_ours_to_say(name: &str) -> bool {
    let starts = |prefix: &str| {
        name.len() >= prefix.len()
            && name.bytes().zip(prefix.bytes()).all(|(byte, wanted)| {
                byte == wanted || (wanted == b'-' && !byte.is_ascii_alphanumeric())
            })
    };
    starts("agent-")
        || starts("signature")
        || starts("content-digest")
        || starts("repr-digest")
        || starts("digest")
        || starts("want-content-digest")
        || starts("want-repr-digest")
        || starts("want-digest")
        || starts("accept-signature")
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if !headers
        .keys()
        .any(|name| HOP_BY_HOP.contains(&name.as_str()))
    {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(text)
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// By which frameworks do another call than the one that was judged and recorded.
const OVERRIDES: [&str; 5] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// RFC 9110 §7.6.1, and what RFC 2616 §13.5.1 listed.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// RFC 9530.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// A client's own mark, which the answer's signature covers.
pub(crate) const AGENT_NONCE: HeaderName = HeaderName::from_static("agent-nonce");

/// All lines of a field as one value; what is not visible ASCII can't be covered and is left out.
pub(crate) fn combined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter();
    let mut combined = Cow::Borrowed(text(values.next()?)?.trim());
    for value in values {
        let combined = combined.to_mut();
        combined.push_str(", ");
        combined.push_str(text(value)?.trim());
    }
    Some(combined)
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, later versions longer.
fn read_trace(value: &str) -> Option<Trace> {
    let hex = |range| {
        let part: &str = value.get(range)?;
        let valid = part
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (valid && part.bytes().any(|b| b != b'0')).then_some(())
    };
    let dash = |at| value.as_bytes().get(at) == Some(&b'-');
    hex(3..35)?;
    hex(36..52)?;
    let whole = value.len() >= 55 && value.len() <= 128;
    (whole && dash(2) && dash(35) && dash(52)).then(|| Trace {
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests;
