//! Trust levels: how much is known about an agent.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::text::serde_as_text;

/// How much is known about an agent, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrustLevel {
    /// Unverified.
    L0,
    /// Identified.
    L1,
    /// Verified.
    L2,
    /// Scanned.
    L3,
    /// Audited.
    L4,
}

impl TrustLevel {
    /// Every level, lowest first.
    pub const ALL: [Self; 5] = [Self::L0, Self::L1, Self::L2, Self::L3, Self::L4];

    /// `L0` to `L4`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::L0 => "L0",
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::L4 => "L4",
        }
    }
}

impl fmt::Display for TrustLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TrustLevel {
    type Err = TrustLevelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or(TrustLevelError)
    }
}

impl TryFrom<u8> for TrustLevel {
    type Error = TrustLevelError;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Self::ALL
            .get(usize::from(number))
            .copied()
            .ok_or(TrustLevelError)
    }
}

impl From<TrustLevel> for u8 {
    fn from(level: TrustLevel) -> Self {
        match level {
            TrustLevel::L0 => 0,
            TrustLevel::L1 => 1,
            TrustLevel::L2 => 2,
            TrustLevel::L3 => 3,
            TrustLevel::L4 => 4,
        }
    }
}

serde_as_text!(TrustLevel);

/// A value is not a trust level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a trust level, use L0, L1, L2, L3 or L4")]
pub struct TrustLevelError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_order() {
        for (number, level) in (0_u8..).zip(TrustLevel::ALL) {
            assert_eq!(TrustLevel::try_from(number), Ok(level));
            assert_eq!(u8::from(level), number);
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert!(TrustLevel::ALL.is_sorted());
        assert_eq!(TrustLevel::try_from(5), Err(TrustLevelError));
        for text in ["l2", "2", "L5", "", "L2 "] {
            assert_eq!(text.parse::<TrustLevel>(), Err(TrustLevelError));
        }
    }
}
