//! Building the programs, starting them, and ending exactly those.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::Error;
use crate::place::Place;

/// The programs, and which of them are running.
pub(crate) struct Stage {
    programs: PathBuf,
    root: PathBuf,
    running: Vec<Running>,
}

struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) stdout: String,
}

impl Stage {
    /// Builds the programs with the cargo that runs us; without one, those beside our own executable are taken.
    pub(crate) fn build(place: &Place) -> Result<Self, Error> {
        // Asked first: the build may put a new file in the place of our own.
        let own = std::env::current_exe()?;
        let programs = own
            .parent()
            .ok_or("our own executable lies nowhere")?
            .to_owned();
        if let Some(cargo) = std::env::var_os("CARGO") {
            println!("Building the programs ...");
            let built = std::process::Command::new(cargo)
                .args(["build", "--release", "--bins"])
                .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
                .status()?;
            if !built.success() {
                return Err(format!("the build of the programs failed: {built}").into());
            }
        }
        for program in ["agentca", "agentca-enforcer", "agentca-sidecar"] {
            if !programs.join(program).is_file() {
                return Err(format!(
                    "there is no `{program}` in {}: run `cargo build --release --bins`",
                    programs.display()
                )
                .into());
            }
        }
        Ok(Self {
            programs,
            root: place.root().to_owned(),
            running: Vec::new(),
        })
    }

    /// Where the programs lie.
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }

    /// A program that reads and writes nothing outside of the example's folder.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join(program));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AGENTCA_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .current_dir(&self.root)
            .env("XDG_CONFIG_HOME", self.root.join("config"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs `agentca` to its end, which has to be a good one.
    pub(crate) async fn agentca(&self, arguments: &[&str]) -> Result<Said, Error> {
        self.ask("agentca", arguments, "").await
    }

    /// Runs `agentca-enforcer` to its end, which has to be a good one.
    pub(crate) async fn enforcer(&self, arguments: &[&str]) -> Result<Said, Error> {
        self.ask("agentca-enforcer", arguments, "").await
    }

    /// Runs a program that reads `input` to its end, which has to be a good one.
    pub(crate) async fn ask(
        &self,
        program: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<Said, Error> {
        let mut command = self.command(program, arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() {
            return Ok(Said {
                stdout: text(&output.stdout),
            });
        }
        Err(format!(
            "`{program} {}` ended with {}: {}",
            arguments.join(" "),
            output.status,
            text(&output.stderr)
        )
        .into())
    }

    /// Starts a program that stays; what it prints goes to `<name>.log`.
    pub(crate) fn start(
        &mut self,
        name: &str,
        program: &str,
        arguments: &[&str],
    ) -> Result<(), Error> {
        let log = self.root.join(format!("{name}.log"));
        let out = File::create(&log)?;
        let err = out.try_clone()?;
        let child = self
            .command(program, arguments)
            .stdout(out)
            .stderr(err)
            .spawn()?;
        self.running.push(Running {
            name: name.to_owned(),
            child,
            log,
        });
        Ok(())
    }

    /// Fails when a program that should be running has ended.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        for running in &mut self.running {
            if let Some(status) = running.child.try_wait()? {
                let log = std::fs::read_to_string(&running.log).unwrap_or_default();
                let name = &running.name;
                return Err(format!("the {name} ended early with {status}:\n{log}").into());
            }
        }
        Ok(())
    }

    /// Waits until somebody listens.
    pub(crate) async fn wait_for(&mut self, address: SocketAddr) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = tokio::net::TcpStream::connect(address).await {
            self.check()?;
            if Instant::now() > deadline {
                return Err(
                    format!("nobody listens on {address} after {PATIENCE:?}: {error}").into(),
                );
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Ends one program by SIGTERM and waits for its end.
    pub(crate) async fn end_one(&mut self, name: &str) -> Result<(), Error> {
        while let Some(at) = self.running.iter().position(|running| running.name == name) {
            self.running.remove(at).end().await?;
        }
        Ok(())
    }

    /// Ends everything that is running, the newest first.
    pub(crate) async fn end(&mut self) {
        while let Some(running) = self.running.pop() {
            let name = running.name.clone();
            if let Err(error) = running.end().await {
                eprintln!("certs-example: the {name}: {error}");
            }
        }
    }
}

impl Running {
    async fn end(mut self) -> Result<(), Error> {
        if let Some(id) = self.child.id() {
            let terminate = format!("kill -TERM {id}");
            Command::new("sh")
                .args(["-c", &terminate])
                .stderr(Stdio::null())
                .status()
                .await?;
        }
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => drop(status?),
            Err(_) => self.child.kill().await?,
        }
        Ok(())
    }
}

/// As many free ports of the loopback interface as wanted, all different.
pub(crate) fn free_ports<const N: usize>() -> Result<[SocketAddr; N], Error> {
    let mut listeners = Vec::new();
    let mut ports = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(ports)
}

/// Comes back when a person or a supervisor wants us to stop.
pub(crate) async fn asked_to_stop() -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// How long a program may take to start or to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
