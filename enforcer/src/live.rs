//! What a reload swaps: configuration, catalogue, certificates and signer, all or nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use agentca_auditlog::response::ResponseSigner;
use agentca_identity::certificate::{Certificate, Subject};
use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::{MacKey, PrivateKey};
use agentca_identity::peer::PeerVerifier;
use agentca_identity::spiffe::{LogOrigin, SpiffeId};
use bytes::Bytes;
use rustls::ServerConfig;
use tokio::runtime::Handle;

use crate::authorities::Authorities;
use crate::config::{CommandLine, Config, CredentialOptions, McpOptions, Transport, Upstream};
use crate::mcp::{Approval, Pages, SeenTools, Sessions, SharedSessions};
use crate::mcp_client::{ClientLimits, HttpEndpoint, McpClient};
use crate::ops::ProgramCounts;
use crate::road::Destination;
use crate::status::Registry;
use crate::stdio::{Stdio, StdioLimits};
use crate::tls;
use crate::upstream::{Target, TargetError, UpstreamLimits};
use crate::well_known;

/// Everything in force for new connections and requests.
#[derive(Debug)]
pub struct Live {
    config: Arc<Config>,
    tls: Arc<ServerConfig>,
    agents: Arc<PeerVerifier>,
    authorities: Authorities,
    signer: ResponseSigner,
    signers: Bytes,
    targets: HashMap<Arc<str>, Arc<Target>>,
    /// Of upstreams that speak MCP.
    mcp: HashMap<Arc<str>, McpUpstream>,
    sessions: Sessions,
    states: Arc<MacKey>,
    seen: Arc<SeenTools>,
    shared: Arc<SharedSessions>,
}

/// An upstream that speaks MCP.
#[derive(Debug)]
struct McpUpstream {
    options: McpOptions,
    /// Where its endpoint is.
    path: Box<str>,
    pages: Arc<Pages>,
    /// Its processes, when it is a program.
    program: Option<Program>,
}

/// A program, as it is configured and as it runs.
#[derive(Clone, Debug)]
struct Program {
    command: CommandLine,
    stdio: Arc<Stdio>,
}

/// What an enforcer serves with: the contents of its `identity_dir`.
#[derive(Debug)]
pub struct ServingIdentity {
    /// The root.
    pub anchor: TrustAnchor,
    /// The enforcer's certificate, leaf first, DER.
    pub chain: Vec<Vec<u8>>,
    /// Its key.
    pub key: PrivateKey,
    /// The response signer's certificate, leaf first, DER.
    pub response_chain: Vec<Vec<u8>>,
    /// Its key, Ed25519.
    pub response_key: PrivateKey,
    /// The log's name.
    pub log_origin: LogOrigin,
    /// The log signer's certificate, leaf first, DER.
    pub log_chain: Vec<Vec<u8>>,
}

