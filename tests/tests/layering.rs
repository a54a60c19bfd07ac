//! Holds the layering of the house: who may depend on whom, who may name what, how long things may get.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What each package of ours may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("agentca-identity", &[]),
    ("agentca-proto", &[]),
    ("agentca-policy", &["agentca-identity"]),
    ("agentca-auditlog", &["agentca-identity"]),
    (
        "agentca",
        &[
            "agentca-identity",
            "agentca-auditlog",
            "agentca-policy",
            "agentca-proto",
        ],
    ),
    (
        "agentca-enforcer",
        &[
            "agentca-identity",
            "agentca-auditlog",
            "agentca-policy",
            "agentca-proto",
        ],
    ),
    (
        "agentca-sidecar",
        &["agentca-identity", "agentca-auditlog", "agentca-proto"],
    ),
];

/// Packages that may see everything: they test and show it.
const SPECTATORS: &[&str] = &["agentca-tests", "agentca-mcp-fixture", "certs-example"];

/// Crates that only some of our packages may name, whatever the lock file says.
const KEPT: &[(&str, &[&str])] = &[
    ("sled", &["agentca"]),
    ("ring", &["agentca-identity"]),
    ("aws-lc-rs", &["agentca-identity"]),
    ("x509-parser", &["agentca-identity"]),
    ("prost", &["agentca-proto"]),
    (
        "tonic",
        &[
            "agentca-proto",
            "agentca",
            "agentca-enforcer",
            "agentca-sidecar",
        ],
    ),
    ("tokio", &["agentca", "agentca-enforcer", "agentca-sidecar"]),
    ("hyper", &["agentca", "agentca-enforcer", "agentca-sidecar"]),
    // A fixture: what judges a request does not speak with a library's leniency.
    ("rmcp", &[]),
];

/// Words of the source that only some files may say.
struct Rule {
    says: &'static str,
    packages: &'static [&'static str],
    words: &'static [&'static str],
    only_in: &'static [&'static str],
}

const PRODUCTION: &[&str] = &[
    "identity", "auditlog", "policy", "proto", "ca", "enforcer", "sidecar",
];

const RULES: &[Rule] = &[
    Rule {
        says: "only identity::crypto names a crypto backend",
        packages: PRODUCTION,
        words: &["aws_lc_rs", "ring"],
        only_in: &["identity/src/crypto.rs", "identity/src/crypto/"],
    },
    Rule {
        says: "only the authority's index knows sled",
        packages: PRODUCTION,
        words: &["sled"],
        only_in: &["ca/src/authority/index.rs", "ca/src/authority/index/"],
    },
    Rule {
        says: "one file in each program builds a rustls configuration",
        packages: PRODUCTION,
        words: &["ServerConfig::builder", "ClientConfig::builder"],
        only_in: &["ca/src/tls.rs", "enforcer/src/tls.rs", "sidecar/src/tls.rs"],
    },
    Rule {
        says: "protobuf types stop at the service modules",
        packages: PRODUCTION,
        words: &["agentca_proto", "prost"],
        only_in: &[
            "proto/src/",
            "ca/src/service.rs",
            "ca/src/service/",
            "ca/src/client.rs",
            "ca/src/client/",
            "ca/src/feed.rs",
            "ca/src/feed/",
            "ca/src/grpc.rs",
            "enforcer/src/feed.rs",
            "enforcer/src/feed/",
            "enforcer/src/witness.rs",
            "sidecar/src/authority.rs",
            "sidecar/src/authority/",
        ],
    },
    Rule {
        says: "policy has no clock, no I/O and no async",
        packages: &["policy"],
        words: &[
            "SystemTime",
            "Instant",
            "tokio",
            "fs",
            "File",
            "async",
            "TcpStream",
            "UdpSocket",
        ],
        only_in: &[],
    },
    Rule {
        says: "identity has no I/O",
        packages: &["identity"],
        words: &["tokio", "fs", "File", "async", "TcpStream", "UdpSocket"],
        only_in: &[],
    },
];

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 100;
const MAIN_LINES: usize = 100;

