//! Black box: the programs as people run them, real sockets, real clients.
#![cfg(test)]

mod commands;
mod crashes;
mod crl_mode;
mod evidence;
mod example;
mod handshakes;
mod mcp_fixture;
mod operators;
mod renewals;
mod requests;
mod rewrites;
mod rollbacks;
mod streams;
mod verdicts;
