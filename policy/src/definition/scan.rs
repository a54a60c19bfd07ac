//! A tool that stands plainly in a longer text, read and digested in one pass.
//!
//! [`ToolDefinition::parse`](super::ToolDefinition::parse) is what decides how a definition is read.
//! This reader is for lists of thousands of them: it knows the spellings that servers use, and gives up
//! on every other, be it right or wrong. What it reads it reads as `parse` does.

use agentca_identity::crypto::sha256;

use super::{LIMITS, MAX_DEFINITION};

/// Reads definitions out of one text.
#[derive(Debug)]
pub struct DefinitionScanner<'a> {
    text: &'a str,
    at: usize,
    /// The canonical form, as far as it was read.
    out: Vec<u8>,
    /// Of the objects that are being read, the inner ones last.
    members: Vec<Member<'a>>,
    /// Members on their way to their places.
    sorted: Vec<u8>,
    values: usize,
    depth: usize,
    name: Option<&'a str>,
}

/// A definition that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScannedDefinition<'a> {
    /// As it stands in the text.
    pub raw: &'a str,
    /// The tool's name.
    pub name: &'a str,
    /// As [`ToolDefinition::digest`](super::ToolDefinition::digest) says.
    pub digest: [u8; 32],
    /// Objects and arrays within each other.
    pub depth: usize,
    /// Values in all.
    pub values: usize,
}

/// A member of an object, and where it stands in the canonical form.
#[derive(Debug)]
struct Member<'a> {
    name: &'a str,
    begin: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Object,
    Array,
    Text,
    Number,
    Bool,
    Null,
}

/// What an object is, as far as its members have to be of certain kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Tool,
    Annotations,
    Other,
}

