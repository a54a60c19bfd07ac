//! Problem documents (RFC 9457): those of the enforcer read, those of our own written.

use http::StatusCode;
use serde::Deserialize;

/// What is of use in a problem.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Problem {
    #[serde(default)]
    pub(crate) title: Option<String>,
    #[serde(default)]
    pub(crate) rule: Option<String>,
    #[serde(default)]
    pub(crate) detail: Option<String>,
}

impl Problem {
    /// Reads a body that may be a problem.
    pub(crate) fn read(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// Reads a body that may be a denial in MCP's own form: a JSON-RPC error that names the rule. Nothing in it says
    /// whether the enforcer wrote it or the server behind it.
    pub(crate) fn in_error(body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        struct Message {
            error: Error,
        }
        #[derive(Default, Deserialize)]
        struct Error {
            data: Problem,
        }
        let message: Message = serde_json::from_slice(body).unwrap_or_default();
        message.error.data
    }

    /// What happened, in one sentence.
    pub(crate) fn sentence(&self, status: StatusCode) -> String {
        let what = match (&self.rule, &self.title) {
            (Some(rule), _) => format!("denied by the rule `{rule}`"),
            (None, Some(title)) => title.clone(),
            (None, None) => format!("answered {status}"),
        };
        match &self.detail {
            Some(detail) => format!("{what}: {detail}"),
            None => what,
        }
    }
}

/// What an answer that is no success says.
pub(crate) fn said(status: StatusCode, body: &[u8]) -> String {
    Problem::read(body).sentence(status)
}

/// A problem of our own.
pub(crate) fn write(status: StatusCode, kind: &str, detail: &str) -> String {
    let title = status.canonical_reason().unwrap_or("refused");
    serde_json::json!({
        "type": format!("urn:agentca:sidecar:{kind}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_found_in_an_error() {
        let denial = br#"{"jsonrpc":"2.0","id":1,"error":{"code":-31403,"message":"No","data":{"type":"urn:agentca:denied:scope","rule":"scope","detail":"d"}}}"#;
        let told = Problem::in_error(denial).sentence(StatusCode::OK);
        assert_eq!(told, "denied by the rule `scope`: d");
        for other in [
            &br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}"#[..],
            br#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"","data":7}}"#,
            br#"{"jsonrpc":"2.0","id":1,"result":{"rule":"scope"}}"#,
        ] {
            assert!(Problem::in_error(other).rule.is_none());
        }
    }
}
