//! A trust domain in a folder of its own: an authority, agents, enforcers, an upstream.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::program::{Program, Said, ours};
use crate::tls::Tls;
use crate::upstream::Upstream;
use crate::wait;

/// The folder, the address, and the authority when it is running.
pub struct Lab {
    folder: tempfile::TempDir,
    ip: IpAddr,
    authority: Option<Program>,
    upstream: Upstream,
    environment: Vec<(String, String)>,
}

/// A running enforcer.
pub struct Enforcer {
    /// The process.
    pub program: Program,
    address: SocketAddr,
    root: PathBuf,
    data: PathBuf,
}

impl Lab {
    /// A trust domain `example.org` with its authority initialised, not started.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ip = own_address();
        let upstream = Upstream::start(ip);
        let lab = Self {
            folder,
            ip,
            authority: None,
            upstream,
            environment: Vec::new(),
        };
        lab.agentca(&["init", "--trust-domain", "example.org", "--data", "pki"]);
        lab
    }

    /// The same, with the authority running.
    pub fn with_authority() -> Self {
        let mut lab = Self::new();
        lab.start_authority();
        lab
    }

    /// An environment variable for every program started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// A path in the lab's folder.
    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// The loopback address that nobody else uses.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// What the enforcers forward to.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// The authority's gRPC address.
    pub fn grpc(&self) -> SocketAddr {
        (self.ip, 7443).into()
    }

    /// The authority's plain HTTP address.
    pub fn http(&self) -> SocketAddr {
        (self.ip, 7080).into()
    }

    /// A command that stays in the lab: its folder, its credentials, none of the person's settings.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AGENTCA_") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("AGENTCA_URL", format!("https://{}", self.grpc()))
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `agentca` to a good end.
    #[track_caller]
    pub fn agentca(&self, arguments: &[&str]) -> Said {
        let said = self.try_agentca(arguments);
        assert!(
            said.code == Some(0),
            "`agentca {}` said {:?}: {said}",
            arguments.join(" "),
            said.code
        );
        said
    }

    /// Runs `agentca` to any end.
    pub fn try_agentca(&self, arguments: &[&str]) -> Said {
        let mut command = self.command(ours("agentca"));
        command.args(arguments);
        Said::from(command)
    }

    /// `agentca revoke`, again while an enforcer is slower to confirm than the command waits: back when it is in force.
    #[track_caller]
    pub fn revoke(&self, name: &str, reason: &str) -> Said {
        wait::until("the revocation is in force", || {
            let said = self.try_agentca(&["revoke", name, "--reason", reason]);
            match said.code {
                Some(0) => Some(said),
                Some(LAGGING) => None,
                code => panic!("`agentca revoke {name}` said {code:?}: {said}"),
            }
        })
    }

    /// Starts the authority and waits until it serves.
    pub fn start_authority(&mut self) {
        let authority = self.launch_authority();
        self.wait_for_authority(authority);
    }

    /// Starts the authority by a command of its own and waits until it serves.
    pub fn start_authority_by(&mut self, serve: Command) {
        let authority = Program::start("authority", serve, self.path("authority.txt"));
        self.wait_for_authority(authority);
    }

    fn wait_for_authority(&mut self, mut authority: Program) {
        for address in [self.grpc(), self.http()] {
            wait::until(&format!("the authority listens on {address}"), || {
                authority.must_be_running();
                std::net::TcpStream::connect(address).ok()
            });
        }
        self.authority = Some(authority);
    }

    /// Starts the authority and waits for nothing.
    pub fn launch_authority(&self) -> Program {
        let mut serve = self.command(ours("agentca"));
        let (grpc, http) = (self.grpc().to_string(), self.http().to_string());
        serve.args([
            "serve",
            "--data",
            "pki",
            "--listen",
            &grpc,
            "--http-listen",
            &http,
        ]);
        Program::start("authority", serve, self.path("authority.txt"))
    }

    /// The authority, which must have been started.
    pub fn authority(&mut self) -> &mut Program {
        self.authority.as_mut().expect("a started authority")
    }

    /// Sends the authority a signal.
    pub fn signal_authority(&self, signal: &str) {
        self.authority
            .as_ref()
            .expect("a started authority")
            .signal(signal);
    }

    /// Takes the authority out of the lab's hands.
    pub fn take_authority(&mut self) -> Program {
        self.authority.take().expect("a started authority")
    }

    /// Issues `name` the usual certificate: environment prod, scope payments:read, trust L2, one hour.
    pub fn agent(&self, name: &str) -> PathBuf {
        self.agent_with(name, &[])
    }

    /// Issues `name` a certificate, with other options in place of the usual ones.
    pub fn agent_with(&self, name: &str, options: &[&str]) -> PathBuf {
        let mut arguments = vec!["issue", name];
        let usual = [
            ("--out", name),
            ("--owner", "alice@example.org"),
            ("--env", "prod"),
            ("--scope", "payments:read"),
            ("--trust", "L2"),
            ("--ttl", "1h"),
        ];
        for (option, value) in usual {
            if !options.contains(&option) {
                arguments.extend([option, value]);
            }
        }
        arguments.extend(options);
        self.agentca(&arguments);
        let out = arguments.iter().position(|argument| *argument == "--out");
        self.path(out.map_or(name, |at| arguments[at + 1]))
    }

    /// Adds an enforcer, writes its configuration and starts it; back when it serves.
    pub fn enforcer(&self, name: &str) -> Enforcer {
        self.add_enforcer(name);
        self.write_configuration(name, "", ROUTES);
        self.start_enforcer(name)
    }

    /// `agentca enforcer add`.
    pub fn add_enforcer(&self, name: &str) {
        let ip = self.ip.to_string();
        self.agentca(&[
            "enforcer",
            "add",
            name,
            "--env",
            "prod",
            "--dns",
            "localhost",
            "--ip",
            &ip,
            "--out",
            name,
        ]);
    }

    /// Writes `<name>.toml`; `settings` are more lines before the first table, `routes` the rest.
    pub fn write_configuration(&self, name: &str, settings: &str, routes: &str) {
        let (grpc, listen) = (self.grpc(), self.listen(name));
        let authority = if settings.contains("revocation") {
            String::new()
        } else {
            format!("authority = \"https://{grpc}\"\n")
        };
        let stale = if settings.contains("stale_after") {
            ""
        } else {
            "stale_after = \"30s\"\n"
        };
        let upstream = self.upstream.address();
        let text = format!(
            "environment = \"prod\"\nlisten = \"{listen}\"\n{authority}identity_dir = \"{name}\"\n\
             data_dir = \"{name}-data\"\n{stale}{settings}\n\
             [[upstream]]\nname = \"payments\"\nurl = \"http://{upstream}\"\n{routes}"
        );
        std::fs::write(self.path(&format!("{name}.toml")), text).expect("a configuration");
    }

    /// Starts an enforcer that was added and configured, and waits until it serves.
    pub fn start_enforcer(&self, name: &str) -> Enforcer {
        let mut enforcer = self.launch_enforcer(name);
        self.wait_until_serving(&mut enforcer);
        enforcer
    }

    /// Starts an enforcer and waits for nothing.
    pub fn launch_enforcer(&self, name: &str) -> Enforcer {
        let mut run = self.command(ours("agentca-enforcer"));
        run.args(["run", "--config", &format!("{name}.toml")]);
        self.launch_enforcer_by(name, run)
    }

    /// Starts an enforcer by a command of its own.
    pub fn launch_enforcer_by(&self, name: &str, run: Command) -> Enforcer {
        let program = Program::start(name, run, self.path(&format!("{name}.txt")));
        Enforcer {
            program,
            address: self.listen(name),
            root: self.root(),
            data: self.path(&format!("{name}-data")),
        }
    }

    /// Waits until an enforcer has its feed and its witness, and answers.
    pub fn wait_until_serving(&self, enforcer: &mut Enforcer) {
        let agent = self.path("knocker");
        if !agent.is_dir() {
            self.agent("knocker");
        }
        wait::until("the enforcer serves", || {
            enforcer.program.must_be_running();
            let mut tls = enforcer.connect(&agent).ok()?;
            let answer = tls.get("/.well-known/agentca/signers").ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// The root certificate.
    pub fn root(&self) -> PathBuf {
        let root = self.path("root.crt");
        if !root.is_file() {
            let mut curl = self.command("curl");
            curl.args([
                "-sSf",
                &format!("http://{}/ca.crt", self.http()),
                "-o",
                "root.crt",
            ]);
            Said::from(curl).must_succeed();
        }
        root
    }

    fn listen(&self, name: &str) -> SocketAddr {
        let number = name
            .bytes()
            .next_back()
            .filter(u8::is_ascii_digit)
            .unwrap_or(b'0')
            - b'0';
        (self.ip, 8443 + u16::from(number)).into()
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Enforcer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The root certificate.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of its log.
    pub fn log(&self) -> PathBuf {
        self.data.join("log")
    }

    /// A TLS connection as an agent.
    pub fn connect(&self, agent: &Path) -> std::io::Result<Tls> {
        Tls::connect(self.address, agent, &self.root, "localhost")
    }
}

/// What `agentca revoke` ends with when the revocation is durable, but not yet confirmed by everybody.
pub const LAGGING: i32 = 4;

/// A loopback address for this lab alone: by process and number.
fn own_address() -> IpAddr {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let [.., lab] = number.to_be_bytes();
    Ipv4Addr::new(127, 1 + high % 250, low, lab.wrapping_add(1).clamp(1, 254)).into()
}

/// The routes of the usual configuration.
pub const ROUTES: &str = r#"
[[route]]
upstream = "payments"
methods = ["GET"]
path = "/v1/accounts/{id}"
scope = "payments:read"
min_trust = "L2"
risk = "read"

[[route]]
upstream = "payments"
methods = ["POST", "PUT"]
path = "/v1/accounts/{id}"
scope = "payments:write"
min_trust = "L2"
risk = "financial"

[[route]]
upstream = "payments"
methods = ["GET"]
path = "/v1/audits/{id}"
scope = "payments:read"
min_trust = "L4"
risk = "read"

[[route]]
upstream = "payments"
methods = ["GET", "POST"]
path = "/v1/echo"
scope = "payments:read"
min_trust = "L1"
risk = "write"

[[route]]
upstream = "payments"
methods = ["GET", "HEAD"]
path = "/v1/{what}/{detail}"
scope = "payments:read"
min_trust = "L1"
risk = "read"

[[route]]
upstream = "payments"
methods = ["GET"]
path = "/v1/{what}"
scope = "payments:read"
min_trust = "L1"
risk = "read"
"#;
