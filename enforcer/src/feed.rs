//! Following the authority's status feed.
//!
//! One task connects, says where it stands, verifies what comes and puts it into force, then
//! confirms. A lost connection leaves the registry to its deadline; a broken rule makes it stale at
//! once. Either way the task comes back after two seconds at most.

mod chain;
#[cfg(test)]
mod fake;
mod link;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentca_auditlog::status::Snapshot;
use agentca_identity::crypto::sha256;
use agentca_proto::feed_client::FeedClient;
use agentca_proto::follow_request::Message as Request;
use agentca_proto::follow_response::Message as Response;
use agentca_proto::{Confirm, FollowRequest, FollowResponse, Hello, SnapshotChunk, Update};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use self::chain::{Chain, FeedFault, SnapshotClaim};
use self::link::LinkError;
use crate::config::AuthorityUrl;
use crate::credentials::Credentials;
use crate::floor::{Floor, FloorError};
use crate::setting::Settings;
use crate::status::{FeedState, Registry};

/// The task's means.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) authority: AuthorityUrl,
    pub(crate) settings: Arc<Settings>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) floor: Arc<Floor>,
    /// Tells the witness which connection to ask over; none while nothing is verified.
    pub(crate) links: watch::Sender<Option<Channel>>,
}

impl Follower {
    /// Follows for ever.
    pub(crate) async fn run(self) -> Infallible {
        let mut chain = Chain::new(self.settings.config().environment.clone());
        let mut backoff = BACKOFF_LEAST;
        let mut said: Option<(&'static str, Instant)> = None;
        loop {
            let verified = chain.position();
            let error = match self.follow(&mut chain).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            self.links.send_replace(None);
            if error.is_fault() {
                self.registry.distrust();
                tracing::error!(%error, "status feed refused: every request is denied as stale");
            } else {
                let (authority, advice) = (&self.authority.uri, error.advice());
                // Anew when it is another reason, or after it was followed in between.
                let again =
                    said.is_none_or(|(before, at)| before != advice || at.elapsed() > REPEAT);
                if again || chain.position() != verified {
                    said = Some((advice, Instant::now()));
                    tracing::warn!(%authority, %error, "no status feed: {advice}; trying again");
                }
            }
            if chain.position() != verified {
                backoff = BACKOFF_LEAST;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MOST);
        }
    }

    async fn follow(&self, chain: &mut Chain) -> Result<Infallible, FeedError> {
        let credentials = self.settings.credentials();
        let channel = link::connect(&self.authority, &credentials).await?;
        chain.restart();
        let floor = self.floor.newest();
        let (requests, outbound) = mpsc::channel(OUTBOUND);
        let hello = Hello {
            environment: self.settings.config().environment.to_string(),
            status_number: chain.position().number,
            status_hash: hash_or_empty(chain),
            floor_checkpoint: floor.note.clone(),
            stale_after_ms: u64::try_from(self.settings.config().stale_after.as_millis())
                .unwrap_or(u64::MAX),
            heartbeat: chain.evidence().to_owned(),
        };
        let hello = FollowRequest {
            message: Some(Request::Hello(hello)),
        };
        requests.send(hello).await.map_err(|_| FeedError::Closed)?;
        let mut client = FeedClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let following = client.follow(ReceiverStream::new(outbound));
        let mut stream = within(following).await??.into_inner();
        let Response::Welcome(welcome) = next(&mut stream).await? else {
            return Err(FeedFault::Order("a welcome is due first").into());
        };
        let proof = &welcome.consistency;
        self.floor.advance(
            &floor,
            &welcome.checkpoint,
            proof,
            &credentials.authority_key,
        )?;
        tracing::info!(authority = %self.authority.uri, "status feed connected");
        let mut session = Session {
            follower: self,
            chain,
            credentials,
            snapshot: None,
        };
        loop {
            let message = next(&mut stream).await?;
            if let Some(number) = session.take(message).await? {
                // Said only now that everything up to it is in force. When the authority does not
                // read, a later confirmation will say the same and more.
                let confirm = Request::Confirm(Confirm {
                    status_number: number,
                });
                let confirm = FollowRequest {
                    message: Some(confirm),
                };
                if let Err(mpsc::error::TrySendError::Closed(_)) = requests.try_send(confirm) {
                    return Err(FeedError::Closed);
                }
                if self.links.borrow().is_none() {
                    self.links.send_replace(Some(channel.clone()));
                }
            }
        }
    }
}

/// One connection's course.
struct Session<'a> {
    follower: &'a Follower,
    chain: &'a mut Chain,
    credentials: Arc<Credentials>,
    snapshot: Option<Gathering>,
}

/// A snapshot on its way.
enum Gathering {
    Bytes(Vec<u8>),
    Loaded(Box<(SnapshotClaim, FeedState)>),
}

