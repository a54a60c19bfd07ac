//! The members of a JSON object that was checked before: names as they are meant, values as they stand.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of one object, in their order.
#[derive(Debug, Default)]
pub(crate) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads an object; `None` for any other value.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The value of a member as it stands.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(own, _)| own == name)?;
        Some(found.1.get())
    }

    /// The value of a member that is text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.raw(name).and_then(text)
    }

    /// The members of a member.
    pub(crate) fn members(&self, name: &str) -> Option<Members<'a>> {
        self.raw(name).and_then(Members::of)
    }

    /// Names as they are meant, and values as they stand.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_ref(), value.get()))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }

    /// A name that a reader which ignores case takes for one of `known`.
    pub(crate) fn disguised(&self, known: &[&str]) -> Option<&str> {
        self.names().find(|name| {
            !known.contains(name) && known.iter().any(|known| folded(name).eq(folded(known)))
        })
    }
}

/// What a value says that is text.
pub(crate) fn text(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

/// Where `part`, a slice of `whole`, stands in it.
pub(crate) fn place(whole: &str, part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let range = start..start.checked_add(part.len())?;
    (whole.get(range.clone())? == part).then_some(range)
}

/// As readers fold that ignore case: two letters beyond ASCII fold into it (Unicode, CaseFolding).
fn folded(name: &str) -> impl Iterator<Item = char> {
    name.chars().map(|letter| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    })
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                // Most messages and their parts have no more.
                let mut members = Vec::with_capacity(8);
                while let Some((name, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name.0, value));
                }
                Ok(Members(members))
            }
        }
        reader.deserialize_map(Object)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_what_their_names_mean() {
        let text = r#"{"n\u0061me": "x", "list" : [1, 2], "inner":{"a":null}}"#;
        let members = Members::of(text).unwrap();
        assert_eq!(members.text("name").as_deref(), Some("x"));
        assert_eq!(members.raw("list"), Some("[1, 2]"));
        assert_eq!(members.members("inner").unwrap().raw("a"), Some("null"));
        assert!(members.members("list").is_none() && members.text("list").is_none());
        assert_eq!(place(text, members.raw("list").unwrap()), Some(28..34));
        assert_eq!(place(text, "list"), None);
        assert!(Members::of("[1]").is_none());
    }

    #[test]
    fn a_name_in_another_case_is_a_disguise() {
        let known = ["name", "task", "arguments"];
        for (name, disguised) in [
            ("name", false),
            ("Name", true),
            ("NAME", true),
            ("ta\u{17f}\u{212a}", true),
            ("naming", false),
            ("\u{e9}", false),
        ] {
            let text = format!("{{\"{name}\":1}}");
            let members = Members::of(&text).unwrap();
            assert_eq!(members.disguised(&known).is_some(), disguised, "{name}");
        }
    }
}
