//! What `deploy/` holds: units that systemd understands and finds hardened, and container files whose paths exist and
//! that build as the README says.
#![cfg(test)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use agentca_tests::program::{Said, ours};

const UNITS: [(&str, Manager, f64); 3] = [
    ("agentca", Manager::System, 1.5),
    ("agentca-enforcer", Manager::System, 1.5),
    // A user's manager has no means to change users, mounts or capabilities.
    ("agentca-sidecar", Manager::User, 6.5),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manager {
    System,
    User,
}

#[test]
fn systemd_understands_each_unit() {
    for (name, manager, _) in UNITS {
        let (dir, unit) = startable(name);
        let mut command = Command::new("systemd-analyze");
        if manager == Manager::User {
            command.arg("--user").env("XDG_RUNTIME_DIR", dir.path());
        }
        let said = command
            .args(["verify", "--man=no"])
            .arg(&unit)
            .output()
            .expect("systemd-analyze of the package systemd");
        let complaints = String::from_utf8_lossy(&said.stderr).into_owned();
        let about_it: Vec<&str> = complaints
            .lines()
            .filter(|line| line.contains(name))
            .collect();
        assert!(about_it.is_empty(), "{name}: {complaints}");
        assert!(said.status.success(), "{name}: {complaints}");
    }
}

#[test]
fn each_unit_is_hardened() {
    for (name, _, most) in UNITS {
        let (_dir, unit) = startable(name);
        let said = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(&unit)
            .output()
            .expect("systemd-analyze of the package systemd");
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let level = text.lines().find_map(|line| {
            line.split_once("exposure level for ")?
                .1
                .split(' ')
                .nth(1)?
                .parse()
                .ok()
        });
        let level: f64 = level.unwrap_or_else(|| panic!("{name}: {text}"));
        assert!(level <= most, "{name}: exposed by {level}\n{text}");
    }
}

#[test]
fn each_unit_holds_what_must_never_be_lost() {
    let always = [
        "NoNewPrivileges=yes",
        "MemoryDenyWriteExecute=yes",
        "Restart=on-failure",
        "UMask=0077",
        "LimitCORE=0",
    ];
    let services = [
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateDevices=yes",
        "StateDirectoryMode=0700",
    ];
    for (name, manager, _) in UNITS {
        let text = unit(name);
        let lines: BTreeSet<&str> = text.lines().collect();
        for line in always.iter().chain(&services) {
            let wanted = manager == Manager::System || always.contains(line);
            assert!(!wanted || lines.contains(line), "{name}: no `{line}`");
        }
        let limit = text.lines().any(|line| line.starts_with("LimitNOFILE="));
        assert!(limit, "{name}: no LimitNOFILE=");
        if manager == Manager::System {
            let users = read("deploy/systemd/agentca.sysusers");
            assert!(lines.contains(format!("User={name}").as_str()), "{name}");
            assert!(
                users
                    .lines()
                    .any(|line| line.starts_with(&format!("u {name} "))),
                "{users}"
            );
        }
    }
    assert!(unit("agentca-enforcer").contains("\nExecReload=/bin/kill -HUP $MAINPID\n"));
}

#[test]
fn each_container_file_builds_what_is_there_as_the_readme_says() {
    let readme = read("README.md");
    let build = readme.lines().find(|line| line.starts_with("cargo build"));
    let build = build.expect("the README says how to build");
    let workspace: toml::Table = read("Cargo.toml").parse().expect("TOML");
    let members = workspace["workspace"]["members"]
        .as_array()
        .expect("members");
    for (name, ..) in UNITS {
        let text = read(&format!("deploy/containers/Containerfile.{name}"));
        let instructions: Vec<(&str, &str)> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(' '))
            .collect();
        let of = |wanted| instructions.iter().filter(move |(kind, _)| *kind == wanted);
        let mut copied = Vec::new();
        for (_, words) in of("COPY") {
            let mut words: Vec<&str> = words.split(' ').collect();
            words.pop().expect("where to");
            if words.first().is_some_and(|word| word.starts_with("--from")) {
                assert_eq!(words[1], format!("/src/target/release/{name}"));
                continue;
            }
            for word in words {
                assert!(
                    root().join(word).exists(),
                    "{name}: COPY {word}: there is none"
                );
                copied.push(word.trim_end_matches('/').to_owned());
            }
        }
        for member in members {
            let member = member.as_str().expect("a path");
            let there = copied
                .iter()
                .any(|path| Path::new(member).starts_with(path));
            assert!(there, "{name}: the workspace's `{member}` is not copied");
        }
        let (_, run) = of("RUN").next().expect("a RUN line");
        assert_eq!(*run, format!("{build} --locked -p {name}"));
        let user = of("USER").next().map(|(_, user)| *user);
        assert_eq!(user, Some("65532:65532"), "{name} does not run as root");
        let entry = of("ENTRYPOINT").next().map(|(_, entry)| *entry);
        assert_eq!(entry, Some(format!("[\"/usr/local/bin/{name}\"]").as_str()));
        for wanted in [
            "--read-only",
            "--cap-drop=all",
            "--security-opt=no-new-privileges",
            "podman build -f ",
        ] {
            assert!(
                text.contains(wanted),
                "{name}: no `{wanted}` in its description"
            );
        }
        let ours = instructions.iter().all(|(kind, _)| KNOWN.contains(kind));
        assert!(
            ours,
            "{name}: an instruction that nobody checks: {instructions:?}"
        );
    }
    let ignored = read(".containerignore");
    assert!(ignored.lines().any(|line| line == "target"), "{ignored}");
}

