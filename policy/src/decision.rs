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
    match weigh(call, caller) {
        Ok(scope) => Verdict::Allow(Proof { scope }),
        Err(lack) => lack.told(call, caller),
    }
}

/// Whether [`judge`] allows, for lists of which each member is judged.
#[must_use]
pub fn allows(call: &Call, caller: &CallerRights<'_>) -> bool {
    weigh(call, caller).is_ok()
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

/// What is missing.
#[derive(Clone, Copy, Debug)]
enum Lack {
    Trust,
    Scope,
    /// The restriction leaves this level.
    RestrictedTrust(TrustLevel),
    RestrictedScope,
}

fn weigh<'a>(call: &Call, caller: &CallerRights<'a>) -> Result<&'a Scope, Lack> {
    if caller.trust < call.min_trust {
        return Err(Lack::Trust);
    }
    let scope = caller.scopes.permits(&call.scope).ok_or(Lack::Scope)?;
    let Some(restriction) = caller.restriction else {
        return Ok(scope);
    };
    // Every field is named, so that a new kind of restriction cannot be overlooked.
    let Restriction { trust, scopes } = restriction;
    if let Some(level) = trust
        && *level < call.min_trust
    {
        return Err(Lack::RestrictedTrust(*level));
    }
    if let Some(scopes) = scopes
        && scopes.permits(&call.scope).is_none()
    {
        return Err(Lack::RestrictedScope);
    }
    Ok(scope)
}

impl Lack {
    fn told<'a>(self, call: &Call, caller: &CallerRights<'_>) -> Verdict<'a> {
        let (rule, detail) = match self {
            Self::Trust => (
                Rule::Trust,
                format!(
                    "the certificate has {}, the call needs {}",
                    caller.trust, call.min_trust
                ),
            ),
            Self::Scope => (
                Rule::Scope,
                format!("no scope of the certificate covers {}", call.scope),
            ),
            Self::RestrictedTrust(level) => (
                Rule::Restricted,
                format!(
                    "trust is restricted to {level}, the call needs {}",
                    call.min_trust
                ),
            ),
            Self::RestrictedScope => (
                Rule::Restricted,
                format!("the restriction leaves no scope that covers {}", call.scope),
            ),
        };
        Verdict::Deny { rule, detail }
    }
}

#[cfg(test)]
mod tests;