#[test]
fn dependencies_follow_the_arrows() {
    let packages = workspace();
    let ours: BTreeSet<&str> = packages.keys().map(String::as_str).collect();
    for name in ARROWS.iter().map(|(name, _)| name).chain(SPECTATORS) {
        assert!(
            ours.contains(name),
            "`{name}` is not in the workspace: correct ARROWS"
        );
    }
    for (name, dependencies) in &packages {
        if SPECTATORS.contains(&name.as_str()) {
            continue;
        }
        let allowed = ARROWS
            .iter()
            .find(|(package, _)| package == name)
            .map(|(_, to)| *to);
        let allowed = allowed.unwrap_or_else(|| panic!("`{name}` has no arrows: add it to ARROWS"));
        for dependency in dependencies.iter().filter(|d| ours.contains(d.as_str())) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "`{name}` must not see `{dependency}`"
            );
        }
    }
}

#[test]
fn kept_crates_stay_where_they_belong() {
    for (name, dependencies) in workspace() {
        if SPECTATORS.contains(&name.as_str()) {
            continue;
        }
        for (kept, keepers) in KEPT {
            let sees = dependencies.contains(*kept);
            assert!(
                !sees || keepers.contains(&name.as_str()),
                "`{name}` must not use `{kept}`"
            );
        }
    }
}

