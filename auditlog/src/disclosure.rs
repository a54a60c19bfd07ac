//! Disclosures: what a tool was called with, kept outside the log and held against it.
//!
//! A record has a commitment to each argument, never its value. The disclosure is RFC 9901's: base64url
//! of the JSON array `[salt, key, value]` with the value as it was handed over; the commitment is
//! base64url of the SHA-256 of that text. Handing over the one string reveals one value; without it the
//! commitment says nothing, and the log stays as it is.
//!
//! The salt of an argument is the first 16 bytes of HMAC-SHA256 under the request's salt over
//! `argument:` and the key, so whoever has the request's salt, the caller, can make each disclosure
//! itself, and one disclosure says nothing of another. What stands for the arguments that the tool's
//! schema does not declare is one disclosure of two elements, `[salt, {…}]`, under the key [`REST`].

use std::fmt;

use agentca_identity::crypto::{MacKey, sha256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Under what a record has the commitment to all arguments that are not in clear. RFC 9901 reserves
/// the name, so it is never an argument's own.
pub const REST: &str = "...";

/// Whether a declared argument may stand in records under its own name: short, and written as it is.
#[must_use]
pub fn is_shown(key: &str) -> bool {
    (1..=MAX_KEY).contains(&key.len())
        && key != REST
        && key != RESERVED
        && !key.contains(['"', '\\'])
        && !key.chars().any(char::is_control)
}

/// The salts of one request's arguments.
#[derive(Clone, Debug)]
pub struct ArgumentSalts(MacKey);

impl ArgumentSalts {
    /// Those that follow from the salt of the request.
    #[must_use]
    pub fn of(request: &[u8; 16]) -> Self {
        Self(MacKey::of_salt(request))
    }

    /// The salt of an argument.
    #[must_use]
    pub fn argument(&self, key: &str) -> [u8; 16] {
        self.salt(&[ARGUMENT, key].concat())
    }

    /// The salt of what is not in clear.
    #[must_use]
    pub fn rest(&self) -> [u8; 16] {
        self.salt(THE_REST)
    }

    fn salt(&self, of: &str) -> [u8; 16] {
        let code = self.0.code(of.as_bytes());
        code.first_chunk().copied().unwrap_or_default()
    }
}

/// Writes disclosures, one after the other into the same memory.
#[derive(Debug)]
pub struct Discloser {
    array: String,
    text: String,
}

impl Default for Discloser {
    fn default() -> Self {
        // Most values are short.
        Self {
            array: String::with_capacity(128),
            text: String::with_capacity(256),
        }
    }
}

impl Discloser {
    /// The disclosure of an argument; `value` is JSON as it was handed over.
    pub fn argument(&mut self, salt: &[u8; 16], key: &str, value: &str) -> &str {
        self.begin(salt);
        push_text(&mut self.array, key);
        self.array.push(',');
        self.array.push_str(value);
        self.end()
    }

    /// The disclosure of the arguments that are not in clear, as one object.
    pub fn rest<'a>(
        &mut self,
        salt: &[u8; 16],
        members: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> &str {
        self.begin(salt);
        let mut before = '{';
        for (key, value) in members {
            self.array.push(before);
            push_text(&mut self.array, key);
            self.array.push(':');
            self.array.push_str(value);
            before = ',';
        }
        if before == '{' {
            self.array.push(before);
        }
        self.array.push('}');
        self.end()
    }

    fn begin(&mut self, salt: &[u8; 16]) {
        self.array.clear();
        self.array.push_str("[\"");
        URL_SAFE_NO_PAD.encode_string(salt, &mut self.array);
        self.array.push_str("\",");
    }

    fn end(&mut self) -> &str {
        self.array.push(']');
        self.text.clear();
        URL_SAFE_NO_PAD.encode_string(&self.array, &mut self.text);
        &self.text
    }
}

/// As RFC 8785 writes text: what a verifier of ours would write, too.
fn push_text(out: &mut String, text: &str) {
    let plain = |c: char| !c.is_control() && c != '"' && c != '\\';
    if text.chars().all(plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}

/// What a record holds of a disclosure: base64url of its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Commitment([u8; LENGTH]);

impl Commitment {
    /// The commitment to a disclosure.
    #[must_use]
    pub fn to(disclosure: &str) -> Self {
        let mut text = [0; LENGTH];
        // 32 bytes always are 43 letters.
        let _written = URL_SAFE_NO_PAD.encode_slice(sha256(disclosure.as_bytes()), &mut text);
        Self(text)
    }

    /// As records hold it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a disclosure says. Nobody vouches for it until it is held against a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disclosed {
    /// The argument, or [`REST`].
    pub key: String,
    /// Its value: JSON as it was handed over; for the rest an object of all of them.
    pub value: String,
}

impl Disclosed {
    /// Reads a disclosure.
    ///
    /// # Errors
    /// [`DisclosureError`] when it is none.
    pub fn read(disclosure: &str) -> Result<Self, DisclosureError> {
        let bytes = URL_SAFE_NO_PAD
            .decode(disclosure)
            .map_err(|_| DisclosureError::Base64)?;
        let parts: Vec<&RawValue> =
            serde_json::from_slice(&bytes).map_err(|_| DisclosureError::Form)?;
        let text = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
        let (salt, key, value) = match parts.as_slice() {
            [salt, value] => (salt, Some(REST.to_owned()), value),
            [salt, key, value] => (salt, text(key).filter(|key| key != REST), value),
            _ => return Err(DisclosureError::Form),
        };
        let (Some(_), Some(key)) = (text(salt), key) else {
            return Err(DisclosureError::Form);
        };
        Ok(Self {
            key,
            value: value.get().to_owned(),
        })
    }

    /// What a record has to say of a disclosure: what was handed over under which name.
    ///
    /// # Errors
    /// [`DisclosureError`]: it is none, or not one of this record's.
    pub fn verify(disclosure: &str, record: &[u8]) -> Result<Self, DisclosureError> {
        let disclosed = Self::read(disclosure)?;
        let committed = commitments(record)?;
        let held = committed.iter().find(|(key, _)| *key == disclosed.key);
        match held {
            Some((_, commitment)) if commitment == Commitment::to(disclosure).as_str() => {
                Ok(disclosed)
            }
            Some(_) => Err(DisclosureError::Other(disclosed.key)),
            None => Err(DisclosureError::NoArgument(disclosed.key)),
        }
    }
}

/// The commitments of a record, by argument; none when its call had none.
///
/// # Errors
/// [`DisclosureError::Record`] when the record cannot be read.
pub fn commitments(record: &[u8]) -> Result<Vec<(String, String)>, DisclosureError> {
    #[derive(Deserialize)]
    struct Record {
        #[serde(default)]
        request: Request,
    }
    #[derive(Default, Deserialize)]
    struct Request {
        #[serde(default)]
        args: serde_json::Map<String, Value>,
    }
    let record: Record = serde_json::from_slice(record).map_err(|_| DisclosureError::Record)?;
    let text = |(key, value)| match value {
        Value::String(commitment) => Ok((key, commitment)),
        _ => Err(DisclosureError::Record),
    };
    record.request.args.into_iter().map(text).collect()
}

/// Where the decision is that an outcome's record belongs to; none for another record.
#[must_use]
pub fn decision_of(record: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Outcome {
        decision_index: crate::record::Number,
    }
    let outcome: Outcome = serde_json::from_slice(record).ok()?;
    Some(outcome.decision_index.0)
}

/// Why a disclosure reveals nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DisclosureError {
    /// Not base64url.
    #[error("it is not base64url without padding")]
    Base64,
    /// Something else than a disclosure.
    #[error("it is not a disclosure: `[salt, key, value]`, or `[salt, {{…}}]`")]
    Form,
    /// The record.
    #[error("the record cannot be read")]
    Record,
    /// The record has no such argument.
    #[error("the record has no argument `{0}`")]
    NoArgument(String),
    /// The record's commitment is to something else.
    #[error("the record's `{0}` was something else")]
    Other(String),
}

/// The longest key that stands in clear, in bytes.
const MAX_KEY: usize = 64;
/// The other name that RFC 9901 reserves.
const RESERVED: &str = "_sd";
const ARGUMENT: &str = "argument:";
const THE_REST: &str = "arguments";
const LENGTH: usize = 43;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(args: &[(&str, &str)]) -> Vec<u8> {
        let args: serde_json::Map<_, _> = args
            .iter()
            .map(|(key, commitment)| ((*key).to_owned(), Value::from(*commitment)))
            .collect();
        serde_json::json!({"kind": "decision", "request": {"id": "1", "args": args}})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn the_form_is_that_of_rfc_9901() {
        // Section 4.2.1 and 4.2.3: the example, spaces and all.
        let example = "WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0";
        let commitment = Commitment::to(example);
        assert_eq!(
            commitment.as_str(),
            "X9yH0Ajrdm1Oij4tWso9UzzKJvPoDxwmuEcO3XAdRC0"
        );
        let record = record(&[("family_name", commitment.as_str())]);
        let disclosed = Disclosed::verify(example, &record).unwrap();
        assert_eq!(disclosed.key, "family_name");
        assert_eq!(disclosed.value, "\"Möbius\"");
        // Section 4.2.2: an element without a name.
        let element = Disclosed::read("WyJsa2x4RjVqTVlsR1RQVW92TU5JdkNBIiwgIkZSIl0").unwrap();
        assert_eq!((&*element.key, &*element.value), (REST, "\"FR\""));
    }

    #[test]
    fn what_is_written_is_read_byte_for_byte() {
        let salts = ArgumentSalts::of(&[7; 16]);
        let mut discloser = Discloser::default();
        for (key, value) in [
            ("amount", "12.50"),
            ("note", "{ \"a\" : [1, 2]}"),
            ("k\"\\\n", "\"\\u0041\""),
        ] {
            let text = discloser.argument(&salts.argument(key), key, value);
            let told = Disclosed::read(text).unwrap();
            assert_eq!((&*told.key, &*told.value), (key, value));
        }
        let members = [("x", "1"), ("y\"", "[ ]")];
        let rest = discloser.rest(&salts.rest(), members);
        let told = Disclosed::read(rest).unwrap();
        assert_eq!((&*told.key, &*told.value), (REST, r#"{"x":1,"y\"":[ ]}"#));
    }

    #[test]
    fn every_argument_has_a_salt_of_its_own() {
        let (one, other) = (ArgumentSalts::of(&[1; 16]), ArgumentSalts::of(&[2; 16]));
        let salts = [
            one.argument("a"),
            one.argument("b"),
            one.argument(""),
            one.rest(),
            one.argument("s"),
            other.argument("a"),
        ];
        let distinct: std::collections::BTreeSet<_> = salts.iter().collect();
        assert_eq!(distinct.len(), salts.len());
        assert_eq!(one.argument("a"), ArgumentSalts::of(&[1; 16]).argument("a"));
    }

    #[test]
    fn another_name_value_or_record_does_not_pass() {
        let salts = ArgumentSalts::of(&[1; 16]);
        let mut discloser = Discloser::default();
        let mut make = |key: &str, value: &str| {
            let salt = salts.argument(key);
            discloser.argument(&salt, key, value).to_owned()
        };
        let (amount, twin, note) = (make("amount", "1"), make("amount", "2"), make("note", "1"));
        let committed = |text: &str| Commitment::to(text).as_str().to_owned();
        let held = record(&[("amount", &committed(&amount))]);
        assert_eq!(Disclosed::verify(&amount, &held).unwrap().value, "1");
        let check = |text: &str, record: &[u8], why: DisclosureError| {
            assert_eq!(Disclosed::verify(text, record).unwrap_err(), why);
        };
        check(&twin, &held, DisclosureError::Other("amount".into()));
        check(&note, &held, DisclosureError::NoArgument("note".into()));
        // The same disclosure under another argument's name reveals nothing.
        let moved = record(&[("note", &committed(&amount))]);
        check(
            &amount,
            &moved,
            DisclosureError::NoArgument("amount".into()),
        );
        check(&amount, b"{}", DisclosureError::NoArgument("amount".into()));
        check(&amount, b"[", DisclosureError::Record);
        check("a+b", &held, DisclosureError::Base64);
        for form in ["\"x\"", "[\"salt\"]", "[1,\"amount\",1]", "[\"s\",1,1]"] {
            let text = URL_SAFE_NO_PAD.encode(form);
            check(&text, &held, DisclosureError::Form);
        }
        // Only two elements stand for the rest.
        let named = URL_SAFE_NO_PAD.encode(r#"["s","...",1]"#);
        check(&named, &held, DisclosureError::Form);
    }

    #[test]
    fn an_outcome_names_its_decision() {
        assert_eq!(
            decision_of(br#"{"decision_index":7,"kind":"outcome"}"#),
            Some(7)
        );
        assert_eq!(decision_of(br#"{"kind":"decision"}"#), None);
    }

    #[test]
    fn only_short_plain_names_are_shown() {
        for (key, shown) in [
            ("amount", true),
            ("Zo\u{eb}", true),
            (&*"k".repeat(64), true),
            (&*"k".repeat(65), false),
            ("", false),
            (REST, false),
            ("_sd", false),
            ("a\"b", false),
            ("a\u{7f}", false),
        ] {
            assert_eq!(is_shown(key), shown, "{key}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(text in "[A-Za-z0-9_-]{0,60}", json in "\\[\"[a-z]{0,3}\"(,.{0,9}){0,3}\\]?") {
            let record = record(&[("amount", &text)]);
            for disclosure in [text, URL_SAFE_NO_PAD.encode(json)] {
                let _whatever = Disclosed::verify(&disclosure, &record);
            }
        }
    }
}
