//! `agentca-sidecar`.

fn main() {}
