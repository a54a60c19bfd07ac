//! Approvals and assessments: what people and assessors signed counts once it was verified against
//! the root that the enforcer's own credentials hang from.

use std::sync::Arc;

use agentca_identity::chain::TrustAnchor;
use agentca_policy::{Admitted, Signers};

use crate::config::{Config, ConfigErrors, pins_errors};

/// The configuration with every signed pin and assessment in force.
///
/// Until then a tool that a person approved counts as not approved.
///
/// # Errors
/// [`ConfigErrors`]: every statement that does not count, by file and place. Then nothing of the
/// configuration should be used.
pub fn admit(config: Config, anchor: &TrustAnchor) -> Result<Config, ConfigErrors> {
    let Some(parts) = config.catalogue_parts.clone() else {
        return Ok(config);
    };
    let signers = Signers {
        anchor,
        assessors: &parts.assessors,
    };
    let (mut admitted, mut errors) = (Admitted::default(), Vec::new());
    for (path, file) in &parts.pins {
        if let Err(faults) = admitted.add(file, signers) {
            errors.extend(pins_errors(path, faults));
        }
    }
    if !errors.is_empty() {
        return Err(ConfigErrors::of(errors));
    }
    let catalogue = parts.compile(&admitted).map_err(ConfigErrors::of)?;
    Ok(Config {
        mcp_catalogue: Arc::new(catalogue),
        stated: parts.stated().collect(),
        // Definitions are large, and were asked for what they have to say.
        catalogue_parts: None,
        ..config
    })
}

#[cfg(test)]
mod tests;
