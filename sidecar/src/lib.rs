//! The agent's companion: gives a plain MCP client its credential and checks what an enforcer signed.
