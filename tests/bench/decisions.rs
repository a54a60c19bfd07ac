//! Records as an enforcer writes them, for a log that is verified as auditors verify it.

use agentca_auditlog::decision::{
    AgentFields, CallFields, DecisionFields, RequestFields, ResultFields,
};
use agentca_auditlog::record::Head;
use agentca_identity::crypto::sha256;
use agentca_identity::scope::Scope;
use agentca_identity::serial::Serial;
use agentca_identity::time::Timestamp;
use agentca_identity::trust::TrustLevel;

use crate::Outcome;
use crate::logs::ORIGIN;

/// Agents that call, in turns.
const AGENTS: usize = 50;
/// One call in so many is denied.
const DENIED: u64 = 40;
/// One call in so many is one of a tool; the others are of a route.
const TOOLS: u64 = 2;
const UPSTREAM: &str = "payments";
const USED: &[&str] = &["mcp:payments:account_balance"];

/// Who calls, and what does not change from record to record.
pub(crate) struct Decisions {
    agents: Vec<Agent>,
    schema: [u8; 32],
}

struct Agent {
    uri: String,
    serial: Serial,
    cert: [u8; 32],
    scopes: Vec<Scope>,
    grant: u64,
}

impl Decisions {
    /// Of a few dozen agents.
    pub(crate) fn new() -> Outcome<Self> {
        let agent = |number: usize| -> Outcome<Agent> {
            let digest = sha256(&number.to_be_bytes());
            let serial = *digest.first_chunk().ok_or("a digest is too short")?;
            Ok(Agent {
                uri: format!("spiffe://bench.example/prod/agent/support-{number:02}"),
                serial: Serial::from_bytes(positive(serial))?,
                cert: digest,
                scopes: vec![
                    "mcp:payments:account_balance".parse()?,
                    "payments:read".parse()?,
                ],
                grant: 100 + u64::try_from(number)?,
            })
        };
        Ok(Self {
            agents: (0..AGENTS).map(agent).collect::<Outcome<_>>()?,
            schema: sha256(b"schema"),
        })
    }

    /// Writes the record of call `number`.
    pub(crate) fn write(&self, number: u64, head: &Head<'_>, out: &mut Vec<u8>) {
        let [.., low] = number.to_be_bytes();
        let agent = self.agents.get(usize::from(low) % AGENTS);
        let digest = sha256(&number.to_be_bytes());
        let id = hex(digest.first_chunk().unwrap_or(&[0; 16]));
        let is_denied = number.is_multiple_of(DENIED);
        let result = ResultFields {
            status: Some(200),
            ended: Some("complete"),
            digest: Some(&digest),
            length: Some(200 + number % 1000),
            duration_ms: Some(number % 20),
            permissions_used: if is_denied { &[] } else { USED },
            error: None,
        };
        let decision = DecisionFields {
            agent: agent.map(Agent::fields),
            call: self.call(number),
            request: RequestFields {
                id: &id,
                trace: None,
                parent: None,
                digest: Some(&digest),
                args: &[],
            },
            decision: if is_denied { "deny" } else { "allow" },
            rule: Some("scope"),
            reason: is_denied.then_some("no scope of the certificate covers the call"),
            would: None,
            policy: None,
            status_number: Some(1000 + number / 1000),
            result: Some(result),
        };
        decision.write(head, out);
    }

    /// Bytes of a record.
    pub(crate) fn mean_bytes(&self) -> f64 {
        let mut all = Vec::new();
        let sample = 1..=DENIED;
        for number in sample.clone() {
            let head = Head::new(number, Timestamp::now(), ORIGIN);
            self.write(number, &head, &mut all);
        }
        all.len() as f64 / sample.count() as f64
    }

    fn call(&self, number: u64) -> CallFields<'_> {
        let call = CallFields {
            upstream: Some(UPSTREAM),
            risk: Some("read"),
            classification: Some("personal-data"),
            ..CallFields::default()
        };
        if number.is_multiple_of(TOOLS) {
            CallFields {
                proto: "mcp",
                name: Some("mcp:payments:account_balance"),
                method: Some("tools/call"),
                tool_version: Some("1.2"),
                publisher: Some("Example Ltd"),
                schema_in: Some(&self.schema),
                ..call
            }
        } else {
            CallFields {
                proto: "http",
                name: Some("http:payments:/v1/accounts/{id}"),
                template: Some("/v1/accounts/{id}"),
                method: Some("GET"),
                ..call
            }
        }
    }
}

impl Agent {
    fn fields(&self) -> AgentFields<'_> {
        AgentFields {
            uri: &self.uri,
            serial: &self.serial,
            cert: &self.cert,
            trust: TrustLevel::L2,
            scopes: &self.scopes,
            owner: "bench@bench.example",
            grant: self.grant,
            lineage: &[],
        }
    }
}

/// Serials are positive numbers.
fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    let [first, ..] = &mut serial;
    *first = (*first & 0x7f) | 0x40;
    serial
}

fn hex(bytes: &[u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
