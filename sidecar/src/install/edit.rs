//! Puts one member into a JSON text and leaves every other byte as it is.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why a text can't be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    #[error("it is not plain JSON ({0}), perhaps it has comments")]
    NotJson(#[from] serde_json::Error),
    #[error("`{0}` is there twice")]
    Twice(String),
    #[error("`{0}` is no object")]
    NotAnObject(String),
}

/// Puts `name` into the object `key` of the text's object, in place of what has that name; `value` is given
/// the indentation of its line.
pub(crate) fn insert(
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
    let whole: &RawValue = serde_json::from_str(text)?;
    let top = members(whole, "the file")?;
    let Some(servers) = only(&top, key)? else {
        let member = |indent: &str| {
            let inner = format!("{indent}{STEP}");
            let value = value(&inner);
            format!("{key_text}: {{\n{inner}{name_text}: {value}\n{indent}}}")
        };
        return Ok(add(text, whole, &top, "", &member));
    };
    let inside = members(servers, key)?;
    if let Some(old) = only(&inside, name)? {
        let indent = indentation(text, start(text, old));
        return Ok(replace(text, old, &value(&indent)));
    }
    let outer = indentation(text, start(text, servers));
    let member = |indent: &str| format!("{name_text}: {}", value(indent));
    Ok(add(text, servers, &inside, &outer, &member))
}

/// Adds a member at the end of an object, on a line of its own.
fn add(
    text: &str,
    object: &RawValue,
    members: &Members<'_>,
    outer: &str,
    member: &dyn Fn(&str) -> String,
) -> String {
    match members.0.last() {
        None => {
            let indent = format!("{outer}{STEP}");
            let filled = format!("{{\n{indent}{}\n{outer}}}", member(&indent));
            replace(text, object, &filled)
        }
        Some((_, last)) => {
            let own = indentation(text, start(text, last));
            // All on one line: the new one is set off.
            let indent = match own.len() > outer.len() {
                true => own,
                false => format!("{outer}{STEP}"),
            };
            let longer = format!("{},\n{indent}{}", last.get(), member(&indent));
            replace(text, last, &longer)
        }
    }
}

fn replace(text: &str, old: &RawValue, new: &str) -> String {
    let at = start(text, old);
    let (before, rest) = text.split_at_checked(at).unwrap_or((text, ""));
    let after = rest.get(old.get().len()..).unwrap_or_default();
    format!("{before}{new}{after}")
}

/// Where a part of a text begins: it was borrowed from it.
fn start(text: &str, part: &RawValue) -> usize {
    part.get()
        .as_ptr()
        .addr()
        .saturating_sub(text.as_ptr().addr())
}

/// The white space that the line of a place begins with.
fn indentation(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    let blank = |c: &char| matches!(c, ' ' | '\t');
    line.chars().take_while(blank).collect()
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
    fn what_could_be_misread_is_refused() {
        for text in [
            "[]",
            "1",
            "{\"s\": []}",
            "{\"s\":{},\"s\":{}}",
            "{\"s\":{\"n\":1,\"n\":2}}",
            "// x\n{}",
            "{\"a\":1,}",
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
