//! Response signatures, RFC 9421: label `enf`, tag `agentca-response`, Ed25519.
//!
//! What is covered is derived from the response and its request, never chosen, in this order:
//! `"@status" "agent-audit" "@method";req "@target-uri";req`; then `content-digest`, `content-type`,
//! `content-encoding`, `location` when the response has them; then `"content-digest";req` and
//! `"agent-nonce";req` when the request has them. A verifier derives the same list and demands it.

pub mod content_digest;

use std::fmt::Write as _;

use agentca_identity::chain::SignerKey;
use agentca_identity::crypto::{CryptoError, KeyKind, PrivateKey, PublicKey};
use agentca_identity::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::receipt::stream::{StreamId, StreamReceipt};

/// What a signature is over: values of fields as they are sent, several lines of one field joined
/// with `, ` and trimmed (RFC 9421 section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFacts<'a> {
    /// The status code.
    pub status: u16,
    /// The response's `Agent-Audit`.
    pub agent_audit: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// The request's full target, for example `https://localhost:8443/v1/accounts/7`.
    pub target_uri: &'a str,
    /// The response's `Content-Digest`; absent for streams and where there is no content.
    pub content_digest: Option<&'a str>,
    /// The response's `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The response's `Content-Encoding`.
    pub content_encoding: Option<&'a str>,
    /// The response's `Location`.
    pub location: Option<&'a str>,
    /// The request's `Content-Digest`.
    pub request_content_digest: Option<&'a str>,
    /// The request's `Agent-Nonce`.
    pub request_nonce: Option<&'a str>,
}

/// The values of the two header fields of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// `Signature-Input`.
    pub input: String,
    /// `Signature`.
    pub signature: String,
}

/// Signs responses until its certificate ends.
#[derive(Debug)]
pub struct ResponseSigner {
    key: PrivateKey,
    not_after: Timestamp,
    /// `;expires=…;keyid="…";alg="ed25519";tag="agentca-response"`, the same every time.
    parameters: String,
}

impl ResponseSigner {
    /// A signer with an Ed25519 key whose certificate ends at `not_after`.
    ///
    /// # Errors
    /// [`ResponseError::KeyKind`] for another kind of key.
    pub fn new(key: PrivateKey, not_after: Timestamp) -> Result<Self, ResponseError> {
        if key.kind() != KeyKind::Ed25519 {
            return Err(ResponseError::KeyKind);
        }
        let parameters = parameters(key.public_key(), not_after);
        Ok(Self {
            key,
            not_after,
            parameters,
        })
    }

    /// When its certificate ends.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Signs a message of a stream.
    ///
    /// # Errors
    /// [`CryptoError`]; the message must not leave unsigned.
    pub fn stream_receipt(
        &self,
        stream: StreamId<'_>,
        seq: u64,
        data: &[u8],
    ) -> Result<StreamReceipt, CryptoError> {
        StreamReceipt::sign(&self.key, stream, seq, data)
    }

    /// Signs a response now.
    ///
    /// # Errors
    /// [`ResponseError`]; the response must not leave unsigned.
    pub fn sign(&self, facts: &ResponseFacts<'_>) -> Result<Signature, ResponseError> {
        self.sign_at(facts, Timestamp::now())
    }

    /// Signs a response at `created`.
    ///
    /// # Errors
    /// As [`ResponseSigner::sign`].
    pub fn sign_at(
        &self,
        facts: &ResponseFacts<'_>,
        created: Timestamp,
    ) -> Result<Signature, ResponseError> {
        let mut input = String::with_capacity(INPUT_BYTES);
        input.push_str(LABEL);
        input.push('=');
        facts.push_names(&mut input);
        push_number(&mut input, ";created=", created.secs());
        input.push_str(&self.parameters);
        let base = facts.base(input.get(LABEL.len() + 1..).unwrap_or_default())?;
        let signed = self.key.sign(base.as_bytes())?;
        let mut signature = String::with_capacity(SIGNATURE_BYTES);
        signature.push_str(LABEL);
        signature.push_str("=:");
        STANDARD.encode_string(signed, &mut signature);
        signature.push(':');
        Ok(Signature { input, signature })
    }
}

/// Verifies a response's signature: the time it was made.
///
/// Whether the signer's certificate is valid at that time, or was when somebody co-signed the
/// record, is checked too: `created` lies within it, `expires` is its end.
///
/// # Errors
/// [`ResponseError`] when the list of components, a parameter, or the signature is another than
/// this response needs.
pub fn verify(
    facts: &ResponseFacts<'_>,
    input: &str,
    signature: &str,
    signer: &SignerKey,
) -> Result<Timestamp, ResponseError> {
    let window = (signer.not_before(), signer.not_after());
    verify_within(facts, input, signature, signer.public_key(), window)
}

