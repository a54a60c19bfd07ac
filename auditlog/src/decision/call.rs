//! Decisions and outcomes of calls.

use agentca_identity::scope::Scope;
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::trust::TrustLevel;

use super::{DECISION, OUTCOME};
use crate::merkle::Hash;
use crate::record::{Head, Object, Record};

/// Who called: from the verified certificate.
#[derive(Clone, Copy, Debug)]
pub struct AgentFields<'a> {
    /// The SPIFFE id.
    pub uri: &'a str,
    /// The certificate's serial.
    pub serial: &'a Serial,
    /// SHA-256 of the certificate, DER.
    pub cert: &'a Hash,
    /// Its trust level.
    pub trust: TrustLevel,
    /// Its scopes.
    pub scopes: &'a [Scope],
    /// Its owner.
    pub owner: &'a str,
    /// The index of its grant's record in the authority's log.
    pub grant: u64,
    /// Who delegated to it, root first.
    pub lineage: &'a [SpiffeId],
}

/// What was called.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallFields<'a> {
    /// `http`, `mcp` or `grpc`.
    pub proto: &'a str,
    /// The call's name, for example `http:payments:/v1/accounts/{id}`.
    pub name: Option<&'a str>,
    /// The upstream's name.
    pub upstream: Option<&'a str>,
    /// The risk class.
    pub risk: Option<&'a str>,
    /// The path as its template.
    pub template: Option<&'a str>,
    /// The request's method.
    pub method: Option<&'a str>,
    /// The classification of what it reads or writes.
    pub classification: Option<&'a str>,
    /// A tool's version.
    pub tool_version: Option<&'a str>,
    /// A tool's tier.
    pub tool_tier: Option<&'a str>,
    /// A tool's publisher.
    pub publisher: Option<&'a str>,
    /// SHA-256 of a tool's input schema.
    pub schema_in: Option<&'a Hash>,
    /// SHA-256 of a tool's output schema.
    pub schema_out: Option<&'a Hash>,
}

/// The request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestFields<'a> {
    /// Our id for it, which the upstream receives.
    pub id: &'a str,
    /// The trace it is part of.
    pub trace: Option<&'a str>,
    /// The span that made it.
    pub parent: Option<&'a str>,
    /// The salted digest of its body.
    pub digest: Option<&'a Hash>,
    /// Its arguments: keys in clear, values as salted commitments; in order of the keys' UTF-16.
    pub args: &'a [(&'a str, &'a str)],
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResultFields<'a> {
    /// The answer's status.
    pub status: Option<u16>,
    /// How it ended, for example `complete`.
    pub ended: Option<&'a str>,
    /// The salted digest of the answer's body.
    pub digest: Option<&'a Hash>,
    /// The bytes of the answer's body.
    pub length: Option<u64>,
    /// From the request's head to the end.
    pub duration_ms: Option<u64>,
    /// The rights that were made use of.
    pub permissions_used: &'a [&'a str],
    /// What went wrong.
    pub error: Option<&'a str>,
}

/// A decision, with the outcome when both are known together.
#[derive(Clone, Copy, Debug)]
pub struct DecisionFields<'a> {
    /// Who called; absent when nobody was verified.
    pub agent: Option<AgentFields<'a>>,
    /// What was called.
    pub call: CallFields<'a>,
    /// The request.
    pub request: RequestFields<'a>,
    /// `allow`, `deny` or `approval`.
    pub decision: &'a str,
    /// The rule that decided.
    pub rule: Option<&'a str>,
    /// Why, in words.
    pub reason: Option<&'a str>,
    /// What would have been decided, where a rule is only watched.
    pub would: Option<&'a str>,
    /// The digest or version of the policy in force.
    pub policy: Option<&'a str>,
    /// The newest status record in force.
    pub status_number: Option<u64>,
    /// The outcome.
    pub result: Option<ResultFields<'a>>,
}

/// The outcome of a call whose decision has a record of its own.
#[derive(Clone, Copy, Debug)]
pub struct OutcomeFields<'a> {
    /// The index of the decision's record.
    pub decision_index: u64,
    /// The request's id.
    pub request_id: &'a str,
    /// The rule that ended it, when one did.
    pub rule: Option<&'a str>,
    /// Why, in words.
    pub reason: Option<&'a str>,
    /// The newest status record in force.
    pub status_number: Option<u64>,
    /// The outcome.
    pub result: ResultFields<'a>,
}

impl DecisionFields<'_> {
    /// Writes the record.
    pub fn write(&self, head: &Head<'_>, out: &mut Vec<u8>) {
        let mut record = Record::begin(out, head, DECISION);
        if let Some(agent) = &self.agent {
            record.object("agent", |object| agent.write(object));
        }
        record.object("call", |object| self.call.write(object));
        record.text("decision", self.decision);
        record.text_if("policy", self.policy);
        record.text_if("reason", self.reason);
        record.object("request", |object| self.request.write(object));
        if let Some(result) = &self.result {
            record.object("result", |object| result.write(object));
        }
        record.text_if("rule", self.rule);
        record.number_if("status_number", self.status_number);
        record.text_if("would", self.would);
        record.finish();
    }
}

impl OutcomeFields<'_> {
    /// Writes the record.
    pub fn write(&self, head: &Head<'_>, out: &mut Vec<u8>) {
        let mut record = Record::begin(out, head, OUTCOME);
        record.number("decision_index", self.decision_index);
        record.text_if("reason", self.reason);
        record.object("request", |object| object.text("id", self.request_id));
        record.object("result", |object| self.result.write(object));
        record.text_if("rule", self.rule);
        record.number_if("status_number", self.status_number);
        record.finish();
    }
}

