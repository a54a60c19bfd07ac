//! Who an agent is: names, scopes, trust levels, the certificate profile both ways, and the crypto
//! backend.
//!
//! Everything here is computation: no file, no socket, and no clock but [`time::Timestamp::now`].
//! [`crypto`] alone names a crypto backend (`aws-lc` by default, `ring` as a build feature), and
//! [`certificate`] is the one strict reader that every program uses.

pub mod certificate;
pub mod chain;
pub mod crypto;
pub mod grant;
pub mod name;
pub mod peer;
pub mod pem;
pub mod profile;
pub mod roles;
pub mod scope;
pub mod serial;
pub mod spiffe;
pub mod time;
pub mod trust;

mod der;
#[cfg(test)]
mod testing;
mod text;
