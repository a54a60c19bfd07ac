use proptest::prelude::*;

use super::*;

const FULL: &str = r#"{
    "name": "refund",
    "title": "Refund",
    "description": "Pays back",
    "inputSchema": {
        "type": "object",
        "properties": {
            "account": {"type": "string", "x-mcp-header": "Account"},
            "place": {"type": "object", "properties": {
                "region": {"type": "integer", "x-mcp-header": "Region"}
            }}
        }
    },
    "outputSchema": {"type": "object"},
    "annotations": {"readOnlyHint": false, "destructiveHint": true},
    "_meta": {"vendor": 1.50}
}"#;

fn refused(json: &str) -> DefinitionError {
    ToolDefinition::parse(json).unwrap_err()
}

#[test]
fn a_definition_is_read_with_all_its_parts() {
    let tool = ToolDefinition::parse(FULL).unwrap();
    assert_eq!((tool.name(), tool.title()), ("refund", Some("Refund")));
    assert_eq!(tool.description(), Some("Pays back"));
    let annotations = Annotations {
        read_only: Some(false),
        destructive: Some(true),
        idempotent: None,
        open_world: None,
    };
    assert_eq!(tool.annotations(), annotations);
    assert_eq!(tool.arguments().collect::<Vec<_>>(), ["account", "place"]);
    let canonical = tool.canonical();
    assert!(
        canonical.starts_with(r#"{"_meta":{"vendor":1.5},"annotations":"#),
        "{canonical}"
    );
    assert_eq!(tool.digest(), sha256(canonical.as_bytes()));
    assert_eq!(
        tool.schema_out_digest(),
        Some(sha256(br#"{"type":"object"}"#))
    );
    assert_ne!(tool.schema_in_digest(), tool.schema_out_digest());
    let headers: Vec<_> = tool
        .header_parameters()
        .iter()
        .map(|header| (header.header.as_str(), header.path.join("."), header.kind))
        .collect();
    let expected = [
        ("Account", "account".to_owned(), HeaderKind::String),
        ("Region", "place.region".to_owned(), HeaderKind::Integer),
    ];
    assert_eq!(headers, expected);
}

#[test]
fn the_digest_is_of_the_content_not_of_its_form() {
    let tool = |json: &str| ToolDefinition::parse(json).unwrap().digest();
    assert_eq!(
        tool(r#"{"name":"a","x":1.0}"#),
        tool("{ \"x\" : 1e0,\n\"n\\u0061me\":\"a\"}")
    );
    let read = ToolDefinition::parse(r#"{"name":"a","x":[1e3,-0,2.0]}"#).unwrap();
    let again = ToolDefinition::parse(read.canonical()).unwrap();
    assert_eq!(read, again);
    // Every member counts, also one that nobody knows.
    for other in [
        r#"{"name":"a","x":2}"#,
        r#"{"name":"a"}"#,
        r#"{"name":"b","x":1}"#,
        r#"{"name":"a","x":1,"icons":[]}"#,
    ] {
        assert_ne!(tool(other), tool(r#"{"name":"a","x":1}"#), "{other}");
    }
}

/// The examples of RFC 8785 whose numbers are within what is read here.
#[test]
fn the_canonical_form_is_that_of_rfc_8785() {
    let canonical = |x: &str| {
        let tool = ToolDefinition::parse(&format!(r#"{{"x":{x},"name":"a"}}"#)).unwrap();
        let text = tool.canonical().strip_prefix(r#"{"name":"a","x":"#);
        text.and_then(|text| text.strip_suffix('}'))
            .unwrap()
            .to_owned()
    };
    // Section 3.2.2.
    let text = r#""\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/""#;
    assert_eq!(
        canonical(text),
        "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\""
    );
    assert_eq!(
        canonical("[333333333.33333329, 4.50, 2e-3, 0.000000000000000000000000001]"),
        "[333333333.3333333,4.5,0.002,1e-27]"
    );
    assert_eq!(canonical("[null, true, false]"), "[null,true,false]");
    // Section 3.2.3.
    let members = r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#;
    assert_eq!(
        canonical(members),
        "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}"
    );
    // Appendix B.
    for (written, expected) in [
        ("0.0", "0"),
        ("-0.0", "0"),
        ("5e-324", "5e-324"),
        ("-5e-324", "-5e-324"),
        ("9007199254740991", "9007199254740991"),
        ("333333333.33333325", "333333333.33333325"),
        ("333333333.3333332", "333333333.3333332"),
        ("0.000001", "0.000001"),
        ("9.999999999999997e-7", "9.999999999999997e-7"),
        ("-0.0000033333333333333333", "-0.0000033333333333333333"),
        ("1424953923781206.2", "1424953923781206.2"),
    ] {
        assert_eq!(canonical(written), expected);
    }
}

#[test]
fn what_has_two_readings_or_none_is_refused() {
    assert!(matches!(
        refused(r#"{"name":"a","name":"b"}"#),
        DefinitionError::Json(JsonError::Duplicate(_))
    ));
    for (json, error) in [
        ("[]", DefinitionError::NotAnObject),
        ("{}", DefinitionError::Name),
        (r#"{"name":""}"#, DefinitionError::Name),
        (r#"{"name":1}"#, DefinitionError::Name),
        (
            r#"{"name":"a","title":1}"#,
            DefinitionError::NotText("title"),
        ),
        (
            r#"{"name":"a","inputSchema":true}"#,
            DefinitionError::Schema("inputSchema"),
        ),
        (
            r#"{"name":"a","annotations":[]}"#,
            DefinitionError::Annotations,
        ),
        (
            r#"{"name":"a","annotations":{"readOnlyHint":"no"}}"#,
            DefinitionError::Annotation("readOnlyHint"),
        ),
    ] {
        assert_eq!(refused(json), error, "{json}");
    }
    let long = format!(r#"{{"name":"{}"}}"#, "a".repeat(MAX_DEFINITION));
    assert_eq!(refused(&long), DefinitionError::TooLong);
}

#[test]
fn numbers_that_another_reader_may_round_are_refused() {
    let with = |number: &str| ToolDefinition::parse(&format!(r#"{{"name":"a","n":[{number}]}}"#));
    for fine in ["9007199254740991", "-9007199254740991", "0.1", "1e10"] {
        with(fine).unwrap();
    }
    for beyond in [
        "9007199254740992",
        "9007199254740993",
        "-9007199254740993",
        "18446744073709551615",
        "123456789012345678901234567890",
        "9007199254740993.0",
        "1e300",
    ] {
        let refused = with(beyond).unwrap_err();
        assert!(matches!(refused, DefinitionError::Number(_)), "{beyond}");
    }
}

fn with_schema(schema: &str) -> Result<usize, HeaderFault> {
    match ToolDefinition::parse(&format!(r#"{{"name":"a","inputSchema":{schema}}}"#)) {
        Ok(tool) => Ok(tool.header_parameters().len()),
        Err(DefinitionError::Header(fault)) => Err(fault),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_header_that_is_wrong_makes_the_tool_invalid() {
    let property = |schema: &str| with_schema(&format!(r#"{{"properties":{{"p":{schema}}}}}"#));
    assert_eq!(
        property(r#"{"type":"boolean","x-mcp-header":"X-1"}"#),
        Ok(1)
    );
    for name in [
        r#""""#, r#""a b""#, r#""a:b""#, r#""ä""#, "1", "null", r#"["a"]"#,
    ] {
        let fault = property(&format!(r#"{{"type":"string","x-mcp-header":{name}}}"#));
        let expected = Err(HeaderFault::Name("/properties/p".to_owned()));
        assert_eq!(fault, expected, "{name}");
    }
    for kind in [
        r#""type":"number","#,
        r#""type":"object","#,
        r#""type":["string","null"],"#,
        "",
    ] {
        let fault = property(&format!(r#"{{{kind}"x-mcp-header":"A"}}"#));
        assert!(matches!(fault, Err(HeaderFault::Type(_))), "{kind}");
    }
    let twice = r#"{"properties":{"a":{"type":"string","x-mcp-header":"Ab"},
                                  "b":{"type":"string","x-mcp-header":"aB"}}}"#;
    assert_eq!(with_schema(twice), Err(HeaderFault::Twice("aB".to_owned())));
}

#[test]
fn a_header_where_no_argument_surely_is_makes_the_tool_invalid() {
    let mark = r#"{"type":"string","x-mcp-header":"A"}"#;
    for schema in [
        mark.to_owned(),
        format!(r#"{{"items":{mark}}}"#),
        format!(r#"{{"items":{{"properties":{{"a":{mark}}}}}}}"#),
        format!(r#"{{"anyOf":[{{"properties":{{"a":{mark}}}}}]}}"#),
        format!(r#"{{"if":{{"properties":{{"a":{mark}}}}}}}"#),
        format!(r#"{{"$defs":{{"a":{mark}}}}}"#),
        format!(r#"{{"properties":{{"a":{{"additionalProperties":{mark}}}}}}}"#),
        format!(r#"{{"x-vendor":{{"deep":[{mark}]}}}}"#),
    ] {
        let fault = with_schema(&schema);
        assert!(
            matches!(fault, Err(HeaderFault::Place(_))),
            "{schema}: {fault:?}"
        );
    }
    // Where it is data, or the name of an argument, it means nothing.
    for schema in [
        r#"{"properties":{"x-mcp-header":{"type":"string"}}}"#.to_owned(),
        format!(r#"{{"properties":{{"a":{{"default":{mark},"enum":[{mark}]}}}}}}"#),
    ] {
        assert_eq!(with_schema(&schema), Ok(0), "{schema}");
    }
}

proptest! {
    #[test]
    fn what_is_read_reads_the_same_again(
        name in "[a-zA-Z_.-]{1,12}",
        description in ".{0,40}",
        number in -1e6..1e6_f64,
    ) {
        let value = serde_json::json!({"name": name, "description": description, "n": number});
        let tool = ToolDefinition::parse(&value.to_string()).unwrap();
        let again = ToolDefinition::parse(tool.canonical()).unwrap();
        prop_assert_eq!(&tool, &again);
        prop_assert_eq!(tool.digest(), again.digest());
    }

    #[test]
    fn no_input_panics(json in "[\\[\\]{}:,\"a0 ]{0,32}") {
        let _ = ToolDefinition::parse(&json);
    }
}
