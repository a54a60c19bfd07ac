//! The bridge from outside: the program itself, between a client and an enforcer that is a fake, but for
//! its TLS, its certificates and its signatures.
#![cfg(test)]

mod check;
mod descriptors;
mod fake;
mod hostility;
mod install;
mod loopback;
mod pki;
mod program;
mod renewal;
mod stdio;
