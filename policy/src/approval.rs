//! That somebody looked at a tool's definition: approved it, or rejected it.

use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::PrivateKey;
use agentca_identity::roles::PersonRole;
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::{digest_text, parse_digest};
use crate::dsse::{Envelope, EnvelopeError};
use crate::moment;

/// The kind of statement, in the envelope.
pub const APPROVAL_TYPE: &str = "application/vnd.agentca.approval+json";

/// What a person did with a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It may be called.
    Approve,
    /// It may not.
    Reject,
}

/// A person's statement about one definition of one tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// 1.
    pub v: u32,
    /// What they decided.
    pub action: Action,
    /// The tool's upstream.
    pub upstream: String,
    /// The tool.
    pub tool: String,
    /// `sha256:<hex>` of the definition.
    pub digest: String,
    /// Why.
    pub reason: String,
    /// When.
    #[serde(deserialize_with = "moment::read")]
    pub at: Timestamp,
    /// That they reviewed what the tool does, not only how it describes itself.
    #[serde(default, skip_serializing_if = "is_false")]
    pub manual_review: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Approval {
    /// A statement of now.
    #[must_use]
    pub fn new(action: Action, subject: Subject<'_>, reason: &str, at: Timestamp) -> Self {
        Self {
            v: 1,
            action,
            upstream: subject.upstream.to_owned(),
            tool: subject.tool.to_owned(),
            digest: digest_text(subject.digest),
            reason: reason.to_owned(),
            at,
            manual_review: false,
        }
    }

    /// Signs it with a person's key; `chain` is their certificate and its issuer, DER.
    ///
    /// # Errors
    /// [`StatementError`] when it cannot be written or signed.
    pub fn sign(&self, key: &PrivateKey, chain: &[Vec<u8>]) -> Result<Envelope, StatementError> {
        let payload = serde_json_canonicalizer::to_vec(self)
            .map_err(|error| StatementError::Payload(error.to_string()))?;
        Ok(Envelope::sign(APPROVAL_TYPE, &payload, key, chain)?)
    }

    /// Reads a statement that nobody vouches for yet.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn read(envelope: &Envelope) -> Result<Self, StatementError> {
        let approval: Self = read_payload(&envelope.payload(APPROVAL_TYPE)?)?;
        if approval.v != 1 {
            return Err(StatementError::Version(approval.v));
        }
        Ok(approval)
    }

    /// Whether it is about this definition of this tool.
    ///
    /// # Errors
    /// [`StatementError::About`] names what it is about instead.
    pub fn check_subject(&self, subject: Subject<'_>) -> Result<(), StatementError> {
        subject.check(Some(&self.upstream), &self.tool, &self.digest)
    }
}

/// One definition of one tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The tool's upstream.
    pub upstream: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// The definition.
    pub digest: &'a [u8; 32],
}

impl Subject<'_> {
    /// Whether a statement about these names and this digest is about this.
    pub(crate) fn check(
        self,
        upstream: Option<&str>,
        tool: &str,
        digest: &str,
    ) -> Result<(), StatementError> {
        let same = upstream.is_none_or(|upstream| upstream == self.upstream)
            && tool == self.tool
            && parse_digest(digest).as_ref() == Some(self.digest);
        if same {
            return Ok(());
        }
        Err(StatementError::About {
            tool: format!("{}:{tool}", upstream.unwrap_or("any upstream")),
            digest: digest.to_owned(),
        })
    }
}

/// A statement that was checked down to the root: only [`VerifiedApproval::verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedApproval {
    approval: Approval,
    by: SpiffeId,
}

impl VerifiedApproval {
    /// Checks whose statement it is, that they may make it, and what it is about.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn verify(
        envelope: &Envelope,
        anchor: &TrustAnchor,
        subject: Subject<'_>,
    ) -> Result<Self, StatementError> {
        // The time that the statement gives itself is what its signer's certificate is judged at:
        // approvals outlive the certificates of those who gave them.
        let approval = Approval::read(envelope)?;
        approval.check_subject(subject)?;
        let (_, person) = envelope.verify_person(APPROVAL_TYPE, anchor, approval.at)?;
        let identity = person.person().ok_or(StatementError::NotAPerson)?;
        if !identity.roles.permits(PersonRole::Responder) {
            return Err(StatementError::Role(identity.uri.to_string()));
        }
        Ok(Self {
            approval,
            by: identity.uri.clone(),
        })
    }

    /// The statement.
    #[must_use]
    pub fn approval(&self) -> &Approval {
        &self.approval
    }

    /// The person.
    #[must_use]
    pub fn by(&self) -> &SpiffeId {
        &self.by
    }
}

/// Why a statement does not count.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// The envelope or its signature.
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    /// What was signed cannot be read.
    #[error("the statement cannot be read: {0}")]
    Payload(String),
    /// A later form.
    #[error("version {0} of the statement is not known here")]
    Version(u32),
    /// A statement about something else.
    #[error("the statement is about `{tool}` with {digest}")]
    About {
        /// What it is about.
        tool: String,
        /// The digest that it names.
        digest: String,
    },
    /// The signer is no person.
    #[error("the signer is not a person")]
    NotAPerson,
    /// The signer may not approve.
    #[error("{0} has neither the role `admin` nor `responder`")]
    Role(String),
    /// Nobody of that name may assess.
    #[error("no `[[assessor]]` is named `{0}`")]
    UnknownAssessor(String),
    /// Another person than the assessor.
    #[error("it is signed by {signer}, and the assessor is {assessor}")]
    OtherPerson {
        /// Who signed.
        signer: String,
        /// Who should have.
        assessor: String,
    },
    /// A score that is none.
    #[error("the score {0} is not within 0 and 100")]
    Score(u64),
    /// A digest that is none.
    #[error("`{0}` is not a digest: it is `sha256:` and 64 hex digits")]
    Digest(String),
}

/// Reads what was signed: strict JSON with no unknown members.
pub(crate) fn read_payload<'de, T: Deserialize<'de>>(
    payload: &'de [u8],
) -> Result<T, StatementError> {
    serde_json::from_slice(payload).map_err(|error| StatementError::Payload(error.to_string()))
}

#[cfg(test)]
mod tests;
