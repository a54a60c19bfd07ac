//! The enforcing proxy: in front of HTTP servers, it decides every request, signs every answer and
//! records both.
//!
//! The control plane ([`run`] assembles it) learns what is in force: [`config`], [`credentials`], the
//! status feed or CRLs that fill the [`status::Registry`], the witness of the log. The data plane
//! ([`server`]) serves from it, and from a [`live::Live`] that a reload swaps whole.

pub mod approvals;
mod catalogue_log;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod floor;
pub mod journal;
pub mod live;
pub mod mcp_client;
pub mod ops;
pub mod run;
pub mod scan;
pub mod server;
pub mod setting;
pub mod status;
pub mod stdio;

mod answer;
mod authorities;
mod body;
mod connection;
mod crl;
mod descriptors;
mod disclosures;
mod durable;
mod feed;
mod fields;
mod forward;
mod gate;
mod handshake_log;
mod head;
mod head_scan;
mod jsonrpc;
mod listener;
mod mcp;
mod outcomes;
mod outflow;
mod peer;
mod record;
mod reload;
mod resets;
mod road;
mod service;
mod session;
mod shares;
mod slots;
mod stream;
mod timers;
mod tls;
mod upstream;
mod well_known;
mod witness;
mod worker;

pub use mcp::{Asked, ServerReader, message_method};

#[cfg(test)]
mod testing;
