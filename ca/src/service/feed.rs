//! The feed's service: hello, judgement of where both sides stand, then the stream.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use agentca_auditlog::checkpoint::{Checkpoint, CheckpointError};
use agentca_auditlog::heartbeat::Heartbeat;
use agentca_auditlog::log::{Log, ReadError};
use agentca_auditlog::note::VerifierKey;
use agentca_identity::name::Environment;
use agentca_proto as proto;
use agentca_proto::feed_server::Feed;
use agentca_proto::follow_request::Message as Asked;
use agentca_proto::follow_response::Message as Said;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::{split, status, wire};
use crate::authority::change::Caller;
use crate::authority::core::Authority;
use crate::authority::handle::Handle;
use crate::authority::refusal::Refusal;
use crate::feed::{Source, Start, Subscription, TailError, catch_up, hash_of};
use crate::witness::{WitnessAsk, WitnessError, Witnessed};

/// What enforcers follow.
#[derive(Clone, Debug)]
pub struct FeedService {
    /// The authority.
    pub authority: Arc<Authority>,
    /// Where catching up reads.
    pub source: Source,
    /// The key of the authority's own log.
    pub own_key: VerifierKey,
}

type FollowStream = Pin<Box<dyn Stream<Item = Result<proto::FollowResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Feed for FeedService {
    type FollowStream = FollowStream;

    async fn follow(
        &self,
        request: Request<Streaming<proto::FollowRequest>>,
    ) -> Result<Response<FollowStream>, Status> {
        let (caller, mut asked) = split(request)?;
        let enforcer = self.demand(&caller)?;
        if *self.source.hub.closed().borrow() {
            return Err(Status::unavailable("the authority is stopping"));
        }
        let first = tokio::time::timeout(HELLO_TIME, asked.message())
            .await
            .map_err(|_| Status::deadline_exceeded("say hello first"))??;
        let Some(proto::FollowRequest {
            message: Some(Asked::Hello(hello)),
        }) = first
        else {
            return Err(Status::invalid_argument("say hello first"));
        };
        let environment: Environment =
            wire::text("environment", &hello.environment).map_err(|e| status(&e))?;
        if environment != enforcer.environment {
            return Err(Status::permission_denied(
                "an enforcer follows its own environment only",
            ));
        }
        let start = self.judge_position(&environment, &hello).await?;
        let welcome = self.welcome(hello.floor_checkpoint).await?;
        let stale_after = Duration::from_millis(hello.stale_after_ms);
        self.authority
            .followers
            .connected(&enforcer, hello.status_number, stale_after);
        let stream = self.stream(caller, enforcer, start, welcome, asked);
        Ok(Response::new(stream))
    }

    async fn witness(
        &self,
        request: Request<proto::WitnessRequest>,
    ) -> Result<Response<proto::WitnessResponse>, Status> {
        let (caller, asked) = split(request)?;
        let enforcer = self.demand(&caller)?;
        let proto::WitnessRequest {
            old_size,
            consistency,
            checkpoint,
            floor_checkpoint,
        } = asked;
        let floor = self.welcome(floor_checkpoint).await?;
        let consistency = consistency.iter().map(|hash| hash.as_slice().try_into());
        let consistency = consistency
            .collect::<Result<Vec<[u8; 32]>, _>>()
            .map_err(|_| Status::invalid_argument("a proof consists of 32-byte hashes"))?;
        let stale_after = self.authority.followers.stale_after(&enforcer);
        let ask = WitnessAsk {
            enforcer,
            old_size,
            consistency,
            checkpoint,
            stale_after,
        };
        let witnessed = self
            .authority
            .witness
            .ask(ask)
            .await
            .map_err(|e| witness_status(&e))?;
        let (cosignature, held_size) = match witnessed {
            Witnessed::Cosigned(line, size) => (line, size),
            Witnessed::Held(size) => (String::new(), size),
        };
        if !cosignature.is_empty() {
            self.authority.metrics.witnessed.increment();
        }
        Ok(Response::new(proto::WitnessResponse {
            cosignature,
            held_size,
            authority_checkpoint: floor.checkpoint,
            authority_consistency: floor.consistency,
            // Read after the cosignature was made: the chain is of its time, or newer.
            witness_chain: self.authority.signers.chains().witness,
        }))
    }
}

