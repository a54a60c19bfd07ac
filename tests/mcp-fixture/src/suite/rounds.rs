//! Tools that need more than one round: a first answer says what is wanted, the client comes back with it.

use rmcp::ErrorData;
use rmcp::model::{CallToolRequestParams, CallToolResponse};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::{Map, Value, json};

use super::Suite;
use crate::wire::{elicit, input_required, sample, text};

type Answer = Result<CallToolResponse, ErrorData>;

impl Suite {
    /// The answer, when the tool is one of these.
    pub(super) fn answer_in_rounds(
        &self,
        request: &CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Option<Answer> {
        let tool = request.name.strip_prefix("test_input_required_result_")?;
        Some(match tool {
            "elicitation" => match response(request, "user_name") {
                Some(answer) => text(format!("Hello, {}!", at(answer, "/content/name"))),
                None => ask(json!({ "user_name": name() })),
            },
            "sampling" => match response(request, "capital_question") {
                Some(answer) => text(format!("The model says: {}", at(answer, "/content/text"))),
                None => ask(json!({ "capital_question": capital() })),
            },
            "list_roots" => match response(request, "client_roots") {
                Some(answer) => text(format!("Roots: {}", Value::Object(answer.clone()))),
                None => ask(json!({ "client_roots": roots() })),
            },
            "request_state" | "tampered_state" => self.confirm(request),
            "multiple_inputs" => self.ask_three_things(request),
            "multi_round" => self.ask_twice(request),
            "capabilities" => ask_what_can_be_answered(request, context),
            _ => return None,
        })
    }

    fn confirm(&self, request: &CallToolRequestParams) -> Answer {
        match self.round(request)? {
            0 => {
                let wanted = json!({ "confirm": elicit("Please confirm", "ok", "boolean") });
                self.ask_and_remember(wanted, 1)
            }
            _ => text("state-ok"),
        }
    }

    fn ask_three_things(&self, request: &CallToolRequestParams) -> Answer {
        let wanted = json!({ "user_name": name(), "capital": capital(), "client_roots": roots() });
        let answered = ["user_name", "capital", "client_roots"]
            .iter()
            .all(|key| response(request, key).is_some());
        if self.round(request)? > 0 && answered {
            return text("all three came");
        }
        self.ask_and_remember(wanted, 1)
    }

    fn ask_twice(&self, request: &CallToolRequestParams) -> Answer {
        match self.round(request)? {
            0 => self.ask_and_remember(json!({ "first": name() }), 1),
            1 => {
                let wanted = json!({ "second": elicit("And your colour?", "colour", "string") });
                self.ask_and_remember(wanted, 2)
            }
            _ => text("both came"),
        }
    }

    /// How far the client says we are, which nobody but us can have written.
    fn round(&self, request: &CallToolRequestParams) -> Result<u64, ErrorData> {
        let Some(state) = &request.request_state else {
            return Ok(0);
        };
        let tampered = |_| ErrorData::invalid_params("requestState is not ours", None);
        self.states.open_json(state).map_err(tampered)
    }

    fn ask_and_remember(&self, wanted: Value, round: u64) -> Answer {
        let sealed = self.states.seal_json(&round);
        let state = sealed.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        Ok(input_required(wanted, Some(state))?.into())
    }
}

fn ask_what_can_be_answered(
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Answer {
    if request.input_responses.is_some() {
        return text("that will do");
    }
    let capabilities = context.meta.client_capabilities().unwrap_or_default();
    let mut wanted = Map::new();
    if capabilities.elicitation.is_some() {
        wanted.insert("user_name".to_owned(), name());
    }
    if capabilities.sampling.is_some() {
        wanted.insert("capital".to_owned(), capital());
    }
    if capabilities.roots.is_some() {
        wanted.insert("client_roots".to_owned(), roots());
    }
    if wanted.is_empty() {
        return text("you cannot be asked anything");
    }
    ask(Value::Object(wanted))
}

fn ask(wanted: Value) -> Answer {
    Ok(input_required(wanted, None)?.into())
}

/// What the client answered; anything but an object is no answer.
fn response<'a>(request: &'a CallToolRequestParams, key: &str) -> Option<&'a Map<String, Value>> {
    request.input_responses.as_ref()?.get(key)?.as_object()
}

fn at(answer: &Map<String, Value>, path: &str) -> String {
    let answer = Value::Object(answer.clone());
    let text = answer.pointer(path).and_then(Value::as_str);
    text.unwrap_or("nobody").to_owned()
}

fn name() -> Value {
    elicit("What is your name?", "name", "string")
}

fn capital() -> Value {
    sample("What is the capital of France?")
}

fn roots() -> Value {
    json!({ "method": "roots/list", "params": {} })
}
