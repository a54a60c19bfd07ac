//! Tools that answer in one go, some of them after asking or telling the client something on the way.

use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::{CallToolRequestParams, CallToolResponse, ClientCapabilities};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::{Value, json};

use super::Suite;
use super::definitions::{AUDIO, IMAGE};
use crate::wire::{content, elicit, failure, input_required, read, sampling, text};

type Context = RequestContext<RoleServer>;

impl Suite {
    pub(super) async fn answer_at_once(
        &self,
        request: CallToolRequestParams,
        context: &Context,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let given = |key: &str| {
            arguments
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        match request.name.as_ref() {
            "test_tool_with_logging" => log_while_running(context).await,
            "test_tool_with_progress" => tell_progress(context).await,
            "test_sampling" => ask_model(context, given("prompt")).await,
            "test_elicitation" => ask_user(context, given("message"), contact()).await,
            "test_elicitation_sep1034_defaults" => {
                ask_user(context, "Please check these values", defaults()).await
            }
            "test_elicitation_sep1330_enums" => ask_user(context, "Please choose", choices()).await,
            "test_reconnection" => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                text("Reconnection test completed")
            }
            "test_trigger_tool_change" => {
                self.listeners.tools_changed().await;
                text("told")
            }
            "test_trigger_prompt_change" => {
                self.listeners.prompts_changed().await;
                text("told")
            }
            "test_missing_capability" => want_sampling(context),
            "test_logging_tool" => log_when_asked(context).await,
            "test_streaming_elicitation" => {
                let wanted = json!({ "value": elicit("Please give a value", "value", "string") });
                Ok(input_required(wanted, None)?.into())
            }
            "test_custom_header" => text(given("value")),
            "json_schema_2020_12_tool" => text(Value::Object(arguments.clone()).to_string()),
            name => fixed(name),
        }
    }
}

fn fixed(name: &str) -> Result<CallToolResponse, ErrorData> {
    let resource = |uri: &str, kind: &str, text: &str| {
        let resource = json!({ "uri": uri, "mimeType": kind, "text": text });
        json!({ "type": "resource", "resource": resource })
    };
    let image = json!({ "type": "image", "data": IMAGE, "mimeType": "image/png" });
    match name {
        "test_simple_text" => text("This is a simple text response for testing."),
        "test_image_content" => content(json!([image])),
        "test_audio_content" => {
            content(json!([{ "type": "audio", "data": AUDIO, "mimeType": "audio/wav" }]))
        }
        "test_embedded_resource" => content(json!([resource(
            "test://embedded-resource",
            "text/plain",
            "This is an embedded resource content.",
        )])),
        "test_multiple_content_types" => content(json!([
            { "type": "text", "text": "Multiple content types test:" },
            image,
            resource(
                "test://mixed-content-resource",
                "application/json",
                r#"{"test":"data","value":123}"#,
            ),
        ])),
        "test_error_handling" => failure("This tool intentionally returns an error for testing"),
        _ => Err(ErrorData::invalid_params(
            format!("Unknown tool: {name}"),
            None,
        )),
    }
}

async fn log_while_running(context: &Context) -> Result<CallToolResponse, ErrorData> {
    for message in [
        "Tool execution started",
        "Tool processing data",
        "Tool execution completed",
    ] {
        log(context, json!("info"), message).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    text("Logging test completed")
}

async fn log_when_asked(context: &Context) -> Result<CallToolResponse, ErrorData> {
    if let Some(level) = context.meta.log_level() {
        log(context, json!(level), "somebody wanted to know").await?;
    }
    text("Logging test completed")
}

async fn log(context: &Context, level: Value, message: &str) -> Result<(), ErrorData> {
    let params = read(json!({ "level": level, "logger": "fixture", "data": message }))?;
    // Whoever is gone is not told.
    let _gone = context.peer.notify_logging_message(params).await;
    Ok(())
}

async fn tell_progress(context: &Context) -> Result<CallToolResponse, ErrorData> {
    for progress in [0, 50, 100] {
        if let Some(token) = context.meta.get_progress_token() {
            let params = json!({ "progressToken": token, "progress": progress, "total": 100 });
            let _gone = context.peer.notify_progress(read(params)?).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    text("Progress test completed")
}

async fn ask_model(context: &Context, prompt: &str) -> Result<CallToolResponse, ErrorData> {
    match context.peer.create_message(read(sampling(prompt))?).await {
        Ok(result) => {
            let said = serde_json::to_value(&result).unwrap_or_default();
            let said = said.pointer("/content/text").and_then(Value::as_str);
            text(format!("LLM response: {}", said.unwrap_or("nothing")))
        }
        Err(error) => failure(&format!("no answer: {error}")),
    }
}

async fn ask_user(
    context: &Context,
    message: &str,
    schema: Value,
) -> Result<CallToolResponse, ErrorData> {
    let params = json!({ "mode": "form", "message": message, "requestedSchema": schema });
    match context.peer.create_elicitation(read(params)?).await {
        Ok(result) => {
            let said = serde_json::to_string(&result).unwrap_or_default();
            text(format!("User response: {said}"))
        }
        Err(error) => failure(&format!("no answer: {error}")),
    }
}

fn want_sampling(context: &Context) -> Result<CallToolResponse, ErrorData> {
    let capabilities = context.meta.client_capabilities().unwrap_or_default();
    if capabilities.sampling.is_none() {
        let wanted = ClientCapabilities::builder().enable_sampling().build();
        return Err(ErrorData::missing_required_client_capability(wanted));
    }
    text("you can sample")
}

fn contact() -> Value {
    let string = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "properties": { "username": string("The user's name"), "email": string("The user's address") },
        "required": ["username", "email"],
    })
}

fn defaults() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "default": "John Doe" },
            "age": { "type": "integer", "default": 30 },
            "score": { "type": "number", "default": 95.5 },
            "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
            "verified": { "type": "boolean", "default": true },
        },
    })
}

fn choices() -> Value {
    let titled = json!([
        { "const": "one", "title": "The first" },
        { "const": "two", "title": "The second" },
    ]);
    json!({
        "type": "object",
        "properties": {
            "untitledSingle": { "type": "string", "enum": ["one", "two"] },
            "titledSingle": { "type": "string", "oneOf": titled },
            "legacyEnum": { "type": "string", "enum": ["one", "two"], "enumNames": ["The first", "The second"] },
            "untitledMulti": { "type": "array", "items": { "type": "string", "enum": ["one", "two"] } },
            "titledMulti": { "type": "array", "items": { "anyOf": titled } },
        },
    })
}
