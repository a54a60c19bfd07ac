//! What `agentca log` does with a log's directory: offline, and against a root certificate alone.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use agentca_auditlog::disclosure::{Disclosed, decision_of};
use agentca_auditlog::log::Reader;
use agentca_auditlog::proof::ProofFileError;
use agentca_auditlog::verify::{VerifyOptions, signing_key, verify_directory};
use agentca_auditlog::{proof, record};
use agentca_identity::time::Timestamp;
use serde_json::Value;

use crate::cli::Failure;
use crate::credentials;
use crate::output::{Format, count, printable, write_pairs};
use crate::staging::{self, Existing};
use crate::verified::Verified;

/// How often a log is looked at for more.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Which records to show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) from: u64,
    pub(crate) count: Option<u64>,
}

/// Where a proof and its record go.
#[derive(Debug)]
pub(crate) struct ProofFiles<'a> {
    /// Standard output when absent.
    pub(crate) proof: Option<&'a Path>,
    pub(crate) record: Option<&'a Path>,
    pub(crate) existing: Existing,
}

/// How a record is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    /// Its bytes.
    Bytes,
    /// Its bytes, and the end of the line.
    Json,
    /// A line about it.
    Lines,
}

/// What happens when there are no more records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AtEnd {
    Stop,
    Wait,
}

/// Prints records as they are, or a line about each.
pub(crate) fn show(dir: &Path, range: Range, at_end: AtEnd, form: Form) -> Result<(), Failure> {
    demand_log(dir)?;
    let mut reader = Reader::new(dir, range.from);
    let mut found = false;
    let mut left = range.count.unwrap_or(u64::MAX);
    let mut out = io::BufWriter::new(io::stdout().lock());
    while left > 0 {
        let batch = reader.batch();
        let unread = |e| Failure::refused(format!("{} cannot be read: {e}", dir.display()));
        let Some(batch) = batch.map_err(unread)? else {
            // Nobody waits for a line that is still in our hands.
            out.flush()?;
            if at_end == AtEnd::Stop {
                return if found {
                    Ok(())
                } else {
                    Err(nothing_from(dir, range.from, reader.end()))
                };
            }
            std::thread::sleep(LOOK_AGAIN);
            continue;
        };
        found = true;
        for (index, record) in batch {
            if left == 0 {
                break;
            }
            left -= 1;
            // In this form nothing in it can move a terminal's cursor.
            record::scan(&record)
                .map_err(|e| Failure::refused(format!("record {index} is not usable: {e}")))?;
            match form {
                Form::Bytes => out.write_all(&record)?,
                Form::Json => {
                    out.write_all(&record)?;
                    writeln!(out)?;
                }
                Form::Lines => writeln!(out, "{}", line(index, &record))?,
            }
        }
    }
    Ok(out.flush()?)
}

/// Nothing was there to show: refused, since whoever asks for a record by its index must not take an
/// empty answer for one.
fn nothing_from(dir: &Path, from: u64, size: u64) -> Failure {
    let has = match size {
        0 => "no records".to_owned(),
        _ => format!("{}, 0 to {}", count(size, "record"), size.saturating_sub(1)),
    };
    Failure::refused(format!(
        "{} has {has}, and none from {from} on; `--follow` waits for more",
        dir.display()
    ))
}

