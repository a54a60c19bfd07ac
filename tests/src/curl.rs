//! curl, as any caller would use it.

use std::path::Path;
use std::process::Command;

use crate::lab::Enforcer;
use crate::program::Said;

/// What curl got for one URL.
#[derive(Debug)]
pub struct Got {
    /// The status code.
    pub status: u16,
    /// `1.1` or `2`.
    pub version: String,
    /// Connections curl had to open for it.
    pub connects: u32,
    /// Fields in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Got {
    /// The value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        let field = self.headers.iter().find(|(field, _)| field == name);
        field.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// Stops the test unless this is a denial of ours by `rule`, signed and recorded.
    #[track_caller]
    pub fn must_be_denied(&self, status: u16, rule: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["rule"], rule, "{self:?}");
        assert_eq!(
            problem["type"],
            format!("urn:agentca:denied:{rule}"),
            "{self:?}"
        );
        assert_eq!(problem["status"], status, "{self:?}");
        assert!(
            problem["title"].is_string() && problem["detail"].is_string(),
            "{self:?}"
        );
        self.must_be_signed();
    }

    /// Stops the test unless the fields of a signed answer are there; what they say is for the verifiers.
    #[track_caller]
    pub fn must_be_signed(&self) {
        for field in ["signature", "signature-input", "agent-audit"] {
            assert!(self.header(field).is_some(), "no {field}: {self:?}");
        }
    }

    /// The index of the record this answer points to.
    pub fn record(&self) -> u64 {
        let audit = self.header("agent-audit").expect("Agent-Audit");
        let index = audit
            .split([',', ';', ' '])
            .find_map(|part| part.strip_prefix("index="));
        index
            .and_then(|index| index.parse().ok())
            .unwrap_or_else(|| panic!("no index in {audit}"))
    }
}

/// curl with an agent's certificate, fetching every path in one go (so on one connection when it can be kept).
pub fn curl(enforcer: &Enforcer, agent: &Path, options: &[&str], paths: &[&str]) -> Vec<Got> {
    let said = try_curl(enforcer, agent, options, paths).must_succeed();
    read(&said.stdout)
}

/// The same, with any end.
pub fn try_curl(enforcer: &Enforcer, agent: &Path, options: &[&str], paths: &[&str]) -> Said {
    let mut curl = Command::new("curl");
    let address = enforcer.address();
    curl.args([
        "-sS",
        "-i",
        "--path-as-is",
        "--max-time",
        "60",
        "-w",
        REPORT,
    ])
    .args([
        "--resolve",
        &format!("localhost:{}:{}", address.port(), address.ip()),
    ])
    .arg("--cacert")
    .arg(enforcer.root())
    .arg("--cert")
    .arg(agent.join("agent.crt"))
    .arg("--key")
    .arg(agent.join("agent.key"))
    .args(options)
    .args(
        paths
            .iter()
            .map(|path| format!("https://localhost:{}{path}", address.port())),
    );
    Said::from(curl)
}

fn read(printed: &str) -> Vec<Got> {
    let mut answers = Vec::new();
    let mut parts = printed.split(MARK);
    while let (Some(answer), Some(report)) = (parts.next(), parts.next()) {
        let mut words = report.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (status, version, connects) = (word(), word(), word());
        let (mut head, mut body) = split_head(answer);
        // Interim answers stand before the one that counts.
        while head
            .split(' ')
            .nth(1)
            .is_some_and(|code| code.starts_with('1'))
        {
            (head, body) = split_head(body);
        }
        let headers = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        answers.push(Got {
            status: status.parse().expect("a status"),
            version,
            connects: connects.parse().expect("a number"),
            headers,
            body: body.to_owned(),
        });
    }
    answers
}

fn split_head(answer: &str) -> (&str, &str) {
    answer.split_once("\r\n\r\n").unwrap_or((answer, ""))
}

const MARK: &str = "\u{1}";
const REPORT: &str = "\u{1}%{http_code} %{http_version} %{num_connects}\u{1}";
