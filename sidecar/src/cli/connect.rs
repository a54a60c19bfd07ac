//! `agentca-sidecar connect`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::door::{self, Door};
use crate::enforcer::{Enforcer, Limits};
use crate::holder::Holder;
use crate::loopback::{Loopback, is_loopback};
use crate::renewal;
use crate::url::{AuthorityUrl, EnforcerUrl};
use crate::verify::Verify;

/// Stand between an MCP client and an enforcer until the client, or a signal, ends it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("way").required(true).args(["stdio", "http"]))]
pub(super) struct ConnectArguments {
    /// The enforcer's endpoint
    url: EnforcerUrl,
    /// Be a local MCP server that speaks over standard input and output
    #[arg(long)]
    stdio: bool,
    /// Be an HTTP endpoint on this loopback address; its URL, with a secret, is printed
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    http: Option<SocketAddr>,
    #[command(flatten)]
    enforcer: EnforcerArguments,
    /// The authority that renews the certificate before it ends
    #[arg(
        long,
        value_name = "URL",
        env = "AGENTCA_URL",
        hide_env_values = true,
        default_value = "https://127.0.0.1:7443"
    )]
    authority: AuthorityUrl,
    /// Leave renewing to somebody else, like `agentca renew --daemon`
    #[arg(long)]
    no_renew: bool,
    /// With --http: the file whose one line is the secret, instead of a new one at each start
    #[arg(long, value_name = "FILE", requires = "http")]
    secret_file: Option<PathBuf>,
}

/// How to reach an enforcer, and what to believe.
#[derive(Debug, Args)]
pub(super) struct EnforcerArguments {
    /// The agent's folder, which `agentca issue --out DIR` wrote
    #[arg(
        long,
        value_name = "DIR",
        env = "AGENTCA_CREDENTIALS",
        hide_env_values = true
    )]
    pub(super) credentials: PathBuf,
    /// What to do with an answer that the enforcer's signature does not cover
    #[arg(long, value_enum, default_value_t = Verify::Require)]
    pub(super) verify: Verify,
    /// The most bytes of one message, either way
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    max_message: usize,
    /// The most requests at one time
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_concurrent: usize,
    /// Seconds to wait for an answer to begin
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
}

impl EnforcerArguments {
    /// The enforcer at `url`; nothing is connected yet.
    pub(super) fn enforcer(&self, url: EnforcerUrl) -> Result<Arc<Enforcer>, Failure> {
        let holder = Holder::open(&self.credentials, &url.place)?;
        let limits = Limits {
            message: self.max_message,
            concurrent: self.max_concurrent,
            answer: Duration::from_secs(self.timeout),
        };
        Ok(Arc::new(Enforcer::new(url, holder, self.verify, limits)))
    }
}

pub(super) async fn run(arguments: ConnectArguments) -> Result<(), Failure> {
    let enforcer = arguments.enforcer.enforcer(arguments.url)?;
    let watched = Arc::clone(&enforcer);
    tokio::spawn(async move { watched.holder.watch().await });
    let taking = Arc::clone(&enforcer);
    tokio::spawn(async move { taking.take_over().await });
    if !arguments.no_renew {
        let renewed = Arc::clone(&enforcer);
        let authority = arguments.authority;
        tokio::spawn(async move { renewal::keep(&renewed.holder, &authority).await });
    }
    let warmed = Arc::clone(&enforcer);
    tokio::spawn(async move { warm(&warmed).await });
    match arguments.http {
        Some(address) => {
            let secret = match &arguments.secret_file {
                Some(path) => door::read_secret(path).map_err(Failure::refused)?,
                None => door::fresh_secret(),
            };
            serve(enforcer, address, secret).await
        }
        None => Ok(crate::stdio::run(enforcer, ended()?).await?),
    }
}

/// Says at once what would fail at the first request.
async fn warm(enforcer: &Arc<Enforcer>) {
    match enforcer.warm().await {
        Ok(()) => tracing::info!(url = %enforcer.url, "connected to the enforcer"),
        Err(error) => tracing::warn!(%error, "the enforcer is not there yet"),
    }
}

async fn serve(
    enforcer: Arc<Enforcer>,
    address: SocketAddr,
    secret: zeroize::Zeroizing<String>,
) -> Result<(), Failure> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| Failure::refused(format!("could not listen on {address}: {e}")))?;
    let address = listener.local_addr()?;
    let door = Door::new(secret, address.port());
    {
        // One line: scripts read it.
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", door.url(address).as_str())?;
        out.flush()?;
    }
    let loopback = Arc::new(Loopback::new(enforcer, door));
    tokio::select! {
        ended = loopback.run(listener) => Ok(ended?),
        () = ended()? => Ok(()),
    }
}

/// Until somebody ends the program.
fn ended() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    })
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| format!("`{text}` is not like 127.0.0.1:7900"))?;
    if is_loopback(address) {
        Ok(address)
    } else {
        Err(format!(
            "`{text}` can be reached by other machines, and only the local user may use this agent's \
             certificate: listen on 127.0.0.1 or [::1]"
        ))
    }
}

const EXAMPLES: &str = "\
Examples:
  agentca-sidecar connect --stdio https://localhost:8443/mcp/payments --credentials ./support-01
  agentca-sidecar connect --http 127.0.0.1:7900 https://localhost:8443/mcp/payments \\
      --credentials ./support-01
  claude mcp add payments -- agentca-sidecar connect --stdio https://localhost:8443/mcp/payments \\
      --credentials $PWD/support-01

Every answer is verified: that the enforcer signed it, for this certificate and this request, and
that no message of a stream was changed, moved or left out. The certificate is renewed at about
two thirds of its life, and taken over when somebody else replaces it. With --http only this
machine's programs that know the printed URL are let in, or those that send its secret as
`Authorization: Bearer SECRET`.";
