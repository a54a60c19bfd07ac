//! The authority: registers, issues, renews, restricts and revokes agents, keeps the log, and serves
//! what enforcers must know.
//!
//! [`init`] makes one, [`serve`] runs it. Every change goes through [`authority::sequencer`]: decided
//! on the state that includes everything staged, durable in the log before anybody hears of it.

pub mod authority;
pub mod cli;
pub mod config;
pub mod crl;
pub mod feed;
pub mod files;
pub mod grpc;
pub mod http;
pub mod init;
pub mod keys;
pub mod line;
pub mod metrics;
pub mod mint;
pub mod pace;
pub mod recover;
pub mod renewal;
pub mod room;
pub mod rotation;
pub mod serve;
pub mod service;
pub mod tls;
pub mod witness;

mod coalesce;
mod paced;
#[cfg(test)]
mod testing;

// What only the command line needs.
mod client;
mod credentials;
mod enrol;
mod fetch;
mod inspect;
mod logcmd;
mod output;
mod renew;
mod staging;
mod verified;