impl Session<'_> {
    /// Gives the number that is in force after a heartbeat.
    async fn take(&mut self, message: Response) -> Result<Option<u64>, FeedError> {
        match message {
            Response::Welcome(_) => Err(FeedFault::Order("a second welcome").into()),
            Response::Snapshot(chunk) => self.gather(chunk).await.map(|()| None),
            Response::Update(update) => self.update(&update).map_err(Into::into),
        }
    }

    async fn gather(&mut self, chunk: SnapshotChunk) -> Result<(), FeedError> {
        let SnapshotChunk { data, total } = chunk;
        let mut bytes = match self.snapshot.take() {
            None => Vec::new(),
            Some(Gathering::Bytes(bytes)) => bytes,
            Some(Gathering::Loaded(_)) => {
                return Err(FeedFault::Order("a chunk after the snapshot's end").into());
            }
        };
        bytes.extend_from_slice(&data);
        let gathered = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if total > MAX_SNAPSHOT || gathered > total {
            return Err(FeedFault::Order("a snapshot longer than announced").into());
        }
        self.snapshot = Some(if gathered < total {
            Gathering::Bytes(bytes)
        } else {
            let environment = self.follower.settings.config().environment.clone();
            let loading = tokio::task::spawn_blocking(move || load(&bytes, &environment));
            Gathering::Loaded(Box::new(loading.await.map_err(|_| FeedError::Closed)??))
        });
        Ok(())
    }

    fn update(&mut self, update: &Update) -> Result<Option<u64>, FeedFault> {
        let arrived = Instant::now();
        let Update { records, heartbeat } = update;
        let loaded = match self.snapshot.take() {
            None => None,
            Some(Gathering::Loaded(loaded)) => Some(*loaded),
            Some(Gathering::Bytes(_)) => {
                return Err(FeedFault::Order("an update within a snapshot"));
            }
        };
        if loaded.is_some() && heartbeat.is_empty() {
            return Err(FeedFault::Order("a snapshot without a heartbeat"));
        }
        let claim = loaded.as_ref().map(|(claim, _)| *claim);
        let key = &self.credentials.authority_key;
        let Some(step) = self.chain.update(records, heartbeat, claim, key)? else {
            return Ok(None);
        };
        let registry = &self.follower.registry;
        match loaded {
            Some((claim, state)) => {
                let covers = claim.covers.number;
                tracing::info!(certificates = state.len(), covers, "snapshot");
                registry.replace(state, covers, &step.records);
            }
            None => registry.apply(&step.records),
        }
        registry.heartbeat(step.time, arrived);
        Ok(Some(self.chain.position().number))
    }
}

/// Reads a snapshot into a state of its own, on a thread that may take its time.
fn load(
    bytes: &[u8],
    environment: &agentca_identity::name::Environment,
) -> Result<(SnapshotClaim, FeedState), FeedFault> {
    let snapshot =
        Snapshot::read(bytes).map_err(|error| FeedFault::SnapshotUnreadable(error.to_string()))?;
    let claim = SnapshotClaim::of(&snapshot, sha256(bytes), environment)?;
    Ok((claim, FeedState::from_snapshot(&snapshot)))
}

async fn next(stream: &mut Streaming<FollowResponse>) -> Result<Response, FeedError> {
    let response = within(stream.message()).await??.ok_or(FeedError::Closed)?;
    response
        .message
        .ok_or_else(|| FeedFault::Order("an empty message").into())
}

/// The authority says something every second.
async fn within<F: Future>(future: F) -> Result<F::Output, FeedError> {
    tokio::time::timeout(SILENCE, future)
        .await
        .map_err(|_| FeedError::Silent)
}

fn hash_or_empty(chain: &Chain) -> Vec<u8> {
    match chain.position().number {
        0 => Vec::new(),
        _ => chain.position().hash.to_vec(),
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the authority answered: {} ({:?})", .0.message(), .0.code())]
    Status(#[from] tonic::Status),
    #[error("the authority closed the connection")]
    Closed,
    #[error("the authority said nothing for {} s", SILENCE.as_secs())]
    Silent,
    #[error(transparent)]
    Fault(#[from] FeedFault),
    #[error(transparent)]
    Floor(#[from] FloorError),
}

impl FeedError {
    /// What to look at.
    fn advice(&self) -> &'static str {
        match self {
            Self::Link(error) => error.advice(),
            Self::Status(status) => match status.code() {
                Code::PermissionDenied | Code::Unauthenticated => {
                    "the authority refuses this enforcer: it was removed or its certificate revoked; \
                     write its folder again with `agentca enforcer add NAME --env ENV --dns HOST \
                     --force --out DIR`"
                }
                _ => {
                    "the authority did not take the connection: it may be stopping, or have revoked this \
                     enforcer's certificate"
                }
            },
            Self::Closed | Self::Silent => "the connection to the authority was lost",
            Self::Fault(_) | Self::Floor(_) => "what the authority says is refused",
        }
    }

    /// Whether the authority broke a rule, rather than the connection.
    fn is_fault(&self) -> bool {
        matches!(self, Self::Fault(_) | Self::Floor(_))
    }
}

const BACKOFF_LEAST: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_secs(2);
/// How often the same reason is logged.
const REPEAT: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_secs(5);
const OUTBOUND: usize = 64;
const MAX_MESSAGE: usize = 64 << 20;
const MAX_SNAPSHOT: u64 = 4 << 30;

#[cfg(test)]
mod tests;
