//! Black box: the built `agentca`, as people and scripts use it, against an authority of its own.

#![expect(
    clippy::unwrap_used,
    reason = "a harness says what is wrong by stopping the test"
)]

mod agents;
mod enforcers;
mod keys;
mod lab;
mod logs;
mod people;
mod usage;
