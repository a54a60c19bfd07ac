//! Puts one member into a JSON text and leaves every other byte as it is. The text may have comments and
//! trailing commas, as editors allow them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::EditError;

/// Puts `name` into the object `key` of the text's object, in place of what has that name; `value` is given
/// the indentation of its line.
pub(super) fn insert(
    text: &str,
    key: &str,
    name: &str,
    value: &dyn Fn(&str) -> String,
) -> Result<String, EditError> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let (key_text, name_text) = (quoted(key), quoted(name));
    if text.trim().is_empty() {
        let value = value(STEP2);
        return Ok(format!(
            "{{\n{STEP}{key_text}: {{\n{STEP2}{name_text}: {value}\n{STEP}}}\n}}\n"
        ));
    }
    let plain = Plain::of(text);
    let whole: &RawValue = serde_json::from_str(&plain.strict)?;
    let top = members(whole, "the file")?;
    let Some(servers) = only(&top, key)? else {
        let member = |indent: &str| {
            let inner = format!("{indent}{STEP}");
            let value = value(&inner);
            format!("{key_text}: {{\n{inner}{name_text}: {value}\n{indent}}}")
        };
        return Ok(plain.add(whole, &top, &member));
    };
    let inside = members(servers, key)?;
    if let Some(old) = only(&inside, name)? {
        let (from, to) = plain.place(old);
        let value = value(&indentation(text, from));
        return Ok(splice(text, from, to, &value));
    }
    let member = |indent: &str| format!("{name_text}: {}", value(indent));
    Ok(plain.add(servers, &inside, &member))
}

/// A text, and the same without what strict JSON has not: everything else is where it was.
struct Plain<'a> {
    text: &'a str,
    /// Spaces in place of comments.
    uncommented: String,
    /// And in place of trailing commas.
    strict: String,
}

impl<'a> Plain<'a> {
    fn of(text: &'a str) -> Self {
        let uncommented = without_comments(text);
        let strict = without_trailing_commas(&uncommented);
        Self {
            text,
            uncommented,
            strict,
        }
    }

    /// Where a part of the strict text is: it was borrowed from it.
    fn place(&self, part: &RawValue) -> (usize, usize) {
        let (part, whole) = (part.get(), self.strict.as_str());
        let from = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
        (from, from.saturating_add(part.len()))
    }

    /// Adds a member at the end of an object, on a line of its own.
    fn add(
        &self,
        object: &RawValue,
        members: &Members<'_>,
        member: &dyn Fn(&str) -> String,
    ) -> String {
        let (from, to) = self.place(object);
        let outer = indentation(self.text, from);
        // What ends the object's content, a comment perhaps, stays before the new member.
        let inner = self
            .text
            .get(from..to.saturating_sub(1))
            .unwrap_or_default();
        let content = from.saturating_add(inner.trim_end().len());
        let step = format!("{outer}{STEP}");
        let Some((_, last)) = members.0.last() else {
            let filled = format!("\n{step}{}\n{outer}}}", member(&step));
            return splice(self.text, content, to, &filled);
        };
        let (last_from, last_to) = self.place(last);
        let own = indentation(self.text, last_from);
        // All on one line: the new one is set off.
        let indent = if own.len() > outer.len() { own } else { step };
        let longer = splice(
            self.text,
            content,
            content,
            &format!("\n{indent}{}", member(&indent)),
        );
        let after_last = self.uncommented.get(last_to..content).unwrap_or_default();
        match after_last.contains(',') {
            true => longer,
            false => splice(&longer, last_to, last_to, ","),
        }
    }
}

fn splice(text: &str, from: usize, to: usize, new: &str) -> String {
    let before = text.get(..from).unwrap_or_default();
    let after = text.get(to..).unwrap_or_default();
    format!("{before}{new}{after}")
}

/// The white space that the line of a place begins with.
fn indentation(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    let blank = |c: &char| matches!(c, ' ' | '\t');
    line.chars().take_while(blank).collect()
}

/// The pieces of a text that are strings and comments, and what is between them.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = match rest.as_bytes() {
            [] => return None,
            [b'"', ..] => string_end(rest),
            [b'/', b'/', ..] => rest.find('\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => {
                let inside = rest.get(2..).unwrap_or_default();
                inside.find("*/").map_or(rest.len(), |at| at + 4)
            }
            _ => rest
                .char_indices()
                .skip(1)
                .find(|(_, c)| matches!(c, '"' | '/'))
                .map_or(rest.len(), |(at, _)| at),
        };
        let (piece, more) = rest.split_at_checked(end)?;
        rest = more;
        Some(piece)
    })
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |at| at + 2)
}

fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for piece in pieces(text) {
        if piece.starts_with("//") || (piece.starts_with("/*") && piece.ends_with("*/")) {
            let blank = piece
                .bytes()
                .map(|byte| if byte == b'\n' { '\n' } else { ' ' });
            plain.extend(blank);
        } else {
            plain.push_str(piece);
        }
    }
    plain
}

