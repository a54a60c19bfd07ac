//! The agent's companion: stands beside a program that speaks MCP and knows nothing of certificates.
//!
//! [`cli`] is what can be asked. `connect` forwards what a client says, over stdio or a loopback
//! address, to an enforcer over mutual TLS, and passes on nothing that the enforcer did not sign for
//! this very request; the certificate is renewed meanwhile. What is forwarded is the client's own
//! bytes: messages are looked at only as far as their header fields need.

pub mod cli;

mod authority;
mod credentials;
mod door;
mod enforcer;
mod events;
mod fields;
mod holder;
mod install;
mod link;
mod loopback;
mod message;
mod outcome;
mod problem;
mod renewal;
mod signers;
mod stdio;
mod tls;
mod url;
mod verify;
