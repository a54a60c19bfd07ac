//! What somebody trusted found out about one definition of a tool.

use std::collections::BTreeMap;

use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::{PrivateKey, PublicKey};
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::approval::{StatementError, read_payload};
use crate::digest::parse_digest;
use crate::dsse::Envelope;
use crate::moment;
use crate::tier::Tier;

/// The kind of statement, in the envelope.
pub const ASSESSMENT_TYPE: &str = "application/vnd.agentca.assessment+json";

/// A statement about one definition of a tool; another definition is not covered by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assessment {
    /// 1.
    pub v: u32,
    /// The tool's upstream; absent for the definition wherever it is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// The tool.
    pub tool: String,
    /// `sha256:<hex>` of the definition.
    pub digest: String,
    /// From 0 to 100.
    pub score: u64,
    /// When.
    #[serde(deserialize_with = "moment::read")]
    pub at: Timestamp,
    /// The name of an `[[assessor]]`.
    pub assessor: String,
    /// What they have to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// That a person reviewed what the tool does.
    #[serde(default)]
    pub manual_review: bool,
}

impl Assessment {
    /// Signs it; `chain` is the person's certificate chain, or nothing for a key of its own.
    ///
    /// # Errors
    /// [`StatementError`] when it cannot be written or signed.
    pub fn sign(&self, key: &PrivateKey, chain: &[Vec<u8>]) -> Result<Envelope, StatementError> {
        let payload = serde_json_canonicalizer::to_vec(self)
            .map_err(|error| StatementError::Payload(error.to_string()))?;
        Ok(Envelope::sign(ASSESSMENT_TYPE, &payload, key, chain)?)
    }

    /// Reads a statement that nobody vouches for yet.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn read(envelope: &Envelope) -> Result<Self, StatementError> {
        let assessment: Self = read_payload(&envelope.payload(ASSESSMENT_TYPE)?)?;
        if assessment.v != 1 {
            return Err(StatementError::Version(assessment.v));
        }
        if assessment.score > 100 {
            return Err(StatementError::Score(assessment.score));
        }
        if parse_digest(&assessment.digest).is_none() {
            return Err(StatementError::Digest(assessment.digest));
        }
        Ok(assessment)
    }

    /// The tier that its score leads to.
    #[must_use]
    pub fn tier(&self) -> Tier {
        Tier::of_score(u8::try_from(self.score).unwrap_or_default())
    }
}

/// Whose assessments count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assessor {
    /// Whoever holds this key.
    Key(PublicKey),
    /// A person of this PKI.
    Person(SpiffeId),
}

/// Assessors by the name that assessments give.
pub type Assessors = BTreeMap<String, Assessor>;

/// A statement of somebody trusted: only [`VerifiedAssessment::verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedAssessment {
    assessment: Assessment,
    digest: [u8; 32],
}

impl VerifiedAssessment {
    /// Checks whose statement it is.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn verify(
        envelope: &Envelope,
        assessors: &Assessors,
        anchor: &TrustAnchor,
    ) -> Result<Self, StatementError> {
        let assessment = Assessment::read(envelope)?;
        match assessors.get(&assessment.assessor) {
            None => return Err(StatementError::UnknownAssessor(assessment.assessor)),
            Some(Assessor::Key(key)) => {
                envelope.verify(ASSESSMENT_TYPE, key)?;
            }
            Some(Assessor::Person(assessor)) => {
                let (_, person) = envelope.verify_person(ASSESSMENT_TYPE, anchor, assessment.at)?;
                if person.id() != assessor {
                    return Err(StatementError::OtherPerson {
                        signer: person.id().to_string(),
                        assessor: assessor.to_string(),
                    });
                }
            }
        }
        let digest = parse_digest(&assessment.digest)
            .ok_or_else(|| StatementError::Digest(assessment.digest.clone()))?;
        Ok(Self { assessment, digest })
    }

    /// The statement.
    #[must_use]
    pub fn assessment(&self) -> &Assessment {
        &self.assessment
    }

    /// The definition that it is about.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether it is about a tool's pinned definition.
    pub(crate) fn is_about(&self, upstream: &str, tool: &str, digest: &[u8; 32]) -> bool {
        let Assessment {
            upstream: named,
            tool: assessed,
            ..
        } = &self.assessment;
        self.digest == *digest
            && assessed == tool
            && named.as_deref().is_none_or(|named| named == upstream)
    }
}

#[cfg(test)]
mod tests;