impl FeedService {
    fn demand(&self, caller: &Caller) -> Result<Handle, Status> {
        let demanded = self
            .authority
            .sequencer
            .read(|state, clock| caller.demand_enforcer(state, clock));
        demanded.and_then(|handle| handle).map_err(|refusal| {
            self.authority.metrics.refused.increment();
            status(&refusal)
        })
    }

    /// An enforcer never got more than what was durable. If it has more, or something else, and shows
    /// our own signature over it, then this authority was restored from an older copy. Without the
    /// signature it is only a claim: it is refused, and nobody else is stopped by it.
    async fn judge_position(
        &self,
        environment: &Environment,
        hello: &proto::Hello,
    ) -> Result<Start, Status> {
        if hello.status_number == 0 {
            return Ok(Start::Anew);
        }
        let newest = self.source.hub.sent(environment).number;
        if hello.status_number > newest {
            let number = hello.status_number;
            let why = format!(
                "an enforcer of `{environment}` has status record {number}, this authority only {newest}"
            );
            return Err(self.elsewhere(environment, hello, why));
        }
        let ours = hash_of(&self.source, environment, hello.status_number);
        match ours.await.map_err(|e| tail_status(&e))? {
            Some(ours) if ours.as_slice() == hello.status_hash => {
                Ok(Start::Behind(hello.status_number))
            }
            _ => {
                let number = hello.status_number;
                let why =
                    format!("an enforcer of `{environment}` has another status record {number}");
                Err(self.elsewhere(environment, hello, why))
            }
        }
    }

    fn elsewhere(&self, environment: &Environment, hello: &proto::Hello, why: String) -> Status {
        let signed = Heartbeat::open(hello.heartbeat.as_bytes(), &self.own_key).is_ok_and(|beat| {
            beat.environment == *environment
                && beat.status_number == hello.status_number
                && beat.status_hash.as_slice() == hello.status_hash
        });
        if signed {
            return self.rolled_back(why);
        }
        tracing::warn!(%why, "an enforcer was refused: it shows no signature over its position");
        Status::failed_precondition(format!(
            "{why}, and it shows no heartbeat that says so; restart the enforcer to begin anew"
        ))
    }

    /// Our head, proven to extend the floor: the newest checkpoint of ours that the caller has.
    async fn welcome(&self, floor: String) -> Result<proto::Welcome, Status> {
        let log = Arc::clone(self.authority.sequencer.log());
        let key = self.own_key.clone();
        let welcome = tokio::task::spawn_blocking(move || welcome(&log, &key, &floor))
            .await
            .map_err(|_| Status::internal("a task failed"))?;
        welcome.map_err(|error| match error {
            FloorError::RolledBack(why) => self.rolled_back(why),
            FloorError::Unreadable(error) => {
                Status::invalid_argument(format!("the floor checkpoint is refused: {error}"))
            }
            FloorError::Log(why) => Status::unavailable(format!("the log cannot be read: {why}")),
        })
    }

    fn rolled_back(&self, why: String) -> Status {
        let said = format!(
            "{why}: it was restored from an older copy, or its log was rolled back; restore the newest \
             copy of the data directory"
        );
        self.authority.alarm.raise(said.clone());
        Status::failed_precondition(said)
    }

    /// Welcome, what was missed, then what comes.
    fn stream(
        &self,
        caller: Caller,
        enforcer: Handle,
        start: Start,
        welcome: proto::Welcome,
        asked: Streaming<proto::FollowRequest>,
    ) -> FollowStream {
        let (out, missed) = mpsc::channel(CATCH_UP_QUEUE);
        let (live, coming) = oneshot::channel();
        let (subscribed, subscription) = oneshot::channel();
        let source = self.source.clone();
        let environment = enforcer.environment.clone();
        tokio::spawn(async move {
            let welcome = proto::FollowResponse {
                message: Some(Said::Welcome(welcome)),
            };
            if out.send(Ok(welcome)).await.is_err() {
                return;
            }
            let subscribe = |subscription: Subscription| {
                let Subscription { updates, id, .. } = subscription;
                // The receiver of both is this connection: when it is gone, so is the wish.
                let _gone = live.send(updates);
                let _gone = subscribed.send(id);
            };
            if let Err(error) = catch_up(&source, &environment, start, &out, subscribe).await {
                tracing::warn!(%environment, %error, "an enforcer was not caught up");
                let _gone = out.send(Err(tail_status(&error))).await;
            }
        });
        let guard = Connection {
            service: self.clone(),
            enforcer: enforcer.clone(),
        };
        tokio::spawn(confirmations(
            self.clone(),
            caller,
            guard,
            asked,
            subscription,
        ));
        Box::pin(ReceiverStream::new(missed).chain(Coming::Soon(coming)))
    }
}

