//! An MCP server for the tests.

fn main() {}
