//! Whether an answer is what the enforcer signed: its head by the response signature, its body by
//! `Content-Digest`, the messages of a stream by their receipts. What is covered is derived from request
//! and answer, never taken from what the answer says.

use std::borrow::Cow;
use std::time::Duration;

use agentca_auditlog::receipt::stream::{StreamId, StreamReceipt};
use agentca_auditlog::receipt::{AgentAudit, Phase};
use agentca_auditlog::response::{self, ResponseError, ResponseFacts, content_digest};
use agentca_identity::chain::SignerKey;
use agentca_identity::crypto::sha256;
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;
use http::{HeaderMap, Method, StatusCode};

/// What is done with an answer that does not verify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Verify {
    /// It is not passed on
    #[default]
    Require,
    /// It is logged, and passed on
    Warn,
    /// Nothing is verified
    Off,
}

/// What was asked, as far as the signature covers it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) digest: Option<String>,
    pub(crate) nonce: String,
    pub(crate) sent: Timestamp,
}

/// Who should have answered, and to whom.
#[derive(Debug)]
pub(crate) struct Parties<'a> {
    /// The enforcer's log in its first generation.
    pub(crate) origin: &'a LogOrigin,
    /// SHA-256 of our certificate.
    pub(crate) ours: [u8; 32],
}

/// A head that was signed for us.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) log: LogOrigin,
    /// The index of the record.
    pub(crate) index: u64,
    pub(crate) salt: [u8; 16],
    pub(crate) signer: SignerKey,
    pub(crate) body: Promised,
}

/// What the head says about its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promised {
    /// It has this SHA-256.
    Digest([u8; 32]),
    /// There is none.
    Nothing,
    /// It is a stream, whose outcome record follows.
    Stream,
}

