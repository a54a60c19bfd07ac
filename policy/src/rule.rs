//! The rules a decision names, and how each is told to a client (RFC 9457).

use std::fmt;

/// The rule that denied, by its fixed name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// The feed or CRL is too old, or the clock is off: nothing can be known.
    Stale,
    /// The certificate is for another environment.
    Environment,
    /// Nobody said that this certificate was issued.
    UnknownSerial,
    /// The certificate or its agent was revoked.
    Revoked,
    /// The certificate's time is over or has not come.
    Expired,
    /// No route of the catalogue matches.
    NotInCatalogue,
    /// A live restriction took away what the certificate would have allowed.
    Restricted,
    /// The trust level is lower than the route needs.
    Trust,
    /// No scope of the certificate covers the route's.
    Scope,
    /// The request could not be read.
    Malformed,
    /// The request's body is over its limit.
    TooLarge,
    /// The request is for an authority that this enforcer is not.
    Misdirected,
    /// The upstream failed or took too long.
    Upstream,
    /// The tool is not the one that was pinned.
    ToolChanged,
    /// The tool lacks the assessment or review that this environment wants, or it is too old.
    ToolUnverified,
    /// The tool's permissions are above the environment's ceiling.
    Ceiling,
    /// An MCP session that is not this agent's, or is over.
    Session,
    /// A request on behalf of a web page.
    Origin,
    /// The agent has too many calls running.
    Concurrency,
    /// A connection that makes work and takes no answers; it is closed.
    Flood,
}

impl Rule {
    /// Every rule, in the order of the road.
    pub const ALL: [Self; 20] = [
        Self::Stale,
        Self::Environment,
        Self::UnknownSerial,
        Self::Revoked,
        Self::Expired,
        Self::NotInCatalogue,
        Self::Restricted,
        Self::Trust,
        Self::Scope,
        Self::Malformed,
        Self::TooLarge,
        Self::Misdirected,
        Self::Upstream,
        Self::ToolChanged,
        Self::ToolUnverified,
        Self::Ceiling,
        Self::Session,
        Self::Origin,
        Self::Concurrency,
        Self::Flood,
    ];

    /// The name in records, problem types and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Environment => "environment",
            Self::UnknownSerial => "unknown-serial",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::NotInCatalogue => "not-in-catalogue",
            Self::Restricted => "restricted",
            Self::Trust => "trust",
            Self::Scope => "scope",
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::Misdirected => "misdirected",
            Self::Upstream => "upstream",
            Self::ToolChanged => "tool-changed",
            Self::ToolUnverified => "tool-unverified",
            Self::Ceiling => "ceiling",
            Self::Session => "session",
            Self::Origin => "origin",
            Self::Concurrency => "concurrency",
            Self::Flood => "flood",
        }
    }

    /// The HTTP status of a denial by this rule; an upstream's timeout (504), an HTTP/1.0 request
    /// (505), an unasked Upgrade (501) and a body for which there is no room (503) are told by their own.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Stale => 503,
            Self::Malformed => 400,
            Self::TooLarge => 413,
            Self::Misdirected => 421,
            Self::Upstream => 502,
            Self::Session => 404,
            Self::Concurrency | Self::Flood => 429,
            Self::Environment
            | Self::UnknownSerial
            | Self::Revoked
            | Self::Expired
            | Self::NotInCatalogue
            | Self::Restricted
            | Self::Trust
            | Self::Scope
            | Self::ToolChanged
            | Self::ToolUnverified
            | Self::Ceiling
            | Self::Origin => 403,
        }
    }

    /// The short human title of the problem document; the same for every occurrence.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Stale => "Revocation status is not known",
            Self::Environment => "Certificate of another environment",
            Self::UnknownSerial => "Certificate was not announced as issued",
            Self::Revoked => "Certificate is revoked",
            Self::Expired => "Certificate is not valid now",
            Self::NotInCatalogue => "Call is not in the catalogue",
            Self::Restricted => "Agent is restricted",
            Self::Trust => "Trust level is too low",
            Self::Scope => "Scope is missing",
            Self::Malformed => "Request cannot be read",
            Self::TooLarge => "Request is too large",
            Self::Misdirected => "Request is for another authority",
            Self::Upstream => "Upstream failed",
            Self::ToolChanged => "Tool is not the one that was approved",
            Self::ToolUnverified => "Tool is not verified as this environment wants",
            Self::Ceiling => "Tool is above the environment's ceiling",
            Self::Session => "Session is unknown",
            Self::Origin => "Requests of web pages are refused",
            Self::Concurrency => "Too many calls at once",
            Self::Flood => "Connection makes work and takes no answers",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_what_each_means() {
        let readme = include_str!("../../README.md");
        for rule in Rule::ALL {
            let named = format!("`{}`", rule.as_str());
            let mut rows = readme.lines().filter(|line| line.starts_with("| "));
            assert!(rows.any(|row| row.contains(&named)), "{named}");
        }
    }

    #[test]
    fn names_are_distinct_and_kebab_case() {
        let mut names: Vec<&str> = Rule::ALL.iter().map(|rule| rule.as_str()).collect();
        assert!(
            names
                .iter()
                .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Rule::ALL.len());
    }

    #[test]
    fn no_denial_looks_like_success() {
        assert!(
            Rule::ALL
                .iter()
                .all(|rule| (400..600).contains(&rule.status()))
        );
    }
}
