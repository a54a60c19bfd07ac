//! Verifiers and clients in other languages, and openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::Lab;
use crate::program::Said;

/// Runs `tests/python/<script>` in the virtual environment that `tests/run` makes.
pub fn python(lab: &Lab, script: &str, arguments: &[&str]) -> Said {
    let python = tests().join(".venv/bin/python");
    assert!(
        python.is_file(),
        "no {}: run tests/run once",
        python.display()
    );
    let mut command = lab.command(python);
    command
        .arg("-B")
        .arg(tests().join("python").join(script))
        .args(arguments);
    Said::from(command)
}

/// Builds `tests/go/<name>` against Debian's packages alone, without a network, and gives the program.
pub fn go(lab: &Lab, name: &str) -> PathBuf {
    let program = lab.path(&format!("go-{name}"));
    let mut command = Command::new("go");
    command
        .args(["build", "-o"])
        .arg(&program)
        .arg(tests().join("go").join(name).join("main.go"))
        .current_dir(lab.path(""))
        .env("GO111MODULE", "off")
        .env("GOPATH", "/usr/share/gocode")
        .env("GOCACHE", tests().join(".cache/go"))
        .env("GOFLAGS", "")
        .env("CGO_ENABLED", "0");
    Said::from(command).must_succeed();
    program
}

/// Runs openssl.
pub fn openssl(lab: &Lab, arguments: &[&str]) -> Said {
    let mut command = lab.command("openssl");
    command.args(arguments);
    Said::from(command)
}

fn tests() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