/// Why an answer is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unverified {
    #[error("it has no `{0}`")]
    Missing(&'static str),
    #[error("its `{0}` is not readable")]
    Field(&'static str),
    #[error("it was made for another certificate")]
    AnotherPeer,
    #[error("it comes from the log `{0}`, not from the enforcer that was asked")]
    AnotherLog(String),
    #[error("it is signed with a key that leads to no signer of this enforcer")]
    UnknownSigner,
    #[error("it was signed at {}, not when it was asked for", .0.rfc3339())]
    AnotherTime(Timestamp),
    #[error(transparent)]
    Signature(#[from] ResponseError),
    #[error("its body is not the one that was signed")]
    Body,
    #[error("message {0} of the stream has no receipt")]
    NoReceipt(u64),
    #[error("the receipt of message {0} of the stream is not for it: changed, moved or left out")]
    Receipt(u64),
    #[error("the signers of the enforcer could not be had: {0}")]
    Signers(String),
    #[error("the record of how it ended does not confirm it: {0}")]
    Outcome(String),
}

/// Verifies the head of an answer; `signer` is the key that [`key_id_of`] names, when it is known.
pub(crate) fn head(
    asked: &Asked,
    status: StatusCode,
    headers: &HeaderMap,
    parties: &Parties<'_>,
    signer: Option<SignerKey>,
) -> Result<Verified, Unverified> {
    let field = |name: &'static str| combined(headers, name);
    let need = |name: &'static str| field(name)?.ok_or(Unverified::Missing(name));
    let (input, signature) = (need("signature-input")?, need("signature")?);
    let audit = need("agent-audit")?;
    let (digest, content_type) = (field("content-digest")?, field("content-type")?);
    let (encoding, location) = (field("content-encoding")?, field("location")?);
    let facts = ResponseFacts {
        status: status.as_u16(),
        agent_audit: &audit,
        method: asked.method.as_str(),
        target_uri: &asked.target,
        content_digest: digest.as_deref(),
        content_type: content_type.as_deref(),
        content_encoding: encoding.as_deref(),
        location: location.as_deref(),
        request_content_digest: asked.digest.as_deref(),
        request_nonce: Some(&asked.nonce),
    };
    let signer = signer.ok_or(Unverified::UnknownSigner)?;
    let created = response::verify(&facts, &input, &signature, &signer)?;
    let now = Timestamp::now();
    if created + SKEW < asked.sent || created > now + SKEW {
        return Err(Unverified::AnotherTime(created));
    }
    let audit = AgentAudit::parse(&audit).map_err(|_| Unverified::Field("agent-audit"))?;
    if audit.peer != parties.ours {
        return Err(Unverified::AnotherPeer);
    }
    let log = log_of(audit.log, parties.origin, &signer)?;
    let bodyless = asked.method == Method::HEAD
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = promised(audit.phase, bodyless, digest.as_deref())?;
    Ok(Verified {
        log,
        index: audit.index,
        salt: audit.salt,
        signer,
        body,
    })
}

/// The log, which is this enforcer's in any generation, and whose signer it was.
fn log_of(name: &str, origin: &LogOrigin, signer: &SignerKey) -> Result<LogOrigin, Unverified> {
    let another = || Unverified::AnotherLog(name.to_owned());
    let log: LogOrigin = name.parse().map_err(|_| another())?;
    if log.with_generation(1).ok().as_ref() != Some(origin) {
        return Err(another());
    }
    if log.response().ok().as_ref() != Some(signer.origin()) {
        return Err(Unverified::UnknownSigner);
    }
    Ok(log)
}

fn promised(phase: Phase, bodyless: bool, digest: Option<&str>) -> Result<Promised, Unverified> {
    match (phase, bodyless, digest) {
        (Phase::Closed, true, None) => Ok(Promised::Nothing),
        (Phase::Closed, false, Some(digest)) => content_digest::parse(digest)
            .map(Promised::Digest)
            .ok_or(Unverified::Field("content-digest")),
        (Phase::Closed, false, None) => Err(Unverified::Missing("content-digest")),
        (Phase::Open, _, None) => Ok(Promised::Stream),
        (Phase::Closed, true, Some(_)) | (Phase::Open, _, Some(_)) => {
            Err(Unverified::Field("content-digest"))
        }
    }
}

/// Whether a whole body is the one that was signed.
pub(crate) fn body(digest: &[u8; 32], body: &[u8]) -> Result<(), Unverified> {
    if sha256(body) == *digest {
        Ok(())
    } else {
        Err(Unverified::Body)
    }
}

/// Verifies message `seq` of a stream with any of `keys`.
pub(crate) fn message<'a>(
    verified: &Verified,
    keys: impl IntoIterator<Item = &'a SignerKey>,
    seq: u64,
    data: &str,
    receipt: Option<&str>,
) -> Result<(), Unverified> {
    let receipt = receipt.ok_or(Unverified::NoReceipt(seq))?;
    let receipt = StreamReceipt::parse(receipt).map_err(|_| Unverified::Receipt(seq))?;
    let log = verified.log.to_string();
    let stream = StreamId {
        log: &log,
        decision: verified.index,
    };
    let now = Timestamp::now();
    keys.into_iter()
        .filter(|key| key.is_valid_at(now))
        .any(|key| {
            let key = key.public_key();
            receipt.verify(key, stream, seq, data.as_bytes()).is_ok()
        })
        .then_some(())
        .ok_or(Unverified::Receipt(seq))
}

/// A field's lines as one, trimmed (RFC 9421 section 2.1).
fn combined<'a>(
    headers: &'a HeaderMap,
    name: &'static str,
) -> Result<Option<Cow<'a, str>>, Unverified> {
    let mut lines = headers.get_all(name).iter().map(|line| {
        let text = line.to_str().map_err(|_| Unverified::Field(name))?;
        Ok::<_, Unverified>(text.trim_matches([' ', '\t']))
    });
    let Some(first) = lines.next() else {
        return Ok(None);
    };
    let mut value = Cow::Borrowed(first?);
    for line in lines {
        let value = value.to_mut();
        value.push_str(", ");
        value.push_str(line?);
    }
    Ok(Some(value))
}

/// The id of the key that a head says it is signed with; empty when it says nothing.
pub(crate) fn key_id_of(headers: &HeaderMap) -> String {
    let input = combined(headers, "signature-input").ok().flatten();
    key_id(&input.unwrap_or_default()).to_owned()
}

/// The `keyid` of a signature's parameters; which key it is decides the signature itself.
fn key_id(input: &str) -> &str {
    let rest = input.split(";keyid=\"").nth(1).unwrap_or_default();
    rest.split('"').next().unwrap_or_default()
}

/// How far the enforcer's clock may be from ours.
const SKEW: Duration = Duration::from_secs(60);
