//! Certificate signing requests (RFC 2986). Only the public key leaves one, after proof that its
//! private half is in the requester's hands; everything else that a request asks for is ignored.

use thiserror::Error;

use crate::certificate::{assemble, read_algorithm};
use crate::crypto::{CryptoError, PrivateKey, PublicKey};
use crate::der::{NotDer, Reader, Writer, tag};
use crate::pem;

/// Most bytes of a request that are read.
pub const MAX_LEN: usize = 16_384;

/// A request for `key`, with an empty name and no attributes.
pub fn make(key: &PrivateKey) -> Result<Vec<u8>, CsrError> {
    let mut writer = Writer::new();
    writer.sequence(|w| {
        w.integer(0);
        w.sequence(|_| {});
        w.raw(key.public_key().spki_der());
        w.nested(tag::context_constructed(0), |_| {});
    });
    let info = writer.finish();
    let signature = key.sign(&info)?;
    Ok(assemble(&info, key.kind(), &signature))
}

/// The public key of a request that its private half signed.
pub fn read(der: &[u8]) -> Result<PublicKey, CsrError> {
    if der.len() > MAX_LEN {
        return Err(CsrError::TooLarge);
    }
    let Walked {
        info,
        spki,
        algorithm,
        signature,
    } = walk(der).map_err(|NotDer| CsrError::NotDer)?;
    let key = PublicKey::from_spki_der(spki)?;
    let algorithm = Reader::only(tag::OID, algorithm)
        .ok()
        .and_then(read_algorithm);
    if algorithm != Some(key.kind()) {
        return Err(CsrError::Algorithm);
    }
    key.verify(info, signature)
        .map_err(|_| CsrError::Possession)?;
    Ok(key)
}

/// A `CERTIFICATE REQUEST` block.
pub fn to_pem(der: &[u8]) -> String {
    pem::encode(LABEL, der)
}

/// The DER of the one request in `text`; the label may be the old `NEW CERTIFICATE REQUEST`.
pub fn from_pem(text: &str) -> Result<Vec<u8>, CsrError> {
    let label = if pem::first_label(text) == Some(OLD_LABEL) {
        OLD_LABEL
    } else {
        LABEL
    };
    Ok(pem::decode(label, text)?.to_vec())
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CsrError {
    /// More than [`MAX_LEN`] bytes.
    #[error("a certificate request of more than 16384 bytes")]
    TooLarge,
    /// The structure is not that of a request.
    #[error("not the DER of a PKCS#10 certificate request")]
    NotDer,
    /// The signature's algorithm does not go with the key.
    #[error("the request must be signed with ECDSA P-256 SHA-256 or Ed25519, as its key is")]
    Algorithm,
    /// The signature is not the key's own.
    #[error("the request is not signed with the key that it names")]
    Possession,
    /// The key is of another kind, or signing failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The text is not PEM.
    #[error(transparent)]
    Pem(#[from] pem::PemError),
}

const LABEL: &str = "CERTIFICATE REQUEST";
const OLD_LABEL: &str = "NEW CERTIFICATE REQUEST";

struct Walked<'a> {
    info: &'a [u8],
    spki: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

fn walk(der: &[u8]) -> Result<Walked<'_>, NotDer> {
    let mut outer = Reader::new(Reader::only(tag::SEQUENCE, der)?);
    let (info, content) = outer.expect_whole(tag::SEQUENCE)?;
    let mut inner = Reader::new(content);
    if inner.integer()? != 0 {
        return Err(NotDer);
    }
    inner.expect(tag::SEQUENCE)?;
    let (spki, _) = inner.expect_whole(tag::SEQUENCE)?;
    inner.expect(tag::context_constructed(0))?;
    inner.finish()?;
    let algorithm = outer.expect(tag::SEQUENCE)?;
    let signature = outer.bits()?;
    outer.finish()?;
    Ok(Walked {
        info,
        spki,
        algorithm,
        signature,
    })
}
