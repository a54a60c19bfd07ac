//! A table of the file, taken key by key.
//!
//! What is missing, of another type or unknown is noted, and reading goes on: everything that is
//! wrong is told at once.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::{Table, Value};

use super::errors::{Errors, blame, note};
use super::units::{parse_duration, parse_size, show_duration, show_size};

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Section {
    /// Where it is: nothing for the top of the file, else like `route[2]`.
    at: String,
    table: Table,
    /// The keys that were asked for, which are all there are.
    keys: Vec<&'static str>,
}

/// Where a key may belong that is unknown here, and the keys there.
pub(super) type Elsewhere<'a> = (&'static str, &'a [&'static str]);

impl Section {
    pub(super) fn new(at: impl Into<String>, table: Table) -> Self {
        let at = at.into();
        Self {
            at,
            table,
            keys: Vec::new(),
        }
    }

    /// The keys that were asked for so far.
    pub(super) fn keys(&self) -> &[&'static str] {
        &self.keys
    }

    /// The full name of a key of this table.
    pub(super) fn key(&self, name: &str) -> String {
        if self.at.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.at)
        }
    }

    /// Text that may be absent.
    pub(super) fn text(
        &mut self,
        errors: &mut Errors,
        name: &'static str,
        example: &str,
    ) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => {
                let wanted = format!("text in quotes, like `{name} = \"{example}\"`");
                self.wrong_type(errors, name, &other, &wanted)
            }
        }
    }

    /// Text that must be there.
    pub(super) fn required(
        &mut self,
        errors: &mut Errors,
        name: &'static str,
        example: &str,
    ) -> Option<String> {
        if !self.table.contains_key(name) {
            self.keys.push(name);
            self.missing(errors, name, &format!("\"{example}\""));
            return None;
        }
        self.text(errors, name, example)
    }

    /// Says that a key is missing.
    pub(super) fn missing(&self, errors: &mut Errors, name: &str, example: &str) {
        let message = format!("is missing: write it like `{name} = {example}`");
        blame(errors, self.key(name), message);
    }

    /// A list of text; none when a member is something else.
    pub(super) fn texts(
        &mut self,
        errors: &mut Errors,
        name: &'static str,
        example: &str,
    ) -> Option<Vec<String>> {
        let wanted = format!("a list of text, like `{name} = [\"{example}\"]`");
        let members = match self.take(name) {
            None => return Some(Vec::new()),
            Some(Value::Array(members)) => members,
            Some(other) => return self.wrong_type(errors, name, &other, &wanted),
        };
        let texts: Vec<Option<String>> = (1..)
            .zip(members)
            .map(|(number, member): (u32, _)| match member {
                Value::String(text) => Some(text),
                other => self.wrong_type(errors, &format!("{name}[{number}]"), &other, &wanted),
            })
            .collect();
        texts.into_iter().collect()
    }

    /// The table `name = { KEY = "text" }`, empty when absent; what is wrong in it is left out.
    pub(super) fn named_texts(
        &mut self,
        errors: &mut Errors,
        name: &'static str,
        example: &str,
    ) -> BTreeMap<String, String> {
        let wanted = format!("a table of text, like `{name} = {{ {example} }}`");
        let members = match self.take(name) {
            None => return BTreeMap::new(),
            Some(Value::Table(members)) => members,
            Some(other) => {
                return self
                    .wrong_type(errors, name, &other, &wanted)
                    .unwrap_or_default();
            }
        };
        let texts = members
            .into_iter()
            .filter_map(|(key, member)| match member {
                Value::String(text) => Some((key, text)),
                other => self.wrong_type(errors, &format!("{name}.{key}"), &other, &wanted),
            });
        texts.collect()
    }

    /// `true` or `false`, the latter when absent.
    pub(super) fn flag(&mut self, errors: &mut Errors, name: &'static str) -> bool {
        self.optional_flag(errors, name).unwrap_or_default()
    }

    /// `true` or `false`, when one of them is there.
    pub(super) fn optional_flag(
        &mut self,
        errors: &mut Errors,
        name: &'static str,
    ) -> Option<bool> {
        match self.take(name)? {
            Value::Boolean(flag) => Some(flag),
            other => {
                let wanted = format!("`{name} = true` or `{name} = false`");
                self.wrong_type(errors, name, &other, &wanted)
            }
        }
    }

    /// A duration within `range`, with its default.
    pub(super) fn duration(
        &mut self,
        errors: &mut Errors,
        name: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let example = format!("`{name} = \"{}\"`", show_duration(default));
        let text = match self.take(name) {
            None => return default,
            Some(Value::String(text)) => text,
            Some(other) => {
                let wanted = format!("text with a unit, like {example}");
                return self
                    .wrong_type(errors, name, &other, &wanted)
                    .unwrap_or(default);
            }
        };
        let bounds = || {
            let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
            format!("`{text}` is not within {least} and {most}")
        };
        let value = parse_duration(&text)
            .map_err(|error| format!("{error}, like {example}"))
            .and_then(|value| range.contains(&value).then_some(value).ok_or_else(bounds));
        note(errors, &self.key(name), value).unwrap_or(default)
    }

    /// A size within `range` bytes, with its default; a bare number is bytes.
    pub(super) fn size(
        &mut self,
        errors: &mut Errors,
        name: &'static str,
        default: usize,
        range: RangeInclusive<u64>,
    ) -> usize {
        let shown = show_size(u64::try_from(default).unwrap_or(u64::MAX));
        let example = format!("`{name} = \"{shown}\"`");
        let value = match self.take(name) {
            None => return default,
            Some(Value::Integer(bytes)) => within(bytes.into(), &range, show_size),
            Some(Value::String(text)) => parse_size(&text)
                .map_err(|error| format!("{error}, like {example}"))
                .and_then(|bytes| within(bytes.into(), &range, show_size)),
            Some(other) => {
                let wanted = format!("a number of bytes, or text with a unit, like {example}");
                return self
                    .wrong_type(errors, name, &other, &wanted)
                    .unwrap_or(default);
            }
        };
        note(errors, &self.key(name), value).unwrap_or(default)
    }

    /// A whole number within `range`, with its default.
    pub(super) fn count<N: TryFrom<i128> + ToString + Copy>(
        &mut self,
        errors: &mut Errors,
        name: &'static str,
        default: N,
        range: RangeInclusive<u64>,
    ) -> N {
        let value = match self.take(name) {
            None => return default,
            Some(Value::Integer(count)) => within(count.into(), &range, |bound| bound),
            Some(other) => {
                let wanted = format!(
                    "a whole number without quotes, like `{name} = {}`",
                    default.to_string()
                );
                return self
                    .wrong_type(errors, name, &other, &wanted)
                    .unwrap_or(default);
            }
        };
        note(errors, &self.key(name), value).unwrap_or(default)
    }

    /// The tables `[[name]]`, each with its place from 1.
    pub(super) fn tables(
        &mut self,
        errors: &mut Errors,
        name: &'static str,
    ) -> Vec<(usize, Table)> {
        let wanted = format!("`[[{name}]]`, with two brackets, before each");
        let members = match self.take(name) {
            None => return Vec::new(),
            Some(Value::Array(members)) => members,
            Some(other) => {
                return self
                    .wrong_type(errors, name, &other, &wanted)
                    .unwrap_or_default();
            }
        };
        let numbered = (1..).zip(members);
        numbered
            .filter_map(|(number, member)| match member {
                Value::Table(table) => Some((number, table)),
                other => self.wrong_type(errors, &format!("{name}[{number}]"), &other, &wanted),
            })
            .collect()
    }

    /// The table `[name]`, empty when absent.
    pub(super) fn table(&mut self, errors: &mut Errors, name: &'static str) -> Section {
        self.optional_table(errors, name)
            .unwrap_or_else(|| Self::new(self.key(name), Table::new()))
    }

    /// The table `[name]`, when it is there.
    pub(super) fn optional_table(
        &mut self,
        errors: &mut Errors,
        name: &'static str,
    ) -> Option<Section> {
        match self.take(name)? {
            Value::Table(table) => Some(Self::new(self.key(name), table)),
            other => {
                let wanted = format!("`[{name}]` on a line of its own, then its keys");
                self.wrong_type(errors, name, &other, &wanted)
            }
        }
    }

    /// The tables `[name.WORD]`, by a word that whoever wrote them chose.
    pub(super) fn tables_by_name(
        &mut self,
        errors: &mut Errors,
        name: &'static str,
    ) -> Vec<(String, Section)> {
        let at = self.key(name);
        let all = self.table(errors, name).table;
        all.into_iter()
            .filter_map(|(word, value)| {
                let at = format!("{at}.\"{word}\"");
                let Value::Table(table) = value else {
                    blame(errors, at, "is no table: write its keys below `[…]`");
                    return None;
                };
                Some((word, Section::new(at, table)))
            })
            .collect()
    }

    /// Whatever stands at a key: for what may be secret, and must not be shown when it is wrong.
    pub(super) fn value(&mut self, name: &'static str) -> Option<Value> {
        self.take(name)
    }

    /// Ends reading: every key that nobody asked for is unknown.
    pub(super) fn finish(self, errors: &mut Errors, elsewhere: &[Elsewhere<'_>]) {
        for name in self.table.keys() {
            let place = elsewhere
                .iter()
                .find(|(_, keys)| keys.contains(&name.as_str()));
            let advice = match (nearest(name, &self.keys), place) {
                (_, Some((place, _))) => format!("it belongs {place}"),
                (Some(near), None) => format!("did you mean `{near}`?"),
                (None, None) => format!("the keys here are {}", self.keys.join(", ")),
            };
            blame(
                errors,
                self.key(name),
                format!("is not a key here; {advice}"),
            );
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.keys.push(name);
        self.table.remove(name)
    }

    /// Says what stands at a key and what should; there is no value then.
    fn wrong_type<T>(
        &self,
        errors: &mut Errors,
        name: &str,
        found: &Value,
        wanted: &str,
    ) -> Option<T> {
        let found = match found {
            Value::String(text) => format!("the text \"{text}\""),
            Value::Integer(number) => format!("the number {number}"),
            Value::Float(number) => format!("the number {number}"),
            Value::Boolean(flag) => flag.to_string(),
            Value::Datetime(time) => format!("the time {time}"),
            Value::Array(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        };
        blame(
            errors,
            self.key(name),
            format!("is {found}: write {wanted}"),
        );
        None
    }
}

fn within<N: TryFrom<i128>, S: ToString>(
    value: i128,
    range: &RangeInclusive<u64>,
    show: impl Fn(u64) -> S,
) -> Result<N, String> {
    let bounds = || {
        let (least, most) = (show(*range.start()), show(*range.end()));
        format!(
            "{value} is not within {} and {}",
            least.to_string(),
            most.to_string()
        )
    };
    match u64::try_from(value) {
        Ok(count) if range.contains(&count) => N::try_from(value).map_err(|_| bounds()),
        _ => Err(bounds()),
    }
}

/// The key that somebody meant who wrote another one.
fn nearest(written: &str, keys: &[&'static str]) -> Option<&'static str> {
    const MOST_EDITS: usize = 2;
    if written.len() > 64 {
        return None;
    }
    keys.iter()
        .map(|key| (distance(written, key), *key))
        .filter(|(edits, key)| *edits <= MOST_EDITS && *edits * 4 <= key.len().max(written.len()))
        .min()
        .map(|(_, key)| key)
}

/// How many characters have to be added, dropped or replaced (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (done, letter) in from.chars().enumerate() {
        let (mut diagonal, mut left) = (done, done + 1);
        let mut next = vec![left];
        for (other, above) in to.iter().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(letter != *other);
            left = replaced.min(above + 1).min(left + 1);
            next.push(left);
            diagonal = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (from, to, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("listen", "listen", 0),
            ("lissten", "listen", 1),
            ("stale-after", "stale_after", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(from, to), edits, "{from} {to}");
        }
    }

    #[test]
    fn the_nearest_key_is_near() {
        let keys = ["environment", "listen", "crl"];
        assert_eq!(nearest("enviroment", &keys), Some("environment"));
        assert_eq!(nearest("crls", &keys), Some("crl"));
        assert_eq!(nearest("url", &keys), None);
        assert_eq!(nearest(&"x".repeat(10_000), &keys), None);
    }
}
