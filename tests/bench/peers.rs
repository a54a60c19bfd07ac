//! The sides of the proxy comparison: what each is and how it is started.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use agentca_identity::crypto::{KeyKind, PrivateKey};

use crate::Outcome;
use crate::process::{Core, Process, free_address, own_program};
use crate::setup::Setup;

/// A proxy under the same load.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Side {
    /// Debian's nginx, no access log.
    Nginx,
    /// Debian's haproxy, no log.
    Haproxy,
    /// Ours, everything on.
    Enforcer,
    /// The same with its log in memory: what is between the two is the disk's share.
    Diskless,
    /// hyper and rustls, nothing else.
    Bare,
    /// The same with one Ed25519 signature for each answer.
    Signing,
}

impl Side {
    /// Every side, in the order in which a round visits them.
    pub(crate) const ALL: [Self; 6] = [
        Self::Nginx,
        Self::Enforcer,
        Self::Signing,
        Self::Diskless,
        Self::Haproxy,
        Self::Bare,
    ];

    /// As tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Enforcer => "agentca-enforcer",
            Self::Diskless => "the same, log in memory",
            Self::Bare => "hyper + rustls",
            Self::Signing => "hyper + rustls + signature",
        }
    }
}

/// A running side.
pub(crate) struct Peer {
    /// Which one.
    pub(crate) side: Side,
    /// Where clients connect.
    pub(crate) addr: SocketAddr,
    /// Its process, for CPU and memory.
    pub(crate) process: Process,
}

/// What all sides share: the server's certificate, the root, the upstream.
pub(crate) struct Shared<'a> {
    /// The trust domain and its authority.
    pub(crate) setup: &'a Setup,
    /// The enforcer's name, whose certificate every side shows.
    pub(crate) enforcer: &'a str,
    /// Where the enforcer listens.
    pub(crate) enforcer_addr: SocketAddr,
    /// Another enforcer, whose log is in memory, and where it listens.
    pub(crate) diskless: (&'a str, SocketAddr),
    /// Where the requests of all sides go.
    pub(crate) upstream: SocketAddr,
}

impl Shared<'_> {
    /// Starts `side` alone on the server's core.
    pub(crate) fn start(&self, side: Side) -> Outcome<Peer> {
        let addr = match side {
            Side::Enforcer => self.enforcer_addr,
            Side::Diskless => self.diskless.1,
            Side::Nginx | Side::Haproxy | Side::Bare | Side::Signing => free_address()?,
        };
        let mut process = match side {
            Side::Nginx => self.nginx(addr)?,
            Side::Haproxy => self.haproxy(addr)?,
            Side::Enforcer => self
                .setup
                .start_enforcer(self.enforcer, addr, Core::Server)?,
            Side::Diskless => self
                .setup
                .start_enforcer(self.diskless.0, addr, Core::Server)?,
            Side::Bare => self.floor("floor", addr, None)?,
            Side::Signing => self.floor("floor-signing", addr, Some(self.signing_key()?))?,
        };
        process.await_listening(addr)?;
        Ok(Peer {
            side,
            addr,
            process,
        })
    }

    fn tls(&self, extension: &str) -> PathBuf {
        self.setup
            .dir
            .join(self.enforcer)
            .join("tls")
            .with_extension(extension)
    }

    fn nginx(&self, listen: SocketAddr) -> Outcome<Process> {
        let prefix = self.setup.dir.join("nginx");
        fs::create_dir_all(&prefix)?;
        let config = nginx_config(
            listen,
            self.upstream,
            (&self.tls("crt"), &self.tls("key")),
            &self.setup.root(self.enforcer),
        )?;
        let path = prefix.join("nginx.conf");
        fs::write(&path, config)?;
        Process::start(
            "nginx",
            Core::Server,
            Path::new("nginx"),
            &self.setup.dir,
            |command| {
                command
                    .arg("-p")
                    .arg(&prefix)
                    .arg("-c")
                    .arg(&path)
                    .args(["-e", "error.log"]);
            },
        )
    }

    fn haproxy(&self, listen: SocketAddr) -> Outcome<Process> {
        let dir = &self.setup.dir;
        let pem = dir.join("haproxy.pem");
        let mut both = fs::read_to_string(self.tls("crt"))?;
        both.push_str(&fs::read_to_string(self.tls("key"))?);
        fs::write(&pem, both)?;
        let root = self.setup.root(self.enforcer);
        let path = dir.join("haproxy.cfg");
        fs::write(&path, haproxy_config(listen, self.upstream, &pem, &root))?;
        Process::start(
            "haproxy",
            Core::Server,
            Path::new("haproxy"),
            dir,
            |command| {
                command.args(["-q", "-db", "-f"]).arg(&path);
            },
        )
    }

    fn floor(&self, name: &str, listen: SocketAddr, sign: Option<PathBuf>) -> Outcome<Process> {
        let dir = &self.setup.dir;
        Process::start(name, Core::Server, &own_program()?, dir, |command| {
            command.args(["floor", "--listen", &listen.to_string()]);
            command.args(["--upstream", &self.upstream.to_string(), "--tls"]);
            command.arg(dir.join(self.enforcer).join("tls"));
            command.arg("--root").arg(self.setup.root(self.enforcer));
            if let Some(key) = sign {
                command.arg("--sign").arg(key);
            }
        })
    }

    fn signing_key(&self) -> Outcome<PathBuf> {
        let path = self.setup.dir.join("floor-signing.key");
        let key = PrivateKey::generate(KeyKind::Ed25519)?;
        fs::write(&path, key.to_pem().as_bytes())?;
        Ok(path)
    }
}

fn nginx_config(
    listen: SocketAddr,
    upstream: SocketAddr,
    (certificate, key): (&Path, &Path),
    root: &Path,
) -> Outcome<String> {
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(temporary, "  {kind}_temp_path {kind};")?;
    }
    let (certificate, key, root) = (certificate.display(), key.display(), root.display());
    Ok(format!(
        "daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 16000;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 12000; }}
http {{
{temporary}  access_log off;
  keepalive_timeout 600s;
  keepalive_requests 1000000000;
  upstream payments {{
    server {upstream};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {listen} ssl backlog=4096;
    server_name localhost;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_client_certificate {root};
    ssl_verify_client on;
    ssl_verify_depth 3;
    ssl_protocols TLSv1.3;
    ssl_session_tickets off;
    ssl_session_cache off;
    location / {{
      proxy_pass http://payments;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Agent-Id $ssl_client_s_dn;
    }}
  }}
}}
"
    ))
}

fn haproxy_config(listen: SocketAddr, upstream: SocketAddr, pem: &Path, root: &Path) -> String {
    let (pem, root) = (pem.display(), root.display());
    format!(
        "global
  maxconn 7000
  nbthread 1
  tune.ssl.cachesize 0
  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
frontend agents
  bind {listen} ssl crt {pem} ca-file {root} verify required alpn http/1.1 backlog 4096
  http-request set-header Agent-Id %[ssl_c_s_dn]
  default_backend payments
backend payments
  http-reuse always
  server one {upstream}
"
    )
}
