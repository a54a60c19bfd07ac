//! The authority in this process, asked over real loopback sockets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a harness says what is wrong by stopping the test"
)]

mod feed;
mod http;
mod limits;
mod restart;
mod services;
mod support;
mod witness;
