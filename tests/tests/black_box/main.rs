//! Black box: the programs as people run them, real sockets, real clients.
#![cfg(test)]

mod commands;
mod crashes;
mod crl_mode;
mod evidence;
mod example;
mod handshakes;
mod held_back;
mod mcp_answers;
mod mcp_bridge;
mod mcp_clients;
mod mcp_evidence;
mod mcp_faces;
mod mcp_fixture;
mod mcp_pins;
mod mcp_sample;
mod mcp_sessions;
mod mcp_shared;
mod mcp_streams;
mod mcp_strictness;
mod mcp_upstreams;
mod operators;
mod rechecks;
mod renewals;
mod requests;
mod rewrites;
mod rollbacks;
mod streams;
mod verdicts;
