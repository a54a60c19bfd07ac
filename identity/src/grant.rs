//! Grants: what an agent may be issued. A grant comes before the first certificate, and every
//! issue and renewal is judged against the grant as it stands then.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::scope::{Scope, ScopeSet};
use crate::spiffe::SpiffeId;
use crate::trust::TrustLevel;

/// What an agent may be issued, and by whose approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The widest scopes.
    pub scopes: ScopeSet,
    /// The highest trust level.
    pub max_trust: TrustLevel,
    /// The longest lifetime of one certificate; in whole seconds when written.
    #[serde(with = "whole_seconds")]
    pub max_lifetime: Duration,
    /// Groups the agent belongs to.
    pub groups: Vec<String>,
    /// The person who approved it.
    pub approved_by: SpiffeId,
}

impl Grant {
    /// Whether `request` stays within this grant; the first thing that does not is named.
    pub fn judge(&self, request: &AgentRequest) -> Result<(), GrantViolation> {
        if let Some(scope) = request.scopes.first_outside(&self.scopes) {
            return Err(GrantViolation::Scope(scope.clone()));
        }
        if request.trust > self.max_trust {
            return Err(GrantViolation::Trust {
                asked: request.trust,
                granted: self.max_trust,
            });
        }
        if request.lifetime.is_zero() {
            return Err(GrantViolation::NoLifetime);
        }
        if request.lifetime > self.max_lifetime {
            return Err(GrantViolation::Lifetime {
                asked: request.lifetime.as_secs(),
                granted: self.max_lifetime.as_secs(),
            });
        }
        Ok(())
    }
}

/// What is asked for one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRequest {
    /// The scopes it is to carry.
    pub scopes: ScopeSet,
    /// The trust level it is to carry.
    pub trust: TrustLevel,
    /// How long it is to last.
    pub lifetime: Duration,
}

/// A request is wider than its grant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GrantViolation {
    /// A scope is not covered.
    #[error("scope `{0}` is not within the grant, widen the grant first")]
    Scope(Scope),
    /// The trust level is too high.
    #[error("trust {asked} is above the granted {granted}, raise the grant first")]
    Trust {
        /// What was asked.
        asked: TrustLevel,
        /// What is granted.
        granted: TrustLevel,
    },
    /// The lifetime is too long.
    #[error("a lifetime of {asked} s is longer than the granted {granted} s")]
    Lifetime {
        /// What was asked, in seconds.
        asked: u64,
        /// What is granted, in seconds.
        granted: u64,
    },
    /// The lifetime is nothing at all.
    #[error("a lifetime of 0 s certifies nothing, ask for at least 1 s")]
    NoLifetime,
}

mod whole_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(value.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_excess_is_named() {
        let grant = Grant {
            scopes: ["payments:*"].into_iter().collect_scopes(),
            max_trust: TrustLevel::L2,
            max_lifetime: Duration::from_secs(3600),
            groups: Vec::new(),
            approved_by: "spiffe://example.org/person/alice".parse().unwrap(),
        };
        let fits = AgentRequest {
            scopes: ["payments:eu:*", "payments:read"]
                .into_iter()
                .collect_scopes(),
            trust: TrustLevel::L2,
            lifetime: Duration::from_secs(3600),
        };
        assert_eq!(grant.judge(&fits), Ok(()));

        let wide = AgentRequest {
            scopes: ["refunds:read"].into_iter().collect_scopes(),
            ..fits.clone()
        };
        assert_eq!(
            grant.judge(&wide),
            Err(GrantViolation::Scope("refunds:read".parse().unwrap()))
        );
        let high = AgentRequest {
            trust: TrustLevel::L3,
            ..fits.clone()
        };
        assert!(matches!(
            grant.judge(&high),
            Err(GrantViolation::Trust { .. })
        ));
        let long = AgentRequest {
            lifetime: Duration::from_millis(3_600_001),
            ..fits.clone()
        };
        assert!(matches!(
            grant.judge(&long),
            Err(GrantViolation::Lifetime { .. })
        ));
        let none = AgentRequest {
            lifetime: Duration::ZERO,
            ..fits
        };
        assert_eq!(grant.judge(&none), Err(GrantViolation::NoLifetime));
    }

    trait CollectScopes {
        fn collect_scopes(self) -> ScopeSet;
    }

    impl<'a, I: Iterator<Item = &'a str>> CollectScopes for I {
        fn collect_scopes(self) -> ScopeSet {
            ScopeSet::new(self.map(|scope| scope.parse().unwrap())).unwrap()
        }
    }
}
