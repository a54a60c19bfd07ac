//! Why a certificate was revoked (RFC 5280 section 5.3.1).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::text::serde_as_text;

/// Why a certificate was revoked. `removeFromCRL` is left out: it is for delta CRLs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RevocationReason {
    /// No reason given.
    #[default]
    Unspecified,
    /// The key is or may be in other hands.
    KeyCompromise,
    /// The CA's key is or may be in other hands.
    CaCompromise,
    /// What the certificate says about its subject changed.
    AffiliationChanged,
    /// Another certificate took its place.
    Superseded,
    /// It is no longer needed.
    CessationOfOperation,
    /// On hold; it may come back.
    CertificateHold,
    /// A right was withdrawn.
    PrivilegeWithdrawn,
    /// What vouched for the attributes is or may be in other hands.
    AaCompromise,
}

impl RevocationReason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::CertificateHold,
        Self::PrivilegeWithdrawn,
        Self::AaCompromise,
    ];

    /// The number in a CRL.
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::CertificateHold => 6,
            Self::PrivilegeWithdrawn => 9,
            Self::AaCompromise => 10,
        }
    }

    /// The reason with this number.
    pub fn from_code(code: u8) -> Result<Self, RevocationReasonError> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.code() == code)
            .ok_or(RevocationReasonError)
    }

    /// `key-compromise`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key-compromise",
            Self::CaCompromise => "ca-compromise",
            Self::AffiliationChanged => "affiliation-changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation-of-operation",
            Self::CertificateHold => "certificate-hold",
            Self::PrivilegeWithdrawn => "privilege-withdrawn",
            Self::AaCompromise => "aa-compromise",
        }
    }

    /// `keyCompromise`, as the RFC spells it.
    const fn rfc_name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "cACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::CertificateHold => "certificateHold",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
            Self::AaCompromise => "aACompromise",
        }
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RevocationReason {
    type Err = RevocationReasonError;

    /// Takes `key-compromise` and `keyCompromise`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|reason| {
                let camel = reason.rfc_name();
                text == reason.as_str() || text == camel || matches_ca(text, camel)
            })
            .ok_or(RevocationReasonError)
    }
}

serde_as_text!(RevocationReason);

/// A text or number is not a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "not a revocation reason, use unspecified, key-compromise, ca-compromise, affiliation-changed, \
     superseded, cessation-of-operation, certificate-hold, privilege-withdrawn or aa-compromise"
)]
pub struct RevocationReasonError;

/// `caCompromise` for the RFC's odd `cACompromise`.
fn matches_ca(text: &str, camel: &str) -> bool {
    camel.get(1..3) == Some("AC") && text.eq_ignore_ascii_case(camel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_and_codes() {
        for reason in RevocationReason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
            assert_eq!(reason.rfc_name().parse(), Ok(reason));
            assert_eq!(RevocationReason::from_code(reason.code()), Ok(reason));
        }
        assert_eq!("caCompromise".parse(), Ok(RevocationReason::CaCompromise));
        for wrong in [
            "",
            "KeyCompromise",
            "key_compromise",
            "removeFromCRL",
            "keycompromise",
        ] {
            assert_eq!(
                wrong.parse::<RevocationReason>(),
                Err(RevocationReasonError),
                "{wrong}"
            );
        }
        for wrong in [7, 8, 11, 255] {
            assert_eq!(
                RevocationReason::from_code(wrong),
                Err(RevocationReasonError)
            );
        }
    }
}
