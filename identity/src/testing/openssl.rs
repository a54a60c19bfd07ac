//! The real openssl, as a second opinion.

use std::path::PathBuf;
use std::process::{Command, Output};

/// Files in a directory that goes away.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

/// Runs `openssl` with arguments separated by blanks.
pub(crate) fn run(arguments: &str) -> Output {
    Command::new("openssl")
        .args(arguments.split_whitespace())
        .output()
        .unwrap()
}
