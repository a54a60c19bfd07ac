//! MCP through the enforcer: agents calling tools.
//!
//! A request at an endpoint ([`doorway`]) is read whole and strictly ([`rpc`]), its head is held against
//! it ([`revision`]), its session is opened ([`session`]), and what it asks for ([`asks`]) is looked up in
//! the catalogue; then it is judged as every call is ([`crate::road`]) and forwarded as it was read
//! ([`turn`]). What comes back is read as strictly ([`reply`]), lists are filtered ([`lists`], by what is known
//! of their [`pages`]), streams are signed message by message ([`events`]), and a denial is told in MCP's own
//! forms ([`denials`]). What may be repeated or is not to go on in a head is settled by [`heads`], what a call's record
//! says of its arguments by [`arguments`], and who may bring a call's state back by [`request_state`]. Several servers
//! behind one endpoint are [`shared`]; a server that is a program is reached by [`program`].
//!
//! Where several servers are one ([`shared`]), a session is one at each ([`shared_sessions`]).
//!
//! Besides, what servers list is looked at again and again ([`watch`]); what was seen of each tool ([`seen`]), by that
//! or in an agent's list, decides whether it is still the one that was approved; it outlives restarts ([`seen_file`]),
//! and what is withheld for it is recorded ([`withheld`]).

mod arguments;
mod asks;
mod denials;
mod doorway;
mod events;
mod exchange;
mod heads;
mod lists;
mod pages;
mod program;
mod reader;
mod reply;
mod request_state;
mod revision;
mod rpc;
mod seen;
mod seen_file;
mod session;
mod shared;
mod shared_sessions;
mod splice;
mod turn;
mod watch;
mod withheld;

use bytes::Bytes;

pub(crate) use self::arguments::Arguments;
pub(crate) use self::asks::Asks;
pub(crate) use self::doorway::{Doorway, Entrance};
pub(crate) use self::events::{EventBody, Passage, Source};
pub(crate) use self::pages::Pages;
pub use self::reader::{Asked, ServerReader};
pub(crate) use self::reply::Expected;
pub(crate) use self::seen::{Seen, SeenTools};
pub(crate) use self::seen_file::{Approval, SeenFile, Shown};
pub(crate) use self::session::Sessions;
pub(crate) use self::shared_sessions::SharedSessions;
pub(crate) use self::watch::Watcher;

/// Whether a body is one message that would be judged, and its method: the strict reader by itself, for whoever
/// holds it against others.
#[must_use]
pub fn message_method(body: &[u8]) -> Option<String> {
    let message = rpc::Message::read(Bytes::copy_from_slice(body)).ok()?;
    Some(message.method().to_owned())
}
