//! What was said about tools and is in force, one entry for each: approvals, rejections, assessments
//! and exceptions, as an enforcer puts them on record.

use agentca_identity::crypto::sha256;
use agentca_identity::time::Timestamp;
use serde::Serialize;

use crate::assessment::Assessment;
use crate::ceiling::ExceptionDecl;
use crate::digest::parse_digest;
use crate::pins::{Approved, Pin, PinsFile, Rejection};

/// One statement. That it counts, [`crate::Admitted`] has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// `pin` for what `scan` found, `approve`, `reject`, `assess` or `except`.
    pub action: &'static str,
    /// The tool's upstream; an assessment may be for any.
    pub upstream: Option<String>,
    /// The tool, or the path of the route that an exception is for.
    pub tool: String,
    /// The digest of the definition it is about; an exception is about any.
    pub definition: Option<[u8; 32]>,
    /// Who said it.
    pub by: String,
    /// Why, or with which result.
    pub reason: String,
    /// When.
    pub at: Option<Timestamp>,
    /// When it is over.
    pub ends: Option<Timestamp>,
    /// SHA-256 over the RFC 8785 form of the signed envelope; of the entry itself where nobody signed.
    pub statement: [u8; 32],
}

impl PinsFile {
    /// Everything that is said in the file.
    pub fn stated(&self) -> impl Iterator<Item = Stated> {
        let pins = self.pins.iter().map(Pin::stated);
        let rejections = self.rejections.iter().map(Rejection::stated);
        let assessments = self.assessments.iter().filter_map(|envelope| {
            let read = Assessment::read(envelope).ok()?;
            Some(Stated {
                action: "assess",
                definition: parse_digest(&read.digest),
                upstream: read.upstream,
                tool: read.tool,
                by: read.assessor,
                reason: format!("score {}", read.score),
                at: Some(read.at),
                ends: None,
                statement: digest(envelope),
            })
        });
        pins.chain(rejections).chain(assessments)
    }
}

impl Pin {
    fn stated(&self) -> Stated {
        let definition = self.definition.digest();
        let signed = self.approved.statement.as_ref();
        Stated {
            action: signed.map_or("pin", |_| "approve"),
            statement: signed.map_or_else(
                || digest(&(&self.upstream, self.tool(), definition, &self.approved)),
                digest,
            ),
            ..stated(
                &self.upstream,
                self.tool(),
                Some(definition),
                &self.approved,
            )
        }
    }
}

impl Rejection {
    fn stated(&self) -> Stated {
        let definition = parse_digest(&self.digest);
        Stated {
            action: "reject",
            statement: self
                .rejected
                .statement
                .as_ref()
                .map_or_else(|| digest(self), digest),
            ..stated(&self.upstream, &self.tool, definition, &self.rejected)
        }
    }
}

impl ExceptionDecl {
    /// The exception as a statement of its owner's.
    #[must_use]
    pub fn stated(&self) -> Stated {
        Stated {
            action: "except",
            upstream: Some(self.upstream.clone()),
            tool: self
                .tool
                .as_ref()
                .or(self.route.as_ref())
                .cloned()
                .unwrap_or_default(),
            definition: None,
            by: self.owner.clone(),
            reason: self.justification.clone(),
            at: None,
            ends: Some(self.ends),
            statement: digest(self),
        }
    }
}

fn stated(upstream: &str, tool: &str, definition: Option<[u8; 32]>, approved: &Approved) -> Stated {
    Stated {
        action: "",
        upstream: Some(upstream.to_owned()),
        tool: tool.to_owned(),
        definition,
        by: approved.by.clone(),
        reason: approved.reason.clone(),
        at: Some(approved.at),
        ends: None,
        statement: [0; 32],
    }
}

/// Writing these fails for nothing that was read.
fn digest(of: &impl Serialize) -> [u8; 32] {
    sha256(&serde_json_canonicalizer::to_vec(of).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::ToolDefinition;
    use crate::pins::SCAN;

    fn pin(reason: &str) -> Pin {
        Pin {
            upstream: "payments".into(),
            definition: ToolDefinition::parse(r#"{"name":"refund"}"#).unwrap(),
            approved: Approved {
                by: SCAN.into(),
                at: Timestamp::from_secs(1),
                reason: reason.into(),
                statement: None,
            },
        }
    }

    #[test]
    fn each_entry_is_told_apart_by_its_digest() {
        let file = PinsFile {
            pins: vec![pin("as it was"), pin("another")],
            ..PinsFile::default()
        };
        let told: Vec<Stated> = file.stated().collect();
        assert_eq!((told[0].action, &*told[0].tool), ("pin", "refund"));
        assert_eq!(told[0].definition, Some(file.pins[0].definition.digest()));
        assert_ne!(told[0].statement, told[1].statement);
        assert_eq!(told[0].statement, pin("as it was").stated().statement);
        let exception = |justification: &str| ExceptionDecl {
            upstream: "payments".into(),
            tool: Some("refund".into()),
            route: None,
            owner: "alice".into(),
            justification: justification.into(),
            compensating_control: "watched".into(),
            ends: Timestamp::from_secs(9),
        };
        let (one, other) = (exception("a").stated(), exception("b").stated());
        assert_eq!(
            (one.action, &*one.by, one.ends),
            ("except", "alice", Some(Timestamp::from_secs(9)))
        );
        assert_ne!(one.statement, other.statement);
    }
}
