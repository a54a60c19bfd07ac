//! The cast: who calls, with what right, and what is wrong with them.

use std::time::Duration;

/// An agent to be issued.
pub(crate) struct Agent {
    pub(crate) name: &'static str,
    pub(crate) environment: &'static str,
    pub(crate) scope: &'static str,
    pub(crate) trust: &'static str,
    pub(crate) lifetime: &'static str,
    pub(crate) by: Authority,
    pub(crate) about: &'static str,
}

/// Whose certificate an agent carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authority {
    Ours,
    Foreign,
}

/// The agent that does everything right, until it is revoked.
pub(crate) const GOOD: &str = "support-01";
/// The agent that works with tools.
pub(crate) const DESK: &str = "desk-01";
const EXPIRED: &str = "expired-01";
pub(crate) const REVOKED: &str = "revoked-01";
const LOW_TRUST: &str = "low-trust-01";
const STAGING: &str = "staging-01";
const FOREIGN: &str = "foreign-01";

/// How long the certificate lives that is to be found expired.
pub(crate) const SHORT_LIFETIME: Duration = Duration::from_secs(2);

/// Who is issued a certificate.
pub(crate) const CAST: [Agent; 7] = [
    Agent {
        name: GOOD,
        about: "a good agent",
        ..MODEL
    },
    Agent {
        name: EXPIRED,
        about: "its certificate ends in two seconds",
        lifetime: "2s",
        ..MODEL
    },
    Agent {
        name: REVOKED,
        about: "revoked before its first call",
        ..MODEL
    },
    Agent {
        name: LOW_TRUST,
        about: "trusted less than the call needs",
        trust: "L1",
        ..MODEL
    },
    Agent {
        name: STAGING,
        about: "of another environment",
        environment: "staging",
        ..MODEL
    },
    Agent {
        name: FOREIGN,
        about: "of another authority",
        by: Authority::Foreign,
        ..MODEL
    },
    Agent {
        name: DESK,
        about: "a good agent that works with tools",
        scope: "mcp:tickets:*",
        ..MODEL
    },
];

const MODEL: Agent = Agent {
    name: "",
    environment: "prod",
    scope: "payments:read",
    trust: "L2",
    lifetime: "1h",
    by: Authority::Ours,
    about: "",
};

/// A call: who, method, path, body.
pub(crate) type Call = (&'static str, hyper::Method, &'static str, &'static str);

/// What they call, in order.
pub(crate) fn calls() -> [Call; 9] {
    use hyper::Method;
    let account = "/v1/accounts/7";
    [
        (GOOD, Method::GET, account, ""),
        (
            GOOD,
            Method::POST,
            "/v1/payments",
            r#"{"to": "DE02 1203 0000 0000 2020 51", "amount": "10.00"}"#,
        ),
        (GOOD, Method::GET, "/v1/secrets", ""),
        (GOOD, Method::GET, "/v1/accounts/../secrets", ""),
        (LOW_TRUST, Method::GET, account, ""),
        (STAGING, Method::GET, account, ""),
        (EXPIRED, Method::GET, account, ""),
        (REVOKED, Method::GET, account, ""),
        (FOREIGN, Method::GET, account, ""),
    ]
}

/// The enforcer's configuration, without the addresses.
pub(crate) const CONFIGURATION: &str = r#"
environment = "prod"
listen = "LISTEN"
authority = "AUTHORITY"
identity_dir = "edge-1"
data_dir = "edge-1-data"
stale_after = "30s"
catalogue = ["catalogue.toml"]   # written by `agentca-enforcer scan`

[[upstream]]
name = "payments"
url = "http://PAYMENTS"

[[upstream]]
name = "tickets"
kind = "mcp"
url = "http://TICKETS/mcp"
watch = "5s"                     # how often its tools are looked at

[[route]]
upstream = "payments"
methods = ["GET"]
path = "/v1/accounts/{id}"
scope = "payments:read"
min_trust = "L2"
risk = "read"

[[route]]
upstream = "payments"
methods = ["GET"]
path = "/v1/stream"
scope = "payments:read"
min_trust = "L2"
risk = "read"

[[route]]
upstream = "payments"
methods = ["POST"]
path = "/v1/payments"
scope = "payments:write"
min_trust = "L2"
risk = "financial"
"#;
