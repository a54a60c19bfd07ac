//! What a command prints: columns for people, JSON for machines; and how it fails.

use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::Value;

use super::{NAME, UNREACHABLE, USAGE};
use crate::reload::Refused;

/// Rows under headings, each column as wide as its widest cell.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(headings: [&str; N]) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned)],
        }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| printable(&cell)));
    }

    /// The whole table.
    pub(super) fn text(&self) -> String {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(cell);
                let padding = width.saturating_sub(cell.chars().count()).saturating_add(2);
                line.extend(std::iter::repeat_n(' ', padding));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The text without anything that could move a terminal's cursor, and with what nobody would see in it: a person
/// approves what they see, and a model reads all of it.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.push('\u{fffd}');
        } else if is_invisible(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// A word of a command that is to be copied: a shell takes it as it is, and does nothing else with it.
pub(super) fn shell_word(text: &str) -> String {
    let is_plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b':');
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    printable(&format!("'{}'", text.replace('\'', r"'\''")))
}

/// Format characters, selectors of variants, fillers and tags (Unicode 17: `Default_Ignorable_Code_Point`, and the
/// general category Cf).
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Prints text. Whoever reads no further has seen enough.
pub(super) fn put(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    heard(written)
}

fn heard(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::failed(format!("cannot print: {error}"))),
    }
}

/// Prints text, or JSON for machines.
pub(super) fn print(json: bool, value: &Value, text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = if json {
        serde_json::to_writer_pretty(&mut out, value)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        out.write_all(text.as_bytes())
    };
    heard(written.and_then(|()| out.flush()))
}

/// Says that what files say is not what is in force.
pub(super) fn told(refused: &Refused) {
    let Refused { at, why } = refused;
    eprintln!(
        "{NAME}: the running enforcer refused the last reload, at {at}, and goes on with what it had: {why}"
    );
}

/// Why a command did not do what it should.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Its caller has to write something else.
    Usage(String),
    /// Refused, or failed.
    Failed(String),
    /// Nobody answered.
    Unreachable(String),
    /// There is something to see to, and it was asked for as a failure.
    Found,
}

impl Failure {
    pub(super) fn usage(message: impl ToString) -> Self {
        Self::Usage(message.to_string())
    }

    pub(super) fn failed(message: impl ToString) -> Self {
        Self::Failed(message.to_string())
    }
}

/// Tells how a command ended.
pub(super) fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Found) => ExitCode::FAILURE,
        Err(Failure::Failed(message)) => {
            eprintln!("{NAME}: {message}");
            ExitCode::FAILURE
        }
        Err(Failure::Usage(message)) => {
            eprintln!("{NAME}: {message}");
            ExitCode::from(USAGE)
        }
        Err(Failure::Unreachable(message)) => {
            eprintln!("{NAME}: {message}");
            ExitCode::from(UNREACHABLE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_would_see_is_shown() {
        let hidden = "Pays.\u{e0041}\u{202e}\u{200b}\n\u{fe0f}Größe €\u{feff}";
        assert_eq!(
            printable(hidden),
            "Pays.\\u{e0041}\\u{202e}\\u{200b}\u{fffd}\\u{fe0f}Größe €\\u{feff}"
        );
    }

    #[test]
    fn what_a_shell_would_read_otherwise_is_quoted() {
        for (text, expected) in [
            ("files:status", "files:status"),
            ("/etc/agentca/enforcer.toml", "/etc/agentca/enforcer.toml"),
            ("", "''"),
            ("~/my files", "'~/my files'"),
            ("it's $(x)", r"'it'\''s $(x)'"),
            ("a\u{1b}[2J\u{202e}", "'a\u{fffd}[2J\\u{202e}'"),
        ] {
            assert_eq!(shell_word(text), expected);
        }
    }

    #[test]
    fn columns_line_up_and_control_characters_do_nothing() {
        let mut table = Table::new(["TOOL", "WHY"]);
        table.row(["a".into(), "x\u{1b}[2J".into()]);
        table.row(["longer-name".into(), "y".into()]);
        assert_eq!(
            table.text(),
            "TOOL         WHY\na            x\u{fffd}[2J\nlonger-name  y\n"
        );
    }
}
