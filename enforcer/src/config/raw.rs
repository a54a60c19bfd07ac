//! The file as it is written.

use agentca_policy::RouteDecl;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) environment: String,
    pub(super) listen: String,
    pub(super) authority: Option<String>,
    pub(super) identity_dir: String,
    pub(super) data_dir: String,
    pub(super) stale_after: Option<String>,
    pub(super) revocation: Option<String>,
    #[serde(default)]
    pub(super) crl: Vec<String>,
    pub(super) crl_refresh: Option<String>,
    pub(super) threads: Option<usize>,
    #[serde(default)]
    pub(super) upstream: Vec<RawUpstream>,
    #[serde(default)]
    pub(super) route: Vec<RouteDecl>,
    pub(super) limits: Option<RawLimits>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUpstream {
    pub(super) name: String,
    pub(super) url: String,
}

/// Durations are text with a unit, sizes text with a unit or bytes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) handshake_timeout: Option<String>,
    pub(super) header_timeout: Option<String>,
    pub(super) idle_timeout: Option<String>,
    pub(super) body_timeout: Option<String>,
    pub(super) issued_wait: Option<String>,
    pub(super) upstream_connect_timeout: Option<String>,
    pub(super) upstream_timeout: Option<String>,
    pub(super) upstream_idle_timeout: Option<String>,
    pub(super) drain_timeout: Option<String>,
    pub(super) head_max: Option<RawSize>,
    pub(super) request_max: Option<RawSize>,
    pub(super) buffer_max: Option<RawSize>,
    pub(super) headers_max: Option<u64>,
    pub(super) max_connections: Option<u64>,
    pub(super) h2_max_streams: Option<u64>,
    pub(super) upstream_idle_max: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RawSize {
    Bytes(u64),
    Text(String),
}
