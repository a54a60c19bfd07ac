//! What the suite's server has: the names, schemas and contents that the scenarios ask for.

use serde_json::{Map, Value, json};

/// A grey pixel.
pub(super) const IMAGE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";
/// A thousandth of a second of silence.
pub(super) const AUDIO: &str =
    "UklGRiwAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQgAAACAgICAgICAgA==";

/// Tools that want no arguments. The first has to be one that may be called with any.
const PLAIN: &[(&str, &str)] = &[
    ("test_simple_text", "Answers with a text"),
    ("test_image_content", "Answers with an image"),
    ("test_audio_content", "Answers with a sound"),
    ("test_embedded_resource", "Answers with a resource"),
    (
        "test_multiple_content_types",
        "Answers with a text, an image and a resource",
    ),
    ("test_tool_with_logging", "Logs while it runs"),
    ("test_error_handling", "Fails"),
    ("test_tool_with_progress", "Tells how far it is"),
    ("test_elicitation_sep1034_defaults", "Asks with defaults"),
    ("test_elicitation_sep1330_enums", "Asks with choices"),
    ("test_reconnection", "Answers after a moment"),
    (
        "test_trigger_tool_change",
        "Tells listeners that the tools changed",
    ),
    (
        "test_trigger_prompt_change",
        "Tells listeners that the prompts changed",
    ),
    ("test_missing_capability", "Wants a client that can sample"),
    ("test_streaming_elicitation", "Asks before it answers"),
    ("test_logging_tool", "Logs when it is asked to"),
    (
        "test_input_required_result_elicitation",
        "Asks the user's name",
    ),
    (
        "test_input_required_result_sampling",
        "Asks the client's model",
    ),
    (
        "test_input_required_result_list_roots",
        "Asks for the client's roots",
    ),
    (
        "test_input_required_result_request_state",
        "Asks, and keeps its state at the client",
    ),
    (
        "test_input_required_result_tampered_state",
        "Asks, and checks the state it gets back",
    ),
    (
        "test_input_required_result_multiple_inputs",
        "Asks three things at once",
    ),
    ("test_input_required_result_multi_round", "Asks twice"),
    (
        "test_input_required_result_capabilities",
        "Asks only what the client can answer",
    ),
];

/// The definitions of all tools.
pub(super) fn tools() -> Vec<Value> {
    let tool = |name: &str, description: &str, schema: Value| json!({ "name": name, "description": description, "inputSchema": schema });
    let one = |name: &str, property: Value| {
        let mut properties = Map::new();
        properties.insert(name.to_owned(), property);
        json!({ "type": "object", "properties": properties, "required": [name] })
    };
    let plain = PLAIN.iter().map(|(name, description)| {
        tool(
            name,
            description,
            json!({ "type": "object", "properties": {} }),
        )
    });
    let string = || json!({ "type": "string" });
    plain
        .chain([
            tool(
                "test_sampling",
                "Asks the client's model",
                one("prompt", string()),
            ),
            tool(
                "test_elicitation",
                "Asks the user",
                one("message", string()),
            ),
            tool(
                "test_custom_header",
                "Wants its argument in a header too",
                one(
                    "value",
                    json!({ "type": "string", "x-mcp-header": "Value" }),
                ),
            ),
            tool(
                "json_schema_2020_12_tool",
                "Has a schema with everything",
                rich_schema(),
            ),
        ])
        .collect()
}

fn rich_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "address",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
            },
        },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }, { "required": ["name"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "properties": { "name": { "minLength": 1 } } },
        "additionalProperties": false,
    })
}

pub(super) fn resources() -> Vec<Value> {
    let resource = |uri: &str, name: &str, kind: &str| json!({ "uri": uri, "name": name, "description": name, "mimeType": kind });
    vec![
        resource("test://static-text", "A text", "text/plain"),
        resource("test://static-binary", "An image", "image/png"),
        resource("test://watched-resource", "A text to watch", "text/plain"),
    ]
}

pub(super) fn templates() -> Vec<Value> {
    vec![json!({
        "uriTemplate": "test://template/{id}/data", "name": "Data by id",
        "description": "Data by id", "mimeType": "application/json",
    })]
}

/// The contents of a resource.
pub(super) fn resource(uri: &str) -> Option<Value> {
    let text = |kind: &str, text: &str| Some(json!({ "uri": uri, "mimeType": kind, "text": text }));
    match uri {
        "test://static-text" => text(
            "text/plain",
            "This is the content of the static text resource.",
        ),
        "test://static-binary" => {
            Some(json!({ "uri": uri, "mimeType": "image/png", "blob": IMAGE }))
        }
        "test://watched-resource" => text("text/plain", "Nothing has changed."),
        _ => {
            let id = uri
                .strip_prefix("test://template/")?
                .strip_suffix("/data")?;
            let data =
                json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
            text("application/json", &data.to_string())
        }
    }
}

pub(super) fn prompts() -> Vec<Value> {
    let argument =
        |name: &str| json!({ "name": name, "description": "Any text", "required": true });
    let prompt = |name: &str, description: &str, arguments: Vec<Value>| json!({ "name": name, "description": description, "arguments": arguments });
    vec![
        prompt("test_simple_prompt", "One message", vec![]),
        prompt(
            "test_prompt_with_arguments",
            "A message with its arguments",
            vec![argument("arg1"), argument("arg2")],
        ),
        prompt(
            "test_prompt_with_embedded_resource",
            "A message with a resource",
            vec![argument("resourceUri")],
        ),
        prompt("test_prompt_with_image", "A message with an image", vec![]),
        prompt(
            "test_input_required_result_prompt",
            "Asks what it should be about",
            vec![],
        ),
    ]
}

/// The messages of a prompt.
pub(super) fn prompt(name: &str, arguments: &Map<String, Value>) -> Option<Value> {
    let given = |key: &str| {
        arguments
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    Some(match name {
        "test_simple_prompt" => json!([said("This is a simple prompt for testing.")]),
        "test_prompt_with_arguments" => {
            let (one, two) = (given("arg1"), given("arg2"));
            json!([said(&format!(
                "Prompt with arguments: arg1='{one}', arg2='{two}'"
            ))])
        }
        "test_prompt_with_embedded_resource" => {
            let resource = json!({
                "uri": given("resourceUri"), "mimeType": "text/plain",
                "text": "Embedded resource content for testing.",
            });
            json!([
                { "role": "user", "content": { "type": "resource", "resource": resource } },
                said("Please process the embedded resource above."),
            ])
        }
        "test_prompt_with_image" => json!([
            { "role": "user", "content": { "type": "image", "data": IMAGE, "mimeType": "image/png" } },
            said("Please analyze the image above."),
        ]),
        _ => return None,
    })
}

/// The messages of the prompt that asks first.
pub(super) fn prompt_about(topic: &Value) -> Value {
    json!([said(&format!("A prompt about {topic}"))])
}

fn said(text: &str) -> Value {
    json!({ "role": "user", "content": { "type": "text", "text": text } })
}
