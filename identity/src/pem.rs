//! PEM (RFC 7468): the text form of certificates and keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use zeroize::Zeroizing;

/// Certificates one after another, leaf first when they are a chain.
pub fn encode_certs<C: AsRef<[u8]>>(certificates: impl IntoIterator<Item = C>) -> String {
    certificates
        .into_iter()
        .map(|der| encode(CERTIFICATE, der.as_ref()))
        .collect()
}

/// The DER of every certificate in `text`, in order, at least one. Text between blocks is skipped,
/// as RFC 7468 section 2 has it; other kinds of blocks are refused.
pub fn decode_certs(text: &str) -> Result<Vec<Vec<u8>>, PemError> {
    let mut certificates = Vec::new();
    let mut rest = text;
    while let Some((label, der, after)) = next_block(rest)? {
        if label != CERTIFICATE {
            return Err(PemError::Label(CERTIFICATE));
        }
        certificates.push(der.to_vec());
        rest = after;
    }
    if certificates.is_empty() {
        Err(PemError::Missing(CERTIFICATE))
    } else {
        Ok(certificates)
    }
}

/// One block with lines of 64 characters.
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Sized up front: a private key's text must not be left behind by a growing buffer.
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40);
    text.push_str(&format!("{BEGIN}{label}{DASHES}\n"));
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("{END}{label}{DASHES}\n"));
    text
}

/// The one block in `text`, which must have this label.
pub fn decode(label: &'static str, text: &str) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let (found, der, after) = next_block(text)?.ok_or(PemError::Missing(label))?;
    if found != label {
        return Err(PemError::Label(label));
    }
    if next_block(after)?.is_some() {
        return Err(PemError::Several);
    }
    Ok(der)
}

/// The label of the first block, if there is one.
pub fn first_label(text: &str) -> Option<&str> {
    let (_, after) = text.split_once(BEGIN)?;
    after.split_once(DASHES).map(|(label, _)| label)
}

/// Why a text is not the PEM that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PemError {
    /// There is no such block.
    #[error("no `{0}` block found, is this a PEM file")]
    Missing(&'static str),
    /// A block has another label.
    #[error("a PEM block is not a `{0}`")]
    Label(&'static str),
    /// There is more than one block.
    #[error("more than one PEM block where one is expected")]
    Several,
    /// A block's lines are damaged.
    #[error("a PEM block is damaged or cut off")]
    Damaged,
}

const CERTIFICATE: &str = "CERTIFICATE";
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

type Block<'a> = (&'a str, Zeroizing<Vec<u8>>, &'a str);

fn next_block(text: &str) -> Result<Option<Block<'_>>, PemError> {
    let Some((_, after)) = text.split_once(BEGIN) else {
        return Ok(None);
    };
    let (label, after) = after.split_once(DASHES).ok_or(PemError::Damaged)?;
    let (body, after) = after.split_once(END).ok_or(PemError::Damaged)?;
    let after = after
        .strip_prefix(label)
        .and_then(|after| after.strip_prefix(DASHES))
        .ok_or(PemError::Damaged)?;
    let mut digits = Zeroizing::new(Vec::with_capacity(body.len()));
    digits.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let der = STANDARD.decode(&*digits).map_err(|_| PemError::Damaged)?;
    Ok(Some((label, Zeroizing::new(der), after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for length in [0_u8, 1, 47, 48, 49, 200] {
            let der: Vec<u8> = (0..length).collect();
            assert_eq!(
                decode_certs(&encode_certs([&der, &der])).unwrap(),
                [der.clone(), der]
            );
        }
    }

    #[test]
    fn damage_is_refused() {
        let good = encode_certs([[1, 2, 3]]);
        assert_eq!(decode_certs(""), Err(PemError::Missing(CERTIFICATE)));
        assert_eq!(
            decode_certs(&good.replace("AQID", "AQ!D")),
            Err(PemError::Damaged)
        );
        assert_eq!(
            decode_certs(&good.replace("END CERT", "END KEY")),
            Err(PemError::Damaged)
        );
        assert_eq!(
            decode_certs(good.split_once("-----END").unwrap().0),
            Err(PemError::Damaged)
        );
        let key = encode("PRIVATE KEY", &[1]);
        assert_eq!(decode_certs(&key), Err(PemError::Label(CERTIFICATE)));
        assert_eq!(
            decode("PRIVATE KEY", &key.repeat(2)),
            Err(PemError::Several)
        );
        assert_eq!(first_label(&key), Some("PRIVATE KEY"));
        assert!(decode_certs(&format!("comment\r\n{}", good.replace('\n', "\r\n"))).is_ok());
    }
}
