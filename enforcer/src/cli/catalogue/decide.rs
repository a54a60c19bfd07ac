//! `catalogue approve`, `reject` and `assess`: what is signed, and where it is written.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use agentca_identity::time::Timestamp;
use agentca_policy::dsse::Envelope;
use agentca_policy::{
    Action, Approval, Approved, Assessment, Pin, Rejection, Subject, ToolDefinition,
    VerifiedApproval, VerifiedAssessment, digest_text,
};
use clap::Args;
use serde_json::json;

use super::opened::{Opened, ToolName, uncallable};
use super::{ConfigArgs, changes};
use crate::cli::output::{Failure, print, printable};
use crate::config::pins_path;
use crate::scan::{CatalogueFiles, FolderLock, Person, declaration, read_pins, write_file};

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
    /// Only when the tool has this digest, or one that begins so: what `catalogue diff` showed. To approve a new
    /// or changed tool without it, confirm at the terminal what is shown
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

/// Shows a text to whoever runs the command and asks whether that is meant; none when nobody is there.
pub(super) type Ask<'a> = &'a dyn Fn(&str) -> Option<bool>;

/// Asks at the terminal, if there is one.
pub(super) fn ask_terminal(text: &str) -> Option<bool> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return None;
    }
    eprint!("{text}\nApprove it as it is shown? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).ok()?;
    Some(matches!(answer.trim(), "y" | "Y" | "yes"))
}

pub(super) fn approve(arguments: &ApproveArgs, ask: Ask<'_>) -> Result<(), Failure> {
    let decision = &arguments.decision;
    let decided = Decided::make(decision, Action::Approve, |opened, name, definition| {
        if let Some(why) = uncallable(&name.tool) {
            return Err(Failure::failed(why));
        }
        was_looked_at(opened, (name, definition), decision.digest.as_deref(), ask)?;
        Ok(arguments.manual_review)
    })?;
    let _held = FolderLock::of(&decided.file).map_err(Failure::failed)?;
    let mut pins = read_pins(&decided.pins()).map_err(Failure::failed)?;
    pins.approve(Pin {
        upstream: decided.name.upstream.clone(),
        definition: decided.definition.clone(),
        approved: decided.approved.clone(),
    });
    // A pin without its table does nothing, so that comes first.
    write_pins(&decided.pins(), &pins)?;
    let added = decided.declare()?;
    decided.tell("approved", added, decision.json)
}

pub(super) fn reject(arguments: &DecisionArgs) -> Result<(), Failure> {
    let decided = Decided::make(arguments, Action::Reject, |_, _, _| Ok(false))?;
    let _held = FolderLock::of(&decided.file).map_err(Failure::failed)?;
    let mut pins = read_pins(&decided.pins()).map_err(Failure::failed)?;
    pins.reject(Rejection {
        upstream: decided.name.upstream.clone(),
        tool: decided.name.tool.clone(),
        digest: digest_text(&decided.definition.digest()),
        rejected: decided.approved.clone(),
    });
    write_pins(&decided.pins(), &pins)?;
    decided.tell("rejected", None, arguments.json)
}

/// Nobody approves by mistake what came after what they saw: another definition than the pinned one is
/// named by its digest, or shown and confirmed.
fn was_looked_at(
    opened: &Opened,
    (name, definition): (&ToolName, &ToolDefinition),
    digest: Option<&str>,
    ask: Ask<'_>,
) -> Result<(), Failure> {
    let ToolName { upstream, tool } = name;
    if digest.is_some() || opened.pinned(name) == Some(definition.digest()) {
        return Ok(());
    }
    match ask(&changes::shown(opened, upstream, definition)) {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::failed("not approved")),
        None => {
            let (command, _) = changes::approval(opened, upstream, definition);
            let command = command.unwrap_or_default();
            let message = format!(
                "`{upstream}:{tool}` is not as it was approved: look at `agentca-enforcer catalogue diff`, then \
                 say by `--digest` what you saw there; as it is now that is\n  {command}"
            );
            Err(Failure::usage(message))
        }
    }
}

/// A decision that was signed, and checked as the enforcer will check it.
struct Decided {
    name: ToolName,
    definition: ToolDefinition,
    approved: Approved,
    /// The file of the catalogue to which the tool belongs.
    file: PathBuf,
    /// Whether it has its table there.
    is_declared: bool,
    /// What to correct in it.
    understated: Option<String>,
}

