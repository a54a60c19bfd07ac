//! Which pins, rejections and assessments count: those whose statements were verified.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentca_identity::chain::TrustAnchor;

use super::{Approved, Pin, PinsFile, Rejection};
use crate::approval::{StatementError, Subject, VerifiedApproval};
use crate::assessment::{Assessors, VerifiedAssessment};
use crate::digest::parse_digest;
use crate::json::in_utf16;
use crate::tool::PinnedDefinition;

/// Against what statements are verified.
#[derive(Clone, Copy, Debug)]
pub struct Signers<'a> {
    /// The root of the people.
    pub anchor: &'a TrustAnchor,
    /// Whose assessments count.
    pub assessors: &'a Assessors,
}

/// What counts of one or several files.
#[derive(Clone, Debug, Default)]
pub struct Admitted {
    pins: BTreeMap<Name, AdmittedPin>,
    rejections: BTreeMap<Name, Vec<[u8; 32]>>,
    assessments: Vec<VerifiedAssessment>,
    /// Into the assessments, by tool.
    by_tool: BTreeMap<String, Vec<usize>>,
}

/// Upstream and tool.
type Name = (String, String);

#[derive(Clone, Debug)]
pub(crate) struct AdmittedPin {
    pub(crate) definition: Arc<PinnedDefinition>,
    pub(crate) manual_review: bool,
}

impl Admitted {
    /// Adds what `scan` wrote. What people and assessors signed is left out, since nothing is there
    /// to verify it with: their tools are not pinned then.
    ///
    /// # Errors
    /// [`PinsError`]: what is in two files.
    pub fn add_unsigned(&mut self, file: &PinsFile) -> Result<(), Vec<PinsError>> {
        self.add_with(file, None)
    }

    /// Adds a file, each statement verified.
    ///
    /// # Errors
    /// [`PinsError`]: everything that does not count; nothing of such a file should be used.
    pub fn add(&mut self, file: &PinsFile, signers: Signers<'_>) -> Result<(), Vec<PinsError>> {
        self.add_with(file, Some(signers))
    }

