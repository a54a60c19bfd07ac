//! Whether a tool may be called now, whoever calls: pinned, unchanged, within what is wanted; and
//! whether a route is within the ceiling.

use std::time::Duration;

use agentca_identity::time::Timestamp;

use crate::Rule;
use crate::catalogue::Route;
use crate::ceiling::{ExceptionDecl, Unverified};
use crate::tier::Tier;
use crate::tool::{Tool, Wants};

/// That a tool may be called now; only [`Tool::standing`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing<'a> {
    unverified: bool,
    exception: Option<&'a ExceptionDecl>,
    tier: Option<Tier>,
}

impl<'a> Standing<'a> {
    /// Whether it lacks what is wanted and is served nevertheless, in `dev`: the record says so.
    #[must_use]
    pub fn unverified(&self) -> bool {
        self.unverified
    }

    /// The exception without which it would be denied.
    #[must_use]
    pub fn exception(&self) -> Option<&'a ExceptionDecl> {
        self.exception
    }

    /// The tier by the assessments that count now.
    #[must_use]
    pub fn tier(&self) -> Option<Tier> {
        self.tier
    }
}

/// Why a tool may not be called now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {detail}")]
pub struct Refusal {
    /// The rule that denied.
    pub rule: Rule,
    /// One sentence for the caller.
    pub detail: String,
}

impl Tool {
    /// Judges a tool: `seen` is the digest of what its upstream listed last.
    ///
    /// # Errors
    /// [`Refusal`]: the first rule that denies.
    pub fn standing(
        &self,
        seen: Option<&[u8; 32]>,
        now: Timestamp,
    ) -> Result<Standing<'_>, Refusal> {
        self.check_pin(seen)?;
        let wants = &self.wants;
        let tier = wants.tier_at(now);
        let standing = Standing {
            unverified: false,
            exception: None,
            tier,
        };
        let exception = wants.exception.as_deref().filter(|given| now < given.ends);
        let (rule, detail) = match (&wants.above_ceiling, wants.lacks(tier)) {
            (None, None) => return Ok(standing),
            (Some(above), _) => (Rule::Ceiling, above.clone()),
            (None, Some(lack)) => (Rule::ToolUnverified, lack),
        };
        if exception.is_some() {
            return Ok(Standing {
                exception,
                ..standing
            });
        }
        if rule == Rule::ToolUnverified && wants.unverified == Unverified::Mark {
            return Ok(Standing {
                unverified: true,
                ..standing
            });
        }
        Err(Refusal {
            rule,
            detail: format!("the tool `{}` {detail}", self.name),
        })
    }

    /// The first time after `now` at which [`Tool::standing`] may say something else of the same definition.
    #[must_use]
    pub fn standing_changes(&self, now: Timestamp) -> Option<Timestamp> {
        let Wants {
            rejected: _,
            above_ceiling: _,
            review_missing: _,
            min_tier: _,
            max_age,
            assessed,
            unverified: _,
            exception,
        } = &self.wants;
        let ends = exception.as_deref().map(|given| given.ends);
        let counts = assessed.iter().map(|assessed| assessed.at);
        let ages = assessed.iter().filter_map(|assessed| {
            // Of that age it still counts.
            Some(assessed.at + (*max_age)? + Duration::from_millis(1))
        });
        let changes = ends.into_iter().chain(counts).chain(ages);
        changes.filter(|change| *change > now).min()
    }

    fn check_pin(&self, seen: Option<&[u8; 32]>) -> Result<(), Refusal> {
        let pinned = self.pinned.as_ref().map(|pinned| &pinned.digest);
        if pinned.is_some() && pinned == seen {
            return Ok(());
        }
        let rejected = seen.is_some_and(|seen| self.wants.rejected.contains(seen));
        let what = match (pinned, seen) {
            (_, Some(_)) if rejected => "is withheld: a person rejected it as it is now",
            (None, _) => {
                "is new and nobody approved it: a person has to see to it, with `agentca-enforcer catalogue diff`"
            }
            (Some(_), None) => {
                "is not known to be as it was approved: its server's tools could not be listed yet, or it is not \
                 among them"
            }
            (Some(_), Some(_)) => {
                "changed since it was approved: a person has to see to it, with `agentca-enforcer catalogue diff`"
            }
        };
        let detail = format!("the tool `{}` {what}", self.name);
        Err(Refusal {
            rule: Rule::ToolChanged,
            detail,
        })
    }
}

impl Route {
    /// Judges a route, whoever calls: gives the exception without which it would be denied.
    ///
    /// # Errors
    /// [`Refusal`] by the ceiling.
    pub fn standing(&self, now: Timestamp) -> Result<Option<&ExceptionDecl>, Refusal> {
        let Some(above) = &self.above_ceiling else {
            return Ok(None);
        };
        let exception = self.exception.as_deref();
        match exception.filter(|given| now < given.ends) {
            Some(given) => Ok(Some(given)),
            None => Err(Refusal {
                rule: Rule::Ceiling,
                detail: format!("the route `{}` {above}", self.template),
            }),
        }
    }

    /// Whether nothing but an exception lets it through.
    #[must_use]
    pub fn is_above_ceiling(&self) -> bool {
        self.above_ceiling.is_some()
    }
}

impl Wants {
    /// The least tier over each assessor's newest assessment, of those that are not too old.
    fn tier_at(&self, now: Timestamp) -> Option<Tier> {
        let fresh = self.assessed.iter().filter(|assessed| {
            let age = now.saturating_since(assessed.at);
            assessed.at <= now && self.max_age.is_none_or(|most| age <= most)
        });
        fresh.map(|assessed| assessed.tier).min()
    }

    /// What is wanted and not there.
    fn lacks(&self, tier: Option<Tier>) -> Option<String> {
        if let Some(why) = self.review_missing {
            return Some(format!(
                "was never reviewed by hand, which this environment wants because {why}"
            ));
        }
        let aged = self.max_age.is_some() && !self.assessed.is_empty();
        match (tier, self.min_tier) {
            (Some(tier), Some(least)) if tier < least => Some(format!(
                "is of the tier `{tier}`, the least here is `{least}`"
            )),
            (None, _) if aged => Some("has no assessment that is recent enough".to_owned()),
            (None, Some(least)) if least > Tier::Unverified => Some(format!(
                "was never assessed, the least tier here is `{least}`"
            )),
            (None, _) if self.max_age.is_some() => Some("was never assessed".to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
