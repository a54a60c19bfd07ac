//! What a server sends: the answer to our one request, or something on the way to it.

use serde::Deserialize;

use super::{ClientError, shown};
use crate::jsonrpc::{Fault, Members, Message, Shape, error_code};

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) result: Box<str>,
    /// The session that it opened.
    pub(super) session: Option<String>,
}

/// What one message is to us.
#[derive(Debug)]
pub(super) enum Said {
    Result(Box<str>),
    /// A request of the server, with its id.
    Request {
        id: String,
        is_ping: bool,
    },
    /// A notification: nothing follows from it.
    Nothing,
}

/// Reads one message; an error that answers our request is an error.
pub(super) fn read(text: &[u8]) -> Result<Said, ClientError> {
    said(Message::read(text))
}

/// Reads a message of a program, which was checked when it came.
pub(super) fn line(text: &[u8]) -> Result<Said, ClientError> {
    let text = std::str::from_utf8(text);
    let text = text.map_err(|error| ClientError::unreadable(&error))?;
    said(Message::again(text))
}

fn said(message: Result<Message<'_>, Fault>) -> Result<Said, ClientError> {
    let message = message.map_err(|fault| ClientError::unreadable(&fault))?;
    match message.shape() {
        Shape::Notification { .. } => Ok(Said::Nothing),
        Shape::Request { id, method, .. } => Ok(Said::Request {
            id: (*id).to_owned(),
            is_ping: method == "ping",
        }),
        Shape::Result { id, .. } | Shape::Error { id: Some(id), .. } if *id != "1" => {
            Err(ClientError::Unreadable("an answer to nothing".to_owned()))
        }
        Shape::Result { result, .. } => Ok(Said::Result((*result).into())),
        Shape::Error { error, .. } => Err(refused(error)),
    }
}

fn refused(error: &str) -> ClientError {
    #[derive(Default, Deserialize)]
    struct Data {
        #[serde(default)]
        supported: Vec<String>,
    }
    let members = Members::of(error).unwrap_or_default();
    let data = members.raw("data").map(serde_json::from_str::<Data>);
    ClientError::Error {
        code: error_code(error).unwrap_or_default(),
        message: members
            .text("message")
            .map(|text| shown(&text))
            .unwrap_or_default(),
        supported: data.and_then(Result::ok).unwrap_or_default().supported,
    }
}
