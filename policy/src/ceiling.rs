//! What an environment wants of tools, and who is excepted until when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agentca_identity::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::permissions::{Permissions, PermissionsDecl};
use crate::tier::Tier;

/// `[ceiling]` as it is written: what is absent has no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CeilingDecl {
    /// The most that a tool may reach.
    pub permissions: PermissionsDecl,
    /// The least tier.
    pub min_tier: Option<Tier>,
    /// How old the assessment may be.
    pub max_age: Option<Duration>,
    /// What becomes of a tool without what is wanted.
    pub unverified: Unverified,
}

/// What becomes of a tool that lacks an assessment or a review.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unverified {
    /// It is denied.
    #[default]
    Deny,
    /// It is called, and the record says so; in the environment `dev` alone.
    Mark,
}

/// What an environment wants of tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ceiling {
    pub(crate) most: Permissions,
    /// What a tool's undeclared permissions count as.
    pub(crate) undeclared: Permissions,
    pub(crate) min_tier: Option<Tier>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) unverified: Unverified,
}

impl Ceiling {
    /// With a ceiling, what nobody declared is over it; without one it is not asked for.
    pub(crate) fn of(decl: Option<&CeilingDecl>) -> Self {
        match decl {
            None => Self {
                most: Permissions::MOST,
                undeclared: Permissions::NONE,
                min_tier: None,
                max_age: None,
                unverified: Unverified::Deny,
            },
            Some(CeilingDecl {
                permissions,
                min_tier,
                max_age,
                unverified,
            }) => Self {
                most: permissions.or(Permissions::MOST),
                undeclared: Permissions::MOST,
                min_tier: *min_tier,
                max_age: *max_age,
                unverified: *unverified,
            },
        }
    }
}

impl Ceiling {
    /// What of these permissions is above it, in words; none when nothing is.
    pub(crate) fn exceeded_by(&self, permissions: &Permissions) -> Option<String> {
        let above = permissions.rises_over(&self.most);
        let above: Vec<String> = above.iter().map(ToString::to_string).collect();
        (!above.is_empty()).then(|| format!("is above the ceiling: {}", above.join(", ")))
    }
}

/// `[[exception]]`: a tool or route that may be called although the ceiling says no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExceptionDecl {
    /// Its upstream.
    pub upstream: String,
    /// The tool; or else a route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The path of a route, as it is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Who answers for it.
    pub owner: String,
    /// Why it is needed.
    pub justification: String,
    /// What is done instead.
    pub compensating_control: String,
    /// When it is over.
    #[serde(deserialize_with = "crate::moment::read")]
    pub ends: Timestamp,
}

/// The last end of the exceptions of each tool, by upstream and tool.
pub(crate) type Exceptions<'a> = BTreeMap<(&'a str, &'a str), Arc<ExceptionDecl>>;
