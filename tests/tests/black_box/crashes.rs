//! Bad days: SIGKILL, a lost index, a full disk, a clock that steps.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use agentca_tests::clock::Clock;
use agentca_tests::lab::{Enforcer, LAGGING, Lab, ROUTES};
use agentca_tests::log::{raw_records, records};
use agentca_tests::program::{Said, ours};
use agentca_tests::wait;
use serde_json::Value;

fn verify(lab: &Lab, log: &Path) {
    let (log, root) = (log.display().to_string(), lab.root().display().to_string());
    lab.agentca(&["log", "verify", &log, "--root", &root]);
}

/// The index and the leaf hash, base64, that an answer names.
fn receipt(audit: &str) -> (usize, String) {
    let part = |name: &str| {
        let part = audit.split(", ").find_map(|part| part.strip_prefix(name));
        part.unwrap_or_else(|| panic!("no {name} in {audit}"))
            .to_owned()
    };
    (
        part("index=").parse().unwrap(),
        part("leaf=").trim_matches(':').to_owned(),
    )
}

#[test]
fn an_enforcer_killed_under_load_loses_nothing_it_answered_for() {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    let mut enforcer = lab.enforcer("edge-1");
    let receipts = Mutex::new(BTreeMap::new());
    for round in 1..=5 {
        let target = round * 60;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // The others may have brought enough before this one came.
                    let Ok(mut tls) = enforcer.connect(&agent) else {
                        return;
                    };
                    while let Ok(answer) = tls.get("/v1/accounts/7") {
                        assert_eq!(answer.status, 200, "{answer:?}");
                        let (index, leaf) = receipt(answer.header("agent-audit").unwrap());
                        receipts.lock().unwrap().insert(index, leaf);
                        if over.load(Ordering::SeqCst) {
                            break;
                        }
                    }
                });
            }
            wait::until("the load is under way", || {
                (receipts.lock().unwrap().len() >= target).then_some(())
            });
            enforcer.program.signal("KILL");
            over.store(true, Ordering::SeqCst);
        });
        enforcer.program.wait();
        verify(&lab, &enforcer.log());
        enforcer = lab.start_enforcer("edge-1");
        let records = raw_records(&enforcer.log());
        for (index, leaf) in receipts.lock().unwrap().iter() {
            let record = records
                .get(*index)
                .unwrap_or_else(|| panic!("record {index} is lost"));
            assert_eq!(leaf_hash(record), *leaf, "record {index} changed");
        }
    }
    assert!(enforcer.program.terminate().success());
}

fn leaf_hash(record: &[u8]) -> String {
    use base64::Engine as _;
    let prefixed = [&[0][..], record].concat();
    base64::engine::general_purpose::STANDARD.encode(agentca_identity::crypto::sha256(&prefixed))
}

