//! The PKI under the benchmark, made by the real programs in a directory of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::process::{Core, Process, free_address, output, own_program, pinned};
use crate::tls::Credential;

/// The trust domain of everything the benchmark makes.
const TRUST_DOMAIN: &str = "bench.example";

/// A running authority and upstream, and a directory for all that is made.
pub(crate) struct Setup {
    /// Where keys, logs and configurations lie.
    pub(crate) dir: PathBuf,
    /// Where the programs are.
    pub(crate) programs: PathBuf,
    /// The authority's gRPC address.
    pub(crate) authority_addr: SocketAddr,
    /// The authority.
    pub(crate) authority: Process,
    /// Where the upstream listens.
    pub(crate) upstream_addr: SocketAddr,
    _upstream: Process,
}

impl Setup {
    /// Makes a trust domain in `dir`, starts its authority on `core`, and an upstream.
    pub(crate) fn create(dir: &Path, programs: &Path, core: Core) -> Outcome<Self> {
        fs::create_dir_all(dir)?;
        let dir = dir.canonicalize()?;
        let authority_addr = free_address()?;
        let init = ["init", "--trust-domain", TRUST_DOMAIN, "--data", "pki"];
        output(agentca(&dir, programs, authority_addr).args(init))?;
        let authority = serve(&dir, programs, authority_addr, core)?;
        let upstream_addr = free_address()?;
        let mut upstream =
            Process::start("upstream", Core::Load, &own_program()?, &dir, |command| {
                command.args(["upstream", "--listen", &upstream_addr.to_string()]);
            })?;
        upstream.await_listening(upstream_addr)?;
        let programs = programs.to_owned();
        let setup = Self {
            dir,
            programs,
            authority_addr,
            authority,
            upstream_addr,
            _upstream: upstream,
        };
        Ok(setup)
    }

    /// Issues an agent's certificate into `name/`.
    pub(crate) fn issue(&self, name: &str, environment: &str) -> Outcome<Credential> {
        self.issue_with(name, environment, &["payments:read"])
    }

    /// The same, for these scopes.
    pub(crate) fn issue_with(
        &self,
        name: &str,
        environment: &str,
        scopes: &[&str],
    ) -> Outcome<Credential> {
        let issue = [
            "issue",
            name,
            "--owner",
            "bench@bench.example",
            "--env",
            environment,
        ];
        let rights = ["--trust", "L2", "--ttl", "6h", "--out", name];
        let scopes = scopes.iter().flat_map(|scope| ["--scope", scope]);
        output(self.agentca().args(issue).args(rights).args(scopes))?;
        Credential::read(&self.dir.join(name).join("agent"))
    }

    /// Adds an enforcer, writing `name/` and `name.toml`; returns where it will listen.
    pub(crate) fn add_enforcer(&self, name: &str, environment: &str) -> Outcome<SocketAddr> {
        let data_dir = self.dir.join(format!("{name}-data"));
        self.add_enforcer_with(name, environment, &data_dir)
    }

    /// The same, with its log in `data_dir`.
    pub(crate) fn add_enforcer_with(
        &self,
        name: &str,
        environment: &str,
        data_dir: &Path,
    ) -> Outcome<SocketAddr> {
        let tables = format!(
            r#"[[upstream]]
name = "payments"
url = "http://{}"
[[route]]
upstream = "payments"
methods = ["GET"]
path = "/v1/accounts/{{id}}"
scope = "payments:read"
min_trust = "L2"
risk = "read"
"#,
            self.upstream_addr
        );
        self.add_enforcer_of(name, environment, data_dir, &tables)
    }

    /// The same, with these `tables` behind what every enforcer is configured with.
    pub(crate) fn add_enforcer_of(
        &self,
        name: &str,
        environment: &str,
        data_dir: &Path,
        tables: &str,
    ) -> Outcome<SocketAddr> {
        let add = [
            "enforcer",
            "add",
            name,
            "--env",
            environment,
            "--dns",
            "localhost",
        ];
        output(
            self.agentca()
                .args(add)
                .args(["--ip", "127.0.0.1", "--out", name]),
        )?;
        let listen = free_address()?;
        let authority = self.authority_addr;
        let data_dir = data_dir.display();
        let config = format!(
            r#"environment = "{environment}"
listen = "{listen}"
authority = "https://{authority}"
identity_dir = "{name}"
data_dir = "{data_dir}"
stale_after = "30s"
{tables}"#
        );
        fs::write(self.dir.join(format!("{name}.toml")), config)?;
        Ok(listen)
    }

    /// Starts an enforcer that was added.
    pub(crate) fn start_enforcer(
        &self,
        name: &str,
        listen: SocketAddr,
        core: Core,
    ) -> Outcome<Process> {
        let program = self.programs.join("agentca-enforcer");
        let config = self.dir.join(format!("{name}.toml"));
        let mut enforcer = Process::start(name, core, &program, &self.dir, |command| {
            command.args(["run", "--config"]).arg(config);
        })?;
        enforcer.await_listening(listen)?;
        Ok(enforcer)
    }

    /// The credential that `init` made for the first person.
    pub(crate) fn admin(&self) -> Outcome<Credential> {
        let store = self.dir.join("config").join("agentca");
        for folder in fs::read_dir(&store)? {
            let stem = folder?.path().join("person");
            if stem.with_extension("crt").exists() {
                return Credential::read(&stem);
            }
        }
        Err(format!("no person's credential in {}", store.display()).into())
    }

    /// The root certificate.
    pub(crate) fn root(&self, beside: &str) -> PathBuf {
        self.dir.join(beside).join("ca.crt")
    }

    /// The CLI, as the first person.
    pub(crate) fn agentca(&self) -> Command {
        agentca(&self.dir, &self.programs, self.authority_addr)
    }
}

fn agentca(dir: &Path, programs: &Path, authority: SocketAddr) -> Command {
    let mut command = pinned(Core::Any, &programs.join("agentca"));
    command
        .current_dir(dir)
        .env("XDG_CONFIG_HOME", dir.join("config"))
        .env("AGENTCA_URL", format!("https://{authority}"));
    command
}

fn serve(dir: &Path, programs: &Path, listen: SocketAddr, core: Core) -> Outcome<Process> {
    let http = free_address()?.to_string();
    let listen_on = listen.to_string();
    let program = programs.join("agentca");
    let mut authority = Process::start("authority", core, &program, dir, |command| {
        command
            .current_dir(dir)
            .args(["serve", "--data", "pki", "--listen", &listen_on]);
        command.args(["--http-listen", &http]);
    })?;
    authority.await_listening(listen)?;
    Ok(authority)
}
