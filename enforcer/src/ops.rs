//! What operators see: `/metrics`, `/healthz` and `/readyz`, on a port of their own.
//!
//! Serving threads count into places that only they write (`counters`); a scrape adds them up, on the
//! control plane's runtime. No agent is ever named, and every label's values come from the configuration or from a
//! list in the source.

mod counters;
mod health;
mod http;
mod kinds;
mod metrics;
mod tally;

use std::fmt;
use std::sync::Arc;

use agentca_auditlog::log::Log;
use agentca_identity::time::Timestamp;

pub use self::counters::Board;
pub(crate) use self::counters::{Counters, Decided, Finished, Measured, RunningStream, ToolCounts};
pub use self::http::serve;
pub(crate) use self::kinds::{Failure, McpKind};
use crate::status::Registry;

/// Where the answers come from.
pub struct Ops {
    /// What was counted.
    pub board: Arc<Board>,
    /// What is known of status.
    pub registry: Arc<Registry>,
    /// This enforcer's log.
    pub log: Arc<Log>,
    /// The certificates it serves and signs with, by what they are for, and when they end.
    pub certificates: Certificates,
    /// What its servers that are programs did.
    pub programs: Programs,
}

/// Gives what happened to each upstream's processes.
pub type Programs = Box<dyn Fn() -> Vec<ProgramCounts> + Send + Sync>;

/// What happened to one upstream's processes since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramCounts {
    /// The upstream.
    pub upstream: Arc<str>,
    /// How many there are now.
    pub alive: usize,
    /// By what happened.
    pub events: [(&'static str, u64); 5],
}

/// Gives each certificate's use and end.
pub type Certificates = Box<dyn Fn() -> Vec<(&'static str, Timestamp)> + Send + Sync>;

impl fmt::Debug for Ops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ops").finish_non_exhaustive()
    }
}
