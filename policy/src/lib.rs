//! What a call needs and whether its caller has it: catalogue, paths and the decision.
//!
//! [`Catalogue::compile`] turns declared routes into an index, [`NormalPath::parse`] is the only
//! reading of a request's path, and [`judge`] weighs a caller's rights against a call.
//! Nothing here does I/O, asks a clock or awaits; the order of the rules that come before (feed,
//! environment, issuance, expiry) is the enforcer's.

mod call;
mod catalogue;
mod decision;
pub mod json;
mod path;
mod rule;

pub use call::{Call, Risk};
pub use catalogue::{
    Catalogue, CatalogueError, CatalogueErrors, MAX_ROUTES, Route, RouteDecl, RouteFault,
    UpstreamDecl,
};
pub use decision::{CallerRights, Proof, Restriction, Verdict, judge};
pub use path::{MAX_PATH, MAX_SEGMENTS, NormalPath, PathRefusal};
pub use rule::Rule;