#[test]
fn words_stay_where_they_belong() {
    let mut offences = Vec::new();
    for rule in RULES {
        let files: Vec<Source> = rule
            .packages
            .iter()
            .flat_map(|package| sources(package))
            .collect();
        assert!(!files.is_empty(), "no sources read for: {}", rule.says);
        for file in files
            .iter()
            .filter(|f| !rule.only_in.iter().any(|allowed| f.is_in(allowed)))
        {
            for (number, line) in file.code() {
                if let Some(word) = rule.words.iter().find(|word| names(line, word)) {
                    offences.push(format!("{}:{number}: `{word}`: {}", file.path, rule.says));
                }
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn nothing_is_too_long() {
    let mut offences = Vec::new();
    for file in PRODUCTION
        .iter()
        .chain(&["certs-example"])
        .flat_map(|package| sources(package))
    {
        if file.is_in("proto/src/generated/") {
            continue;
        }
        let limit = if file.path.ends_with("src/main.rs") && !file.is_in("certs-example/") {
            MAIN_LINES
        } else {
            FILE_LINES
        };
        let length = file.lines.len();
        if length > limit {
            offences.push(format!("{}: {length} lines, at most {limit}", file.path));
        }
        for (number, length) in file.functions() {
            if length > FUNCTION_LINES {
                offences.push(format!(
                    "{}:{number}: a function of {length} lines",
                    file.path
                ));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn no_module_is_a_drawer() {
    let drawers = ["common", "helper", "helpers", "misc", "util", "utils"];
    for file in PRODUCTION
        .iter()
        .chain(&["certs-example", "tests"])
        .flat_map(|p| sources(p))
    {
        let path = Path::new(&file.path).with_extension("");
        for part in path
            .components()
            .map(|c| c.as_os_str().to_string_lossy().into_owned())
        {
            assert!(
                !drawers.contains(&part.as_str()),
                "{}: `{part}` says nothing",
                file.path
            );
        }
    }
}

#[test]
fn the_reader_of_sources_sees_what_it_should() {
    assert!(names("use ring::digest;", "ring"));
    assert!(names("rustls::crypto::ring::default_provider()", "ring"));
    assert!(names(
        "rustls::ServerConfig::builder_with_provider(p)",
        "ServerConfig::builder"
    ));
    assert!(!names("let string = bring(&offspring);", "ring"));
    let source = Source::read(
        "a/src/b.rs",
        "//! sled\nuse sled::Db; // not async\nlet a = \"ring\";\n\nfn long() {\n    1\n}\n\n#[cfg(test)]\nmod tests {\n    use ring;\n}\n",
    );
    let code: Vec<&str> = source.code().map(|(_, line)| line.trim_end()).collect();
    assert!(code.contains(&"use sled::Db;"), "{code:?}");
    assert!(
        !code.iter().any(|line| names(line, "ring")),
        "strings and tests do not count: {code:?}"
    );
    assert_eq!(source.functions().collect::<Vec<_>>(), [(5, 3)]);
    let text = "#[cfg(test)]\nmod tests;\n#[cfg(test)]\npub(crate) mod testing;\nmod real;\n";
    assert_eq!(
        test_modules(Path::new("a/src/lib.rs"), text),
        ["a/src/tests", "a/src/testing"]
    );
    assert_eq!(
        test_modules(Path::new("a/src/b.rs"), text),
        ["a/src/b/tests", "a/src/b/testing"]
    );
    assert!(source.is_in("a/src/") && !source.is_in("a/src/c.rs"));
}

/// A file of source without its tests.
struct Source {
    path: String,
    lines: Vec<String>,
}

impl Source {
    fn read(path: &str, text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let tests = lines
            .windows(2)
            .position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod "));
        let end = tests.unwrap_or(lines.len());
        Self {
            path: path.to_owned(),
            lines: lines[..end].to_vec(),
        }
    }

    fn is_in(&self, place: &str) -> bool {
        if place.ends_with('/') {
            self.path.starts_with(place)
        } else {
            self.path == place
        }
    }

    /// Lines with their numbers, without comments and the contents of strings.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines.iter().enumerate().filter_map(|(index, line)| {
            let code = line.split("//").next().unwrap_or_default();
            let code = if code.matches('"').count() >= 2 {
                code.split('"').next().unwrap_or_default()
            } else {
                code
            };
            (!code.trim().is_empty()).then_some((index + 1, code))
        })
    }

    /// Where functions begin, and how many lines they have: rustfmt puts the closing brace below the `fn`.
    fn functions(&self) -> impl Iterator<Item = (usize, usize)> {
        self.lines.iter().enumerate().filter_map(|(start, line)| {
            let code = line.trim_start();
            let words = [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "pub(crate) fn ",
                "const fn ",
            ];
            if !words.iter().any(|word| code.starts_with(word)) || code.ends_with([';', '}']) {
                return None;
            }
            let close = format!("{}}}", " ".repeat(line.len() - code.len()));
            let length = self.lines[start..].iter().position(|line| *line == close)? + 1;
            Some((start + 1, length))
        })
    }
}

/// Whether the line has the word as a whole identifier; a path with `::` may go on.
fn names(line: &str, word: &str) -> bool {
    if word.contains("::") {
        return line.contains(word);
    }
    line.match_indices(word).any(|(at, _)| {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        let before = line[..at].chars().next_back().is_some_and(part);
        let after = line[at + word.len()..].chars().next().is_some_and(part);
        !before && !after
    })
}

/// The production sources of a package: `src/` without the modules that are declared for tests only.
fn sources(package: &str) -> Vec<Source> {
    let root = root();
    let mut files = Vec::new();
    let mut tests = Vec::new();
    let mut folders = vec![root.join(package).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}")) {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("readable source");
                let path = path.strip_prefix(&root).expect("below the root");
                tests.extend(test_modules(path, &text));
                files.push(Source::read(&path.to_string_lossy(), &text));
            }
        }
    }
    files.retain(|file| {
        !tests
            .iter()
            .any(|test| file.is_in(&format!("{test}.rs")) || file.is_in(&format!("{test}/")))
    });
    files
}

/// Where the modules lie that a file declares under `#[cfg(test)]`.
fn test_modules(path: &Path, text: &str) -> Vec<String> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let own = path.file_stem().unwrap_or_default().to_string_lossy();
    let folder = match own.as_ref() {
        "lib" | "main" | "mod" => parent.to_owned(),
        name => parent.join(name),
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let modules = lines
        .windows(2)
        .filter(|pair| pair[0] == "#[cfg(test)]")
        .filter_map(|pair| {
            let declared = pair[1].split("mod ").nth(1)?;
            declared
                .strip_suffix(';')
                .map(|name| folder.join(name).to_string_lossy().into_owned())
        });
    modules.collect()
}

/// The packages of the workspace with the names of what each depends on, except for its tests.
fn workspace() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = std::process::Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let production = dependencies.iter().filter(|d| d["kind"] != "dev");
            let text = |value: &serde_json::Value| value.as_str().expect("a name").to_owned();
            (
                text(&package["name"]),
                production.map(|d| text(&d["name"])).collect(),
            )
        })
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}
