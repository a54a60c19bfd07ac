//! What other people wrote to speak MCP with, as `tests/run` installs it: SDK clients, the conformance suite, the
//! sample server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::lab::Lab;
use crate::program::Said;

/// The client of the official Python SDK; `words` as `tests/mcp/client.py` says.
pub fn python_client(lab: &Lab, words: &[&str]) -> Said {
    python(lab, "mcp/client.py", words)
}

/// The same as it comes, with one call; `words` as `tests/mcp/first_call.py` says.
pub fn python_first_call(lab: &Lab, words: &[&str]) -> Said {
    python(lab, "mcp/first_call.py", words)
}

fn python(lab: &Lab, script: &str, words: &[&str]) -> Said {
    let python = tests().join(".venv/bin/python");
    assert!(
        python.is_file(),
        "no {}: run tests/run once",
        python.display()
    );
    let mut command = lab.command(python);
    command.arg("-B").arg(tests().join(script)).args(words);
    Said::from(command)
}

/// The client of the official TypeScript SDKs; `words` as `tests/mcp/client.mjs` says.
pub fn typescript_client(lab: &Lab, words: &[&str]) -> Said {
    typescript(lab, "mcp/client.mjs", words)
}

/// The same as they come, with one call; `words` as `tests/mcp/first_call.mjs` says.
pub fn typescript_first_call(lab: &Lab, words: &[&str]) -> Said {
    typescript(lab, "mcp/first_call.mjs", words)
}

fn typescript(lab: &Lab, script: &str, words: &[&str]) -> Said {
    let mut command = lab.command(node_program());
    command.arg(tests().join(script)).args(words);
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
        let name = folder.file_name().expect("a name").to_string_lossy();
        // `server-`, the scenario, and when it ran: `-2026-11-21T22-20-40-381Z`.
        let scenario = name.strip_prefix("server-").expect("a server's scenario");
        let scenario = scenario.rsplitn(7, '-').last().expect("a name");
        let checks = checks.as_array().expect("checks").clone();
        scenarios.push((scenario.to_owned(), checks));
    }
    Conformance {
        said,
        revision: revision.to_owned(),
        scenarios,
    }
}

/// What the suite found out.
pub struct Conformance {
    /// What it printed and how it ended: well, unless something failed that is not expected to.
    pub said: Said,
    revision: String,
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

    /// What went wrong and is not on the reviewed list, and what is on it and went well.
    pub fn surprises(&self) -> Vec<String> {
        let reviewed = unscored_failures(&self.revision);
        let mut surprises = Vec::new();
        let mut failed = BTreeSet::new();
        for (scenario, checks) in &self.scenarios {
            let wrong = checks.iter().filter(|check| check["status"] == "FAILURE");
            for check in wrong {
                failed.insert(scenario.clone());
                if !reviewed.contains(scenario) {
                    let (id, why) = (&check["id"], &check["errorMessage"]);
                    surprises.push(format!("{scenario}: {id}: {why}"));
                }
            }
        }
        let well = reviewed.difference(&failed);
        surprises.extend(
            well.map(|scenario| format!("{scenario} did not fail: take it out of {UNSCORED}")),
        );
        surprises
    }
}

/// The scenarios of a revision that may fail because nothing requires them, each with its reason in the file.
fn unscored_failures(revision: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(tests().join(UNSCORED)).expect("the reviewed list");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let entries = lines.filter_map(|line| {
        let (name, reason) = line.split_once(": ").expect("a reason");
        assert!(!reason.trim().is_empty(), "no reason: {line}");
        let (of, scenario) = name.split_once(' ').expect("a revision");
        (of == revision).then(|| scenario.to_owned())
    });
    entries.collect()
}

const UNSCORED: &str = "mcp/unscored-failures.txt";

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
