//! Reading a request's head, once and strictly (promise 7; RFC 9110, RFC 9112).
//!
//! [`Asked`] is what the signature of the answer covers, refused heads included. [`Head`] is what is
//! decided on and, unchanged, forwarded.

use std::borrow::Cow;

use agentca_policy::{NormalPath, Rule};
use http::header;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, request};

use crate::authorities::Authorities;
use crate::fields::{AGENT_NONCE, CONTENT_DIGEST, clean_request, combined, content_length, text};
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
#[derive(Clone, Debug)]
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
    /// Reads a head, or says why it is refused. It passes many hands: in a box that costs nothing.
    pub(crate) fn read(parts: request::Parts, rules: &HeadRules<'_>) -> Result<Box<Self>, Denial> {
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
        let length = content_length(&headers)
            .map_err(|_| Denial::new(Rule::Malformed, "Content-Length cannot be read"))?;
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
        Ok(Box::new(Self {
            method,
            path,
            uri,
            headers,
            length,
            trace,
        }))
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
        // The library forgets the scheme without an authority, and `https` is what gets signed.
        (Protocol::Http2, None, Some(_)) => return Err(malformed(":authority is missing")),
        (Protocol::Http2, Some(_), _) if uri.scheme() != Some(&Scheme::HTTPS) => {
            return Err(malformed(":scheme is not https"));
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
        (Protocol::Http1, None, Some(host)) => text_of(host)?,
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
