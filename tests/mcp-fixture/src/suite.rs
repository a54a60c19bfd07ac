//! What the official conformance suite asks of a server, in its newest revision and in those with sessions.
#![expect(
    deprecated,
    reason = "the suite still asks for what the newest revision gives up"
)]

mod definitions;
mod rounds;
mod tools;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult,
    GetPromptRequestParams, GetPromptResponse, GetPromptResult, Implementation, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, RequestStateCodec,
    ServerCapabilities, ServerConfig, SetLevelRequestParams, SubscribeRequestParams,
    SubscriptionFilter, Tool, UnsubscribeRequestParams,
};
use rmcp::service::{RequestContext, RoleServer, SubscriptionContext};
use rmcp::{ErrorData, ServerHandler};
use serde_json::{Value, json};

use crate::listeners::Listeners;
use crate::wire::{elicit, input_required, read};

/// The suite's server.
#[derive(Clone)]
pub(crate) struct Suite {
    listeners: Listeners,
    states: RequestStateCodec,
}

impl Default for Suite {
    fn default() -> Self {
        // Guards nothing but test data.
        let key = *b"a key that everybody may know, for tests";
        Self {
            listeners: Listeners::default(),
            states: RequestStateCodec::try_new(key).expect("a key that is long enough"),
        }
    }
}

impl ServerHandler for Suite {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_completions()
            .enable_logging()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("agentca-mcp-fixture", "1.0.0"))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        // Without the schema the transport could not compare headers with arguments.
        let tool = definitions::tools()
            .into_iter()
            .find(|tool| tool.get("name").and_then(Value::as_str) == Some(name))?;
        read(tool).ok()
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        self.listeners.keep(context).await;
        Ok(())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        read(listed("tools", definitions::tools()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        match self.answer_in_rounds(&request, &context) {
            Some(answer) => answer,
            None => self.answer_at_once(request, &context).await,
        }
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        read(listed("resources", definitions::resources()))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        read(listed("resourceTemplates", definitions::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let contents = definitions::resource(&request.uri).ok_or_else(|| {
            let data = json!({ "uri": request.uri });
            ErrorData::resource_not_found(
                format!("Resource not found: {}", request.uri),
                Some(data),
            )
        })?;
        let result: ReadResourceResult = read(listed("contents", vec![contents]))?;
        Ok(result.into())
    }

    async fn subscribe(
        &self,
        _: SubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(
        &self,
        _: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        read(listed("prompts", definitions::prompts()))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let messages = if request.name == "test_input_required_result_prompt" {
            let responses = request.input_responses.as_ref();
            let response = responses.and_then(|responses| responses.get("topic"));
            let Some(topic) = response.and_then(|response| response.pointer("/content/context"))
            else {
                let wanted = json!({ "topic": elicit("What is it about?", "context", "string") });
                return Ok(input_required(wanted, None)?.into());
            };
            definitions::prompt_about(topic)
        } else {
            let arguments = request.arguments.unwrap_or_default();
            let unknown = || {
                let message = format!("Unknown prompt: {}", request.name);
                ErrorData::invalid_params(message, None)
            };
            definitions::prompt(&request.name, &arguments).ok_or_else(unknown)?
        };
        let result: GetPromptResult =
            read(json!({ "resultType": "complete", "messages": messages }))?;
        Ok(result.into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let begun = request.argument.value;
        let known = ["paris", "park", "test", "testValue1"];
        let values: Vec<&str> = known
            .into_iter()
            .filter(|value| value.starts_with(&begun))
            .collect();
        let completion = json!({ "total": values.len(), "values": values, "hasMore": false });
        read(json!({ "resultType": "complete", "completion": completion }))
    }

    async fn set_level(
        &self,
        _: SetLevelRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }
}

/// A list as the newest revision wants it; the library takes back what older ones do not know.
fn listed(what: &str, items: Vec<Value>) -> Value {
    let mut list = json!({ "resultType": "complete", "ttlMs": 60_000, "cacheScope": "public" });
    if let Some(members) = list.as_object_mut() {
        members.insert(what.to_owned(), Value::Array(items));
    }
    list
}
