//! A folder, an address and an authority for one test.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A trust domain in a folder. Every lab has a loopback address of its own, and the usual ports.
pub(crate) struct Lab {
    folder: TempDir,
    address: Ipv4Addr,
    authority: Option<Child>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// The output of a command that had to succeed.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.done()).unwrap()
    }

    /// One sentence on standard error that says each of `parts`.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in {self:?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }
}

impl Lab {
    /// An empty folder.
    pub(crate) fn empty() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let [.., process] = std::process::id().to_be_bytes();
        // 127.128.0.0/9 leaves 127.0.0.0/9 to whoever else tests here.
        let address = Ipv4Addr::new(127, 128 | high, process, low);
        Self {
            folder: TempDir::new().unwrap(),
            address,
            authority: None,
        }
    }

    /// An authority that serves.
    pub(crate) fn serving() -> Self {
        Self::serving_with(&[])
    }

    pub(crate) fn serving_with(init: &[&str]) -> Self {
        let mut lab = Self::empty();
        let usual = ["init", "--trust-domain", "example.org", "--data", "pki"];
        lab.agentca(&[&usual[..], init].concat()).done();
        lab.serve();
        lab
    }

    pub(crate) fn serve(&mut self) {
        self.serve_with(&[]);
    }

    pub(crate) fn serve_with(&mut self, more: &[&str]) {
        let (grpc, http) = (self.grpc().to_string(), self.http().to_string());
        let serve = [
            "serve",
            "--data",
            "pki",
            "--listen",
            &grpc,
            "--http-listen",
            &http,
        ];
        let log = fs::File::create(self.path("serve.log")).unwrap();
        let authority = self
            .command(&[&serve[..], more].concat())
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.authority = Some(authority);
        for address in [self.grpc(), self.http()] {
            self.until("the authority serves", || {
                TcpStream::connect(address).is_ok()
            });
        }
    }

    /// Ends the authority with SIGTERM and returns when it has gone.
    pub(crate) fn stop(&mut self) {
        if let Some(mut authority) = self.authority.take() {
            let pid = authority.id().to_string();
            let told = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
            assert!(told.success());
            assert!(
                authority.wait().unwrap().success(),
                "{}",
                self.read("serve.log")
            );
        }
    }

    /// Asks until it is so, for a minute.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut so: impl FnMut() -> bool) {
        let began = Instant::now();
        while !so() {
            let log = fs::read_to_string(self.path("serve.log")).unwrap_or_default();
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "not in time: {what}; {log}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn grpc(&self) -> SocketAddr {
        (self.address, 7443).into()
    }

    pub(crate) fn http(&self) -> SocketAddr {
        (self.address, 7080).into()
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.grpc())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn mode(&self, name: &str) -> u32 {
        self.path(name).metadata().unwrap().permissions().mode() & 0o777
    }

    /// The names in a folder, hidden ones included.
    pub(crate) fn files(&self, name: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path(name))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The folder of the first person.
    pub(crate) fn admin(&self) -> PathBuf {
        let store = self.path("config/agentca");
        let default = fs::read_to_string(store.join("default")).unwrap();
        store.join(default.trim())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentca"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .env_remove("AGENTCA_CREDENTIALS")
            .env_remove("AGENTCA_PASSPHRASE_FILE")
            .env("AGENTCA_URL", self.url())
            .env("XDG_CONFIG_HOME", self.path("config"));
        command
    }

    pub(crate) fn agentca(&self, arguments: &[&str]) -> Said {
        said(&mut self.command(arguments))
    }

    /// Issues an agent with the rights that most tests use.
    #[track_caller]
    pub(crate) fn issue(&self, agent: &str, out: &str) -> String {
        self.agentca(&[
            "issue",
            agent,
            "--owner",
            "alice@example.org",
            "--scope",
            "payments:read",
            "--trust",
            "L2",
            "--ttl",
            "1h",
            "--out",
            out,
        ])
        .done()
    }

    /// Runs another program in the folder; it has to succeed.
    #[track_caller]
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) -> String {
        said(
            Command::new(program)
                .args(arguments)
                .current_dir(self.folder.path()),
        )
        .done()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(authority) = &mut self.authority {
            let _ = authority.kill();
            let _ = authority.wait();
        }
    }
}

pub(crate) fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
