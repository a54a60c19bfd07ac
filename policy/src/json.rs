//! JSON that has one reading (RFC 8259, and I-JSON, RFC 7493 section 2.3): no name twice in an object, no
//! lone surrogate, no deeper and no more values than the limits, nothing after the end.
//!
//! [`check`] reads everything and keeps nothing. What was checked may be read again by any reader:
//! all of them find the same in it.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// What a text may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonLimits {
    /// Objects and arrays within each other; at most 100, which is less than any reader gives up at.
    pub depth: usize,
    /// Values in all, names not counted.
    pub values: usize,
}

/// Why a text was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// A name twice in one object.
    #[error("the name `{0}` appears twice in one object")]
    Duplicate(String),
    /// A name by which the JSON library marks values of its own: it would read another value there.
    #[error("the name `{0}` is reserved")]
    Reserved(String),
    /// Deeper than the limit.
    #[error("it is nested more than {0} deep")]
    TooDeep(usize),
    /// More values than the limit.
    #[error("it has more than {0} values")]
    TooMany(usize),
    /// No JSON.
    #[error("it is not JSON: {0}")]
    Syntax(String),
}

/// The order of names in the canonical form (RFC 8785 section 3.2.3).
#[must_use]
pub fn in_utf16(one: &str, other: &str) -> Ordering {
    if one.is_ascii() && other.is_ascii() {
        return one.cmp(other);
    }
    one.encode_utf16().cmp(other.encode_utf16())
}

/// Reads a text to its end.
///
/// # Errors
/// [`JsonError`] unless it is one JSON value within the limits that every reader reads alike.
pub fn check(text: &[u8], limits: JsonLimits) -> Result<&str, JsonError> {
    // Once for all, and not for each text in it.
    let text = std::str::from_utf8(text).map_err(|error| JsonError::Syntax(error.to_string()))?;
    measure(text, limits).map(|_taken| text)
}

/// Reads a text to its end, and says what it takes of the limits.
///
/// # Errors
/// As [`check`].
pub fn measure(text: &str, limits: JsonLimits) -> Result<JsonLimits, JsonError> {
    let refusal = Cell::new(None);
    let values = Cell::new(limits.values);
    let deepest = Cell::new(limits.depth);
    let strict = Strict {
        depth: limits.depth,
        limits,
        values: &values,
        deepest: &deepest,
        refusal: &refusal,
    };
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = strict.deserialize(&mut reader).and_then(|()| reader.end());
    match (refusal.take(), read) {
        (Some(refusal), _) => Err(refusal),
        (None, Ok(())) => Ok(JsonLimits {
            depth: limits.depth.saturating_sub(deepest.get()),
            values: limits.values.saturating_sub(values.get()),
        }),
        (None, Err(error)) => Err(JsonError::Syntax(error.to_string())),
    }
}

/// How the names begin that `serde_json` takes for marks of its own, and reads another value for than
/// everybody else does.
pub(crate) const RESERVED: &str = "$serde_json::private::";

#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    limits: JsonLimits,
    values: &'a Cell<usize>,
    /// What was left of the depth where it was deepest.
    deepest: &'a Cell<usize>,
    refusal: &'a Cell<Option<JsonError>>,
}

impl Strict<'_> {
    fn refuse<E: serde::de::Error>(self, refusal: JsonError) -> E {
        self.refusal.set(Some(refusal));
        E::custom("refused")
    }

    fn count<E: serde::de::Error>(self) -> Result<(), E> {
        match self.values.get().checked_sub(1) {
            Some(left) => {
                self.values.set(left);
                Ok(())
            }
            None => Err(self.refuse(JsonError::TooMany(self.limits.values))),
        }
    }

    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => {
                self.deepest.set(self.deepest.get().min(depth));
                Ok(Self { depth, ..self })
            }
            None => Err(self.refuse(JsonError::TooDeep(self.limits.depth))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        self.count()?;
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while members.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        let mut names = Names::default();
        while let Some(name) = members.next_key_seed(Name)? {
            if name.starts_with(RESERVED) {
                return Err(self.refuse(JsonError::Reserved(shown(&name))));
            }
            if let Some(twice) = names.add(name) {
                return Err(self.refuse(JsonError::Duplicate(shown(&twice))));
            }
            members.next_value_seed(inner)?;
        }
        Ok(())
    }
}