#[test]
fn an_authority_killed_under_load_loses_nothing_it_acknowledged() {
    let mut lab = Lab::with_authority();
    let enforcer = lab.enforcer("edge-1");
    let issued = Mutex::new(Vec::new());
    let revoked = Mutex::new(Vec::new());
    for round in 0..3 {
        let enough = (round + 1) * 12;
        std::thread::scope(|scope| {
            for worker in 0..3 {
                let (lab, issued, revoked) = (&lab, &issued, &revoked);
                scope.spawn(move || {
                    for number in 0.. {
                        let name = format!("a-{round}-{worker}-{number}");
                        let issue = [
                            "issue",
                            &name,
                            "--owner",
                            "o@example.org",
                            "--scope",
                            "payments:read",
                            "--trust",
                            "L2",
                            "--out",
                            &name,
                        ];
                        if lab.try_agentca(&issue).code != Some(0) {
                            break;
                        }
                        issued.lock().unwrap().push(name.clone());
                        if number % 3 == 0 {
                            let revoke = ["revoke", &name, "--reason", "superseded"];
                            // Either way it is durable.
                            if !matches!(lab.try_agentca(&revoke).code, Some(0 | LAGGING)) {
                                break;
                            }
                            revoked.lock().unwrap().push(name);
                        }
                    }
                });
            }
            wait::until("certificates are issued", || {
                (issued.lock().unwrap().len() >= enough).then_some(())
            });
            lab.signal_authority("KILL");
        });
        lab.authority().wait();
        verify(&lab, &lab.path("pki/log"));
        lab.start_authority();
        let agents = agents(&lab);
        for name in issued.lock().unwrap().iter() {
            assert!(
                agents.contains_key(name),
                "{name} was issued and is forgotten"
            );
        }
        for name in revoked.lock().unwrap().iter() {
            assert_eq!(agents[name]["status"], "revoked", "{name} came back");
        }
    }
    // What was acknowledged before the last crash is what the enforcer goes by.
    let (issued, revoked) = (issued.into_inner().unwrap(), revoked.into_inner().unwrap());
    let alive = issued.iter().rfind(|name| !revoked.contains(name)).unwrap();
    wait::until("the enforcer follows again", || {
        (enforcer
            .connect(&lab.path(alive))
            .ok()?
            .get("/v1/accounts/7")
            .ok()?
            .status
            == 200)
            .then_some(())
    });
    for name in &revoked {
        let answer = enforcer
            .connect(&lab.path(name))
            .and_then(|mut tls| tls.get("/v1/accounts/7"));
        assert!(answer.is_err(), "{name} is revoked: {answer:?}");
    }
}

fn agents(lab: &Lab) -> BTreeMap<String, Value> {
    let said = lab.agentca(&["agent", "list", "--json"]);
    let list: Vec<Value> = serde_json::from_str(&said.stdout).unwrap();
    list.into_iter()
        .map(|agent| (agent["name"].as_str().unwrap().to_owned(), agent))
        .collect()
}

#[test]
fn a_lost_or_damaged_index_is_made_again_from_the_log() {
    let mut lab = Lab::with_authority();
    for number in 0..5 {
        lab.agent(&format!("a-{number}"));
    }
    lab.revoke("a-1", "superseded");
    let before = agents(&lab);
    for damage in ["removed", "overwritten", "older"] {
        if damage == "older" {
            assert!(lab.take_authority().terminate().success());
            let mut cp = Command::new("cp");
            cp.arg("-r")
                .arg(lab.path("pki/index"))
                .arg(lab.path("index-older"));
            Said::from(cp).must_succeed();
            lab.start_authority();
            lab.revoke("a-2", "superseded");
        }
        lab.authority().signal("KILL");
        lab.take_authority().wait();
        match damage {
            "removed" => std::fs::remove_dir_all(lab.path("pki/index")).unwrap(),
            "older" => {
                std::fs::remove_dir_all(lab.path("pki/index")).unwrap();
                std::fs::rename(lab.path("index-older"), lab.path("pki/index")).unwrap();
            }
            _ => overwrite(&lab.path("pki/index")),
        }
        lab.start_authority();
        let after = agents(&lab);
        if damage == "older" {
            assert_eq!(
                after["a-2"]["status"], "revoked",
                "nothing revoked comes back"
            );
        } else {
            assert_eq!(after, before, "{damage}");
        }
    }
    lab.try_agentca(&["issue", "a-1", "--out", "a-1", "--force"])
        .must_end_with(1);
}

fn overwrite(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            overwrite(&path);
        } else {
            let length = usize::try_from(path.metadata().unwrap().len()).unwrap();
            std::fs::write(&path, vec![0xa5; length.min(1 << 20)]).unwrap();
        }
    }
}

/// A place that fills up: a small tmpfs, or where mounting is refused a limit on the size of files.
enum Small {
    Mounted(String),
    Limited,
}

impl Small {
    fn at(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let folder = folder.display().to_string();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=320k", "tmpfs", &folder]);
        match mount.output() {
            Ok(output) if output.status.success() => Self::Mounted(folder),
            _ => Self::Limited,
        }
    }

