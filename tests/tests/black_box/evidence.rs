//! Logs and answers, checked by programs that are not ours, and our verifier against every kind of damage.

use std::path::{Path, PathBuf};
use std::process::Command;

use agentca_tests::clients::{go, openssl, python};
use agentca_tests::curl::curl;
use agentca_tests::lab::{Enforcer, Lab};
use agentca_tests::log::raw_records;
use agentca_tests::program::Said;
use agentca_tests::wait;
use serde_json::Value;

/// A domain with something in both of its logs.
fn busy_lab() -> (Lab, Enforcer, PathBuf) {
    let lab = Lab::with_authority();
    let agent = lab.agent("support-01");
    let enforcer = lab.enforcer("edge-1");
    let paths = vec!["/v1/accounts/7"; 300];
    curl(&enforcer, &agent, &[], &paths);
    curl(
        &enforcer,
        &agent,
        &[],
        &["/nowhere", "/v1/audits/1", "/v1/chunked/1"],
    );
    lab.agent("other-01");
    lab.revoke("other-01", "superseded");
    (lab, enforcer, agent)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn check(lab: &Lab, log: &Path) -> Value {
    let said = python(lab, "log_check.py", &[&text(log), &text(&lab.root())]).must_succeed();
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn python_verifies_every_answer() {
    let (lab, enforcer, agent) = busy_lab();
    let base = format!("https://{}", enforcer.address());
    let arguments = [
        &base,
        &text(&agent),
        &text(&lab.root()),
        "example.org/prod/enforcer/edge-1",
        &text(&enforcer.log()),
    ];
    let said = python(&lab, "responses.py", &arguments).must_succeed();
    assert!(said.stdout.contains("verified"), "{said}");
}

#[test]
fn python_and_go_verify_both_logs_running_and_ended() {
    let (mut lab, enforcer, agent) = busy_lab();
    let verify = go(&lab, "verify");
    let (ours, edge) = (lab.path("pki/log"), enforcer.log());
    let root = text(&lab.root());
    let old = text(&lab.path("old-checkpoint"));
    std::fs::copy(ours.join("checkpoint"), &old).unwrap();
    lab.agent("later-01");
    curl(&enforcer, &agent, &[], &["/v1/accounts/7"]);

    for running in [true, false] {
        let mut vkeys = Vec::new();
        for log in [&ours, &edge] {
            let summary = check(&lab, log);
            let vkey = lab
                .agentca(&["log", "vkey", &text(log), "--root", &root])
                .stdout
                .trim()
                .to_owned();
            assert_eq!(summary["vkey"], vkey.as_str());
            lab.agentca(&["log", "verify", &text(log), "--root", &root]);
            go_verifies(&lab, &verify, &vkey, &text(log), log, &[]);
            vkeys.push(vkey);
        }
        if running {
            let remote = format!("http://{}", lab.http());
            go_verifies(&lab, &verify, &vkeys[0], &remote, &ours, &["-old", &old]);
            assert!(lab.take_authority().terminate().success());
            continue;
        }
    }
    // Ended by SIGTERM, the checkpoint covers everything.
    assert!(enforcer_ended(enforcer), "a clean end");
    for log in [&ours, &edge] {
        let summary = check(&lab, log);
        assert_eq!(summary["size"], summary["records"], "{summary}");
    }
    // The Go program is able to say no.
    let mut wrong = lab.command(&verify);
    let vkey = check(&lab, &ours)["vkey"].as_str().unwrap().to_owned();
    wrong.args([
        "-vkey",
        &vkey,
        "-log",
        &text(&ours),
        &format!("1={}", text(&lab.root())),
    ]);
    assert!(
        Said::from(wrong)
            .must_end_with(1)
            .stderr
            .contains("not in the tree")
    );
}

fn enforcer_ended(enforcer: Enforcer) -> bool {
    enforcer.program.terminate().success()
}

/// Go follows the tiles from the root to some records.
fn go_verifies(lab: &Lab, program: &Path, vkey: &str, source: &str, log: &Path, options: &[&str]) {
    let records = raw_records(log);
    let mut command: Command = lab.command(program);
    command.args(["-vkey", vkey, "-log", source]).args(options);
    let checkpoint = std::fs::read_to_string(log.join("checkpoint")).unwrap();
    let size: usize = checkpoint.lines().nth(1).unwrap().parse().unwrap();
    for index in [0, 1, size / 2, size - 1] {
        let file = lab.path(&format!("record-{index}"));
        std::fs::write(&file, &records[index]).unwrap();
        command.arg(format!("{index}={}", file.display()));
    }
    let said = Said::from(command).must_succeed();
    assert!(
        said.stdout.trim().parse::<usize>().unwrap() >= size,
        "{said}"
    );
}

#[test]
fn plain_openssl_verifies_a_checkpoint_from_the_root() {
    let (lab, enforcer, _) = busy_lab();
    for log in [lab.path("pki/log"), enforcer.log()] {
        let first: Value = serde_json::from_slice(&raw_records(&log)[0]).unwrap();
        let checkpoint = std::fs::read_to_string(log.join("checkpoint")).unwrap();
        let (body, signature) = checkpoint.split_once("\n\n").unwrap();
        std::fs::write(lab.path("body"), format!("{body}\n")).unwrap();
        let signature = signature.trim_end().rsplit(' ').next().unwrap();
        std::fs::write(lab.path("signature.b64"), signature).unwrap();
        openssl(
            &lab,
            &[
                "base64",
                "-d",
                "-A",
                "-in",
                "signature.b64",
                "-out",
                "signature.all",
            ],
        )
        .must_succeed();
        let all = std::fs::read(lab.path("signature.all")).unwrap();
        std::fs::write(lab.path("signature"), &all[4..]).unwrap();
        for (name, der) in ["leaf", "intermediate"]
            .iter()
            .zip(first["signers"][0].as_array().unwrap())
        {
            std::fs::write(lab.path("der.b64"), der.as_str().unwrap()).unwrap();
            openssl(
                &lab,
                &["base64", "-d", "-A", "-in", "der.b64", "-out", "der"],
            )
            .must_succeed();
            openssl(
                &lab,
                &["x509", "-inform", "DER", "-in", "der", "-out", name],
            )
            .must_succeed();
        }
        let root = text(&lab.root());
        openssl(
            &lab,
            &[
                "verify",
                "-x509_strict",
                "-CAfile",
                &root,
                "-untrusted",
                "intermediate",
                "leaf",
            ],
        )
        .must_succeed();
        let key = openssl(&lab, &["x509", "-in", "leaf", "-noout", "-pubkey"])
            .must_succeed()
            .stdout;
        std::fs::write(lab.path("leaf.pub"), key).unwrap();
        let verify = [
            "pkeyutl",
            "-verify",
            "-pubin",
            "-inkey",
            "leaf.pub",
            "-rawin",
            "-in",
            "body",
            "-sigfile",
            "signature",
        ];
        openssl(&lab, &verify).must_succeed();
        std::fs::write(lab.path("body"), format!("{body} \n")).unwrap();
        assert_ne!(
            openssl(&lab, &verify).code,
            Some(0),
            "openssl must be able to say no"
        );
    }
}

#[test]
fn proofs_stand_alone() {
    let (lab, enforcer, _) = busy_lab();
    let (log, root) = (text(&enforcer.log()), text(&lab.root()));
    wait::until("the checkpoint covers record 5", || {
        let said = lab.try_agentca(&[
            "log", "prove", "5", "--log", &log, "--root", &root, "--out", "5.proof",
        ]);
        (said.code == Some(0)).then_some(())
    });
    std::fs::write(lab.path("5.record"), &raw_records(&enforcer.log())[5]).unwrap();
    std::fs::write(lab.path("6.record"), &raw_records(&enforcer.log())[6]).unwrap();
    lab.agentca(&[
        "log",
        "verify-proof",
        "5.proof",
        "--record",
        "5.record",
        "--root",
        &root,
    ]);
    let said = lab.try_agentca(&[
        "log",
        "verify-proof",
        "5.proof",
        "--record",
        "6.record",
        "--root",
        &root,
    ]);
    said.must_end_with(1);
    let proof = std::fs::read_to_string(lab.path("5.proof")).unwrap();
    assert!(proof.starts_with("c2sp.org/tlog-proof@v1\n"), "{proof}");
}

#[test]
fn our_verifier_refuses_every_kind_of_damage() {
    let (lab, enforcer, _) = busy_lab();
    let log = enforcer.log();
    assert!(enforcer_ended(enforcer));
    let root = text(&lab.root());
    let verify = |log: &Path| lab.try_agentca(&["log", "verify", &text(log), "--root", &root]);
    let said = verify(&log).must_succeed();
    assert!(
        said.stdout.contains("after the last co-signed head, at "),
        "{said}"
    );
    let copy = lab.path("damaged");
    let fresh = || {
        let _ = std::fs::remove_dir_all(&copy);
        let mut cp = Command::new("cp");
        cp.arg("-r").arg(&log).arg(&copy);
        Said::from(cp).must_succeed();
    };
    fresh();
    let mut flips = 0;
    for file in files(&copy) {
        let whole = std::fs::read(&file).unwrap();
        let step = if file.ends_with("checkpoint") {
            1
        } else {
            (whole.len() / 150).max(1)
        };
        for at in (0..whole.len()).step_by(step) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            std::fs::write(&file, damaged).unwrap();
            let said = verify(&copy);
            assert_eq!(
                said.code,
                Some(1),
                "byte {at} of {} was flipped: {said}",
                file.display()
            );
            flips += 1;
        }
        std::fs::write(&file, &whole[..whole.len() - whole.len().min(1)]).unwrap();
        if !whole.is_empty() {
            verify(&copy).must_end_with(1);
        }
        std::fs::remove_file(&file).unwrap();
        if !file.ends_with("lock") {
            let said = verify(&copy);
            assert_eq!(said.code, Some(1), "{} is missing: {said}", file.display());
        }
        std::fs::write(&file, &whole).unwrap();
    }
    assert!(flips > 200, "only {flips} bytes were flipped");
    verify(&copy).must_succeed();
    for extra in [
        "more",
        "segments/00000000000000099999",
        "hashes/7",
        "segments/x",
        "lock2",
    ] {
        std::fs::write(copy.join(extra), b"x").unwrap();
        let said = verify(&copy);
        assert_eq!(said.code, Some(1), "{extra} is too much: {said}");
        std::fs::remove_file(copy.join(extra)).unwrap();
    }
    signatures_are_needed(&lab, &copy, &verify);
    longer_checkpoints_are_a_floor(&lab, &log, &copy, &root);
    let other = Lab::with_authority();
    lab.try_agentca(&["log", "verify", &text(&log), "--root", &text(&other.root())])
        .must_end_with(1);
}

fn signatures_are_needed(lab: &Lab, copy: &Path, verify: &impl Fn(&Path) -> Said) {
    let path = copy.join("checkpoint");
    let whole = std::fs::read_to_string(&path).unwrap();
    let (body, signature) = whole.split_once("\n\n").unwrap();
    let theirs = std::fs::read_to_string(lab.path("pki/log/checkpoint")).unwrap();
    let (_, foreign) = theirs.split_once("\n\n").unwrap();
    for changed in [
        format!("{body}\n\n"),
        format!("{body}\n"),
        format!("{body}\n\n{foreign}"),
        format!("{body}\n\n{signature}{foreign}"),
        format!("{body}\n\n{signature}{signature}"),
        format!("{body}\n\n{signature}\n"),
    ] {
        std::fs::write(&path, &changed).unwrap();
        let said = verify(copy);
        assert_eq!(said.code, Some(1), "{changed:?}: {said}");
    }
    std::fs::write(&path, whole).unwrap();
    verify(copy).must_succeed();
}

/// A log that was cut back to an older, properly signed state is told by a checkpoint that somebody kept.
fn longer_checkpoints_are_a_floor(lab: &Lab, log: &Path, copy: &Path, root: &str) {
    let kept = text(&log.join("checkpoint"));
    lab.agentca(&[
        "log",
        "verify",
        &text(copy),
        "--root",
        root,
        "--checkpoint",
        &kept,
    ]);
    let again = lab.start_enforcer("edge-1");
    assert!(enforcer_ended(again));
    let newer = text(&log.join("checkpoint"));
    let said = lab.try_agentca(&[
        "log",
        "verify",
        &text(copy),
        "--root",
        root,
        "--checkpoint",
        &newer,
    ]);
    said.must_end_with(1);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
