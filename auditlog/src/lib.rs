//! Evidence a stranger can check: records, the Merkle log that keeps them, its signed heads and
//! proofs, receipts and response signatures, and the offline verifier.
//!
//! Formats are those of C2SP (tlog-tiles, tlog-checkpoint, signed-note, tlog-cosignature,
//! tlog-proof) and RFC 8785, 9421, 9530, so that verifiers that are not ours accept them.

pub mod checkpoint;
pub mod decision;
pub mod disclosure;
pub mod frame;
pub mod heartbeat;
pub mod log;
pub mod merkle;
pub mod note;
pub mod proof;
pub mod receipt;
pub mod record;
pub mod response;
pub mod sse;
pub mod status;
pub mod store;
pub mod verify;

#[cfg(test)]
mod testing;
