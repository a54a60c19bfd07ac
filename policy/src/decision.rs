//! What a caller may: the last steps of the road that need nothing but values.

use agentca_identity::scope::{Scope, ScopeSet};
use agentca_identity::trust::TrustLevel;

use crate::{Call, Rule};

/// Weighs a caller's rights against what a call needs.
///
/// A restriction is named as the rule only when the certificate alone would have allowed; else the
/// trust level is named before the scope.
#[must_use]
pub fn judge<'a>(call: &Call, caller: &CallerRights<'a>) -> Verdict<'a> {
    let scope = match by_certificate(call, caller) {
        Ok(scope) => scope,
        Err(verdict) => return verdict,
    };
    let Some(restriction) = caller.restriction else {
        return Verdict::Allow(Proof { scope });
    };
    // Every field is named, so that a new kind of restriction cannot be overlooked.
    let Restriction { trust, scopes } = restriction;
    if let Some(level) = trust
        && *level < call.min_trust
    {
        let detail = format!(
            "trust is restricted to {level}, the call needs {}",
            call.min_trust
        );
        return Verdict::Deny {
            rule: Rule::Restricted,
            detail,
        };
    }
    if let Some(scopes) = scopes
        && scopes.permits(&call.scope).is_none()
    {
        let detail = format!("the restriction leaves no scope that covers {}", call.scope);
        return Verdict::Deny {
            rule: Rule::Restricted,
            detail,
        };
    }
    Verdict::Allow(Proof { scope })
}

/// What a caller's certificate says, and what was taken from it since.
#[derive(Clone, Copy, Debug)]
pub struct CallerRights<'a> {
    /// The certificate's scopes.
    pub scopes: &'a ScopeSet,
    /// The certificate's trust level.
    pub trust: TrustLevel,
    /// The live restriction in force for the agent.
    pub restriction: Option<&'a Restriction>,
}

/// A live lowering of an agent's rights: what is absent stays as the certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restriction {
    /// The highest trust level left.
    pub trust: Option<TrustLevel>,
    /// What a call's scope must be covered by besides the certificate.
    pub scopes: Option<ScopeSet>,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The call is within the caller's rights.
    Allow(Proof<'a>),
    /// It is not.
    Deny {
        /// The rule that denied.
        rule: Rule,
        /// One sentence for the caller.
        detail: String,
    },
}

/// That [`judge`] allowed: only it makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Proof<'a> {
    scope: &'a Scope,
}

impl<'a> Proof<'a> {
    /// The scope of the certificate that covered the call.
    #[must_use]
    pub fn scope(&self) -> &'a Scope {
        self.scope
    }
}

fn by_certificate<'a>(call: &Call, caller: &CallerRights<'a>) -> Result<&'a Scope, Verdict<'a>> {
    if caller.trust < call.min_trust {
        let detail = format!(
            "the certificate has {}, the call needs {}",
            caller.trust, call.min_trust
        );
        return Err(Verdict::Deny {
            rule: Rule::Trust,
            detail,
        });
    }
    caller.scopes.permits(&call.scope).ok_or_else(|| {
        let detail = format!("no scope of the certificate covers {}", call.scope);
        Verdict::Deny {
            rule: Rule::Scope,
            detail,
        }
    })
}

#[cfg(test)]
mod tests;
