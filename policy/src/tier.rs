//! How well a tool was assessed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The tier that a score leads to; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Below 70, or never assessed.
    Unverified,
    /// From 70.
    Verified,
    /// From 90.
    Gold,
}

impl Tier {
    /// The tier of a score from 0 to 100.
    #[must_use]
    pub const fn of_score(score: u8) -> Self {
        match score {
            90.. => Self::Gold,
            70..90 => Self::Verified,
            0..70 => Self::Unverified,
        }
    }

    /// The name in configuration and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::Verified => "verified",
            Self::Gold => "gold",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_begin_where_they_are_said_to() {
        for (score, tier) in [
            (0, Tier::Unverified),
            (69, Tier::Unverified),
            (70, Tier::Verified),
            (89, Tier::Verified),
            (90, Tier::Gold),
            (100, Tier::Gold),
        ] {
            assert_eq!(Tier::of_score(score), tier, "{score}");
        }
        assert!(Tier::Unverified < Tier::Verified && Tier::Verified < Tier::Gold);
    }
}
