use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Message, RpcRefusal> {
    Message::read(Bytes::copy_from_slice(text.as_bytes()))
}

#[track_caller]
fn refused(text: &str, code: i32, says: &str) {
    let refusal = read(text).unwrap_err();
    assert_eq!(refusal.code, code, "{text}: {}", refusal.detail);
    assert!(refusal.detail.contains(says), "{text}: {}", refusal.detail);
}

#[test]
fn a_call_is_read_and_stays_as_it_stands() {
    let text = r#"{"jsonrpc":"2.0","id":"a1","method":"tools/call","params":{"name":"refund","arguments":{"a":[1]},"_meta":{"progressToken":7,"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let message = read(text).unwrap();
    assert_eq!(message.bytes(), text);
    assert_eq!(
        (message.id(), message.method()),
        (Some("\"a1\""), "tools/call")
    );
    let Kind::Request(request) = message.kind() else {
        panic!("no request")
    };
    let params = &request.params;
    assert_eq!(params.name.as_deref(), Some("refund"));
    assert_eq!(
        message.slice(params.name_at.as_ref().unwrap()),
        "\"refund\""
    );
    assert_eq!(
        message.slice(params.arguments.as_ref().unwrap()),
        r#"{"a":[1]}"#
    );
    assert_eq!(params.meta.version.as_deref(), Some("2026-07-28"));
    assert!(params.meta.capabilities);
    assert_eq!(
        message.slice(params.meta.progress_token.as_ref().unwrap()),
        "7"
    );
}

#[test]
fn the_other_kinds_are_told_apart() {
    let kind = |text: &str| read(text).unwrap();
    let note = kind(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert!(matches!(note.kind(), Kind::Notification { .. }));
    let answer = kind(r#"{"jsonrpc":"2.0","id":3,"result":{}}"#);
    assert!(matches!(answer.kind(), Kind::Response));
    let error = kind(r#"{"jsonrpc":"2.0","id":3,"error":{"code":-1,"message":"no"}}"#);
    assert!(matches!(error.kind(), Kind::Response));
}

#[test]
fn what_has_two_readings_is_refused() {
    let call = |more: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call"{more}}}"#);
    refused(
        &call(r#","method":"ping""#),
        INVALID,
        "`method` appears twice",
    );
    refused(
        &call(r#","Method":"ping""#),
        INVALID,
        "`Method` is no member",
    );
    refused(&call(r#","extra":1"#), INVALID, "`extra` is no member");
    refused(
        &call(r#","params":{"name":"a","n\u0061me":"b"}"#),
        INVALID,
        "twice",
    );
    refused(
        &call(r#","params":{"name":"a","Name":"b"}"#),
        BAD_PARAMS,
        "`Name`",
    );
    refused(
        &call(r#","params":{"argument\u017f":{}}"#),
        BAD_PARAMS,
        "taken",
    );
    refused(
        &call(r#","params":{"name":"a","arguments":{"x":{"y":1,"y":2}}}"#),
        INVALID,
        "twice",
    );
    refused(&format!("[{}]", call("")), INVALID, "no batch");
    refused(&format!("{}{}", call(""), call("")), PARSE, "not JSON");
    refused(&format!("{} x", call("")), PARSE, "not JSON");
    refused(&call(r#","result":{}"#), INVALID, "request or a response");
    let deep = format!("{}{}", "{\"a\":".repeat(70) + "1", "}".repeat(70));
    refused(&call(&format!(",\"params\":{deep}")), INVALID, "deep");
}

#[test]
fn members_have_their_shape() {
    let with = |member: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{member}}}}}"#)
    };
    for wrong in ["\"x\"", "[]", "null", "1"] {
        refused(
            &with(&format!("\"arguments\":{wrong}")),
            BAD_PARAMS,
            "object",
        );
        refused(&with(&format!("\"_meta\":{wrong}")), BAD_PARAMS, "object");
    }
    for name in ["name", "uri", "taskId", "requestState"] {
        refused(&with(&format!("\"{name}\":1")), BAD_PARAMS, "text");
    }
    refused(
        &with("\"_meta\":{\"progressToken\":1.5}"),
        BAD_PARAMS,
        "progressToken",
    );
    let whole = |member: &str| format!(r#"{{"jsonrpc":"2.0",{member}}}"#);
    for id in ["null", "1.5", "1e3", "[]", "true", "9007199254740993", "-0"] {
        refused(
            &whole(&format!("\"id\":{id},\"method\":\"ping\"")),
            INVALID,
            "`id`",
        );
    }
    refused(
        &whole("\"id\":1,\"method\":\"ping\",\"params\":[]"),
        BAD_PARAMS,
        "object",
    );
    refused(&whole("\"method\":\"ping\""), INVALID, "`id` is missing");
    refused(&whole("\"id\":1,\"method\":\"a b\""), INVALID, "method");
    refused(
        &whole("\"id\":1,\"result\":{},\"error\":{}"),
        INVALID,
        "one of",
    );
    refused(&whole("\"result\":{}"), INVALID, "`id`");
    refused(r#"{"id":1,"method":"ping"}"#, INVALID, "jsonrpc");
}

#[test]
fn a_refusal_names_the_id_that_could_be_read() {
    let refusal = read(r#"{"jsonrpc":"2.0","id":"7","method":"x","more":1}"#).unwrap_err();
    assert_eq!(refusal.id.as_deref(), Some("\"7\""));
    let refusal = read(r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#).unwrap_err();
    assert_eq!(refusal.id, None);
}

proptest! {
    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::read(bytes.into());
    }

    #[test]
    fn no_message_panics(text in "\\{(\"(id|jsonrpc|method|params|result|_meta)\":(1|\"2.0\"|\\{\\}|\"a\"|null),?){0,5}\\}") {
        let _ = Message::read(text.into_bytes().into());
    }
}
