//! What other people wrote to speak MCP with, as `tests/run` installs it: SDK clients, the conformance suite, the
//! sample server.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::lab::Lab;
use crate::program::Said;

/// The client of the official Python SDK; `words` as `tests/mcp/client.py` says.
pub fn python_client(lab: &Lab, words: &[&str]) -> Said {
    let python = tests().join(".venv/bin/python");
    assert!(
        python.is_file(),
        "no {}: run tests/run once",
        python.display()
    );
    let mut command = lab.command(python);
    command
        .arg("-B")
        .arg(tests().join("mcp/client.py"))
        .args(words);
    Said::from(command)
}

/// The client of the official TypeScript SDKs; `words` as `tests/mcp/client.mjs` says.
pub fn typescript_client(lab: &Lab, words: &[&str]) -> Said {
    let mut command = lab.command(node_program());
    command.arg(tests().join("mcp/client.mjs")).args(words);
    Said::from(command)
}

/// The official conformance suite against a URL, and what its checks said.
pub fn conformance(lab: &Lab, url: &str, revision: &str) -> Conformance {
    let out = lab.path(&format!("conformance-{revision}"));
    let mut command = lab.command(node_program());
    command
        .arg(package("conformance/dist/index.js"))
        .args(["server", "--url", url, "--requirements", revision])
        .arg("--expected-failures")
        .arg(tests().join("mcp/expected-failures.yaml"))
        .arg("-o")
        .arg(&out);
    let said = Said::from(command);
    let mut scenarios = Vec::new();
    for folder in std::fs::read_dir(&out).unwrap_or_else(|error| panic!("{error}: {said}")) {
        let folder = folder.expect("a folder").path();
        let text = std::fs::read_to_string(folder.join("checks.json")).expect("checks");
        let checks: Value = serde_json::from_str(&text).expect("JSON");
        let name = folder
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        scenarios.push((name, checks.as_array().expect("checks").clone()));
    }
    Conformance { said, scenarios }
}

/// What the suite found out.
pub struct Conformance {
    /// What it printed and how it ended: well, unless something failed that is not expected to.
    pub said: Said,
    scenarios: Vec<(String, Vec<Value>)>,
}

impl Conformance {
    /// How many scenarios checked something and found nothing wrong.
    pub fn passed(&self) -> usize {
        let passed = self.scenarios.iter().filter(|(_, checks)| {
            let any = |status: &str| checks.iter().any(|check| check["status"] == status);
            any("SUCCESS") && !any("FAILURE")
        });
        passed.count()
    }

    /// Everything that went wrong, outside the scenarios whose name begins with `but`.
    pub fn failures_but(&self, but: &str) -> Vec<String> {
        let but = format!("server-{but}");
        let mut failures = Vec::new();
        for (scenario, checks) in &self.scenarios {
            let failed = checks.iter().filter(|check| check["status"] == "FAILURE");
            if !scenario.starts_with(&but) {
                failures.extend(failed.map(|check| {
                    format!("{scenario}: {}: {}", check["id"], check["errorMessage"])
                }));
            }
        }
        failures
    }
}

/// The command line of `server-everything` over standard input and output.
pub fn everything_program() -> Vec<String> {
    [node_program(), everything_script(), "stdio".into()]
        .map(|word| word.display().to_string())
        .to_vec()
}

/// The node that `tests/run` chose.
pub(super) fn node_program() -> PathBuf {
    let node = tests().join("mcp/node");
    assert!(node.is_file(), "no {}: run tests/run once", node.display());
    // By its real name: a program behind a link is looked for in other places.
    std::fs::canonicalize(node).expect("a program")
}

pub(super) fn everything_script() -> PathBuf {
    package("server-everything/dist/index.js")
}

fn package(below: &str) -> PathBuf {
    let file = tests()
        .join("mcp/node_modules/@modelcontextprotocol")
        .join(below);
    assert!(file.is_file(), "no {}: run tests/run once", file.display());
    file
}

fn tests() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