#[test]
fn each_program_is_started_as_it_can_be_with_its_log_for_machines() {
    for (name, ..) in UNITS {
        let unit = unit(name);
        let text = read(&format!("deploy/containers/Containerfile.{name}"));
        let cmd = text.lines().find_map(|line| line.strip_prefix("CMD "));
        let cmd: Vec<String> = serde_json::from_str(cmd.expect("a CMD line")).expect("JSON");
        // What the bridge is to connect to is said where it is run.
        let described = text.split_once("agentca-sidecar connect ");
        let in_container = match described {
            Some((_, rest)) => {
                let (words, _) = rest.split_once("\nFROM").expect("a FROM line");
                format!("connect {}", words.replace(['#', '\\'], " "))
            }
            None => cmd.join(" "),
        };
        let start = format!("ExecStart=/usr/local/bin/{name} ");
        let by_unit = unit.lines().find_map(|line| line.strip_prefix(&start));
        let by_unit = by_unit.expect("an ExecStart= line");
        for line in [by_unit, &in_container] {
            assert!(line.contains(" --log-format json"), "{name}: {line}");
            let line = line.replace("${ENFORCER}", "https://localhost:8443/mcp");
            let mut command = Command::new(ours(name));
            // Whatever it does not take it refuses before it helps.
            command.args(line.split_whitespace()).arg("--help");
            Said::from(command).must_succeed();
        }
    }
}

const KNOWN: [&str; 11] = [
    "FROM",
    "WORKDIR",
    "COPY",
    "RUN",
    "USER",
    "ENV",
    "VOLUME",
    "EXPOSE",
    "STOPSIGNAL",
    "ENTRYPOINT",
    "CMD",
];

fn unit(name: &str) -> String {
    read(&format!("deploy/systemd/{name}.service"))
}

/// The unit with programs that are installed everywhere in place of ours.
fn startable(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let text = unit(name);
    let program = format!("ExecStart=/usr/local/bin/{name} ");
    assert_eq!(text.matches(&program).count(), 1, "{name}");
    let path = dir.path().join(format!("{name}.service"));
    let text = text.replace(&program, "ExecStart=/bin/true ");
    std::fs::write(&path, text).expect("a unit");
    (dir, path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}