impl<'a> DefinitionScanner<'a> {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            out: Vec::new(),
            members: Vec::new(),
            sorted: Vec::new(),
            values: 0,
            depth: 0,
            name: None,
        }
    }

    /// Reads the definition that begins at `at`. `None` says nothing about what stands there.
    pub fn read(&mut self, at: usize) -> Option<ScannedDefinition<'a>> {
        self.at = at;
        self.out.clear();
        self.members.clear();
        (self.values, self.depth, self.name) = (1, 0, None);
        if self.next()? != b'{' {
            return None;
        }
        self.object(1, Role::Tool)?;
        let raw = self.text.get(at..self.at)?;
        if raw.len() > MAX_DEFINITION {
            return None;
        }
        Some(ScannedDefinition {
            raw,
            name: self.name?,
            digest: sha256(&self.out),
            depth: self.depth,
            values: self.values,
        })
    }

    fn value(&mut self, depth: usize, role: Role) -> Option<Kind> {
        self.values += 1;
        if self.values > LIMITS.values {
            return None;
        }
        match self.next()? {
            b'"' => self.string().map(|()| Kind::Text),
            b'{' => self.object(depth + 1, role).map(|()| Kind::Object),
            b'[' => self.array(depth + 1).map(|()| Kind::Array),
            b't' => self.word("true", Kind::Bool),
            b'f' => self.word("false", Kind::Bool),
            b'n' => self.word("null", Kind::Null),
            b'-' | b'0'..=b'9' => self.integer().map(|()| Kind::Number),
            _ => None,
        }
    }

    fn object(&mut self, depth: usize, role: Role) -> Option<()> {
        self.enter(depth, b'{')?;
        if self.next_after_space()? == b'}' {
            self.at += 1;
            self.out.push(b'}');
            return Some(());
        }
        let first = self.members.len();
        let mut ascending = true;
        loop {
            let member = self.member(depth, role)?;
            let last = self.members.get(first..)?.last();
            ascending &= last.is_none_or(|last| last.name < member.name);
            self.members.push(member);
            if !self.more(b'}')? {
                break;
            }
        }
        if !ascending {
            self.sort(first)?;
        }
        self.members.truncate(first);
        // In place of the last member's comma.
        *self.out.last_mut()? = b'}';
        Some(())
    }

    /// A name, its value, and a comma.
    fn member(&mut self, depth: usize, role: Role) -> Option<Member<'a>> {
        let begin = self.out.len();
        if self.next_after_space()? != b'"' {
            return None;
        }
        let name_at = self.at + 1;
        self.string()?;
        let name = self.text.get(name_at..self.at - 1)?;
        // Beyond ASCII names are sorted in another way than bytes, and escaped they mean another name.
        // The mark of a header makes a schema one that has to be understood, and reserved names are refused.
        let is_marked = name == super::headers::MARK || name.starts_with(crate::json::RESERVED);
        if !name.is_ascii() || name.contains('\\') || is_marked {
            return None;
        }
        self.out.push(b':');
        if self.next_after_space()? != b':' {
            return None;
        }
        self.at += 1;
        self.next_after_space()?;
        let value_at = self.at;
        let inner = match (role, name) {
            (Role::Tool, "annotations") => Role::Annotations,
            _ => Role::Other,
        };
        let kind = self.value(depth, inner)?;
        if !fits(role, name, kind) {
            return None;
        }
        if role == Role::Tool && name == "name" {
            let told = self.text.get(value_at + 1..self.at - 1)?;
            self.name = Some(told).filter(|told| !told.is_empty() && !told.contains('\\'));
        }
        self.out.push(b',');
        Some(Member {
            name,
            begin,
            end: self.out.len(),
        })
    }

    /// Puts members in the order of their names. None where one is there twice.
    fn sort(&mut self, first: usize) -> Option<()> {
        let members = self.members.get_mut(first..)?;
        let begin = members.first()?.begin;
        members.sort_unstable_by_key(|member| member.name);
        if !members.is_sorted_by(|before, after| before.name < after.name) {
            return None;
        }
        self.sorted.clear();
        for member in members.iter() {
            let written = self.out.get(member.begin..member.end)?;
            self.sorted.extend_from_slice(written);
        }
        self.out.get_mut(begin..)?.copy_from_slice(&self.sorted);
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.enter(depth, b'[')?;
        if self.next_after_space()? == b']' {
            self.at += 1;
            self.out.push(b']');
            return Some(());
        }
        loop {
            self.next_after_space()?;
            self.value(depth, Role::Other)?;
            self.out.push(b',');
            if !self.more(b']')? {
                break;
            }
        }
        *self.out.last_mut()? = b']';
        Some(())
    }

    fn enter(&mut self, depth: usize, open: u8) -> Option<()> {
        self.depth = self.depth.max(depth);
        self.at += 1;
        self.out.push(open);
        (depth <= LIMITS.depth).then_some(())
    }

    /// Whether another follows, or the end.
    fn more(&mut self, close: u8) -> Option<bool> {
        let next = self.next_after_space()?;
        self.at += 1;
        match next {
            b',' => Some(true),
            next if next == close => Some(false),
            _ => None,
        }
    }

    fn string(&mut self) -> Option<()> {
        let begin = self.at;
        let bytes = self.text.as_bytes();
        let mut end = begin + 1;
        let mut respelled = false;
        loop {
            let rest = bytes.get(end..)?;
            end += rest.iter().position(|byte| stops(*byte))?;
            match (bytes.get(end)?, bytes.get(end + 1)) {
                (b'"', _) => break,
                (b'\\', Some(b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't')) => end += 2,
                (b'\\', Some(b'/' | b'u')) => {
                    respelled = true;
                    end += 2;
                }
                _ => return None,
            }
        }
        self.at = end + 1;
        let raw = self.text.get(begin..self.at)?;
        if respelled {
            let told: String = serde_json::from_str(raw).ok()?;
            serde_json::to_writer(&mut self.out, &told).ok()?;
        } else {
            self.out.extend_from_slice(raw.as_bytes());
        }
        Some(())
    }

    /// A whole number that every reader finds the same in, spelled as it is in the canonical form.
    fn integer(&mut self) -> Option<()> {
        let rest = self.text.get(self.at..)?;
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        let many = digits.bytes().take_while(u8::is_ascii_digit).count();
        let sign = rest.len() - digits.len();
        let zero = digits.starts_with('0');
        let follows = digits.as_bytes().get(many);
        if !(1..=15).contains(&many)
            || zero && (many > 1 || sign > 0)
            || matches!(follows, Some(b'.' | b'e' | b'E'))
        {
            return None;
        }
        self.copy(sign + many)
    }

    fn word(&mut self, word: &str, kind: Kind) -> Option<Kind> {
        if !self.text.get(self.at..)?.starts_with(word) {
            return None;
        }
        self.copy(word.len()).map(|()| kind)
    }

    fn copy(&mut self, length: usize) -> Option<()> {
        let end = self.at + length;
        let raw = self.text.as_bytes().get(self.at..end)?;
        self.out.extend_from_slice(raw);
        self.at = end;
        Some(())
    }

    #[inline]
    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn next_after_space(&mut self) -> Option<u8> {
        loop {
            match self.next()? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                next => return Some(next),
            }
        }
    }
}