/// `12 2026-11-21T06:49:20.123Z certificate-issued prod/support-01 …`
fn line(index: u64, record: &[u8]) -> String {
    let record: Value = serde_json::from_slice(record).unwrap_or_default();
    let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or("-");
    let mut line = format!("{index} {} {}", text("time"), text("kind"));
    let told = [
        record
            .get("agent")
            .map(|agent| agent.get("uri").unwrap_or(agent)),
        record.get("subject"),
        record.get("enforcer"),
        record.get("person"),
        record.pointer("/call/method"),
        record
            .pointer("/call/name")
            .or_else(|| record.pointer("/call/template")),
        record.get("upstream"),
        record.get("tool"),
        record.get("decision"),
        record.get("rule"),
        record.pointer("/result/status"),
        record.pointer("/result/ended"),
        record.get("reason"),
        record.get("serial"),
    ];
    for value in told.into_iter().flatten() {
        line.extend(told_as(value).map(|text| format!(" {text}")));
    }
    // A number alone would say nothing.
    if let Some(decision) = record.get("decision_index").and_then(told_as) {
        line.push_str(&format!(" of decision {decision}"));
    }
    if let Some(changes) = record.get("changes").and_then(Value::as_array) {
        let many = u64::try_from(changes.len()).unwrap_or(u64::MAX);
        line.push_str(&format!(" {}", count(many, "change")));
    }
    if let Some(many) = record.get("count").and_then(told_as) {
        line.push_str(&format!(" {many} times"));
    }
    let samples = record.get("samples").and_then(Value::as_array);
    let samples: Vec<String> = samples.into_iter().flatten().filter_map(told_as).collect();
    if !samples.is_empty() {
        line.push_str(&format!(" from {}", samples.join(", ")));
    }
    printable(&line)
}

fn told_as(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Checks a whole log and says what was checked.
pub(crate) fn verify(
    dir: &Path,
    root: &Path,
    floor: Option<&Path>,
    format: Format,
) -> Result<(), Failure> {
    let anchor = credentials::read_anchor(root)?;
    let floor = floor.map(read).transpose()?;
    let options = VerifyOptions {
        floor: floor.as_deref(),
        now: Timestamp::now(),
    };
    demand_log(dir)?;
    let report = verify_directory(dir, &anchor, &options)
        .map_err(|e| Failure::refused(format!("{} does not verify: {e}", dir.display())))?;
    let verified = Verified::of(&report);
    format.print(&verified, |out| write_pairs(out, &verified.pairs()))?;
    Ok(())
}

/// A path that is no log is told apart from a log that was tampered with; a lost log is neither
/// done nor usage, so it counts as refused.
fn demand_log(dir: &Path) -> Result<(), Failure> {
    if dir.join("segments").is_dir() || dir.join("checkpoint").is_file() {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "{} is not the directory of a log: give the folder that holds `segments` and `checkpoint`, \
         like ./edge-1-data/log",
        dir.display()
    )))
}

/// Writes the proof of one record, once it holds under the root.
pub(crate) fn prove(
    dir: &Path,
    index: u64,
    root: &Path,
    files: &ProofFiles<'_>,
) -> Result<(), Failure> {
    let anchor = credentials::read_anchor(root)?;
    demand_log(dir)?;
    let unproven = |error| match error {
        ProofFileError::Beyond { index, size } => Failure::refused(format!(
            "{} has {} under its checkpoint, the newest is {}; record {index} is not among them (yet: one that \
             was just written is in a moment)",
            dir.display(),
            count(size, "record"),
            size.saturating_sub(1)
        )),
        other => Failure::refused(format!("could not prove record {index}: {other}")),
    };
    let (proof, record) = proof::prove(dir, index).map_err(unproven)?;
    proof
        .verify(&record, &anchor, Timestamp::now())
        .map_err(unproven)?;
    let text = proof.write();
    let outputs = [
        files.proof.map(|path| (path, text.as_bytes())),
        files.record.map(|path| (path, record.as_slice())),
    ];
    staging::write_files(outputs.into_iter().flatten(), files.existing)?;
    match files.proof {
        None => io::stdout().write_all(text.as_bytes())?,
        Some(path) => writeln!(
            io::stdout(),
            "wrote the proof of record {index} to {}",
            path.display()
        )?,
    }
    Ok(())
}