fn verify_within(
    facts: &ResponseFacts<'_>,
    input: &str,
    signature: &str,
    key: &PublicKey,
    (not_before, not_after): (Timestamp, Timestamp),
) -> Result<Timestamp, ResponseError> {
    let member = input
        .strip_prefix(LABEL)
        .and_then(|rest| rest.strip_prefix('='))
        .ok_or(ResponseError::Input)?;
    let mut expected = String::with_capacity(INPUT_BYTES);
    facts.push_names(&mut expected);
    let rest = member
        .strip_prefix(expected.as_str())
        .ok_or(ResponseError::Components)?;
    let rest = rest.strip_prefix(";created=").ok_or(ResponseError::Input)?;
    let digits = rest.split(';').next().unwrap_or_default();
    let seconds: i64 = digits.parse().map_err(|_| ResponseError::Input)?;
    let created = Timestamp::from_secs(seconds);
    if created.secs() != seconds || seconds.to_string() != digits {
        return Err(ResponseError::Input);
    }
    let fixed = parameters(key, not_after);
    if rest.get(digits.len()..) != Some(fixed.as_str()) {
        return Err(ResponseError::Parameters);
    }
    if created < not_before.truncate_to_secs() || created > not_after {
        return Err(ResponseError::OutsideValidity);
    }
    let encoded = signature
        .strip_prefix(LABEL)
        .and_then(|rest| rest.strip_prefix("=:"))
        .and_then(|rest| rest.strip_suffix(':'))
        .ok_or(ResponseError::Signature)?;
    let signature = STANDARD
        .decode(encoded)
        .map_err(|_| ResponseError::Signature)?;
    key.verify(facts.base(member)?.as_bytes(), &signature)
        .map_err(|_| ResponseError::Signature)?;
    Ok(created)
}

impl<'a> ResponseFacts<'a> {
    /// The components this response needs, with their values, in their order.
    fn components(&self) -> [Option<(&'static str, Value<'a>)>; 10] {
        let text = |name, value: Option<&'a str>| value.map(|value| (name, Value::Text(value)));
        [
            Some(("\"@status\"", Value::Status(self.status))),
            text("\"agent-audit\"", Some(self.agent_audit)),
            text("\"@method\";req", Some(self.method)),
            text("\"@target-uri\";req", Some(self.target_uri)),
            text("\"content-digest\"", self.content_digest),
            text("\"content-type\"", self.content_type),
            text("\"content-encoding\"", self.content_encoding),
            text("\"location\"", self.location),
            text("\"content-digest\";req", self.request_content_digest),
            text("\"agent-nonce\";req", self.request_nonce),
        ]
    }

    /// The inner list of component identifiers.
    fn push_names(&self, out: &mut String) {
        let mut before = '(';
        for (name, _) in self.components().iter().flatten() {
            out.push(before);
            out.push_str(name);
            before = ' ';
        }
        out.push(')');
    }

    /// The signature base, RFC 9421 section 2.5, for `parameters` (the whole inner list).
    fn base(&self, parameters: &str) -> Result<String, ResponseError> {
        let mut base = String::with_capacity(1024);
        for (name, value) in self.components().into_iter().flatten() {
            base.push_str(name);
            base.push_str(": ");
            match value {
                Value::Status(status) => push_number(&mut base, "", i64::from(status)),
                Value::Text(text) => {
                    // A line break would let one value speak for another component.
                    if text.bytes().any(|byte| byte < b' ' && byte != b'\t') {
                        return Err(ResponseError::Value);
                    }
                    base.push_str(text);
                }
            }
            base.push('\n');
        }
        base.push_str("\"@signature-params\": ");
        base.push_str(parameters);
        Ok(base)
    }
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Status(u16),
    Text(&'a str),
}

/// The parameters that a signer's every signature has after `created`.
fn parameters(key: &PublicKey, not_after: Timestamp) -> String {
    let mut text = String::with_capacity(160);
    push_number(&mut text, ";expires=", not_after.secs());
    text.push_str(";keyid=\"");
    // Two digits a byte: formatting would take longer than all else here, and every verification does it.
    for byte in key.key_id() {
        text.extend(char::from_digit(u32::from(byte >> 4), 16));
        text.extend(char::from_digit(u32::from(byte & 0xf), 16));
    }
    text.push_str("\";alg=\"ed25519\";tag=\"agentca-response\"");
    text
}

fn push_number(out: &mut String, before: &str, number: i64) {
    let written = write!(out, "{before}{number}");
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

const LABEL: &str = "enf";
const INPUT_BYTES: usize = 384;
const SIGNATURE_BYTES: usize = 96;

/// Why a response was not signed, or its signature is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// Responses are signed with Ed25519.
    #[error("not an Ed25519 key: response signers need one")]
    KeyKind,
    /// A value has a line break or another control character.
    #[error("a signed value has a control character")]
    Value,
    /// Not a `Signature-Input` with our label.
    #[error("not a signature input of an enforcer")]
    Input,
    /// Other components are covered than this response needs.
    #[error("the signature does not cover exactly what this response needs")]
    Components,
    /// Key, algorithm, tag or expiry are not the signer's.
    #[error("the signature's parameters are not those of the signer")]
    Parameters,
    /// Signed before or after the signer's certificate was valid.
    #[error("signed outside the validity of the signer's certificate")]
    OutsideValidity,
    /// The signature is wrong.
    #[error("the response's signature is wrong")]
    Signature,
    /// The backend failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

#[cfg(test)]
mod tests;