    /// The command, under the limit when there is one. SIGXFSZ is ignored, so that a write fails as on a full disk.
    fn limit(&self, program: &Path, arguments: &[&str]) -> Vec<String> {
        let mut words: Vec<String> = match self {
            Self::Mounted(_) => Vec::new(),
            Self::Limited => [
                "sh",
                "-c",
                "trap '' XFSZ; exec prlimit --fsize=131072: \"$@\"",
                "sh",
            ]
            .map(String::from)
            .to_vec(),
        };
        words.push(program.display().to_string());
        words.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        words
    }

    fn widen(&self, id: u32) {
        let command = match self {
            Self::Mounted(folder) => format!("mount -o remount,size=64m {folder}"),
            Self::Limited => format!("prlimit --pid {id} --fsize=unlimited:"),
        };
        let mut sh = Command::new("sh");
        sh.args(["-c", &command]);
        Said::from(sh).must_succeed();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Self::Mounted(folder) = self {
            // Lazily: the program that lives there ends a moment later.
            let _ = Command::new("umount").args(["-l", folder]).status();
        }
    }
}

#[test]
fn a_full_disk_closes_connections_and_loses_nothing() {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    lab.add_enforcer("edge-1");
    lab.write_configuration("edge-1", "", ROUTES);
    let small = Small::at(&lab.path("edge-1-data"));
    let words = small.limit(
        &ours("agentca-enforcer"),
        &["run", "--config", "edge-1.toml"],
    );
    let mut run = lab.command(&words[0]);
    run.args(&words[1..]);
    let mut enforcer = lab.launch_enforcer_by("edge-1", run);
    lab.wait_until_serving(&mut enforcer);

    let answered = fill(&lab, &mut enforcer, &agent);
    let before = lab.upstream().count("/v1/echo");
    for _ in 0..3 {
        let mut tls = enforcer.connect(&agent).unwrap();
        tls.send("POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
            .unwrap();
        assert!(
            tls.is_closed_without_a_word(),
            "no answer without a durable record"
        );
    }
    assert_eq!(
        lab.upstream().count("/v1/echo"),
        before,
        "no write reaches the upstream without a durable record"
    );
    enforcer.program.must_be_running();
    small.widen(enforcer.program.id());
    wait::until("it serves again", || {
        enforcer.program.must_be_running();
        (enforcer
            .connect(&agent)
            .ok()?
            .get("/v1/accounts/7")
            .ok()?
            .status
            == 200)
            .then_some(())
    });
    let records = records(&enforcer.log());
    assert!(
        records.len() > answered,
        "everything that was answered is there"
    );
    let log = enforcer.log();
    assert!(enforcer.program.terminate().success());
    verify(&lab, &log);
}

/// Calls until the log cannot grow; gives the highest index that was answered for.
fn fill(lab: &Lab, enforcer: &mut Enforcer, agent: &Path) -> usize {
    let mut highest = 0;
    let mut tls = enforcer.connect(agent).unwrap();
    loop {
        match tls.get("/v1/accounts/7") {
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{answer:?}");
                let (index, _) = receipt(answer.header("agent-audit").unwrap());
                highest = highest.max(index);
            }
            Err(error) => {
                assert_ne!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock,
                    "closed, not left hanging: {error}"
                );
                enforcer.program.must_be_running();
                return highest;
            }
        }
        assert!(lab.upstream().seen().len() < 20_000, "the disk never fills");
    }
}