/// Whether a member may be of a kind.
fn fits(role: Role, name: &str, kind: Kind) -> bool {
    match (role, name) {
        (Role::Tool, "name" | "title" | "description") => kind == Kind::Text,
        (Role::Tool, "inputSchema" | "annotations") => kind == Kind::Object,
        (Role::Tool, "outputSchema") => matches!(kind, Kind::Object | Kind::Bool),
        (
            Role::Annotations,
            "readOnlyHint" | "destructiveHint" | "idempotentHint" | "openWorldHint",
        ) => kind == Kind::Bool,
        (Role::Tool | Role::Annotations | Role::Other, _) => true,
    }
}

/// What ends a run of characters that are written as they are meant.
#[inline]
fn stops(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::definition::ToolDefinition;
    use crate::json::{JsonLimits, check};

    /// What stands at the beginning of `text`, held against the reader that decides.
    fn scan(text: &str) -> Option<ScannedDefinition<'_>> {
        let scanned = DefinitionScanner::new(text).read(0)?;
        let parsed = ToolDefinition::parse(scanned.raw).unwrap();
        assert_eq!(scanned.name, parsed.name(), "{text}");
        assert_eq!(scanned.digest, parsed.digest(), "{text}");
        let exact = JsonLimits {
            depth: scanned.depth,
            values: scanned.values,
        };
        check(scanned.raw.as_bytes(), exact).unwrap();
        let fewer = JsonLimits {
            values: exact.values - 1,
            ..exact
        };
        check(scanned.raw.as_bytes(), fewer).unwrap_err();
        let shallower = JsonLimits {
            depth: exact.depth - 1,
            ..exact
        };
        check(scanned.raw.as_bytes(), shallower).unwrap_err();
        Some(scanned)
    }

    #[test]
    fn what_servers_write_is_read_at_once() {
        for text in [
            r#"{"name":"a"}"#,
            r#"{"name":"a"} and more"#,
            r#"{ "title" : "T" , "name":"a","description":"d\n\"\\ \u2019 \/ \u0041 \ud83d\ude00 é\u0007" }"#,
            r#"{"name":"a","inputSchema":{"type":"object","required":["b","a"],"properties":{"b":{"maximum":100,"minimum":-1,"default":0},"a":{"enum":[true,false,null,[],{}]}}}}"#,
            r#"{"outputSchema":true,"name":"a","annotations":{"readOnlyHint":true,"x":1}}"#,
            "\u{7b}\"name\":\"\u{7f}\u{2028}\"}",
        ] {
            let scanned = scan(text).unwrap_or_else(|| panic!("{text}"));
            assert!(text.starts_with(scanned.raw));
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_other_reader() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"name":""}"#,
            r#"{"name":"\u0061"}"#,
            r#"{"name":1}"#,
            r#"{"name":"a","name":"b"}"#,
            r#"{"name":"a","x":{"b":1,"a":2,"b":3}}"#,
            r#"{"name":"a","n\u0061me":"b"}"#,
            r#"{"name":"a","é":1}"#,
            r#"{"name":"a","title":1}"#,
            r#"{"name":"a","inputSchema":true}"#,
            r#"{"name":"a","annotations":[]}"#,
            r#"{"name":"a","annotations":{"readOnlyHint":"no"}}"#,
            r#"{"name":"a","inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}}"#,
            r#"{"name":"a","x":1.0}"#,
            r#"{"name":"a","x":1e3}"#,
            r#"{"name":"a","x":-0}"#,
            r#"{"name":"a","x":01}"#,
            r#"{"name":"a","x":-}"#,
            r#"{"name":"a","x":9007199254740993}"#,
            r#"{"name":"a","x":"\ud800"}"#,
            r#"{"name":"a","x":"\x"}"#,
            "{\"name\":\"a\",\"x\":\"\n\"}",
            r#"{"name":"a",}"#,
            r#"{"name":"a""#,
            r#"{"name":"a" "b":1}"#,
            r#"{"name":"a","x":[1,]}"#,
            r#"{"name":"a","x":tru}"#,
            r#"{"name" "a"}"#,
        ] {
            assert_eq!(scan(text), None, "{text}");
        }
        let nested = |depth: usize| {
            format!(
                r#"{{"name":"a","x":{}{}}}"#,
                "[".repeat(depth),
                "]".repeat(depth)
            )
        };
        assert!(scan(&nested(63)).is_some() && scan(&nested(64)).is_none());
        let wide = |values: usize| format!(r#"{{"name":"a","x":[0{}]}}"#, ",0".repeat(values - 4));
        assert!(scan(&wide(50_000)).is_some() && scan(&wide(50_001)).is_none());
        let long = |length: usize| format!(r#"{{"name":"{}"}}"#, "a".repeat(length - 11));
        assert!(scan(&long(MAX_DEFINITION)).is_some());
        assert!(scan(&long(MAX_DEFINITION + 1)).is_none());
    }

    #[test]
    fn one_scanner_reads_many() {
        let text = r#"[{"name":"b","a":[{"z":1,"y":2}]}, {"name":"a"}]"#;
        let mut scanner = DefinitionScanner::new(text);
        let first = scanner.read(1).unwrap();
        assert_eq!(scanner.read(2), None);
        let second = scanner.read(1 + first.raw.len() + 2).unwrap();
        assert_eq!((first.name, second.name), ("b", "a"));
        assert_eq!(Some(second), scan(second.raw));
    }

    /// Any JSON, small, spelled in ways that mean the same.
    fn json() -> impl Strategy<Value = Value> {
        let text = "[a-z\\\\\"/\u{1}\n\u{e9}\u{2028}\u{1f600} ]{0,6}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-1_000_000_000_000_000i64..1_000_000_000_000_000).prop_map(Value::from),
            (-10.0..10.0_f64).prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-e\u{e9}]{0,2}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Writes members backwards, with `space` around everything, and what can be escaped escaped.
    fn written(value: &Value, space: &str, escaped: bool) -> String {
        let text = |text: &str| {
            let plain = serde_json::to_string(text).unwrap();
            match escaped {
                true => plain.replace('/', "\\/").replace('\u{e9}', "\\u00E9"),
                false => plain,
            }
        };
        match value {
            Value::String(string) => text(string),
            Value::Array(items) => {
                let items = items.iter().map(|item| written(item, space, escaped));
                let items: Vec<_> = items.collect();
                format!(
                    "[{space}{}{space}]",
                    items.join(&format!("{space},{space}"))
                )
            }
            Value::Object(members) => {
                let member = |(name, value): (&String, &Value)| {
                    let value = written(value, space, escaped);
                    format!("\"{name}\"{space}:{space}{value}")
                };
                let members: Vec<_> = members.iter().rev().map(member).collect();
                format!(
                    "{{{space}{}{space}}}",
                    members.join(&format!("{space},{space}"))
                )
            }
            other => other.to_string(),
        }
    }

    proptest! {
        #[test]
        fn it_reads_what_the_reference_reads(
            inner in json(),
            name in "[a-z]{1,3}",
            title in "[a-z/\u{e9}]{0,3}",
            space in "[ \t\r\n]{0,2}",
            escaped in any::<bool>(),
        ) {
            let tool = serde_json::json!({
                "name": name, "title": title, "inputSchema": {"type": "object", "x": inner}, "_meta": [],
            });
            let text = written(&tool, &space, escaped);
            let parsed = ToolDefinition::parse(&text).unwrap();
            let canonical = parsed.canonical();
            prop_assert_eq!(serde_json::from_str::<Value>(canonical).unwrap(),
                serde_json::from_str::<Value>(&serde_json_canonicalizer::to_string(&tool).unwrap()).unwrap());
            let plain = text.is_ascii() && !text.contains('.') && !text.contains("e-");
            prop_assert!(scan(&text).is_some() || !plain, "{}", text);
        }

        #[test]
        fn damage_reads_as_the_reference_reads_it(
            inner in json(),
            at in 0usize..200,
            with in prop::sample::select(vec!["", "\"", "{", "}", "[", "]", ",", ":", "\\", "0", "a", "\u{1}"]),
        ) {
            let tool = serde_json::json!({"name": "a", "x": inner, "title": "t"});
            let mut text = written(&tool, "", false);
            if text.is_char_boundary(at) && text.is_char_boundary(at + 1) && at < text.len() {
                text.replace_range(at..=at, with);
            }
            scan(&text);
        }
    }
}
