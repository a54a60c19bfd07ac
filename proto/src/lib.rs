//! The gRPC wire types between the authority, its clients and the enforcers, and nothing else.
//!
//! `src/generated/` is made from `agentca.proto` and committed, so that no build needs `protoc`;
//! the test `generated` makes it again and compares. After a change to the `.proto`, run
//! `AGENTCA_REGENERATE=1 cargo test -p agentca-proto`.

#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
#[rustfmt::skip]
#[path = "generated/agentca.v1.rs"]
mod generated;

pub use generated::*;