#[test]
fn a_full_disk_stops_the_authority_from_acknowledging() {
    let mut lab = Lab::new();
    // It is smaller than what would be kept for revocations.
    let path = lab.path("pki/agentca.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}\n[limits]\ndisk_reserve = 0\n")).unwrap();
    // The whole folder moves to the small place.
    let small = Small::at(&lab.path("small"));
    let mut mv = Command::new("mv");
    mv.arg(lab.path("pki")).arg(lab.path("small/pki"));
    Said::from(mv).must_succeed();
    std::os::unix::fs::symlink(lab.path("small/pki"), lab.path("pki")).unwrap();
    let (grpc, http) = (lab.grpc().to_string(), lab.http().to_string());
    let words = small.limit(
        &ours("agentca"),
        &[
            "serve",
            "--data",
            "pki",
            "--listen",
            &grpc,
            "--http-listen",
            &http,
        ],
    );
    let mut serve = lab.command(&words[0]);
    serve.args(&words[1..]);
    lab.start_authority_by(serve);
    lab.root();
    let mut issued = Vec::new();
    let refused = (0..2_000).find_map(|number| {
        let name = format!("a-{number}");
        let said = lab.try_agentca(&[
            "issue",
            &name,
            "--owner",
            "o@example.org",
            "--scope",
            "payments:read",
            "--trust",
            "L2",
            "--out",
            &name,
        ]);
        if said.code == Some(0) {
            issued.push(name);
            return None;
        }
        Some(said)
    });
    let said = refused.expect("the disk fills");
    assert!(matches!(said.code, Some(1 | 3)), "{:?} {said}", said.code);
    lab.authority().must_be_running();
    let id = lab.authority().id();
    small.widen(id);
    wait::until("it issues again", || {
        lab.authority().must_be_running();
        let said = lab.try_agentca(&[
            "issue",
            "last",
            "--owner",
            "o@example.org",
            "--scope",
            "payments:read",
            "--trust",
            "L2",
            "--out",
            "last",
        ]);
        (said.code == Some(0)).then_some(())
    });
    let agents = agents(&lab);
    for name in &issued {
        assert!(agents.contains_key(name), "{name} was acknowledged");
    }
    assert!(lab.take_authority().terminate().success());
    verify(&lab, &lab.path("pki/log"));
    drop(small);
}

#[test]
fn a_stepped_clock_denies_and_never_revives() {
    let lab = Lab::with_authority();
    let agent = lab.agent_with("support-01", &["--ttl", "24h"]);
    lab.add_enforcer("edge-1");
    lab.write_configuration("edge-1", "", ROUTES);
    let clock = Clock::right(&lab.path(""));
    let mut run = lab.command(ours("agentca-enforcer"));
    run.args(["run", "--config", "edge-1.toml"])
        .envs(clock.environment());
    let mut enforcer = lab.launch_enforcer_by("edge-1", run);
    lab.wait_until_serving(&mut enforcer);
    let brief = lab.agent_with("brief-01", &["--ttl", "6s"]);
    let mut kept = enforcer.connect(&agent).unwrap();
    assert_eq!(kept.get("/v1/accounts/7").unwrap().status, 200);
    let mut ending = enforcer.connect(&brief).unwrap();
    assert_eq!(ending.get("/v1/accounts/7").unwrap().status, 200);
    let mut becomes = |status: u16, rule: &str| {
        wait::until(&format!("{status} {rule}"), || {
            let answer = kept.get("/v1/accounts/7").expect("the connection stays");
            (answer.status == status && answer.rule() == rule).then_some(())
        });
    };
    for far in ["+3600", "-3600"] {
        clock.step(far);
        becomes(503, "stale");
        clock.step("+0");
        becomes(200, "");
    }
    // An idle connection may end with its certificate.
    wait::until("the certificate ends", || {
        match ending.get("/v1/accounts/7") {
            Ok(answer) => (answer.rule() == "expired").then_some(()),
            Err(_) => Some(()),
        }
    });
    // A little back is no skew, and still revives nothing: heartbeats tell the time too.
    clock.step("-40");
    becomes(200, "");
    let answer = enforcer
        .connect(&brief)
        .and_then(|mut tls| tls.get("/v1/accounts/7"));
    assert!(answer.is_err(), "{answer:?}");
}