/// Checks a proof and its record, and says what they prove.
pub(crate) fn verify_proof(
    proof: &Path,
    record: &Path,
    root: &Path,
    format: Format,
) -> Result<(), Failure> {
    let anchor = credentials::read_anchor(root)?;
    let (note, bytes) = (read(proof)?, read(record)?);
    let proven = proof::verify_proof(&note, &bytes, &anchor, Timestamp::now()).map_err(|e| {
        let (proof, record) = (proof.display(), record.display());
        let hint = match e {
            ProofFileError::Inclusion(_) | ProofFileError::Record(_) => {
                "; the record has to be its exact bytes, as `agentca log show --raw` and `agentca log prove \
                 --record` write them"
            }
            _ => "",
        };
        Failure::refused(format!("{proof} proves nothing about {record}: {e}{hint}"))
    })?;
    let answer = serde_json::json!({
        "origin": proven.origin,
        "index": proven.index,
        "size": proven.size,
        "time": proven.time.rfc3339(),
    });
    format.print(&answer, |out| {
        writeln!(
            out,
            "record {} of {}, written at {}, in a log of {}",
            proven.index,
            proven.origin,
            proven.time.rfc3339(),
            count(proven.size, "record")
        )
    })?;
    Ok(())
}

/// The record with the commitments of a call, which an outcome names.
pub(crate) fn call_record(dir: &Path, index: u64) -> Result<Vec<u8>, Failure> {
    demand_log(dir)?;
    let first = record_at(dir, index)?;
    match decision_of(&first) {
        Some(decision) => record_at(dir, decision),
        None => Ok(first),
    }
}

fn record_at(dir: &Path, index: u64) -> Result<Vec<u8>, Failure> {
    let mut reader = Reader::new(dir, index);
    let batch = reader
        .batch()
        .map_err(|e| Failure::refused(format!("{} cannot be read: {e}", dir.display())))?;
    let mut records = batch.into_iter().flatten();
    let found = records.find(|(at, _)| *at == index);
    let (_, record) = found.ok_or_else(|| nothing_from(dir, index, reader.end()))?;
    Ok(record)
}

/// Holds disclosures against a record and prints what they reveal: all of them, or none.
pub(crate) fn verify_disclosures(
    disclosures: &[String],
    record: &[u8],
    format: Format,
) -> Result<(), Failure> {
    let verify = |text: &String| {
        Disclosed::verify(text, record).map_err(|e| {
            let begin: String = printable(text).chars().take(16).collect();
            Failure::refused(format!("{begin}… reveals nothing of this record: {e}"))
        })
    };
    let told = disclosures.iter().map(verify);
    let told: Vec<Disclosed> = told.collect::<Result<_, _>>()?;
    let answer: Vec<Value> = told
        .iter()
        .map(|told| serde_json::json!({"argument": told.key, "value": told.value}))
        .collect();
    format.print(&answer, |out| {
        for told in &told {
            writeln!(out, "{}  {}", printable(&told.key), printable(&told.value))?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Prints the key that signs the log now.
pub(crate) fn vkey(dir: &Path, root: &Path) -> Result<(), Failure> {
    let anchor = credentials::read_anchor(root)?;
    demand_log(dir)?;
    let key = signing_key(dir, &anchor).map_err(|e| {
        let (dir, root) = (dir.display(), root.display());
        Failure::refused(format!("{dir} names no key under {root}: {e}"))
    })?;
    Ok(writeln!(io::stdout(), "{key}")?)
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|e| Failure::refused(format!("could not read {}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_line_says_what_it_was_how_it_ended_and_how_often() {
        let outcome = br#"{"decision_index":40,"kind":"outcome","result":{"ended":"timed-out","status":200},"time":"t"}"#;
        assert_eq!(
            line(41, outcome),
            "41 t outcome 200 timed-out of decision 40"
        );
        let call = br#"{"call":{"method":"tools/call","name":"mcp:bank:refund","proto":"mcp","upstream":"bank"},"decision":"deny","kind":"decision","rule":"scope","time":"t"}"#;
        assert_eq!(
            line(8, call),
            "8 t decision tools/call mcp:bank:refund deny scope"
        );
        let withheld = br#"{"kind":"tool-withheld","reason":"changed","time":"t","tool":"refund","upstream":"bank"}"#;
        assert_eq!(line(9, withheld), "9 t tool-withheld bank refund changed");
        let refused = br#"{"count":70,"kind":"handshake-refused","reason":"expired","samples":["10.0.0.1","10.0.0.2"],"time":"t"}"#;
        assert_eq!(
            line(7, refused),
            "7 t handshake-refused expired 70 times from 10.0.0.1, 10.0.0.2"
        );
    }
}