impl AgentFields<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.base64("cert", self.cert);
        object.number("grant", self.grant);
        if !self.lineage.is_empty() {
            object.texts("lineage", self.lineage);
        }
        object.text("owner", self.owner);
        object.strs("scopes", self.scopes.iter().map(|scope| scope.as_str()));
        object.hex("serial", self.serial.as_bytes());
        object.text("trust", self.trust.as_str());
        object.text("uri", self.uri);
    }
}

impl CallFields<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.text_if("classification", self.classification);
        object.text_if("method", self.method);
        object.text_if("name", self.name);
        object.text("proto", self.proto);
        object.text_if("publisher", self.publisher);
        object.text_if("risk", self.risk);
        object.base64_if("schema_in", self.schema_in.map(<[u8; 32]>::as_slice));
        object.base64_if("schema_out", self.schema_out.map(<[u8; 32]>::as_slice));
        object.text_if("template", self.template);
        object.text_if("tool_tier", self.tool_tier);
        object.text_if("tool_version", self.tool_version);
        object.text_if("upstream", self.upstream);
    }
}

impl RequestFields<'_> {
    fn write(&self, object: &mut Object<'_>) {
        if !self.args.is_empty() {
            object.members("args", self.args);
        }
        object.base64_if("digest", self.digest.map(<[u8; 32]>::as_slice));
        object.text("id", self.id);
        object.text_if("parent", self.parent);
        object.text_if("trace", self.trace);
    }
}

impl ResultFields<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.base64_if("digest", self.digest.map(<[u8; 32]>::as_slice));
        object.number_if("duration_ms", self.duration_ms);
        object.text_if("ended", self.ended);
        object.text_if("error", self.error);
        object.number_if("length", self.length);
        if !self.permissions_used.is_empty() {
            object.strs("permissions_used", self.permissions_used.iter().copied());
        }
        object.number_if("status", self.status.map(u64::from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::tests::{LOG, written};

    fn result() -> ResultFields<'static> {
        ResultFields {
            status: Some(200),
            ended: Some("complete"),
            digest: Some(&[3; 32]),
            length: Some(512),
            duration_ms: Some(4),
            permissions_used: &["payments:read"],
            error: Some("none \"really\""),
        }
    }

    #[test]
    fn a_decision_with_every_field_is_canonical() {
        let scopes: Vec<Scope> = vec![
            "payments:*".parse().unwrap(),
            "payments:read".parse().unwrap(),
        ];
        let lineage = ["spiffe://example.org/prod/agent/root".parse().unwrap()];
        let serial = Serial::from_bytes([1; 16]).unwrap();
        let decision = DecisionFields {
            agent: Some(AgentFields {
                uri: "spiffe://example.org/prod/agent/support-01",
                serial: &serial,
                cert: &[1; 32],
                trust: TrustLevel::L2,
                scopes: &scopes,
                owner: "Zoë <zoe@example.org>\t",
                grant: 12,
                lineage: &lineage,
            }),
            call: CallFields {
                proto: "mcp",
                name: Some("mcp:github:get_issue"),
                upstream: Some("github"),
                risk: Some("read"),
                template: Some("/v1/accounts/{id}"),
                method: Some("GET"),
                classification: Some("internal"),
                tool_version: Some("1.2"),
                tool_tier: Some("gold"),
                publisher: Some("example"),
                schema_in: Some(&[4; 32]),
                schema_out: Some(&[5; 32]),
            },
            request: RequestFields {
                id: "0f",
                trace: Some("t"),
                parent: Some("p"),
                digest: Some(&[2; 32]),
                args: &[("\u{1f600}", "c"), ("\u{fb33}", "d")],
            },
            decision: "allow",
            rule: Some("scope"),
            reason: Some("payments:read"),
            would: Some("deny"),
            policy: Some("p1"),
            status_number: Some(77),
            result: Some(result()),
        };
        let record = written(|head, out| decision.write(head, out));
        let value: serde_json::Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(value["agent"]["serial"], "01".repeat(16));
        assert_eq!(value["agent"]["trust"], "L2");
        assert_eq!(value["seq"], 41);
        assert_eq!(value["request"]["args"]["\u{fb33}"], "d");
        assert_eq!(value["result"]["permissions_used"][0], "payments:read");
    }

    #[test]
    fn absent_fields_are_absent() {
        let decision = DecisionFields {
            agent: None,
            call: CallFields {
                proto: "http",
                ..CallFields::default()
            },
            request: RequestFields {
                id: "1",
                ..RequestFields::default()
            },
            decision: "deny",
            rule: Some("malformed"),
            reason: None,
            would: None,
            policy: None,
            status_number: None,
            result: None,
        };
        let record = written(|head, out| decision.write(head, out));
        let expected = format!(
            "{{\"call\":{{\"proto\":\"http\"}},\"decision\":\"deny\",\"kind\":\"decision\",\"log\":\"{LOG}\",\
            \"request\":{{\"id\":\"1\"}},\"rule\":\"malformed\",\"seq\":41,\
            \"time\":\"2025-11-21T06:49:20.123Z\",\"v\":1}}"
        );
        assert_eq!(String::from_utf8(record).unwrap(), expected);
    }

    #[test]
    fn outcomes_are_canonical() {
        let outcome = OutcomeFields {
            decision_index: 40,
            request_id: "1",
            rule: Some("revoked"),
            reason: Some("r"),
            status_number: Some(1 << 60),
            result: result(),
        };
        written(|head, out| outcome.write(head, out));
        let bare = OutcomeFields {
            rule: None,
            reason: None,
            status_number: None,
            ..outcome
        };
        written(|head, out| bare.write(head, out));
    }
}