/// A name as it is meant, escapes resolved; borrowed where it has none.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Cow<'de, str>, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// The names of one object: few are compared, many are hashed.
#[derive(Default)]
struct Names<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Names<'de> {
    /// The name, when it was there before.
    fn add(&mut self, name: Cow<'de, str>) -> Option<Cow<'de, str>> {
        if self.few.len() < FEW {
            if self.few.contains(&name) {
                return Some(name);
            }
            self.few.push(name);
            return None;
        }
        if self.many.is_empty() {
            self.many.extend(self.few.iter().cloned());
        }
        if self.many.contains(&name) {
            return Some(name);
        }
        self.many.insert(name);
        None
    }
}

const FEW: usize = 16;

/// Short enough for an error message.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: JsonLimits = JsonLimits {
        depth: 4,
        values: 40,
    };

    fn refused(text: &str) -> JsonError {
        check(text.as_bytes(), LIMITS).unwrap_err()
    }

    #[test]
    fn a_name_is_compared_as_it_is_meant() {
        let twice = JsonError::Duplicate("name".to_owned());
        assert_eq!(refused(r#"{"name":1,"name":2}"#), twice);
        assert_eq!(refused(r#"{"a":[{"name":1,"n\u0061me":2}]}"#), twice);
        check(br#"{"name":{"name":1},"Name":2}"#, LIMITS).unwrap();
        let mut many: Vec<String> = (0..30).map(|number| format!("\"n{number}\":0")).collect();
        let object = |many: &[String]| format!("{{{}}}", many.join(","));
        check(object(&many).as_bytes(), LIMITS).unwrap();
        many.push("\"n3\":1".to_owned());
        assert_eq!(
            refused(&object(&many)),
            JsonError::Duplicate("n3".to_owned())
        );
    }

    #[test]
    fn what_the_library_would_read_as_another_value_is_refused() {
        let mark = "$serde_json::private::RawValue";
        for text in [
            format!(r#"{{"{mark}":"{{\"a\":1,\"a\":2}}"}}"#),
            r#"{"a":[{"\u0024serde_json::private::RawValue":"1"}]}"#.to_owned(),
            r#"{"$serde_json::private::Number":"1"}"#.to_owned(),
        ] {
            let error = refused(&text);
            assert!(matches!(error, JsonError::Reserved(_)), "{text}: {error}");
        }
        // That it would: what is digested was another text than the one that is shown.
        let read: serde_json::Value =
            serde_json::from_str(&format!(r#"{{"{mark}":"[1]"}}"#)).unwrap();
        assert!(read.is_array(), "the mark has no meaning any more: {read}");
        check(
            br#"{"$serde_json":1,"a":"$serde_json::private::RawValue"}"#,
            LIMITS,
        )
        .unwrap();
    }

    #[test]
    fn limits_hold_at_their_edge() {
        check(b"[[[[]]]]", LIMITS).unwrap();
        assert_eq!(refused("[[[[[]]]]]"), JsonError::TooDeep(4));
        assert_eq!(refused(r#"[[[[{"a":1}]]]]"#), JsonError::TooDeep(4));
        let list = |many: usize| format!("[{}]", vec!["0"; many].join(","));
        check(list(39).as_bytes(), LIMITS).unwrap();
        let taken = measure(r#"[[{"a":1}],2,[]]"#, LIMITS).unwrap();
        assert_eq!((taken.depth, taken.values), (3, 6));
        assert_eq!(measure("0", LIMITS).unwrap().depth, 0);
        assert_eq!(refused(&list(40)), JsonError::TooMany(40));
    }

    #[test]
    fn only_json_is_json() {
        for text in [
            "",
            "{}{}",
            "{} x",
            "[1,]",
            "{\"a\":1,}",
            "01",
            "+1",
            ".5",
            "NaN",
            "1e999",
            "'a'",
            "{a:1}",
            "\"\\ud800\"",
            "\"\\x\"",
            "\"\u{1}\"",
            "// x\n1",
            "\u{feff}{}",
        ] {
            assert!(matches!(refused(text), JsonError::Syntax(_)), "{text}");
        }
        check(b"\"\xff\"", LIMITS).unwrap_err();
        check(b" {\"a\": [1, 2.5e3, null, true, \"x\"]}\n", LIMITS).unwrap();
    }

    proptest! {
        #[test]
        fn it_agrees_with_another_reader(text in "[\\[\\]{}:,\"a0 ]{0,24}") {
            let ours = check(text.as_bytes(), LIMITS);
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            match ours {
                Ok(_) => prop_assert!(theirs.is_ok()),
                Err(JsonError::Syntax(_)) => prop_assert!(theirs.is_err()),
                Err(_) => {}
            }
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
            let _ = check(&bytes, LIMITS);
        }
    }
}
