//! What a server sends: the answer to our one request, or something on the way to it.

use agentca_policy::json::JsonLimits;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::ClientError;
use crate::stdio::message::{Message, Shape, check};

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) result: Box<RawValue>,
    /// The session that it opened.
    pub(super) session: Option<String>,
}

/// What one message is to us.
#[derive(Debug)]
pub(super) enum Said {
    Result(Box<RawValue>),
    /// A request of the server, with its id.
    Request {
        id: String,
        is_ping: bool,
    },
    /// A notification: nothing follows from it.
    Nothing,
}

/// Reads one message; an error that answers our request is an error.
pub(super) fn read(text: &[u8], limits: JsonLimits) -> Result<Said, ClientError> {
    let unreadable = |error: &dyn std::fmt::Display| ClientError::Unreadable(error.to_string());
    check(text, limits).map_err(|error| unreadable(&error))?;
    let message = Message::read(text).map_err(|error| unreadable(&error))?;
    let shape = message.shape().map_err(|error| unreadable(&error))?;
    match shape {
        Shape::Notification { .. } => Ok(Said::Nothing),
        Shape::Request { method, id } => Ok(Said::Request {
            id: id.get().to_owned(),
            is_ping: method == "ping",
        }),
        Shape::Answer { id, result } => {
            if id.is_some_and(|id| id.get() != "1") {
                return Err(ClientError::Unreadable("an answer to nothing".to_owned()));
            }
            match result {
                Some(result) => Ok(Said::Result(result.to_owned())),
                None => Err(error(text)),
            }
        }
    }
}

fn error(text: &[u8]) -> ClientError {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        error: Told<'a>,
    }
    #[derive(Deserialize)]
    struct Told<'a> {
        code: i64,
        message: String,
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    #[derive(Default, Deserialize)]
    struct Data {
        #[serde(default)]
        supported: Vec<String>,
    }
    match serde_json::from_slice::<Answer<'_>>(text) {
        Ok(Answer { error }) => {
            let data = error
                .data
                .map(|data| serde_json::from_str::<Data>(data.get()));
            ClientError::Error {
                code: error.code,
                message: error.message.chars().take(200).collect(),
                supported: data.and_then(Result::ok).unwrap_or_default().supported,
            }
        }
        Err(error) => ClientError::Unreadable(error.to_string()),
    }
}