/// Why nothing can be served with an identity.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// A certificate cannot be read.
    #[error("a certificate cannot be read")]
    Unreadable(#[source] agentca_identity::certificate::ReadError),
    /// `tls.crt` is no enforcer's.
    #[error("the TLS certificate is not an enforcer's: make one with `agentca enforcer add`")]
    NotAnEnforcer,
    /// The certificate and its key don't fit.
    #[error("the TLS certificate or its key cannot be used")]
    Tls(#[from] rustls::Error),
    /// The response signer's certificate or key can't be used.
    #[error("the response signer's key is not the Ed25519 key of its certificate")]
    ResponseSigner,
    /// Programs are run by a runtime.
    #[error("there is no runtime to run programs on")]
    NoRuntime,
    /// An upstream can't be reached as the configuration says.
    #[error("upstream `{0}`: {1}")]
    Upstream(String, #[source] TargetError),
}

impl Live {
    /// Prepares everything; nothing is in force until it is stored in the server's cell.
    ///
    /// # Errors
    /// [`LiveError`]: the one before stays in force.
    pub fn new(
        config: Arc<Config>,
        identity: &ServingIdentity,
        registry: &Arc<Registry>,
    ) -> Result<Self, LiveError> {
        let leaf = identity.chain.first().ok_or(LiveError::NotAnEnforcer)?;
        let leaf = Certificate::parse(leaf).map_err(LiveError::Unreadable)?;
        let Subject::Enforcer(enforcer) = leaf.subject() else {
            return Err(LiveError::NotAnEnforcer);
        };
        let agents = tls::agent_verifier(identity.anchor.clone(), registry);
        Ok(Self {
            tls: tls::server_config(&identity.chain, &identity.key, Arc::clone(&agents))?,
            agents,
            authorities: Authorities::of(enforcer),
            signer: signer(identity)?,
            signers: well_known::signers_document(identity),
            targets: targets(&config)?,
            mcp: mcp_upstreams(&config)?,
            sessions: Sessions::new(derived(identity, "agentca MCP sessions")?),
            states: Arc::new(derived(identity, "agentca MCP request states")?),
            seen: Arc::default(),
            shared: Arc::default(),
            config,
        })
    }

    /// The same, with what the one before had learnt of its upstreams.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        self.seen = Arc::clone(&before.seen);
        // No session of a server is named to another.
        let mut moved = false;
        for upstream in &self.config.upstreams {
            let known = before.config.upstreams.iter();
            let mut known = known.filter(|known| known.name == upstream.name);
            let is_another = known.any(|known| known.transport != upstream.transport);
            let (name, seen) = (&upstream.name, self.seen.of(&upstream.name));
            if is_another {
                // Nothing that was seen of the one before is true of it.
                seen.forget();
            }
            // Any other change of the configuration is nobody's word on a tool, nor that its table is gone.
            seen.judge_anew(|tool, then| {
                let now = self.approval(name, tool);
                is_another || now.is_some() && now != then
            });
            moved |= is_another;
        }
        if !moved {
            self.shared = Arc::clone(&before.shared);
        }
        for (name, upstream) in &mut self.mcp {
            let (Some(program), Some(before)) = (&mut upstream.program, before.mcp.get(name))
            else {
                continue;
            };
            match &before.program {
                Some(before) if before.command == program.command => *program = before.clone(),
                _ => {}
            }
        }
        self
    }

    /// Which definition of a tool was approved, and when.
    pub(crate) fn approval(&self, upstream: &str, tool: &str) -> Option<Approval> {
        let server = self.config.mcp_catalogue.server(upstream)?;
        Some(server.tool(tool)?.pinned.as_ref()?.approval())
    }

    /// How an upstream is reached, and what it is shown.
    pub(crate) fn transport(
        &self,
        upstream: &str,
    ) -> Option<(&Transport, Option<&CredentialOptions>)> {
        let mut known = self.config.upstreams.iter();
        let upstream = known.find(|known| known.name == upstream)?;
        Some((&upstream.transport, upstream.credentials.as_ref()))
    }

    /// Ends the programs that the configuration `after` this one has no more.
    pub async fn leave(&self, after: Option<&Self>) {
        for (name, upstream) in &self.mcp {
            let Some(program) = &upstream.program else {
                continue;
            };
            let kept = after
                .and_then(|after| after.mcp.get(name)?.program.as_ref())
                .is_some_and(|kept| Arc::ptr_eq(&kept.stdio, &program.stdio));
            if !kept {
                program.stdio.shutdown().await;
            }
        }
    }

    /// What happened to the processes of each server that is a program.
    #[must_use]
    pub fn program_counts(&self) -> Vec<ProgramCounts> {
        let programs = self
            .mcp
            .values()
            .filter_map(|upstream| upstream.program.as_ref());
        let mut counts: Vec<ProgramCounts> =
            programs.map(|program| program.stdio.counted()).collect();
        counts.sort_by(|one, other| one.upstream.cmp(&other.upstream));
        counts
    }

    /// Ends the programs that an agent has.
    pub(crate) fn end_programs(&self, agent: &str) {
        for program in self
            .mcp
            .values()
            .filter_map(|upstream| upstream.program.as_ref())
        {
            program.stdio.end_agent(agent);
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn tls(&self) -> &Arc<ServerConfig> {
        &self.tls
    }

    pub(crate) fn agents(&self) -> &PeerVerifier {
        &self.agents
    }

    pub(crate) fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    pub(crate) fn signer(&self) -> &ResponseSigner {
        &self.signer
    }

    /// The document at `/.well-known/agentca/signers`.
    pub(crate) fn signers(&self) -> &Bytes {
        &self.signers
    }

    pub(crate) fn target(&self, upstream: &str) -> Option<Arc<Target>> {
        self.targets.get(upstream).map(Arc::clone)
    }

    /// The upstreams that speak MCP.
    pub(crate) fn mcp_names(&self) -> Vec<Arc<str>> {
        self.mcp.keys().cloned().collect()
    }

    /// The upstreams that are reached at `/mcp` too, in the order of the configuration.
    pub(crate) fn shared_upstreams(&self) -> impl Iterator<Item = Arc<str>> {
        let shares = |name: &str| {
            let (name, upstream) = self.mcp.get_key_value(name)?;
            upstream.options.shared.then(|| Arc::clone(name))
        };
        let upstreams = self.config.upstreams.iter();
        upstreams.filter_map(move |upstream| shares(&upstream.name))
    }

    pub(crate) fn shared_sessions(&self) -> &SharedSessions {
        &self.shared
    }

    /// A client of an upstream that speaks MCP, with its processes when it is a program. `own` is whose
    /// credential it shows.
    pub(crate) fn mcp_client(
        &self,
        upstream: &str,
        own: &SpiffeId,
    ) -> Option<(McpClient, Option<Arc<Stdio>>)> {
        let limits = ClientLimits {
            answer_max: self.config.limits.message_max,
            ..ClientLimits::default()
        };
        if let Some(program) = &self.mcp.get(upstream)?.program {
            let stdio = Arc::clone(&program.stdio);
            return Some((McpClient::program(Arc::clone(&stdio), limits), Some(stdio)));
        }
        let target = self.target(upstream)?;
        let endpoint = HttpEndpoint::shown_to(target, own.clone());
        Some((McpClient::http(endpoint, limits), None))
    }

    /// The upstream of this name that speaks MCP.
    pub(crate) fn mcp_upstream(&self, name: &str) -> Option<(Arc<str>, McpOptions)> {
        let (name, upstream) = self.mcp.get_key_value(name)?;
        Some((Arc::clone(name), upstream.options.clone()))
    }

    /// Where a message of MCP goes, and the path there.
    pub(crate) fn destination(&self, upstream: &str) -> Option<(Destination, Box<str>)> {
        let speaks = self.mcp.get(upstream)?;
        let destination = match &speaks.program {
            Some(program) => Destination::Program(Arc::clone(&program.stdio)),
            None => Destination::Http(self.target(upstream)?),
        };
        Some((destination, speaks.path.clone()))
    }

    /// The longest that a server of MCP may say nothing.
    pub(crate) fn mcp_pause(&self, upstream: &str) -> Duration {
        self.mcp
            .get(upstream)
            .map_or(self.config.limits.upstream_timeout, |upstream| {
                upstream.options.timeout
            })
    }

    /// Pages of an upstream's list of tools that were read under this catalogue.
    pub(crate) fn pages(&self, upstream: &str) -> Option<Arc<Pages>> {
        Some(Arc::clone(&self.mcp.get(upstream)?.pages))
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// What states of unfinished calls are sealed with.
    pub(crate) fn states(&self) -> &Arc<MacKey> {
        &self.states
    }

    pub(crate) fn seen_tools(&self) -> &Arc<SeenTools> {
        &self.seen
    }

    pub(crate) fn upstream_limits(&self) -> UpstreamLimits {
        let limits = &self.config.limits;
        UpstreamLimits {
            connect_timeout: limits.upstream_connect_timeout,
            idle_timeout: limits.upstream_idle_timeout,
            idle_max: limits.upstream_idle_max,
            head_max: limits.head_max,
        }
    }
}

fn targets(config: &Config) -> Result<HashMap<Arc<str>, Arc<Target>>, LiveError> {
    let targets = config.upstreams.iter().filter_map(|upstream| {
        let name = upstream.name.clone();
        Some(match Target::of(upstream)? {
            Ok(target) => Ok((Arc::clone(&target.name), Arc::new(target))),
            Err(error) => Err(LiveError::Upstream(name, error)),
        })
    });
    targets.collect()
}

fn mcp_upstreams(config: &Config) -> Result<HashMap<Arc<str>, McpUpstream>, LiveError> {
    let mut upstreams = HashMap::new();
    for upstream in &config.upstreams {
        let Some(options) = upstream.mcp.clone() else {
            continue;
        };
        let (path, program) = match &upstream.transport {
            Transport::Http(place) => (place.path.as_str(), None),
            Transport::Command(command) => ("/", Some(program(config, upstream, command)?)),
        };
        let speaks = McpUpstream {
            options,
            path: path.into(),
            pages: Arc::default(),
            program,
        };
        upstreams.insert(upstream.name.as_str().into(), speaks);
    }
    Ok(upstreams)
}

/// Not one process of it runs yet; all will on the control plane's runtime.
fn program(
    config: &Config,
    upstream: &Upstream,
    command: &CommandLine,
) -> Result<Program, LiveError> {
    let limits = StdioLimits {
        max_processes: command.max_processes,
        idle: command.idle,
        line_max: config.limits.message_max,
        ..StdioLimits::default()
    };
    let handle = Handle::try_current().map_err(|_| LiveError::NoRuntime)?;
    Ok(Program {
        command: command.clone(),
        stdio: Stdio::new(&upstream.name, command.clone(), limits, handle),
    })
}

/// A key that comes from the response signer's: what is sealed with it lasts as long as that.
fn derived(identity: &ServingIdentity, purpose: &str) -> Result<MacKey, LiveError> {
    MacKey::derive(&identity.response_key, purpose).ok_or(LiveError::ResponseSigner)
}

fn signer(identity: &ServingIdentity) -> Result<ResponseSigner, LiveError> {
    let leaf = identity
        .response_chain
        .first()
        .ok_or(LiveError::ResponseSigner)?;
    let leaf = Certificate::parse(leaf).map_err(LiveError::Unreadable)?;
    if *leaf.public_key() != *identity.response_key.public_key() {
        return Err(LiveError::ResponseSigner);
    }
    ResponseSigner::new(identity.response_key.clone(), leaf.not_after())
        .map_err(|_| LiveError::ResponseSigner)
}
