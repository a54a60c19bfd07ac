//! What is decided: one call, whatever protocol it came by, and what it needs.

use std::fmt;
use std::sync::Arc;

use agentca_identity::scope::RequiredScope;
use agentca_identity::trust::TrustLevel;
use serde::{Deserialize, Serialize};

/// A call of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// `http:<upstream>:<template>` or `mcp:<upstream>:<tool>`: its name in records.
    pub name: String,
    /// The scope a caller needs.
    pub scope: RequiredScope,
    /// The least trust level.
    pub min_trust: TrustLevel,
    /// What it can do at worst.
    pub risk: Risk,
    /// The data's classification.
    pub classification: Option<String>,
}

/// What a call can do at worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Changes nothing.
    Read,
    /// Changes something.
    Write,
    /// Removes something.
    Destructive,
    /// Runs something.
    Execute,
    /// Moves money.
    Financial,
}

impl Risk {
    /// The name in configuration and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
            Self::Execute => "execute",
            Self::Financial => "financial",
        }
    }

    /// Whether the decision's record must be durable before the upstream sees a byte: always,
    /// unless the call only reads (promise 3 of ARCHITECTURE.md).
    #[must_use]
    pub const fn recorded_before_forwarding(self) -> bool {
        !matches!(self, Self::Read)
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
