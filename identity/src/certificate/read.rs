//! DER to facts. x509-parser walks the outer structure; everything the profile gives a meaning to
//! is read here, encoded again, and compared.

use thiserror::Error;
use x509_parser::certificate::{TbsCertificate, TbsCertificateParser, X509CertificateParser};
use x509_parser::nom::Parser as _;
use x509_parser::x509::{AlgorithmIdentifier, X509Version};

use super::extensions::Extensions;
use super::subject::CrlUri;
use super::{Certificate, Facts, MAX_LEN, encode};
use crate::crypto::{KeyKind, PublicKey};
use crate::der::{NotDer, Reader, tag};
use crate::profile::oid;
use crate::serial::Serial;
use crate::time::Timestamp;

pub(super) fn certificate(der: &[u8]) -> Result<Certificate, ReadError> {
    if der.len() > MAX_LEN {
        return Err(ReadError::TooLarge);
    }
    let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
    let (rest, x509) = parser.parse(der).map_err(|_| ReadError::NotDer)?;
    if !rest.is_empty() {
        return Err(ReadError::TrailingData);
    }
    let facts = tbs_facts(&x509.tbs_certificate)?;
    let signature = x509.signature_value.data.to_vec();
    if encode::assemble(x509.tbs_certificate.as_ref(), facts.signed_with, &signature) != der {
        return Err(ReadError::NotCanonical);
    }
    let content = Reader::only(tag::SEQUENCE, der).map_err(|_| ReadError::NotDer)?;
    let start = der.len() - content.len();
    let tbs = start..start + x509.tbs_certificate.as_ref().len();
    Ok(Certificate {
        fingerprint: super::fingerprint(der),
        der: der.to_vec(),
        facts,
        tbs,
        signature,
    })
}

pub(super) fn facts(tbs: &[u8]) -> Result<Facts, ReadError> {
    if tbs.len() > MAX_LEN {
        return Err(ReadError::TooLarge);
    }
    let mut parser = TbsCertificateParser::new().with_deep_parse_extensions(false);
    let (rest, parsed) = parser.parse(tbs).map_err(|_| ReadError::NotDer)?;
    if !rest.is_empty() {
        return Err(ReadError::TrailingData);
    }
    tbs_facts(&parsed)
}

/// The kind of key that an AlgorithmIdentifier means.
pub(crate) fn read_algorithm(content: &[u8]) -> Option<KeyKind> {
    match content {
        oid::ECDSA_WITH_SHA256 => Some(KeyKind::P256),
        oid::ED25519 => Some(KeyKind::Ed25519),
        _ => None,
    }
}

/// The URI of a DistributionPointName that holds exactly one.
pub(crate) fn read_crl_point(point: &mut Reader<'_>) -> Result<CrlUri, NotDer> {
    let mut names = point
        .nested(tag::context_constructed(0))?
        .nested(tag::context_constructed(0))?;
    let uri = std::str::from_utf8(names.expect(tag::context(6))?).map_err(|_| NotDer)?;
    names.finish()?;
    uri.parse().map_err(|_| NotDer)
}

/// Why bytes are not a certificate of the profile.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// More than [`MAX_LEN`] bytes.
    #[error("a certificate of more than 65535 bytes")]
    TooLarge,
    /// The structure is not that of a certificate.
    #[error("not the DER of an X.509 certificate")]
    NotDer,
    /// Something follows the certificate.
    #[error("bytes follow the certificate")]
    TrailingData,
    /// Not version 3.
    #[error("not an X.509 version 3 certificate")]
    Version,
    /// The serial number is not 16 positive bytes.
    #[error("the serial number is not 16 bytes, positive")]
    Serial,
    /// Signed with another algorithm.
    #[error("signed with neither ECDSA P-256 SHA-256 nor Ed25519")]
    Algorithm,
    /// The key is of another kind.
    #[error("the public key is neither on P-256 (uncompressed) nor Ed25519")]
    PublicKey,
    /// It is never valid.
    #[error("notAfter is before notBefore")]
    Validity,
    /// An unknown critical extension (RFC 5280 section 4.2 wants the refusal).
    #[error("unknown critical extension {0}")]
    UnknownCritical(String),
    /// An unknown extension.
    #[error("extension {0} is not part of the profile")]
    Unknown(String),
    /// An extension that occurs twice.
    #[error("extension {0} occurs twice")]
    Duplicate(String),
    /// An extension that must be there.
    #[error("the extension `{0}` is missing")]
    Missing(&'static str),
    /// An extension that this kind of certificate does not have.
    #[error("the extension `{0}` does not belong there")]
    Unexpected(&'static str),
    /// An extension with another value than the profile's.
    #[error("the extension `{0}` does not hold what the profile wants")]
    Value(&'static str),
    /// Extensions or key purposes name two PENs.
    #[error("two different private enterprise numbers are named")]
    TwoPens,
    /// Not exactly one URI.
    #[error("the subject has {0} URIs, not one")]
    UriCount(usize),
    /// The URI is no id of ours.
    #[error("the subject's URI is not one of this system's SPIFFE ids")]
    Uri,
    /// The distinguished name of a CA is not the profile's.
    #[error("the name of the CA is not one that this system gives")]
    CaName,
    /// Another form of the same facts, or a name that repeats them wrongly.
    #[error("not in the one form that this system writes")]
    NotCanonical,
}

fn tbs_facts(tbs: &TbsCertificate<'_>) -> Result<Facts, ReadError> {
    if tbs.version != X509Version::V3 {
        return Err(ReadError::Version);
    }
    let extensions = Extensions::collect(tbs)?;
    let (subject, pen) = extensions.subject(tbs)?;
    extensions.check_fixed(&subject, pen)?;
    let facts = Facts {
        serial: Serial::try_from(tbs.raw_serial()).map_err(|_| ReadError::Serial)?,
        signed_with: algorithm(&tbs.signature)?,
        not_before: Timestamp::from_secs(tbs.validity.not_before.timestamp()),
        not_after: Timestamp::from_secs(tbs.validity.not_after.timestamp()),
        public_key: PublicKey::from_spki_der(tbs.subject_pki.raw)
            .map_err(|_| ReadError::PublicKey)?,
        authority_key_id: extensions.authority_key_id(&subject)?,
        crl_uri: extensions.crl_uri(&subject)?,
        pen,
        subject,
    };
    if facts.not_after < facts.not_before {
        return Err(ReadError::Validity);
    }
    // Version, names, order, criticality, defaults, lengths: whatever was not looked at above.
    if facts.encode() != tbs.as_ref() {
        return Err(ReadError::NotCanonical);
    }
    Ok(facts)
}

fn algorithm(identifier: &AlgorithmIdentifier<'_>) -> Result<KeyKind, ReadError> {
    read_algorithm(identifier.algorithm.as_bytes()).ok_or(ReadError::Algorithm)
}
