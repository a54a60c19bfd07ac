//! `agentca-enforcer disclose`: what a tool was called with, as far as that was kept.

use std::path::PathBuf;

use agentca_auditlog::disclosure::{Disclosed, commitments, decision_of};
use agentca_auditlog::log::Reader;
use agentca_auditlog::record;
use clap::Args;
use serde_json::json;

use super::output::{Failure, print};
use crate::config::Config;
use crate::disclosures;

#[derive(Debug, Args)]
pub(super) struct DiscloseArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "AGENTCA_ENFORCER_CONFIG")]
    config: PathBuf,
    /// The record of the call
    #[arg(long, value_name = "INDEX")]
    index: u64,
    /// This argument alone; `...` is what the tool's schema does not declare
    #[arg(long, value_name = "KEY")]
    argument: Option<String>,
    /// Erase what was kept, for good; the log stays as it is and verifies
    #[arg(long)]
    erase: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &DiscloseArgs) -> Result<(), Failure> {
    let config = Config::load(&arguments.config).map_err(Failure::usage)?;
    let call = Call::find(&config, arguments.index)?;
    if arguments.erase {
        erase(arguments, &config, &call)
    } else {
        show(arguments, &config, &call)
    }
}

/// The record that has the commitments of a call.
struct Call {
    index: u64,
    record: Vec<u8>,
}

impl Call {
    /// Whoever has an answer knows the record of its outcome, which names the one of the decision.
    fn find(config: &Config, index: u64) -> Result<Self, Failure> {
        let first = read(config, index)?;
        let (index, record) = match decision_of(&first) {
            Some(decision) => (decision, read(config, decision)?),
            None => (index, first),
        };
        Ok(Self { index, record })
    }
}

fn read(config: &Config, index: u64) -> Result<Vec<u8>, Failure> {
    let dir = config.log_dir();
    let failed = |why: &dyn std::fmt::Display| Failure::failed(format!("{}: {why}", dir.display()));
    let batch = Reader::new(&dir, index).batch();
    let batch = batch.map_err(|error| failed(&error))?;
    let found = batch.and_then(|batch| batch.into_iter().find(|(at, _)| *at == index));
    let (_, record) = found.ok_or_else(|| failed(&format!("there is no record {index}")))?;
    Ok(record)
}

fn show(arguments: &DiscloseArgs, config: &Config, call: &Call) -> Result<(), Failure> {
    let unreadable = |why: &dyn std::fmt::Display| {
        Failure::failed(format!("record {} cannot be read: {why}", call.index))
    };
    let committed = commitments(&call.record).map_err(|error| unreadable(&error))?;
    if committed.is_empty() {
        return Err(Failure::failed(format!(
            "record {} has no arguments: only calls of pinned tools have, when they were given any",
            call.index
        )));
    }
    let scanned = record::scan(&call.record).and_then(|scanned| scanned.time());
    let time = scanned.map_err(|error| unreadable(&error))?;
    let dir = disclosures::dir(config);
    let kept = disclosures::find(&dir, call.index, time)
        .map_err(|error| Failure::failed(format!("{}: {error}", dir.display())))?;
    // A number may have been given twice: to a call whose record was lost, and to this one.
    let own = kept.into_iter().filter_map(|text| {
        let told = Disclosed::verify(&text, &call.record).ok()?;
        let wanted = arguments
            .argument
            .as_ref()
            .is_none_or(|key| *key == told.key);
        wanted.then_some((told, text))
    });
    let own: Vec<(Disclosed, String)> = own.collect();
    if own.is_empty() {
        return Err(nothing(arguments, call));
    }
    let rows: Vec<_> = own
        .iter()
        .map(|(told, text)| json!({"argument": told.key, "value": told.value, "disclosure": text}))
        .collect();
    let lines: String = own.iter().map(|(_, text)| format!("{text}\n")).collect();
    print(
        arguments.json,
        &json!({"index": call.index, "disclosures": rows}),
        &lines,
    )
}

fn erase(arguments: &DiscloseArgs, config: &Config, call: &Call) -> Result<(), Failure> {
    let dir = disclosures::dir(config);
    let erased = disclosures::erase(&dir, call.index, arguments.argument.as_deref())
        .map_err(|error| Failure::failed(format!("{}: {error}", dir.display())))?;
    if erased == 0 {
        return Err(nothing(arguments, call));
    }
    let text = format!("erased {erased} of record {}\n", call.index);
    print(
        arguments.json,
        &json!({"index": call.index, "erased": erased}),
        &text,
    )
}

fn nothing(arguments: &DiscloseArgs, call: &Call) -> Failure {
    let what = match &arguments.argument {
        Some(key) => format!("`{}`", super::output::printable(key)),
        None => "nothing".to_owned(),
    };
    let verb = if arguments.argument.is_some() {
        "is not"
    } else {
        "is"
    };
    Failure::failed(format!(
        "{what} {verb} kept of record {}: values are kept with `disclosures = \"keep\"`, until \
         `disclosures_max_age`, and unless they were erased; the caller can still reveal them",
        call.index
    ))
}