impl Decided {
    /// `check` has the last word before it is signed, and says whether it was reviewed.
    fn make(
        arguments: &DecisionArgs,
        action: Action,
        check: impl FnOnce(&Opened, &ToolName, &ToolDefinition) -> Result<bool, Failure>,
    ) -> Result<Self, Failure> {
        if arguments.reason.trim().is_empty() {
            return Err(Failure::usage("--reason is empty: say why"));
        }
        let opened = Opened::open(&arguments.config.config)?;
        let anchor = opened.anchor()?;
        let name = opened.find(&arguments.tool)?;
        let definition = seen(&opened, &name, arguments.digest.as_deref())?;
        let manual_review = check(&opened, &name, &definition)?;
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
        let understated = match action {
            Action::Approve => changes::understated(&opened, &name.upstream, &definition),
            Action::Reject => None,
        };
        Ok(Self {
            file: opened.file_of(&name),
            is_declared: opened.declares(&name),
            understated,
            name,
            definition,
            approved,
        })
    }

    fn pins(&self) -> PathBuf {
        pins_path(&self.file)
    }

    /// Gives a tool without a table the one that a scan would write.
    fn declare(&self) -> Result<Option<String>, Failure> {
        if self.is_declared {
            return Ok(None);
        }
        let files = CatalogueFiles::read(&self.file).map_err(Failure::failed)?;
        let table = declaration(&self.name.upstream, &self.definition);
        let added = files.append(&table).map_err(|error| {
            Failure::failed(format!(
                "{error}; it is approved, and cannot be called until its table stands there:\n{}",
                printable_lines(&table)
            ))
        })?;
        Ok(added.then_some(table))
    }

    fn tell(&self, done: &str, added: Option<String>, as_json: bool) -> Result<(), Failure> {
        let ToolName { upstream, tool } = &self.name;
        let digest = digest_text(&self.definition.digest());
        let (by, pins) = (&self.approved.by, self.pins());
        let value = json!({
            "upstream": upstream, "tool": tool, "digest": digest, "state": done, "by": by,
            "file": pins, "added": added, "understated": self.understated,
        });
        let mut text = format!(
            "{done} {upstream}:{} {digest} by {by}\nwrote {}\n",
            printable(tool),
            pins.display()
        );
        if let Some(table) = added {
            let file = self.file.display();
            text.push_str(&format!(
                "added its table to {file}; scope, trust, risk and permissions are guesses, to be corrected there:\n{}",
                printable_lines(&table)
            ));
        }
        if let Some(understated) = &self.understated {
            text.push_str(&format!("{}\n", printable(understated)));
        }
        print(as_json, &value, &text)
    }
}

/// A text of several lines, each [`printable`].
fn printable_lines(text: &str) -> String {
    let lines = text.lines();
    lines.map(|line| printable(line) + "\n").collect()
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
        Some(wanted) if !is_named(&digest, wanted)? => Err(Failure::failed(format!(
            "`{upstream}:{tool}` has the digest {digest} by now: look at `catalogue diff` again"
        ))),
        _ => Ok(definition),
    }
}

/// Whether a digest begins as it is written: `sha256:` may be left out, and all but 12 digits.
fn is_named(digest: &str, written: &str) -> Result<bool, Failure> {
    let digits = written.strip_prefix("sha256:").unwrap_or(written);
    let is_digest = (LEAST_DIGITS..=64).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_digest {
        return Err(Failure::usage(format!(
            "--digest `{written}`: write it as `catalogue diff` shows it, or its first {LEAST_DIGITS} digits at least"
        )));
    }
    let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
    Ok(digest.starts_with(&digits.to_ascii_lowercase()))
}

pub(super) fn assess(arguments: &AssessArgs) -> Result<(), Failure> {
    let opened = Opened::open(&arguments.config.config)?;
    let anchor = opened.anchor()?;
    let parts = opened.config.catalogue_parts.as_ref();
    let parts = parts.ok_or_else(|| Failure::usage("the configuration has no catalogue"))?;
    let mut taken = Vec::new();
    let mut files = std::collections::BTreeMap::new();
    let all: Vec<&Path> = parts.declared().filter_map(|(_, file)| file).collect();
    let held = FolderLock::of_all(all.into_iter().chain([opened.path()]));
    let _held = held.map_err(Failure::failed)?;
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
        let (tool, tier) = (printable(&taken.tool), taken.tier());
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
        let is_declared = opened.declares(&name);
        is_declared.then(|| pins_path(&opened.file_of(&name)))
    });
    let places: std::collections::BTreeSet<PathBuf> = places.collect();
    if places.is_empty() {
        return Err(Failure::failed(format!(
            "no `[[tool]]` is `{tool}`, which an assessment is about"
        )));
    }
    Ok(places.into_iter().collect())
}

/// What people can compare by eye.
const LEAST_DIGITS: usize = 12;

fn write_pins(file: &Path, pins: &agentca_policy::PinsFile) -> Result<(), Failure> {
    let json = pins.to_json().map_err(Failure::failed)?;
    write_file(file, json.as_bytes()).map_err(Failure::failed)
}
