//! A tool of the catalogue: what is declared, and what was compiled from it.

use std::sync::Arc;
use std::time::Duration;

use agentca_identity::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::call::{Call, Risk};
use crate::ceiling::{ExceptionDecl, Unverified};
use crate::definition::HeaderParameter;
use crate::permissions::{Permissions, PermissionsDecl};
use crate::tier::Tier;

/// `[[tool]]` as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolDecl {
    /// The name of an upstream of `kind = "mcp"`.
    pub upstream: String,
    /// The tool's name there.
    pub name: String,
    /// The scope a caller needs; `mcp:<upstream>:<name>` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The least trust level, `L0` to `L4`.
    pub min_trust: String,
    /// What a call can do at worst.
    pub risk: Risk,
    /// Why it is of that class; free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk_reason: Option<String>,
    /// The data's classification, recorded with each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    /// Who makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it may reach.
    #[serde(default, skip_serializing_if = "PermissionsDecl::is_empty")]
    pub permissions: PermissionsDecl,
    /// Where its data goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_flow: Option<DataFlow>,
}

/// Where a tool's data goes: for people, nothing follows from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFlow {
    /// What it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// What is done with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processing: Option<String>,
    /// Where it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Whether it is logged there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logged: Option<bool>,
    /// How long it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<String>,
    /// Who else has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subprocessor: Option<String>,
}

/// `[[method]]` as it is written: an MCP method that agents may call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodDecl {
    /// The name of an upstream of `kind = "mcp"`.
    pub upstream: String,
    /// The method, like `resources/read`.
    pub name: String,
    /// The scope a caller needs; `mcp:<upstream>:resources:read` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The least trust level, `L0` to `L4`.
    pub min_trust: String,
    /// What a call can do at worst.
    pub risk: Risk,
    /// The data's classification, recorded with each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
}

/// A tool that may be called, as far as it stands (see [`Tool::standing`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// What is decided.
    pub call: Arc<Call>,
    /// Its name at the upstream.
    pub name: Arc<str>,
    /// Its version.
    pub version: Option<Arc<str>>,
    /// Who makes it.
    pub publisher: Option<Arc<str>>,
    /// Why it is of its risk class.
    pub risk_reason: Option<Arc<str>>,
    /// What it may reach.
    pub permissions: Permissions,
    /// Where its data goes.
    pub data_flow: Option<Arc<DataFlow>>,
    /// The definition that was approved.
    pub pinned: Option<Arc<PinnedDefinition>>,
    /// What was settled when the catalogue was compiled; only time and what is seen are missing.
    pub(crate) wants: Wants,
}

/// An approved definition, as far as calls need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedDefinition {
    /// Its digest.
    pub digest: [u8; 32],
    /// The digest of its arguments' schema.
    pub schema_in: Option<[u8; 32]>,
    /// The digest of its results' schema.
    pub schema_out: Option<[u8; 32]>,
    /// Arguments that are repeated in headers.
    pub headers: Vec<HeaderParameter>,
    /// The names of arguments at the schema's top level, in order of their UTF-16, as records have them.
    pub arguments: Vec<Box<str>>,
    /// `scan`, or the person's SPIFFE id.
    pub approved_by: String,
    /// When it was approved.
    pub approved_at: Timestamp,
}

impl PinnedDefinition {
    /// Which approval it is: of which digest, and when.
    #[must_use]
    pub fn approval(&self) -> ([u8; 32], Timestamp) {
        (self.digest, self.approved_at)
    }
}

/// What an environment wants of a tool, and what of it there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    /// What was rejected by a person.
    pub(crate) rejected: Vec<[u8; 32]>,
    /// What is over the ceiling, in words.
    pub(crate) above_ceiling: Option<String>,
    /// Why a manual review is wanted and was not recorded.
    pub(crate) review_missing: Option<&'static str>,
    pub(crate) min_tier: Option<Tier>,
    pub(crate) max_age: Option<Duration>,
    /// Each assessor's newest assessment of the pinned definition.
    pub(crate) assessed: Vec<Assessed>,
    pub(crate) unverified: Unverified,
    pub(crate) exception: Option<Arc<ExceptionDecl>>,
}

/// One assessment, as far as decisions need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Assessed {
    pub(crate) at: Timestamp,
    pub(crate) tier: Tier,
}
