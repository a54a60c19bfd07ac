//! JSON-RPC 2.0: the one reading of a message, whoever sent it.
//!
//! Clients, servers behind HTTP and servers that are programs are all read by [`Message::read`]: once, and
//! strictly (promise 7). What each of them may say beyond that is decided where they are spoken with:
//! `mcp::rpc`, `mcp::reply`, [`stdio`](crate::stdio) and [`mcp_client`](crate::mcp_client). Nothing is written
//! anew: a message goes on as it came, but for the parts that [`Edits`] puts others in place of.

mod edit;
mod members;
mod message;

pub(crate) use self::edit::Edits;
pub(crate) use self::members::{Members, place, text};
pub(crate) use self::message::{
    Came, Fault, LIMITS, Message, Shape, check, error_code, is_id, is_object, meant,
};
