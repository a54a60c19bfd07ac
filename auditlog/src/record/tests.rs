use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn head() -> Head<'static> {
    Head::new(
        7,
        Timestamp::from_millis(1_763_707_760_123),
        "example.org/ca",
    )
}

/// What RFC 8785 makes of the record: parsed, and written again with sorted members.
pub(crate) fn canonical(record: &[u8]) -> Vec<u8> {
    fn written(value: &Value) -> String {
        match value {
            Value::Object(members) => {
                let sorted: BTreeMap<Vec<u16>, String> = members
                    .iter()
                    .map(|(key, value)| {
                        let name = serde_json::to_string(key).unwrap();
                        (
                            key.encode_utf16().collect(),
                            format!("{name}:{}", written(value)),
                        )
                    })
                    .collect();
                format!("{{{}}}", sorted.into_values().collect::<Vec<_>>().join(","))
            }
            Value::Array(values) => {
                format!(
                    "[{}]",
                    values.iter().map(written).collect::<Vec<_>>().join(",")
                )
            }
            value => value.to_string(),
        }
    }
    written(&serde_json::from_slice(record).unwrap()).into_bytes()
}

#[test]
fn the_head_is_woven_between_the_members() {
    let (mut out, head) = (Vec::new(), head());
    let mut record = Record::begin(&mut out, &head, "sample");
    record.text("a", "x");
    record.number("m", 1 << 53);
    record.number("n", (1 << 53) + 1);
    record.object("t", |inner| {
        inner.base64("b", &[1, 2, 3, 4]);
        inner.boolean("f", false);
        inner.hex("h", &[0xab, 0x01]);
        inner.texts("l", ["p", "q\""]);
    });
    record.at("z").texts::<&str>("z", []);
    record.finish();
    let expected = concat!(
        r#"{"a":"x","kind":"sample","log":"example.org/ca","m":9007199254740992,"#,
        r#""n":"9007199254740993","seq":7,"#,
        r#""t":{"b":"AQIDBA==","f":false,"h":"ab01","l":["p","q\""]},"#,
        r#""time":"2025-11-21T06:49:20.123Z","v":1,"z":[]}"#,
    );
    assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
    assert_eq!(canonical(&out), out);
    let envelope = scan(&out).unwrap();
    assert_eq!(
        (envelope.kind, envelope.log, envelope.seq),
        ("sample", "example.org/ca", 7)
    );
    assert_eq!(envelope.time().unwrap(), head.time);
}

#[test]
fn only_the_canonical_form_is_a_record() {
    let good = r#"{"a":{"b":[1,-2,true,null]},"kind":"k","log":"o/ca","seq":3,"time":"2025-11-21T06:49:20.123Z","v":1}"#;
    scan(good.as_bytes()).unwrap();
    for (from, to) in [
        ("{\"a\"", "{ \"a\""),
        ("[1,", "[01,"),
        ("[1,", "[1.0,"),
        ("[1,", "[1e1,"),
        ("[1,", "[+1,"),
        ("[1,", "[,"),
        ("[1,", "[9007199254740993,"),
        ("-2", "-0"),
        ("-2", "-"),
        ("true", "True"),
        ("null]", "null"),
        ("\"a\"", "\"l\""),
        ("\"a\"", "\"\\u0061\""),
        ("\"b\"", "\"\\/\""),
        ("\"b\"", "\"\\u000a\""),
        ("\"b\"", "\"\\u001F\""),
        ("\"b\"", "\"\n\""),
        ("\"kind\":\"k\",", ""),
        ("\"kind\":\"k\"", "\"kind\":1"),
        ("\"seq\":3,", ""),
        ("\"seq\":3", "\"seq\":-3"),
        ("\"seq\":3", "\"seq\":\"3\""),
        ("\"v\":1", "\"v\":2"),
        ("\"log\":\"o/ca\"", "\"log\":\"o/ca\",\"log\":\"o/ca\""),
        ("null]}", "null]"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        assert!(scan(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(scan(format!("{good} ").as_bytes()).is_err());
    assert!(scan(b"").is_err());
    assert!(scan(b"{}").is_err());
    assert_eq!(scan(&[b'{'; 66_000]), Err(ScanError::TooLong));
    let deep = good.replace("[1,", &"[".repeat(40));
    assert_eq!(scan(deep.as_bytes()), Err(ScanError::TooDeep));
}

#[test]
fn members_are_ordered_by_utf16() {
    // U+FB33 comes after U+1F600 in UTF-16, before it in UTF-8.
    let record = "{\"kind\":\"k\",\"log\":\"o\",\"seq\":1,\"time\":\"2025-11-21T06:49:20.123Z\",\"v\":1,\
        \"\u{1f600}\":1,\"\u{fb33}\":2}";
    scan(record.as_bytes()).unwrap();
    let swapped = record
        .replace("\u{1f600}", "!")
        .replace('\u{fb33}', "\u{1f600}")
        .replace('!', "\u{fb33}");
    assert!(matches!(
        scan(swapped.as_bytes()),
        Err(ScanError::Order { .. })
    ));
}

#[test]
fn openings_and_announcements_read_back() {
    let opening = Opening {
        signers: vec![vec![vec![1, 2], vec![3]], vec![vec![4], vec![5]]],
        witness: Some(vec![vec![6], vec![7]]),
    };
    for opening in [
        opening.clone(),
        Opening {
            witness: None,
            ..opening
        },
    ] {
        let mut out = Vec::new();
        log_opened(&head(), &mut out, &opening);
        assert_eq!(canonical(&out), out);
        assert_eq!(read_opened(&out).unwrap(), opening);
        assert!(read_announced(&out).is_err());
    }
    let mut out = Vec::new();
    signer_announced(&head(), &mut out, &[vec![1], vec![2]]);
    assert_eq!(canonical(&out), out);
    assert_eq!(read_announced(&out).unwrap(), [vec![1], vec![2]]);
    assert!(read_opened(&out).is_err());
}

proptest! {
    #[test]
    fn every_written_text_is_canonical(value in "\\PC*|[\\x00-\\x7f]*", number in any::<u64>()) {
        let (mut out, head) = (Vec::new(), head());
        let mut record = Record::begin(&mut out, &head, "k");
        record.number("a", number);
        record.text("b", &value);
        record.finish();
        prop_assert_eq!(&canonical(&out), &out);
        prop_assert!(scan(&out).is_ok());
        let read: Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(read["b"].as_str(), Some(value.as_str()));
    }

    #[test]
    fn what_scans_is_canonical(inner in "(\\[|\\]|\\{|\\}|,|:|\"[a-z\\\\u0]{0,3}\"|-?[0-9]{1,3}|true| ){1,9}") {
        let record = format!(
            "{{\"a\":{inner},\"kind\":\"k\",\"log\":\"o\",\"seq\":1,\"time\":\"2025-11-21T06:49:20.123Z\",\"v\":1}}"
        );
        if scan(record.as_bytes()).is_ok() {
            prop_assert_eq!(canonical(record.as_bytes()), record.as_bytes());
        }
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = scan(&bytes);
        let _ = read_opened(&bytes);
        let _ = read_announced(&bytes);
    }
}
