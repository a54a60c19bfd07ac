//! Object identifiers as the content bytes of their DER form.

use crate::profile::Pen;

pub(crate) const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
pub(crate) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

pub(crate) const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
pub(crate) const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];

pub(crate) const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
pub(crate) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
pub(crate) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
pub(crate) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
pub(crate) const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
pub(crate) const REASON_CODE: &[u8] = &[0x55, 0x1d, 0x15];
pub(crate) const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 0x1c];
pub(crate) const CRL_DISTRIBUTION_POINTS: &[u8] = &[0x55, 0x1d, 0x1f];
pub(crate) const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
pub(crate) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];

pub(crate) const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
pub(crate) const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// One of our own extensions, by its last arc under `1.3.6.1.4.1.<PEN>.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Own {
    Scopes,
    Trust,
    Owner,
    Grant,
    Delegation,
    Roles,
}

impl Own {
    pub(crate) const fn arc(self) -> u8 {
        match self {
            Self::Scopes => 1,
            Self::Trust => 2,
            Self::Owner => 3,
            Self::Grant => 4,
            Self::Delegation => 5,
            Self::Roles => 6,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Scopes => "scopes",
            Self::Trust => "trust level",
            Self::Owner => "owner",
            Self::Grant => "grant",
            Self::Delegation => "delegation",
            Self::Roles => "roles",
        }
    }

    /// The content bytes under `pen`.
    pub(crate) fn oid(self, pen: Pen) -> Vec<u8> {
        under(pen, [EXTENSIONS, self.arc()])
    }

    /// The extension and the PEN that an OID names, if it is one of ours.
    pub(crate) fn from_oid(content: &[u8]) -> Option<(Pen, Self)> {
        let (pen, rest) = split(content)?;
        let own = [
            Self::Scopes,
            Self::Trust,
            Self::Owner,
            Self::Grant,
            Self::Delegation,
            Self::Roles,
        ]
        .into_iter()
        .find(|own| rest == [EXTENSIONS, own.arc()])?;
        Some((pen, own))
    }
}

/// The key purpose of log and response signers: `1.3.6.1.4.1.<PEN>.2.1`.
pub(crate) fn signer_purpose(pen: Pen) -> Vec<u8> {
    under(pen, SIGNER)
}

/// The PEN of a signer's key purpose.
pub(crate) fn read_signer_purpose(content: &[u8]) -> Option<Pen> {
    let (pen, rest) = split(content)?;
    (rest == SIGNER).then_some(pen)
}

/// The arcs of one of our own extensions, as rcgen takes them.
pub(crate) fn own_arcs(pen: Pen, own: Own) -> [u64; 9] {
    [
        1,
        3,
        6,
        1,
        4,
        1,
        u64::from(pen.get()),
        u64::from(EXTENSIONS),
        u64::from(own.arc()),
    ]
}

/// The arcs of the signers' key purpose, as rcgen takes them.
pub(crate) fn signer_arcs(pen: Pen) -> [u64; 9] {
    let [purpose, signer] = SIGNER;
    [
        1,
        3,
        6,
        1,
        4,
        1,
        u64::from(pen.get()),
        u64::from(purpose),
        u64::from(signer),
    ]
}

/// Dotted decimal, for messages. Arcs that don't fit are cut short with `…`.
pub(crate) fn dotted(content: &[u8]) -> String {
    let mut arcs: Vec<String> = Vec::new();
    let mut value: u64 = 0;
    for byte in content.iter().take(64) {
        value = value
            .saturating_mul(128)
            .saturating_add(u64::from(byte & 0x7f));
        if byte & 0x80 == 0 {
            if arcs.is_empty() {
                let root = (value / 40).min(2);
                arcs.push(root.to_string());
                arcs.push((value - root * 40).to_string());
            } else {
                arcs.push(value.to_string());
            }
            value = 0;
        }
    }
    if content.len() > 64 {
        arcs.push("…".to_owned());
    }
    arcs.join(".")
}

/// `1.3.6.1.4.1`, private enterprise numbers.
const ENTERPRISE: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01];
const EXTENSIONS: u8 = 1;
const SIGNER: [u8; 2] = [2, 1];

fn under(pen: Pen, arcs: [u8; 2]) -> Vec<u8> {
    let mut content = ENTERPRISE.to_vec();
    let mut shift = 28;
    let mut begun = false;
    loop {
        let [_, _, _, low] = (pen.get() >> shift).to_be_bytes();
        let digit = low & 0x7f;
        begun |= digit != 0;
        if shift == 0 {
            content.push(digit);
            break;
        }
        if begun {
            content.push(digit | 0x80);
        }
        shift -= 7;
    }
    content.extend(arcs);
    content
}

fn split(content: &[u8]) -> Option<(Pen, &[u8])> {
    let mut rest = content.strip_prefix(ENTERPRISE)?;
    if rest.first() == Some(&0x80) {
        return None;
    }
    let mut value: u32 = 0;
    loop {
        let (byte, after) = rest.split_first()?;
        value = value
            .checked_mul(128)?
            .checked_add(u32::from(byte & 0x7f))?;
        rest = after;
        if byte & 0x80 == 0 {
            return Some((Pen::new(value).ok()?, rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_oids_round_trip() {
        for number in [1, 127, 128, 16_383, 16_384, 32_473, u32::MAX] {
            let pen = Pen::new(number).unwrap();
            assert_eq!(Own::from_oid(&Own::Owner.oid(pen)), Some((pen, Own::Owner)));
            assert_eq!(read_signer_purpose(&signer_purpose(pen)), Some(pen));
            assert_eq!(
                dotted(&Own::Roles.oid(pen)),
                format!("1.3.6.1.4.1.{number}.1.6")
            );
            assert_eq!(
                dotted(&signer_purpose(pen)),
                format!("1.3.6.1.4.1.{number}.2.1")
            );
        }
    }

    #[test]
    fn other_oids_are_not_ours() {
        let good = Own::Scopes.oid(Pen::DOCUMENTATION);
        for length in 0..good.len() {
            assert_eq!(Own::from_oid(&good[..length]), None);
        }
        // A leading zero digit, an arc that is too long, a seventh extension.
        assert_eq!(Own::from_oid(&[0x2b, 6, 1, 4, 1, 0x80, 0x01, 1, 1]), None);
        assert_eq!(
            Own::from_oid(&[0x2b, 6, 1, 4, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 1]),
            None
        );
        assert_eq!(Own::from_oid(&[0x2b, 6, 1, 4, 1, 1, 1, 7]), None);
        assert_eq!(dotted(KEY_USAGE), "2.5.29.15");
    }
}
