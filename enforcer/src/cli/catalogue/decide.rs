//! `catalogue approve`, `reject` and `assess`: what is signed, and where it is written.

use std::path::{Path, PathBuf};

use agentca_identity::time::Timestamp;
use agentca_policy::dsse::Envelope;
use agentca_policy::{
    Action, Approval, Approved, Assessment, Pin, Rejection, Subject, ToolDefinition,
    VerifiedApproval, VerifiedAssessment, digest_text,
};
use clap::Args;
use serde_json::json;

use super::ConfigArgs;
use super::opened::{Opened, ToolName};
use crate::cli::output::{Failure, print};
use crate::scan::{Person, read_pins, write_file};

#[derive(Debug, Args)]
pub(in crate::cli) struct DecisionArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The tool: `server:tool`, or its name alone where no other server has it
    #[arg(value_name = "TOOL")]
    tool: String,
    /// Why; it is signed and recorded
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The folder of who decides, that `agentca init` or `agentca person add` wrote [default: the one
    /// that `agentca` uses]
    #[arg(long, value_name = "DIR", env = "AGENTCA_CREDENTIALS")]
    person: Option<PathBuf>,
    /// The file whose first line is the passphrase of the person's key
    #[arg(long, value_name = "FILE", env = "AGENTCA_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
    /// Only when the tool has this digest: what `catalogue diff` showed
    #[arg(long, value_name = "sha256:HEX")]
    digest: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ApproveArgs {
    #[command(flatten)]
    decision: DecisionArgs,
    /// Say that you reviewed what the tool does, not only how it describes itself
    #[arg(long)]
    manual_review: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AssessArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The file of signed assessments
    #[arg(long, value_name = "FILE")]
    import: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn approve(arguments: &ApproveArgs) -> Result<(), Failure> {
    let decided = Decided::make(
        &arguments.decision,
        Action::Approve,
        arguments.manual_review,
    )?;
    let mut pins = read_pins(&decided.file).map_err(Failure::failed)?;
    pins.approve(Pin {
        upstream: decided.name.upstream.clone(),
        definition: decided.definition.clone(),
        approved: decided.approved.clone(),
    });
    decided.write(&pins, "approved", arguments.decision.json)
}

pub(super) fn reject(arguments: &DecisionArgs) -> Result<(), Failure> {
    let decided = Decided::make(arguments, Action::Reject, false)?;
    let mut pins = read_pins(&decided.file).map_err(Failure::failed)?;
    pins.reject(Rejection {
        upstream: decided.name.upstream.clone(),
        tool: decided.name.tool.clone(),
        digest: digest_text(&decided.definition.digest()),
        rejected: decided.approved.clone(),
    });
    decided.write(&pins, "rejected", arguments.json)
}

/// A decision that was signed, and checked as the enforcer will check it.
struct Decided {
    name: ToolName,
    definition: ToolDefinition,
    approved: Approved,
    file: PathBuf,
}

impl Decided {
    fn make(
        arguments: &DecisionArgs,
        action: Action,
        manual_review: bool,
    ) -> Result<Self, Failure> {
        if arguments.reason.trim().is_empty() {
            return Err(Failure::usage("--reason is empty: say why"));
        }
        let opened = Opened::open(&arguments.config.config)?;
        let anchor = opened.anchor()?;
        let name = opened.find(&arguments.tool)?;
        let file = opened.pins_of(&name)?;
        let definition = seen(&opened, &name, arguments.digest.as_deref())?;
        let folder = match &arguments.person {
            Some(folder) => folder.clone(),
            None => Person::default_folder().map_err(Failure::usage)?,
        };
        let person =
            Person::load(&folder, arguments.passphrase_file.as_deref()).map_err(Failure::usage)?;
        let digest = definition.digest();
        let subject = Subject {
            upstream: &name.upstream,
            tool: &name.tool,
            digest: &digest,
        };
        let at = Timestamp::now();
        let mut approval = Approval::new(action, subject, &arguments.reason, at);
        approval.manual_review = manual_review;
        let statement = approval
            .sign(&person.key, &person.chain)
            .map_err(Failure::failed)?;
        // What the enforcer would refuse is not written.
        VerifiedApproval::verify(&statement, &anchor, subject).map_err(Failure::failed)?;
        let approved = Approved {
            by: person.id.to_string(),
            at,
            reason: arguments.reason.clone(),
            statement: Some(statement),
        };
        Ok(Self {
            name,
            definition,
            approved,
            file,
        })
    }

    fn write(
        &self,
        pins: &agentca_policy::PinsFile,
        done: &str,
        as_json: bool,
    ) -> Result<(), Failure> {
        write_pins(&self.file, pins)?;
        let ToolName { upstream, tool } = &self.name;
        let digest = digest_text(&self.definition.digest());
        let by = &self.approved.by;
        let value = json!({
            "upstream": upstream, "tool": tool, "digest": digest, "state": done, "by": by,
            "file": self.file,
        });
        let text = format!(
            "{done} {upstream}:{tool} {digest} by {by}\nwrote {}\n",
            self.file.display()
        );
        print(as_json, &value, &text)
    }
}

/// The definition that was seen last.
fn seen(opened: &Opened, name: &ToolName, wanted: Option<&str>) -> Result<ToolDefinition, Failure> {
    let ToolName { upstream, tool } = name;
    let seen = opened.seen(upstream)?.ok_or_else(|| {
        Failure::failed(format!(
            "nothing was seen of `{upstream}` yet: {} is missing; a running enforcer writes it",
            opened.seen_path(upstream).display()
        ))
    })?;
    let definition = seen.tool(tool).cloned().ok_or_else(|| {
        Failure::failed(format!("`{upstream}` had no tool `{tool}` at {}", seen.at))
    })?;
    let digest = digest_text(&definition.digest());
    match wanted {
        Some(wanted) if wanted != digest => Err(Failure::failed(format!(
            "`{upstream}:{tool}` has the digest {digest} by now: look at `catalogue diff` again"
        ))),
        _ => Ok(definition),
    }
}

pub(super) fn assess(arguments: &AssessArgs) -> Result<(), Failure> {
    let opened = Opened::open(&arguments.config.config)?;
    let anchor = opened.anchor()?;
    let parts = opened.config.catalogue_parts.as_ref();
    let parts = parts.ok_or_else(|| Failure::usage("the configuration has no catalogue"))?;
    let mut taken = Vec::new();
    let mut files = std::collections::BTreeMap::new();
    for envelope in envelopes(&arguments.import)? {
        let verified = VerifiedAssessment::verify(&envelope, &parts.assessors, &anchor);
        let verified = verified
            .map_err(|error| Failure::failed(format!("{}: {error}", arguments.import.display())))?;
        let assessment = verified.assessment();
        for file in places(&opened, assessment)? {
            let pins = match files.entry(file) {
                std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
                std::collections::btree_map::Entry::Vacant(free) => {
                    let pins = read_pins(free.key()).map_err(Failure::failed)?;
                    free.insert(pins)
                }
            };
            if !pins.assessments.contains(&envelope) {
                pins.assessments.push(envelope.clone());
            }
        }
        taken.push(assessment.clone());
    }
    for (file, pins) in &files {
        write_pins(file, pins)?;
    }
    let values = taken.iter().map(|taken| {
        json!({
            "upstream": taken.upstream, "tool": taken.tool, "digest": taken.digest,
            "score": taken.score, "tier": taken.tier().to_string(), "assessor": taken.assessor,
        })
    });
    let lines = taken.iter().map(|taken| {
        let (tool, tier) = (&taken.tool, taken.tier());
        format!("{tool}  {}  {tier}  by {}\n", taken.score, taken.assessor)
    });
    let value = json!({"assessments": values.collect::<Vec<_>>()});
    print(arguments.json, &value, &lines.collect::<String>())
}

/// One envelope, or a list of them.
fn envelopes(path: &Path) -> Result<Vec<Envelope>, Failure> {
    let wrong =
        |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(&text).map_err(|error| wrong(&error));
    }
    let one = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    Ok(vec![one])
}

/// The pins files of the tools that an assessment is about.
fn places(opened: &Opened, assessment: &Assessment) -> Result<Vec<PathBuf>, Failure> {
    let tool = &assessment.tool;
    let names = opened.upstreams().filter(|name| {
        let named = assessment.upstream.as_deref();
        named.is_none_or(|named| named == *name)
    });
    let places = names.filter_map(|upstream| {
        let name = ToolName {
            upstream: upstream.to_owned(),
            tool: tool.clone(),
        };
        opened.pins_of(&name).ok()
    });
    let places: std::collections::BTreeSet<PathBuf> = places.collect();
    if places.is_empty() {
        return Err(Failure::failed(format!(
            "no `[[tool]]` is `{tool}`, which an assessment is about"
        )));
    }
    Ok(places.into_iter().collect())
}

fn write_pins(file: &Path, pins: &agentca_policy::PinsFile) -> Result<(), Failure> {
    let json = pins.to_json().map_err(Failure::failed)?;
    write_file(file, json.as_bytes()).map_err(Failure::failed)
}
