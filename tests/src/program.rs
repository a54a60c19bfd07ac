//! Programs as processes: started, listened to, ended by their own id and nobody else's.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use crate::wait;

/// A program that is running; dropped, it is killed.
pub struct Program {
    name: String,
    child: Child,
    printed: PathBuf,
}

/// What a finished command said.
pub struct Said {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Program {
    /// Starts `command`, whose output goes to `printed`.
    pub fn start(name: &str, mut command: Command, printed: PathBuf) -> Self {
        let out = File::options()
            .create(true)
            .append(true)
            .open(&printed)
            .expect("a log file");
        let err = out.try_clone().expect("a second handle");
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            printed,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed so far.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(&self.printed).unwrap_or_default()
    }

    /// Its end, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Stops the test when the program has ended by itself.
    pub fn must_be_running(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended with {status}:\n{}", self.name, self.printed());
        }
    }

    /// Sends a signal by its name: `TERM`, `HUP`, `STOP`, `CONT`, `KILL`.
    pub fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().expect("sh");
        assert!(sent.success(), "cannot send SIG{signal} to {}", self.name);
    }

    /// SIGKILL, and the end.
    pub fn kill(mut self) {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
    }

    /// SIGTERM, and the end it comes to by itself.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        wait::until(&format!("{name} ends"), || self.ended())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- {} printed:\n{}", self.name, self.printed());
        }
    }
}

impl Said {
    /// Runs a command to its end.
    pub fn from(mut command: Command) -> Self {
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self::new(output)
    }

    /// Runs a command to its end with something to read.
    pub fn from_with_input(mut command: Command, input: &[u8]) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        // A command may end without reading; that is its own affair.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("a child of ours");
        writer.join().expect("the writer");
        Self::new(output)
    }

    fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The same, when it ended with `code`.
    #[track_caller]
    pub fn must_end_with(self, code: i32) -> Self {
        assert!(
            self.code == Some(code),
            "ended with {:?}, not {code}:\n{self}",
            self.code
        );
        self
    }

    /// The same, when it ended well.
    #[track_caller]
    pub fn must_succeed(self) -> Self {
        self.must_end_with(0)
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.stdout, self.stderr)
    }
}

/// One of our programs, beside the test's own executable.
pub fn ours(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("an executable");
    let folder = own
        .parent()
        .and_then(Path::parent)
        .expect("target/<profile>/deps");
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "no {}: run `cargo build --profile ci --workspace --all-targets`",
        program.display()
    );
    program
}

/// The whole of a file.
pub fn bytes_of(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.read_to_end(&mut bytes)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes
}
