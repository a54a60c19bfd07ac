//! The certificate profile as its issuer sees it: templates, issuing, CRLs and CSRs.
//!
//! There is one road from a wish to a certificate: a [`Template`] says what is wanted,
//! [`Issuer::prepare`] has rcgen build the bytes to be signed and judges them with the same strict
//! reader that every program uses, and [`Prepared::sign`] consumes the result.

pub mod crl;
pub mod csr;
mod issuer;
pub(crate) mod oid;
mod reason;
mod template;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use issuer::{Issuer, Prepared, ProfileError, create_root, judge};
pub use reason::{RevocationReason, RevocationReasonError};
pub use template::{Template, Validity};

/// How long certificates last unless asked otherwise.
pub mod lifetime {
    use super::Duration;

    const DAY: u64 = 86_400;

    /// One hour.
    pub const AGENT: Duration = Duration::from_secs(3_600);
    /// 30 days.
    pub const PERSON: Duration = Duration::from_secs(30 * DAY);
    /// 30 days.
    pub const ENFORCER: Duration = Duration::from_secs(30 * DAY);
    /// 30 days, as for enforcers: the authority renews its own.
    pub const AUTHORITY: Duration = Duration::from_secs(30 * DAY);
    /// 90 days, for log and response signers.
    pub const SIGNER: Duration = Duration::from_secs(90 * DAY);
    /// One year, for the issuing CA and the signer CA.
    pub const ISSUING_CA: Duration = Duration::from_secs(365 * DAY);
    /// Ten years.
    pub const ROOT: Duration = Duration::from_secs(3_650 * DAY);
}

/// How far `notBefore` lies in the past, for clocks that are slow.
pub const BACKDATE: Duration = Duration::from_secs(60);

/// A private enterprise number (IANA), under which our extensions and key purpose lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Pen(u32);

impl Pen {
    /// 32473, reserved for documentation (RFC 5612): the default, and not for production.
    pub const DOCUMENTATION: Self = Self(32_473);

    /// From the number, which is at least 1.
    pub const fn new(number: u32) -> Result<Self, PenError> {
        if number == 0 {
            Err(PenError)
        } else {
            Ok(Self(number))
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether it is the number reserved for documentation.
    pub fn is_documentation(self) -> bool {
        self == Self::DOCUMENTATION
    }
}

impl Default for Pen {
    fn default() -> Self {
        Self::DOCUMENTATION
    }
}

impl fmt::Display for Pen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Pen {
    type Err = PenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text.parse().map_err(|_| PenError)?)
    }
}

impl TryFrom<u32> for Pen {
    type Error = PenError;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        Self::new(number)
    }
}

impl From<Pen> for u32 {
    fn from(pen: Pen) -> Self {
        pen.0
    }
}

/// A number is not a private enterprise number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a private enterprise number, use the one that IANA gave you")]
pub struct PenError;
