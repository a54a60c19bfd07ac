//! What a call needs and whether its caller has it: catalogue, paths and the decision.
//!
//! [`Catalogue::compile`] turns declared routes into an index, [`NormalPath::parse`] is the only
//! reading of a request's path, and [`judge`] weighs a caller's rights against a call.
//! For MCP, [`McpCatalogue::compile`] does the same for tools: a tool that is not the one that was
//! pinned, or not what the environment wants, has no [`Standing`].
//! Nothing here does I/O, asks a clock or awaits; the order of the rules that come before (feed,
//! environment, issuance, expiry) is the enforcer's.

mod approval;
mod assessment;
mod call;
mod catalogue;
mod ceiling;
mod decision;
mod definition;
pub mod diff;
mod digest;
pub mod dsse;
pub mod json;
mod mcp;
mod moment;
mod path;
mod permissions;
mod pins;
mod rule;
mod standing;
mod stated;
mod suggest;
#[cfg(test)]
mod testing;
mod tier;
mod tool;

pub use approval::{APPROVAL_TYPE, Action, Approval, StatementError, Subject, VerifiedApproval};
pub use assessment::{ASSESSMENT_TYPE, Assessment, Assessor, Assessors, VerifiedAssessment};
pub use call::{Call, Risk};
pub use catalogue::{
    Catalogue, CatalogueError, CatalogueErrors, MAX_ROUTES, Route, RouteDecl, RouteFault,
    UpstreamDecl,
};
pub use ceiling::{CeilingDecl, ExceptionDecl, Unverified};
pub use decision::{CallerRights, Proof, Restriction, Verdict, allows, judge};
pub use definition::{
    Annotations, DefinitionError, DefinitionScanner, HeaderFault, HeaderKind, HeaderParameter,
    MAX_DEFINITION, ScannedDefinition, ToolDefinition,
};
pub use digest::{digest_text, parse_digest};
pub use mcp::{
    MAX_TOOLS, McpCatalogue, McpError, McpErrors, McpParts, McpServer, McpTable, is_segment,
};
pub use moment::parse_moment;
pub use path::{MAX_PATH, MAX_SEGMENTS, NormalPath, PathRefusal};
pub use permissions::{
    CodeExecution, DataAccess, Filesystem, Network, Permissions, PermissionsDecl, Rise,
};
pub use pins::{Admitted, Approved, Pin, PinsError, PinsFile, Rejection, SCAN, Signers};
pub use rule::Rule;
pub use standing::{Refusal, Standing};
pub use stated::Stated;
pub use suggest::{Suggestion, suggest};
pub use tier::Tier;
pub use tool::{DataFlow, MethodDecl, PinnedDefinition, Tool, ToolDecl};
