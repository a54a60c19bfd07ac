//! JSON as the specification shows it, turned into the library's types.

use rmcp::ErrorData;
use rmcp::model::{CallToolResponse, CallToolResult, InputRequiredResult};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The library's reading of a value that we wrote.
pub(crate) fn read<T: DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    let wrong = |error: serde_json::Error| ErrorData::internal_error(error.to_string(), None);
    serde_json::from_value(value).map_err(wrong)
}

/// A tool's result with this content.
pub(crate) fn content(items: Value) -> Result<CallToolResponse, ErrorData> {
    let result: CallToolResult = read(json!({ "resultType": "complete", "content": items }))?;
    Ok(result.into())
}

/// A tool's result that is one text.
pub(crate) fn text(text: impl AsRef<str>) -> Result<CallToolResponse, ErrorData> {
    content(json!([{ "type": "text", "text": text.as_ref() }]))
}

/// A tool's result that tells of a failure.
pub(crate) fn failure(text: &str) -> Result<CallToolResponse, ErrorData> {
    let result: CallToolResult = read(json!({
        "resultType": "complete", "content": [{ "type": "text", "text": text }], "isError": true,
    }))?;
    Ok(result.into())
}

/// A result that wants more from the client first.
pub(crate) fn input_required(
    requests: Value,
    state: Option<String>,
) -> Result<InputRequiredResult, ErrorData> {
    let mut result = json!({ "resultType": "input_required", "inputRequests": requests });
    if let (Some(members), Some(state)) = (result.as_object_mut(), state) {
        members.insert("requestState".to_owned(), Value::String(state));
    }
    read(result)
}

/// An `elicitation/create` for one property.
pub(crate) fn elicit(message: &str, property: &str, kind: &str) -> Value {
    let mut properties = serde_json::Map::new();
    properties.insert(property.to_owned(), json!({ "type": kind }));
    json!({
        "method": "elicitation/create",
        "params": {
            "mode": "form",
            "message": message,
            "requestedSchema": {
                "type": "object", "properties": properties, "required": [property],
            },
        },
    })
}

/// A `sampling/createMessage` of one question.
pub(crate) fn sample(question: &str) -> Value {
    json!({ "method": "sampling/createMessage", "params": sampling(question) })
}

/// What a `sampling/createMessage` asks.
pub(crate) fn sampling(question: &str) -> Value {
    json!({
        "messages": [{ "role": "user", "content": { "type": "text", "text": question } }],
        "maxTokens": 100,
    })
}
