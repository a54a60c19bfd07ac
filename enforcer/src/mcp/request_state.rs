//! `requestState` that only whom it was given to can bring back (MCP 2026-07-28, multi-round requests).
//!
//! A server that needs more input hands out a state, and whoever brings it back continues. It passes a
//! client, so it is sealed here: with a code over agent and grant, server, method, what is asked for, its
//! arguments, and an end. A state that is another's, for another call or too old is refused.

use std::sync::Arc;

use agentca_identity::crypto::{MacKey, sha256};
use agentca_identity::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::Value;

use super::rpc::{Kind, Message};

/// Seals and opens the states of one call. Few calls have one: nothing is computed before it is needed.
#[derive(Clone, Debug)]
pub(crate) struct StateSeal {
    key: Arc<MacKey>,
    whose: Whose,
    /// The message as it was read.
    message: Bytes,
}

/// Whose states, and at which server.
#[derive(Clone, Debug)]
pub(crate) struct Whose {
    pub(crate) upstream: Arc<str>,
    /// By its URI.
    pub(crate) agent: Arc<str>,
    pub(crate) grant: u64,
}

impl StateSeal {
    /// For a request; a retry of it has the same.
    pub(super) fn of(key: &Arc<MacKey>, whose: Whose, message: &Message) -> Self {
        Self {
            key: Arc::clone(key),
            whose,
            message: message.bytes().clone(),
        }
    }

    /// What the client is given; nothing for what is no request.
    pub(super) fn seal(&self, state: &str, now: Timestamp) -> Option<String> {
        let ends = now.secs().saturating_add(LIFETIME_SECS);
        let code = self.key.code(&self.bound(ends, state)?);
        let code = URL_SAFE_NO_PAD.encode(code);
        Some(format!("{code}.{ends}.{state}"))
    }

    /// The server's own state, if it was given for this call and still counts.
    pub(super) fn open<'a>(&self, sealed: &'a str, now: Timestamp) -> Option<&'a str> {
        let (code, rest) = sealed.split_once('.')?;
        let (ends, state) = rest.split_once('.')?;
        let ends: i64 = ends.parse().ok()?;
        let code: [u8; 32] = URL_SAFE_NO_PAD.decode(code).ok()?.try_into().ok()?;
        let known = self.key.matches(&self.bound(ends, state)?, &code);
        (known && now.secs() <= ends).then_some(state)
    }

    /// All that a state is bound to but its end.
    fn call(&self) -> Option<[u8; 32]> {
        let message = Message::read(self.message.clone()).ok()?;
        let Kind::Request(request) = message.kind() else {
            return None;
        };
        let Whose {
            upstream,
            agent,
            grant,
        } = &self.whose;
        let params = &request.params;
        // A client may write the same arguments in another order the next time.
        let arguments: Value = match &params.arguments {
            Some(range) => serde_json::from_str(message.slice(range)).ok()?,
            None => Value::Null,
        };
        let call = serde_json::json!([
            **upstream,
            **agent,
            grant,
            request.method,
            params.name,
            params.uri,
            arguments
        ]);
        Some(sha256(call.to_string().as_bytes()))
    }

    fn bound(&self, ends: i64, state: &str) -> Option<Vec<u8>> {
        let mut bound = self.call()?.to_vec();
        bound.extend_from_slice(&ends.to_be_bytes());
        bound.extend_from_slice(state.as_bytes());
        Some(bound)
    }
}

/// As long as a person may take to answer.
const LIFETIME_SECS: i64 = 3_600;

#[cfg(test)]
mod tests {
    use agentca_identity::crypto::{KeyKind, PrivateKey};

    use super::*;

    const NOW: i64 = 1_790_000_000_000;

    fn seal(key: &Arc<MacKey>, agent: &str, params: &str) -> StateSeal {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        let message = Message::read(Bytes::from(text)).unwrap();
        let whose = Whose {
            upstream: Arc::from("payments"),
            agent: Arc::from(agent),
            grant: 7,
        };
        StateSeal::of(key, whose, &message)
    }

    #[test]
    fn a_state_continues_one_call_of_one_agent_for_a_while() {
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        let key = Arc::new(MacKey::derive(&key, "test").unwrap());
        let first = seal(&key, "a", r#"{"name":"pay","arguments":{"x":1,"y":2}}"#);
        let now = Timestamp::from_millis(NOW);
        let sealed = first.seal("st.ate", now).unwrap();
        let retry = seal(
            &key,
            "a",
            r#"{"name":"pay","arguments":{"y":2,"x":1},"inputResponses":{},"requestState":"s"}"#,
        );
        assert_eq!(retry.open(&sealed, now), Some("st.ate"));
        for other in [
            seal(&key, "b", r#"{"name":"pay","arguments":{"x":1,"y":2}}"#),
            seal(&key, "a", r#"{"name":"pay","arguments":{"x":1,"y":3}}"#),
            seal(&key, "a", r#"{"name":"refund","arguments":{"x":1,"y":2}}"#),
        ] {
            assert_eq!(other.open(&sealed, now), None);
        }
        let late = Timestamp::from_millis(NOW + 3_601_000);
        assert_eq!(retry.open(&sealed, late), None);
        assert_eq!(retry.open(&sealed.replace("st.ate", "st.ale"), now), None);
        assert_eq!(retry.open("st.ate", now), None);
    }
}