/// Live updates, once there is a subscription.
enum Coming {
    Soon(oneshot::Receiver<Updates>),
    Live(Updates),
}

type Updates = mpsc::Receiver<Arc<proto::Update>>;

impl Stream for Coming {
    type Item = Result<proto::FollowResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Self::Soon(soon) = &mut *self {
            match std::task::ready!(Pin::new(soon).poll(cx)) {
                Ok(updates) => *self = Self::Live(updates),
                Err(_) => return Poll::Ready(None),
            }
        }
        let Self::Live(updates) = &mut *self else {
            return Poll::Ready(None);
        };
        let update = std::task::ready!(updates.poll_recv(cx));
        Poll::Ready(update.map(|update| {
            let update = proto::Update::clone(&update);
            Ok(proto::FollowResponse {
                message: Some(Said::Update(update)),
            })
        }))
    }
}

/// Reads confirmations until the enforcer goes, its certificate ends, or it is removed.
async fn confirmations(
    service: FeedService,
    caller: Caller,
    connection: Connection,
    mut asked: Streaming<proto::FollowRequest>,
    subscription: oneshot::Receiver<u64>,
) {
    let environment = connection.enforcer.environment.clone();
    let mut closed = service.source.hub.closed();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = closed.wait_for(|closed| *closed) => break,
            message = asked.message() => match message {
                Ok(Some(proto::FollowRequest { message: Some(Asked::Confirm(confirm)) })) => {
                    let sent = service.source.hub.sent(&environment).number;
                    let number = confirm.status_number.min(sent);
                    service.authority.followers.confirmed(&connection.enforcer, number);
                }
                _ => break,
            },
            _ = second.tick() => {
                if service.demand(&caller).is_err() {
                    break;
                }
            }
        }
    }
    if let Ok(id) = subscription.await {
        service.source.hub.unsubscribe(&environment, id);
    }
}

/// A follower's connection, counted as long as it lives.
struct Connection {
    service: FeedService,
    enforcer: Handle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.service
            .authority
            .followers
            .disconnected(&self.enforcer);
    }
}

enum FloorError {
    RolledBack(String),
    Unreadable(CheckpointError),
    Log(String),
}

fn welcome(log: &Log, key: &VerifierKey, floor: &str) -> Result<proto::Welcome, FloorError> {
    let floor = Checkpoint::open(floor.as_bytes(), key).map_err(FloorError::Unreadable)?;
    if floor.size > log.durable() {
        let (theirs, ours) = (floor.size, log.durable());
        return Err(FloorError::RolledBack(format!(
            "an enforcer holds a checkpoint of this authority's log over {theirs} records, it has {ours}"
        )));
    }
    let read = |e: ReadError| FloorError::Log(e.to_string());
    let mut newest = log.checkpoint();
    if newest.checkpoint.size < floor.size {
        newest = log
            .publish_now()
            .map_err(|e| FloorError::Log(e.to_string()))?;
    }
    if log.root_at(floor.size).map_err(read)? != floor.root {
        return Err(FloorError::RolledBack(format!(
            "an enforcer holds a checkpoint of this authority's log over {} records that it does not extend",
            floor.size
        )));
    }
    let consistency = match floor.size {
        0 => Vec::new(),
        size => log
            .consistency(size, newest.checkpoint.size)
            .map_err(read)?,
    };
    Ok(proto::Welcome {
        checkpoint: newest.note.clone(),
        consistency: consistency.iter().map(|hash| hash.to_vec()).collect(),
    })
}

fn tail_status(error: &TailError) -> Status {
    Status::unavailable(error.to_string())
}

fn witness_status(error: &WitnessError) -> Status {
    match error {
        WitnessError::Checkpoint(_) => Status::invalid_argument(error.to_string()),
        WitnessError::NoKey => {
            tracing::warn!(%error, "an enforcer's log was not co-signed");
            Status::failed_precondition(error.to_string())
        }
        WitnessError::Refused(refusal) => status(refusal),
        WitnessError::Cosign(_) => status(&Refusal::Internal(error.to_string())),
    }
}

/// How long a connection may take to say hello.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Messages that wait while an enforcer is caught up.
const CATCH_UP_QUEUE: usize = 16;