    fn add_with(
        &mut self,
        file: &PinsFile,
        signers: Option<Signers<'_>>,
    ) -> Result<(), Vec<PinsError>> {
        let mut errors = Vec::new();
        for (number, pin) in (1_usize..).zip(&file.pins) {
            if let Err(error) = self.add_pin(pin, signers) {
                errors.push(PinsError::new(format!("pins[{number}]"), error));
            }
        }
        for (number, rejection) in (1_usize..).zip(&file.rejections) {
            if let Err(error) = self.add_rejection(rejection, signers) {
                errors.push(PinsError::new(format!("rejections[{number}]"), error));
            }
        }
        let Some(Signers { anchor, assessors }) = signers else {
            return if errors.is_empty() {
                Ok(())
            } else {
                Err(errors)
            };
        };
        for (number, envelope) in (1_usize..).zip(&file.assessments) {
            match VerifiedAssessment::verify(envelope, assessors, anchor) {
                Ok(assessment) => {
                    let tool = assessment.assessment().tool.clone();
                    self.by_tool
                        .entry(tool)
                        .or_default()
                        .push(self.assessments.len());
                    self.assessments.push(assessment);
                }
                Err(error) => {
                    errors.push(PinsError::new(format!("assessments[{number}]"), error));
                }
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    fn add_pin(&mut self, pin: &Pin, signers: Option<Signers<'_>>) -> Result<(), String> {
        let definition = &pin.definition;
        let (upstream, tool) = (pin.upstream.clone(), pin.tool().to_owned());
        if self.pins.contains_key(&(upstream.clone(), tool.clone())) {
            return Err(format!("`{upstream}:{tool}` is pinned in another file too"));
        }
        let digest = definition.digest();
        let subject = Subject {
            upstream: &upstream,
            tool: &tool,
            digest: &digest,
        };
        let manual_review = match (&pin.approved.statement, signers) {
            (None, _) => false,
            (Some(_), None) => return Ok(()),
            (Some(_), Some(signers)) => {
                let verified = verify(&pin.approved, signers, subject);
                verified.map_err(|error| error.to_string())?
            }
        };
        let mut arguments: Vec<Box<str>> = definition.arguments().map(Box::from).collect();
        arguments.sort_by(|one, other| in_utf16(one, other));
        let pinned = PinnedDefinition {
            digest,
            schema_in: definition.schema_in_digest(),
            schema_out: definition.schema_out_digest(),
            headers: definition.header_parameters().to_vec(),
            arguments,
            approved_by: pin.approved.by.clone(),
            approved_at: pin.approved.at,
        };
        let admitted = AdmittedPin {
            definition: Arc::new(pinned),
            manual_review,
        };
        self.pins.insert((upstream, tool), admitted);
        Ok(())
    }

    /// A rejection only takes away: it counts even while nothing can verify it.
    fn add_rejection(
        &mut self,
        rejection: &Rejection,
        signers: Option<Signers<'_>>,
    ) -> Result<(), StatementError> {
        let Rejection {
            upstream,
            tool,
            digest,
            rejected,
        } = rejection;
        let digest = parse_digest(digest).ok_or_else(|| StatementError::Digest(digest.clone()))?;
        let subject = Subject {
            upstream,
            tool,
            digest: &digest,
        };
        if let Some(signers) = signers {
            verify(rejected, signers, subject)?;
        }
        let name = (upstream.clone(), tool.clone());
        self.rejections.entry(name).or_default().push(digest);
        Ok(())
    }

    pub(crate) fn pin(&self, upstream: &str, tool: &str) -> Option<&AdmittedPin> {
        self.pins.get(&(upstream.to_owned(), tool.to_owned()))
    }

    pub(crate) fn rejected(&self, upstream: &str, tool: &str) -> Vec<[u8; 32]> {
        let name = (upstream.to_owned(), tool.to_owned());
        self.rejections.get(&name).cloned().unwrap_or_default()
    }

    /// What was rejected, by upstream and tool.
    pub(crate) fn rejections(&self) -> impl Iterator<Item = (&str, &str, &[[u8; 32]])> {
        let all = self.rejections.iter();
        all.map(|((upstream, tool), digests)| (upstream.as_str(), tool.as_str(), &digests[..]))
    }

    /// The assessments of one definition.
    pub(crate) fn assessments(
        &self,
        upstream: &str,
        tool: &str,
        digest: &[u8; 32],
    ) -> impl Iterator<Item = &VerifiedAssessment> {
        let places = self.by_tool.get(tool).map(Vec::as_slice);
        places
            .unwrap_or_default()
            .iter()
            .filter_map(|place| self.assessments.get(*place))
            .filter(move |assessment| assessment.is_about(upstream, tool, digest))
    }
}

/// Whether a person recorded a manual review, once it is sure that it was that person.
fn verify(
    approved: &Approved,
    signers: Signers<'_>,
    subject: Subject<'_>,
) -> Result<bool, StatementError> {
    let statement = approved
        .statement
        .as_ref()
        .ok_or(StatementError::NotAPerson)?;
    let verified = VerifiedApproval::verify(statement, signers.anchor, subject)?;
    if verified.by().to_string() != approved.by {
        return Err(StatementError::OtherPerson {
            signer: verified.by().to_string(),
            assessor: approved.by.clone(),
        });
    }
    Ok(verified.approval().manual_review)
}

/// What is wrong at one place of a pins file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct PinsError {
    /// Like `pins[3].digest`, from 1; nothing for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl PinsError {
    pub(super) fn new(key: impl Into<String>, message: impl ToString) -> Self {
        Self {
            key: key.into(),
            message: message.to_string(),
        }
    }
}
