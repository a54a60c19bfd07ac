//! The harness of the black-box tests: a trust domain in a folder of its own, with the programs as processes,
//! a sample upstream that remembers what it saw, and clients that share no code with ours.
//!
//! The programs are taken from beside the test's own executable, so build them first, as `tests/run` does:
//! `cargo build --profile ci --workspace --all-targets`. Every lab has a loopback address of its own (127.x.y.z),
//! so tests run side by side on the usual ports and none depends on a port being free.
//!
//! Nothing here sleeps in the hope that something has happened: [`wait::until`] asks, and fails when the answer
//! does not come. A harness that cannot do what it is asked stops the test and says why.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test harness says what is wrong by stopping the test"
)]

pub mod clients;
pub mod clock;
pub mod curl;
pub mod fuzz_targets;
pub mod lab;
pub mod log;
pub mod mcp;
pub mod program;
pub mod tls;
pub mod upstream;
pub mod wait;
