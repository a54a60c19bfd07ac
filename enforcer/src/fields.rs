//! Which header fields pass, either way (RFC 9110 §7.6.1): nothing that is meant for one connection,
//! and nothing by which a client or an upstream could speak for the enforcer.

use std::borrow::Cow;

use agentca_policy::Rule;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::road::Denial;

/// Leaves only what is forwarded: hop-by-hop fields go first, then names that a gateway could take for
/// others are refused, and client `Agent-*` fields and what would override the call are removed.
pub(crate) fn clean_request(headers: &mut HeaderMap) -> Result<(), Denial> {
    if headers
        .get_all(header::CONNECTION)
        .iter()
        .any(|value| text(value).is_none())
    {
        return Err(Denial::new(Rule::Malformed, "Connection cannot be read"));
    }
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
/// is ours to say, and no digest that would be of something else. What the signature has to cover must
/// be of a form that it can cover, and a length must have one reading.
pub(crate) fn clean_answer(headers: &mut HeaderMap) -> Result<(), &'static str> {
    remove_hop_by_hop(headers);
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_ours_to_say(name.as_str()))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
    for name in [&header::CONTENT_TYPE, &header::LOCATION] {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err("the answer repeats Content-Type or Location");
        }
    }
    for name in &SIGNED {
        if headers.contains_key(name) && combined(headers, name).is_none() {
            return Err("the answer has a field that cannot be signed");
        }
    }
    content_length(headers).map_err(|_| "the answer has no one Content-Length")?;
    Ok(())
}

/// What an answer's signature covers when the answer has it.
pub(crate) const SIGNED: [HeaderName; 3] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::LOCATION,
];

/// Several lengths, or one that is no number.
#[derive(Debug)]
pub(crate) struct NoOneLength;

/// The length that a message tells.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, NoOneLength> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(NoOneLength);
    }
    let digits = text(value).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse().ok())
        .map(Some)
        .ok_or(NoOneLength)
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
        // By bytes: beside what cannot be read there may be names that can.
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// By which frameworks do another call than the one that was judged and recorded, or for another caller.
const OVERRIDES: [&str; 8] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
    // Says who the caller is, as our own fields do.
    "x-forwarded-client-cert",
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

/// A value of visible ASCII.
pub(crate) fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_cannot_speak_for_us() {
        let mut headers = HeaderMap::new();
        for name in [
            "signature",
            "signature-input",
            "agent-audit",
            "agent_audit",
            "signature_input",
            "content-digest",
            "repr-digest",
            "digest",
            "connection",
            "transfer-encoding",
            "x-inner",
            "content-type",
            "set-cookie",
        ] {
            let value = if name == "connection" { "x-inner" } else { "v" };
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        clean_answer(&mut headers).unwrap();
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "set-cookie"]);
    }

    #[test]
    fn what_connection_names_is_found_beside_what_cannot_be_read() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(b"x-inner, \xff, x-other").unwrap();
        headers.insert(header::CONNECTION, value.clone());
        headers.insert("x-inner", HeaderValue::from_static("1"));
        headers.insert("x-other", HeaderValue::from_static("1"));
        let denial = clean_request(&mut headers.clone()).unwrap_err();
        assert_eq!(denial.rule, Rule::Malformed);
        clean_answer(&mut headers).unwrap();
        assert!(headers.is_empty(), "{headers:?}");
    }
}
