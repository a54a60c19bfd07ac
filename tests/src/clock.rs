//! A clock that tests set, by Debian's faketime. Only the time of day is moved: what is measured goes on.

use std::path::{Path, PathBuf};

/// The clock of every program that is started with [`Clock::environment`].
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// A clock that is right, kept in `folder`.
    pub fn right(folder: &Path) -> Self {
        let clock = Self {
            file: folder.join("clock"),
        };
        clock.step("+0");
        clock
    }

    /// Moves it: so far from the true time, as `+3600`, `-40` or `+61d`.
    pub fn step(&self, to: &str) {
        // Replaced at once: the library reads it at every question for the time.
        let fresh = self.file.with_extension("new");
        std::fs::write(&fresh, to).expect("a clock");
        std::fs::rename(&fresh, &self.file).expect("a clock");
    }

    /// What a program needs to go by it.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

fn library() -> String {
    let found = [
        "/usr/lib/x86_64-linux-gnu/faketime",
        "/usr/lib/aarch64-linux-gnu/faketime",
    ]
    .iter()
    .map(|folder| format!("{folder}/libfaketime.so.1"))
    .find(|library| Path::new(library).is_file());
    found.expect("Debian's faketime is installed: run tests/run")
}