/// A comma goes when nothing but white space stands between it and the end of an object or list that holds
/// something.
fn without_trailing_commas(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut at = 0;
    for piece in pieces(text) {
        if piece.starts_with('"') {
            plain.push_str(piece);
        } else {
            for (offset, c) in piece.char_indices() {
                let rest = text.get(at + offset + 1..).unwrap_or_default();
                let trailing = c == ','
                    && rest.trim_start().starts_with(['}', ']'])
                    && !plain.trim_end().ends_with(['{', '[']);
                plain.push(if trailing { ' ' } else { c });
            }
        }
        at += piece.len();
    }
    plain
}

/// The members of an object in their order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

fn members<'a>(object: &'a RawValue, name: &str) -> Result<Members<'a>, EditError> {
    if !object.get().starts_with('{') {
        return Err(EditError::NotAnObject(name.to_owned()));
    }
    Ok(serde_json::from_str(object.get())?)
}

fn only<'a>(members: &Members<'a>, name: &str) -> Result<Option<&'a RawValue>, EditError> {
    let mut found = members.0.iter().filter(|(key, _)| key == name);
    let first = found.next().map(|(_, value)| *value);
    match found.next() {
        Some(_) => Err(EditError::Twice(name.to_owned())),
        None => Ok(first),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members<'de>, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

const STEP: &str = "  ";
const STEP2: &str = "    ";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let after = insert(text, "s", "n", &|_| "1".to_owned()).unwrap();
        assert_eq!(after, expected);
    }

    #[test]
    fn one_member_is_put_where_it_belongs() {
        check("", "{\n  \"s\": {\n    \"n\": 1\n  }\n}\n");
        check("{}", "{\n  \"s\": {\n    \"n\": 1\n  }\n}");
        check(
            "{\n\t\"a\": 2\n}\n",
            "{\n\t\"a\": 2,\n\t\"s\": {\n\t  \"n\": 1\n\t}\n}\n",
        );
        check("{\"s\": {}}", "{\"s\": {\n  \"n\": 1\n}}");
        check(
            "{\n  \"s\": {\n    \"m\": [ 2 ]\n  }\n}",
            "{\n  \"s\": {\n    \"m\": [ 2 ],\n    \"n\": 1\n  }\n}",
        );
        check(
            "{\"s\":{\"n\":{\"old\":0},\"m\":2}}",
            "{\"s\":{\"n\":1,\"m\":2}}",
        );
        check("{\"s\":{\"m\":2}}", "{\"s\":{\"m\":2,\n  \"n\": 1}}");
    }

    #[test]
    fn comments_and_trailing_commas_stay_where_they_are() {
        check(
            "// top, with {\n{\n  \"s\": { // \"servers\"\n    \"m\": 2, // two, \u{fc}\n    /* more: } */\n  },\n}\n",
            "// top, with {\n{\n  \"s\": { // \"servers\"\n    \"m\": 2, // two, \u{fc}\n    /* more: } */\n    \
             \"n\": 1\n  },\n}\n",
        );
        check(
            "{\n  \"s\": {\n    \"m\": \"//no\\\"//\" // yes\n  }\n}",
            "{\n  \"s\": {\n    \"m\": \"//no\\\"//\", // yes\n    \"n\": 1\n  }\n}",
        );
        check(
            "{\n  \"s\": {\n    // none yet\n  }\n}",
            "{\n  \"s\": {\n    // none yet\n    \"n\": 1\n  }\n}",
        );
        check(
            "{ \"s\": { \"n\": [1, 2,], /* own */ }, }",
            "{ \"s\": { \"n\": 1, /* own */ }, }",
        );
    }

    #[test]
    fn what_could_be_misread_is_refused() {
        for text in [
            "[]",
            "1",
            "{\"s\": []}",
            "{\"s\":{},\"s\":{}}",
            "{\"s\":{\"n\":1,\"n\":2}}",
            "{\"a\":1,,}",
            "{,}",
            "{\"a\":1 /* open }",
            "{\"a\":1} /* open",
            "{\"a\":/ / 1}",
            "{\"a\":\"open}",
        ] {
            assert!(
                insert(text, "s", "n", &|_| "1".to_owned()).is_err(),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_rest_of_any_object_stays(
            members in proptest::collection::btree_map("[a-z]{1,3}", "[ -~]{0,8}", 0..5),
            servers in proptest::option::of(proptest::collection::btree_map("[a-m]{1,3}", 0..9, 0..4)),
            pretty: bool,
        ) {
            let mut before = serde_json::json!(members);
            if let Some(servers) = &servers {
                before["servers"] = serde_json::json!(servers);
            }
            let text = if pretty { format!("{before:#}") } else { before.to_string() };
            let after = insert(&text, "servers", "n", &|_| "true".to_owned()).unwrap();
            let after: serde_json::Value = serde_json::from_str(&after).unwrap();
            before["servers"]["n"] = true.into();
            prop_assert_eq!(after, before);
        }
    }
}
